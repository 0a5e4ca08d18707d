import { CONDITION_TYPES, PolicyStatus } from "@cro/shared/crd/status";
import { compilePolicy, defaultPolicy } from "@cro/shared/policy/compile";
import type { Report } from "@cro/shared/wire/report";
import { Check } from "typebox/value";
import { describe, expect, it } from "vitest";
import type { AgentView } from "../../src/agents/push.ts";
import { readyPolicy } from "../../src/policy/judge.ts";
import type { Conflict, NodeRuling, ResourceRuling } from "../../src/policy/ruling.ts";
import { aggregateStatus, continueStatus, type StatusInput } from "../../src/status/aggregate.ts";
import { aReport } from "../support/agent-peer.ts";

const policy = readyPolicy(defaultPolicy());
const names = (count: number) => Array.from({ length: count }, (_, index) => `node-${index}`);

function aView(
  node: string,
  changes: { state?: AgentView["state"]; problem?: string; report?: Partial<Report> } = {},
): AgentView {
  return {
    address: { node, podUID: `uid-${node}`, url: "https://127.0.0.1:1" },
    state: changes.state ?? "applied",
    report: aReport({ node, ...changes.report }),
    heardAtMs: Date.parse("2026-01-31T23:59:50Z"),
    problem: changes.problem,
  };
}

function input(
  nodes: string[],
  views: AgentView[],
  changes: Partial<StatusInput> & { ruling?: ResourceRuling } = {},
): StatusInput {
  const resource = {
    namespace: "p",
    name: "policy",
    uid: "u",
    generation: 7,
    createdAt: "2026-01-01T00:00:00Z",
    spec: {},
  };
  const key = "p/policy";
  const ruling: ResourceRuling = {
    key,
    resource,
    problems: [],
    isNamespaceAllowed: true,
    policy,
    reach: { priority: 0 },
    matched: nodes,
    conflicts: new Map(),
  };
  const rules = nodes.map((node): [string, NodeRuling] => [node, { source: "resource", resource: key, policy }]);
  return {
    ruling,
    nodes: new Map(rules),
    agents: new Map(views.map((view) => [view.address.node, view])),
    starts: new Map(),
    held: new Map(),
    now: "2026-02-01T00:00:00.000Z",
    nowMs: 0,
    ...changes,
  };
}

const conditionsOf = (status: PolicyStatus) =>
  Object.fromEntries(
    (status.conditions ?? []).map(({ type, status: value, reason, message }) => [type, [value, reason, message]]),
  );

describe("a status", () => {
  it("is one that the API server takes, whatever a policy or an agent that is not to be trusted makes it tell", () => {
    const problems = names(2000).map((name) => ({ field: `spec.${name}`, message: "x".repeat(300) }));
    const report = { archives: Number.MAX_SAFE_INTEGER, bytes: Number.MAX_SAFE_INTEGER, pinned: 3 };
    const directory = { path: "/p", state: "missing" as const, message: "y".repeat(1_000_000) };
    const problem = "z".repeat(1_000_000);
    const nodes = names(100);
    const views = nodes.map((node) => aView(node, { state: "stale", problem, report: { ...report, directory } }));
    const usual = input(nodes, views);
    const status = aggregateStatus({ ...usual, ruling: { ...usual.ruling, problems } });
    expect(Check(PolicyStatus, status)).toBe(true);
    for (const { message } of status.conditions ?? []) expect(message.length).toBeLessThanOrEqual(32_768);
    expect(status.archives).toBe(Number.MAX_SAFE_INTEGER);
    expect(conditionsOf(status).Accepted?.[2]).toContain("and 1980 more");
  });

  it("sums what the agents of its nodes report, and fits the resource's schema", () => {
    const report = { archives: 3, bytes: 3 * 1024 * 1024, pinned: 1, states: { incomplete: 1, unidentified: 2 } };
    const status = aggregateStatus(input(["a", "b"], [aView("a", { report }), aView("b", { report })]));
    expect(Check(PolicyStatus, status)).toBe(true);
    expect(status).toMatchObject({
      observedGeneration: 7,
      mode: "Enforce",
      nodes: { desired: 2, ready: 2, applied: 2, stale: 0, summary: "2/2" },
      archives: 6,
      size: "6Mi",
      pinned: 2,
      incomplete: 2,
      unidentified: 4,
      effectiveGlobalPolicy: { retainOrphan: true, maxCheckpointsPerContainer: 10 },
    });
    expect(status.conditions?.map(({ type }) => type)).toEqual([...CONDITION_TYPES]);
    expect(conditionsOf(status).Enforcing).toEqual(["True", "Applied", "on all of 2 nodes"]);
  });

  it("names the first ten of the nodes that lack something, and why", () => {
    const nodes = names(14);
    const status = aggregateStatus(
      input(
        nodes,
        nodes.slice(0, 13).map((node) => aView(node, { state: "stale", problem: "connect ECONNREFUSED" })),
      ),
    );
    const [value, reason, message] = conditionsOf(status).Enforcing ?? [];
    expect([value, reason]).toEqual(["False", "Pending"]);
    expect(message).toMatch(/not yet on node-0, .*node-9 and 4 more nodes: connect ECONNREFUSED/);
    expect(status.nodes).toMatchObject({ desired: 14, ready: 0, applied: 0, stale: 14 });
  });

  it("tells of directories, limits and orphans by the node", () => {
    const limit = { limit: "max_total_size" as const, namespace: "n", wanted: 2048, freed: 0, unit: "bytes" as const };
    const directory = {
      path: "/x",
      state: "not_mounted" as const,
      message: "/x lies in none of the mounted directories: /y",
    };
    const view = aView("a", { report: { directory, unreachable: [limit] } });
    const pods = Array.from({ length: 10 }, (_, index) => `n/web-${index}`);
    const held = new Map([
      ["a", { count: 40, podCount: 12, pods }],
      ["elsewhere", { count: 1, podCount: 1, pods: ["n/other"] }],
    ]);
    const conditions = conditionsOf(aggregateStatus(input(["a"], [view], { held })));
    expect(conditions.DirectoryNotMounted).toEqual(["True", "NotWatched", `a: ${directory.message}`]);
    expect(conditions.LimitUnreachable?.[2]).toBe("a: max_total_size of n is exceeded by 2KiB, of which 0B could go");
    expect(conditions.OrphansHeld?.[2]).toBe(
      `a: 12 pods seem to be gone at once (${pods.join(", ")} and 2 more); their archives wait for a second proof`,
    );
  });

  it("keeps the time of a condition that did not change", () => {
    const first = aggregateStatus(input(["a"], [aView("a", { state: "pending" })]));
    const later = aggregateStatus(input(["a"], [aView("a")], { now: "2026-02-02T00:00:00.000Z" }));
    const times = Object.fromEntries(
      (continueStatus(later, first).conditions ?? []).map(({ type, lastTransitionTime }) => [type, lastTransitionTime]),
    );
    expect(times.Accepted).toBe("2026-02-01T00:00:00.000Z");
    expect(times.Enforcing).toBe("2026-02-02T00:00:00.000Z");
  });

  it("goes on from what another leader wrote: times of conditions and of the last deletion stay", () => {
    const early = { ...aggregateStatus(input(["a"], [aView("a")])), lastEnforcementTime: "2026-01-31T00:00:00.000Z" };
    const late = aggregateStatus(input(["a"], [aView("a")], { now: "2026-02-02T00:00:00.000Z" }));
    expect(continueStatus(late, early)).toEqual(early);
    expect(continueStatus(early, { ...early, lastEnforcementTime: "2026-01-01T00:00:00.000Z" })).toEqual(early);
  });

  it("tells when something was last deleted, and nothing of the time before the resource", () => {
    const at = (...times: string[]) => ({
      report: {
        deletions: times.map((time, index) => ({
          ...{ number: index + 1, time, file: "f", namespace: "n", pod: "p", container: "c" },
          ...{ bytes: 1, reason: "max_age" as const },
        })),
      },
    });
    const views = [
      aView("a", at("2026-01-02T00:00:00.000Z", "2026-01-04T00:00:00.000Z")),
      aView("b", at("2026-01-03T00:00:00.000Z")),
    ];
    expect(aggregateStatus(input(["a", "b"], views)).lastEnforcementTime).toBe("2026-01-04T00:00:00.000Z");
    const untimed = aView("a", at("2026-01-02T00:00:00.000Z", "2026-01-03T00:00:00.000Z"));
    const last = untimed.report?.deletions.at(-1);
    if (last !== undefined) delete last.time;
    expect(aggregateStatus(input(["a"], [untimed])).lastEnforcementTime).toBe("2026-01-02T00:00:00.000Z");
    const before = input(["a"], [aView("a", at("2025-12-31T23:59:59.000Z"))]);
    expect(aggregateStatus(before).lastEnforcementTime).toBeUndefined();
  });

  it("says which agent does not answer beside one that has the policy", () => {
    const status = aggregateStatus(
      input(["a", "b"], [aView("a"), aView("b", { problem: "its agent u does not answer" })]),
    );
    expect(conditionsOf(status).Enforcing).toEqual([
      "True",
      "Applied",
      "on all of 2 nodes; b: its agent u does not answer",
    ]);
  });

  it("names an agent that does not know all of the policy, and shows it as one that answers", () => {
    const problem = "agent 0.1.0 does not know node.minFreeForOthers of the policy; upgrade it";
    const status = aggregateStatus(input(["a", "b"], [aView("a"), aView("b", { state: "pending", problem })]));
    expect(conditionsOf(status).Enforcing).toEqual(["False", "Pending", `not yet on b: ${problem}`]);
    expect(status.nodes).toMatchObject({ desired: 2, ready: 2, applied: 1, stale: 0 });
  });

  it("shows what a later version of an agent tells in words of its own", () => {
    const unreachable = [{ limit: "min_free_inodes", wanted: 5, freed: 2, unit: "inodes" }];
    const directory = { path: "/p", state: "thawing" };
    const status = aggregateStatus(input(["a"], [aView("a", { report: { unreachable, directory } })]));
    expect(conditionsOf(status)).toMatchObject({
      LimitUnreachable: [
        "True",
        "NothingLeftToDelete",
        "a: min_free_inodes of the node is exceeded by 5 inodes, of which 2 inodes could go",
      ],
      DirectoryNotMounted: ["True", "NotWatched", "a: thawing"],
    });
  });

  it("says where nothing is deleted although the policy is in force", () => {
    const compiled = compilePolicy({ mode: "DryRun" });
    if (!compiled.ok) throw new Error("must compile");
    const one = input(["a", "b"], [aView("a", { report: { paused: true } }), aView("b")]);
    const status = aggregateStatus({ ...one, ruling: { ...one.ruling, policy: readyPolicy(compiled.policy) } });
    expect(status.mode).toBe("DryRun");
    expect(conditionsOf(status).Enforcing?.[2]).toBe("on all of 2 nodes; DryRun: nothing is deleted");
    expect(conditionsOf(status).Paused).toEqual(["True", "PauseFile", "a .pause stops all deletion on a"]);
  });

  it("names some limits of many, and tells how many more there are", () => {
    const limit = { limit: "max_checkpoints" as const, wanted: 1, freed: 0, unit: "archives" as const };
    const unreachable = Array.from({ length: 7 }, (_, index) => ({ ...limit, namespace: `n${index}` }));
    const view = aView("a", { report: { unreachable, unreachableOmitted: 40 } });
    const [, , message] = conditionsOf(aggregateStatus(input(["a"], [view]))).LimitUnreachable ?? [];
    expect(message).toMatch(/^a: max_checkpoints of n0 .*of n4 [^;]*; and 42 more$/);
  });

  it("shows the global policy as one would write it", () => {
    const globalPolicy = {
      maxAge: "36h",
      maxCheckpointSize: 10,
      maxTotalSizePerPod: "1500.001k",
      maxCheckpointsPerPod: 0,
    };
    const compiled = compilePolicy({ globalPolicy });
    if (!compiled.ok) throw new Error("must compile");
    const one = input(["a"], [aView("a")]);
    const status = aggregateStatus({ ...one, ruling: { ...one.ruling, policy: readyPolicy(compiled.policy) } });
    expect(status.effectiveGlobalPolicy).toEqual({
      retainOrphan: true,
      maxCheckpointsPerContainer: 10,
      maxAge: "36h",
      maxCheckpointSize: "10Mi",
      maxTotalSizePerPod: "1500.001k",
    });
    expect(conditionsOf(status).UnitlessQuantity).toEqual([
      "True",
      "TakenAsMiB",
      "spec.globalPolicy.maxCheckpointSize: 10 has no unit and is taken as MiB; write 10Mi",
    ]);
    // What is shown means the same when it is applied.
    const again = compilePolicy({ globalPolicy: status.effectiveGlobalPolicy });
    expect(again.ok && again.policy.document.global).toEqual(compiled.policy.document.global);
  });

  it.each([
    [
      { problems: [{ field: "spec.maxAge", message: "is wrong" }] },
      "Invalid",
      /^spec\.maxAge: is wrong \(the last good/,
    ],
    [{ problems: [{ field: "spec.x", message: "is wrong" }], policy: undefined }, "Invalid", /\(nothing is pushed\)$/],
    [{ isNamespaceAllowed: false, matched: [] }, "NamespaceNotAllowed", /namespace p are not among/],
  ])("says why a resource is not accepted: %j", (changes, reason, message) => {
    const one = input(["a"], [aView("a")]);
    const status = aggregateStatus({ ...one, ruling: { ...one.ruling, ...changes } });
    expect(Check(PolicyStatus, status)).toBe(true);
    expect(conditionsOf(status).Accepted).toEqual(["False", reason, expect.stringMatching(message)]);
  });

  it("says of nodes that rest for how long, after what, and counts them as its own that have not got it yet", () => {
    const one = input(
      ["a", "b", "c"],
      [aView("a"), aView("b", { report: { archives: 7 } }), aView("c", { state: "stale" })],
    );
    const rests = (untilMs: number): NodeRuling => ({
      source: "rest",
      policy: undefined,
      after: "p/gone",
      next: "p/policy",
      untilMs,
    });
    const tell = (nodes: Map<string, NodeRuling>, nowMs = 0) => aggregateStatus({ ...one, nodes, nowMs });
    const nodes = new Map(one.nodes).set("b", rests(540_001));
    const status = tell(nodes);
    expect(status.nodes).toEqual({ desired: 3, ready: 2, applied: 1, stale: 1, summary: "1/3" });
    expect(Check(PolicyStatus, status)).toBe(true);
    expect(conditionsOf(status).Enforcing).toEqual([
      "False",
      "Resting",
      "b rests for 10 more minutes: p/gone ruled it and went away; until then only the node rules of that policy act there",
    ]);
    expect(conditionsOf(tell(nodes, 500_000)).Enforcing?.[2]).toMatch(/^b rests for 1 more minute: /);
    expect(conditionsOf(tell(nodes, 9_000_000)).Enforcing?.[2]).toMatch(/^b rests for 1 more minute: /);
    nodes.set("c", { source: "rest", policy: undefined, after: undefined, next: "p/policy", untilMs: 60_001 });
    expect(conditionsOf(tell(nodes)).Enforcing?.[2]).toMatch(
      /^b, c rest for 10 more minutes: p\/gone, another policy ruled them and went away; /,
    );
    // It waits for what another resource comes next on no more than for what another rules.
    nodes.set("b", { ...rests(1), next: "p/other" } as NodeRuling).set("c", { source: "default", policy });
    expect(tell(nodes).nodes?.summary).toBe("1/1");
    expect(conditionsOf(tell(nodes)).Enforcing?.[0]).toBe("True");
  });

  it("tells of no deletion on a node that rests: it was not this resource's doing", () => {
    const time = "2026-01-31T00:00:00.000Z";
    const deletion = { number: 1, time, file: "f", namespace: "n", pod: "p", container: "c", bytes: 1 };
    const report = { deletions: [{ ...deletion, reason: "max_age" as const }] };
    const one = input(["a"], [aView("a", { report })]);
    expect(aggregateStatus(one).lastEnforcementTime).toBe(time);
    const rest = { source: "rest", policy: undefined, after: "p/x", next: "p/policy", untilMs: 1 } as const;
    expect(aggregateStatus({ ...one, nodes: new Map([["a", rest]]) }).lastEnforcementTime).toBeUndefined();
  });

  it("waits for a node whose agent has yet to tell what it obeys, and names it", () => {
    const one = input(["a", "b"], [aView("a"), aView("b", { state: "stale", problem: "connection refused" })]);
    const nodes = new Map(one.nodes).set("b", { source: "unknown", policy: undefined, next: "p/policy" });
    const status = aggregateStatus({ ...one, nodes });
    expect(status.nodes?.summary).toBe("1/2");
    expect(conditionsOf(status).Enforcing).toEqual(["False", "Pending", "not yet on b: connection refused"]);
  });

  it("says why the agent of a node has not started, and nothing of one that answers", () => {
    const starts = new Map([
      ["a", "its agent has not started"],
      ["b", "its agent has not started (ContainerCreating)"],
    ]);
    const status = aggregateStatus(input(["a", "b"], [aView("a")], { starts }));
    const message = "not yet on b: its agent has not started (ContainerCreating)";
    expect(conditionsOf(status).Enforcing).toEqual(["False", "Pending", message]);
    expect(conditionsOf(status).Ready?.[0]).toBe("False");
  });

  it("warns of limits that pinned archives use up, by node and scope, beside a Ready that is True", () => {
    const pinnedLimits = [
      { namespace: "team", workload: "Deployment/web", maxCheckpoints: 3, pinned: 3 },
      { namespace: "team", pod: "web-0", maxCheckpoints: 1, pinned: 2 },
    ];
    const status = aggregateStatus(input(["a"], [aView("a", { report: { pinnedLimits, pinnedLimitsOmitted: 1 } })]));
    const message =
      "a: team/Deployment/web has 3 pinned of at most 3, so that each new archive goes at once;" +
      " a: team/web-0 has 2 pinned of at most 1, so that each new archive goes at once; and 1 more";
    expect(conditionsOf(status).LimitPinned).toEqual(["True", "EachNewOneGoes", message]);
    expect(conditionsOf(status).Ready?.slice(0, 2)).toEqual(["True", "LimitPinned"]);
    expect(conditionsOf(aggregateStatus(input(["a"], [aView("a")]))).LimitPinned).toEqual(["False", "None", ""]);
  });

  it("gives the true reason of each conflict: priority, age, name, or an old rank; ruling, or next to rule", () => {
    const nodes = names(15);
    const one = input(nodes, []);
    const by = (ruler: string, why: Conflict["why"] = "age"): Conflict => ({ ruler, why });
    const conflicts = new Map([
      ["node-0", by("p/older")],
      ["node-1", by("p/again", "keptRank")],
      ["node-2", by("p/high", "priority")],
      ["node-3", by("p/a", "name")],
      ...nodes.slice(4).map((node, index): [string, ReturnType<typeof by>] => [node, by(`p/next-${index}`)]),
    ]);
    const rules = new Map(one.nodes);
    for (const node of nodes)
      rules.set(node, { source: "rest", policy: undefined, after: "p/x", next: "p/y", untilMs: 1 });
    rules.set("node-0", { source: "resource", resource: "p/older", policy });
    rules.set("node-1", { source: "resource", resource: "p/again", policy });
    rules.set("node-2", { source: "resource", resource: "p/high", policy });
    const status = aggregateStatus({ ...one, nodes: rules, ruling: { ...one.ruling, conflicts } });
    const rest = Array.from({ length: 10 }, (_, index) => `p/next-${index}`).join(", ");
    expect(conditionsOf(status).Conflict?.[2]).toBe(
      [
        "p/older is older and rules node-0",
        "p/again has its rank from the first resource of its name and rules node-1",
        "p/high has a higher priority and rules node-2",
        "p/a has the same age, comes first by its name and is the next to rule node-3",
        `${rest} and 1 more is older and is the next to rule ${nodes.slice(4, 14).join(", ")} and 1 more nodes`,
      ].join("; "),
    );
  });

  it("counts no node that another resource rules", () => {
    const one = input(["a", "b"], [aView("a"), aView("b")]);
    const nodes = new Map(one.nodes).set("b", { source: "resource", resource: "p/older", policy });
    const ruling = { ...one.ruling, conflicts: new Map([["b", { ruler: "p/older", why: "age" as const }]]) };
    const status = aggregateStatus({ ...one, nodes, ruling });
    expect(status.nodes?.summary).toBe("1/1");
    expect(conditionsOf(status).Conflict).toEqual(["True", "Outranked", "p/older is older and rules b"]);
  });

  it("tells a resource that matches no node from one that others outrank on all that it matches", () => {
    const one = input(["a", "b"], [aView("a"), aView("b")]);
    const none = aggregateStatus({ ...one, ruling: { ...one.ruling, matched: [] } });
    expect(conditionsOf(none).Enforcing).toEqual(["False", "NoMatchingNodes", "it matches none of 2 nodes"]);
    const nodes = new Map(one.nodes).set("b", { source: "resource", resource: "p/other", policy });
    const conflicts = new Map([["b", { ruler: "p/other", why: "priority" as const }]]);
    const outranked = aggregateStatus({ ...one, nodes, ruling: { ...one.ruling, matched: ["b"], conflicts } });
    expect(conditionsOf(outranked).Enforcing).toEqual([
      "False",
      "Outranked",
      "it matches 1 of 2 nodes, and other policies rule all of them (see Conflict)",
    ]);
  });

  it("warns of a policy's entries without any limit", () => {
    const compiled = compilePolicy({ namespacePolicies: [{ namespace: "ci-*" }] });
    const one = input(["a"], [aView("a")]);
    expect(conditionsOf(aggregateStatus(one)).NoLimit).toEqual(["False", "None", ""]);
    if (!compiled.ok) throw new Error("must compile");
    const status = aggregateStatus({ ...one, ruling: { ...one.ruling, policy: readyPolicy(compiled.policy) } });
    expect(conditionsOf(status).NoLimit).toEqual([
      "True",
      "ExemptsItsScope",
      expect.stringMatching(/^spec\.namespacePolicies\[0\]: exempts ci-\* from all other limits/),
    ]);
    expect(conditionsOf(status).Enforcing?.[0]).toBe("True");
  });
});
describe("Ready", () => {
  const ready = (changes: Partial<Report> = {}, { spec = {}, ruling = {}, ...rest }: ReadyCase = {}) => {
    const compiled = compilePolicy(spec);
    if (!compiled.ok) throw new Error("must compile");
    const one = input(["a"], [aView("a", { report: changes })], rest);
    const status = aggregateStatus({
      ...one,
      ruling: { ...one.ruling, policy: readyPolicy(compiled.policy), ...ruling },
    });
    expect(Check(PolicyStatus, status)).toBe(true);
    return conditionsOf(status).Ready;
  };
  type ReadyCase = Omit<Partial<StatusInput>, "ruling"> & { spec?: object; ruling?: Partial<ResourceRuling> };
  const limit = { limit: "max_checkpoints", namespace: "n", wanted: 2, freed: 0, unit: "archives" };
  const failing = { ...limit, obstacles: { failing: 2, pinned: 1 }, codes: ["EPERM"] };
  const plan = { planned: 4, plan: { bytes: 4096, byReason: { max_checkpoints: { archives: 4, bytes: 4096 } } } };

  it("is True if the policy does its work, and tells what it would delete", () => {
    expect(ready()).toEqual(["True", "Enforcing", "on all of 1 nodes"]);
    expect(ready(plan)?.[2]).toBe(
      "on all of 1 nodes; 4 archives (4KiB) would be deleted with the next event of their scopes, or once nothing is paused",
    );
    expect(ready(plan, { spec: { mode: "DryRun" } })).toEqual([
      "True",
      "DryRun",
      "on all of 1 nodes; DryRun: nothing is deleted; 4 archives (4KiB) would be deleted, were it not for DryRun",
    ]);
  });

  it("does not mind that nothing fails", () => {
    expect(ready({ failing: { archives: 0, codes: [] } })?.slice(0, 2)).toEqual(["True", "Enforcing"]);
  });

  it("names beside True what an operator should know all the same", () => {
    expect(ready({ unreachable: [limit] })?.slice(0, 2)).toEqual(["True", "LimitUnreachable"]);
    const held = new Map([["a", { count: 1, podCount: 1, pods: ["n/web"] }]]);
    expect(ready({}, { held })?.slice(0, 2)).toEqual(["True", "OrphansHeld"]);
  });

  it.each<[string, Partial<Report>, ReadyCase, string[]]>([
    [
      "the policy is refused",
      {},
      { ruling: { problems: [{ field: "spec.mode", message: "is wrong" }] } },
      ["Invalid", "spec.mode: is wrong (the last good version stays in force)"],
    ],
    ["nothing is ruled", {}, { ruling: { matched: [] } }, ["NoMatchingNodes", "it matches none of 1 nodes"]],
    [
      "a node has not got it",
      {},
      { agents: new Map([["a", aView("a", { state: "stale", problem: "connect ECONNREFUSED" })]]) },
      ["Pending", "not yet on a: connect ECONNREFUSED"],
    ],
    [
      "a directory is not mounted",
      { directory: { path: "/x", state: "missing", message: "/x does not exist" } },
      {},
      ["DirectoryNotMounted", "a: /x does not exist"],
    ],
    ["deletion is paused", { paused: true }, {}, ["Paused", "a .pause stops all deletion on a"]],
    [
      "deletions fail though no limit is broken",
      { failing: { archives: 3, codes: ["EPERM", "EIO"] } },
      {},
      ["DeletionsFailing", "3 archives fail to be deleted (EPERM, EIO) on a"],
    ],
    [
      "one deletion fails and stands in the way of a limit",
      { failing: { archives: 1, codes: [] }, unreachable: [failing] },
      {},
      [
        "DeletionsFailing",
        "1 archive fails to be deleted on a; a: max_checkpoints of n is exceeded by 2 archives, of which 0 archives could go; in the way: 1 pinned, 2 failing to be deleted (EPERM)",
      ],
    ],
    [
      "deletions stand in the way of a limit",
      { unreachable: [limit, failing] },
      {},
      [
        "DeletionsFailing",
        "a: max_checkpoints of n is exceeded by 2 archives, of which 0 archives could go; in the way: 1 pinned, 2 failing to be deleted (EPERM)",
      ],
    ],
  ])("is False where %s", (_, report, changes, [reason, message]) => {
    expect(ready(report, changes)).toEqual(["False", reason, message]);
  });

  it("says what waits behind a pause", () => {
    expect(ready({ paused: true, ...plan })?.[2]).toMatch(
      /^a \.pause stops all deletion on a; 4 archives \(4KiB\) would/,
    );
  });
});

describe("what would go", () => {
  it("is summed over the nodes and by reason, whatever words agents have for reasons", () => {
    const sum = { archives: 1, bytes: 10 };
    const odd = Object.fromEntries(Array.from({ length: 40 }, (_, at) => [`constructor${at || ""}`, sum]));
    const a = aView("a", { report: { planned: 1, plan: { bytes: 10, byReason: { orphan: sum } } } });
    const b = aView("b", { report: { planned: 41, plan: { bytes: 410, byReason: { orphan: sum, ...odd } } } });
    const { planned } = aggregateStatus(input(["a", "b"], [a, b]));
    expect(planned).toMatchObject({ archives: 42, bytes: 420 });
    const byReason = planned?.byReason ?? {};
    expect(byReason.orphan).toEqual({ archives: 2, bytes: 20 });
    expect(Object.keys(byReason).length).toBeLessThanOrEqual(21);
    const told = Object.values(byReason);
    expect(told.reduce((all, { archives }) => all + archives, 0)).toBe(42);
  });

  it("is a number alone where an agent of 0.1.0 tells of it, and unknown where none does", () => {
    expect(aggregateStatus(input(["a"], [aView("a", { report: { planned: 3 } })])).planned).toEqual({
      ...{ archives: 3, byReason: {} },
    });
    expect(aggregateStatus(input(["a"], [])).planned).toBeUndefined();
  });
});

it("names the fullest node, by what the watermarks compare, of those that tell", () => {
  const disk = (usedBytes: number, freeBytes: number) => ({ disk: { sizeBytes: 1000, usedBytes, freeBytes } });
  const views = [
    aView("a", { report: disk(10, 90) }),
    aView("b", { report: disk(730, 27) }),
    aView("c", { report: { disk: { sizeBytes: 100, freeBytes: 0 } } }),
    aView("d", { report: disk(0, 0) }),
  ];
  const status = aggregateStatus(input(["a", "b", "c", "d"], views));
  expect(status.fullest).toEqual({ node: "b", usedPercent: 96, summary: "b 96%" });
  expect(aggregateStatus(input(["d"], views.slice(3))).fullest).toBeUndefined();
});

it("tells when an agent was last heard, by the coordinator's clock", () => {
  const early = { ...aView("a"), heardAtMs: Date.parse("2026-01-01T00:00:00Z") };
  const late = { ...aView("b"), heardAtMs: Date.parse("2026-01-02T00:00:00Z") };
  const never = { ...aView("c"), heardAtMs: undefined };
  expect(aggregateStatus(input(["a", "b", "c"], [early, late, never])).lastReportTime).toBe("2026-01-02T00:00:00.000Z");
  expect(aggregateStatus(input(["c"], [never])).lastReportTime).toBeUndefined();
});
