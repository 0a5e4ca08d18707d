import { type StatsFs, statfsSync } from "node:fs";
import type { Directory } from "../inventory/directory.ts";
import type { DiskUsage } from "../retention/plan.ts";

/** A file system's size and use, in bytes. */
export interface DiskReading extends DiskUsage {
  sizeBytes: number;
}

/** Asks the file system that holds the directory how full it is; undefined where it does not tell. */
export function readDisk(directory: Directory): DiskReading | undefined {
  try {
    return readingOf(statfsSync(directory.at(".")));
  } catch {
    return undefined;
  }
}

/** What the answer of statfs(2) tells; undefined where it tells nothing. */
export function readingOf(answer: Omit<StatsFs, "type">): DiskReading | undefined {
  const { bsize, blocks, bfree, bavail, files, ffree } = answer;
  // Some file systems know no usage and answer zeros.
  if (blocks === 0) return undefined;
  const bytes = { sizeBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize };
  // btrfs, for one, makes inodes as they are needed, and counts none. More free ones than there are is no count either.
  const isCounted = files > 0 && ffree <= files;
  return isCounted ? { ...bytes, inodes: { total: files, free: ffree } } : bytes;
}
