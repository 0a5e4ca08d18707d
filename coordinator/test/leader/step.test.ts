import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import {
  decideStep,
  ELECTION_TIMING,
  type ElectionState,
  INITIAL_STATE,
  type LeaseSeen,
  leaseWritten,
  observeLease,
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

describe("a leader", () => {
  it("renews until its deadline, which counts from when it asked", () => {
    const state = leaderState({ sentAtMs: 500 });
    expect(decideStep(state, at(10_499))).toEqual({ do: "renew" });
    expect(decideStep(state, at(10_500))).toEqual({ do: "stand down", reason: "renew_deadline" });
  });

  it("counts its deadline from when it asked, however late the answer came", () => {
    const seen = observeLease(INITIAL_STATE, aLease(), 0);
    const lease = aLease({ holder: "me", record: "1", term: 1 });
    const state = leaseWritten(seen, { lease, sentAtMs: 500, nowMs: 4000, timing });
    expect(decideStep(state, at(10_499))).toEqual({ do: "renew" });
    expect(decideStep(state, at(10_500))).toEqual({ do: "stand down", reason: "renew_deadline" });
  });

  it.each<[string, LeaseSeen | undefined, string]>([
    ["is gone", undefined, "lease_gone"],
    ["was recreated", aLease({ uid: "recreated", holder: "me", term: 1 }), "lease_gone"],
    ["is another's", aLease({ holder: "other", term: 2 }), "lease_taken"],
    ["is nobody's", aLease({ term: 1 }), "lease_taken"],
    ["has a higher term", aLease({ holder: "me", term: 2 }), "term_outgrown"],
  ])("stands down where the Lease %s", (_, lease, reason) => {
    expect(decideStep(observeLease(leaderState(), lease, 100), at(100))).toEqual({ do: "stand down", reason });
  });

  it("stands down where its term is used up, and takes the next above that", () => {
    const state = raiseUsedTerm(leaderState({ term: 3 }), 3);
    expect(decideStep(state, at(100))).toEqual({ do: "stand down", reason: "term_outgrown" });
    expect(decideStep(stoodDown(state), at(100))).toEqual({ do: "acquire", term: 4 });
  });

  it("keeps its term where somebody removed it from the Lease, and never takes it twice", () => {
    const state = observeLease(leaderState({ term: 3 }), aLease({ holder: "me", term: 0 }), 100);
    expect(decideStep(state, at(100))).toEqual({ do: "renew" });
    expect(decideStep(stoodDown(state), at(100))).toEqual({ do: "acquire", term: 4 });
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
  });

  it("never lead at the same time, and each leads with a higher term than all before", () => {
    let elections = 0;
    fc.assert(
      fc.property(arbWorld, (world) => {
        const { overlaps, terms } = simulate(world);
        expect(overlaps).toEqual([]);
        expect(terms).toEqual([...new Set(terms)].sort((a, b) => a - b));
        elections += terms.length;
      }),
      { numRuns: soak(200) },
    );
    // A simulation in which nobody ever leads would show nothing.
    expect(elections).toBeGreaterThan(300);
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
function simulate(world: World): { overlaps: string[]; terms: number[] } {
  const random = generator(world.seed);
  const latencyMs = () => Math.floor(random() * world.maxLatencyMs);
  let lease = aLease();
  let version = 1;
  const overlaps: string[] = [];
  const terms: number[] = [];
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
          client.state = leaseWritten(client.state, { lease: answer, sentAtMs: call.sentAtMs, nowMs: localMs, timing });
          if (!isLeading && localMs < call.sentAtMs + timing.renewDeadlineMs) terms.push(call.term);
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
      if (nowMs < client.nextAtMs) continue;
      const step = decideStep(client.state, { identity: client.identity, nowMs: localMs });
      if (step.do === "stand down") {
        client.state = stoodDown(client.state);
        client.mustLook = true;
        continue;
      }
      const isWrite = !client.mustLook && step.do !== "wait";
      const arrivesAtMs = nowMs + latencyMs();
      const term = step.do === "acquire" ? step.term : (client.state.leading?.term ?? 0);
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
  return { overlaps, terms };
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
