import { describe, expect, it } from "vitest";
import { createPodView, type PodView } from "../../src/liveness/pods.ts";

const a = { namespace: "n", name: "a", uid: "uid-a" };
const b = { namespace: "n", name: "b", uid: "uid-b" };
const elsewhere = { namespace: "m", name: "a", uid: "uid-m" };

function aView(...pods: Array<typeof a>): PodView {
  const view = createPodView();
  view.synced(pods, 1000);
  return view;
}
const gone = (view: PodView, pod: typeof a, nowMs: number) => view.changed({ type: "deleted", item: pod }, nowMs);
const there = (view: PodView, pod: typeof a, nowMs: number) => view.changed({ type: "added", item: pod }, nowMs);

describe("the view of pods", () => {
  it("knows nothing before the watch is synced and after it is lost, and takes in no event then", () => {
    const view = createPodView();
    for (const state of ["new", "lost"]) {
      expect([state, view.isKnown(), view.uidOf("n", "a"), view.absentSinceMs("n", "b")]).toEqual([
        state,
        false,
        undefined,
        undefined,
      ]);
      expect([there(view, a, 1), gone(view, a, 1)]).toEqual([false, false]);
      view.found("n", "b", 5);
      view.synced([a], 10);
      expect([view.isKnown(), view.uidOf("n", "a"), view.absentSinceMs("n", "a")]).toEqual([true, "uid-a", undefined]);
      // What was found while nothing was known is not remembered.
      expect(view.absentSinceMs("n", "b")).toBe(10);
      view.lost();
    }
  });

  it("counts an absence from when the watch knew all pods, from the pod's deletion, and from the last read that found it", () => {
    const view = aView(a, b);
    expect(view.absentSinceMs("n", "other")).toBe(1000);
    expect(view.absentSinceMs("none", "other")).toBe(1000);
    expect(gone(view, a, 2000)).toBe(true);
    expect([view.uidOf("n", "a"), view.absentSinceMs("n", "a")]).toEqual([undefined, 2000]);
    view.found("n", "a", 3000);
    expect(view.absentSinceMs("n", "a")).toBe(3000);
    // One that the watch lists is not absent, whatever a read finds.
    view.found("n", "b", 3000);
    expect(view.absentSinceMs("n", "b")).toBeUndefined();
    gone(view, b, 4000);
    expect(view.absentSinceMs("n", "b")).toBe(4000);
  });

  it("takes the end of an earlier pod of the name for no end of the present one", () => {
    const view = aView({ ...a, uid: "later" });
    expect(gone(view, a, 2000)).toBe(false);
    expect([view.uidOf("n", "a"), view.absentSinceMs("n", "a")]).toEqual(["later", undefined]);
    expect(gone(view, b, 2000)).toBe(false);
    expect(view.absentSinceMs("n", "b")).toBe(1000);
  });

  it("tells when another pod bears a name, and not when the same one is seen again", () => {
    const view = aView(a);
    expect(there(view, a, 2000)).toBe(false);
    expect(there(view, { ...a, uid: "later" }, 2000)).toBe(true);
    expect(view.uidOf("n", "a")).toBe("later");
    expect(there(view, elsewhere, 2000)).toBe(true);
    expect([view.uidOf("m", "a"), view.uidOf("n", "a")]).toEqual(["uid-m", "later"]);
  });

  it("forgets an absence that has ended", () => {
    const view = aView(a);
    gone(view, a, 2000);
    there(view, a, 3000);
    expect(view.absentSinceMs("n", "a")).toBeUndefined();
    gone(view, a, 4000);
    expect(view.absentSinceMs("n", "a")).toBe(4000);
    view.lost();
    view.synced([], 5000);
    expect(view.absentSinceMs("n", "a")).toBe(5000);
  });

  it("counts an absence of which it forgot the beginning from the last deletion forgotten", () => {
    const view = aView(a, b, elsewhere);
    gone(view, a, 2000);
    gone(view, b, 3000);
    gone(view, elsewhere, 4000);
    view.forgetDeletions(4000);
    const absent = [
      view.absentSinceMs("n", "a"),
      view.absentSinceMs("n", "b"),
      view.absentSinceMs("m", "a"),
      view.absentSinceMs("n", "other"),
    ];
    expect(absent).toEqual([3000, 3000, 4000, 3000]);
    // The next list of all pods is a new beginning.
    view.lost();
    view.synced([], 2500);
    expect(view.absentSinceMs("n", "a")).toBe(2500);
  });

  it("keeps the latest moment of a name that is deleted again, and forgets it as late as that", () => {
    const view = aView(a, b);
    gone(view, a, 2000);
    gone(view, b, 3000);
    view.found("n", "a", 4000);
    view.forgetDeletions(3500);
    const absent = ["a", "b", "other"].map((pod) => view.absentSinceMs("n", pod));
    expect(absent).toEqual([4000, 3000, 3000]);
  });

  it("keeps so many deletions, and forgets the first for one more", () => {
    const count = 200_000;
    const pods = Array.from({ length: count + 1 }, (_, at) => ({ namespace: "n", name: `p${at}`, uid: `u${at}` }));
    const view = createPodView();
    view.synced(pods, 1000);
    for (const [at, pod] of pods.entries()) {
      gone(view, pod, 2000 + at);
      // Nothing is forgotten for the last one that there is room for.
      if (at === count - 1) expect(view.absentSinceMs("n", "other")).toBe(1000);
    }
    expect([view.absentSinceMs("n", "p1"), view.absentSinceMs("n", "other")]).toEqual([2001, 2000]);
  });
});

describe("a container of a living pod", () => {
  it("is missing since the first read that did not find it, and never once one found it", () => {
    const view = aView(a);
    expect([view.hasContainer("uid-a", "main"), view.missingSinceMs("uid-a", "main")]).toEqual([false, undefined]);
    view.containersRead("uid-a", ["main"], 2000);
    view.containersRead("uid-a", ["side"], 3000);
    for (const container of ["main", "side"]) {
      expect([view.hasContainer("uid-a", container), view.missingSinceMs("uid-a", container)]).toEqual([
        true,
        undefined,
      ]);
    }
    expect([view.hasContainer("uid-a", "debug"), view.missingSinceMs("uid-a", "debug")]).toEqual([false, 2000]);
  });

  it("is no longer known of a pod that ended, or whose name another bears", () => {
    for (const end of [gone, (view: PodView) => there(view, { ...a, uid: "later" }, 3000)]) {
      const view = aView(a, b);
      view.containersRead("uid-a", ["main"], 2000);
      view.containersRead("uid-b", ["main"], 2000);
      end(view, a, 3000);
      expect([view.hasContainer("uid-a", "main"), view.missingSinceMs("uid-a", "debug")]).toEqual([false, undefined]);
      expect([view.hasContainer("uid-b", "main"), view.missingSinceMs("uid-b", "debug")]).toEqual([true, 2000]);
    }
  });

  it("is known over a lost watch if its pod still lives, and is missing only since a read after that", () => {
    const view = aView(a, b);
    for (const { uid } of [a, b]) view.containersRead(uid, ["main"], 2000);
    view.lost();
    expect(view.missingSinceMs("uid-a", "debug")).toBeUndefined();
    view.synced([a], 3000);
    expect([view.hasContainer("uid-a", "main"), view.hasContainer("uid-b", "main")]).toEqual([true, false]);
    expect(view.missingSinceMs("uid-a", "debug")).toBeUndefined();
    view.containersRead("uid-a", [], 4000);
    expect(view.missingSinceMs("uid-a", "debug")).toBe(4000);
  });
});
