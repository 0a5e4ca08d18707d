import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { aSeries, driveEnforcer, startOn } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const atTwo = { globalPolicy: { maxCheckpointsPerContainer: 2 } };

/** Three archives were there, and two more came: an event of a container that is over its limit of two. */
async function anEvent(options: Partial<Parameters<typeof driveEnforcer>[1]> = {}, before?: (folder: string) => void) {
  const folder = aFolder();
  const files = aSeries(folder, 5);
  const policy = anAcceptedPolicy(atTwo, folder);
  before?.(folder);
  const driven = driveEnforcer(folder, { policy, ...options });
  for (const file of files.slice(0, 3)) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  for (const file of files.slice(3)) driven.see(file, { isEvent: true });
  await driven.calm();
  return { folder, files, policy, driven };
}

describe("what an event made due", () => {
  it("is nothing any more once it was acted upon to the end", async () => {
    const { driven, files } = await anEvent();
    expect(driven.files()).toEqual(files.slice(0, 3));
    expect(driven.enforcer.due()).toBeUndefined();
  });

  it("stays due over a restart, and is then acted upon, if a .pause kept it from being done", async () => {
    const { folder, files, policy, driven } = await anEvent({}, (at) => writeFileSync(join(at, ".pause"), ""));
    const due = driven.enforcer.due();
    expect(due).toEqual({ digest: policy.digest, containers: ["shop/web-0/main"] });
    await driven.enforcer.stop();
    const again = await startOn(folder, files, { policy, ...(due && { resumed: due }) });
    expect(again.files()).toEqual([]);
    unlinkSync(join(folder, ".pause"));
    again.enforcer.tick();
    await again.calm();
    expect(again.files()).toEqual(files.slice(0, 3));
    expect(again.enforcer.due()).toBeUndefined();
    // Without it, a start is no event.
    const forgetful = aFolder();
    const found = aSeries(forgetful, 5);
    expect((await startOn(forgetful, found, { policy: anAcceptedPolicy(atTwo, forgetful) })).files()).toEqual([]);
  });

  it("stays due if a deletion failed, and while an archive has not settled or been walked", async () => {
    const stuck = await anEvent({ isStuck: (file) => file.includes("tar") });
    expect(stuck.driven.failed.length).toBeGreaterThan(0);
    expect(stuck.driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);

    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(atTwo, folder) });
    driven.enforcer.listed();
    const [unsettled = "", unwalked = "", other = ""] = files;
    driven.see(unwalked, { isWalked: false });
    driven.see(other, { isEvent: true });
    await driven.calm();
    expect(driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);
    driven.see(unsettled, { isEvent: true, isSettled: false });
    driven.see(unwalked);
    await expect.poll(driven.runs).toBeGreaterThan(1);
    expect(driven.enforcer.status().isIdle).toBe(false);
    expect(driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);
  });

  it("stays due while a deletion that failed rests, whatever else happens there, and while no time is known for ages", async () => {
    const { driven, files } = await anEvent({ isStuck: (file) => file.includes("tar") });
    driven.see(files[4] ?? "", { isEvent: true });
    await driven.calm();
    expect(driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);

    const folder = aFolder();
    let trustedMs: number | undefined;
    const policy = anAcceptedPolicy({ globalPolicy: { maxAge: "1d" } }, folder);
    const aged = driveEnforcer(folder, { policy, trustedMs: () => trustedMs });
    aged.enforcer.listed();
    for (const file of aSeries(folder, 2)) aged.see(file, { isEvent: true });
    await aged.calm();
    expect(aged.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);
    trustedMs = Date.now();
    aged.enforcer.tick();
    await aged.calm();
    expect(aged.enforcer.due()).toBeUndefined();
  });

  it("is nothing any more if nothing is left of its container", async () => {
    const folder = aFolder();
    const policy = anAcceptedPolicy(atTwo, folder);
    const resumed = { digest: policy.digest, containers: ["shop/web-0/gone"] };
    const driven = await startOn(folder, [], { policy, resumed });
    expect(driven.enforcer.due()).toBeUndefined();
  });

  it("is due for the widest scope that its policy limits, though a narrower one was acted upon", async () => {
    const folder = aFolder();
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 2, maxCheckpointsPerNamespace: 3 } };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    const [unwalked = ""] = aSeries(folder, 1, { container: "other" });
    driven.see(unwalked, { isTold: false, isWalked: false });
    driven.enforcer.listed();
    for (const file of aSeries(folder, 3)) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.deleted).toHaveLength(1);
    expect(driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);
    driven.see(unwalked);
    await driven.calm();
    expect(driven.enforcer.due()).toBeUndefined();
  });

  it("is not due under another policy, nor where the policy acts everywhere at once", async () => {
    const { folder, files, driven } = await anEvent({}, (at) => writeFileSync(join(at, ".pause"), ""));
    const resumed = driven.enforcer.due();
    await driven.enforcer.stop();
    unlinkSync(join(folder, ".pause"));
    const stricter = anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 1 } }, folder);
    const other = await startOn(folder, files, { policy: stricter, ...(resumed && { resumed }) });
    expect([other.files(), other.enforcer.due()]).toEqual([[], undefined]);

    const atOnce = { applyPoliciesImmediately: true, ...atTwo };
    const everywhere = await anEvent({ policy: anAcceptedPolicy(atOnce, aFolder()) });
    expect(everywhere.driven.enforcer.due()).toBeUndefined();
  });

  it("waits for the policy that it was due under, however late that comes", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const policy = anAcceptedPolicy(atTwo, folder);
    const resumed = { digest: policy.digest, containers: ["shop/web-0/main"] };
    const driven = driveEnforcer(folder, { resumed });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    expect(driven.enforcer.due()).toEqual(resumed);
    driven.enforcer.setPolicy(policy);
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 3));
  });

  it("is taken in while the enforcer waits, and acted upon when that is over", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(atTwo, folder) });
    driven.enforcer.setWaiting(true);
    driven.enforcer.listed();
    for (const file of files) driven.see(file, { isEvent: true });
    driven.enforcer.tick();
    for (let turn = 0; turn < 20; turn += 1) await nextTurn();
    expect(driven.runs()).toBe(0);
    expect(driven.enforcer.due()?.containers).toEqual(["shop/web-0/main"]);
    driven.enforcer.setWaiting(false);
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 3));
  });

  it("goes with its directory", async () => {
    const { driven, files } = await anEvent({}, (at) => writeFileSync(join(at, ".pause"), ""));
    await driven.enforcer.setDirectory(driven.directory);
    expect(driven.enforcer.due()).toBeUndefined();
    unlinkSync(driven.directory.at(".pause"));
    driven.enforcer.listed();
    await driven.calm();
    expect([driven.files(), files.length]).toEqual([[], 5]);
  });
});
