import { readdirSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { createAgentClient } from "@cro/coordinator/agents/client";
import { type AgentAddress, serializePolicy, writeDirective } from "@cro/coordinator/agents/directive";
import { createPusher } from "@cro/coordinator/agents/push";
import fc from "fast-check";
import { beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { SOAK, soak, withSeed } from "../../shared/test/support/soak.ts";
import { installRelease, type TestNode } from "../support/cluster.ts";
import { type Fault, startFaultProxy } from "../support/fault-proxy.ts";
import { createNamespace, createPod, describeWithKube, installPolicyDefinition, remove } from "../support/kube.ts";
import { startLoneAgent } from "../support/lone-agent.ts";
import { policyDocument } from "../support/policy-document.ts";
import { aFolder, type Running, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";
import { startWireProxy, type WireFault, type WireProxy } from "../support/wire-proxy.ts";

const WIRE_FAULTS: readonly WireFault[] = [
  { do: "swallow" },
  { do: "delay", delayMs: 3000 },
  { do: "duplicate" },
  { do: "truncate", bytes: 20 },
  { do: "reset" },
  { do: "flip", bit: 75 },
  { do: "half-close" },
];

/** Where each directive that an agent took stands in the order of all. */
const accepted = (agent: Running) =>
  agent
    .log()
    .filter(({ msg }) => msg === "directive accepted")
    .map(({ term, revision }) => ({ term: Number(term), revision: Number(revision) }));

/** Every directive that an agent took is newer than the one before. */
function expectOnlyNewer(agent: Running): void {
  const fences = accepted(agent);
  for (const [index, { term, revision }] of fences.entries()) {
    const before = fences[index - 1];
    if (before === undefined) continue;
    expect([term, term > before.term || revision > before.revision], JSON.stringify(fences)).toEqual([
      expect.toSatisfy((now) => now >= before.term),
      true,
    ]);
  }
}

/** The files and sockets that a process has open. */
const handles = ({ process: { pid } }: Running) => readdirSync(`/proc/${pid}/fd`).length;

describe("the link between a coordinator and an agent", () => {
  let pki: Awaited<ReturnType<typeof aPki>>;
  beforeAll(async () => {
    pki = await aPki();
  });

  /** A real agent behind a wire, with a directory of its own. */
  async function startAgentBehindWire(name: string) {
    const directory = aFolder();
    const { agent, port } = await startLoneAgent({
      agentLeaf: pki.agent,
      authority: pki.authority,
      args: ["--checkpoint-root", directory, "--node-name", `node-${name}`, "--pod-uid", `pod-${name}`],
    });
    const wire = await startWireProxy({ host: "127.0.0.1", port: 0 }, { host: "127.0.0.1", port });
    onTestFinished(() => wire.close());
    return { directory, agent, wire, address: addressOf(name, wire) };
  }

  const addressOf = (name: string, { port }: WireProxy): AgentAddress => ({
    node: `node-${name}`,
    podUID: `pod-${name}`,
    url: `https://127.0.0.1:${port}`,
  });

  function aClient({ deadlineMs = 1000, onDisconnect = (_: string) => {} } = {}) {
    const client = createAgentClient({ material: pki.coordinator, deadlineMs, wallMs: Date.now, onDisconnect });
    onTestFinished(() => client.close());
    return client;
  }

  function policyFor(directory: string, maxCheckpointsPerContainer: number) {
    const document = policyDocument({ globalPolicy: { maxCheckpointsPerContainer } });
    return serializePolicy({ ...document, directory, applyImmediately: true });
  }

  const directiveOf = (address: AgentAddress, directory: string, parts: { term: number; limit: number }) =>
    writeDirective({
      fence: { term: parts.term, revision: 1 },
      address,
      timeMs: Date.now(),
      policy: policyFor(directory, parts.limit),
      withDocument: true,
      orphans: [],
      protocol: 2,
    });

  it("that swallows, delays, repeats, cuts off, resets, flips or half closes keeps one agent from its policy and no other, until it is well", async () => {
    const [troubled, ...others] = await Promise.all(["a", "b", "c"].map(startAgentBehindWire));
    if (troubled === undefined) throw new Error("no agent");
    const agents = [troubled, ...others];
    const client = aClient({ onDisconnect: (origin) => pusher.noteDisconnect(origin) });
    const pusher = createPusher({
      client,
      term: 1,
      timings: { resyncMs: 60_000, reportMs: 500, changeMs: 500, minBackoffMs: 50, maxBackoffMs: 500 },
      concurrency: 4,
      wallMs: Date.now,
      monotonicMs: () => performance.now(),
      random: Math.random,
      events: { onReport() {}, onDisbelief() {}, onApplied() {}, onOlder() {}, onFailure() {}, onPush() {} },
    });
    onTestFinished(() => pusher.stop());
    const untilState = (which: typeof agents, wanted: string) =>
      until(() => {
        const view = new Map(pusher.view().map(({ address: { podUID }, state }) => [podUID, state]));
        for (const { address } of which)
          expect([address.podUID, view.get(address.podUID)]).toEqual([address.podUID, wanted]);
      });
    const folders = new Map(agents.map(({ address: { podUID }, directory }) => [podUID, directory]));
    const limit = (count: number) => pusher.setPolicy(({ podUID }) => policyFor(folders.get(podUID) ?? "", count));
    const startMs = Date.now() - 6 * 3_600_000;
    const files = agents.map(({ directory }) => series(directory, 2 * WIRE_FAULTS.length + 3, { startMs }))[0] ?? [];
    const untilKept = (which: typeof agents, count: number) =>
      until(() => {
        for (const { directory } of which) expect(archivesIn(directory)).toEqual(files.slice(-count));
      });
    let count = files.length - 1;
    pusher.setAgents(agents.map(({ address }) => address));
    limit(count);
    await untilKept(agents, count);

    for (const fault of WIRE_FAULTS) {
      troubled.wire.fault = () => fault;
      count -= 1;
      limit(count);
      const changedMs = performance.now();
      await untilKept(others, count);
      expect([fault.do, performance.now() - changedMs]).toEqual([fault.do, expect.toSatisfy((ms) => ms < 2500)]);
      await untilState([troubled], "stale");
      await untilState(others, "applied");
      // A directive came whole or not at all.
      const kept = archivesIn(troubled.directory);
      expect([files.slice(-count - 1), files.slice(-count)]).toContainEqual(kept);

      troubled.wire.fault = () => undefined;
      count -= 1;
      limit(count);
      await untilKept(agents, count);
      await untilState(agents, "applied");
    }
    for (const { agent } of agents) {
      expectOnlyNewer(agent);
      expect(agent.err).toEqual([]);
      expect(agent.process.exitCode).toBeNull();
    }
  }, 60_000);

  it("that is slow brings a deposed leader's directive behind its successor's: it is refused, and named older", async () => {
    const { directory, agent, wire, address } = await startAgentBehindWire("a");
    const files = series(directory, 6);
    const slow = aClient({ deadlineMs: 10_000 });
    // The deposed one has a connection, as it had before its successor.
    expect((await slow.getReport(address, new AbortController().signal)).outcome).toBe("accepted");
    let isHeld = false;
    wire.fault = () => {
      isHeld = true;
      return { do: "delay", delayMs: 1500 };
    };
    const late = slow.putDirective(
      address,
      directiveOf(address, directory, { term: 1, limit: 1 }),
      new AbortController().signal,
    );
    await until(() => expect(isHeld).toBe(true));
    wire.fault = () => undefined;
    const quick = aClient();
    const newer = directiveOf(address, directory, { term: 2, limit: 4 });
    expect((await quick.putDirective(address, newer, new AbortController().signal)).outcome).toBe("accepted");
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)));
    expect(await late).toEqual({ outcome: "older", term: 2, revision: 1 });
    expect(accepted(agent)).toEqual([{ term: 2, revision: 1 }]);
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(directory)).toEqual([...files.slice(3), next]));
  });

  it("that led to another agent for a while, over a connection that lasts, soon leads to its own", async () => {
    const [a, b] = await Promise.all([startAgentBehindWire("a"), startAgentBehindWire("b")]);
    const own = a.wire.upstream;
    const { signal } = new AbortController();
    const client = aClient({ deadlineMs: 5000 });
    const ask = async () => (await client.getReport(a.address, signal)).outcome;
    a.wire.upstream = b.wire.upstream;
    expect(await ask()).toBe("misdirected");
    a.wire.upstream = own;
    // The next call may still meet the connection of the first.
    await ask();
    expect(await ask()).toBe("accepted");
    expect(await ask()).toBe("accepted");
    expect(a.wire.connections).toBeLessThanOrEqual(3);
  });

  it(
    "that ends or is reset anywhere in a report brings no report",
    async () => {
      const { wire, address } = await startAgentBehindWire("a");
      const signal = new AbortController().signal;
      /** Asks once over a connection of its own; tells how many bytes came back, had nothing happened. */
      async function ask(fault: WireProxy["fault"]) {
        let bytes = 0;
        wire.fault = (chunk) => {
          if (chunk.direction === "back") bytes += chunk.bytes;
          return fault(chunk);
        };
        const client = createAgentClient({
          material: pki.coordinator,
          deadlineMs: 3000,
          wallMs: Date.now,
          onDisconnect: () => {},
        });
        const outcome = await client.getReport(address, signal);
        await client.close();
        return { outcome: outcome.outcome, bytes };
      }
      const whole = await ask(() => undefined);
      expect(whole.outcome).toBe("accepted");
      await fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: whole.bytes - 100 }),
          fc.constantFrom("truncate" as const, "reset" as const),
          async (keep, how) => {
            const { outcome } = await ask(({ direction, bytes, offset }) => {
              if (direction === "out" || offset + bytes <= keep) return undefined;
              return how === "reset" ? { do: "reset" } : { do: "truncate", bytes: keep - offset };
            });
            expect(outcome).toBe("failed");
          },
        ),
        { numRuns: soak(40) },
      );
      expect((await ask(() => undefined)).outcome).toBe("accepted");
    },
    30_000 * SOAK,
  );
});

/** What requests to the API server meet for a while. */
const API_FAULTS: readonly Fault[] = [
  { do: "drop" },
  { do: "hang" },
  { do: "delay", delayMs: 1500 },
  { do: "answer", status: 500, body: "" },
  { do: "answer", status: 429, headers: { "retry-after": "1" }, body: "slow down" },
  { do: "answer", status: 404, body: "404 page not found" },
  { do: "rewrite", rewrite: (chunk) => Buffer.concat([Buffer.from("\u0000\n"), chunk]) },
  { do: "truncate", bytes: 100, over: "cut" },
  { do: "truncate", bytes: 100, over: "end" },
  { do: "duplicate" },
];
const GRACE_MS = 2000;
const LIVING = ["lives-0", "lives-1"];
const GOING = ["goes-0", "goes-1", "goes-2"];

/** The limits that a node's policies have, none of them another node's. */
const limitOf = (node: number, isStrict: boolean) => 2 * (node + 1) + (isStrict ? 0 : 1);

/** How many steps make an hour in a test run. */
const STEPS = 16;

/** What happens within a step of the hour: faults that last as long as it does, and what users do meanwhile. */
const arbStep = fc.record({
  durationMs: fc.integer({ min: 500, max: 2000 }),
  api: fc.option(fc.record({ fault: fc.constantFrom(...API_FAULTS), everyNth: fc.integer({ min: 1, max: 4 }) }), {
    freq: 2,
  }),
  isApiCut: fc.boolean(),
  wires: fc.tuple(
    ...[0, 1, 2].map(() =>
      fc.option(fc.record({ fault: fc.constantFrom(...WIRE_FAULTS), everyNth: fc.integer({ min: 1, max: 6 }) }), {
        freq: 2,
      }),
    ),
  ),
  /** The agents' addresses lead to each other's for as long. */
  isMisrouted: fc.nat(4).map((n) => n === 0),
  actions: fc.array(
    fc.oneof(
      fc.record({ do: fc.constant("policy" as const), node: fc.nat(2), isStrict: fc.boolean() }),
      fc.record({ do: fc.constant("archive" as const), node: fc.nat(2), pod: fc.constantFrom(...LIVING, ...GOING) }),
      fc.record({
        do: fc.constantFrom("delete" as const, "create" as const, "replace" as const),
        pod: fc.constantFrom(...GOING),
      }),
    ),
    { minLength: 1, maxLength: 4 },
  ),
});

type Step = typeof arbStep extends fc.Arbitrary<infer T> ? T : never;

describeWithKube("the network of a release", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  const events = async (release: Awaited<ReturnType<typeof installRelease>>, reason: string) =>
    (await release.events()).filter((event) => event.reason === reason);

  it("may deliver writes to the API server twice: one leads on, and Events tell of everything once", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    const directory = node?.directory ?? "";
    const writes = new Map<string, number>();
    release.proxy.fault = ({ method, url }) => {
      if (method === "GET") return undefined;
      const kind = /leases|secrets|events|status/.exec(url)?.[0] ?? url;
      const count = (writes.get(kind) ?? 0) + 1;
      writes.set(kind, count);
      // The second of two renewals always finds the Lease changed by the first: only every other one comes twice.
      return kind === "leases" && count % 2 === 0 ? undefined : { do: "duplicate" };
    };
    const coordinators = [release.startCoordinator(), release.startCoordinator()];
    await release.apply("policy", { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    const files = series(directory, 6);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(4)), 30_000);
    await until(async () => {
      const { conditions, nodes } = await release.status("policy");
      expect(conditions).toContainEqual(expect.objectContaining({ type: "Enforcing", status: "True" }));
      expect(nodes).toMatchObject({ desired: 1, applied: 1 });
    }, 20_000);
    const deleted = () => events(release, "ArchivesDeleted");
    await until(async () => expect(await deleted()).not.toEqual([]), 60_000);
    // What is told of at once would be told again with the next look, which the written status brings.
    await release.apply("policy", { globalPolicy: { maxChekpointSize: "1Gi" } });
    await until(async () => {
      const { conditions } = await release.status("policy");
      expect(conditions).toContainEqual(expect.objectContaining({ type: "Accepted", status: "False" }));
    }, 20_000);
    // Longer than a leader lasts without a renewal that it knows of.
    await until(() => expect(writes.get("leases")).toBeGreaterThan(10), 40_000);
    expect((await deleted()).reduce((sum, { count }) => sum + count, 0)).toBe(4);
    expect(await events(release, "PolicyRefused")).toHaveLength(1);
    expect([...writes.keys()].sort()).toEqual(["events", "leases", "secrets", "status"]);
    expect(coordinators.flatMap(({ log }) => log().filter(({ msg }) => msg === "leading"))).toHaveLength(1);
    if (node !== undefined) expectOnlyNewer(node.agent);
  }, 120_000);

  it("may keep a leader from the API server alone: it stops before another leads, and that one is obeyed", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    if (node === undefined) throw new Error("no node");
    const proxy = await startFaultProxy(kube);
    onTestFinished(() => proxy.close());
    const timeOf = ({ log }: Running, message: string) =>
      Date.parse(String(log().find(({ msg }) => msg === message)?.time));
    const cutOff = release.startCoordinator("--kubeconfig", await release.kubeconfigOf(proxy));
    const limit = (count: number) =>
      release.apply("policy", { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: count } });
    await limit(7);
    const files = series(node.directory, 8);
    await until(() => expect(archivesIn(node.directory)).toEqual(files.slice(1)), 30_000);
    const successor = release.startCoordinator();
    await until(() => expect(timeOf(successor, "coordinator started")).not.toBeNaN());
    // Its link to the agent goes on working.
    proxy.fault = () => ({ do: "hang" });
    proxy.cut();
    const cutOffMs = performance.now();
    await limit(5);
    await until(() => expect(archivesIn(node.directory)).toEqual(files.slice(3)), 40_000);
    expect(performance.now() - cutOffMs).toBeLessThan(20_000);
    expect(timeOf(cutOff, "no longer leading")).toBeLessThan(timeOf(successor, "Lease acquired"));
    proxy.fault = () => undefined;
    const before = proxy.requests.length;
    await until(() => expect(proxy.requests.length).toBeGreaterThan(before + 1));
    await limit(3);
    await until(() => expect(archivesIn(node.directory)).toEqual(files.slice(5)));
    expect(new Set(accepted(node.agent).map(({ term }) => term))).toEqual(new Set([1, 2]));
    expectOnlyNewer(node.agent);
    for (const { err } of [cutOff, successor]) expect(err).toEqual([]);
  }, 90_000);

  const HOUR_MS = 120_000 + 150_000 * SOAK;
  it(
    "may do what it wants for an hour: nothing goes that should stay, and then all is as was asked for",
    async () => {
      const arbSteps = fc.array(arbStep, { minLength: soak(STEPS), maxLength: soak(STEPS) });
      await fc.assert(fc.asyncProperty(arbSteps, spendHour), {
        numRuns: 1,
        endOnFailure: true,
        ...withSeed(20_261_125),
      });
    },
    HOUR_MS,
  );

  async function spendHour(steps: Step[]): Promise<void> {
    const release = await installRelease(kube);
    const tenant = await createNamespace(kube.client, "tenant");
    const coordinators = [release.startCoordinator(), release.startCoordinator()];
    const all = [...coordinators, ...release.nodes.map(({ agent }) => agent)];
    const pids = all.map(({ process }) => process.pid);
    const record = keepRecord(kube, { tenant, nodes: release.nodes });
    const limit = (node: number, count: number, further: Record<string, number> = {}) =>
      release.apply(`node-${node + 1}`, {
        applyPoliciesImmediately: true,
        nodeSelector: { index: `${node + 1}` },
        orphanGracePeriod: `${GRACE_MS}ms`,
        globalPolicy: { retainOrphan: false, maxCheckpointsPerContainer: count, ...further },
      });
    for (const pod of [...LIVING, ...GOING]) await record.createPod(pod);
    await Promise.all(release.nodes.map((_, node) => limit(node, limitOf(node, false))));
    for (const [node] of release.nodes.entries())
      for (const pod of [...LIVING, ...GOING]) for (let n = 0; n < 3; n += 1) record.write(node, pod);
    const expectApplied = async (node: number) => {
      const { metadata, status = {} } = await release.read(`node-${node + 1}`);
      expect(status).toMatchObject({
        observedGeneration: metadata.generation,
        nodes: { desired: 1, ready: 1, applied: 1, stale: 0 },
      });
      expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Enforcing", status: "True" }));
      return status;
    };
    await until(() => Promise.all(release.nodes.map((_, node) => expectApplied(node))), 60_000);
    const handlesBefore = byRole(coordinators)
      .concat(release.nodes.map(({ agent }) => agent))
      .map(handles);

    for (const [number, step] of steps.entries()) {
      let requests = 0;
      release.proxy.fault = () =>
        step.api !== null && !step.isMisrouted && requests++ % step.api.everyNth === 0 ? step.api.fault : undefined;
      if (step.isApiCut && !step.isMisrouted) release.proxy.cut();
      for (const [index, { wire }] of release.nodes.entries()) {
        const trouble = step.isMisrouted ? null : step.wires[index];
        let chunks = 0;
        wire.fault = () => (trouble && chunks++ % trouble.everyNth === 0 ? trouble.fault : undefined);
        const to = release.nodes[step.isMisrouted ? (index + 1) % release.nodes.length : index];
        wire.upstream = { host: to?.ip ?? "", port: wire.port };
        if (step.isMisrouted) wire.cut();
      }
      const acting = (async () => {
        // Nothing else may keep a directive from the wrong door, and each node gets a new one.
        if (step.isMisrouted) {
          for (const node of release.nodes.keys())
            await limit(node, limitOf(node, true), { maxCheckpointsPerPod: 100 + number });
        }
        for (const action of step.actions) {
          if (action.do === "archive") record.write(action.node, action.pod);
          else if (action.do === "policy") await limit(action.node, limitOf(action.node, action.isStrict));
          else {
            if (action.do !== "create") await record.removePod(action.pod);
            if (action.do !== "delete") await record.createPod(action.pod);
          }
        }
      })();
      const endMs = performance.now() + step.durationMs;
      while (performance.now() < endMs) {
        record.check();
        await sleep(50);
      }
      await acting;
    }

    release.proxy.fault = () => undefined;
    for (const { wire, ip } of release.nodes) {
      wire.fault = () => undefined;
      wire.upstream = { host: ip, port: wire.port };
    }
    // The strictest: what looser ones were to keep, a strict one may have taken before them.
    await Promise.all(release.nodes.map((_, node) => limit(node, limitOf(node, true))));
    const expectAllExact = () => {
      record.check();
      for (const node of release.nodes.keys()) record.expectExact(node);
    };
    await until(expectAllExact, 90_000);
    // Another that takes nothing more: numbers alone would be told only once a minute.
    await Promise.all(release.nodes.map((_, node) => limit(node, 20)));
    await until(async () => {
      for (const [node, { directory }] of release.nodes.entries())
        expect((await expectApplied(node)).archives).toBe(archivesIn(directory).length);
    }, 90_000);
    expectAllExact();

    // What a black hole has swallowed is still open at the other end, and nobody there can know.
    for (const { wire } of release.nodes) wire.cut();
    await until(() => {
      const after = byRole(coordinators)
        .concat(release.nodes.map(({ agent }) => agent))
        .map(handles);
      for (const [index, count] of after.entries()) expect(count).toBeLessThanOrEqual(handlesBefore[index] ?? 0);
    }, 60_000);
    expect(all.map(({ process }) => process.pid)).toEqual(pids);
    for (const one of all) {
      expect([one.process.exitCode, one.process.signalCode]).toEqual([null, null]);
      expect(one.err).toEqual([]);
    }
  }
});

/** The one that leads before the one that does not. */
function byRole([a, b]: Running[]): Running[] {
  const leads = ({ log }: Running) => {
    const last = log()
      .filter(({ msg }) => msg === "leading" || msg === "no longer leading")
      .at(-1);
    return last?.msg === "leading";
  };
  if (a === undefined || b === undefined) throw new Error("there are two coordinators");
  return leads(a) ? [a, b] : [b, a];
}

/** Remembers which archives were written when, and when their pods were not there; judges by that what is gone. */
function keepRecord(
  { client }: Parameters<Parameters<typeof describeWithKube>[1]>[0],
  { tenant, nodes }: { tenant: string; nodes: readonly TestNode[] },
) {
  const pods = `/api/v1/namespaces/${tenant}/pods`;
  const nowMs = () => performance.now();
  /** The spans in which a pod may not have existed; the last one may still last. */
  const absences = new Map<string, Array<{ fromMs: number; toMs: number }>>();
  const written: Array<{ node: number; pod: string; file: string; atMs: number }> = [];
  const startMs = Date.now() - 12 * 3_600_000;
  const exists = (pod: string) => (absences.get(pod)?.at(-1)?.toMs ?? 0) < Number.POSITIVE_INFINITY;
  /** Whether an archive's pod was gone for long enough, after the archive was there, for it to be an orphan. */
  const mayBeOrphan = ({ pod, atMs }: { pod: string; atMs: number }) =>
    (absences.get(pod) ?? []).some(
      ({ fromMs, toMs }) => toMs > atMs && Math.min(toMs, nowMs()) - fromMs >= GRACE_MS - 50,
    );
  const seen = nodes.map(() => 0);

  return {
    async createPod(pod: string): Promise<void> {
      if (absences.has(pod) && exists(pod)) return;
      await createPod(client, { namespace: tenant, name: pod });
      const last = absences.get(pod)?.at(-1);
      if (last === undefined) absences.set(pod, []);
      else last.toMs = nowMs();
    },
    async removePod(pod: string): Promise<void> {
      if (!exists(pod)) return;
      absences.get(pod)?.push({ fromMs: nowMs(), toMs: Number.POSITIVE_INFINITY });
      await remove(client, `${pods}/${pod}`);
    },
    write(node: number, pod: string): void {
      const timeMs = startMs + written.length * 60_000;
      const parts = { namespace: tenant, pod, container: "main", time: archiveTime(timeMs), mtimeMs: timeMs };
      written.push({ node, pod, file: writeArchive(nodes[node]?.directory ?? "", parts), atMs: nowMs() });
    },
    /** What must be so at every moment. */
    check(): void {
      for (const [node, { directory, agent }] of nodes.entries()) {
        const there = new Set(archivesIn(directory));
        const strictest = limitOf(node, true);
        const mine = Map.groupBy(
          written.filter((one) => one.node === node),
          ({ pod }) => pod,
        );
        for (const archives of mine.values()) {
          const gone = archives.slice(-strictest).filter((one) => !there.has(one.file) && !mayBeOrphan(one));
          expect(gone, `node ${node}: gone although every policy keeps them`).toEqual([]);
        }
        for (const { msg, reason, archive } of agent.log().slice(seen[node])) {
          if (msg !== "archive deleted") continue;
          expect(["max_checkpoints", "orphan"]).toContain(reason);
          const one = written.find(({ file, node: its }) => its === node && file === archive);
          if (reason === "orphan")
            expect(one && mayBeOrphan(one), `${archive} of ${JSON.stringify(absences.get(one?.pod ?? ""))}`).toBe(true);
        }
        seen[node] = agent.log().length;
        expectOnlyNewer(agent);
      }
    },
    /** What a directory holds once everything is well. */
    expectExact(node: number): void {
      const there = archivesIn(nodes[node]?.directory ?? "");
      const mine = Map.groupBy(
        written.filter((one) => one.node === node),
        ({ pod }) => pod,
      );
      const allowed = [...mine.values()].flatMap((archives) => archives.slice(-limitOf(node, true)));
      const wanted = allowed.filter((one) => exists(one.pod) && !mayBeOrphan(one));
      const living = allowed.filter(({ pod }) => exists(pod));
      expect(there).toEqual(expect.arrayContaining(wanted.map(({ file }) => file)));
      expect(living.map(({ file }) => file)).toEqual(expect.arrayContaining(there));
    },
  };
}
