import { utimesSync } from "node:fs";
import { join } from "node:path";
import type { Reason } from "@cro/shared/wire/report";
import { pino } from "pino";
import { onTestFinished, vi } from "vitest";
import { parseArchiveName } from "../../src/archive/name.ts";
import type { Due } from "../../src/enforce/attention.ts";
import type { DiskReading } from "../../src/enforce/disk.ts";
import { createEnforcer } from "../../src/enforce/enforcer.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import { openDirectory } from "../../src/inventory/directory.ts";
import {
  adoptChange,
  type Entry,
  findFile,
  hasChanged,
  newEntry,
  noteInodeChange,
  refresh,
  walkEntry,
} from "../../src/inventory/entry.ts";
import { createReadSpace, READ_AHEAD } from "../../src/inventory/read-ahead.ts";
import { createSightings } from "../../src/inventory/sightings.ts";
import type { AcceptedPolicy } from "../../src/policy/accept.ts";
import { createOrphanProofs } from "../../src/policy/orphan-proofs.ts";
import { archiveTime, writeArchive } from "./archives.ts";
import { anAcceptedPolicy } from "./watching.ts";

/** A clock that goes where it is told to. */
export function aClock({ wallMs = Date.now(), monotonicMs = 1_000_000 } = {}) {
  const now = { wallMs, monotonicMs };
  return {
    wallMs: () => now.wallMs,
    monotonicMs: () => now.monotonicMs,
    pass: (ms: number) => {
      now.wallMs += ms;
      now.monotonicMs += ms;
    },
    jump: (ms: number) => {
      now.wallMs += ms;
    },
  };
}

/** A policy that keeps the newest archive of each container, and acts at once. */
export const keepOne = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } };

/**
 * An enforcer on a real directory without an observer: the test says what is seen and when, and may act in the middle of
 * a plan, after each deletion. Ends with the test.
 */
export function driveEnforcer(
  path: string,
  options: {
    /** In force from the start; none until one is applied. */
    policy?: AcceptedPolicy;
    clock?: ReturnType<typeof aClock>;
    readDisk?: () => DiskReading | undefined;
    /** The trusted time; the clock's, unless said otherwise. */
    trustedMs?: () => number | undefined;
    onDeleted?: (file: string) => void;
    /** Files that cannot be deleted just now: their place is led astray, below a file, where nothing can be. */
    isStuck?: (file: string) => boolean;
    /** From how many archives on a scope has shortlists; unless said otherwise, small folders are planned for as large ones are. */
    large?: number;
    /** Whether a run may fail as a whole. */
    mayFail?: boolean;
    /** What was due when the directory was last watched. */
    resumed?: Due;
  },
) {
  const { clock = aClock(), policy } = options;
  const opened = openDirectory(path, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  const { directory } = opened;
  const index = createArchiveIndex<Entry>();
  const proofs = createOrphanProofs("boot", clock.monotonicMs);
  const deleted: Array<{ file: string; reason: Reason; bytes: number }> = [];
  const wouldDelete: Array<{ file: string; reason: Reason }> = [];
  const failed: Array<{ file: string; code: string }> = [];
  const stale: string[] = [];
  const logged: Array<Record<string, unknown>> = [];
  const log = pino({ level: "debug" }, { write: (line) => logged.push(JSON.parse(line) as Record<string, unknown>) });
  const durationsMs: number[] = [];
  const latenciesMs: number[] = [];
  let listed = 0;
  const time = { nowMs: options.trustedMs ?? clock.wallMs };
  const sightings = createSightings({ index, clock, time });
  sightings.setDirectory(directory);
  const enforcer = createEnforcer({
    index,
    proofs,
    clock,
    log,
    readDisk: options.readDisk ?? (() => undefined),
    large: options.large ?? 1,
    time,
    unmanaged: sightings.unmanaged,
    events: {
      deleted: ({ entry, reason, sinceEventMs }) => {
        latenciesMs.push(sinceEventMs);
        deleted.push({ file: entry.file, reason, bytes: entry.size });
        options.onDeleted?.(entry.file);
      },
      wouldDelete: ({ entry, reason }) => wouldDelete.push({ file: entry.file, reason }),
      deleteFailed: ({ entry, code }) => failed.push({ file: entry.file, code }),
      enforced: ({ durationMs }) => durationsMs.push(durationMs),
      stale: (file) => stale.push(file),
    },
  });

  /** Takes in what lies at a name now, walked unless told otherwise, and tells the enforcer. */
  function see(file: string, { isEvent = false, isWalked = true, isSettled = true, isTold = true } = {}): Entry {
    const found = findFile(directory, file);
    const known = index.get(file);
    if (found.kind !== "file") {
      if (known === undefined) throw new Error(`${file} was never there`);
      index.remove(file);
      sightings.noticed(known);
      enforcer.changed(known, false);
      return known;
    }
    listed += 1;
    const nowMs = clock.monotonicMs();
    const name = parseArchiveName(file);
    if (name === undefined) throw new Error(file);
    const unchangedSinceMs = isSettled ? nowMs - 600_001 : nowMs;
    const entry =
      known ??
      newEntry(name, found.stat, {
        file,
        timeMs: name.timeMs,
        listed,
        pinned: false,
        isNews: isEvent,
        unchangedSinceMs,
      });
    noteInodeChange(entry, found.stat);
    if (hasChanged(entry, found.stat))
      adoptChange(entry, found.stat, { listed, nowMs: unchangedSinceMs, isListed: true });
    if (isWalked) {
      const walking = walkEntry(directory, entry, createReadSpace(READ_AHEAD.some));
      let step = walking.next();
      while (!step.done) step = walking.next();
      entry.walked = true;
    }
    refresh(entry, clock, { incompleteAfterMs: 600_000, nodeName: "node-a" });
    index.put(entry);
    sightings.noticed(entry);
    if (isTold) enforcer.changed(entry, isEvent);
    return entry;
  }

  if (policy !== undefined) enforcer.setPolicy(policy);
  const isStuck = options.isStuck ?? (() => false);
  const led = {
    ...directory,
    at: (file: string) => (isStuck(file) ? join(directory.at(file), "below-a-file") : directory.at(file)),
  };
  void enforcer.setDirectory(led, options.resumed);
  onTestFinished(async () => {
    await enforcer.stop();
    directory.close();
  });
  return {
    clock,
    index,
    proofs,
    enforcer,
    sightings,
    directory,
    deleted,
    wouldDelete,
    failed,
    stale,
    logged,
    see,
    runs: () => durationsMs.length,
    durationsMs,
    latenciesMs,
    listedUpTo: () => listed,
    files: () => deleted.map(({ file }) => file),
    apply: (spec: unknown) => enforcer.setPolicy(anAcceptedPolicy(spec, path)),
    /** Waits until all that was told has been acted upon, which must not have failed in any way that no test asked for. */
    calm: async () => {
      const isBusy = () => {
        if (!enforcer.status().isIdle) throw new Error("the enforcer is busy");
      };
      await vi.waitFor(isBusy, { timeout: 10_000, interval: 5 });
      const failures = logged.filter(({ msg }) => String(msg).startsWith("enforcement failed")).map(({ err }) => err);
      if (failures.length > 0 && options.mayFail !== true) throw new Error(JSON.stringify(failures));
    },
  };
}

/** An enforcer of an agent that starts on a folder: it has seen these files, and none of them is an event. */
export async function startOn(
  folder: string,
  files: readonly string[],
  options: Parameters<typeof driveEnforcer>[1],
): Promise<ReturnType<typeof driveEnforcer>> {
  const driven = driveEnforcer(folder, options);
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  return driven;
}

/** So many archives of one container, one a second, the oldest first. */
export function aSeries(
  folder: string,
  count: number,
  parts: { namespace?: string; pod?: string; container?: string; startMs?: number } = {},
): string[] {
  const { startMs = Date.now() - 3_600_000, container = "main", ...names } = parts;
  return Array.from({ length: count }, (_, at) => {
    const timeMs = startMs + at * 1000;
    const file = writeArchive(folder, { container, ...names, time: archiveTime(timeMs) });
    utimesSync(join(folder, file), timeMs / 1000, timeMs / 1000);
    return file;
  });
}
