import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { afterDeletions, afterLook, type WatermarkState } from "../../src/enforce/watermark.ts";

describe("the wait for freed space", () => {
  const disk = (availableBytes: number) => ({ sizeBytes: 100, usedBytes: 100 - availableBytes, availableBytes });

  it("ends when the space shows, or is no longer wanted", () => {
    const waiting = afterDeletions({ phase: "ready" }, { bytes: 10, isPass: true, availableBeforeBytes: 5, nowMs: 0 });
    expect(waiting.phase).toBe("waiting");
    const look = (available: number, isOverLimit: boolean, nowMs: number) =>
      afterLook(waiting, { disk: disk(available), isOverLimit, nowMs }).phase;
    expect(look(15, true, 1)).toBe("ready");
    expect(look(14, true, 59_999)).toBe("waiting");
    expect(look(14, false, 1)).toBe("ready");
    expect(look(14, true, 60_000)).toBe("stalled");
  });

  it("stalls only after deletions for the disk's sake; others just delay it", () => {
    const waiting = afterDeletions({ phase: "ready" }, { bytes: 10, isPass: false, availableBeforeBytes: 5, nowMs: 0 });
    expect(afterLook(waiting, { disk: disk(5), isOverLimit: true, nowMs: 60_000 }).phase).toBe("ready");
  });

  it("never lets a pass run while what the last one freed does not show", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({ available: fc.nat(100), isOverLimit: fc.boolean(), stepMs: fc.nat(30_000), frees: fc.nat(20) }),
        ),
        (steps) => {
          let state: WatermarkState = { phase: "ready" };
          let nowMs = 0;
          let expected: number | undefined;
          for (const { available, isOverLimit, stepMs, frees } of steps) {
            nowMs += stepMs;
            state = afterLook(state, { disk: disk(available), isOverLimit, nowMs });
            if (state.phase !== "ready") {
              expect(available).toBeLessThan(expected ?? 0);
              continue;
            }
            if (!isOverLimit || frees === 0) continue;
            state = afterDeletions(state, { bytes: frees, isPass: true, availableBeforeBytes: available, nowMs });
            expected = available + frees;
          }
        },
      ),
    );
  });

  it("lasts a minute from the first deletion, and awaits what later ones free, too", () => {
    const first = afterDeletions({ phase: "ready" }, { bytes: 10, isPass: true, availableBeforeBytes: 5, nowMs: 1000 });
    expect(first).toEqual({ phase: "waiting", untilMs: 61_000, expectedAvailableBytes: 15, wasPass: true });
    // Before the second one nothing of the first showed, or more than was awaited.
    const second = { bytes: 3, isPass: false, nowMs: 30_000 };
    expect(afterDeletions(first, { ...second, availableBeforeBytes: 7 })).toEqual({
      ...first,
      expectedAvailableBytes: 18,
    });
    expect(afterDeletions(first, { ...second, availableBeforeBytes: 20 })).toEqual({
      ...first,
      expectedAvailableBytes: 23,
    });
  });

  it("is for no pass where none of the deletions was", () => {
    const ready: WatermarkState = { phase: "ready" };
    const other = { bytes: 1, isPass: false, availableBeforeBytes: 5, nowMs: 0 };
    const others = afterDeletions(afterDeletions(ready, other), other);
    expect(afterLook(others, { disk: disk(5), isOverLimit: true, nowMs: 60_000 })).toEqual(ready);
  });

  it("is for a pass as soon as one of the deletions was for the disk's sake", () => {
    const other = afterDeletions({ phase: "ready" }, { bytes: 10, isPass: false, availableBeforeBytes: 5, nowMs: 0 });
    const both = afterDeletions(other, { bytes: 1, isPass: true, availableBeforeBytes: 5, nowMs: 1 });
    expect(afterLook(both, { disk: disk(5), isOverLimit: true, nowMs: 60_000 })).toEqual({
      phase: "stalled",
      expectedAvailableBytes: 16,
    });
  });

  it("begins with no deletion of nothing, and does not begin anew where it was in vain", () => {
    const nothing = { bytes: 0, isPass: true, availableBeforeBytes: 5, nowMs: 0 };
    expect(afterDeletions({ phase: "ready" }, nothing)).toEqual({ phase: "ready" });
    const stalled: WatermarkState = { phase: "stalled", expectedAvailableBytes: 15 };
    expect(afterDeletions(stalled, { ...nothing, bytes: 7 })).toEqual(stalled);
    const look = (available: number, isOverLimit: boolean) =>
      afterLook(stalled, { disk: disk(available), isOverLimit, nowMs: 0 });
    expect(look(14, true)).toEqual(stalled);
    expect(look(15, true)).toEqual({ phase: "ready" });
    expect(look(0, false)).toEqual({ phase: "ready" });
  });

  it("is nothing that a look begins", () => {
    expect(afterLook({ phase: "ready" }, { disk: disk(0), isOverLimit: true, nowMs: 0 })).toEqual({ phase: "ready" });
  });
});
