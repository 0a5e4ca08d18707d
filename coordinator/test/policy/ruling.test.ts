import { defaultPolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
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
    expect(selects({ disk: "s s d" })).toEqual(["a", "b"]);
    expect(selects(undefined)).toEqual(["a", "b"]);
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

  it("gets its grace from a new leader when that first hears of it, however late an agent tells", () => {
    const accepted = new Map([["a", "some other digest"]]);
    const before = rule({ accepted: new Map() });
    const still = rule({ accepted: new Map(), nowMs: 2 * GRACE_MS }, before.memory);
    expect([still.nodes.get("a")?.source, still.nextMs]).toEqual(["none", undefined]);
    const told = rule({ accepted, nowMs: 3 * GRACE_MS }, still.memory);
    expect([told.nodes.get("a")?.source, told.nextMs]).toEqual(["none", 4 * GRACE_MS]);
    const after = rule({ accepted, nowMs: 4 * GRACE_MS }, told.memory);
    expect(after.nodes.get("a")?.source).toBe("default");
  });

  it("has one grace period, also where an agent falls silent in it", () => {
    const accepted = new Map([["a", "some other digest"]]);
    const told = rule({ accepted });
    const silent = rule({ accepted: new Map(), nowMs: GRACE_MS - 1 }, told.memory);
    expect(silent.nodes.get("a")?.source).toBe("none");
    expect(rule({ accepted, nowMs: GRACE_MS }, silent.memory).nodes.get("a")?.source).toBe("default");
  });

  it("is the past where the default is in force: an agent that restarts gets it at once", () => {
    const before = rule();
    const restarted = rule({ accepted: new Map(), nowMs: 1000 }, before.memory);
    expect(restarted.nodes.get("a")?.source).toBe("default");
  });

  it("leaves nothing to keep where no version of it was good, and the default waits all the same", () => {
    const wrong = aResource({ spec: { globalPolicy: { maxCheckpointSize: "1k" } } });
    const before = rule({ resources: [wrong] });
    const during = rule({ nowMs: 1000 }, before.memory);
    expect(during.nodes.get("a")).toEqual({ source: "none", policy: undefined });
    expect(rule({ nowMs: 1000 + GRACE_MS }, during.memory).nodes.get("a")?.source).toBe("default");
  });
});

/** One look at the cluster, with times small enough that some lie within the grace period and some beyond. */
interface Look {
  resources: PolicyResource[];
  nodes: Array<{ name: string; labels: Record<string, string> }>;
  accepted: Map<string, string | null>;
  nowMs: number;
}

const specs = [
  { globalPolicy: { maxCheckpointsPerContainer: 2 } },
  { globalPolicy: { maxCheckpointsPerContainer: 3 }, nodeSelector: { disk: "ssd" } },
  { globalPolicy: { maxCheckpointSize: "1k" }, nodeSelector: { disk: "ssd" } },
  { globalPolicy: { maxCheckpointSize: "1k" } },
  { nodeSelector: { disk: "s s d" } },
];
const isGoodSpec = (index: number) => index < 2;

/** Looks at a cluster in which anything changes: resources replaced, edited or gone, nodes relabelled, agents silent. */
const arbLooks = fc
  .array(
    fc.record({
      // By name: absent, or a spec, under one of two UIDs.
      specs: fc.tuple(
        ...["x", "y", "z"].map(() =>
          fc.option(fc.record({ spec: fc.nat(specs.length - 1), uid: fc.nat(1) }), { freq: 2 }),
        ),
      ),
      labels: fc.tuple(
        ...["a", "b"].map(() => fc.option(fc.constantFrom({ disk: "ssd" }, { disk: "hdd" }), { freq: 8 })),
      ),
      accepted: fc.tuple(...["a", "b"].map(() => fc.constantFrom("unknown", "nothing", "default", "another"))),
      stepMs: fc.constantFrom(0, 1, GRACE_MS / 2, GRACE_MS - 1, GRACE_MS),
    }),
    { minLength: 1, maxLength: 10 },
  )
  .map((steps): Look[] => {
    let nowMs = 0;
    return steps.map((step, generation) => {
      nowMs += step.stepMs;
      return {
        nowMs,
        resources: step.specs.flatMap((one, index) => {
          const name = "xyz"[index] as string;
          // z is of a namespace that does not count.
          const namespace = name === "z" ? "other" : "platform";
          if (one === null) return [];
          const createdAt = `2026-01-0${3 - index}T00:00:00Z`;
          return [{ namespace, name, uid: `${name}-${one.uid}`, generation, createdAt, spec: specs[one.spec] }];
        }),
        nodes: step.labels.flatMap((labels, index) =>
          labels === null ? [] : [{ name: "ab"[index] as string, labels: { ...labels } }],
        ),
        accepted: new Map(
          step.accepted.flatMap((what, index): Array<[string, string | null]> => {
            const digest = { unknown: undefined, nothing: null, default: fallback.digest, another: "another" }[what];
            return digest === undefined ? [] : [["ab"[index] as string, digest]];
          }),
        ),
      };
    });
  });

interface Expected {
  source: string;
  resource?: string;
  /** The limit in force; 10 is the default's. */
  limit?: number;
}

/** What is in force of a resource at a look, read off all the looks before: [limit, selector]. */
function versionAt(looks: Look[], at: number, uid: string): { limit?: number; disk?: string } {
  const now = looks[at]?.resources.find((one) => one.uid === uid);
  for (let index = at; index >= 0; index -= 1) {
    const then = looks[index]?.resources.find((one) => one.uid === uid);
    if (then === undefined) break;
    const number = specs.indexOf(then.spec as (typeof specs)[number]);
    if (isGoodSpec(number)) return number === 1 ? { limit: 3, disk: "ssd" } : { limit: 2 };
  }
  return now?.spec === specs[2] ? { disk: "ssd" } : {};
}

/** What should rule a node, from the whole history, which is told anew for each look. */
function expectedAt(looks: Look[], at: number, node: string): Expected | undefined {
  const look = looks[at] as Look;
  const labels = look.nodes.find(({ name }) => name === node)?.labels;
  if (labels === undefined) return undefined;
  const ruler = look.resources
    .filter(({ namespace }) => namespace === "platform")
    .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1))
    .map((resource) => ({ key: `platform/${resource.name}`, ...versionAt(looks, at, resource.uid) }))
    .find(({ disk }) => disk === undefined || disk === labels.disk);
  if (ruler !== undefined) {
    const { key: resource, limit } = ruler;
    return { source: "resource", resource, ...(limit !== undefined && { limit }) };
  }
  const past: Array<Expected & { at: number }> = [];
  for (let index = at - 1; index >= 0; index -= 1) {
    const then = expectedAt(looks, index, node);
    if (then === undefined || then.source === "default") {
      if (then?.source === "default" && past.every(({ source }) => source !== "resource")) {
        return { source: "default", limit: 10 };
      }
      break;
    }
    past.push({ ...then, at: index });
  }
  const lastRuled = past.find(({ source }) => source === "resource")?.at;
  const digestAt = (index: number) => looks[index]?.accepted.get(node);
  if (lastRuled === undefined && (digestAt(at) === null || digestAt(at) === fallback.digest)) {
    return { source: "default", limit: 10 };
  }
  if (lastRuled === undefined && digestAt(at) === undefined) return { source: "none" };
  const firstHeard = past.filter((one) => digestAt(one.at) === "another").at(-1)?.at ?? at;
  const sinceMs = looks[lastRuled === undefined ? firstHeard : lastRuled + 1]?.nowMs ?? 0;
  if (look.nowMs >= sinceMs + GRACE_MS) return { source: "default", limit: 10 };
  const limit = past.find((one) => one.limit !== undefined)?.limit;
  return limit === undefined ? { source: "none" } : { source: "grace", limit };
}

it("rules as the whole history says, of which it remembers only a little", () => {
  fc.assert(
    fc.property(arbLooks, (looks) => {
      let memory = EMPTY_MEMORY;
      for (const [at, look] of looks.entries()) {
        const ruling = rule({ ...look, policyNamespaces: ["platform"] }, memory);
        memory = ruling.memory;
        for (const node of ["a", "b"]) {
          const rules = ruling.nodes.get(node);
          const limit = rules?.policy?.compiled.document.global.perContainer?.maxCheckpoints;
          const seen = rules && {
            source: rules.source,
            ...(rules.source === "resource" && { resource: rules.resource }),
            ...(limit !== undefined && { limit }),
          };
          expect(seen).toEqual(expectedAt(looks, at, node));
        }
      }
    }),
    { numRuns: soak(400) },
  );
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
