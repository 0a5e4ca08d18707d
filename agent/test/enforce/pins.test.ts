import { expect, it } from "vitest";
import { aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

it("pinned archives that use a count limit up are logged once, told until one is unpinned, and told of again", async () => {
  const folder = aFolder();
  const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } };
  const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
  const files = aSeries(folder, 2);
  const pin = async (pinned: boolean) => {
    for (const file of files) {
      const entry = driven.see(file, { isTold: false });
      entry.pinned = pinned;
      driven.enforcer.changed(entry, false);
    }
    await driven.calm();
  };
  const logged = () => driven.logged.filter(({ msg }) => String(msg).startsWith("pinned archives use a limit up"));
  driven.enforcer.listed();
  await pin(true);
  const told = { namespace: "shop", pod: "web-0", container: "main", maxCheckpoints: 2, pinned: 2 };
  expect(driven.enforcer.status().pinnedLimits).toEqual([told]);
  await pin(true);
  expect(logged()).toMatchObject([told]);
  await pin(false);
  expect(driven.enforcer.status().pinnedLimits).toEqual([]);
  await pin(true);
  expect(logged()).toHaveLength(2);
  driven.apply({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 3 } });
  await driven.calm();
  expect(driven.enforcer.status().pinnedLimits).toEqual([]);
  expect(driven.files()).toEqual([]);
});
