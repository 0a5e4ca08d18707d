import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { PolicyStatus } from "@cro/shared/crd/status";
import { onTestFinished } from "vitest";
import { parse } from "yaml";
import { type FaultProxy, startFaultProxy } from "./fault-proxy.ts";
import {
  type AnyObject,
  aPolicy,
  create,
  createNamespace,
  createServiceAccount,
  type Kube,
  policyPath,
  remove,
  unwrap,
} from "./kube.ts";
import { aFolder, freePort, ROOT, type Running, run } from "./processes.ts";
import { startWireProxy, type WireProxy } from "./wire-proxy.ts";

const NAME = "checkpoint-restore-operator";
export const AGENT_LABELS = { "app.kubernetes.io/component": "agent" };

/** The rights that the chart gives the coordinator. */
export function chartRules(file: "coordinator-cluster-role" | "coordinator-role"): object[] {
  return parse(readFileSync(join(ROOT, "charts", NAME, "files", `${file}.yaml`), "utf8")) as object[];
}

/** One node: its object, its directory, its agent as a process, and the pod that presents it. */
export interface TestNode {
  name: string;
  directory: string;
  /** Where its agent listens. */
  ip: string;
  /** Between the coordinators and its agent: the pod's address is this one's. */
  wire: WireProxy;
  agent: Running;
  podName: string;
  podUid: string;
  /** The folder of the agent's own state: the pod's emptyDir, which outlives its container. */
  state: string;
  /** Starts the agent's process again, in the same pod, as a kubelet does with a container that died. */
  restart: () => Running;
  /** The same of this release, whatever ran before. */
  upgrade: () => Running;
}

/** A release as the chart would install it, its agents and coordinators processes on this machine. */
export async function installRelease(
  kube: Kube,
  {
    nodes = 3,
    clusterRules = chartRules("coordinator-cluster-role"),
    roleRules = chartRules("coordinator-role"),
    agentArgs = [] as string[],
    agentEnv = {} as NodeJS.ProcessEnv,
    /** Where the agents' bundle is. */
    agentDist = undefined as string | undefined,
  } = {},
) {
  const { client } = kube;
  const namespace = await createNamespace(client, "release");
  await create(client, `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`, { metadata: { name: NAME } });
  for (const name of ["ca", "agent", "coordinator"]) {
    await create(client, `/api/v1/namespaces/${namespace}/secrets`, { metadata: { name: `${NAME}-${name}` } });
  }
  const token = await createServiceAccount(client, { namespace, name: "coordinator", rules: clusterRules });
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${namespace}`;
  await create(client, `${rbac}/roles`, { metadata: { name: "coordinator" }, rules: roleRules });
  await create(client, `${rbac}/rolebindings`, {
    metadata: { name: "coordinator" },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: "coordinator" },
    subjects: [{ kind: "ServiceAccount", name: "coordinator", namespace }],
  });

  const folder = aFolder();
  const certificates = join(folder, "certificates");
  const mounted = join(folder, "checkpoints");
  for (const path of [certificates, mounted]) mkdirSync(path);
  const ending = new AbortController();
  const kubelet = keepMounted(kube, { namespace, folder: certificates, signal: ending.signal });
  const proxy = await startFaultProxy(kube);
  const processes: Running[] = [];
  const wires: WireProxy[] = [];
  const hosts = Array.from({ length: nodes }, (_, index) => [`127.0.0.${index + 2}`, `127.0.1.${index + 2}`]);
  const port = await freePort("127.0.0.1", ...hosts.flat());

  /** Ends all that runs, for tests that install one release after the other. */
  async function stop(): Promise<void> {
    ending.abort();
    await kubelet;
    const running = processes.filter(
      ({ process: { exitCode, signalCode } }) => exitCode === null && signalCode === null,
    );
    await Promise.all([
      ...running.map((one) => one.kill("SIGKILL")),
      ...wires.map((wire) => wire.close()),
      proxy.close(),
    ]);
  }
  onTestFinished(stop);

  function start(...how: Parameters<typeof run>): Running {
    const running = run(...how);
    processes.push(running);
    return running;
  }

  async function startNode(index: number): Promise<TestNode> {
    const name = `${namespace}-node-${index}`;
    const ip = `127.0.0.${index + 1}`;
    const directory = join(folder, name);
    mkdirSync(directory);
    await create(client, "/api/v1/nodes", { metadata: { name, labels: { index: `${index}` } } });
    onTestFinished(() => remove(client, `/api/v1/nodes/${name}`).catch(() => {}));
    const wire = await startWireProxy({ host: `127.0.1.${index + 1}`, port }, { host: ip, port });
    wires.push(wire);
    const node = { name, ip, wire, directory, podName: `agent-${index}` };
    return { ...node, ...(await startAgent(node)) };
  }

  /** Creates the pod of an agent and runs its process; what a DaemonSet and a kubelet do. */
  async function startAgent({
    name,
    ip,
    wire,
    podName,
  }: Pick<TestNode, "name" | "ip" | "wire" | "podName">): Promise<
    Pick<TestNode, "agent" | "podUid" | "state" | "restart" | "upgrade">
  > {
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const pod = await create(client, path, {
      metadata: { name: podName, labels: AGENT_LABELS },
      spec: { nodeName: name, containers: [{ name: "agent", image: "none" }] },
    });
    const state = join(folder, `${podName}-${pod.metadata.uid}`);
    mkdirSync(state);
    // Every node has its own directory at the same path: a mount namespace each.
    const script = 'mount --bind "$0" "$1" && shift && exec "$@"';
    const startOf = (dist: string | undefined) =>
      start(
        "agent",
        [
          "serve",
          ...["--node-name", name, "--pod-uid", pod.metadata.uid, "--certs-dir", certificates, "--state-dir", state],
          ...["--checkpoint-root", mounted, "--api-address", `${ip}:${port}`, "--metrics-address", `${ip}:0`],
          ...agentArgs,
        ],
        { prefix: ["unshare", "-m", "sh", "-c", script, join(folder, name), mounted], env: agentEnv, dist },
      );
    const restart = () => startOf(agentDist);
    const upgrade = () => startOf(undefined);
    const agent = restart();
    const conditions = [{ type: "Ready", status: "True" }];
    const status = { phase: "Running", podIP: wire.host, podIPs: [{ ip: wire.host }], conditions };
    unwrap(await client.request({ method: "PATCH", path: `${path}/${podName}/status`, body: { status } }));
    return { agent, podUid: pod.metadata.uid, state, restart, upgrade };
  }

  // The built-in defaults, but for the directory, which is none of the machine's own.
  const fallback = join(folder, "default.yaml");
  writeFileSync(fallback, JSON.stringify(aPolicy({ checkpointDirectory: mounted })));
  /** A kubeconfig of the coordinator's, by way of that proxy. */
  const kubeconfigOf = ({ server, caPem }: Pick<FaultProxy, "server" | "caPem">) =>
    kube.writeKubeconfig({ credential: { token }, server, caPem });
  const kubeconfig = await kubeconfigOf(proxy);
  const startCoordinatorOf = (dist: string | undefined, ...args: string[]) =>
    start(
      "coordinator",
      [
        "cluster",
        ...["--namespace", namespace, "--kubeconfig", kubeconfig, "--agent-port", `${port}`],
        ...[
          "--policy-namespaces",
          namespace,
          "--default-policy",
          fallback,
          "--metrics-address",
          "127.0.0.1:0",
          ...args,
        ],
      ],
      { dist },
    );
  /** A policy as it is stored. */
  const read = async (name: string) => unwrap(await client.request<AnyObject>({ path: policyPath(namespace, name) }));
  return {
    namespace,
    folder,
    /** Where every agent has its checkpoint directory, and the port of their API. */
    mounted,
    port,
    stop,
    /** Between the coordinators and the API server. */
    proxy,
    nodes: await Promise.all(Array.from({ length: nodes }, (_, index) => startNode(index + 1))),
    kubeconfigOf,
    startAgent,
    /** By way of that proxy, unless a flag names another kubeconfig. */
    startCoordinator: (...args: string[]) => startCoordinatorOf(undefined, ...args),
    /** The same of bundles elsewhere. */
    startCoordinatorOf,
    /** Creates or replaces a policy for this release's nodes, as `kubectl apply` does. */
    async apply(name: string, spec: Record<string, unknown>): Promise<AnyObject> {
      const path = policyPath(namespace);
      const object = aPolicy({ checkpointDirectory: mounted, ...spec }, name) as AnyObject;
      for (;;) {
        const found = await client.request<AnyObject>({ path: `${path}/${name}` });
        if (!found.ok) return create(client, path, object);
        const { resourceVersion } = found.value.metadata;
        const body = { ...object, metadata: { name, resourceVersion } };
        const replaced = await client.request<AnyObject>({ method: "PUT", path: `${path}/${name}`, body });
        // A coordinator may write the status in between.
        if (replaced.ok || replaced.reason !== "Conflict") return unwrap(replaced);
      }
    },
    read,
    async status(name: string): Promise<PolicyStatus> {
      return (await read(name)).status ?? {};
    },
    async events(): Promise<AnyObject[]> {
      return unwrap(await client.request<AnyObject>({ path: `/api/v1/namespaces/${namespace}/events` })).items;
    },
  };
}

/** Keeps a folder as the agents' Secret is, as the kubelet does with a volume. */
async function keepMounted(
  { client }: Kube,
  { namespace, folder, signal }: { namespace: string; folder: string; signal: AbortSignal },
): Promise<void> {
  const path = `/api/v1/namespaces/${namespace}/secrets/${NAME}-agent`;
  while (!signal.aborted) {
    const answer = await client.request<AnyObject>({ path, signal });
    const data = answer.ok ? ((answer.value.data ?? {}) as Record<string, string>) : {};
    for (const [file, value] of Object.entries(data)) {
      const target = join(folder, file);
      writeFileSync(`${target}.new`, Buffer.from(value, "base64"));
      renameSync(`${target}.new`, target);
    }
    await sleep(200, undefined, { signal }).catch(() => {});
  }
}
