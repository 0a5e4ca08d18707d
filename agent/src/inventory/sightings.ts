import { type Clock, TIME_TOLERANCE_MS, type TrustedTime } from "../clock.ts";
import type { ArchiveIndex } from "./archive-index.ts";
import type { Directory } from "./directory.ts";
import { type Entry, isUnmanaged } from "./entry.ts";

/**
 * How many files are remembered. The first ones stay, because they are the nearest to their age: what finds no room begins its
 * age once another one has gone.
 */
export const MAX_SIGHTINGS = 10_000;

/** A file as it was when it was first seen to be one that no rule but maxAgeUnmanaged can ever take. */
export interface Sighting {
  file: string;
  inode: string;
  size: number;
  mtimeNs: string;
  ctimeNs: string;
  /** By a time that could be trusted, in milliseconds since 1970. */
  sinceMs: number;
}

/** What is kept of a directory. */
export interface KeptSightings {
  device: string;
  inode: string;
  sightings: Sighting[];
}

/** Knows since when files that no other rule may take have been unchanged, over restarts, too. */
export interface Sightings {
  /** Goes on from what the state folder held. */
  restore(kept: KeptSightings): void;
  /** What was seen in another directory is forgotten. */
  setDirectory(directory: Directory): void;
  /** All names of the directory are in the index: what is not among them is forgotten. */
  listed(): void;
  /** An archive was looked at, or went. Sets its {@link Entry.unmanagedSinceMs}. */
  noticed(entry: Entry): void;
  /** To be called about once a second, and when a time was told, before anything is decided by it. */
  tick(): void;
  /** Those whose age is known. */
  unmanaged(): Iterable<Entry>;
  /** What the next start must know. It is the same object while nothing has changed. */
  record(): KeptSightings | undefined;
}

export function createSightings({
  index,
  clock,
  time,
}: {
  index: ArchiveIndex<Entry>;
  clock: Pick<Clock, "monotonicMs">;
  time: Pick<TrustedTime, "nowMs">;
}): Sightings {
  /** By file. Undefined since when: until a time can be trusted. */
  const sightings = new Map<string, Omit<Sighting, "sinceMs"> & { sinceMs: number | undefined }>();
  let directory: Omit<KeptSightings, "sightings"> | undefined;
  let told: { nowMs: number; monotonicMs: number } | undefined;
  let lastRecord: KeptSightings | undefined;

  function forget(file: string): void {
    if (sightings.delete(file)) lastRecord = undefined;
  }

  function noticed(entry: Entry): void {
    entry.unmanagedSinceMs = undefined;
    const isThere = index.get(entry.file) === entry;
    const answer = isThere ? isUnmanaged(entry) : false;
    // Not looked into yet, or not readable just now: that says nothing against what was seen before.
    if (answer === undefined) return;
    if (!answer) {
      forget(entry.file);
      return;
    }
    const known = sightings.get(entry.file);
    const now = describe(entry);
    if (known === undefined && sightings.size >= MAX_SIGHTINGS) return;
    const isSame = known !== undefined && isSameFile(known, now);
    const sinceMs = isSame ? known.sinceMs : time.nowMs();
    if (!isSame) {
      sightings.set(entry.file, { ...now, sinceMs });
      lastRecord = undefined;
    }
    // A sighting from before the file was last changed was dated by a clock that was wrong.
    if (sinceMs !== undefined) entry.unmanagedSinceMs = Math.max(sinceMs, Number(entry.ctimeNs / 1_000_000n));
  }

  return {
    restore(kept) {
      directory = { device: kept.device, inode: kept.inode };
      for (const sighting of kept.sightings) sightings.set(sighting.file, sighting);
      lastRecord = kept;
    },
    setDirectory({ device, inode }) {
      const next = { device: `${device}`, inode: `${inode}` };
      if (directory?.device === next.device && directory.inode === next.inode) return;
      directory = next;
      sightings.clear();
      lastRecord = undefined;
    },
    listed() {
      for (const file of sightings.keys()) if (index.get(file) === undefined) forget(file);
    },
    noticed,
    tick() {
      const nowMs = time.nowMs();
      if (nowMs === undefined) return;
      const monotonicMs = clock.monotonicMs();
      const jumpMs = told === undefined ? 0 : nowMs - told.nowMs - (monotonicMs - told.monotonicMs);
      told = { nowMs, monotonicMs };
      // The trusted time itself jumps if every clock of the cluster is set right: that makes nothing older or younger.
      const shiftMs = Math.abs(jumpMs) > TIME_TOLERANCE_MS ? jumpMs : 0;
      for (const sighting of sightings.values()) {
        const { file, sinceMs } = sighting;
        const shiftedMs = sinceMs === undefined ? nowMs : sinceMs + shiftMs;
        // What was first seen in the future begins anew.
        sighting.sinceMs = shiftedMs > nowMs + TIME_TOLERANCE_MS ? nowMs : shiftedMs;
        if (sighting.sinceMs === sinceMs) continue;
        lastRecord = undefined;
        const entry = index.get(file);
        if (entry !== undefined) noticed(entry);
      }
    },
    *unmanaged() {
      for (const file of sightings.keys()) {
        const entry = index.get(file);
        if (entry?.unmanagedSinceMs !== undefined) yield entry;
      }
    },
    record() {
      if (directory === undefined) return undefined;
      lastRecord ??= {
        ...directory,
        sightings: [...sightings.values()].flatMap(({ sinceMs, ...file }) =>
          sinceMs === undefined ? [] : [{ ...file, sinceMs }],
        ),
      };
      return lastRecord;
    },
  };
}

function describe({ file, inode, size, mtimeNs, ctimeNs }: Entry): Omit<Sighting, "sinceMs"> {
  return { file, inode: `${inode}`, size, mtimeNs: `${mtimeNs}`, ctimeNs: `${ctimeNs}` };
}

function isSameFile(a: Omit<Sighting, "sinceMs">, b: Omit<Sighting, "sinceMs">): boolean {
  return a.inode === b.inode && a.size === b.size && a.mtimeNs === b.mtimeNs && a.ctimeNs === b.ctimeNs;
}
