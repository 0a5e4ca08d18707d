import { expect, it } from "vitest";
import { aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const full = { sizeBytes: 2 ** 40, usedBytes: 2 ** 40 - 1, availableBytes: 1 };
const minFree = { nodePolicy: { minFree: "1Gi" } };

/** What an enforcer's next plan rests on, once it has looked at two archives. */
async function settled(
  spec: object,
  { readDisk = () => undefined, ...how }: { readDisk?: () => typeof full | undefined; isWalked?: boolean } = {},
) {
  const folder = aFolder();
  const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder), readDisk });
  for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false, ...how });
  driven.enforcer.listed();
  await driven.calm();
  return driven;
}

it("is unknown without a policy, and without a directory", async () => {
  expect(driveEnforcer(aFolder(), {}).enforcer.situation()).toBeUndefined();
  const { enforcer } = await settled({});
  expect(enforcer.situation()?.policy).toMatchObject({ mode: "Enforce" });
  await enforcer.setDirectory(undefined);
  expect(enforcer.situation()).toBeUndefined();
});

it("has the disk only if that can be read, and nothing of the node while an archive has not been walked", async () => {
  const unlimited = { passLimitBytes: Number.POSITIVE_INFINITY, passLimitInodes: Number.POSITIVE_INFINITY };
  const known = await settled({ nodePolicy: { highWatermarkPercent: 100 } }, { readDisk: () => full });
  expect(known.enforcer.situation()?.node).toEqual({ disk: full, ...unlimited });
  const unknown = await settled(minFree);
  expect(unknown.enforcer.situation()?.node).toEqual({ disk: undefined, ...unlimited });
  const unwalked = await settled(minFree, { readDisk: () => full, isWalked: false });
  expect(unwalked.enforcer.situation()?.node).toBeUndefined();
});

it("lets nothing go for a disk that has yet to show what a pass freed", async () => {
  const driven = await settled(minFree, { readDisk: () => full });
  expect(driven.deleted).toHaveLength(1);
  expect(driven.enforcer.situation()?.node).toMatchObject({ disk: full, passLimitBytes: 0 });
});
