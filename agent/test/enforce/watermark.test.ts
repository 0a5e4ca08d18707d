import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import {
  afterArrival,
  afterDeletions,
  afterLook,
  afterPolicy,
  type Freed,
  passLimit,
  READY,
  type WatermarkState,
} from "../../src/enforce/watermark.ts";

const MINUTE_MS = 60_000;
/** A pass that deleted ten of something, of which the file system shows none. */
const aPass = (freed: Partial<Freed> = {}): Freed => ({
  ...{ amount: 10, shown: 0, isPass: true, available: 5, nowMs: 0 },
  ...freed,
});
const full = (available: number, nowMs: number) => ({ available, isOverLimit: true, nowMs });

describe("a pass whose space shows", () => {
  it.each([
    ["whole", 10],
    ["but for the tail of a file", 9],
  ])("at its unlinks, %s, is followed by the next one, whatever others write meanwhile", (_, shown) => {
    expect(afterDeletions(READY, aPass({ shown, available: 0 }))).toEqual(READY);
  });

  it("within a minute is followed by the next one", () => {
    const waiting = afterDeletions(READY, aPass());
    expect(waiting).toMatchObject({ phase: "waiting", untilMs: MINUTE_MS, expectedAvailable: 15 });
    expect(passLimit(waiting)).toBe(0);
    expect(afterLook(waiting, full(14, MINUTE_MS - 1))).toBe(waiting);
    expect(afterLook(waiting, full(15, MINUTE_MS - 1))).toEqual(READY);
  });

  it("ends what stalls there were before", () => {
    const again: WatermarkState = { phase: "ready", stalls: 3 };
    expect(afterDeletions(again, aPass({ shown: 10 }))).toEqual(READY);
    expect(afterDeletions(again, aPass({ amount: 0 }))).toBe(again);
  });
});

describe("waiting", () => {
  it("ends as soon as the limit holds, however that came", () => {
    expect(afterLook(afterDeletions(READY, aPass()), { available: 0, isOverLimit: false, nowMs: 1 })).toEqual(READY);
  });

  it("lasts a minute from the first deletion, and awaits what later ones free, too", () => {
    const first = afterDeletions(READY, aPass({ nowMs: 1000 }));
    const second = aPass({ amount: 4, isPass: false, nowMs: 30_000 });
    expect(afterDeletions(first, { ...second, available: 7 })).toEqual({ ...first, expectedAvailable: 19 });
    expect(afterDeletions(first, { ...second, available: 20 })).toEqual({ ...first, expectedAvailable: 24 });
    // What the second one gave back at once is nothing that the first one still owes.
    const shown = { ...second, shown: 4, available: 9 };
    expect(afterDeletions(first, shown)).toEqual({ ...first, expectedAvailable: 19 });
  });

  it("for what another rule deleted ends after a minute without a stall", () => {
    const waiting = afterDeletions(READY, aPass({ isPass: false }));
    expect(afterLook(waiting, full(5, MINUTE_MS))).toEqual(READY);
    const both = afterDeletions(waiting, aPass({ amount: 1, nowMs: 1 }));
    expect(afterLook(both, full(5, MINUTE_MS))).toMatchObject({ phase: "stalled" });
  });
});

describe("a stall", () => {
  const stall = (stalls = 0) => {
    const waiting = afterDeletions({ phase: "ready", stalls }, aPass());
    return afterLook(waiting, full(5, MINUTE_MS));
  };

  it("follows a pass whose space did not show within a minute, and allows none", () => {
    expect(stall()).toEqual({
      ...{ phase: "stalled", stalls: 1, untilMs: 6 * MINUTE_MS, expectedAvailable: 15, arrived: 0 },
    });
    expect(passLimit(stall())).toBe(0);
  });

  it.each([
    [0, 5],
    [1, 10],
    [2, 20],
    [3, 40],
    [4, 60],
    [40, 60],
  ])("after %i others in a row ends by itself after %i minutes", (stalls, minutes) => {
    const stalled = stall(stalls);
    const endMs = (1 + minutes) * MINUTE_MS;
    expect(afterLook(stalled, full(5, endMs - 1))).toBe(stalled);
    const next = afterLook(stalled, full(5, endMs));
    expect(next).toEqual({ phase: "ready", stalls: stalls + 1 });
    expect(passLimit(next)).toBe(Number.POSITIVE_INFINITY);
  });

  it("ends at once when the space shows, when the limit holds, and under a new policy", () => {
    expect(afterLook(stall(), full(14, 2 * MINUTE_MS))).toEqual(stall());
    expect(afterLook(stall(), full(15, 2 * MINUTE_MS))).toEqual(READY);
    expect(afterLook(stall(), { available: 0, isOverLimit: false, nowMs: 2 * MINUTE_MS })).toEqual(READY);
    expect(afterPolicy(stall())).toEqual({ phase: "ready", stalls: 1 });
    expect(afterPolicy(READY)).toBe(READY);
    const waiting = afterDeletions(READY, aPass());
    expect(afterPolicy(waiting)).toBe(waiting);
  });

  it("lets go as much as came since", () => {
    const arrived = afterArrival(afterArrival(stall(), 7), 3);
    expect(passLimit(arrived)).toBe(10);
    const taken = afterDeletions(arrived, aPass({ amount: 6 }));
    expect(passLimit(taken)).toBe(4);
    expect(passLimit(afterDeletions(taken, aPass({ amount: 6, isPass: false })))).toBe(4);
    // Whole archives go: what was taken too much must come first.
    const overdrawn = afterDeletions(taken, aPass({ amount: 100 }));
    expect(passLimit(overdrawn)).toBe(0);
    expect(passLimit(afterArrival(overdrawn, 96))).toBe(0);
    expect(passLimit(afterArrival(overdrawn, 97))).toBe(1);
    expect(afterArrival(READY, 7)).toBe(READY);
  });
});

it("never allows more in an hour than can show, or came, or a pass wants every few minutes", () => {
  const step = fc.record({
    stepMs: fc.nat(120_000),
    arrived: fc.nat(5),
    wanted: fc.integer({ min: 1, max: 30 }),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 300 }), (steps) => {
      // Nothing that is deleted ever shows: somebody holds every file open.
      let state: WatermarkState = READY;
      let nowMs = 0;
      let freePasses = 0;
      let arrivedInAll = 0;
      let takenForArrivals = 0;
      for (const { stepMs, arrived, wanted } of steps) {
        nowMs += stepMs;
        state = afterLook(state, full(5, nowMs));
        state = afterArrival(state, arrived);
        arrivedInAll += arrived;
        const amount = Math.min(passLimit(state), wanted);
        if (amount === 0) continue;
        if (state.phase === "ready") freePasses += 1;
        else takenForArrivals += amount;
        state = afterDeletions(state, aPass({ amount, nowMs }));
      }
      expect(takenForArrivals).toBeLessThanOrEqual(arrivedInAll);
      // The first at once, the second after 6 minutes, the third after 11 more, then 21, 41 and 61.
      const earliestMs = [0, 6, 17, 38, 79].map((minutes) => minutes * MINUTE_MS);
      expect(freePasses).toBeLessThanOrEqual(earliestMs.filter((ms) => ms <= nowMs).length + nowMs / (61 * MINUTE_MS));
    }),
    { numRuns: soak(500) },
  );
});
