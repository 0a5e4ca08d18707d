import { defaultPolicy } from "@cro/shared/policy/compile";
import { describe, expect, it } from "vitest";
import type { AgentView } from "../src/agents/push.ts";
import { countPolicies, createMetrics, forgetLeadership, setExpiry } from "../src/metrics.ts";
import { createJudge, type PolicyResource, readyPolicy } from "../src/policy/judge.ts";
import { EMPTY_MEMORY } from "../src/policy/record.ts";
import { ruleNodes } from "../src/policy/ruling.ts";
import { aReport } from "./support/agent-peer.ts";

function anAgent(name: string, state: AgentView["state"], archives?: number): AgentView {
  return {
    address: { node: name, podUID: name, url: "https://127.0.0.1:1" },
    state,
    report: archives === undefined ? undefined : aReport({ archives, bytes: archives * 1000 }),
    heardAtMs: undefined,
    problem: undefined,
  };
}

/** The lines of the coordinator's own series, without their explanations. */
async function series(metrics: ReturnType<typeof createMetrics>): Promise<string[]> {
  return (await metrics.registry.metrics()).split("\n").filter((line) => line.startsWith("checkpoint_"));
}

describe("createMetrics", () => {
  it("counts agents by state, and tells each node's archives by its last report", async () => {
    let agents = [anAgent("a", "applied", 3), anAgent("b", "stale", 0), anAgent("c", "stale")];
    const metrics = createMetrics({ version: "1.2.3", agents: () => agents });
    const lines = await series(metrics);
    expect(lines).toEqual(
      expect.arrayContaining([
        'checkpoint_coordinator_build_info{version="1.2.3"} 1',
        'checkpoint_coordinator_agents{state="applied"} 1',
        'checkpoint_coordinator_agents{state="pending"} 0',
        'checkpoint_coordinator_agents{state="stale"} 2',
        'checkpoint_node_archives{node="a"} 3',
        'checkpoint_node_archive_bytes{node="a"} 3000',
        'checkpoint_node_archives{node="b"} 0',
        'checkpoint_node_agent_up{node="a"} 1',
        'checkpoint_node_agent_up{node="b"} 0',
        'checkpoint_node_policy_applied{node="a"} 1',
        'checkpoint_node_policy_applied{node="b"} 0',
        'checkpoint_node_policy_applied{node="c"} 0',
      ]),
    );
    expect(lines.join()).not.toContain('checkpoint_node_archives{node="c"}');
    agents = [];
    expect((await series(metrics)).join()).not.toContain("node=");
  });

  it("calls a node's policy applied only if all of its agents have it", async () => {
    const two = [anAgent("a", "applied", 3), anAgent("a", "pending", 3)];
    const metrics = createMetrics({ version: "1", agents: () => two });
    expect(await series(metrics)).toContain('checkpoint_node_policy_applied{node="a"} 0');
  });

  it("tells nothing that only a leader knows once it has ceased to lead", async () => {
    const metrics = createMetrics({ version: "1", agents: () => [] });
    const fresh = await series(metrics);
    metrics.isLeader.set(1);
    metrics.policyConflicts.set(2);
    metrics.orphansHeld.set(3);
    metrics.watchSynced.set({ resource: "pods" }, 1);
    setExpiry(metrics, "agent", 1000);
    metrics.policies.set({ state: "refused" }, 1);
    metrics.policyRefused.set({ node: "a", policy: "p/x" }, 1);
    expect(await series(metrics)).not.toEqual(fresh);
    forgetLeadership(metrics);
    expect(await series(metrics)).toEqual(fresh);
  });

  it("counts policies by what became of them, zeros too", async () => {
    const metrics = createMetrics({ version: "1", agents: () => [] });
    const spec = { globalPolicy: { maxCheckpointSize: "1k" } };
    const resource = { namespace: "p", name: "x", generation: 1, createdAt: "2026-01-01T00:00:00Z", spec };
    const judge = createJudge({ policyNamespaces: ["p"] });
    const count = (resources: PolicyResource[]) =>
      countPolicies(metrics, ruleNodes({ ...input, resources: judge.judge(resources) }, EMPTY_MEMORY));
    const input = {
      nodes: [],
      defaultPolicy: readyPolicy(defaultPolicy()),
      graceMs: 0,
      nowMs: 0,
      accepted: new Map(),
    };
    const states = async () => (await series(metrics)).filter((line) => line.startsWith("checkpoint_policies{"));
    count([
      { ...resource, uid: "1" },
      { ...resource, uid: "2", spec: {} },
      { ...resource, uid: "3", namespace: "other" },
    ]);
    expect((await states()).map((line) => line.slice(-1))).toEqual(["1", "1", "1"]);
    count([]);
    expect((await states()).map((line) => line.slice(-1))).toEqual(["0", "0", "0"]);
  });

  it("tells the end of certificates in seconds", async () => {
    const metrics = createMetrics({ version: "1", agents: () => [] });
    setExpiry(metrics, "ca", 1_900_000_000_000);
    expect(await series(metrics)).toContain(
      'checkpoint_certificate_expiry_timestamp_seconds{certificate="ca"} 1900000000',
    );
  });

  it("ends the names of counters, and of nothing else, in _total, and explains every one", async () => {
    const { registry } = createMetrics({ version: "1", agents: () => [] });
    for (const { name, type, help } of await registry.getMetricsAsJSON()) {
      expect([name, name.endsWith("_total")]).toEqual([name, String(type) === "counter"]);
      expect(help).not.toBe("");
    }
  });
});
