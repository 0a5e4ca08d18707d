import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createKubeClient, type KubeClient, loadKubeAccess } from "@cro/coordinator/kube/client";
import { NODE_FLAGS } from "@cro/coordinator/node-flags";
import { policyDefinition } from "@cro/shared/crd/manifest";
import pLimit from "p-limit";
import { chartRules } from "../support/cluster.ts";
import { findControlPlane, startControlPlane } from "../support/envtest.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { type AnyObject, aPolicy, create, createServiceAccount, policyPath, unwrap } from "../support/kube.ts";
import { freePort } from "./support/agent.ts";
import type { BenchContext, Benchmark, Figure } from "./support/benchmark.ts";
import { type FleetAgent, startFleet } from "./support/fleet.ts";
import { cpuMsOf, factsOf, residentOfBareNode } from "./support/process-facts.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const NAME = "checkpoint-restore-operator";
const NAMESPACE = "fleet";
const FEW = 200;
const MANY = 2000;
const PODS = 50_000;
const CHANGES = 5;
/** How often a change on one node is followed into the status. */
const LOOKS = 4;
/** Agents are asked for news every 7 s, and again after 30 s at the most if they did not answer: until all have asked. */
const ALL_REPORT_MS = 35_000;
const WATCHED_MS = 15_000;
const AT_ONCE = 64;
/** Until what a change of policy makes the coordinator write has been written: conditions, at most every 5 s. */
const AFTERMATH_MS = 7000;

async function until(condition: () => boolean | Promise<boolean>, what: string, timeoutMs = 120_000): Promise<void> {
  const endMs = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > endMs) throw new Error(`not within ${timeoutMs / 1000} s: ${what}`);
    await sleep(10);
  }
}

const podName = (index: number) => `workload-${(0x6f9f8977 + index).toString(16)}-${index}`;

async function all<T>(items: readonly T[], work: (item: T) => Promise<unknown>): Promise<void> {
  const limit = pLimit(AT_ONCE);
  await Promise.all(items.map((item) => limit(() => work(item))));
}

/** Creates so many nodes, each with the pod of an agent at an address of its own. */
async function createAgents(client: KubeClient, from: number, to: number): Promise<FleetAgent[]> {
  const path = `/api/v1/namespaces/${NAMESPACE}/pods`;
  const agents: FleetAgent[] = [];
  const indices = Array.from({ length: to - from }, (_, index) => from + index);
  await all(indices, async (index) => {
    const node = `node-${index}`;
    const ip = `127.2.${index >> 8}.${index & 255}`;
    await create(client, "/api/v1/nodes", { metadata: { name: node } });
    const pod = await create(client, path, {
      metadata: { name: `agent-${index}`, labels: { "app.kubernetes.io/component": "agent" } },
      spec: { nodeName: node, containers: [{ name: "agent", image: "none" }] },
    });
    const status = { phase: "Running", podIP: ip, podIPs: [{ ip }], conditions: [{ type: "Ready", status: "True" }] };
    unwrap(await client.request({ method: "PATCH", path: `${path}/agent-${index}/status`, body: { status } }));
    agents.push({
      node,
      podUID: pod.metadata.uid,
      ip,
      health: "well",
      scopes: [],
      accepted: undefined,
      acceptedMs: 0,
      more: 0,
      paused: false,
    });
  });
  return agents;
}

/** The coordinator as it is shipped, in a process of its own. */
function startCoordinator(context: BenchContext, { kubeconfig, port }: { kubeconfig: string; port: number }) {
  const args = ["cluster", "--namespace", NAMESPACE, "--kubeconfig", kubeconfig, "--agent-port", `${port}`];
  const child = spawn(
    process.execPath,
    [...NODE_FLAGS, `${ROOT}dist/coordinator.js`, ...args, "--metrics-address", "127.0.0.1:0", "--log-level", "warn"],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  createInterface(child.stdout).on("line", () => {});
  const coordinator = {
    pid: child.pid as number,
    async end(signal: NodeJS.Signals = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "close");
      child.kill(signal);
      await ended;
    },
  };
  context.onEnd(() => coordinator.end("SIGKILL"));
  return coordinator;
}

export default {
  title: "Fleet",
  about:
    "2,000 agents with real protocol and TLS in one process, one coordinator, a real API server with 50,000 pods: from a changed policy until every agent has it",
  async run(context) {
    const found = await findControlPlane();
    if (!found.found) throw new Error(found.why);
    const kube = await startControlPlane(found.value);
    context.onEnd(() => kube.stop());
    const access = await loadKubeAccess({ kubeconfig: await kube.writeKubeconfig(), nowMs: () => performance.now() });
    const client = createKubeClient(access, { userAgent: "bench" });
    context.onEnd(() => client.close());
    await create(client, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", policyDefinition());
    await create(client, "/api/v1/namespaces", { metadata: { name: NAMESPACE } });
    await create(client, `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases`, { metadata: { name: NAME } });
    for (const name of ["ca", "agent", "coordinator"]) {
      await create(client, `/api/v1/namespaces/${NAMESPACE}/secrets`, { metadata: { name: `${NAME}-${name}` } });
    }
    const rules = [...chartRules("coordinator-cluster-role"), ...chartRules("coordinator-role")];
    const token = await createServiceAccount(client, { namespace: NAMESPACE, name: "coordinator", rules });
    const proxy = await startFaultProxy(kube);
    context.onEnd(() => proxy.close());
    const kubeconfig = await kube.writeKubeconfig({ credential: { token }, server: proxy.server, caPem: proxy.caPem });

    const figures: Figure[] = [];
    const port = await freePort();
    // The first coordinator makes the certificates; agents come when they have them.
    let coordinator = startCoordinator(context, { kubeconfig, port });
    const secret = async (): Promise<Record<string, string>> =>
      unwrap(await client.request<AnyObject>({ path: `/api/v1/namespaces/${NAMESPACE}/secrets/${NAME}-agent` })).data ??
      {};
    await until(async () => (await secret())["tls.crt"] !== undefined, "certificates");
    await coordinator.end();
    const text = Object.fromEntries(
      Object.entries(await secret()).map(([file, value]) => [file, Buffer.from(value, "base64").toString()]),
    );
    const material = {
      certificate: text["tls.crt"] ?? "",
      key: text["tls.key"] ?? "",
      authority: text["ca.crt"] ?? "",
    };

    let limit = 100;
    const agents: FleetAgent[] = [];
    const policy = `${policyPath(NAMESPACE)}/policy`;
    await until(async () => (await client.request({ path: policyPath(NAMESPACE) })).ok, "the policy resource");
    await create(client, policyPath(NAMESPACE), aPolicy({ globalPolicy: { maxCheckpointsPerContainer: limit } }));
    /** Changes the policy; the milliseconds until every agent that is well, or was picked, has taken it. */
    async function change(isAwaited = (agent: FleetAgent) => agent.health === "well"): Promise<number> {
      limit -= 1;
      const startMs = performance.now();
      const body = { spec: { globalPolicy: { maxCheckpointsPerContainer: limit } } };
      unwrap(await client.request({ method: "PATCH", path: policy, body }));
      const waiting = agents.filter(isAwaited);
      await until(() => waiting.every(({ acceptedMs }) => acceptedMs > startMs), "a changed policy everywhere");
      return Math.max(...waiting.map(({ acceptedMs }) => acceptedMs)) - startMs;
    }
    /** Requests to the API server that a change makes: not renewals of the Lease, nor looks at certificates. */
    async function requestsOfChange(): Promise<{ ms: number; requests: number }> {
      const before = proxy.requests.length;
      const ms = await change();
      await sleep(AFTERMATH_MS);
      const requests = proxy.requests.slice(before).filter((request) => !/\/(leases|secrets)\//.test(request));
      return { ms, requests: requests.length };
    }

    const requestsByCount = new Map<number, number[]>();
    const connected: number[] = [];
    let fleet: Awaited<ReturnType<typeof startFleet>> | undefined;
    for (const count of [FEW, MANY]) {
      context.note(`${count} agents`);
      agents.push(...(await createAgents(client, agents.length, count)));
      fleet?.close();
      fleet = await startFleet(agents, material);
      const { port: fleetPort } = fleet;
      const startMs = performance.now();
      coordinator = startCoordinator(context, { kubeconfig, port: fleetPort });
      await until(() => agents.every(({ acceptedMs }) => acceptedMs > startMs || acceptedMs > 0), "the first policy");
      await sleep(AFTERMATH_MS);
      const requests: number[] = [];
      for (let round = 0; round < (count === MANY ? CHANGES : 3); round += 1) {
        const measured = await requestsOfChange();
        requests.push(measured.requests);
        if (count === MANY) connected.push(measured.ms);
      }
      requestsByCount.set(count, requests);
      if (count === FEW) await coordinator.end();
    }
    if (fleet === undefined) throw new Error("there is a fleet");
    context.onEnd(() => fleet?.close());
    figures.push({
      what: "2,000 connected agents have a changed policy",
      unit: "ms",
      values: connected,
      atMost: { value: 2500 },
    });
    figures.push({
      what: "requests to the API server for a change, 2,000 agents",
      unit: "calls",
      values: requestsByCount.get(MANY) ?? [],
      yardstick: { what: "200 agents", values: requestsByCount.get(FEW) ?? [] },
      // The status once when the change begins, and once when all have it, 5 s later at the earliest.
      atMost: { value: 2 },
    });

    context.note("not connected");
    const unconnected: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      await coordinator.end();
      fleet.disconnect();
      limit -= 1;
      const body = { spec: { globalPolicy: { maxCheckpointsPerContainer: limit } } };
      unwrap(await client.request({ method: "PATCH", path: policy, body }));
      const startMs = performance.now();
      coordinator = startCoordinator(context, { kubeconfig, port: fleet.port });
      await until(() => agents.every(({ acceptedMs }) => acceptedMs > startMs), "a policy from a new coordinator");
      unconnected.push(Math.max(...agents.map(({ acceptedMs }) => acceptedMs)) - startMs);
    }
    figures.push({
      what: "2,000 unconnected agents have it, from the start of a coordinator",
      unit: "ms",
      values: unconnected,
      atMost: { value: 15_000 },
    });

    context.note("at rest");
    await sleep(AFTERMATH_MS);
    const before = fleet.traffic();
    const requestsBefore = proxy.requests.length;
    const restMs = 120_000;
    await sleep(restMs);
    const after = fleet.traffic();
    const writes = proxy.requests.slice(requestsBefore).filter((request) => !/^GET |\/leases\//.test(request));
    const perAgent = (value: number) => [(value / MANY) * (60_000 / restMs)];
    figures.push({
      what: "calls at rest, an agent and minute",
      unit: "calls",
      values: perAgent(after.calls - before.calls),
    });
    figures.push({
      what: "bytes at rest, an agent and minute",
      unit: "KiB",
      values: perAgent((after.bytes - before.bytes) / 1024),
    });

    figures.push({
      what: "writes to the API server at rest, a minute, renewals of the Lease not counted",
      unit: "calls",
      values: [writes.length * (60_000 / restMs)],
      // The time of the last report, every two minutes.
      atMost: { value: 1 },
    });

    context.note("one of them has another archive, or a .pause");
    const lags: number[] = [];
    const statusOf = async () => unwrap(await client.request<AnyObject>({ path: policy })).status;
    for (let round = 0; round < LOOKS; round += 1) {
      const agent = agents[(round * 397) % MANY] as FleetAgent;
      const { archives } = await statusOf();
      agent.more += 1;
      fleet.changed(agent);
      let startMs = performance.now();
      await until(async () => (await statusOf()).archives === archives + 1, "one archive more in the status");
      lags.push(performance.now() - startMs);
      for (const isPaused of [true, false]) {
        agent.paused = isPaused;
        fleet.changed(agent);
        startMs = performance.now();
        const wanted = isPaused ? "False Paused" : "True Enforcing";
        await until(async () => {
          const ready = (await statusOf()).conditions.find(({ type }: { type: string }) => type === "Ready");
          return `${ready.status} ${ready.reason}` === wanted;
        }, `Ready is ${wanted}`);
        lags.push(performance.now() - startMs);
      }
    }
    figures.push({
      what: `status tells of an archive more on one of 2,000 nodes, of a .pause there, that it is gone: slowest of ${lags.length}`,
      unit: "ms",
      values: [Math.max(...lags)],
      atMost: { value: 10_000 },
    });

    context.note("a tenth dead, a tenth slow");
    for (const [index, agent] of agents.entries()) {
      if (index % 10 === 0) agent.health = "dead";
      if (index % 10 === 1) agent.health = "slow";
    }
    fleet.disconnect();
    const impaired: number[] = [await change(), await change(), await change()];
    figures.push({
      what: "1,600 agents have a changed policy, 200 being dead and 200 slow",
      unit: "ms",
      values: impaired,
      yardstick: { what: "all being well, connected", values: connected },
    });
    for (const agent of agents) agent.health = "well";
    await sleep(AFTERMATH_MS);

    context.note("leader killed in the middle of a change");
    const second = startCoordinator(context, { kubeconfig, port: fleet.port });
    await sleep(3000);
    const changing = change(() => true);
    await sleep(150);
    await coordinator.end("SIGKILL");
    figures.push({
      what: "all have it when the leader is killed meanwhile, and another leads after 15 s",
      unit: "ms",
      values: [await changing],
      atMost: { value: 35_000 },
    });

    context.note(`${PODS} pods`);
    const path = `/api/v1/namespaces/${NAMESPACE}/pods`;
    await all(
      Array.from({ length: PODS }, (_, index) => index),
      (index) =>
        create(client, path, {
          metadata: { name: podName(index) },
          spec: { containers: [{ name: "main", image: "none" }] },
        }),
    );
    // Every one of them has archives, whose policy lets those of pods that are gone be deleted.
    for (const [index, agent] of agents.entries()) {
      agent.scopes = Array.from({ length: PODS / MANY }, (_, pod) => ({
        namespace: NAMESPACE,
        pod: podName(index + pod * MANY),
        containers: ["main"],
      }));
      fleet.changed(agent);
    }
    await sleep(ALL_REPORT_MS);
    const resident: number[] = [];
    const busy: number[] = [];
    while (resident.length < WATCHED_MS / 1000) {
      const beforeMs = cpuMsOf(second.pid);
      await sleep(1000);
      busy.push(cpuMsOf(second.pid) - beforeMs);
      resident.push(factsOf(second.pid).residentMib);
    }
    const { peakMib } = factsOf(second.pid);
    const bare = { what: "node -e, doing nothing", values: [await residentOfBareNode()] };
    const mayHave = 256 + (fleet.connections() * 128) / 1024;
    figures.push({
      what: `coordinator with 50,000 pods and ${fleet.connections()} connections`,
      unit: "MiB",
      values: resident,
      yardstick: bare,
      atMost: { value: mayHave },
    });
    figures.push({ what: "the same, peak", unit: "MiB", values: [peakMib], yardstick: bare });
    figures.push({
      what: "its CPU time a second, all agents asking about all pods",
      unit: "ms",
      values: busy,
      atMost: { value: 500 },
    });
    await second.end();
    return figures;
  },
} satisfies Benchmark;
