import { defaultPolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { AgentView } from "../../src/agents/push.ts";
import { readyPolicy } from "../../src/policy/judge.ts";
import type { NodeRuling, ResourceRuling } from "../../src/policy/ruling.ts";
import { aggregateStatus, type StatusInput } from "../../src/status/aggregate.ts";
import { createStatusVersions } from "../../src/status/versions.ts";
import { aReport } from "../support/agent-peer.ts";

const policy = readyPolicy(defaultPolicy());
const KEYS = ["p/a", "p/b", "p/c"];
const NODES = ["n0", "n1", "n2", "n3"];

type Known = Pick<StatusInput, "nodes" | "agents" | "starts" | "held">;

const aView = (node: string, changes: Partial<AgentView> = {}): AgentView => ({
  address: { node, podUID: `uid-${node}`, url: "https://127.0.0.1:1" },
  ...{ state: "applied", report: aReport({ node }), heardAtMs: 1, problem: undefined },
  ...changes,
});

/** The first node is ruled by the first resource, and so on. */
const ruledInTurn = () =>
  new Map(
    NODES.map((node, index): [string, NodeRuling] => [
      node,
      { source: "resource", resource: KEYS[index % KEYS.length] as string, policy },
    ]),
  );

const aRuling = (key: string): ResourceRuling => ({
  ...{ key, problems: [], isNamespaceAllowed: true, policy, reach: { priority: 0 }, matched: NODES },
  resource: { namespace: "p", name: key, uid: key, generation: 1, createdAt: "2026-01-01T00:00:00Z", spec: {} },
  conflicts: new Map(),
});

const statusOf = (known: Known, key: string) => {
  const { lastReportTime: _, ...status } = aggregateStatus({ ruling: aRuling(key), ...known, now: "now", nowMs: 0 });
  return status;
};

describe("versions of statuses", () => {
  it("stay as they are when agents answer that nothing has changed", () => {
    const versions = createStatusVersions();
    const known = { nodes: ruledInTurn(), starts: new Map(), held: new Map() };
    const views = NODES.map((node) => aView(node));
    const tick = (heardAtMs: number) => {
      versions.update({ ...known, agents: new Map(views.map((view) => [view.address.node, { ...view, heardAtMs }])) });
      return KEYS.map(versions.of);
    };
    const first = tick(1);
    expect(first).not.toContain(undefined);
    expect(tick(2)).toEqual(first);
    views[1] = aView("n1", { report: aReport({ node: "n1", archives: 9 }) });
    expect(tick(3).map((version, index) => version === first[index])).toEqual([true, false, true]);
  });

  it("are none for a resource that waits for a node to end its rest", () => {
    const versions = createStatusVersions();
    const nodes = ruledInTurn();
    nodes.set("n0", { source: "rest", policy: undefined, after: "p/gone", next: "p/b", untilMs: 60_000 });
    versions.update({ nodes, agents: new Map(), starts: new Map(), held: new Map() });
    expect(KEYS.map((key) => versions.of(key) === undefined)).toEqual([false, true, false]);
  });

  it("differ wherever a status does, whatever changes in between", () => {
    const node = fc.constantFrom(...NODES);
    const change = fc.oneof(
      fc.record({ kind: fc.constant("state" as const), node, value: fc.constantFrom("applied", "pending", "stale") }),
      fc.record({ kind: fc.constant("problem" as const), node, value: fc.constantFrom("x", undefined) }),
      fc.record({ kind: fc.constant("archives" as const), node, value: fc.nat(3) }),
      fc.record({ kind: fc.constant("agentGone" as const), node }),
      fc.record({ kind: fc.constant("start" as const), node, value: fc.constantFrom("x", "y", undefined) }),
      fc.record({ kind: fc.constant("held" as const), node, value: fc.nat(2) }),
      fc.record({ kind: fc.constant("rules" as const), node, value: fc.constantFrom(...KEYS, "default", "unknown") }),
    );
    fc.assert(
      fc.property(fc.array(change, { maxLength: 20 }), (changes) => {
        const versions = createStatusVersions();
        let nodes = ruledInTurn();
        const views = new Map(NODES.map((name) => [name, aView(name)]));
        const starts = new Map<string, string>();
        const held: Map<string, { count: number; podCount: number; pods: string[] }> = new Map();
        const told = new Map<string, { version: number | undefined; status: unknown }>();
        const look = () => {
          const known = { nodes, agents: new Map(views), starts: new Map(starts), held };
          versions.update(known);
          for (const key of KEYS) {
            const [version, status] = [versions.of(key), statusOf(known, key)];
            const before = told.get(key);
            if (before !== undefined && before.version === version) expect(status).toEqual(before.status);
            told.set(key, { version, status });
          }
        };
        look();
        for (const one of changes) {
          const view = views.get(one.node) ?? aView(one.node);
          if (one.kind === "state") views.set(one.node, { ...view, state: one.value as AgentView["state"] });
          else if (one.kind === "problem") views.set(one.node, { ...view, problem: one.value });
          else if (one.kind === "archives")
            views.set(one.node, { ...view, report: aReport({ node: one.node, archives: one.value }) });
          else if (one.kind === "agentGone") views.delete(one.node);
          else if (one.kind === "start") {
            if (one.value === undefined) starts.delete(one.node);
            else starts.set(one.node, one.value);
          } else if (one.kind === "held") held.set(one.node, { count: one.value, podCount: one.value, pods: ["n/p"] });
          else {
            const rules: NodeRuling =
              one.value === "default"
                ? { source: "default", policy }
                : one.value === "unknown"
                  ? { source: "unknown", policy: undefined, next: "p/b" }
                  : { source: "resource", resource: one.value, policy };
            nodes = new Map(nodes).set(one.node, rules);
          }
          look();
        }
      }),
    );
  });
});
