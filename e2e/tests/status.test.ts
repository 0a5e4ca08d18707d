import { createKubeClient, type KubeClient, loadKubeAccess } from "@cro/coordinator/kube/client";
import { createJudge, type PolicyResource, readyPolicy } from "@cro/coordinator/policy/judge";
import { EMPTY_MEMORY } from "@cro/coordinator/policy/record";
import { ruleNodes } from "@cro/coordinator/policy/ruling";
import { aggregateStatus } from "@cro/coordinator/status/aggregate";
import { createEventWriter } from "@cro/coordinator/status/events";
import { createStatusWriter } from "@cro/coordinator/status/write";
import type { PolicyStatus } from "@cro/shared/crd/status";
import { defaultPolicy } from "@cro/shared/policy/compile";
import { beforeAll, beforeEach, expect, it } from "vitest";
import { archivesIn } from "../../agent/test/support/archives.ts";
import { aReport } from "../../coordinator/test/support/agent-peer.ts";
import { installRelease } from "../support/cluster.ts";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import {
  type AnyObject,
  aPolicy,
  create,
  createNamespace,
  createServiceAccount,
  describeWithKube,
  installPolicyDefinition,
  policyPath,
  remove,
  unwrap,
} from "../support/kube.ts";
import { until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const MINUTE_MS = 60_000;
const GIB = 1024 ** 3;

describeWithKube("status and Events on a real API server", (kube) => {
  let namespace: string;
  let proxy: FaultProxy;
  /** May do what the two writers need, and no more. */
  let client: KubeClient;

  beforeAll(async () => {
    await installPolicyDefinition(kube.client);
    proxy = await startFaultProxy(kube);
    const token = await createServiceAccount(kube.client, {
      namespace: "default",
      name: "status-writer",
      rules: [
        { apiGroups: ["criu.org"], resources: ["checkpointrestoreoperators/status"], verbs: ["patch"] },
        { apiGroups: [""], resources: ["events"], verbs: ["create"] },
      ],
    });
    const kubeconfig = await kube.writeKubeconfig({ credential: { token }, ...proxy });
    client = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs: () => performance.now() }), {
      userAgent: "test",
    });
    return async () => {
      await client.close();
      await proxy.close();
    };
  }, 60_000);

  beforeEach(async () => {
    namespace = await createNamespace(kube.client, "status");
    proxy.fault = () => undefined;
    proxy.requests.length = 0;
  });

  async function aResource(name = "policy", spec: object = {}): Promise<PolicyResource> {
    const { metadata } = await create(kube.client, policyPath(namespace), aPolicy(spec, name));
    const { uid, generation, creationTimestamp: createdAt } = metadata;
    return { namespace, name, uid, generation, createdAt, spec };
  }

  const stored = async (name = "policy"): Promise<AnyObject> =>
    unwrap(await kube.client.request<AnyObject>({ path: policyPath(namespace, name) }));

  /** A leader's writer, with a clock that only the test moves. */
  function aWriter() {
    const leader = { nowMs: 0, mayAct: true, ending: new AbortController(), warnings: [] as unknown[] };
    const writer = createStatusWriter({
      client,
      path: ({ namespace: of, name }) => policyPath(of, name),
      nowMs: () => leader.nowMs,
      wallMs: Date.now,
      signal: leader.ending.signal,
      mayAct: () => leader.mayAct,
      log: { warn: (...args: unknown[]) => leader.warnings.push(args) },
    });
    return {
      writer,
      leader,
      write: (resource: PolicyResource, status: PolicyStatus) => writer.write([{ resource }], () => status),
    };
  }

  /** What the nodes of a resource make of its status. */
  function aStatus(
    resource: PolicyResource,
    { archives = 3, bytes = 5.5 * GIB, now = "2026-05-01T12:00:00.000Z", applied = ["a", "b"] } = {},
  ): PolicyStatus {
    const nodes = ["a", "b"].map((name) => ({ name, labels: {} }));
    const { resources, nodes: rules } = ruleNodes(
      {
        resources: createJudge({ policyNamespaces: undefined }).judge([resource]),
        nodes,
        defaultPolicy: readyPolicy(defaultPolicy()),
        graceMs: 0,
        nowMs: 0,
        accepted: new Map(nodes.map(({ name }) => [name, { digest: null, directory: "/" }])),
      },
      EMPTY_MEMORY,
    );
    const [ruling] = resources;
    if (ruling === undefined) throw new Error("one resource has one ruling");
    const agents = nodes.map(({ name: node }) => ({
      address: { node, podUID: `uid-${node}`, url: "https://127.0.0.1:1" },
      state: applied.includes(node) ? ("applied" as const) : ("pending" as const),
      report: aReport(node === "a" ? { node, archives, bytes } : { node }),
      heardAtMs: Date.parse(now),
      problem: undefined,
    }));
    return aggregateStatus({
      ruling,
      nodes: rules,
      agents: new Map(agents.map((agent) => [agent.address.node, agent])),
      starts: new Map(),
      held: new Map(),
      now,
      nowMs: 0,
    });
  }

  const transitions = ({ conditions = [] }: PolicyStatus) =>
    Object.fromEntries(conditions.map(({ type, lastTransitionTime }) => [type, lastTransitionTime]));

  it("writes a status whole, and while nothing changes only that agents were heard, every other minute", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    const status = aStatus(resource);
    await write(resource, status);
    expect((await stored()).status).toEqual(status);
    for (let second = 10; second <= 300; second += 10) {
      leader.nowMs = second * 1000;
      const now = new Date(Date.parse("2026-05-01T12:00:00Z") + second * 1000).toISOString();
      await write(resource, aStatus(resource, { now }));
    }
    expect((await stored()).status).toEqual({ ...status, lastReportTime: "2026-05-01T12:03:40.000Z" });
    // One reads what another leader left, one writes, and two renew it.
    expect(proxy.requests).toEqual(Array(4).fill(`PATCH ${policyPath(namespace, "policy")}/status`));
    expect(leader.warnings).toEqual([]);
  });

  it("writes what changed at most every two seconds", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    const archives = async () => (await stored()).status.archives;
    await write(resource, aStatus(resource));
    leader.nowMs = 1999;
    await write(resource, aStatus(resource, { archives: 4, applied: ["a"] }));
    expect(await archives()).toBe(3);
    leader.nowMs = 2000;
    await write(resource, aStatus(resource, { archives: 4, applied: ["a"] }));
    expect((await stored()).status).toMatchObject({ archives: 4, nodes: { summary: "1/2" } });
    leader.nowMs = 3999;
    await write(resource, aStatus(resource, { archives: 5, applied: ["a"] }));
    expect(await archives()).toBe(4);
    leader.nowMs = 4000;
    await write(resource, aStatus(resource, { archives: 5, applied: ["a"] }));
    expect(await archives()).toBe(5);
  });

  it("goes on where the leader before left off, and does not flap before its agents have answered", async () => {
    const resource = await aResource();
    await aWriter().write(resource, aStatus(resource));
    const { resourceVersion } = (await stored()).metadata;
    const { leader, write } = aWriter();
    const now = "2026-05-02T00:00:00.000Z";
    await write(resource, aStatus(resource, { applied: [], archives: 0, now }));
    leader.nowMs = 4999;
    await write(resource, aStatus(resource, { applied: [], archives: 0, now }));
    expect((await stored()).metadata.resourceVersion).toBe(resourceVersion);
    leader.nowMs = 10 * MINUTE_MS;
    await write(resource, aStatus(resource, { now }));
    const kept = await stored();
    // That its agents were heard again is all that is new.
    expect(kept.status).toEqual({ ...aStatus(resource), lastReportTime: now });
    leader.nowMs = 20 * MINUTE_MS;
    await write(resource, aStatus(resource, { applied: ["a"], now }));
    const { Enforcing, Accepted } = transitions((await stored()).status);
    expect([Enforcing, Accepted]).toEqual([now, "2026-05-01T12:00:00.000Z"]);
  });

  it("takes back what another leader said of an older version, at once", async () => {
    const spec = { mode: "DryRun", globalPolicy: { maxCheckpointsPerPod: 7, maxAge: "1d" } };
    const resource = await aResource("policy", spec);
    await aWriter().write(resource, aStatus(resource));
    expect((await stored()).status.effectiveGlobalPolicy).toMatchObject({ maxCheckpointsPerPod: 7, maxAge: "1d" });
    const edited = aPolicy({}) as AnyObject;
    edited.metadata.resourceVersion = (await stored()).metadata.resourceVersion;
    const path = policyPath(namespace, "policy");
    const { metadata } = unwrap(await kube.client.request<AnyObject>({ method: "PUT", path, body: edited }));
    const next = { ...resource, generation: metadata.generation, spec: {} };
    await aWriter().write(next, aStatus(next));
    expect((await stored()).status).toMatchObject({ observedGeneration: 2, mode: "Enforce" });
    expect((await stored()).status.effectiveGlobalPolicy).toEqual({
      retainOrphan: true,
      maxCheckpointsPerContainer: 10,
    });
  });

  it("says nothing about another resource that took the name over", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    await write(resource, aStatus(resource));
    await remove(kube.client, policyPath(namespace, "policy"));
    await aResource();
    leader.nowMs = 5000;
    await write(resource, aStatus(resource, { applied: [] }));
    await aWriter().write(resource, aStatus(resource));
    expect((await stored()).status).toBeUndefined();
  });

  it("is quiet about a resource that is gone", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    await write(resource, aStatus(resource));
    await remove(kube.client, policyPath(namespace, "policy"));
    leader.nowMs = 5000;
    await write(resource, aStatus(resource, { applied: [] }));
    const next = aWriter();
    await next.write(resource, aStatus(resource));
    expect([leader.warnings, next.leader.warnings]).toEqual([[], []]);
  });

  it("tries again after a failure, but no sooner than it would write", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    proxy.fault = () => ({ do: "answer", status: 500, body: "overloaded" });
    for (leader.nowMs = 0; leader.nowMs < 5000; leader.nowMs += 500) await write(resource, aStatus(resource));
    expect([proxy.requests.length, leader.warnings.length]).toEqual([1, 1]);
    proxy.fault = () => undefined;
    await write(resource, aStatus(resource));
    expect((await stored()).status.archives).toBe(3);

    proxy.requests.length = 0;
    proxy.fault = () => ({ do: "answer", status: 409, body: "conflict" });
    const from = leader.nowMs + 5000;
    for (leader.nowMs = from; leader.nowMs < from + 5000; leader.nowMs += 500)
      await write(resource, aStatus(resource, { applied: [], archives: 9 }));
    expect(proxy.requests).toHaveLength(1);
    proxy.fault = () => undefined;
    await write(resource, aStatus(resource, { applied: [], archives: 9 }));
    expect((await stored()).status.archives).toBe(9);
  });

  it("never overlaps with itself, and ends with the leadership", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    proxy.fault = () => ({ do: "hang" });
    const first = write(resource, aStatus(resource));
    await until(() => expect(proxy.requests).toHaveLength(1));
    leader.nowMs = 10 * MINUTE_MS;
    const second = write(resource, aStatus(resource));
    const one = await Promise.race([first.then(() => "first"), second.then(() => "second")]);
    expect(one).toBe("second");
    expect(proxy.requests).toHaveLength(1);
    leader.ending.abort();
    await first;
    await write(resource, aStatus(resource));
    const other = aWriter();
    other.leader.mayAct = false;
    await other.write(resource, aStatus(resource));
    expect([proxy.requests.length, leader.warnings]).toEqual([1, []]);
  });

  it("does not write when the leadership ended while it read", async () => {
    const resource = await aResource();
    const { leader, write } = aWriter();
    proxy.fault = () => {
      leader.mayAct = false;
      return undefined;
    };
    await write(resource, aStatus(resource));
    expect(proxy.requests).toHaveLength(1);
    expect((await stored()).status).toBeUndefined();
  });

  it("makes kubectl get worth reading", async () => {
    const resource = await aResource("keep-ten", { mode: "DryRun" });
    await aWriter().write(resource, aStatus(resource, { applied: ["a"] }));
    const accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const table = unwrap(await kube.client.request<AnyObject>({ path: policyPath(namespace), accept, kind: "Table" }));
    const shown = table.columnDefinitions.map(({ name }: { name: string }, index: number) => [
      name,
      table.rows[0].cells[index],
    ]);
    expect(shown).toEqual([
      ["Name", "keep-ten"],
      ["Mode", "DryRun"],
      ["Nodes", "1/2"],
      ["Archives", 3],
      ["Size", "5.5Gi"],
      ["Planned", 0],
      ["Ready", "False"],
      ["Reason", "Pending"],
      ["Age", expect.stringMatching(/^\d+s$/)],
      // With -o wide.
      ["Pinned", 0],
      ["Unidentified", 0],
      ["Fullest", null],
      ["Updated", expect.stringMatching(/^\d+d$/)],
    ]);
  });

  it("writes Events that kubectl describe finds, with the right to create them alone", async () => {
    const name = `${"long-".repeat(40)}name`;
    const resource = await aResource(name);
    const warnings: unknown[] = [];
    let nowMs = 0;
    const writer = createEventWriter({
      client,
      nowMs: () => nowMs,
      now: () => new Date(),
      signal: new AbortController().signal,
      mayAct: () => true,
      log: { warn: (...args: unknown[]) => warnings.push(args) },
      identity: "coordinator_0b0cf0cc-7a3c-4d0e-8f57-0123456789ab",
    });
    writer.note(resource, { type: "Warning", reason: "PolicyRefused", message: "spec.maxAge: is wrong" });
    const deletion = {
      file: "f",
      namespace: "n",
      pod: "p",
      container: "c",
      bytes: 2 * GIB,
      reason: "max_age" as const,
    };
    const time = new Date().toISOString();
    writer.deletions(resource, aReport({ deletions: [1, 2].map((number) => ({ ...deletion, number, time })) }));
    nowMs += 10_000;
    writer.tick();
    // The selector of kubectl describe (k8s.io/kubectl/pkg/describe: searchEvents).
    const fieldSelector = `involvedObject.name=${name},involvedObject.uid=${resource.uid}`;
    await until(async () => {
      const path = `/api/v1/namespaces/${namespace}/events`;
      const { items } = unwrap(await kube.client.request<AnyObject>({ path, query: { fieldSelector } }));
      const told = items.map(({ type, reason, message, count }: AnyObject) => [type, reason, message, count]);
      expect(told.sort()).toEqual([
        ["Normal", "ArchivesDeleted", "node node-a: deleted 2 for max_age (4GiB): f, f", 2],
        ["Warning", "PolicyRefused", "spec.maxAge: is wrong", 1],
      ]);
    });
    expect(warnings).toEqual([]);
  });

  it("keeps quiet on a cluster where nothing happens, and hands over without a word", async () => {
    const release = await installRelease(kube, { nodes: 2 });
    const files = release.nodes.map(({ directory }) => series(directory, 2));
    const first = release.startCoordinator();
    await release.apply("quiet", { applyPoliciesImmediately: true });
    await until(
      async () => expect(await release.status("quiet")).toMatchObject({ archives: 4, nodes: { summary: "2/2" } }),
      90_000,
    );
    const path = policyPath(release.namespace, "quiet");
    const writes = () => release.proxy.requests.filter((request) => request === `PATCH ${path}/status`).length;
    const object = async () => unwrap(await kube.client.request<AnyObject>({ path }));
    const before = { writes: writes(), object: await object() };
    const second = release.startCoordinator();
    await until(() => expect(second.log().length).toBeGreaterThan(0));
    await first.kill("SIGTERM");
    await until(() => expect(writes()).toBe(before.writes + 1), 30_000);
    const applied = () => second.log().filter(({ msg }) => msg === "agent applied policy");
    await until(() => expect(applied()).toHaveLength(2), 30_000);
    // Longer than conditions may wait.
    await new Promise((resolve) => setTimeout(resolve, 6500));
    expect((await object()).metadata.resourceVersion).toBe(before.object.metadata.resourceVersion);
    expect(writes()).toBe(before.writes + 1);
    expect(release.nodes.map(({ directory }) => archivesIn(directory))).toEqual(files);
  }, 150_000);
});
