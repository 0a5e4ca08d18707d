import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { archiveBytes, archiveName, archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aFolder, read, samples, until } from "../support/processes.ts";
import { findPrometheus } from "../support/prometheus.ts";
import { aPolicyFile, series, startPair } from "../support/standalone.ts";
import { describeWith } from "../support/tools.ts";

describeWith("the metrics of both sides", await findPrometheus(), ({ promtool }) => {
  it("tell what is there and what was done, and promtool has nothing to say against them", async () => {
    const directory = aFolder();
    const files = series(directory, 5);
    writeFileSync(join(directory, `${files[1]}.keep`), "");
    writeArchive(directory, { namespace: "other", container: "c", time: archiveTime(Date.now() - 60_000) });
    writeFileSync(join(directory, archiveName({ container: "torn" })), archiveBytes().subarray(0, 700));
    writeArchive(directory, { namespace: "a", container: "b-c", spec: null });
    writeFileSync(join(directory, "checkpoint-web-0_shop-main.tar.gz"), Buffer.alloc(50));
    const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } };
    const pair = await startPair({ policy: aPolicyFile(spec), directory });
    pair.startAgent();
    pair.startCoordinator();
    await until(() => expect(archivesIn(directory)).toHaveLength(5));
    const exposition = (await read(`${pair.agentUrl}/metrics`)).body;
    const metrics = samples(exposition);
    const size = archiveBytes({ container: "main" }).length;
    const expected: Record<string, number> = {
      'checkpoint_archives{namespace="shop"}': 2,
      'checkpoint_archives{namespace="other"}': 1,
      'checkpoint_archive_bytes{namespace="shop"}': 2 * size,
      'checkpoint_archives_state{state="complete"}': 3,
      'checkpoint_archives_state{state="unsettled"}': 1,
      'checkpoint_archives_state{state="unidentified"}': 1,
      'checkpoint_archives_state{state="incomplete"}': 0,
      checkpoint_archives_pinned: 1,
      'checkpoint_archives_deleted_total{namespace="shop",reason="max_checkpoints"}': 3,
      'checkpoint_archives_deleted_bytes_total{namespace="shop",reason="max_checkpoints"}': 3 * size,
      'checkpoint_archives_planned{reason="max_checkpoints"}': 0,
      'checkpoint_limits_unreachable{limit="max_checkpoints"}': 0,
      'checkpoint_planned_bytes{reason="max_checkpoints"}': 0,
      'checkpoint_archive_state_bytes{state="unsettled"}': 700,
      checkpoint_foreign_bytes: 50,
      checkpoint_directory_mounted: 1,
      checkpoint_policy_term: 1,
      checkpoint_deletion_paused: 0,
      checkpoint_watch_degraded: 0,
    };
    for (const [series, value] of Object.entries(expected))
      expect([series, metrics.get(series)]).toEqual([series, value]);
    expect(metrics.get("checkpoint_directory_size_bytes")).toBeGreaterThan(
      metrics.get("checkpoint_directory_free_bytes") ?? 0,
    );
    expect(metrics.get("checkpoint_directive_age_seconds")).toBeLessThan(60);
    expect(metrics.get("checkpoint_policy_revision")).toBeGreaterThan(0);
    expect(metrics.get('checkpoint_certificate_expiry_timestamp_seconds{certificate="agent"}')).toBeGreaterThan(
      Date.now() / 1000,
    );
    const oldest = metrics.get('checkpoint_archive_oldest_timestamp_seconds{namespace="shop"}');
    expect(oldest).toBe(Date.parse(files[1]?.slice(-24, -4) ?? "") / 1000);
    expect(exposition).toContain("checkpoint_enforcement_duration_seconds_bucket");
    expect(exposition).toContain("checkpoint_event_to_deletion_seconds_bucket");
    expect(metrics.get("checkpoint_directory_used_bytes")).toBeGreaterThan(0);
    expect(metrics.get("process_resident_memory_bytes")).toBeGreaterThan(0);
    expect(exposition).toMatch(/checkpoint_policy_info\{policy="[0-9a-f]{12}",mode="Enforce"\} 1/);
    expect(exposition).toMatch(/checkpoint_agent_build_info\{version="[^"]+"\} 1/);

    await until(async () => {
      const coordinator = samples((await read(`${pair.coordinatorUrl}/metrics`)).body);
      expect(coordinator.get("checkpoint_coordinator_is_leader")).toBe(1);
      expect(coordinator.get('checkpoint_coordinator_agents{state="applied"}')).toBe(1);
    });
    const coordinatorExposition = (await read(`${pair.coordinatorUrl}/metrics`)).body;
    for (const name of [
      "checkpoint_coordinator_push_duration_seconds_count",
      "checkpoint_coordinator_push_errors_total",
      "checkpoint_coordinator_watch_synced",
      'checkpoint_node_archives{node="node-a"}',
      'checkpoint_node_archive_bytes{node="node-a"}',
      "checkpoint_policy_conflicts",
      "checkpoint_orphans_held",
      'checkpoint_certificate_expiry_timestamp_seconds{certificate="ca"}',
      "checkpoint_coordinator_build_info",
    ]) {
      expect(coordinatorExposition).toContain(name);
    }
    for (const input of [exposition, coordinatorExposition]) {
      const { status, stdout, stderr } = spawnSync(promtool, ["check", "metrics"], { input, encoding: "utf8" });
      expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: "", stderr: "" });
    }
  }, 60_000);
});
