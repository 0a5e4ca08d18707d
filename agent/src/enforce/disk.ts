import { statfsSync } from "node:fs";
import type { Directory } from "../inventory/directory.ts";
import type { DiskUsage } from "../retention/plan.ts";

/** A file system's size and use, in bytes. */
export interface DiskReading extends DiskUsage {
  sizeBytes: number;
}

/** Asks the file system that holds the directory how full it is; undefined where it does not tell. */
export function readDisk(directory: Directory): DiskReading | undefined {
  try {
    const { bsize, blocks, bfree, bavail } = statfsSync(directory.at("."));
    // Some file systems know no usage and answer zeros.
    if (blocks === 0) return undefined;
    return { sizeBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize, availableBytes: bavail * bsize };
  } catch {
    return undefined;
  }
}
