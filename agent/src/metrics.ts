import { readdirSync } from "node:fs";
import { ARCHIVE_STATES, type ArchiveState, type ArchiveSum, REASONS, type Reason } from "@cro/shared/wire/report";
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { type Archive, countsInBytes, countsInNumber } from "./archive/archive.ts";
import type { DiskReading } from "./enforce/disk.ts";
import { GRANULARITIES, type Granularity } from "./granularity.ts";
import type { SumsByReason } from "./report.ts";

/** What gauges show, read at each scrape. */
export interface MetricsSource {
  archives(): Iterable<Archive>;
  /** What would go but does not, by reason. */
  planned(): SumsByReason;
  unreachable(): Iterable<Reason>;
  disk(): DiskReading | undefined;
  fence(): { term: number; revision: number } | undefined;
  /** Seconds since the last directive; undefined before the first. */
  directiveAgeSeconds(): number | undefined;
  isPaused(): boolean;
  isWatchDegraded(): boolean;
  certificateNotAfterMs(): number | undefined;
  foreignFiles(): number;
  /** Bytes of all files that are no archives. */
  foreignBytes(): number;
  isDirectoryMounted(): boolean;
  /** The policy that was accepted; undefined before the first. */
  policy(): { digest: string; mode: string } | undefined;
}

/** How many scopes have series of their own: archives' names are their owners' choice, and the memory is not. */
export const MAX_SCOPES = 1000;
/** The label value of all further scopes together; no name in Kubernetes holds an underscore. */
export const OTHER_SCOPES = "_other";

/** How much of a policy's digest its metric shows, in characters. */
const DIGEST_LENGTH = 12;

interface ScopeTotals {
  labels: Record<string, string>;
  archives: number;
  bytes: number;
  oldestMs: number;
}

export type Metrics = ReturnType<typeof createMetrics>;

/** The agent's metrics, in a registry of their own. Every name is part of what users build dashboards and alerts on. */
export function createMetrics(options: {
  granularity: Granularity;
  version: string;
  /** When the process started, in milliseconds since 1970. */
  startedAtMs: number;
  source: MetricsSource;
}) {
  const { granularity, version, source, startedAtMs } = options;
  const registry = new Registry();
  const registers = [registry];
  const scopeLabels = GRANULARITIES.slice(0, GRANULARITIES.indexOf(granularity) + 1);

  const gauge = <L extends string>(
    name: string,
    help: string,
    { labels = [], collect }: { labels?: readonly L[]; collect: (gauge: Gauge<L>) => void },
  ) => {
    new Gauge<L>({
      name,
      help,
      labelNames: [...labels],
      registers,
      collect() {
        this.reset();
        collect(this);
      },
    });
  };
  const value = (name: string, help: string, read: () => number | undefined) =>
    gauge(name, help, {
      collect: (metric) => {
        const now = read();
        if (now === undefined) metric.remove();
        else metric.set(now);
      },
    });

  let scopes = new Map<string, ScopeTotals>();
  let states: Record<ArchiveState, ArchiveSum>;
  let pinned = 0;
  const survey = () => {
    scopes.clear();
    states = Object.fromEntries(ARCHIVE_STATES.map((state) => [state, { archives: 0, bytes: 0 }])) as typeof states;
    pinned = 0;
    for (const archive of source.archives()) {
      states[archive.state].archives += 1;
      states[archive.state].bytes += archive.size;
      if (archive.pinned) pinned += 1;
      const { identity } = archive;
      const isNumbered = countsInNumber(archive);
      if (identity === undefined || !(isNumbered || countsInBytes(archive))) continue;
      const key = scopeLabels.map((label) => identity[label]).join("/");
      let scope = scopes.get(key);
      if (scope === undefined) {
        const labels = Object.fromEntries(scopeLabels.map((label) => [label, identity[label]]));
        scope = { labels, archives: 0, bytes: 0, oldestMs: Number.POSITIVE_INFINITY };
        scopes.set(key, scope);
      }
      scope.bytes += archive.size;
      if (!isNumbered) continue;
      scope.archives += 1;
      scope.oldestMs = Math.min(scope.oldestMs, archive.timeMs);
    }
    scopes = boundScopes(scopes, scopeLabels);
  };
  const countedNamespaces = new Set<string>();

  // Registered first, hence collected first: one pass over the archives serves the gauges below.
  gauge("checkpoint_archives", "Checkpoint archives that limits count.", {
    labels: scopeLabels,
    collect: (metric) => {
      survey();
      for (const { labels, archives } of scopes.values()) metric.set(labels, archives);
    },
  });
  gauge("checkpoint_archive_bytes", "Bytes of the checkpoint archives that limits count, pinned ones included.", {
    labels: scopeLabels,
    collect: (metric) => {
      for (const { labels, bytes } of scopes.values()) metric.set(labels, bytes);
    },
  });
  gauge("checkpoint_archive_oldest_timestamp_seconds", "Time of the oldest checkpoint archive, from its name.", {
    labels: scopeLabels,
    collect: (metric) => {
      for (const { labels, oldestMs } of scopes.values())
        if (Number.isFinite(oldestMs)) metric.set(labels, oldestMs / 1000);
    },
  });
  gauge("checkpoint_archives_state", "Checkpoint archives by state.", {
    labels: ["state"],
    collect: (metric) => {
      for (const state of ARCHIVE_STATES) metric.set({ state }, states[state].archives);
    },
  });
  gauge("checkpoint_archive_state_bytes", "Bytes of the checkpoint archives by state.", {
    labels: ["state"],
    collect: (metric) => {
      for (const state of ARCHIVE_STATES) metric.set({ state }, states[state].bytes);
    },
  });
  value("checkpoint_archives_pinned", "Checkpoint archives with a .keep beside them.", () => pinned);
  let planned: SumsByReason = {};
  gauge(
    "checkpoint_archives_planned",
    "Checkpoint archives that would go but for DryRun, a .pause, or the wait for their scope's next event.",
    {
      labels: ["reason"],
      collect: (metric) => {
        planned = source.planned();
        for (const reason of REASONS) metric.set({ reason }, planned[reason]?.archives ?? 0);
      },
    },
  );
  gauge("checkpoint_planned_bytes", "Bytes of the same archives.", {
    labels: ["reason"],
    collect: (metric) => {
      for (const reason of REASONS) metric.set({ reason }, planned[reason]?.bytes ?? 0);
    },
  });
  gauge("checkpoint_limits_unreachable", "Limits that do not hold although all that may go has gone.", {
    labels: ["limit"],
    collect: (metric) => {
      for (const limit of REASONS) metric.set({ limit }, 0);
      for (const limit of source.unreachable()) metric.inc({ limit });
    },
  });
  value(
    "checkpoint_directory_size_bytes",
    "Size of the file system that holds the checkpoint directory.",
    () => source.disk()?.sizeBytes,
  );
  value(
    "checkpoint_directory_free_bytes",
    "Bytes that can still be written to that file system.",
    () => source.disk()?.availableBytes,
  );
  value(
    "checkpoint_directory_used_bytes",
    "Bytes used in that file system. The watermarks compare it with the sum of used and free bytes, as df does.",
    () => source.disk()?.usedBytes,
  );
  value(
    "checkpoint_directory_inodes",
    "How many files that file system may hold. Nothing where it does not count them.",
    () => source.disk()?.inodes?.total,
  );
  value("checkpoint_directory_free_inodes", "How many more files it may hold.", () => source.disk()?.inodes?.free);
  value("checkpoint_directory_mounted", "1 while the checkpoint directory is there and watched.", () =>
    source.isDirectoryMounted() ? 1 : 0,
  );
  gauge("checkpoint_policy_info", "The accepted policy by the beginning of its digest, and its mode; always 1.", {
    labels: ["policy", "mode"],
    collect: (metric) => {
      const policy = source.policy();
      if (policy !== undefined) metric.set({ policy: policy.digest.slice(0, DIGEST_LENGTH), mode: policy.mode }, 1);
    },
  });
  value("checkpoint_policy_term", "Term of the last accepted directive.", () => source.fence()?.term);
  value("checkpoint_policy_revision", "Revision of the last accepted directive.", () => source.fence()?.revision);
  value("checkpoint_directive_age_seconds", "Time since the last directive.", () => source.directiveAgeSeconds());
  value("checkpoint_deletion_paused", "1 while a .pause stops every deletion.", () => (source.isPaused() ? 1 : 0));
  value("checkpoint_watch_degraded", "1 while the directory is listed each second for want of inotify.", () =>
    source.isWatchDegraded() ? 1 : 0,
  );
  gauge("checkpoint_certificate_expiry_timestamp_seconds", "When a certificate ends.", {
    labels: ["certificate"],
    collect: (metric) => {
      const notAfterMs = source.certificateNotAfterMs();
      if (notAfterMs !== undefined) metric.set({ certificate: "agent" }, notAfterMs / 1000);
    },
  });
  value("checkpoint_foreign_files", "Entries named like an archive that are no regular file: never touched.", () =>
    source.foreignFiles(),
  );
  value(
    "checkpoint_foreign_bytes",
    "Bytes of all files in the directory that are not named like an archive, as the last full listing found them.",
    () => source.foreignBytes(),
  );
  addProcessMetrics({ value, registers, startedAtMs });
  gauge("checkpoint_agent_build_info", "The agent's version; always 1.", {
    labels: ["version"],
    collect: (metric) => metric.set({ version }, 1),
  });

  return {
    registry,
    /** What a deletion in this namespace is counted under: itself, or one for all where there have been very many. */
    countedNamespace: (namespace: string): string => {
      if (countedNamespaces.size < MAX_SCOPES) countedNamespaces.add(namespace);
      return countedNamespaces.has(namespace) ? namespace : OTHER_SCOPES;
    },
    arrived: new Counter({
      name: "checkpoint_archives_arrived_total",
      help: "Checkpoint archives that arrived.",
      labelNames: ["namespace"],
      registers,
    }),
    arrivedBytes: new Counter({
      name: "checkpoint_archives_arrived_bytes_total",
      help: "Bytes of the checkpoint archives that arrived.",
      labelNames: ["namespace"],
      registers,
    }),
    deleted: new Counter({
      name: "checkpoint_archives_deleted_total",
      help: "Checkpoint archives deleted.",
      labelNames: ["namespace", "reason"],
      registers,
    }),
    deletedBytes: new Counter({
      name: "checkpoint_archives_deleted_bytes_total",
      help: "Bytes of the checkpoint archives deleted.",
      labelNames: ["namespace", "reason"],
      registers,
    }),
    deleteErrors: new Counter({
      name: "checkpoint_archive_delete_errors_total",
      help: "Deletions that failed.",
      labelNames: ["code"],
      registers,
    }),
    stateErrors: new Counter({
      name: "checkpoint_agent_state_errors_total",
      help: "Times that the agent's own state could not be read or written.",
      registers,
    }),
    journalErrors: new Counter({
      name: "checkpoint_journal_errors_total",
      help: "Times that deletions could not be written to the journal in the directory.",
      registers,
    }),
    enforcement: new Histogram({
      name: "checkpoint_enforcement_duration_seconds",
      help: "Duration of one run: plan and deletions.",
      buckets: [0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60],
      registers,
    }),
    eventToDeletion: new Histogram({
      name: "checkpoint_event_to_deletion_seconds",
      help: "Time from the change that made a deletion due to the deletion.",
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30],
      registers,
    }),
  };
}

/**
 * What prom-client's default metrics tell of any process, as far as it costs nothing between scrapes: not its watches of
 * the event loop and of garbage collection.
 */
function addProcessMetrics({
  value,
  registers,
  startedAtMs,
}: {
  value: (name: string, help: string, read: () => number | undefined) => void;
  registers: Registry[];
  startedAtMs: number;
}): void {
  new Counter({
    name: "process_cpu_seconds_total",
    help: "Total user and system CPU time spent in seconds.",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      this.reset();
      this.inc((user + system) / 1e6);
    },
  });
  value("process_resident_memory_bytes", "Resident memory size in bytes.", () => process.memoryUsage.rss());
  value(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    () => startedAtMs / 1000,
  );
  value("process_open_fds", "Number of open file descriptors.", countDescriptors);
}

function countDescriptors(): number | undefined {
  try {
    // One of them is that of the listing itself.
    return readdirSync("/proc/self/fd").length - 1;
  } catch {
    return undefined;
  }
}

/** The scopes of the most bytes, and all others as one. */
function boundScopes(scopes: Map<string, ScopeTotals>, labelNames: readonly string[]): Map<string, ScopeTotals> {
  if (scopes.size <= MAX_SCOPES) return scopes;
  const byBytes = [...scopes].sort(([a, { bytes }], [b, other]) => other.bytes - bytes || (a < b ? -1 : 1));
  const bounded = new Map(byBytes.slice(0, MAX_SCOPES));
  const rest: ScopeTotals = {
    labels: Object.fromEntries(labelNames.map((label) => [label, OTHER_SCOPES])),
    archives: 0,
    bytes: 0,
    oldestMs: Number.POSITIVE_INFINITY,
  };
  for (const [, { archives, bytes, oldestMs }] of byBytes.slice(MAX_SCOPES)) {
    rest.archives += archives;
    rest.bytes += bytes;
    rest.oldestMs = Math.min(rest.oldestMs, oldestMs);
  }
  return bounded.set(OTHER_SCOPES, rest);
}
