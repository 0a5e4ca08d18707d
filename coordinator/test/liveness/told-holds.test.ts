import { describe, expect, it } from "vitest";
import { createToldHolds } from "../../src/liveness/told-holds.ts";

const held = (count: number) => ({ count, podCount: count, pods: ["n/web"] });
const nothing = { count: 0, podCount: 0, pods: [] };

function someHolds() {
  const clock = { nowMs: 1000 };
  const holds = createToldHolds({ nowMs: () => clock.nowMs });
  holds.note("a", held(12));
  const pass = (seconds: number) => {
    for (let second = 0; second < seconds; second += 1) {
      clock.nowMs += 1000;
      holds.tick();
    }
  };
  return { holds, pass, counts: () => [...holds.byNode()].map(([node, { count }]) => [node, count]) };
}

describe("what is told of held proofs", () => {
  it("is what is held, and ends with it", () => {
    const { holds, counts, pass } = someHolds();
    holds.note("b", held(20));
    holds.note("a", held(13));
    expect(counts()).toEqual([
      ["a", 13],
      ["b", 20],
    ]);
    holds.note("a", nothing);
    pass(1000);
    expect(counts()).toEqual([["b", 20]]);
  });

  it("stays while the watch of pods is lost, and until they are held again", () => {
    const { holds, counts, pass } = someHolds();
    holds.watch("lost");
    holds.note("a", nothing);
    pass(3600);
    expect(counts()).toEqual([["a", 12]]);
    holds.watch("synced");
    holds.note("a", nothing);
    pass(60);
    holds.note("a", held(11));
    pass(3600);
    expect(counts()).toEqual([["a", 11]]);
    holds.note("a", nothing);
    expect(counts()).toEqual([]);
  });

  it("ends three minutes after the watch knows all pods, if they are not held again", () => {
    const { holds, counts, pass } = someHolds();
    holds.watch("lost");
    holds.note("a", nothing);
    holds.watch("synced");
    pass(179);
    expect(counts()).toEqual([["a", 12]]);
    pass(1);
    expect(counts()).toEqual([]);
    // What is held from then on is told as it is.
    holds.note("a", held(3));
    holds.note("a", nothing);
    expect(counts()).toEqual([]);
  });
});
