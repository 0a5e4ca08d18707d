import { compilePolicy, defaultPolicy } from "@cro/shared/policy/compile";
import { DOCUMENT_FIELDS } from "@cro/shared/policy/document-fields";
import type { OrphanFact } from "@cro/shared/wire/directive";
import { Directive, REFUSED } from "@cro/shared/wire/directive";
import { Compile } from "typebox/compile";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { type AgentClient, createAgentClient } from "../../src/agents/client.ts";
import { type AgentAddress, serializePolicy } from "../../src/agents/directive.ts";
import { createPusher, type Pusher, type PusherOptions } from "../../src/agents/push.ts";
import { type AgentPeer, answer, aPki, startAgentPeer } from "../support/agent-peer.ts";

const defaults = serializePolicy(defaultPolicy().document);
const checkDirective = Compile(Directive);

function aPolicy(maxCheckpointsPerContainer: number) {
  const compiled = compilePolicy({ globalPolicy: { maxCheckpointsPerContainer } });
  if (!compiled.ok) throw new Error("the policy must compile");
  return serializePolicy(compiled.policy.document);
}

let pki: Awaited<ReturnType<typeof aPki>>;
beforeAll(async () => {
  pki = await aPki();
});

const stops: Array<() => Promise<void>> = [];
afterEach(async () => {
  for (const stop of stops.splice(0).reverse()) await stop();
});

async function aPeer(name = "a"): Promise<AgentPeer> {
  const peer = await startAgentPeer(pki.agent, { node: `node-${name}`, podUID: `uid-${name}` });
  stops.push(peer.close);
  return peer;
}

interface Seen {
  applied: string[];
  older: number[];
  failures: string[];
  dropped: string[];
  pushes: boolean[];
}

/** A pusher whose waits are short; what only a wait could bring is asked for with longer ones. */
function aPusher(
  timings: Partial<PusherOptions["timings"]> = {},
  options: Partial<PusherOptions> = {},
): { pusher: Pusher; client: AgentClient; seen: Seen } {
  const seen: Seen = { applied: [], older: [], failures: [], dropped: [], pushes: [] };
  const client = createAgentClient({
    material: pki.coordinator,
    deadlineMs: 2000,
    wallMs: Date.now,
    onDisconnect: (origin) => pusher.noteDisconnect(origin),
  });
  const pusher = createPusher({
    client,
    term: 1,
    timings: {
      resyncMs: 60_000,
      reportMs: 60_000,
      changeMs: timings.reportMs ?? 60_000,
      minBackoffMs: 20,
      maxBackoffMs: 100,
      ...timings,
    },
    concurrency: 4,
    wallMs: () => Date.UTC(2030, 0, 1),
    monotonicMs: () => performance.now(),
    random: Math.random,
    events: {
      onReport: () => {},
      onDisbelief: (_, dropped) => seen.dropped.push(...dropped),
      onApplied: ({ node }, { term, revision }) => seen.applied.push(`${node} ${term}.${revision}`),
      onOlder: (_, newest) => seen.older.push(newest.term),
      onFailure: (_, problem) => seen.failures.push(problem),
      onPush: (_, ok) => seen.pushes.push(ok),
    },
    ...options,
  });
  stops.push(client.close, pusher.stop);
  return { pusher, client, seen };
}

const directives = (peer: AgentPeer) => peer.calls.flatMap(({ directive }) => directive ?? []);
const stateOf = (pusher: Pusher, { podUID }: AgentAddress) =>
  pusher.view().find(({ address }) => address.podUID === podUID)?.state;

describe("createPusher", () => {
  it("brings a new agent its policy: the digest first, the document when it is asked for", async () => {
    const peer = await aPeer();
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toEqual(["node-a 1.1"]);
    const [first, second] = directives(peer);
    expect(first?.policy).toEqual({ digest: defaults.digest });
    expect(second?.policy).toEqual({ digest: defaults.digest, document: defaultPolicy().document });
    for (const directive of directives(peer)) expect(checkDirective.Check(directive)).toBe(true);
    expect(second).toMatchObject({ node: "node-a", podUID: "uid-a", time: "2030-01-01T00:00:00.000Z", orphans: [] });
    expect(stateOf(pusher, peer.address)).toBe("applied");
    expect(seen.pushes).toEqual([true, true]);
  });

  it("pushes nothing where there is no policy, but knows the agent's report", async () => {
    const peer = await aPeer();
    const { pusher } = aPusher();
    pusher.setAgents([peer.address]);
    await expect.poll(() => pusher.view()[0]?.report?.bootId).toBe("uid-a-boot-1");
    expect(directives(peer)).toEqual([]);
    expect(stateOf(pusher, peer.address)).toBe("pending");
  });

  it("pushes a change at once and as a newer revision, and no policy that is the same", async () => {
    const peer = await aPeer();
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    pusher.setPolicy(() => serializePolicy(defaultPolicy().document));
    pusher.setPolicy(() => aPolicy(5));
    await expect.poll(() => seen.applied).toEqual(["node-a 1.1", "node-a 1.2"]);
    expect(peer.report.accepted?.digest).toBe(aPolicy(5).digest);
  });

  it("gives each node its own policy", async () => {
    const peers = [await aPeer("a"), await aPeer("b"), await aPeer("c")];
    const { pusher, seen } = aPusher();
    pusher.setPolicy(({ node }) => (node === "node-a" ? aPolicy(1) : node === "node-b" ? aPolicy(2) : undefined));
    pusher.setAgents(peers.map(({ address }) => address));
    await expect.poll(() => seen.applied).toHaveLength(2);
    expect(peers.map(({ report }) => report.accepted?.digest)).toEqual([
      aPolicy(1).digest,
      aPolicy(2).digest,
      undefined,
    ]);
  });

  it("carries an agent's proofs in a directive of their own revision, which is no newly applied policy", async () => {
    const peers = [await aPeer("a"), await aPeer("b")];
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents(peers.map(({ address }) => address));
    await expect.poll(() => seen.applied).toHaveLength(2);
    const fact: OrphanFact = { bootId: "uid-a-boot-1", report: 1, namespace: "n", pod: "p" };
    pusher.setOrphans("uid-a", [fact]);
    const sent = () => directives(peers[0] as AgentPeer);
    await expect.poll(() => sent().at(-1)).toMatchObject({ orphans: [fact], policy: { digest: defaults.digest } });
    expect(directives(peers[1] as AgentPeer).every(({ orphans }) => orphans.length === 0)).toBe(true);
    pusher.setOrphans("uid-a", [fact]);
    pusher.setOrphans("uid-a", []);
    await expect.poll(() => sent().at(-1)?.orphans).toEqual([]);
    pusher.setTerm(7);
    await expect.poll(() => [pusher.view()[0]?.state, sent().at(-1)?.term]).toEqual(["applied", 7]);
    expect(seen.applied).toHaveLength(2);
    const [peer] = peers;
    if (peer !== undefined) peer.report = { ...peer.report, bootId: "another" };
    pusher.setOrphans("uid-a", [fact]);
    await expect.poll(() => seen.applied).toHaveLength(3);
  });

  it("never has two calls to an agent at once, and ends with the newest policy, however fast they change", async () => {
    const peer = await aPeer();
    let calls = 0;
    let maxCalls = 0;
    const counted = async <T>(call: Promise<T>) => {
      maxCalls = Math.max(maxCalls, ++calls);
      return call.finally(() => calls--);
    };
    const client = createAgentClient({
      material: pki.coordinator,
      deadlineMs: 2000,
      wallMs: Date.now,
      onDisconnect: () => {},
    });
    stops.push(client.close);
    const { pusher } = aPusher(
      { reportMs: 5, resyncMs: 5 },
      {
        client: {
          putDirective: (...args) => counted(client.putDirective(...args)),
          getReport: (...args) => counted(client.getReport(...args)),
        },
      },
    );
    pusher.setAgents([peer.address]);
    for (let n = 1; n <= 50; n++) {
      pusher.setPolicy(() => aPolicy(n));
      await new Promise(setImmediate);
    }
    await expect.poll(() => peer.report.accepted?.digest).toBe(aPolicy(50).digest);
    expect(maxCalls).toBe(1);
    const fences = directives(peer).map(({ term, revision }) => term * 1e6 + revision);
    expect(fences).toEqual(fences.toSorted((a, b) => a - b));
  });

  it("tells again, and asks again, when nothing has changed", async () => {
    const peer = await aPeer();
    const { pusher, seen } = aPusher({ reportMs: 10, resyncMs: 30 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => directives(peer).length).toBeGreaterThan(5);
    expect(peer.calls.filter(({ method }) => method === "GET").length).toBeGreaterThan(2);
    expect(new Set(directives(peer).map(({ revision }) => revision))).toEqual(new Set([1]));
    expect(seen.applied).toEqual(["node-a 1.1"]);
  });

  it("tries a failing agent again until it answers, and says each reason once", async () => {
    const peer = await aPeer();
    let refused = 0;
    peer.interfere = (_, response) => {
      if (++refused > 5) return false;
      response.writeHead(503).end();
      return true;
    };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => stateOf(pusher, peer.address)).toBe("stale");
    await expect.poll(() => seen.applied).toEqual(["node-a 1.1"]);
    expect(seen.failures).toEqual(["answered 503: no reason given"]);
    // In turn with reports.
    expect(seen.pushes.filter((ok) => !ok).length).toBeGreaterThan(1);
    expect(stateOf(pusher, peer.address)).toBe("applied");
  });

  it("names the term of an agent that follows a newer leader, and is obeyed once its own is higher", async () => {
    const peer = await aPeer();
    peer.report = { ...peer.report, accepted: { term: 7, revision: 3, digest: defaults.digest } };
    const { pusher, seen } = aPusher({ minBackoffMs: 60_000, maxBackoffMs: 60_000 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.older).toEqual([7]);
    pusher.setTerm(8);
    await expect.poll(() => seen.applied).toEqual(["node-a 8.1"]);
  });

  it("asks for a higher term where an agent has another policy under the same place in the order", async () => {
    const peer = await aPeer();
    const digest = aPolicy(3).digest;
    peer.report = { ...peer.report, accepted: { term: 1, revision: 1, digest } };
    peer.interfere = (call, response) => {
      if (call.directive?.term !== 1) return false;
      answer(response, 200, peer.report);
      return true;
    };
    const { pusher, seen } = aPusher({ minBackoffMs: 60_000, maxBackoffMs: 60_000 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.older).toEqual([1]);
    pusher.setTerm(2);
    await expect.poll(() => seen.applied).toEqual(["node-a 2.1"]);
  });

  it("lets no slow and no dead agent delay the others", async () => {
    const slow = await Promise.all(["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8"].map(aPeer));
    for (const peer of slow) peer.interfere = () => true;
    const good = await Promise.all(["g1", "g2", "g3"].map(aPeer));
    const dead = await aPeer("dead");
    await dead.close();
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    const startedMs = performance.now();
    pusher.setAgents([dead, ...slow, ...good].map(({ address }) => address));
    await expect.poll(() => seen.applied.length, { timeout: 1900 }).toBe(3);
    // The slow ones take 2 s each, in which four of them at a time would block everyone.
    expect(performance.now() - startedMs).toBeLessThan(1900);
  });

  it("brings an agent that restarts its directive without waiting for the next report", async () => {
    const peer = await aPeer();
    let skippedMs = 0;
    const { pusher, seen } = aPusher({}, { monotonicMs: () => performance.now() + skippedMs });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    skippedMs = 20_000;
    await peer.restart();
    await expect.poll(() => seen.applied).toEqual(["node-a 1.1", "node-a 1.1"]);
    expect(directives(peer).at(-1)?.policy.document).toBeDefined();
  });

  it("asks an agent for what changed since its last report, and keeps that report while nothing has", async () => {
    const peer = await aPeer();
    let isChanged = false;
    peer.interfere = ({ method, url }, response) => {
      const isAsked = url.endsWith(`after=${peer.report.number}`);
      if (method !== "GET" || isChanged || !isAsked) return false;
      response.writeHead(304).end();
      return true;
    };
    let wallMs = Date.UTC(2030, 0, 1);
    const { pusher, seen } = aPusher({ changeMs: 5 }, { wallMs: () => wallMs });
    pusher.setAgents([peer.address]);
    await expect.poll(() => pusher.view()[0]?.report).toBeDefined();
    const first = pusher.view()[0]?.report?.number;
    wallMs += 1000;
    await expect.poll(() => pusher.view()[0]?.heardAtMs).toBe(wallMs);
    expect(pusher.view()).toMatchObject([{ state: "pending", report: { number: first }, problem: undefined }]);
    isChanged = true;
    peer.report = { ...peer.report, archives: 5 };
    await expect.poll(() => pusher.view()[0]?.report?.archives).toBe(5);
    expect(seen.failures).toEqual([]);
  });

  it("takes it for a failure if an agent answers a directive as if it had been asked for a report", async () => {
    const peer = await aPeer();
    peer.interfere = ({ method }, response) => {
      if (method === "PUT") response.writeHead(304).end();
      return method === "PUT";
    };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.failures).toEqual(["answered a directive as if it were a question for its report"]);
    expect(seen.applied).toEqual([]);
  });

  it("brings the successor of an agent its directive at once, and leaves the predecessor alone", async () => {
    const peer = await aPeer("a");
    const successor = await aPeer("b");
    const { pusher, seen } = aPusher({ reportMs: 20 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    pusher.setAgents([successor.address]);
    await expect.poll(() => seen.applied).toHaveLength(2);
    expect(pusher.view().map(({ address }) => address.podUID)).toEqual(["uid-b"]);
    const calls = peer.calls.length;
    const before = successor.calls.length;
    await expect.poll(() => successor.calls.length).toBeGreaterThan(before + 3);
    expect(peer.calls.length).toBeLessThanOrEqual(calls + 1);
  });

  it("leaves alone what it knows of an agent that stays in the list", async () => {
    const [a, b] = [await aPeer("a"), await aPeer("b")];
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([a.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    const calls = a.calls.length;
    pusher.setAgents([a.address, b.address]);
    await expect.poll(() => seen.applied).toHaveLength(2);
    expect(a.calls).toHaveLength(calls);
  });

  it("does not push to another agent that took over the address", async () => {
    const peer = await aPeer("b");
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    const address = { ...peer.address, node: "node-a", podUID: "uid-a" };
    pusher.setAgents([address]);
    await expect.poll(() => seen.failures).toContain("is another agent: this is node-b");
    expect(peer.report.accepted).toBeUndefined();
    expect(stateOf(pusher, address)).toBe("stale");
  });

  /** A policy with a member that the agents of today do not have. */
  function aLaterPolicy() {
    const { document } = defaultPolicy();
    const later = { ...document, node: { ...document.node, minFreeForOthers: 5 } };
    return serializePolicy(later as typeof document);
  }

  it("does not push a policy to an agent that does not know all of it, and says why", async () => {
    const [oldest, today, later] = [await aPeer("a"), await aPeer("b"), await aPeer("c")];
    today.report = { ...today.report, version: "0.2.0", protocol: 2, documentFields: [...DOCUMENT_FIELDS] };
    const documentFields = [...DOCUMENT_FIELDS, "node.minFreeForOthers"];
    later.report = { ...later.report, version: "0.3.0", protocol: 3, documentFields };
    const { pusher, seen } = aPusher({ reportMs: 20 });
    pusher.setPolicy(() => defaults);
    const addresses = [oldest, today, later].map(({ address }) => address);
    pusher.setAgents(addresses);
    await expect.poll(() => seen.applied).toHaveLength(3);
    pusher.setPolicy(aLaterPolicy);
    await expect.poll(() => seen.applied).toHaveLength(4);
    expect(seen.applied.at(-1)).toMatch(/^node-c/);
    const { length } = oldest.calls;
    await expect.poll(() => oldest.calls.length).toBeGreaterThan(length + 2);
    for (const peer of [oldest, today]) {
      expect(peer.report.accepted?.digest).toBe(defaults.digest);
      expect(directives(peer).every(({ policy }) => policy.digest === defaults.digest)).toBe(true);
    }
    expect(pusher.view().map(({ state, problem }) => [state, problem])).toEqual([
      ["pending", "agent 0.1.0 does not know node.minFreeForOthers of the policy; upgrade it"],
      ["pending", "agent 0.2.0 does not know node.minFreeForOthers of the policy; upgrade it"],
      ["applied", undefined],
    ]);
    pusher.setPolicy(() => aPolicy(3));
    await expect.poll(() => seen.applied).toHaveLength(7);
    expect(pusher.view().map(({ problem }) => problem)).toEqual([undefined, undefined, undefined]);
  });

  it("pushes such a policy to a new agent as soon as that has told that it knows all of it", async () => {
    const peer = await aPeer();
    peer.report = { ...peer.report, protocol: 3, documentFields: [...DOCUMENT_FIELDS, "node.minFreeForOthers"] };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(aLaterPolicy);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    expect(peer.calls[0]?.method).toBe("GET");
    expect(seen.failures).toEqual([]);
  });

  it("sends an agent of the first protocol no proof, which it could not be told to forget", async () => {
    const [first, second] = [await aPeer("a"), await aPeer("b")];
    first.report = { ...first.report, protocol: 1 };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([first.address, second.address]);
    await expect.poll(() => seen.applied).toHaveLength(2);
    const names = { namespace: "n", pod: "p", container: "c" };
    const fact: OrphanFact = { bootId: "b", report: 1, ...names, provedAt: "2030-01-01T00:00:00Z", graceMs: 5 };
    for (const podUID of ["uid-a", "uid-b"]) pusher.setOrphans(podUID, [fact]);
    await expect.poll(() => directives(second).at(-1)?.orphans).toEqual([fact]);
    await expect.poll(() => directives(first).at(-1)?.revision).toBeGreaterThan(2);
    expect(directives(first).flatMap(({ orphans }) => orphans)).toEqual([]);
  });

  it("names the resource of a policy, and another one that says the same, to agents that know of names", async () => {
    const [first, second] = [await aPeer("a"), await aPeer("b")];
    first.report = { ...first.report, protocol: 1 };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => ({ ...defaults, name: "shop/one" }));
    pusher.setAgents([first.address, second.address]);
    await expect.poll(() => seen.applied).toHaveLength(2);
    pusher.setPolicy(() => ({ ...defaults, name: 'shop/"two"' }));
    await expect.poll(() => directives(second).at(-1)?.policy.name).toBe('shop/"two"');
    expect(directives(second)[0]?.policy.name).toBe("shop/one");
    await expect.poll(() => directives(first).length).toBeGreaterThan(1);
    expect(directives(first).map(({ policy }) => policy.name)).not.toContain("shop/one");
    expect(directives(first).every(({ policy }) => policy.name === undefined)).toBe(true);
  });

  it("goes on fetching the reports of an agent that refuses its directive, which is not silent", async () => {
    const peer = await aPeer();
    peer.interfere = ({ directive }, response) => {
      if (directive === undefined) return false;
      answer(response, REFUSED.invalid, { error: "is not known", field: "policy.document.node.trash" });
      return true;
    };
    const { pusher, seen } = aPusher({ reportMs: 20 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => pusher.view()[0]?.report?.number).toBeGreaterThan(5);
    await expect.poll(() => directives(peer).length).toBeGreaterThan(2);
    const problem = "refuses policy.document.node.trash: is not known";
    expect(pusher.view()[0]).toMatchObject({ state: "pending", problem });
    expect(seen.failures).toEqual([problem]);
    peer.interfere = undefined;
    await expect.poll(() => pusher.view()[0]).toMatchObject({ state: "applied", problem: undefined });
  });

  it("takes the report of a later version, and tells once what it does not believe of one", async () => {
    const peer = await aPeer();
    const words = { directory: { path: "/a", state: "thawing" }, states: { trashed: 1 } };
    const good = { namespace: "n", pod: "p", containers: [] };
    peer.report = { ...peer.report, ...words, orphanScopes: [{ ...good, namespace: "../pods?watch=true&x=" }, good] };
    const { pusher, seen } = aPusher({ reportMs: 10 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => pusher.view()[0]?.report?.number).toBeGreaterThan(5);
    expect(pusher.view()[0]).toMatchObject({ state: "applied", report: { ...words, orphanScopes: [good] } });
    expect(seen.dropped).toHaveLength(1);
    expect(seen.failures).toEqual([]);
  });

  it("keeps what it knows of an agent whose pod begins to leave, and says so", async () => {
    const peer = await aPeer();
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.applied).toHaveLength(1);
    pusher.setAgents([{ ...peer.address, isLeaving: true }]);
    expect(pusher.view()[0]).toMatchObject({ state: "applied", address: { isLeaving: true } });
    pusher.setAgents([{ ...peer.address, url: "https://127.0.0.1:1" }]);
    expect(pusher.view()[0]).toMatchObject({ state: "pending", report: undefined });
  });

  it("names the field that an agent refuses", async () => {
    const peer = await aPeer();
    peer.interfere = (_, response) => {
      answer(response, REFUSED.invalid, { error: "must be an object", field: "/policy/document" });
      return true;
    };
    const { pusher, seen } = aPusher();
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => seen.failures).toEqual(["refuses /policy/document: must be an object"]);
  });

  it("makes no more calls when it is stopped, and breaks off those on the way", async () => {
    const peer = await aPeer();
    peer.interfere = () => true;
    const { pusher, seen } = aPusher({ reportMs: 5 });
    pusher.setPolicy(() => defaults);
    pusher.setAgents([peer.address]);
    await expect.poll(() => peer.calls.length).toBe(1);
    const startedMs = performance.now();
    await pusher.stop();
    expect(performance.now() - startedMs).toBeLessThan(1000);
    pusher.setPolicy(() => aPolicy(2));
    pusher.setTerm(9);
    expect(peer.calls).toHaveLength(1);
    expect(seen.pushes).toEqual([]);
  });
});
