import { defaultPolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createJudge, type PolicyResource, readyPolicy } from "../../src/policy/judge.ts";
import { EMPTY_MEMORY, type RulingMemory } from "../../src/policy/record.ts";
import {
  type AcceptedDirective,
  type NodeFacts,
  type NodeRuling,
  type Ruling,
  type RulingInput,
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
    spec: { globalPolicy: { maxCheckpointsPerContainer: 2 }, nodePolicy: { maxTotalSize: "7Gi" } },
    ...changes,
  };
}

type Facts = Partial<Omit<RulingInput, "resources" | "accepted">> & {
  resources?: PolicyResource[];
  accepted?: Record<string, string | null>;
};

/** A cluster as one leader sees it, look after look. It remembers good versions; memory goes from look to look. */
function aCluster({ policyNamespaces, before }: { policyNamespaces?: string[]; before?: RulingMemory } = {}) {
  const judge = createJudge({ policyNamespaces });
  let memory = before ?? EMPTY_MEMORY;
  let last: Facts = {};
  return {
    /** Looks at what changed since the last look, and at all else as it was. */
    look(changes: Facts = {}): Ruling {
      last = { ...last, ...changes };
      const { resources = [], accepted = { a: null, b: null }, ...facts } = last;
      const ruling = ruleNodes(
        {
          nodes: [
            { name: "a", labels: { disk: "ssd" } },
            { name: "b", labels: {} },
          ],
          defaultPolicy: fallback,
          graceMs: GRACE_MS,
          nowMs: 0,
          ...facts,
          resources: judge.judge(resources),
          accepted: new Map(
            Object.entries(accepted).map(([node, digest]): [string, AcceptedDirective] => [
              node,
              { digest, directory: "/checkpoints" },
            ]),
          ),
        },
        memory,
      );
      memory = ruling.memory;
      return ruling;
    },
  };
}

const documentOf = (rules: NodeRuling | undefined) =>
  rules?.policy && (JSON.parse(rules.policy.json) as typeof fallback.compiled.document);
const limitOf = (ruling: Ruling, node = "a") => documentOf(ruling.nodes.get(node))?.global.perContainer?.maxCheckpoints;
const ssd = { nodeSelector: { disk: "ssd" } };
const wrong = { globalPolicy: { maxCheckpointSize: "1k" } };
const rest = {
  directory: "/var/lib/kubelet/checkpoints",
  mode: "Enforce",
  applyImmediately: false,
  global: { level: "global", retainOrphan: true },
  rules: [],
  node: { maxTotalBytes: 7 * 1024 ** 3 },
};

describe("who rules a node", () => {
  it("is the oldest resource that matches it; the younger ones are told which", () => {
    const old = aResource({ name: "old", spec: { ...ssd, globalPolicy: { maxCheckpointsPerContainer: 1 } } });
    const young = aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" });
    const ruling = aCluster().look({ resources: [young, old] });
    expect([limitOf(ruling, "a"), limitOf(ruling, "b")]).toEqual([1, 2]);
    expect(ruling.resources.map(({ key, matched }) => [key, matched])).toEqual([
      ["platform/old", ["a"]],
      ["platform/young", ["a", "b"]],
    ]);
    expect([...(ruling.resources[1]?.conflicts ?? [])]).toEqual([["a", { ruler: "platform/old", why: "age" }]]);
    expect(ruling.resources[0]?.conflicts.size).toBe(0);
  });

  it("is the one of the highest priority before any older one, and of two alike the older one", () => {
    const low = aResource({ name: "low", createdAt: "2025-01-01T00:00:00Z", spec: { priority: -1 } });
    const old = aResource({ name: "old" });
    const high = aResource({ name: "high", createdAt: "2026-01-03T00:00:00Z", spec: { ...ssd, priority: 2 } });
    const { nodes, resources } = aCluster().look({ resources: [low, old, high] });
    expect([nodes.get("a"), nodes.get("b")]).toMatchObject([
      { resource: "platform/high" },
      { resource: "platform/old" },
    ]);
    expect(resources.map(({ key }) => key)).toEqual(["platform/high", "platform/old", "platform/low"]);
    expect([...(resources[1]?.conflicts ?? [])]).toEqual([["a", { ruler: "platform/high", why: "priority" }]]);
  });

  it("goes over at once to a higher priority that appears, and to another when it is taken back: nothing went away", () => {
    const cluster = aCluster();
    const high = aResource({ name: "high", createdAt: "2026-01-03T00:00:00Z", spec: { priority: 1 } });
    cluster.look({ resources: [aResource()] });
    const over = cluster.look({ resources: [aResource(), high] });
    expect([over.rests, over.changes[0]]).toEqual([[], { node: "a", from: "platform/policy", to: "platform/high" }]);
    const back = cluster.look({ resources: [aResource(), { ...high, generation: 2, spec: {} }] });
    expect([back.rests, back.changes[0]]).toEqual([[], { node: "a", from: "platform/high", to: "platform/policy" }]);
  });

  it.each<[string, unknown[], string[]]>([
    ["In", [{ key: "disk", operator: "In", values: ["ssd", "nvme"] }], ["ssd"]],
    [
      "NotIn, which also matches where the label is absent",
      [{ key: "disk", operator: "NotIn", values: ["ssd"] }],
      ["hdd", "none"],
    ],
    ["Exists", [{ key: "disk", operator: "Exists" }], ["ssd", "hdd"]],
    ["DoesNotExist", [{ key: "disk", operator: "DoesNotExist" }], ["none"]],
    [
      "a label that every object has of itself",
      [{ key: "constructor", operator: "DoesNotExist" }],
      ["ssd", "hdd", "none"],
    ],
    [
      "several, which must all hold",
      [
        { key: "disk", operator: "Exists" },
        { key: "disk", operator: "NotIn", values: ["hdd"] },
      ],
      ["ssd"],
    ],
  ])("is one for nodes by %s", (_, nodeMatchExpressions, expected) => {
    const nodes: NodeFacts[] = [
      { name: "ssd", labels: { disk: "ssd" } },
      { name: "hdd", labels: { disk: "hdd" } },
      { name: "none", labels: {} },
    ];
    const matched = (spec: object) =>
      aCluster().look({ nodes, resources: [aResource({ spec })] }).resources[0]?.matched;
    expect([...(matched({ nodeMatchExpressions }) ?? [])].sort()).toEqual([...expected].sort());
    // The selector must match, too.
    expect(matched({ nodeMatchExpressions, ...ssd })).toEqual(expected.filter((name) => name === "ssd"));
  });

  it("is decided by name if two are as old, and neither is called older", () => {
    const ruling = aCluster().look({
      resources: [aResource({ name: "b" }), aResource({ name: "a", namespace: "q" }), aResource({ name: "a" })],
    });
    expect(ruling.nodes.get("a")).toMatchObject({ resource: "platform/a" });
    expect(ruling.resources.map(({ key }) => key)).toEqual(["platform/a", "platform/b", "q/a"]);
    expect(ruling.resources[2]?.conflicts.get("a")).toEqual({ ruler: "platform/a", why: "name" });
  });

  it("ignores a resource of a namespace that does not count", () => {
    const ruling = aCluster({ policyNamespaces: ["other"] }).look({ resources: [aResource()] });
    expect(ruling.nodes.get("a")?.source).toBe("default");
    expect(ruling.resources[0]).toMatchObject({ isNamespaceAllowed: false, matched: [] });
  });

  it("changes at once for an older resource, and is told, if nothing went away", () => {
    const cluster = aCluster();
    const second = aResource({ name: "second", createdAt: "2026-01-03T00:00:00Z" });
    cluster.look({ resources: [second] });
    const after = cluster.look({ resources: [second, aResource({ name: "first" })] });
    expect(after.changes).toEqual([
      { node: "a", from: "platform/second", to: "platform/first" },
      { node: "b", from: "platform/second", to: "platform/first" },
    ]);
    expect([after.rests, after.nextMs]).toEqual([[], undefined]);
  });

  it("is a resource at once after the default", () => {
    const cluster = aCluster();
    expect(cluster.look().nodes.get("a")?.source).toBe("default");
    const ruling = cluster.look({ resources: [aResource()] });
    expect([limitOf(ruling), ruling.changes, ruling.returns]).toEqual([2, [], []]);
  });
});

it("rules by priority, then age, then name, for any resources, and gives the reason that decided", () => {
  const arbResource = fc.record({ priority: fc.constantFrom(undefined, -1, 0, 1), day: fc.nat(2) });
  fc.assert(
    fc.property(fc.array(arbResource, { minLength: 1, maxLength: 5 }), (given) => {
      const resources = given.map(({ priority, day }, index) =>
        aResource({
          name: `r${index}`,
          createdAt: `2026-01-0${day + 1}T00:00:00Z`,
          spec: priority === undefined ? {} : { priority },
        }),
      );
      const ruling = aCluster().look({ resources });
      const rules = ruling.nodes.get("a");
      const ruler = given[Number(rules?.source === "resource" && rules.resource.at(-1))];
      for (const { key, conflicts } of ruling.resources) {
        const why = conflicts.get("a")?.why;
        const other = given[Number(key.at(-1))];
        if (ruler === undefined || other === undefined) throw new Error("names are places in the list");
        const [first, second] = [ruler, other].map(({ priority = 0, day }) => ({ priority, day }));
        if (ruler === other) expect(why).toBeUndefined();
        else if (first?.priority !== second?.priority) expect(why).toBe("priority");
        else expect(why).toBe(ruler.day === other.day ? "name" : "age");
        expect(first?.priority).toBeGreaterThanOrEqual(second?.priority ?? 0);
        if (first?.priority === second?.priority) expect(ruler.day).toBeLessThanOrEqual(other.day);
        if (why === "name") expect(given.indexOf(ruler)).toBeLessThan(given.indexOf(other));
      }
    }),
  );
});

describe("the nodes and conflicts of resources", () => {
  const arbSelector = fc.constantFrom(
    undefined,
    { disk: "ssd" },
    { disk: "hdd" },
    { gpu: "" },
    { disk: "ssd", gpu: "" },
  );
  const arbLabels = fc.record(
    { disk: fc.constantFrom("ssd", "hdd", "null"), gpu: fc.constant("") },
    { requiredKeys: [] },
  );

  it("are those that each selector matches by itself, in the order of ranks", () => {
    fc.assert(
      fc.property(
        fc.array(arbSelector, { maxLength: 5 }),
        fc.array(arbLabels, { maxLength: 6 }),
        (selectors, labels) => {
          const nodes = labels.map((of, index) => ({ name: `n${index}`, labels: of }));
          const resources = selectors.map((nodeSelector, index) =>
            aResource({ name: `r${index}`, spec: { ...(nodeSelector && { nodeSelector }) } }),
          );
          const ruling = aCluster().look({ resources, nodes });
          const matches = (index: number, of: Record<string, string>) =>
            Object.entries(selectors[index] ?? {}).every(([key, value]) => of[key] === value);
          for (const [index, { matched, conflicts }] of ruling.resources.entries()) {
            const expected = nodes.filter((node) => matches(index, node.labels));
            expect([...matched].sort()).toEqual(expected.map(({ name }) => name));
            const rulers = expected.flatMap(({ name, labels: of }): Array<[string, string]> => {
              const ruler = selectors.findIndex((_, one) => matches(one, of));
              return ruler === index ? [] : [[name, `platform/r${ruler}`]];
            });
            expect([...conflicts].map(([name, { ruler }]) => [name, ruler]).sort()).toEqual(rulers);
          }
        },
      ),
    );
  });

  it("are kept once for all resources that have the same ones, for there may be thousands of both", () => {
    const resources = Array.from({ length: 4 }, (_, index) => aResource({ name: `r${index}` }));
    const [, one, other] = aCluster().look({ resources }).resources;
    expect(one?.matched).toBe(other?.matched);
    expect(one?.conflicts).toBe(other?.conflicts);
  });
});

describe("a resource that is not valid", () => {
  it("goes on in its last good version", () => {
    const cluster = aCluster();
    cluster.look({ resources: [aResource()] });
    for (let look = 0; look < 2; look += 1) {
      const after = cluster.look({ resources: [aResource({ generation: 2, spec: wrong })] });
      expect(limitOf(after)).toBe(2);
      expect(after.resources[0]?.problems.map(({ field }) => field)).toEqual(["spec.globalPolicy.maxCheckpointSize"]);
    }
  });

  it("has nothing pushed if no good version was ever seen, and no younger one rules in its place", () => {
    const ruling = aCluster().look({
      resources: [aResource({ spec: wrong }), aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" })],
    });
    expect(ruling.nodes.get("a")).toEqual({ source: "resource", resource: "platform/policy", policy: undefined });
  });

  it("is for the nodes of its selector all the same, and for all if the selector is what is wrong", () => {
    const selects = (nodeSelector: unknown) =>
      aCluster().look({ resources: [aResource({ spec: { ...wrong, nodeSelector } })] }).resources[0]?.matched;
    expect(selects({ disk: "ssd" })).toEqual(["a"]);
    expect(selects("ssd")).toEqual(["a", "b"]);
    expect(selects({})).toEqual(["a", "b"]);
    expect(selects({ disk: "s s d" })).toEqual(["a", "b"]);
    expect(selects(undefined)).toEqual(["a", "b"]);
    const expressions = (nodeMatchExpressions: unknown) =>
      aCluster().look({ resources: [aResource({ spec: { ...wrong, nodeMatchExpressions } })] }).resources[0]?.matched;
    expect(expressions([{ key: "disk", operator: "Exists" }])).toEqual(["a"]);
    expect(expressions([{ key: "disk", operator: "Is" }])).toEqual(["a", "b"]);
  });

  it("has its priority all the same, and the highest of all if that is what is wrong", () => {
    const ruler = (priority: unknown) =>
      aCluster()
        .look({
          resources: [
            aResource({ spec: { ...wrong, priority } }),
            aResource({ name: "other", createdAt: "2025-01-01T00:00:00Z", spec: { priority: 7 } }),
          ],
        })
        .nodes.get("a");
    expect(ruler(8)).toMatchObject({ resource: "platform/policy" });
    expect(ruler(6)).toMatchObject({ resource: "platform/other" });
    expect(ruler("7")).toMatchObject({ resource: "platform/policy", policy: undefined });
  });

  it("leaves no default to act at once if it goes away", () => {
    const cluster = aCluster();
    cluster.look({ resources: [aResource({ spec: wrong })] });
    const during = cluster.look({ resources: [], nowMs: 1000 });
    expect(during.nodes.get("a")).toMatchObject({ source: "rest", policy: undefined, after: "platform/policy" });
    expect(cluster.look({ nowMs: 1000 + GRACE_MS }).nodes.get("a")?.source).toBe("default");
  });

  it("lets its nodes rest by what was in force before it, if no version of it was ever good", () => {
    const cluster = aCluster();
    const young = aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" });
    cluster.look({ resources: [young] });
    cluster.look({ resources: [young, aResource({ spec: wrong })] });
    expect(documentOf(cluster.look({ resources: [] }).nodes.get("a"))).toEqual(rest);
  });
});

describe("a node whose policy went away", () => {
  const young = aResource({
    name: "young",
    createdAt: "2026-01-02T00:00:00Z",
    spec: { globalPolicy: { maxCheckpointsPerContainer: 1 } },
  });
  const old = aResource({ name: "old", spec: { ...(aResource().spec as object), ...ssd } });
  const hdd = { ...(old.spec as object), nodeSelector: { disk: "hdd" } };
  const node = (labels: Record<string, string>) => [{ name: "a", labels }];

  it.each<[string, Facts]>([
    ["was deleted", { resources: [young] }],
    ["was deselected", { resources: [young, { ...old, generation: 2, spec: hdd }] }],
    ["no longer matches its labels", { nodes: node({ disk: "hdd" }) }],
    ["was recreated for other nodes", { resources: [young, { ...old, uid: "another", spec: hdd }] }],
  ])("rests if that %s: its node rules act, whoever is next", (_, change) => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old], nodes: node({ disk: "ssd" }) });
    const during = cluster.look({ ...change, nowMs: 1000 });
    expect(during.nodes.get("a")).toMatchObject({
      source: "rest",
      after: "platform/old",
      next: "platform/young",
      untilMs: 1000 + GRACE_MS,
    });
    expect(documentOf(during.nodes.get("a"))).toEqual(rest);
    expect(during.rests).toEqual([{ node: "a", after: "platform/old", next: "platform/young" }]);
    expect([during.changes, during.nextMs]).toEqual([[], 1000 + GRACE_MS]);

    const late = cluster.look({ nowMs: 999 + GRACE_MS });
    expect([late.nodes.get("a")?.source, late.rests]).toEqual(["rest", []]);
    const after = cluster.look({ nowMs: 1000 + GRACE_MS });
    expect([limitOf(after), after.nextMs]).toEqual([1, undefined]);
    expect(after.changes).toEqual([{ node: "a", from: "platform/old", to: "platform/young" }]);
  });

  it("is ruled at once by one of a higher priority than what went away, whether that was there or comes later", () => {
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 1 }, priority: 1 };
    const high = aResource({ name: "high", createdAt: "2026-02-01T00:00:00Z", spec });
    for (const resources of [[high], [young]]) {
      const cluster = aCluster();
      cluster.look({ resources: [old], nodes: node({ disk: "ssd" }) });
      const during = cluster.look({ resources, nowMs: 1000 });
      expect(during.nodes.get("a")?.source).toBe(resources.includes(high) ? "resource" : "rest");
      const after = cluster.look({ resources: [...resources, high], nowMs: 2000 });
      expect(after.nodes.get("a")).toMatchObject({ source: "resource", resource: "platform/high" });
    }
  });

  it("rests before one of the same or a lower priority than it had when it ruled, also if an edit lowers it as it goes", () => {
    const cluster = aCluster();
    const was = { ...old, spec: { ...(old.spec as object), priority: 2 } };
    const next = aResource({ name: "next", createdAt: "2026-02-01T00:00:00Z", spec: { priority: 1 } });
    cluster.look({ resources: [was, next], nodes: node({ disk: "ssd" }) });
    for (const nowMs of [1000, 2000]) {
      const { nodes } = cluster.look({ resources: [{ ...was, generation: 2, spec: hdd }, next], nowMs });
      expect(nodes.get("a")).toMatchObject({ source: "rest", after: "platform/old", next: "platform/next" });
    }
  });

  it("rests before one of a higher priority that was never valid", () => {
    const cluster = aCluster();
    cluster.look({ resources: [old], nodes: node({ disk: "ssd" }) });
    const broken = aResource({ name: "high", spec: { ...wrong, priority: 1 } });
    expect(cluster.look({ resources: [broken] }).nodes.get("a")).toMatchObject({
      source: "rest",
      next: "platform/high",
    });
  });

  it("rests if that one's namespace no longer counts", () => {
    const { memory } = aCluster().look({ resources: [aResource()] });
    const during = aCluster({ policyNamespaces: ["other"], before: memory }).look({ resources: [aResource()] });
    expect(during.nodes.get("a")).toMatchObject({ source: "rest", after: "platform/policy", next: undefined });
    expect(during.memory.ranks.get("platform/policy")?.goneMs).toBe(0);
  });

  it("rests before the default acts, too", () => {
    const cluster = aCluster();
    cluster.look({ resources: [aResource()] });
    const during = cluster.look({ resources: [] });
    expect(during.rests[0]).toEqual({ node: "a", after: "platform/policy", next: undefined });
    const after = cluster.look({ nowMs: GRACE_MS });
    expect(after.nodes.get("a")).toEqual({ source: "default", policy: fallback });
    // Only from one resource to another is a change.
    expect(after.changes).toEqual([]);
  });

  it("rests until the one that is next has a valid version, and no time ends that", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old], nodes: node({ disk: "ssd" }) });
    const broken = { ...young, uid: "broken", spec: wrong };
    cluster.look({ resources: [broken] });
    const late = cluster.look({ nowMs: 2 * GRACE_MS });
    expect(late.nodes.get("a")).toMatchObject({ source: "rest", next: "platform/young", untilMs: 2 * GRACE_MS });
    expect(documentOf(late.nodes.get("a"))).toEqual(rest);
    expect(late.nextMs).toBeUndefined();
    const mended = cluster.look({ resources: [{ ...broken, generation: 2, spec: young.spec }] });
    expect(limitOf(mended)).toBe(1);
  });

  it("does not rest if the grace period is zero", () => {
    const cluster = aCluster();
    cluster.look({ resources: [aResource()], graceMs: 0 });
    expect(cluster.look({ resources: [] }).nodes.get("a")?.source).toBe("default");
  });

  it("keeps the largest floor of all rules, and the mode, while it rests", () => {
    const cluster = aCluster();
    const spec = {
      mode: "DryRun",
      applyPoliciesImmediately: true,
      globalPolicy: { minCheckpointsPerContainer: 2, maxAge: "1d", retainOrphan: false },
      namespacePolicies: [{ namespace: "shop", minCheckpoints: 3, maxCheckpoints: 4 }],
    };
    cluster.look({ resources: [aResource({ spec })] });
    expect(documentOf(cluster.look({ resources: [] }).nodes.get("a"))).toEqual({
      ...rest,
      mode: "DryRun",
      global: { ...rest.global, minCheckpoints: 3 },
      node: {},
    });
  });

  it("is ruled at once by a resource of the same name that comes back, by the age of the first", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old] });
    cluster.look({ resources: [young], nowMs: 1000 });
    const again = { ...old, uid: "again", createdAt: "2026-03-01T00:00:00Z" };
    const back = cluster.look({ resources: [young, again], nowMs: 999 + GRACE_MS });
    expect(limitOf(back)).toBe(2);
    expect(back.returns).toEqual([{ node: "a", resource: "platform/old" }]);
    expect([back.changes, back.nextMs]).toEqual([[], undefined]);
    const conflict = back.resources.find(({ key }) => key === "platform/young")?.conflicts;
    expect([...(conflict ?? [])]).toEqual([["a", { ruler: "platform/old", why: "keptRank" }]]);
    // It has that rank for as long as it exists.
    expect(limitOf(cluster.look({ nowMs: 9 * GRACE_MS }))).toBe(2);
  });

  it("is not ruled by a resource of that name by an old rank that comes back after the grace period", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old] });
    cluster.look({ resources: [young], nowMs: 0 });
    const again = { ...old, uid: "again", createdAt: "2026-03-01T00:00:00Z" };
    expect(limitOf(cluster.look({ resources: [young, again], nowMs: GRACE_MS }))).toBe(1);
  });

  it("rests on if the one that comes back no longer ranks first", () => {
    const cluster = aCluster();
    const oldest = aResource({ name: "oldest", createdAt: "2025-01-01T00:00:00Z" });
    cluster.look({ resources: [young, old] });
    cluster.look({ resources: [young] });
    const rules = cluster.look({ resources: [young, old, oldest], nowMs: 1 }).nodes.get("a");
    expect(rules).toMatchObject({ source: "rest", after: "platform/old", next: "platform/oldest" });
  });

  it("acts at once if it was made anew with the same labels, and rests until its labels come if they are late", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old], nodes: node({ disk: "ssd" }) });
    cluster.look({ nodes: [], nowMs: 10 });
    expect(limitOf(cluster.look({ nodes: node({ disk: "ssd" }), nowMs: 5 * GRACE_MS }))).toBe(2);
    cluster.look({ nodes: [] });
    const bare = cluster.look({ nodes: node({}), nowMs: 9 * GRACE_MS });
    expect(bare.nodes.get("a")).toMatchObject({ source: "rest", untilMs: 10 * GRACE_MS });
    expect(limitOf(cluster.look({ nodes: node({ disk: "ssd" }) }))).toBe(2);
  });

  it("does not age while its node is away", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young, old], nodes: node({ disk: "ssd" }) });
    cluster.look({ nodes: node({}) });
    cluster.look({ nowMs: 100 });
    cluster.look({ nodes: [], nowMs: 200 });
    expect(cluster.look({ nodes: node({}), nowMs: GRACE_MS }).nodes.get("a")).toMatchObject({
      source: "rest",
      untilMs: 2 * GRACE_MS - 100,
    });
  });

  it.each([201, 10_000])("is remembered when %d nodes are made anew at once", (count) => {
    const cluster = aCluster();
    const names = Array.from({ length: count }, (_, index) => `n${index}`);
    const accepted = Object.fromEntries(names.map((name) => [name, null]));
    const nodes = names.map((name) => ({ name, labels: {} }));
    cluster.look({ resources: [aResource()], nodes, accepted });
    cluster.look({ nodes: [], nowMs: 1 });
    const ruling = cluster.look({ nodes, resources: [] });
    expect(ruling.rests.length).toBe(count);
    expect(ruling.memory.isGoneCut).toBe(false);
  });

  it("rests if it may be one of too many to remember that were made anew", () => {
    const cluster = aCluster();
    const names = Array.from({ length: 10_001 }, (_, index) => `n${index}`);
    const accepted = Object.fromEntries(names.map((name) => [name, null]));
    const nodes = names.map((name) => ({ name, labels: {} }));
    cluster.look({ resources: [aResource()], nodes, accepted });
    const { memory } = cluster.look({ nodes: [], nowMs: 1 });
    expect([memory.gone.size, memory.gone.has("n0"), memory.isGoneCut]).toEqual([10_000, false, true]);
    const ruling = cluster.look({ nodes: nodes.slice(0, 2), resources: [] });
    expect([...ruling.nodes.values()].map(({ source }) => source)).toEqual(["rest", "rest"]);
    expect(ruling.rests.map(({ after }) => after)).toEqual([undefined, "platform/policy"]);
    expect(cluster.look({ nowMs: 2 + GRACE_MS }).nodes.get("n0")?.source).toBe("default");
    expect(ruling.memory.isGoneCut).toBe(true);
  });

  it("keeps no memory of a gone node that the default ruled", () => {
    const cluster = aCluster();
    cluster.look();
    expect(cluster.look({ nodes: [] }).memory.gone.size).toBe(0);
  });
});

describe("the ranks that are remembered", () => {
  const old = aResource({ name: "old" });
  const young = aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" });
  const ranksOf = ({ memory }: Ruling) => [...memory.ranks.keys()].sort();

  it("are those of what rules a node, and of no other", () => {
    const cluster = aCluster();
    expect(ranksOf(cluster.look({ resources: [old, young] }))).toEqual(["platform/old"]);
    // Outranked, it has nothing to lose any more.
    const high = { ...young, generation: 2, spec: { priority: 1 } };
    expect(ranksOf(cluster.look({ resources: [old, high] }))).toEqual(["platform/young"]);
    expect(ranksOf(cluster.look())).toEqual(["platform/young"]);
  });

  it("are not those of all where one node has no policy and another rests after one that is known", () => {
    const cluster = aCluster();
    const own = (resource: PolicyResource) => ({ ...resource, spec: ssd });
    const none = { ...aResource({ name: "none" }), spec: { nodeSelector: { disk: "none" } } };
    cluster.look({ resources: [own(old), none] });
    const resting = cluster.look({ resources: [own(young), none] });
    expect(resting.nodes.get("a")?.source).toBe("rest");
    expect(ranksOf(resting)).toEqual(["platform/old"]);
  });

  it("are those of all while a node rests of which it is not known what ruled it, whatever rules the others", () => {
    const unknown = aCluster().look({ resources: [old, young], accepted: { a: "another", b: null } });
    expect([unknown.nodes.get("a")?.source, unknown.nodes.get("b")?.source]).toEqual(["rest", "resource"]);
    expect(ranksOf(unknown)).toEqual(["platform/old", "platform/young"]);
  });

  it("are kept of what has its rank from an earlier resource of its name, also while it rules nothing", () => {
    const cluster = aCluster();
    cluster.look({ resources: [old, young] });
    cluster.look({ resources: [young], nowMs: 1 });
    const again = { ...old, uid: "again", createdAt: "2026-03-01T00:00:00Z" };
    const high = aResource({ name: "high", spec: { priority: 1 } });
    const outranked = cluster.look({ resources: [young, again, high], nowMs: 2 });
    expect(outranked.memory.ranks.get("platform/old")?.createdAt).toBe(old.createdAt);
    expect(ranksOf(outranked)).toEqual(["platform/high", "platform/old"]);
  });

  it("are told as the reason where both resources are as old by themselves", () => {
    const cluster = aCluster();
    cluster.look({ resources: [old] });
    cluster.look({ resources: [], nowMs: 1 });
    const again = { ...old, uid: "again", createdAt: young.createdAt };
    const { resources } = cluster.look({ resources: [{ ...young, name: "early" }, again], nowMs: 2 });
    expect(resources[1]?.conflicts.get("a")).toEqual({ ruler: "platform/old", why: "keptRank" });
  });

  it("are by the resource's own age if that is the older one", () => {
    const cluster = aCluster();
    cluster.look({ resources: [young] });
    cluster.look({ resources: [], nowMs: 1 });
    const restored = { ...young, uid: "restored", createdAt: "2025-01-01T00:00:00Z" };
    const { resources } = cluster.look({ resources: [old, restored], nowMs: 2 });
    expect(resources.map(({ key }) => key)).toEqual(["platform/young", "platform/old"]);
  });
});

describe("a node of which nothing is remembered", () => {
  const accepts = (digest: string | null | undefined, facts: Facts = {}) => {
    const cluster = aCluster();
    return { cluster, first: cluster.look({ ...facts, accepted: digest === undefined ? {} : { a: digest } }) };
  };

  it("gets nothing until its agent tells what it has accepted; the resource is told that it is next", () => {
    const { cluster, first } = accepts(undefined, { resources: [aResource()] });
    expect(first.nodes.get("a")).toEqual({ source: "unknown", policy: undefined, next: "platform/policy" });
    expect([first.memory.nodes.size, first.nextMs]).toEqual([0, undefined]);
    expect(limitOf(cluster.look({ accepted: { a: null }, nowMs: 5 * GRACE_MS }))).toBe(2);
  });

  it.each([
    ["nothing", null],
    ["the default", fallback.digest],
  ])("is ruled at once if its agent has accepted %s", (_, digest) => {
    expect(limitOf(accepts(digest, { resources: [aResource()] }).first)).toBe(2);
    expect(accepts(digest).first.nodes.get("a")?.source).toBe("default");
  });

  it("is ruled at once by the policy that its agent has accepted already", () => {
    const resources = [aResource()];
    const digest = createJudge({ policyNamespaces: undefined }).judge(resources)[0]?.policy?.digest;
    expect(limitOf(accepts(digest, { resources }).first)).toBe(2);
  });

  it.each([[[aResource()]], [[]]])(
    "rests if its agent has accepted another policy, and nothing is deleted",
    (resources) => {
      const { cluster, first } = accepts("another", { resources });
      expect(documentOf(first.nodes.get("a"))).toEqual({ ...rest, directory: "/checkpoints", node: {} });
      expect(first.nodes.get("a")).toMatchObject({ source: "rest", after: undefined, untilMs: GRACE_MS });
      // An agent that falls silent, or took the rest itself, changes nothing.
      expect(cluster.look({ accepted: {}, nowMs: GRACE_MS - 1 }).nodes.get("a")?.source).toBe("rest");
      const after = cluster.look({ nowMs: GRACE_MS });
      expect(after.nodes.get("a")?.source).toBe(resources.length > 0 ? "resource" : "default");
      expect(after.changes).toEqual([]);
    },
  );

  it("rests for the whole grace period after any resource that went meanwhile, for it may have ruled", () => {
    const young = aResource({ name: "young", createdAt: "2026-01-02T00:00:00Z" });
    for (const left of [[young], [aResource()], []]) {
      const { cluster } = accepts("another", { resources: [aResource(), young] });
      cluster.look({ nowMs: GRACE_MS - 10 });
      const late = cluster.look({ resources: left, nowMs: GRACE_MS - 5 });
      expect(late.nodes.get("a")).toMatchObject({ source: "rest", untilMs: 2 * GRACE_MS - 5 });
      expect(cluster.look({ nowMs: GRACE_MS }).nodes.get("a")?.source).toBe("rest");
      expect(cluster.look({ nowMs: 2 * GRACE_MS - 5 }).nodes.get("a")?.source).not.toBe("rest");
    }
  });

  it("rests before a resource of any priority, for nothing is surely meant to rule over what is not known", () => {
    const { cluster, first } = accepts("another", { resources: [aResource({ spec: { priority: 1000 } })] });
    expect(first.nodes.get("a")?.source).toBe("rest");
    expect(cluster.look({ nowMs: GRACE_MS - 1 }).nodes.get("a")?.source).toBe("rest");
    expect(cluster.look({ nowMs: GRACE_MS }).nodes.get("a")?.source).toBe("resource");
  });

  it("rests anew if it was away in between", () => {
    const { cluster } = accepts("another", { resources: [aResource()] });
    cluster.look({ nowMs: GRACE_MS - 10 });
    cluster.look({ nodes: [] });
    const back = cluster.look({ resources: [], nodes: [{ name: "a", labels: {} }] });
    expect(back.nodes.get("a")).toMatchObject({ source: "rest", untilMs: 2 * GRACE_MS - 10 });
  });

  it("keeps what its agent has while the resource that is next was never valid", () => {
    const { cluster, first } = accepts("another", { resources: [aResource({ spec: wrong })] });
    expect(first.nodes.get("a")?.source).toBe("unknown");
    expect(cluster.look({ resources: [aResource({ generation: 2 })] }).nodes.get("a")?.source).toBe("rest");
  });

  it.each(["", "checkpoints", "/a/../b", "/a//b", `/${"a".repeat(1024)}`])(
    "is not pushed a directory that is none: %s",
    (directory) => {
      const judge = createJudge({ policyNamespaces: undefined });
      const ruling = ruleNodes(
        {
          resources: judge.judge([]),
          nodes: [{ name: "a", labels: {} }],
          defaultPolicy: fallback,
          graceMs: GRACE_MS,
          nowMs: 0,
          accepted: new Map([["a", { digest: "another", directory }]]),
        },
        EMPTY_MEMORY,
      );
      expect(ruling.nodes.get("a")).toMatchObject({ source: "rest", policy: undefined });
    },
  );

  it("rests even if its agent has accepted nothing, while the record names no nodes because there were too many", () => {
    const input = {
      resources: [],
      nodes: ["a", "b"].map((name) => ({ name, labels: {} })),
      defaultPolicy: fallback,
      graceMs: GRACE_MS,
      nowMs: 0,
      accepted: new Map<string, AcceptedDirective>([["a", { digest: null, directory: "/" }]]),
    };
    const cut = ruleNodes(input, { ...EMPTY_MEMORY, isCut: true });
    expect([cut.nodes.get("a")?.source, cut.nodes.get("b")?.source, cut.memory.isCut]).toEqual([
      "rest",
      "unknown",
      true,
    ]);
    const accepted = new Map(input.accepted).set("b", { digest: fallback.digest, directory: "/" });
    const whole = ruleNodes({ ...input, accepted }, cut.memory);
    expect([whole.nodes.get("b")?.source, whole.memory.isCut]).toEqual(["default", false]);
  });

  it("is the past if the default is in force: an agent that restarts gets it at once", () => {
    const cluster = aCluster();
    cluster.look();
    expect(cluster.look({ accepted: {}, nowMs: 1000 }).nodes.get("a")?.source).toBe("default");
  });
});
