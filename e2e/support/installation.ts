import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, onTestFailed } from "vitest";
import { parse } from "yaml";
import { findContainers } from "./container.ts";
import { findPrometheusOperator } from "./definitions.ts";
import { findHelm } from "./helm.ts";
import { makeRootFileSystem } from "./image.ts";
import { type AnyObject, create, describeWithKube } from "./kube.ts";
import { type PlayedPod, playCluster } from "./kubelet.ts";
import { type Running, show } from "./processes.ts";
import { userOf } from "./release.ts";
import { describeWith } from "./tools.ts";

/** A cluster to install the chart into, and what a test of it needs to see. */
export interface Installation {
  namespace: string;
  /** helm and kubectl in the release's namespace. */
  user: ReturnType<typeof userOf>;
  kubeconfig: string;
  /** What the values have to say beside what a test is about. */
  values: AnyObject;
  /** Where kubelets are played: runs a pod that no controller has made to its end. */
  runToEnd(name: string): Promise<Running | undefined>;
  /** The nodes, and where on this machine their checkpoint directory is. */
  nodes: Array<{ name: string; directory: string }>;
  /** Whether this machine reaches pods only through the API server. */
  isRemote: boolean;
  /** Waits until the pods are those that the API server's objects want. */
  settle(): Promise<void>;
  /** The pods that run on this machine; none where there is a real kubelet. */
  pods(): PlayedPod[];
  /** To be called in a test: what the pods said is shown when it fails. */
  showOnFailure(): void;
}

const helm = await findHelm();
const operator = await findPrometheusOperator();
const containers = await findContainers();

/** In a played cluster agents and coordinators share this machine's network: each listens on its pod's own address. */
const POD_IP = { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } };
const PLAYED_VALUES = {
  agent: { extraEnv: [POD_IP], extraArgs: ["--api-address=$(POD_IP):9810", "--metrics-address=$(POD_IP):9811"] },
  coordinator: { extraEnv: [POD_IP], extraArgs: ["--metrics-address=$(POD_IP):9812"] },
};

/**
 * A group of tests on a cluster that the chart can be installed into. With E2E_KUBECONFIG it is that cluster, with its
 * kubelets and pods: E2E_NODES says where each node's checkpoint directory is on this machine
 * (`NODE=FOLDER,NODE=FOLDER`), E2E_VALUES is JSON with the values that it needs, such as the image. Without, it is a
 * kube-apiserver of the tests' own with two nodes whose kubelets are played, see {@link playCluster}.
 */
export function describeWithInstallation(name: string, body: (installation: Installation) => void): void {
  describeWith(name, helm, (tools) => {
    describeWith("with the Prometheus operator's definitions", operator, ({ definitions, version }) => {
      const installation = {} as Installation;
      const folder = mkdtempSync(join(tmpdir(), "cro-installation-"));
      afterAll(() => rmSync(folder, { recursive: true, force: true }));
      const parts = `helm ${tools.versions.helm}, kubectl ${tools.versions.kubectl}, Prometheus operator's definitions ${version}`;
      const { E2E_KUBECONFIG: kubeconfig } = process.env;
      if (kubeconfig) {
        describe("on an existing cluster", () => {
          const namespace = "checkpoint-restore-operator";
          const user = userOf(tools, { kubeconfig, namespace, folder });
          beforeAll(async () => {
            for (const definition of definitions) await user.serverApply(definition);
            await user.serverApply({
              ...{ apiVersion: "v1", kind: "Namespace" },
              metadata: { name: namespace, labels: { "pod-security.kubernetes.io/enforce": "privileged" } },
            });
            const { items } = await user.get("nodes");
            console.log(`Real parts: ${parts}, a cluster of ${items[0].status.nodeInfo.kubeletVersion}`);
          }, 60_000);
          body(
            Object.assign(installation, {
              ...{ namespace, user, kubeconfig, isRemote: true },
              values: JSON.parse(process.env.E2E_VALUES ?? "{}"),
              nodes: (process.env.E2E_NODES ?? "").split(",").map((pair) => {
                const [node = "", directory = ""] = pair.split("=");
                return { name: node, directory };
              }),
              async settle() {
                for (const kind of ["daemonset", "deployment"]) {
                  const { items } = await user.get(kind, "-l", "app.kubernetes.io/name=checkpoint-restore-operator");
                  for (const { metadata } of items)
                    await user.kubectl("rollout", "status", `${kind}/${metadata.name}`, "--timeout=180s");
                }
              },
              pods: () => [],
              runToEnd: async () => undefined,
              showOnFailure() {},
            }),
          );
        });
        return;
      }
      if (!containers.found) {
        describeWith("on an API server of its own", containers, () => {});
        return;
      }
      describeWithKube("on an API server of its own", (kube) => {
        const namespace = "checkpoint-restore-operator";
        let stop = async () => {};
        beforeAll(async () => {
          for (const definition of definitions) {
            await create(kube.client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition);
          }
          await create(kube.client, "/api/v1/namespaces", {
            metadata: { name: namespace, labels: { "pod-security.kubernetes.io/enforce": "privileged" } },
          });
          const rootFileSystem = join(folder, "rootfs");
          mkdirSync(rootFileSystem);
          await makeRootFileSystem(rootFileSystem);
          const nodes = ["node-a", "node-b"].map((node) => ({ name: node, root: join(folder, node) }));
          for (const { name: node } of nodes) await create(kube.client, "/api/v1/nodes", { metadata: { name: node } });
          const kubeconfig = await kube.writeKubeconfig();
          const user = userOf(tools, { kubeconfig, namespace, folder });
          const cluster = playCluster(kube, { namespace, rootFileSystem, nodes });
          stop = cluster.stop;
          Object.assign(installation, {
            ...{ namespace, user, kubeconfig, isRemote: false, values: PLAYED_VALUES },
            nodes: nodes.map(({ name: node, root }) => {
              const directory = join(root, "var/lib/kubelet/checkpoints");
              mkdirSync(directory, { recursive: true });
              return { name: node, directory };
            }),
            settle: cluster.reconcile,
            runToEnd: cluster.runToEnd,
            pods: cluster.pods,
            showOnFailure: () => onTestFailed(() => cluster.pods().forEach((pod) => void show(pod.container()))),
          });
          const { serverVersion } = JSON.parse(await user.kubectl("version", "-o", "json")) as AnyObject;
          console.log(`Real parts: kube-apiserver ${serverVersion.gitVersion} with etcd, ${parts}`);
        }, 60_000);
        afterAll(() => stop(), 60_000);
        body(installation);
      });
    });
  });
}

/** How to reach a cluster's API server with what a kubeconfig holds, as Prometheus wants it; files go to the folder. */
export function readAccess(kubeconfig: string, folder: string): { address: string; tls: object } {
  const { clusters, users } = parse(readFileSync(kubeconfig, "utf8")) as AnyObject;
  const put = (name: string, base64: string) => {
    writeFileSync(join(folder, name), Buffer.from(base64, "base64"), { mode: 0o600 });
    return join(folder, name);
  };
  return {
    address: new URL(clusters[0].cluster.server).host,
    tls: {
      ca_file: put("ca.crt", clusters[0].cluster["certificate-authority-data"]),
      cert_file: put("tls.crt", users[0].user["client-certificate-data"]),
      key_file: put("tls.key", users[0].user["client-key-data"]),
    },
  };
}
