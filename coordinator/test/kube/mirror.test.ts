import { describe, expect, it } from "vitest";
import { createMirror } from "../../src/kube/mirror.ts";

interface Item {
  name: string;
  labels: Record<string, string>;
}

const failure = { ok: false as const, reason: "Unreachable", message: "gone" };
const item = (name: string, labels: Record<string, string> = {}): Item => ({ name, labels });

describe("the mirror of a watch", () => {
  it("knows nothing until the watch is synced, and keeps what it knew while the watch is lost", () => {
    const mirror = createMirror<Item>(({ name }) => name);
    expect([mirror.items, mirror.isSynced]).toEqual([undefined, false]);
    expect(mirror.take({ type: "added", item: item("a") })).toBe(true);
    expect(mirror.items).toBeUndefined();
    expect(mirror.take({ type: "synced", items: [item("a")] })).toBe(true);
    expect([[...(mirror.items?.keys() ?? [])], mirror.isSynced]).toEqual([["a"], true]);
    expect(mirror.take({ type: "lost", failure })).toBe(false);
    expect([[...(mirror.items?.keys() ?? [])], mirror.isSynced]).toEqual([["a"], false]);
    mirror.take({ type: "synced", items: [] });
    expect([mirror.items?.size, mirror.isSynced]).toEqual([0, true]);
  });

  it("takes an event that changes nothing for no change", () => {
    const mirror = createMirror<Item>(({ name }) => name);
    mirror.take({ type: "synced", items: [item("a", { disk: "ssd" })] });
    expect(mirror.take({ type: "modified", item: item("a", { disk: "ssd" }) })).toBe(false);
    expect(mirror.take({ type: "modified", item: item("a", { disk: "hdd" }) })).toBe(true);
    expect(mirror.items?.get("a")).toEqual(item("a", { disk: "hdd" }));
    expect(mirror.take({ type: "added", item: item("b") })).toBe(true);
    expect(mirror.take({ type: "deleted", item: item("c") })).toBe(false);
    expect(mirror.take({ type: "deleted", item: item("b") })).toBe(true);
    expect([...(mirror.items?.keys() ?? [])]).toEqual(["a"]);
  });

  it("can be told what makes no difference", () => {
    const mirror = createMirror<Item>(
      ({ name }) => name,
      () => true,
    );
    const first = item("a", { disk: "ssd" });
    mirror.take({ type: "synced", items: [first] });
    expect(mirror.take({ type: "modified", item: item("a") })).toBe(false);
    expect(mirror.items?.get("a")).toBe(first);
  });
});
