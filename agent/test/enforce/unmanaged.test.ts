import { chmodSync, existsSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Entry } from "../../src/inventory/entry.ts";
import { archiveBytes, archiveName, archiveTime, writeArchive } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const DAY_MS = 86_400_000;
const ninetyDays = { nodePolicy: { maxAgeUnmanaged: "90d" } };

/** An agent that has just seen files that are no archives for the first time. Its clock is a minute ahead of theirs. */
async function aNode({
  count = 1,
  spec = ninetyDays,
  ...options
}: { count?: number; spec?: object } & Partial<Parameters<typeof driveEnforcer>[1]> = {}) {
  const folder = aFolder();
  const clock = aClock({ wallMs: Date.now() + 60_000 });
  const time = { isTrusted: true };
  const driven = driveEnforcer(folder, {
    clock,
    trustedMs: () => (time.isTrusted ? clock.wallMs() : undefined),
    policy: anAcceptedPolicy(spec, folder),
    ...options,
  });
  const files = Array.from({ length: count }, (_, at) => {
    const file = archiveName({ time: archiveTime(Date.now() - 3_600_000 + at * 1000) });
    writeFileSync(join(folder, file), "no tar at all".repeat(100));
    return file;
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  const second = async () => {
    driven.sightings.tick();
    driven.enforcer.tick();
    await driven.calm();
  };
  await second();
  return {
    ...driven,
    folder,
    clock,
    time,
    file: files[0] as string,
    names: files,
    second,
    pass: async (ms: number) => {
      clock.pass(ms);
      await second();
    },
    isThere: (file: string) => existsSync(join(folder, file)),
    planned: () => [...driven.enforcer.status().planned],
  };
}

describe("maxAgeUnmanaged", () => {
  it("takes a file once it has been seen unchanged for longer, without any event", async () => {
    const { pass, deleted, file, isThere } = await aNode();
    await pass(90 * DAY_MS);
    expect(deleted).toEqual([]);
    await pass(1);
    expect(deleted).toMatchObject([{ file, reason: "max_age_unmanaged" }]);
    expect(isThere(file)).toBe(false);
  });

  it("takes nothing unless a policy asks for it; one that does acts at once on what was seen before it", async () => {
    const { pass, deleted, apply, calm, file } = await aNode({ spec: { nodePolicy: { minFree: "1Gi" } } });
    await pass(400 * DAY_MS);
    expect(deleted).toEqual([]);
    apply(ninetyDays);
    await calm();
    expect(deleted).toMatchObject([{ file }]);
  });

  it("takes nothing while no time is trusted, however far the clock jumps, and nothing for that jump afterwards", async () => {
    const { pass, deleted, clock, time, second } = await aNode();
    time.isTrusted = false;
    clock.jump(400 * DAY_MS);
    await second();
    await pass(DAY_MS);
    expect(deleted).toEqual([]);
    time.isTrusted = true;
    await second();
    await pass(89 * DAY_MS);
    expect(deleted).toEqual([]);
    await pass(1);
    expect(deleted).toHaveLength(1);
  });

  it.each<[string, (path: string) => void]>([
    ["touched", (path) => utimesSync(path, 1, 1)],
    ["given another mode", (path) => chmodSync(path, 0o640)],
    ["replaced by an archive", (path) => writeFileSync(path, archiveBytes())],
  ])("keeps a file that was %s since the agent looked, and looks again", async (_, change) => {
    const { pass, deleted, isThere, file, folder, stale, see, second } = await aNode();
    change(join(folder, file));
    await pass(90 * DAY_MS + 1);
    expect([deleted, isThere(file), stale]).toEqual([[], true, [file]]);
    see(file);
    await second();
    await pass(89 * DAY_MS);
    expect([deleted, isThere(file)]).toEqual([[], true]);
  });

  it("keeps a file that is found to be an archive after the plan was made", async () => {
    const { pass, deleted, isThere, names, index, enforcer } = await aNode({
      count: 2,
      onDeleted: () => {
        const entry = index.get(names[1] as string) as Entry;
        entry.state = "complete";
        enforcer.changed(entry, false);
      },
    });
    await pass(90 * DAY_MS + 1);
    expect(deleted).toMatchObject([{ file: names[0] }]);
    expect(isThere(names[1] as string)).toBe(true);
  });

  it("plans anew if somebody else was faster", async () => {
    const { pass, names, files, folder, second } = await aNode({
      count: 3,
      onDeleted: () => rmSync(join(folder, names[1] as string), { force: true }),
    });
    await pass(90 * DAY_MS + 1);
    expect(files()).toEqual([names[0]]);
    await second();
    expect(files()).toEqual([names[0], names[2]]);
  });

  it("waits until every archive was looked into", async () => {
    const { pass, deleted, folder, see, calm, file } = await aNode();
    const [other = ""] = aSeries(folder, 1);
    see(other, { isWalked: false });
    await pass(90 * DAY_MS + 1);
    expect(deleted).toEqual([]);
    see(other);
    await calm();
    expect(deleted).toMatchObject([{ file }]);
  });

  it("is held by a pin and by .pause, which tells it as planned; when that ends it goes", async () => {
    const { pass, deleted, folder, planned, names, index, enforcer, calm, second } = await aNode({ count: 2 });
    const [pinned = "", other = ""] = names;
    const entry = index.get(pinned) as Entry;
    entry.pinned = true;
    const pause = join(folder, ".pause");
    writeFileSync(pause, "");
    await pass(90 * DAY_MS + 1);
    expect([deleted, planned()]).toEqual([[], [[other, "max_age_unmanaged"]]]);
    rmSync(pause);
    await second();
    expect([deleted.map(({ file }) => file), planned()]).toEqual([[other], []]);
    entry.pinned = false;
    enforcer.changed(entry, false);
    await calm();
    expect(deleted.map(({ file }) => file)).toEqual([other, pinned]);
  });

  it("sees a pin that the agent has not seen yet", async () => {
    const { pass, deleted, folder, file } = await aNode();
    writeFileSync(join(folder, `${file}.keep`), "");
    await pass(90 * DAY_MS + 1);
    expect(deleted).toEqual([]);
  });

  it("is told once under DryRun, is no work each second, and is taken back when the file changes", async () => {
    const { pass, deleted, wouldDelete, planned, file, runs, second, folder, see, calm } = await aNode({
      spec: { ...ninetyDays, mode: "DryRun" },
    });
    await pass(90 * DAY_MS + 1);
    expect([deleted, planned()]).toEqual([[], [[file, "max_age_unmanaged"]]]);
    const before = runs();
    await second();
    await second();
    expect(runs()).toBe(before);
    expect(wouldDelete).toEqual([{ file, reason: "max_age_unmanaged" }]);
    chmodSync(join(folder, file), 0o640);
    see(file);
    await calm();
    expect(planned()).toEqual([]);
  });

  it("is taken back, too, of what is nobody's and so in no scope, when that changes", async () => {
    const { folder, see, second, pass, planned, calm } = await aNode({
      spec: { ...ninetyDays, mode: "DryRun" },
      count: 0,
    });
    const file = writeArchive(folder, { namespace: "a-b", runtime: "none" });
    expect(see(file)).toMatchObject({ state: "unidentified", identity: undefined });
    await second();
    await pass(90 * DAY_MS + 1);
    expect(planned()).toEqual([[file, "max_age_unmanaged"]]);
    chmodSync(join(folder, file), 0o640);
    see(file);
    await calm();
    expect(planned()).toEqual([]);
  });

  it("tries what cannot be deleted again, ever more seldom, also beside limits of the node that hold, until no rule wants it", async () => {
    let isStuck = true;
    const spec = { nodePolicy: { maxAgeUnmanaged: "90d", maxTotalSize: "1Ti" } };
    const { pass, failed, deleted, apply, enforcer, file, names } = await aNode({
      count: 2,
      spec,
      isStuck: (one) => isStuck && one === names[0],
    });
    await pass(90 * DAY_MS + 1);
    expect(deleted.map((one) => one.file)).toEqual([names[1]]);
    for (let at = 0; at < 14; at += 1) await pass(500);
    // At once, after a second, two and four.
    expect(failed.map((one) => one.file)).toEqual(Array(4).fill(file));
    apply({ nodePolicy: { maxTotalSize: "1Ti" } });
    await pass(1000);
    expect(enforcer.status().failing.size).toBe(0);
    apply(spec);
    isStuck = false;
    await pass(1000);
    expect(deleted.map((one) => one.file)).toEqual([names[1], file]);
  });

  it.each(["plan", "deletion"])("stops where another policy comes during the %s", async (moment) => {
    let isArmed = false;
    const replace = () => {
      if (isArmed) driven.apply({});
      isArmed = false;
    };
    const clock = aClock({ wallMs: Date.now() + 60_000 });
    const driven: Awaited<ReturnType<typeof aNode>> = await aNode({
      count: 2,
      clock,
      trustedMs: () => {
        if (moment === "plan") replace();
        return clock.wallMs();
      },
      onDeleted: replace,
    });
    clock.pass(90 * DAY_MS + 1);
    driven.sightings.tick();
    driven.enforcer.tick();
    isArmed = true;
    await driven.calm();
    expect(driven.deleted).toHaveLength(moment === "plan" ? 0 : 1);
  });
});
