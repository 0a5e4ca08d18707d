import { ARCHIVE_STATES, REASONS } from "@cro/shared/wire/report";
import { describe, expect, it } from "vitest";
import type { Archive } from "../src/archive/archive.ts";
import { createMetrics, MAX_SCOPES, type MetricsSource, OTHER_SCOPES } from "../src/metrics.ts";

const BYTES = 1000;

/** Complete archives, one of each name, made while they are asked for: so many would not fit into the memory. */
function* archivesOf(count: number, nameOf: (index: number) => string): Generator<Archive> {
  for (let index = 0; index < count; index++) {
    const identity = { namespace: nameOf(index), pod: `pod-${index}`, container: "main" };
    yield {
      file: `${index}.tar`,
      identity,
      candidates: [identity],
      podUID: undefined,
      isStaticPod: false,
      timeMs: 1_000_000 + index * 1000,
      mtimeNs: 0n,
      size: index < 3 ? BYTES * (index + 2) : BYTES,
      allocated: BYTES,
      hasOtherNames: false,
      state: "complete",
      walked: true,
      pinned: false,
      settled: true,
      listed: index,
      unmanagedSinceMs: undefined,
    };
  }
}

function metricsOf(
  archives: () => Iterable<Archive>,
  { granularity = "namespace", ...source }: Partial<MetricsSource> & { granularity?: "namespace" | "container" } = {},
) {
  return createMetrics({
    granularity,
    version: "1",
    startedAtMs: 1_000_000,
    source: {
      archives,
      planned: () => ({}),
      unreachable: () => [],
      disk: () => undefined,
      fence: () => undefined,
      directiveAgeSeconds: () => undefined,
      isPaused: () => false,
      isWatchDegraded: () => false,
      certificateNotAfterMs: () => undefined,
      foreignFiles: () => 0,
      foreignBytes: () => 0,
      isDirectoryMounted: () => true,
      policy: () => undefined,
      ...source,
    },
  });
}

/** The values of one metric by the text of its labels. */
function seriesOf(exposition: string, name: string): Map<string, number> {
  const lines = exposition.split("\n").filter((line) => line.startsWith(`${name}{`));
  return new Map(lines.map((line) => [line.slice(name.length, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]));
}
const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0);

describe("the agent's metrics", () => {
  it("stay bounded with a million namespaces, name those of the most bytes, and leave nothing out of the sum", async () => {
    const count = 1_000_000;
    const { registry } = metricsOf(() => archivesOf(count, (index) => `tenant-${index}`));
    const exposition = await registry.metrics();
    expect(exposition.length).toBeLessThan(512 * 1024);
    for (const [name, total] of [
      ["checkpoint_archives", count],
      ["checkpoint_archive_bytes", (count + 1 + 2 + 3) * BYTES],
    ] as const) {
      const series = seriesOf(exposition, name);
      expect(series.size).toBe(MAX_SCOPES + 1);
      expect(sum(series.values())).toBe(total);
    }
    const bytes = seriesOf(exposition, "checkpoint_archive_bytes");
    for (const index of [0, 1, 2]) expect(bytes.get(`{namespace="tenant-${index}"}`)).toBe(BYTES * (index + 2));
    expect(bytes.get(`{namespace="${OTHER_SCOPES}"}`)).toBe((count - MAX_SCOPES) * BYTES);
    const oldest = seriesOf(exposition, "checkpoint_archive_oldest_timestamp_seconds");
    expect(Math.min(...oldest.values())).toBe(1000);
  }, 60_000);

  it("stay bounded where containers are told apart", async () => {
    const { registry } = metricsOf(() => archivesOf(MAX_SCOPES + 5, () => "one"), { granularity: "container" });
    const series = seriesOf(await registry.metrics(), "checkpoint_archives");
    expect(series.size).toBe(MAX_SCOPES + 1);
    const other = `{namespace="${OTHER_SCOPES}",pod="${OTHER_SCOPES}",container="${OTHER_SCOPES}"}`;
    expect(series.get(other)).toBe(5);
  });

  it("tell every namespace apart as long as there are no more than that", async () => {
    const { registry } = metricsOf(() => archivesOf(MAX_SCOPES, (index) => `tenant-${index}`));
    const series = seriesOf(await registry.metrics(), "checkpoint_archives");
    expect(series.size).toBe(MAX_SCOPES);
    expect([...series.keys()].join()).not.toContain(OTHER_SCOPES);
  });

  it("count deletions of a million namespaces in bounded series, those seen first under their own name for good", async () => {
    const { registry, deleted, countedNamespace } = metricsOf(() => []);
    for (let index = 0; index < 1_000_000; index++) {
      deleted.inc({ namespace: countedNamespace(`tenant-${index}`), reason: "max_age" });
    }
    deleted.inc({ namespace: countedNamespace("tenant-7"), reason: "max_age" });
    const series = seriesOf(await registry.metrics(), "checkpoint_archives_deleted_total");
    expect(series.size).toBe(MAX_SCOPES + 1);
    expect(sum(series.values())).toBe(1_000_001);
    expect(series.get('{namespace="tenant-7",reason="max_age"}')).toBe(2);
  }, 60_000);

  it("tell what would go, in numbers and bytes, with a zero for every other reason", async () => {
    const { registry } = metricsOf(() => [], { planned: () => ({ orphan: { archives: 2, bytes: 30 } }) });
    const exposition = await registry.metrics();
    const numbers = seriesOf(exposition, "checkpoint_archives_planned");
    const bytes = seriesOf(exposition, "checkpoint_planned_bytes");
    for (const series of [numbers, bytes]) expect(series.size).toBe(REASONS.length);
    expect([numbers.get('{reason="orphan"}'), bytes.get('{reason="orphan"}')]).toEqual([2, 30]);
    expect([sum(numbers.values()), sum(bytes.values())]).toEqual([2, 30]);
  });

  it("tell how full the disk is by what the watermarks compare, and nothing of a disk that does not tell", async () => {
    const disk = { sizeBytes: 100, usedBytes: 60, availableBytes: 30, inodes: { total: 20, free: 7 } };
    const full = await metricsOf(() => [], { disk: () => disk }).registry.metrics();
    expect(full).toContain("checkpoint_directory_used_bytes 60");
    expect(full).toContain("checkpoint_directory_free_bytes 30");
    expect(full).toContain("checkpoint_directory_inodes 20");
    expect(full).toContain("checkpoint_directory_free_inodes 7");
    const unknown = await metricsOf(() => []).registry.metrics();
    expect(unknown).not.toMatch(/^checkpoint_directory_(\w+_bytes|\w*inodes)/m);
  });

  it("tell which policy is in force, in which mode, and whether its directory is there", async () => {
    const policy = { digest: "0123456789abcdef", mode: "DryRun" };
    const { registry } = metricsOf(() => [], { policy: () => policy, isDirectoryMounted: () => false });
    const exposition = await registry.metrics();
    expect(exposition).toContain('checkpoint_policy_info{policy="0123456789ab",mode="DryRun"} 1');
    expect(exposition).toContain("checkpoint_directory_mounted 0");
  });

  it("tell what the process costs, in a counter that grows", async () => {
    const { registry } = metricsOf(() => []);
    const read = async (name: string) =>
      Number(new RegExp(`^${name} (.+)$`, "m").exec(await registry.metrics())?.[1] ?? Number.NaN);
    const cpuSeconds = await read("process_cpu_seconds_total");
    expect(await read("process_cpu_seconds_total")).toBeGreaterThanOrEqual(cpuSeconds);
    expect(await read("process_resident_memory_bytes")).toBeGreaterThan(1 << 20);
    expect(await read("process_open_fds")).toBeGreaterThan(0);
    expect(await read("process_start_time_seconds")).toBe(1000);
  });

  it("tell bytes by state, those of archives that nobody owns included", async () => {
    const stranger = { ...[...archivesOf(1, () => "a")][0], state: "unidentified", identity: undefined } as Archive;
    const series = seriesOf(await metricsOf(() => [stranger]).registry.metrics(), "checkpoint_archive_state_bytes");
    expect(series.get('{state="unidentified"}')).toBe(stranger.size);
    expect(series.size).toBe(ARCHIVE_STATES.length);
  });
});
