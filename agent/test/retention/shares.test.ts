import { expect, it } from "vitest";
import { withShares } from "../../src/retention/shares.ts";
import { aPolicy } from "./builders.ts";

const disk = { usedBytes: 700, availableBytes: 301, inodes: { total: 999, free: 10 } };
const ofNode = (nodePolicy: Record<string, unknown>, of: Parameters<typeof withShares>[1] = disk) =>
  withShares(aPolicy({ nodePolicy }), of).node;

it("shares of a node's file system are of what is used and free, rounded so that less goes", () => {
  expect(ofNode({ maxTotalSize: "50%", minFree: "50%", minFreeInodes: "50%" })).toEqual({
    ...{ maxTotalPercent: 50, minFreePercent: 50, minFreeInodesPercent: 50 },
    ...{ maxTotalBytes: 501, minFreeBytes: 500, minFreeInodes: 499 },
  });
});

it("limits that are no shares stay what they are, and so does the policy", () => {
  const policy = aPolicy({ nodePolicy: { maxTotalSize: "1Gi", minFree: "1Gi", minFreeInodes: 7 } });
  expect(withShares(policy, disk)).toBe(policy);
});

it("a share of what is not known, or of nothing, limits nothing", () => {
  const spec = { maxTotalSize: "50%", minFree: "50%", minFreeInodes: "50%" };
  const shares = { maxTotalPercent: 50, minFreePercent: 50, minFreeInodesPercent: 50 };
  expect(withShares(aPolicy({ nodePolicy: spec }), undefined).node).toEqual(shares);
  const { inodes: _, ...uncounted } = disk;
  expect(ofNode({ minFreeInodes: "50%" }, uncounted)).toEqual({ minFreeInodesPercent: 50 });
  const empty = { usedBytes: 0, availableBytes: 0, inodes: { total: 0, free: 0 } };
  expect(ofNode(spec, empty)).toEqual(shares);
});
