import { describe, expect, it } from "vitest";
import {
  dropHolds,
  dropHoldsOf,
  forgetProved,
  holdBack,
  namespaceRead,
  newNodeHold,
  noteProved,
  toldOf,
} from "../../src/liveness/hold.ts";

/** A hold of which these proofs have been released. */
function aReleased(...keys: string[]) {
  const hold = newNodeHold();
  for (const key of keys) {
    const [namespace, pod] = key.split("/");
    holdBack(hold, key, { pod: `${namespace}/${pod}`, nowMs: 0 });
    noteProved(hold, key, { pod: `${namespace}/${pod}`, nowMs: 1 });
  }
  return hold;
}

describe("the hold of a node", () => {
  it("tells of a proof whether it was held until then", () => {
    const hold = newNodeHold();
    expect(noteProved(hold, "n/a", { pod: "n/a", nowMs: 0 })).toBe(false);
    expect([hold.released.size, hold.releasedOf.size]).toEqual([0, 0]);
    expect(holdBack(hold, "n/a/c", { pod: "n/a", nowMs: 0 })).toBe(true);
    expect(noteProved(hold, "n/a/c", { pod: "n/a", nowMs: 5 })).toBe(true);
    expect([...hold.released]).toEqual([["n/a/c", { pod: "n/a", sinceMs: 5 }]]);
    expect(hold.held.size).toBe(0);
  });

  it("tells nothing of what waits for its namespace, nor of what went with it, which counts for no suspicion", () => {
    const hold = newNodeHold();
    holdBack(hold, "n/a", { pod: "n/a", nowMs: 100, isNamespaceAsked: true });
    holdBack(hold, "n/a/c", { pod: "n/a", nowMs: 100 });
    holdBack(hold, "nn/b", { pod: "nn/b", nowMs: 100, isNamespaceAsked: true });
    expect([...toldOf(hold)]).toEqual(["n/a"]);
    expect(namespaceRead(hold, "n", { isGone: true, sentAtMs: 100, provableAtMs: 7 })).toBe(0);
    expect(hold.held.get("n/a")).toEqual({ pod: "n/a", sinceMs: 7, namespace: "gone" });
    expect(hold.held.get("n/a/c")).toEqual({ pod: "n/a", sinceMs: 100 });
    expect(namespaceRead(hold, "nn", { isGone: false, sentAtMs: 100, provableAtMs: 7 })).toBe(1);
    expect(namespaceRead(hold, "nn", { isGone: false, sentAtMs: 100, provableAtMs: 7 })).toBe(0);
    expect([...toldOf(hold)]).toEqual(["n/a", "nn/b"]);
    expect(noteProved(hold, "n/a", { pod: "n/a", nowMs: 200 })).toBe(false);
    expect([...hold.released.keys(), ...hold.provedAtMs.keys()]).toEqual(["n/a"]);
    expect(noteProved(hold, "n/a", { pod: "n/a", nowMs: 300 })).toBe(false);
    expect(hold.provedAtMs.size).toBe(0);
  });

  it("remembers the last ten thousand proofs that were released", () => {
    const hold = aReleased(...Array.from({ length: 10_001 }, (_, index) => `n/p-${index}`));
    expect([hold.released.size, hold.releasedOf.size]).toEqual([10_000, 10_000]);
    expect([hold.released.has("n/p-0"), hold.releasedOf.has("n/p-0"), hold.released.has("n/p-1")]).toEqual([
      false,
      false,
      true,
    ]);
  });

  it("drops of one pod what it is told, held or released, and nothing of another", () => {
    const hold = aReleased("n/a", "n/a/c", "n/b");
    holdBack(hold, "n/a/d", { pod: "n/a", nowMs: 0 });
    holdBack(hold, "n/a/e", { pod: "n/a", nowMs: 0 });
    holdBack(hold, "n/b/d", { pod: "n/b", nowMs: 0 });
    expect(dropHoldsOf(hold, "n/a", (key) => key === "n/a/c")).toBe(false);
    expect([...hold.released.keys()]).toEqual(["n/a", "n/b"]);
    expect(dropHoldsOf(hold, "n/a", (key) => key === "n/a/d")).toBe(true);
    expect([...hold.held.keys()]).toEqual(["n/a/e", "n/b/d"]);
    expect(dropHoldsOf(hold, "n/a", () => true)).toBe(true);
    expect([[...hold.released.keys()], [...hold.releasedOf.keys()], [...hold.held.keys()]]).toEqual([
      ["n/b"],
      ["n/b"],
      ["n/b/d"],
    ]);
  });

  it("drops by time too, and tells whether any was held", () => {
    const hold = aReleased("n/a", "n/b");
    expect(dropHolds(hold, (_, { sinceMs }) => sinceMs > 1)).toBe(false);
    expect(hold.released.size).toBe(2);
    expect(dropHolds(hold, (_, { sinceMs, pod }) => sinceMs === 1 && pod === "n/a")).toBe(false);
    expect([...hold.released.keys()]).toEqual(["n/b"]);
    holdBack(hold, "n/c", { pod: "n/c", nowMs: 7 });
    expect(dropHolds(hold, (_, { sinceMs }) => sinceMs === 7)).toBe(true);
    expect([hold.held.size, hold.released.size]).toEqual([0, 1]);
  });

  it("forgets pods ten minutes after they were last proved, in whatever order they were", () => {
    const hold = newNodeHold();
    const prove = (pod: string, nowMs: number) => noteProved(hold, pod, { pod, nowMs });
    prove("n/a", 0);
    prove("n/b", 1);
    prove("n/a", 300_000);
    forgetProved(hold, 600_000);
    expect([...hold.provedAtMs.keys()]).toEqual(["n/b", "n/a"]);
    forgetProved(hold, 600_001);
    expect([...hold.provedAtMs.keys()]).toEqual(["n/a"]);
  });
});
