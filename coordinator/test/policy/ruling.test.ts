import { defaultPolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  EMPTY_MEMORY,
  type PolicyResource,
  type RulingInput,
  type RulingMemory,
  readyPolicy,
  ruleNodes,
} from "../../src/policy/ruling.ts";

const fallback = readyPolicy(defaultPolicy());
const GRACE_MS = 600_000;

function aResource(changes: Partial<PolicyResource> = {}): PolicyResource {
  const name = changes.name ?? "policy";
  return {
    namespace: "platform",
    name,
    uid: `uid-${name}`,
    generation: 1,
    createdAt: "2026-01-01T00:00:00Z",
    spec: { globalPolicy: { maxCheckpointsPerContainer: 2 } },
    ...changes,
  };
}

function anInput(changes: Partial<RulingInput> = {}): RulingInput {
  return {
    resources: [],
    nodes: [
      { name: "a", labels: { disk: "ssd" } },
      { name: "b", labels: {} },
    ],
    policyNamespaces: undefined,
    defaultPolicy: fallback,
    graceMs: GRACE_MS,
    nowMs: 0,
    accepted: new Map([
      ["a", null],
      ["b", null],
    ]),
    ...changes,
  };
}

const rule = (changes: Partial<RulingInput> = {}, memory: RulingMemory = EMPTY_MEMORY) =>
  ruleNodes(anInput(changes), memory);
const limitOf = (ruling: ReturnType<typeof rule>, node = "a") =>
  ruling.nodes.get(node)?.policy?.compiled.document.global.perContainer?.maxCheckpoints;

describe("who rules a node", () => {
  it("is the oldest resource that matches it; the younger ones are told which", () => {
    const old = aResource({
      name: "old",
      spec: { nodeSelector: { disk: "ssd" }, globalPolicy: { maxCheckpointsPerContainer: 1 } },
    });
    const young = aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" });
    const ruling = rule({ resources: [young, old] });
    expect([limitOf(ruling, "a"), limitOf(ruling, "b")]).toEqual([1, 2]);
    expect(ruling.resources.map(({ key, matched }) => [key, matched])).toEqual([
      ["platform/old", ["a"]],
      ["platform/young", ["a", "b"]],
    ]);
    expect([...(ruling.resources[1]?.conflicts ?? [])]).toEqual([["a", "platform/old"]]);
  });

  it("is decided by name where two are as old", () => {
    const ruling = rule({
      resources: [aResource({ name: "b" }), aResource({ name: "a", namespace: "q" }), aResource({ name: "a" })],
    });
    expect(ruling.nodes.get("a")).toMatchObject({ resource: "platform/a" });
  });

  it("is nobody whose namespace does not count", () => {
    const ruling = rule({ resources: [aResource()], policyNamespaces: ["other"] });
    expect(ruling.nodes.get("a")?.source).toBe("default");
    expect(ruling.resources[0]).toMatchObject({ isNamespaceAllowed: false, matched: [] });
  });

  it("is a change told of when it is another resource than before", () => {
    const second = aResource({ name: "second", createdAt: "2026-01-03T00:00:00Z" });
    const before = rule({ resources: [second] });
    const after = rule({ resources: [second, aResource({ name: "first" })] }, before.memory);
    expect(after.changes).toEqual([
      { node: "a", from: "platform/second", to: "platform/first" },
      { node: "b", from: "platform/second", to: "platform/first" },
    ]);
  });
});

describe("a resource that is not valid", () => {
  const wrong = { globalPolicy: { maxCheckpointSize: "1k" } };

  it("goes on in its last good version", () => {
    const before = rule({ resources: [aResource()] });
    const after = rule({ resources: [aResource({ generation: 2, spec: wrong })] }, before.memory);
    expect(limitOf(after)).toBe(2);
    expect(after.resources[0]?.problems[0]?.field).toBe("spec.globalPolicy.maxCheckpointSize");
    const again = rule({ resources: [aResource({ generation: 2, spec: wrong })] }, after.memory);
    expect([limitOf(again), again.resources[0]?.problems.length]).toEqual([2, 1]);
  });

  it("has nothing pushed where no good version was ever seen, and no younger one rules in its place", () => {
    const ruling = rule({
      resources: [aResource({ spec: wrong }), aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" })],
    });
    expect(ruling.nodes.get("a")).toEqual({ source: "resource", resource: "platform/policy", policy: undefined });
  });

  it("is for the nodes of its selector all the same, and for all where that is what is wrong", () => {
    const selects = (nodeSelector: unknown) =>
      rule({ resources: [aResource({ spec: { ...wrong, nodeSelector } })] }).resources[0]?.matched;
    expect(selects({ disk: "ssd" })).toEqual(["a"]);
    expect(selects("ssd")).toEqual(["a", "b"]);
    expect(selects({})).toEqual(["a", "b"]);
  });
});

describe("a policy that went away", () => {
  it("stays in force for the grace period, then the default acts", () => {
    const before = rule({ resources: [aResource()] });
    const during = rule({ nowMs: 1000 }, before.memory);
    expect([during.nodes.get("a")?.source, limitOf(during), during.nextMs]).toEqual(["grace", 2, 1000 + GRACE_MS]);
    const late = rule({ nowMs: 999 + GRACE_MS }, during.memory);
    expect(late.nodes.get("a")?.source).toBe("grace");
    const after = rule({ nowMs: 1000 + GRACE_MS }, late.memory);
    expect([after.nodes.get("a")?.source, after.nextMs]).toEqual(["default", undefined]);
  });

  it("is replaced within it without the default ever acting", () => {
    const before = rule({ resources: [aResource()] });
    const during = rule({ nowMs: 1000 }, before.memory);
    const after = rule({ nowMs: 2000, resources: [aResource({ uid: "another" })] }, during.memory);
    expect([limitOf(after), after.changes]).toEqual([2, []]);
  });

  it("is guessed by a new leader from what the agent has accepted", () => {
    const accepted = new Map([
      ["a", "some other digest"],
      ["b", fallback.digest],
    ]);
    const first = rule({ accepted });
    expect([first.nodes.get("a")?.source, first.nodes.get("b")?.source]).toEqual(["none", "default"]);
    const after = rule({ accepted, nowMs: GRACE_MS }, first.memory);
    expect(after.nodes.get("a")?.source).toBe("default");
  });

  it("pushes nothing to an agent that has not told what it has", () => {
    expect(rule({ accepted: new Map() }).nodes.get("a")?.source).toBe("none");
  });
});

it("never lets the default act sooner than the grace period after a resource ruled, whatever happens", () => {
  const step = fc.record({
    resources: fc.subarray([
      aResource({ name: "x" }),
      aResource({ name: "y", createdAt: "2026-01-02T00:00:00Z", spec: { nodeSelector: { disk: "ssd" } } }),
      aResource({ name: "z", spec: { globalPolicy: { maxCheckpointSize: "1k" } } }),
    ]),
    stepMs: fc.nat(GRACE_MS),
  });
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 12 }), (steps) => {
      let memory = EMPTY_MEMORY;
      let nowMs = 0;
      const ruledUntilMs = new Map<string, number>();
      for (const { resources, stepMs } of steps) {
        nowMs += stepMs;
        const ruling = rule({ resources, nowMs }, memory);
        memory = ruling.memory;
        for (const [node, { source }] of ruling.nodes) {
          if (source === "resource") ruledUntilMs.set(node, nowMs);
          // What went away did so after the last look that saw it; the grace begins when it is missed.
          else if (source === "default")
            expect(nowMs - (ruledUntilMs.get(node) ?? -GRACE_MS)).toBeGreaterThanOrEqual(GRACE_MS);
        }
        expect([...ruling.nodes.keys()]).toEqual(["a", "b"]);
      }
    }),
  );
});
