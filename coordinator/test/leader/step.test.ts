import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import {
  decideRaise,
  decideStep,
  ELECTION_TIMING,
  type ElectionState,
  INITIAL_STATE,
  type LeaseSeen,
  leaseWritten,
  observeLease,
  type Raises,
  raiseUsedTerm,
  stoodDown,
} from "../../src/leader/step.ts";

const timing = ELECTION_TIMING;

function aLease(changes: Partial<LeaseSeen> = {}): LeaseSeen {
  return { uid: "lease", resourceVersion: "1", holder: "", durationMs: 15_000, record: "0", term: 0, ...changes };
}

function leaderState({ term = 1, sentAtMs = 0 } = {}): ElectionState {
  const seen = observeLease(INITIAL_STATE, aLease(), sentAtMs);
  return leaseWritten(seen, { lease: aLease({ holder: "me", record: "1", term }), sentAtMs, nowMs: sentAtMs, timing });
}

const at = (nowMs: number) => ({ identity: "me", nowMs });

describe("a candidate", () => {
  it("takes a Lease that nobody holds, above its term", () => {
    expect(decideStep(observeLease(INITIAL_STATE, aLease({ term: 6 }), 0), at(0))).toEqual({ do: "acquire", term: 7 });
  });

  it("takes a term above every one that it was told is used up", () => {
    const state = raiseUsedTerm(observeLease(INITIAL_STATE, aLease({ term: 6 }), 0), 41);
    expect(decideStep(state, at(0))).toEqual({ do: "acquire", term: 42 });
  });

  it("waits as long as the holder may count on the Lease, from when it first saw it so", () => {
    const held = aLease({ holder: "other" });
    let state = observeLease(INITIAL_STATE, held, 1000);
    state = observeLease(state, { ...held, resourceVersion: "2" }, 9000);
    expect(decideStep(state, at(15_999))).toEqual({ do: "wait", untilMs: 16_000 });
    expect(decideStep(state, at(16_000))).toEqual({ do: "acquire", term: 1 });
  });

  it("waits anew each time that the holder renews", () => {
    let state = observeLease(INITIAL_STATE, aLease({ holder: "other" }), 1000);
    state = observeLease(state, aLease({ holder: "other", record: "renewed" }), 14_000);
    expect(decideStep(state, at(28_999))).toEqual({ do: "wait", untilMs: 29_000 });
  });

  it("takes at once a Lease in its own name, whose write it did not hear of", () => {
    const state = observeLease(INITIAL_STATE, aLease({ holder: "me", term: 3 }), 0);
    expect(decideStep(state, at(0))).toEqual({ do: "acquire", term: 4 });
  });

  it("waits where there is no Lease", () => {
    expect(decideStep(observeLease(INITIAL_STATE, undefined, 0), at(0)).do).toBe("wait");
  });

  it.each([[undefined], [aLease({ uid: "recreated" })]])(
    "gives the holder of a Lease that was deleted its time, although the new one is free (%#)",
    (between) => {
      let state = observeLease(INITIAL_STATE, aLease({ holder: "other", term: 5 }), 1000);
      state = observeLease(state, between, 2000);
      state = observeLease(state, aLease({ uid: "recreated" }), 3000);
      expect(decideStep(state, at(3000))).toEqual({ do: "wait", untilMs: 16_000 });
      expect(decideStep(state, at(16_000))).toEqual({ do: "acquire", term: 6 });
    },
  );
});

describe("a Lease that is recreated", () => {
  it("is taken at once if nobody held the one before, or this candidate did", () => {
    const unheld = observeLease(observeLease(INITIAL_STATE, aLease(), 1000), aLease({ uid: "recreated" }), 2000);
    expect(decideStep(unheld, at(2000))).toEqual({ do: "acquire", term: 1 });
    const own = stoodDown(observeLease(leaderState({ term: 3 }), aLease({ uid: "recreated" }), 2000));
    expect(decideStep(own, at(2000))).toEqual({ do: "acquire", term: 4 });
  });

  it("changes nothing for one who stops acting without having led", () => {
    expect(stoodDown(INITIAL_STATE)).toEqual(INITIAL_STATE);
  });
});

describe("a leader", () => {
  it("renews until its deadline, which counts from when it asked", () => {
    const state = leaderState({ sentAtMs: 500 });
    expect(decideStep(state, at(10_499))).toEqual({ do: "renew", term: 1 });
    expect(decideStep(state, at(10_500))).toEqual({ do: "stand down", reason: "renew_deadline" });
  });

  it("counts its deadline from when it asked, however late the answer came", () => {
    const seen = observeLease(INITIAL_STATE, aLease(), 0);
    const lease = aLease({ holder: "me", record: "1", term: 1 });
    const state = leaseWritten(seen, { lease, sentAtMs: 500, nowMs: 4000, timing });
    expect(decideStep(state, at(10_499))).toMatchObject({ do: "renew" });
    expect(decideStep(state, at(10_500))).toEqual({ do: "stand down", reason: "renew_deadline" });
  });

  it.each<[string, LeaseSeen | undefined, string]>([
    ["is gone", undefined, "lease_gone"],
    ["was recreated", aLease({ uid: "recreated", holder: "me", term: 1 }), "lease_gone"],
    ["is another's", aLease({ holder: "other", term: 2 }), "lease_taken"],
    ["is nobody's", aLease({ term: 1 }), "lease_taken"],
  ])("stands down where the Lease %s", (_, lease, reason) => {
    expect(decideStep(observeLease(leaderState(), lease, 100), at(100))).toEqual({ do: "stand down", reason });
  });

  it("goes on where its term is used up, and renews with the next above that", () => {
    const state = raiseUsedTerm(leaderState({ term: 3 }), 3);
    expect(decideStep(state, at(100))).toEqual({ do: "renew", term: 4 });
    expect(decideStep(raiseUsedTerm(state, 41), at(100))).toEqual({ do: "renew", term: 42 });
    expect(decideStep(raiseUsedTerm(leaderState({ term: 3 }), 2), at(100))).toEqual({ do: "renew", term: 3 });
    expect(decideStep(stoodDown(state), at(100))).toEqual({ do: "acquire", term: 4 });
  });

  it("goes above a higher term that it finds in its own Lease, as a write leaves it whose answer got lost", () => {
    const state = observeLease(leaderState({ term: 3 }), aLease({ holder: "me", term: 7 }), 100);
    expect(decideStep(state, at(100))).toEqual({ do: "renew", term: 8 });
    const same = observeLease(leaderState({ term: 3 }), aLease({ holder: "me", term: 3 }), 100);
    expect(decideStep(same, at(100))).toEqual({ do: "renew", term: 3 });
  });

  it("counts a raised term as its own only once it is written", () => {
    const raised = raiseUsedTerm(leaderState({ term: 3 }), 9);
    expect(raised.leading?.term).toBe(3);
    const lease = aLease({ holder: "me", record: "2", term: 10 });
    const written = leaseWritten(raised, { lease, sentAtMs: 100, nowMs: 150, timing });
    expect(written.leading).toEqual({ term: 10, uid: "lease", untilMs: 10_100 });
    expect(decideStep(written, at(200))).toEqual({ do: "renew", term: 10 });
  });

  it("keeps its term where somebody removed it from the Lease, and never takes it twice", () => {
    const state = observeLease(leaderState({ term: 3 }), aLease({ holder: "me", term: 0 }), 100);
    expect(decideStep(state, at(100))).toEqual({ do: "renew", term: 3 });
    expect(decideStep(stoodDown(state), at(100))).toEqual({ do: "acquire", term: 4 });
  });
});

describe("a term that a node names", () => {
  const none: Raises = new Map();
  const ask = (raises: Raises, named: number, { node = "a", term = 5, nowMs = 0 } = {}) =>
    decideRaise(raises, { node, named, term, nowMs });

  it("is raised above if it is as high as the leader's or higher, and plausible", () => {
    expect([4, 5, 6, 1_000_005].map((named) => ask(none, named).isNeeded)).toEqual([false, true, true, true]);
    const odd = [1_000_006, Number.MAX_SAFE_INTEGER, 2 ** 53, 1e300, 5.5, Number.NaN, Number.POSITIVE_INFINITY];
    expect(odd.filter((named) => ask(none, named).isNeeded)).toEqual([]);
  });

  it("is raised above once a minute for one node, and meanwhile for others", () => {
    const { raises } = ask(none, 5);
    expect(ask(raises, 6, { nowMs: 59_999 }).isNeeded).toBe(false);
    expect(ask(raises, 6, { nowMs: 60_000 }).isNeeded).toBe(true);
    expect(ask(raises, 6, { nowMs: 1, node: "b" }).isNeeded).toBe(true);
    const later = ask(none, 5, { nowMs: 50_000 }).raises;
    expect([109_999, 110_000].map((nowMs) => ask(later, 6, { nowMs }).isNeeded)).toEqual([false, true]);
  });

  it("does not use up a node's turn if nothing is raised, and is forgotten after the minute", () => {
    const { raises } = ask(ask(none, 4).raises, 2 ** 60);
    expect(raises.size).toBe(0);
    expect(ask(raises, 5).isNeeded).toBe(true);
    expect(ask(ask(none, 5).raises, 4, { node: "b", nowMs: 60_000 }).raises.size).toBe(0);
  });

  it("neither ends a leadership nor leaves the exact integers, whatever liars name", () => {
    const arbLies = fc.array(
      fc.record({
        node: fc.constantFrom("a", "b", "c"),
        named: fc.oneof(fc.maxSafeInteger(), fc.double(), fc.integer({ min: 0, max: 2_000_000 })),
        waitMs: fc.nat(20_000),
      }),
      { maxLength: 50 },
    );
    fc.assert(
      fc.property(arbLies, (lies) => {
        let state = leaderState({ term: 5 });
        let raises = none;
        let [nowMs, raised] = [0, 0];
        for (const { node, named, waitMs } of lies) {
          nowMs += waitMs;
          const term = Math.max(state.leading?.term ?? 0, state.usedTerm + 1);
          const decided = decideRaise(raises, { node, named, term, nowMs });
          raises = decided.raises;
          if (decided.isNeeded) {
            raised += 1;
            state = raiseUsedTerm(state, named);
          }
          // It renews every two seconds.
          state = { ...state, leading: { ...(state.leading as { term: number; uid: string }), untilMs: nowMs + 1 } };
          const step = decideStep(state, at(nowMs));
          expect(step.do).toBe("renew");
          const written = step.do === "renew" ? step.term : Number.NaN;
          expect(Number.isSafeInteger(written)).toBe(true);
          expect(written).toBeGreaterThanOrEqual(state.leading?.term ?? Number.NaN);
          const lease = aLease({ holder: "me", record: `${nowMs}`, term: written });
          state = leaseWritten(state, { lease, sentAtMs: nowMs, nowMs, timing });
        }
        expect(raised).toBeLessThanOrEqual(3 * (Math.floor(nowMs / 60_000) + 1));
      }),
      { numRuns: soak(200) },
    );
  });
});

describe("several candidates", () => {
  const arbWorld = fc.record({
    seed: fc.integer(),
    clockOffsetsMs: fc.array(fc.integer({ min: -1e9, max: 1e9 }), { minLength: 2, maxLength: 3 }),
    maxLatencyMs: fc.integer({ min: 0, max: 6_000 }),
    lostAnswers: fc.double({ min: 0, max: 0.6, noNaN: true }),
    lostRequests: fc.double({ min: 0, max: 0.6, noNaN: true }),
    freezes: fc.double({ min: 0, max: 0.02, noNaN: true }),
    releases: fc.double({ min: 0, max: 0.02, noNaN: true }),
    raises: fc.double({ min: 0, max: 0.02, noNaN: true }),
  });

  it("never lead at the same time, and each acts with higher terms than all before, which the Lease has carried", () => {
    let elections = 0;
    let raised = 0;
    fc.assert(
      fc.property(arbWorld, (world) => {
        const { overlaps, terms, carried, raises } = simulate(world);
        expect(overlaps).toEqual([]);
        expect(terms.filter((term) => !carried.has(term))).toEqual([]);
        raised += raises;
        expect(terms).toEqual([...new Set(terms)].sort((a, b) => a - b));
        elections += terms.length;
      }),
      { numRuns: soak(200) },
    );
    // A simulation in which nobody ever leads would show nothing.
    expect(elections).toBeGreaterThan(soak(200));
    expect(raised).toBeGreaterThan(soak(50));
  });
});

interface World {
  seed: number;
  clockOffsetsMs: number[];
  maxLatencyMs: number;
  lostAnswers: number;
  lostRequests: number;
  freezes: number;
  releases: number;
  raises: number;
}

const TICK_MS = 100;
const DURATION_MS = 180_000;

/** A request on its way: when it reaches the server, and when its answer, or the end of the wait for it, the client. */
interface Call {
  /** What a write is based on; a read has none. */
  basis?: LeaseSeen;
  term: number;
  sentAtMs: number;
  arrivesAtMs: number;
  isLost: boolean;
  answeredAtMs: number;
  isAnswerLost: boolean;
  hasArrived: boolean;
  /** What the server answered; a write that was refused has none. */
  answer?: LeaseSeen;
}

/** Candidates over a slow, lossy network, each with a clock of its own, now and then frozen, on one Lease. */
function simulate(world: World): { overlaps: string[]; terms: number[]; carried: Set<number>; raises: number } {
  const random = generator(world.seed);
  const latencyMs = () => Math.floor(random() * world.maxLatencyMs);
  let lease = aLease();
  let version = 1;
  const overlaps: string[] = [];
  const terms: number[] = [];
  const carried = new Set<number>();
  let raises = 0;
  const clients = world.clockOffsetsMs.map((offsetMs, index) => ({
    identity: `candidate-${index}`,
    offsetMs,
    state: INITIAL_STATE as ElectionState,
    frozenUntilMs: 0,
    nextAtMs: 0,
    mustLook: true,
    call: undefined as Call | undefined,
  }));

  for (let nowMs = 0; nowMs < DURATION_MS; nowMs += TICK_MS) {
    for (const client of clients) {
      const localMs = nowMs + client.offsetMs;
      const { call } = client;
      if (call !== undefined && nowMs >= call.arrivesAtMs && !call.isLost && !call.hasArrived) {
        call.hasArrived = true;
        if (call.basis?.resourceVersion === lease.resourceVersion) {
          version += 1;
          const { identity } = client;
          lease = { ...lease, resourceVersion: `${version}`, holder: identity, record: `${version}`, term: call.term };
          call.answer = lease;
          carried.add(call.term);
        } else if (call.basis === undefined) call.answer = lease;
      }
      if (nowMs < client.frozenUntilMs) continue;
      if (random() < world.freezes) client.frozenUntilMs = nowMs + random() * 40_000;
      if (call !== undefined) {
        if (nowMs < call.answeredAtMs) continue;
        client.call = undefined;
        client.nextAtMs = nowMs + timing.retryPeriodMs * (0.8 + 0.4 * random());
        const answer = call.isAnswerLost ? undefined : call.answer;
        const isLeading = client.state.leading !== undefined;
        if (answer === undefined || (isLeading && localMs >= (client.state.leading?.untilMs ?? 0))) {
          client.mustLook = true;
        } else if (call.basis === undefined) {
          client.state = observeLease(client.state, answer, localMs);
          client.mustLook = false;
          client.nextAtMs = nowMs;
        } else {
          const before = client.state.leading?.term;
          client.state = leaseWritten(client.state, { lease: answer, sentAtMs: call.sentAtMs, nowMs: localMs, timing });
          // These are the terms that it acts with.
          const isInTime = localMs < call.sentAtMs + timing.renewDeadlineMs;
          if (isInTime && client.state.leading?.term !== before) terms.push(client.state.leading?.term ?? 0);
          if (isLeading && client.state.leading?.term !== before) raises += 1;
          client.mustLook = false;
        }
      }
      if (client.state.leading !== undefined && random() < world.releases) {
        client.state = stoodDown(client.state);
        if (lease.holder === client.identity) {
          version += 1;
          lease = { ...lease, resourceVersion: `${version}`, holder: "", record: `${version}` };
        }
        client.mustLook = true;
      }
      if (client.state.leading !== undefined && random() < world.raises) {
        client.state = raiseUsedTerm(client.state, client.state.leading.term + Math.floor(random() * 3));
      }
      if (nowMs < client.nextAtMs) continue;
      const step = decideStep(client.state, { identity: client.identity, nowMs: localMs });
      if (step.do === "stand down") {
        client.state = stoodDown(client.state);
        client.mustLook = true;
        continue;
      }
      const isWrite = !client.mustLook && step.do !== "wait";
      const arrivesAtMs = nowMs + latencyMs();
      const term = step.do === "wait" ? 0 : step.term;
      client.call = {
        ...(isWrite && client.state.seen !== undefined ? { basis: client.state.seen } : {}),
        term,
        sentAtMs: localMs,
        arrivesAtMs,
        isLost: random() < world.lostRequests,
        hasArrived: false,
        isAnswerLost: random() < world.lostAnswers,
        answeredAtMs: arrivesAtMs + latencyMs(),
      };
      client.mustLook = true;
    }
    const leaders = clients.filter(({ state, offsetMs }) => nowMs + offsetMs < (state.leading?.untilMs ?? -Infinity));
    if (leaders.length > 1) overlaps.push(`${nowMs}: ${leaders.map(({ identity }) => identity).join(", ")}`);
  }
  return { overlaps, terms, carried, raises };
}

/** mulberry32: the same seed, the same world. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
