import { limit, type NodePolicy, type PolicyDocument } from "@cro/shared/policy/document";
import type { DiskUsage } from "./plan.ts";

/** The whole that shares of bytes are of: what is used and what can still be written, as `df` has it. */
function bytesOf({ usedBytes, availableBytes }: DiskUsage): number {
  return usedBytes + availableBytes;
}

/** Whether any limit of the node is a share of its file system. */
function hasShares({ maxTotalPercent, minFreePercent, minFreeInodesPercent }: NodePolicy): boolean {
  return [maxTotalPercent, minFreePercent, minFreeInodesPercent].some((percent) => percent !== undefined);
}

/**
 * The policy with the node's limits that are shares of the file system in bytes and inodes, beside the shares themselves.
 * Rounded so that less goes. A share of what is not known is no limit.
 */
export function withShares(document: PolicyDocument, disk: DiskUsage | undefined): PolicyDocument {
  const { node } = document;
  if (disk === undefined || !hasShares(node)) return document;
  const { maxTotalPercent, minFreePercent, minFreeInodesPercent } = node;
  const limits = {
    ...node,
    ...limit("maxTotalBytes", maxTotalPercent && Math.ceil((bytesOf(disk) * maxTotalPercent) / 100)),
    ...limit("minFreeBytes", minFreePercent && Math.floor((bytesOf(disk) * minFreePercent) / 100)),
    ...limit(
      "minFreeInodes",
      minFreeInodesPercent && disk.inodes && Math.floor((disk.inodes.total * minFreeInodesPercent) / 100),
    ),
  };
  return { ...document, node: limits };
}
