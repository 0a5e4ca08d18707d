import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { KubeClient, KubeFailure, KubeObject, KubeRequest, KubeResult } from "../../src/kube/client.ts";
import { type ElectionOptions, type Leadership, type LeaseUse, runElection } from "../../src/leader/election.ts";
import { MEMO_ANNOTATION, TERM_ANNOTATION } from "../../src/leader/lease.ts";

/** So short a pause that a test waits for nothing; what runs out does so by the test's own clock. */
const TIMING = { leaseDurationMs: 15_000, renewDeadlineMs: 10_000, retryPeriodMs: 10 };
const REFERENCE = { namespace: "n", name: "leader" };
const NOT_FOUND: KubeFailure = {
  ok: false,
  reason: "NotFound",
  message: "leases leader not found",
  status: 404,
  answer: { reason: "NotFound", code: 404, details: { name: "leader", kind: "leases" } },
};
const UNREACHABLE: KubeFailure = { ok: false, reason: "Unreachable", message: "no route" };

const stops: Array<() => Promise<void>> = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});
const until = (condition: () => void) => vi.waitFor(condition, { timeout: 5000, interval: 2 });

interface Spec {
  holderIdentity?: string | null;
  leaseDurationSeconds?: number;
  renewTime?: string;
}
interface Body {
  metadata: { uid: string; resourceVersion: string; annotations: Record<string, string> };
  spec: Spec;
}

/** A Lease as the API server keeps it, and a clock. `fault` goes before each request and may answer in its place. */
function aLease() {
  const lease = {
    uid: "uid-1",
    version: 1,
    annotations: {} as Record<string, string>,
    spec: {} as Spec,
    skewMs: 0,
    writes: [] as Body[],
    requests: [] as KubeRequest[],
    fault: (_: KubeRequest): KubeFailure | undefined => undefined,
    /** Goes after a write was taken in, and may lose its answer. */
    afterWrite: (): KubeFailure | undefined => undefined,
    nowMs: () => performance.now() + lease.skewMs,
    /** Another one writes: whoever read the Lease before has an old version. */
    change: (spec: Spec, annotations: Record<string, string> = {}) => {
      lease.version += 1;
      Object.assign(lease.spec, spec);
      Object.assign(lease.annotations, annotations);
    },
  };
  const value = () => ({
    metadata: { name: "leader", uid: lease.uid, resourceVersion: `${lease.version}`, annotations: lease.annotations },
    spec: lease.spec,
  });
  const answerOf = <T>(): KubeResult<T> => ({ ok: true, value: structuredClone(value()) as KubeObject as T });
  const client: KubeClient = {
    async request<T>(request: KubeRequest): Promise<KubeResult<T>> {
      await nextTurn();
      lease.requests.push(request);
      const fault = lease.fault(request);
      if (fault !== undefined) return fault;
      if (request.method !== "PATCH") return answerOf<T>();
      const body = request.body as Body;
      if (body.metadata.uid !== lease.uid || body.metadata.resourceVersion !== `${lease.version}`) {
        return { ok: false, reason: "Conflict", message: "changed", status: 409 };
      }
      lease.writes.push(body);
      lease.change(body.spec, body.metadata.annotations);
      return lease.afterWrite() ?? answerOf<T>();
    },
    stream: () => Promise.reject(new Error("nothing is watched here")),
    close: async () => {},
  };
  return { lease, client };
}

type Peer = ReturnType<typeof aLease>;

/** A candidate for that Lease; it ends with the test. */
function aCandidate({ lease, client }: Peer, options: Partial<ElectionOptions> = {}) {
  const ending = new AbortController();
  const leaderships: Array<Leadership & { reason?: unknown }> = [];
  const logged: Array<[string | undefined, unknown]> = [];
  const uses: LeaseUse[] = [];
  const note = (fields: unknown, message?: string) => void logged.push([message, fields]);
  const running = runElection({
    client,
    lease: REFERENCE,
    identity: "me",
    signal: ending.signal,
    nowMs: lease.nowMs,
    now: () => new Date(0),
    random: () => 0.5,
    log: { info: note, warn: note } as ElectionOptions["log"],
    timing: TIMING,
    onLeaseUsed: (use) => uses.push(use),
    async lead(leadership) {
      const record: (typeof leaderships)[number] = { ...leadership };
      leaderships.push(record);
      await new Promise((resolve) => leadership.signal.addEventListener("abort", resolve));
      record.reason = leadership.signal.reason;
    },
    ...options,
  });
  const stop = async () => {
    ending.abort();
    await running;
  };
  stops.push(() => stop().catch(() => {}));
  const messages = () => logged.map(([message]) => message);
  const first = () => leaderships[0] as (typeof leaderships)[number];
  return { leaderships, first, logged, messages, uses, running, ending, stop };
}

async function aLeader(peer: Peer, options: Partial<ElectionOptions> = {}) {
  const candidate = aCandidate(peer, options);
  await until(() => expect(candidate.leaderships).toHaveLength(1));
  return candidate;
}

describe("a candidate", () => {
  it("takes a Lease that nobody holds, renews it, and lets it go when it ends", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    expect([candidate.first().term, candidate.first().holds(), candidate.first().memo]).toEqual([1, true, undefined]);
    await until(() => expect(lease.writes.length).toBeGreaterThan(3));
    expect(lease.spec.holderIdentity).toBe("me");
    expect(lease.spec.leaseDurationSeconds).toBe(15);
    expect(new Set(lease.writes.map(({ metadata }) => metadata.annotations[TERM_ANNOTATION]))).toEqual(new Set(["1"]));
    await candidate.stop();
    expect(candidate.first().reason).toBe("shutdown");
    expect(candidate.first().holds()).toBe(false);
    expect(lease.spec).toMatchObject({ holderIdentity: null, leaseDurationSeconds: 1 });
    expect(candidate.messages()).toEqual(["Lease acquired", "Lease given up or lost", "Let go of the Lease"]);
    expect(candidate.logged[0]?.[1]).toEqual({ ...REFERENCE, identity: "me", term: 1 });
    expect(candidate.logged[1]?.[1]).toEqual({ ...REFERENCE, term: 1, reason: "shutdown" });
    expect(candidate.logged[2]?.[1]).toEqual(REFERENCE);
    expect(candidate.uses.every(({ problem }) => problem === undefined)).toBe(true);
  });

  it("waits while another one holds the Lease, and takes it when that one has not renewed for its duration", async () => {
    const peer = aLease();
    const { lease } = peer;
    lease.change({ holderIdentity: "another", leaseDurationSeconds: 15 }, { [TERM_ANNOTATION]: "7" });
    const candidate = aCandidate(peer);
    await until(() => expect(candidate.uses.length).toBeGreaterThan(3));
    const { ledAtMs } = candidate.uses.at(-1) as LeaseUse;
    expect(ledAtMs).toBe(candidate.uses[0]?.ledAtMs);
    expect(lease.writes).toEqual([]);
    lease.skewMs = 15_000;
    await until(() => expect(candidate.first().term).toBe(8));
  });

  it("tells that nobody leads by a Lease that was let go", async () => {
    const peer = aLease();
    peer.lease.fault = ({ method }) => (method === "PATCH" ? UNREACHABLE : undefined);
    const candidate = aCandidate(peer);
    await until(() => expect(candidate.uses.length).toBeGreaterThan(1));
    expect(candidate.uses[0]).toEqual({ problem: "no route", ledAtMs: undefined });
    expect(candidate.leaderships).toEqual([]);
  });

  it("warns once of each problem, again when it comes again, and goes on looking", async () => {
    const peer = aLease();
    const { lease } = peer;
    const answers: Array<KubeFailure | undefined> = [NOT_FOUND, NOT_FOUND, UNREACHABLE, UNREACHABLE, NOT_FOUND];
    lease.fault = () => answers.shift();
    const candidate = await aLeader(peer);
    expect(candidate.messages().slice(0, 3)).toEqual([
      "The Lease does not exist; install the chart again to have it created",
      "The Lease cannot be used",
      "The Lease does not exist; install the chart again to have it created",
    ]);
    expect(candidate.logged[1]?.[1]).toEqual({ ...REFERENCE, reason: "Unreachable", err: "no route" });
    expect(candidate.uses.slice(0, 6).map(({ problem }) => problem !== undefined)).toEqual([
      ...[true, true, true, true, true],
      false,
    ]);
    let faults = 1;
    lease.fault = () => (faults-- > 0 ? NOT_FOUND : undefined);
    await until(() => expect(candidate.messages().filter((message) => message?.includes("exist"))).toHaveLength(3));
  });

  it("does not lead by a write whose answer came so late that the leadership would be over", async () => {
    const peer = aLease();
    const { lease } = peer;
    lease.afterWrite = () => {
      if (lease.writes.length === 1) lease.skewMs += TIMING.renewDeadlineMs;
      return undefined;
    };
    const candidate = await aLeader(peer);
    // The first write's term is used up, although nobody led by it.
    expect(candidate.first().term).toBe(2);
  });

  it("counts its leadership from when it asked, and not from the answer", async () => {
    const peer = aLease();
    const { lease } = peer;
    lease.afterWrite = () => {
      lease.skewMs += TIMING.renewDeadlineMs - 1000;
      lease.fault = () => UNREACHABLE;
      return undefined;
    };
    const candidate = await aLeader(peer);
    expect(candidate.first().holds()).toBe(true);
    lease.skewMs += 1000;
    expect(candidate.first().holds()).toBe(false);
  });

  it("does not lead if it is to end before its first write was answered, and lets the Lease go", async () => {
    const peer = aLease();
    const { lease } = peer;
    const ending = new AbortController();
    lease.afterWrite = () => {
      ending.abort();
      return undefined;
    };
    const candidate = aCandidate(peer, { signal: ending.signal });
    await candidate.running;
    expect(candidate.leaderships).toEqual([]);
    expect(lease.spec.holderIdentity).toBeNull();
  });

  it("leads nobody's Lease by a write that another one's came before", async () => {
    const peer = aLease();
    const { lease } = peer;
    lease.fault = ({ method }) => {
      if (method === "PATCH" && lease.spec.holderIdentity === undefined) {
        lease.change({ holderIdentity: "another", leaseDurationSeconds: 15 });
      }
      return undefined;
    };
    const candidate = aCandidate(peer);
    await until(() => expect(candidate.uses.length).toBeGreaterThan(3));
    expect([candidate.leaderships, lease.writes]).toEqual([[], []]);
    expect(candidate.messages()).toEqual([]);
    await candidate.stop();
    expect(lease.spec.holderIdentity).toBe("another");
  });
});

describe("a leader", () => {
  it("stops when another one has the Lease, when the Lease is another one, and when it cannot renew in time", async () => {
    const ends: Array<[string, (lease: Peer["lease"]) => void]> = [
      ["lease_taken", (lease) => lease.change({ holderIdentity: "another", leaseDurationSeconds: 15 })],
      ["lease_gone", (lease) => Object.assign(lease, { uid: "uid-2", version: 9, spec: {}, annotations: {} })],
      ["lease_gone", (lease) => Object.assign(lease, { fault: () => NOT_FOUND })],
      ["renew_deadline", (lease) => Object.assign(lease, { fault: () => UNREACHABLE, skewMs: 10_000 })],
    ];
    for (const [reason, end] of ends) {
      const peer = aLease();
      const candidate = await aLeader(peer);
      end(peer.lease);
      await until(() => expect(candidate.first().reason).toBe(reason));
      expect(candidate.first().holds()).toBe(false);
      expect(candidate.logged.find(([message]) => message === "Lease given up or lost")?.[1]).toMatchObject({ reason });
      peer.lease.fault = () => undefined;
      await candidate.stop();
    }
  });

  it("leads again with a higher term after it could not renew", async () => {
    const peer = aLease();
    const candidate = await aLeader(peer);
    peer.lease.skewMs = TIMING.renewDeadlineMs;
    await until(() => expect(candidate.leaderships).toHaveLength(2));
    expect(candidate.leaderships[1]?.term).toBe(2);
    expect(candidate.leaderships[1]?.holds()).toBe(true);
    expect(candidate.first().holds()).toBe(false);
  });

  it("renews at once on top of a write that came before its own, such as a label's", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    let overtakings = 3;
    lease.fault = ({ method }) => {
      if (method === "PATCH" && overtakings-- > 0) lease.version += 1;
      return undefined;
    };
    await until(() => expect(overtakings).toBeLessThan(-2));
    expect([candidate.first().holds(), candidate.leaderships.length]).toEqual([true, 1]);
  });

  it("goes on after a renewal whose answer got lost, having read what it wrote", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    let isLost = false;
    lease.afterWrite = () => {
      if (isLost) return undefined;
      isLost = true;
      return UNREACHABLE;
    };
    await until(() => expect(isLost).toBe(true));
    const { length } = lease.writes;
    await until(() => expect(lease.writes.length).toBeGreaterThan(length + 1));
    expect([candidate.first().holds(), candidate.leaderships.length]).toEqual([true, 1]);
  });

  it("waits for no answer longer than half its deadline, and never beyond its end", async () => {
    const peer = aLease();
    const { lease } = peer;
    lease.afterWrite = () => {
      if (lease.writes.length === 1) lease.skewMs += TIMING.renewDeadlineMs - 2000;
      return undefined;
    };
    await aLeader(peer);
    await until(() => expect(lease.requests.length).toBeGreaterThan(3));
    const [look, take, renew] = lease.requests.map(({ timeoutMs }) => timeoutMs ?? 0);
    expect([look, take]).toEqual([5000, 5000]);
    expect(renew).toBeLessThanOrEqual(2000);
    expect(renew).toBeGreaterThan(0);
  });

  it("ends the election, with the Lease let go, when its work is done or fails", async () => {
    const done = aLease();
    const candidate = aCandidate(done, { lead: async () => {} });
    await candidate.running;
    expect(candidate.logged.find(([message]) => message === "Lease given up or lost")?.[1]).toMatchObject({
      reason: "done",
    });
    expect(done.lease.spec.holderIdentity).toBeNull();
    const failing = aLease();
    const failed = aCandidate(failing, { lead: () => Promise.reject(new Error("broken")) });
    await expect(failed.running).rejects.toThrow("broken");
    expect(failing.lease.spec.holderIdentity).toBeNull();
  });

  it("tries a second time to let go of the Lease if another write came first, and no more often", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    let overtaken = 0;
    lease.fault = ({ method, body }) => {
      if (method === "PATCH" && (body as Body).spec.holderIdentity === null && overtaken++ === 0) lease.version += 1;
      return undefined;
    };
    await candidate.stop();
    expect([overtaken, lease.spec.holderIdentity]).toEqual([2, null]);
    const other = aLease();
    const another = await aLeader(other);
    let tries = 0;
    other.lease.fault = ({ method, body }) => {
      if (method !== "PATCH" || (body as Body).spec.holderIdentity !== null) return undefined;
      tries += 1;
      return UNREACHABLE;
    };
    await another.stop();
    expect([tries, other.lease.spec.holderIdentity]).toEqual([1, "me"]);
  });
});

describe("the term of a leader", () => {
  it("is raised once above what a node obeys, which is told when the Lease carries it", async () => {
    const peer = aLease();
    const candidate = await aLeader(peer);
    const terms: number[] = [];
    candidate.first().onTermRaised((term) => {
      terms.push(term);
      expect(peer.lease.annotations[TERM_ANNOTATION]).toBe(`${term}`);
    });
    expect([candidate.first().raiseTerm("a", 70), candidate.first().raiseTerm("a", 80)]).toEqual([true, false]);
    // A raise that is under way counts already.
    expect(candidate.first().raiseTerm("b", 70)).toBe(false);
    expect(terms).toEqual([]);
    await until(() => expect(terms).toEqual([71]));
    const late: number[] = [];
    candidate.first().onTermRaised((term) => late.push(term));
    expect(late).toEqual([71]);
    expect(candidate.logged.filter(([message]) => message === "term raised").map(([, fields]) => fields)).toEqual([
      { ...REFERENCE, term: 71 },
    ]);
    const { length } = peer.lease.writes;
    await until(() => expect(peer.lease.writes.length).toBeGreaterThan(length + 2));
    expect(terms).toEqual([71]);
    await candidate.stop();
    expect(candidate.logged.find(([message]) => message === "Lease given up or lost")?.[1]).toMatchObject({ term: 71 });
  });
});

describe("what a leader leaves for the next one", () => {
  const memoOf = ({ lease }: Peer) => lease.annotations[MEMO_ANNOTATION];

  it("comes with an early renewal, and is found by the next leader", async () => {
    const peer = aLease();
    const candidate = await aLeader(peer, { timing: { ...TIMING, retryPeriodMs: 2000 } });
    expect(await candidate.first().leaveMemo("text")).toBe(true);
    expect(memoOf(peer)).toBe("text");
    await candidate.stop();
    const next = await aLeader(peer);
    expect(next.first().memo).toBe("text");
  });

  it("is the last of two texts: the first one's author is told that it was not written", async () => {
    const peer = aLease();
    const candidate = await aLeader(peer);
    const both = [candidate.first().leaveMemo("first"), candidate.first().leaveMemo("second")];
    expect(await Promise.all(both)).toEqual([false, true]);
    expect(memoOf(peer)).toBe("second");
  });

  it("is written with the next renewal if this one fails, and again if somebody removes it", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    let faults = 2;
    lease.fault = ({ method }) => (method === "PATCH" && faults-- > 0 ? UNREACHABLE : undefined);
    expect(await candidate.first().leaveMemo("text")).toBe(true);
    expect(faults).toBeLessThanOrEqual(0);
    lease.version += 1;
    delete lease.annotations[MEMO_ANNOTATION];
    await until(() => expect(memoOf(peer)).toBe("text"));
  });

  it("is kept while a text that replaces it is on its way", async () => {
    const peer = aLease();
    const { lease } = peer;
    const candidate = await aLeader(peer);
    let later: Promise<boolean> | undefined;
    lease.fault = ({ method, body }) => {
      if (method === "PATCH" && (body as Body).metadata.annotations[MEMO_ANNOTATION] === "first") {
        later ??= candidate.first().leaveMemo("second");
      }
      return undefined;
    };
    expect(await candidate.first().leaveMemo("first")).toBe(true);
    expect(await later).toBe(true);
    expect(memoOf(peer)).toBe("second");
  });

  it("is not written once the leadership has ended, which its author is told", async () => {
    const peer = aLease();
    const candidate = await aLeader(peer);
    peer.lease.fault = () => UNREACHABLE;
    const waiting = candidate.first().leaveMemo("text");
    await candidate.stop();
    expect(await waiting).toBe(false);
    expect(await candidate.first().leaveMemo("text")).toBe(false);
    expect(memoOf(peer)).toBe("none");
  });
});
