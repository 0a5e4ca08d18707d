import type { NodePolicy } from "@cro/shared/policy/document";
import type { Reason } from "@cro/shared/wire/report";
import type { Archive } from "../archive/archive.ts";
import { type DiskUsage, isOverLimit, isRelieved, isShortOfInodes } from "../retention/plan.ts";

/** What archives take of their file system, and what the rule is that gives it back. */
export interface Resource {
  reason: Reason;
  unit: "bytes" | "archives";
  /** How much is free; undefined where the file system does not tell. */
  freeOf(disk: DiskUsage): number | undefined;
  /** How much an archive takes of it. */
  takenBy(archive: Archive): number;
  /** Whether archives must go for it: its limits are broken. */
  isScarce(node: NodePolicy, disk: DiskUsage): boolean;
  /** Whether a pass that began may go on: there is not as much free yet as must be. */
  isWanted(node: NodePolicy, disk: DiskUsage): boolean;
}

const BYTES: Resource = {
  reason: "node_watermark",
  unit: "bytes",
  freeOf: ({ availableBytes }) => availableBytes,
  takenBy: ({ allocated }) => allocated,
  isScarce: isOverLimit,
  isWanted: (node, disk) => !isRelieved(node, disk),
};

const INODES: Resource = {
  reason: "node_inodes",
  unit: "archives",
  freeOf: ({ inodes }) => inodes?.free,
  takenBy: ({ hasOtherNames }) => (hasOtherNames ? 0 : 1),
  isScarce: isShortOfInodes,
  isWanted: isShortOfInodes,
};

/** In the order in which plans take archives for them. */
export const RESOURCES = [BYTES, INODES] as const;
