import { existsSync, truncateSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readDisk } from "../../src/enforce/disk.ts";
import { openDirectory } from "../../src/inventory/directory.ts";
import { OWNERLESS_AFTER_MS } from "../../src/inventory/entry.ts";
import { writeArchive } from "../support/archives.ts";
import { aSeries, driveEnforcer, keepOne } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

describe("an archive that cannot be deleted", () => {
  /** Two archives of which the first has to go and cannot, for as long as it is stuck. */
  function aStuckOne() {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const [stuck = "", kept = ""] = files;
    let isStuck = true;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      isStuck: (file) => isStuck && file === stuck,
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    return {
      ...{ folder, stuck, kept, driven },
      free: () => {
        isStuck = false;
      },
      /** How often it has been tried once that much time has passed. */
      triesAfter: async (ms: number) => {
        driven.clock.pass(ms);
        driven.enforcer.tick();
        await driven.calm();
        return driven.failed.length;
      },
    };
  }

  it("is tried again after a second, and rests twice as long each time, up to five minutes", async () => {
    const { stuck, driven, triesAfter } = aStuckOne();
    await driven.calm();
    expect(driven.failed).toEqual([{ file: stuck, code: "ENOTDIR" }]);
    let tries = 1;
    for (const seconds of [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]) {
      expect([seconds, await triesAfter(seconds * 1000 - 1)]).toEqual([seconds, tries]);
      tries += 1;
      expect([seconds, await triesAfter(1)]).toEqual([seconds, tries]);
    }
    expect(driven.enforcer.status().deleteErrors).toBe(tries);
    expect(driven.logged.filter(({ level }) => level === 50)).toMatchObject([
      { archive: stuck, err: { code: "ENOTDIR" }, msg: "archive cannot be deleted; it is tried again" },
    ]);
    expect(driven.deleted).toEqual([]);
  });

  it("is told of as what stands in the way of its limit, with the code, until it is gone", async () => {
    const { folder, stuck, driven, free, triesAfter } = aStuckOne();
    const unreachable = () => driven.enforcer.status().unreachable;
    await driven.calm();
    expect([...driven.enforcer.status().failing]).toEqual([[stuck, "ENOTDIR"]]);
    const told = { limit: "max_checkpoints", wanted: 1, freed: 0, obstacles: { failing: 1 }, codes: ["ENOTDIR"] };
    expect(unreachable()).toMatchObject([told]);
    // It stays so while it is tried again.
    for (const seconds of [1, 2, 4]) {
      await triesAfter(seconds * 1000);
      expect(unreachable()).toMatchObject([told]);
    }
    expect(driven.logged.filter(({ msg }) => msg === "limit cannot be reached")).toHaveLength(1);
    free();
    await triesAfter(8000);
    expect(existsSync(join(folder, stuck))).toBe(false);
    expect(unreachable()).toEqual([]);
    expect(driven.enforcer.status().failing.size).toBe(0);
  });

  it("is tried again until it is gone, also if it is torn and has no owner", async () => {
    const folder = aFolder();
    const names = { namespace: "team", container: "prod-main" };
    const file = writeArchive(folder, { ...names, pagesBytes: 2 << 20 });
    truncateSync(join(folder, file), 3 << 19);
    let isStuck = true;
    const spec = { nodePolicy: { maxTotalSize: "1Mi" } };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder), isStuck: () => isStuck });
    driven.see(file, { isTold: false });
    driven.clock.pass(OWNERLESS_AFTER_MS);
    expect(driven.see(file, { isWalked: false })).toMatchObject({ state: "incomplete", identity: undefined });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.failed).toEqual([{ file, code: "ENOTDIR" }]);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toMatchObject([
      { limit: "node_max_total_size", obstacles: { failing: 1 }, codes: ["ENOTDIR"] },
    ]);
    isStuck = false;
    driven.clock.pass(1000);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file, reason: "node_max_total_size" }]);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("is not told of as planned", async () => {
    const { driven } = aStuckOne();
    await driven.calm();
    expect(driven.failed).toHaveLength(1);
    expect(driven.enforcer.status().planned.size).toBe(0);
  });

  it("is forgotten with its directory", async () => {
    const { stuck, driven } = aStuckOne();
    await driven.calm();
    expect(driven.failed).toHaveLength(1);
    await driven.enforcer.setDirectory(driven.directory);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([stuck]);
  });

  it("is deleted as soon as that can be, and what fails later begins anew", async () => {
    const { folder, stuck, kept, driven, free, triesAfter } = aStuckOne();
    await driven.calm();
    await triesAfter(1000);
    free();
    await triesAfter(1999);
    expect(driven.files()).toEqual([]);
    expect(await triesAfter(1)).toBe(2);
    expect(driven.files()).toEqual([stuck]);
    expect([existsSync(join(folder, stuck)), existsSync(join(folder, kept))]).toEqual([false, true]);
    await triesAfter(600_000);
    // Three tries, and a plan for what is told of the limit after the first one and after the last.
    expect(driven.runs()).toBe(5);
  });

  it("rests also where an event has it planned again", async () => {
    const { kept, driven, triesAfter } = aStuckOne();
    await driven.calm();
    driven.see(kept, { isEvent: true });
    await driven.calm();
    expect([driven.runs(), driven.failed.length]).toEqual([3, 1]);
    expect(await triesAfter(1000)).toBe(2);
  });

  it("is tried again although something happens elsewhere just before", async () => {
    const { folder, driven, triesAfter } = aStuckOne();
    await driven.calm();
    const [elsewhere = ""] = aSeries(folder, 1, { container: "elsewhere" });
    driven.clock.pass(1000);
    driven.see(elsewhere, { isEvent: true });
    await driven.calm();
    expect(driven.failed).toHaveLength(1);
    expect(await triesAfter(0)).toBe(2);
  });

  it("is not tried again once it is gone, or no policy asks for that any more", async () => {
    const gone = aStuckOne();
    await gone.driven.calm();
    unlinkSync(join(gone.folder, gone.stuck));
    gone.driven.see(gone.stuck);
    await gone.driven.calm();
    expect(await gone.triesAfter(1000)).toBe(1);
    const unwanted = aStuckOne();
    await unwanted.driven.calm();
    unwanted.driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 0 } });
    await unwanted.driven.calm();
    expect(await unwanted.triesAfter(1000)).toBe(1);
    const runs = unwanted.driven.runs();
    expect(await unwanted.triesAfter(600_000)).toBe(1);
    expect(unwanted.driven.runs()).toBe(runs);
  });
});

describe("a node whose disk is full and of which nothing can be deleted", () => {
  it("plans once more at most until the disk is read again, and tries each archive ever more seldom", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 30);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { minFree: "1Gi" } }, folder),
      isStuck: (file) => file.endsWith(".tar"),
      readDisk: () => ({ sizeBytes: 1000, usedBytes: 999, availableBytes: 1 }),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    const perFile = (file: string) => driven.failed.filter((failure) => failure.file === file).length;
    for (let second = 0; second < 60; second += 1) {
      driven.clock.pass(1000);
      driven.enforcer.tick();
      await driven.calm();
    }
    // After 1, 2, 4, 8, 16 and 32 s, or with the next look at the disk after that.
    expect(perFile(files[0] ?? "")).toBeLessThanOrEqual(7);
    expect(driven.logged.filter(({ archive, level }) => level === 50 && archive === files[0])).toHaveLength(1);
    expect(driven.runs()).toBeLessThan(80);
    expect(driven.files()).toEqual([]);
  });

  it("forgets what could not be deleted once the disk is no longer full", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    let isFull = true;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { minFree: "1Gi" } }, folder),
      isStuck: () => true,
      readDisk: () => ({ sizeBytes: 2 ** 40, usedBytes: 0, availableBytes: isFull ? 1 : 2 ** 40 }),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    const second = async () => {
      driven.clock.pass(1000);
      driven.enforcer.tick();
      await driven.calm();
    };
    for (let at = 0; at < 60; at += 1) await second();
    const tries = driven.failed.length;
    expect(tries).toBeGreaterThan(3);
    isFull = false;
    for (let at = 0; at < 60; at += 1) await second();
    isFull = true;
    // Forgotten, it is tried at the first look at a full disk, and not after the minute that it would rest.
    for (let at = 0; at < 15; at += 1) await second();
    expect(driven.failed.length).toBeGreaterThan(tries + 1);
  });
});

describe("a run that fails", () => {
  it("is logged, and what was told meanwhile is acted upon", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const others = aSeries(folder, 2, { container: "other" });
    let isBroken = true;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      mayFail: true,
      readDisk: () => {
        if (!isBroken || driven.index.size < 4) return undefined;
        isBroken = false;
        driven.see(others[1] ?? "", { isEvent: true });
        throw new Error("the disk is on fire");
      },
    });
    for (const file of [...files, ...others]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([others[0]]);
    expect(driven.logged.filter(({ level }) => level === 50)).toMatchObject([
      { err: { message: "the disk is on fire" }, msg: "enforcement failed; everything is planned anew" },
    ]);
  });
});

describe("how full the disk is", () => {
  it("is not known of a file system that answers zeros", () => {
    const opened = openDirectory("/proc/self/task", []);
    if (!opened.ok) throw new Error(opened.problem.message);
    expect(readDisk(opened.directory)).toBeUndefined();
    opened.directory.close();
  });

  it("is told of the file system that holds the directory, and is not known where that cannot be asked", () => {
    const opened = openDirectory(aFolder(), []);
    if (!opened.ok) throw new Error(opened.problem.message);
    const disk = readDisk(opened.directory);
    expect(disk?.sizeBytes).toBeGreaterThan(0);
    expect((disk?.usedBytes ?? 0) + (disk?.availableBytes ?? 0)).toBeLessThanOrEqual(disk?.sizeBytes ?? 0);
    opened.directory.close();
    expect(readDisk(opened.directory)).toBeUndefined();
  });
});
