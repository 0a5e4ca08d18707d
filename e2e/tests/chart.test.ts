import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { VERSION } from "@cro/shared/version";
import { beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { readChartValues, renderChartFiles } from "../support/chart-files.ts";
import { findHelm } from "../support/helm.ts";
import { type AnyObject, create, createNamespace, describeWithKube, unwrap } from "../support/kube.ts";
import { aFolder, ROOT, until } from "../support/processes.ts";
import { findPrometheusOperator } from "../support/prometheus-operator.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const CHART = join(ROOT, "charts/checkpoint-restore-operator");
const tools = await findHelm();
const operator = await findPrometheusOperator();

/** For every documented value one that is not its default. */
const SAMPLES: Record<string, unknown> = {
  "image.registry": "registry.example",
  "image.repository": "team/cro",
  "image.tag": "1.2.3",
  "image.digest": `sha256:${"0".repeat(64)}`,
  "image.pullPolicy": "Always",
  imagePullSecrets: [{ name: "pull" }],
  nameOverride: "other",
  fullnameOverride: "full",
  commonLabels: { team: "platform" },
  logLevel: "debug",
  "crds.enabled": false,
  "crds.keep": false,
  checkpointRoots: ["/var/lib/kubelet/checkpoints", "/mnt/checkpoints"],
  hostPathType: "Directory",
  policyNamespaces: ["platform", "ops"],
  policyGracePeriod: "1h",
  defaultPolicy: { mode: "DryRun", globalPolicy: { maxTotalSizePerPod: "10Gi" } },
  "metrics.granularity": "container",
  "certificates.existingSecrets.agent": "agent-tls",
  "certificates.existingSecrets.coordinator": "coordinator-tls",
  "certificates.caLifetime": "365d",
  "certificates.lifetime": "30d",
  "rbac.create": false,
  "networkPolicy.enabled": false,
  "podMonitor.enabled": true,
  "podMonitor.interval": "10s",
  "podMonitor.labels": { release: "prometheus" },
  "podMonitor.relabelings": [{ targetLabel: "cluster", replacement: "one" }],
  "serviceMonitor.enabled": true,
  "serviceMonitor.interval": "10s",
  "serviceMonitor.labels": { release: "prometheus" },
  "serviceMonitor.relabelings": [{ targetLabel: "cluster", replacement: "one" }],
  "prometheusRule.enabled": true,
  "prometheusRule.labels": { release: "prometheus" },
  "dashboard.enabled": true,
  "dashboard.labels": { folder: "one" },
  "dashboard.annotations": { grafana_folder: "Storage" },
  "securityContextConstraints.enabled": true,
  "agent.seLinuxOptions": { type: "spc_t" },
  "coordinator.replicas": 1,
};
const COMPONENT_SAMPLES: Record<string, unknown> = {
  "serviceAccount.create": false,
  "serviceAccount.name": "given",
  "serviceAccount.annotations": { note: "x" },
  resources: { requests: { cpu: "1", memory: 1024 }, limits: { memory: "1Gi" } },
  nodeSelector: { disk: "ssd" },
  affinity: { nodeAffinity: {} },
  tolerations: [{ key: "only", operator: "Exists" }],
  priorityClassName: "system-cluster-critical",
  updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 3 } },
  podAnnotations: { note: "y" },
  podLabels: { tier: "node" },
  extraArgs: ["--log-level=trace"],
  extraEnv: [{ name: "TZ", value: "UTC" }],
  extraVolumes: [{ name: "extra", emptyDir: {} }],
  extraVolumeMounts: [{ name: "extra", mountPath: "/extra" }],
};
for (const component of ["agent", "coordinator"]) {
  for (const [path, value] of Object.entries(COMPONENT_SAMPLES)) SAMPLES[`${component}.${path}`] = value;
}

/** What a value needs beside it to show. */
const TOGETHER: Array<[prefix: string, path: string, value: unknown]> = [
  ...["podMonitor", "serviceMonitor", "prometheusRule", "dashboard"].map((part): [string, string, unknown] => [
    `${part}.`,
    `${part}.enabled`,
    true,
  ]),
  ["certificates.existingSecrets.", "certificates.existingSecrets.agent", "agent-tls"],
  ["certificates.existingSecrets.", "certificates.existingSecrets.coordinator", "coordinator-tls"],
];

/** `{"a.b": 1}` as `{a: {b: 1}}`. */
function nest(paths: ReadonlyArray<readonly [string, unknown]>): Record<string, unknown> {
  const nested: AnyObject = {};
  for (const [path, value] of paths) {
    const keys = path.split(".");
    const last = keys.pop() as string;
    let at = nested;
    for (const key of keys) at = at[key] ??= {};
    at[last] = value;
  }
  return nested;
}

describe("the chart's files", () => {
  it("have the project's version", () => {
    const chart = parse(readFileSync(join(CHART, "Chart.yaml"), "utf8"));
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(chart).toMatchObject({ version, appVersion: version });
    expect(VERSION).toBe(version);
  });
});

describeWith("the chart", tools, ({ helm, kubectl, versions }) => {
  console.log(`helm ${versions.helm}, kubectl ${versions.kubectl}`);

  /** Renders with these values; rejects with what helm says. */
  async function template(values: unknown, ...args: string[]): Promise<AnyObject[]> {
    const file = join(aFolder(), "values.json");
    writeFileSync(file, JSON.stringify(values));
    const { stdout } = await execute(helm, ["template", "cro", CHART, "-n", "release", "-f", file, ...args], {
      maxBuffer: 1 << 26,
    });
    return parseAllDocuments(stdout)
      .map((document) => document.toJS())
      .filter((object) => object !== null);
  }

  it("has no stale generated file; `make manifests` writes them", async () => {
    for (const [path, content] of Object.entries(await renderChartFiles(helm))) {
      expect(readFileSync(join(ROOT, path), "utf8"), path).toBe(content);
    }
  });

  it("passes helm lint --strict", async () => {
    await execute(helm, ["lint", "--strict", CHART]);
  });

  it("renders every documented value, each to an effect", async () => {
    const values = readChartValues(readFileSync(join(CHART, "values.yaml"), "utf8"));
    expect(Object.keys(SAMPLES).sort()).toEqual(values.map(({ path }) => path).sort());
    for (const { path, default: standard } of values) {
      const together = TOGETHER.filter(([prefix, other]) => path.startsWith(prefix) && other !== path);
      const beside = together.map(([, other, value]) => [other, value] as const);
      const isPaired = path.startsWith("certificates.existingSecrets.");
      const without = await template(isPaired ? {} : nest([...beside, [path, standard]]));
      const withIt = await template(nest([...beside, [path, SAMPLES[path]]]));
      expect(withIt, path).not.toEqual(without);
    }
  }, 120_000);

  it.each([
    ["an unknown value", { polices: [] }, "'polices' not allowed"],
    ["an unknown value below another", { agent: { replicas: 2 } }, "'replicas' not allowed"],
    ["a level that there is not", { logLevel: "loud" }, "one of 'fatal', 'error'"],
    ["a wrong type", { coordinator: { replicas: "two" } }, "got string, want integer"],
    ["a duration without a unit", { policyGracePeriod: "10" }, 'policyGracePeriod: "10" is not a duration; write e.g.'],
    ["a relative root", { checkpointRoots: ["checkpoints"] }, "write an absolute path below /"],
    ["the whole node as a root", { checkpointRoots: ["/"] }, "write an absolute path below /"],
    ["a root that climbs", { checkpointRoots: ["/var/../etc"] }, "write an absolute path below /"],
    ["one Secret of two", { certificates: { existingSecrets: { agent: "a" } } }, "name both, agent and coordinator"],
    ["a default policy with a typo", { defaultPolicy: { globalPolicy: { maxCheckpoint: 3 } } }, "not allowed"],
    [
      "a default policy with a bad size",
      { defaultPolicy: { globalPolicy: { maxCheckpointSize: "10 Gigs" } } },
      "10 Gigs",
    ],
  ])("refuses %s, in words", async (_, values, message) => {
    await expect(template(values)).rejects.toThrow(message);
  });

  it("gives the agent no right, no token, no capability and nothing of the node but its checkpoints", async () => {
    const objects = await template({});
    const agent = objects.find(({ kind }) => kind === "DaemonSet").spec.template.spec;
    expect(agent).toMatchObject({ automountServiceAccountToken: false, priorityClassName: "system-node-critical" });
    for (const share of ["hostNetwork", "hostPID", "hostIPC"]) expect(agent[share] ?? false).toBe(false);
    expect(agent.tolerations).toEqual([{ operator: "Exists" }]);
    expect(agent.securityContext).toMatchObject({ runAsUser: 0, seccompProfile: { type: "RuntimeDefault" } });
    expect(agent.containers).toHaveLength(1);
    expect(agent.containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    const paths = agent.volumes.flatMap(({ hostPath }: AnyObject) => (hostPath ? [hostPath.path] : []));
    expect(paths).toEqual(["/var/lib/kubelet/checkpoints"]);
    expect(agent.containers[0].volumeMounts[0]).toMatchObject({ mountPropagation: "HostToContainer" });
    const bound = objects.filter(({ kind }) => kind.endsWith("RoleBinding")).flatMap(({ subjects }) => subjects);
    expect(bound.map(({ name }) => name)).not.toContain(agent.serviceAccountName);
  });

  describeWithKube("on a real API server", (kube) => {
    let kubeconfig = "";
    beforeAll(async () => {
      kubeconfig = await kube.writeKubeconfig();
    });

    /** What kubectl says of a server-side dry run of these objects. */
    async function dryRun(objects: readonly AnyObject[], namespace: string): Promise<string> {
      const file = join(aFolder(), "objects.json");
      writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }));
      const args = [
        "--kubeconfig",
        kubeconfig,
        "apply",
        "-n",
        namespace,
        "--server-side",
        "--dry-run=server",
        "-f",
        file,
      ];
      const { stdout, stderr } = await execute(kubectl, args);
      return `${stdout}${stderr}`;
    }

    it("all that it renders by default passes a server-side dry run with strict validation", async () => {
      const namespace = await createNamespace(kube.client);
      const objects = await template({}, "--namespace", namespace);
      const said = await dryRun(objects, namespace);
      expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
    });

    it("what goes without helm passes too, but for its namespace, which is its own", async () => {
      const objects = parseAllDocuments(readFileSync(join(ROOT, "config/install.yaml"), "utf8"))
        .map((document) => document.toJS())
        .filter((object) => object !== null);
      const [namespace, ...others] = objects;
      expect(namespace).toMatchObject({ kind: "Namespace", metadata: { name: "checkpoint-restore-operator" } });
      await create(kube.client, "/api/v1/namespaces", namespace);
      const said = await dryRun(others, "checkpoint-restore-operator");
      expect(said.match(/serverside-applied/g)).toHaveLength(others.length);
    });

    describeWith("with the Prometheus operator's definitions", operator, ({ version, definitions }) => {
      it(`everything switched on passes, as ${version} has it`, async () => {
        const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for (const definition of definitions) await create(kube.client, path, definition);
        const namespace = await createNamespace(kube.client);
        const values = nest(
          Object.entries(SAMPLES).filter(
            ([key]) =>
              !/\.create$|^crds|^rbac|^networkPolicy|^coordinator.replicas|^certificates|^securityContext|affinity$/.test(
                key,
              ),
          ),
        );
        const objects = await template(values, "--namespace", namespace);
        const kinds = new Set(objects.map(({ kind }) => kind));
        for (const kind of ["PodMonitor", "ServiceMonitor", "PrometheusRule"]) expect(kinds).toContain(kind);
        const said = await until(() => dryRun(objects, namespace), 30_000);
        expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
      }, 60_000);
    });

    it("coordinators run where `restricted` is enforced, agents only where nothing less than `privileged` is", async () => {
      const objects = await template({});
      const pod = (kind: string) => {
        const { spec } = objects.find((object) => object.kind === kind).spec.template;
        // No controller-manager is here, and so no ServiceAccount of the release.
        return { ...spec, serviceAccountName: "default", priorityClassName: undefined };
      };
      const tryPod = async (level: string, kind: string) => {
        const namespace = await createNamespace(kube.client, level);
        unwrap(
          await kube.client.request({
            method: "PATCH",
            path: `/api/v1/namespaces/${namespace}`,
            body: { metadata: { labels: { "pod-security.kubernetes.io/enforce": level } } },
          }),
        );
        return kube.client.request({
          method: "POST",
          path: `/api/v1/namespaces/${namespace}/pods`,
          body: { metadata: { name: "candidate" }, spec: pod(kind) },
        });
      };
      expect(await tryPod("restricted", "Deployment")).toMatchObject({ ok: true });
      for (const level of ["restricted", "baseline"]) {
        expect(await tryPod(level, "DaemonSet")).toMatchObject({
          ok: false,
          status: 403,
          message: expect.stringContaining("hostPath"),
        });
      }
      expect(await tryPod("privileged", "DaemonSet")).toMatchObject({ ok: true });
    });
  });
});
