import { describe, expect, it } from "vitest";
import type { AgentView } from "../src/agents/push.ts";
import { createMetrics, setExpiry } from "../src/metrics.ts";
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
      ]),
    );
    expect(lines.join()).not.toContain('node="c"');
    agents = [];
    expect((await series(metrics)).join()).not.toContain("node=");
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
