import {
  appendFileSync,
  chmodSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { isMainThread } from "node:worker_threads";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { systemClock } from "../../src/clock.ts";
import type { Watched } from "../../src/policy/state-folder.ts";
import { archiveBytes, archiveName, archivesIn, archiveTime, writeArchive } from "../support/archives.ts";
import { packNames } from "../support/seen.ts";
import { aFolder, watchDirectory } from "../support/watching.ts";

const until = (condition: () => void) => vi.waitFor(condition, { timeout: 60_000, interval: 10 });
vi.setConfig({ testTimeout: 180_000 });
const HOUR_MS = 3_600_000;

/** Acts on a container with its next arrival only. */
const keepOne = { globalPolicy: { maxCheckpointsPerContainer: 1 } };
const keepAll = { globalPolicy: { maxCheckpointsPerContainer: 0 } };
const watch = (folder: string, options: Parameters<typeof watchDirectory>[1] = {}) =>
  watchDirectory(folder, { spec: keepAll, ...options });

/** So many archives of one container, an hour old by name and mtime. */
function series(folder: string, count: number, container = "main"): string[] {
  return Array.from({ length: count }, (_, at) => {
    const timeMs = Date.now() - HOUR_MS + at * 1000;
    return writeArchive(folder, { container, time: archiveTime(timeMs), mtimeMs: timeMs });
  });
}

/** The record of a directory in which these archives were seen. */
function aRecord(folder: string, names: string[]): Watched {
  const { dev, ino } = statSync(folder, { bigint: true });
  return { device: `${dev}`, inode: `${ino}`, seen: packNames(names) };
}

/** Waits until all there is was listed, walked and acted upon; what is to go, but is too fresh to, is waited for, too. */
async function calm(watching: ReturnType<typeof watchDirectory>): Promise<void> {
  await until(() => expect(watching.isCalm()).toBe(true));
}

/** Waits until every event of the kernel so far has been handled: those of an archive that comes and goes are later. */
async function settle(folder: string, watching: ReturnType<typeof watchDirectory>): Promise<void> {
  const last = writeArchive(folder, { container: "last", time: archiveTime(Date.now() - HOUR_MS) });
  await until(() => expect(watching.state(last)).toBe("complete"));
  unlinkSync(join(folder, last));
  await until(() => expect(watching.index.get(last)).toBeUndefined());
  await calm(watching);
  // It is news itself, unless the first listing found it.
  const at = watching.events.indexOf(last);
  if (at !== -1) watching.events.splice(at, 1);
}

/** What leaves an archive where it is, and as it is. */
const harmless: Record<string, (path: string) => void> = {
  "chmod -R": (path) => chmodSync(path, 0o640),
  touch: (path) => utimesSync(path, new Date(), new Date()),
  "touch -d, long ago": (path) => utimesSync(path, 1_000_000_000, 1_000_000_000),
  "a pin": (path) => writeFileSync(`${path}.keep`, ""),
  "a pin that comes and goes": (path) => {
    writeFileSync(`${path}.keep`, "");
    unlinkSync(`${path}.keep`);
  },
};

describe("the first listing", () => {
  it.each(Object.entries(harmless))("makes no news of archives that get %s while it runs", async (_, change) => {
    const folder = aFolder();
    const files = series(folder, 100);
    const watching = watch(folder, { spec: keepOne });
    // The listing has only been asked for: these events come while it runs.
    for (const file of files) change(join(folder, file));
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
    expect(archivesIn(folder)).toEqual(files);
  });

  it("deletes no other archive of a container when one of them is pinned while it runs", async () => {
    const folder = aFolder();
    const files = series(folder, 5);
    const watching = watch(folder, { spec: keepOne });
    writeFileSync(join(folder, `${files[4]}.keep`), "");
    await settle(folder, watching);
    expect(watching.index.get(files[4] ?? "")?.pinned).toBe(true);
    expect(archivesIn(folder)).toEqual(files);
  });

  it("makes no news of what is renamed, removed or overwritten while it runs", async () => {
    const folder = aFolder();
    const files = series(folder, 4);
    const [overwritten = "", removed = "", replaced = ""] = files;
    const other = join(aFolder(), "other");
    writeFileSync(other, archiveBytes({ container: "main", pagesBytes: 8192 }));
    const watching = watch(folder, { spec: keepOne });
    writeFileSync(join(folder, overwritten), archiveBytes({ container: "main", pagesBytes: 16_384 }));
    unlinkSync(join(folder, removed));
    renameSync(other, join(folder, replaced));
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
    expect(archivesIn(folder)).toEqual(files.filter((file) => file !== removed));
  });

  it("ends although events never do", async () => {
    const folder = aFolder();
    const files = series(folder, 50);
    let nowMs = 0;
    const clock = {
      ...systemClock,
      // Time flies: each look is a slice of its own, and no file was looked at so recently that its event has to wait.
      monotonicMs: () => {
        nowMs += 1000;
        return nowMs;
      },
    };
    const watching = watch(folder, { clock });
    for (let round = 0; round < 1000 && !watching.observer.status().isListed; round += 1) {
      for (const file of files) chmodSync(join(folder, file), round % 2 === 0 ? 0o640 : 0o600);
      await nextTurn();
    }
    expect(watching.observer.status().isListed).toBe(true);
    expect(watching.events).toEqual([]);
  });

  it("makes no news of archives that it could not look at, once it can", async ({ skip }) => {
    if (process.getuid?.() !== 0) skip("giving up rights for a moment needs root");
    if (!isMainThread) skip("the rights of a process are not to be changed in one of its threads");
    const folder = aFolder();
    const files = series(folder, 3);
    let isListing = false;
    let calls = 0;
    const clock = {
      // A full listing compares the two clocks before it reads any name.
      wallMs: () => {
        isListing = true;
        return Date.now();
      },
      // Asked for the second time since, all names have been read and none has been looked at.
      monotonicMs: () => {
        if (isListing) calls += 1;
        if (calls === 2) process.seteuid?.(65_534);
        return performance.now();
      },
    };
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    onTestFinished(() => {
      process.seteuid?.(0);
      vi.useRealTimers();
    });
    const watching = watch(folder, { clock });
    for (let turn = 0; turn < 1_000_000 && !watching.observer.status().isListed; turn += 1) await nextTurn();
    const record = watching.observer.record();
    process.seteuid?.(0);
    expect(watching.index.size).toBe(0);
    expect(record).toEqual(aRecord(folder, files));
    await until(() => expect([...watching.index.all()].filter(({ state }) => state === "complete")).toHaveLength(3));
    expect(watching.events).toEqual([]);
  });
});

describe("with a record of the directory", () => {
  it("an archive that was not there is news once, however old it is, and one that was there is not", async () => {
    const folder = aFolder();
    const known = series(folder, 3, "known");
    const fresh = series(folder, 1, "fresh");
    const watching = watch(folder, { watched: aRecord(folder, known) });
    for (const file of [...known, ...fresh]) for (const change of Object.values(harmless)) change(join(folder, file));
    await settle(folder, watching);
    for (const file of fresh) utimesSync(join(folder, file), new Date(), new Date());
    await settle(folder, watching);
    expect(watching.events).toEqual(fresh);
  });

  it("of another directory, or one that is damaged, nothing found is news", async () => {
    const folder = aFolder();
    series(folder, 3);
    const record = aRecord(folder, []);
    for (const watched of [
      { ...record, inode: `${BigInt(record.inode) + 1n}` },
      { ...record, device: `${BigInt(record.device) + 1n}` },
      { ...record, seen: "AAA" },
    ]) {
      const watching = watch(folder, { watched });
      await calm(watching);
      expect(watching.events).toEqual([]);
      await watching.stop();
    }
  });
});

describe("once the directory is listed", () => {
  it.each(Object.entries(harmless))("%s makes no news of what is there", async (_, change) => {
    const folder = aFolder();
    const files = series(folder, 5);
    const watching = watch(folder, { spec: keepOne });
    await calm(watching);
    for (const file of files) change(join(folder, file));
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
    expect(archivesIn(folder)).toEqual(files);
  });

  const overwrite = (path: string, bytes: Uint8Array) => {
    const descriptor = openSync(path, "r+");
    writeSync(descriptor, bytes, 0, bytes.length, 0);
    closeSync(descriptor);
  };
  const ambiguous = (namespace: string, container: string, pagesBytes = 4096) =>
    archiveBytes({ pod: "p", namespace, container, pagesBytes });

  it("another file under the same name, or another size, makes an archive news again", async () => {
    const folder = aFolder();
    const [replaced = "", grown = "", cut = ""] = series(folder, 3);
    const watching = watch(folder);
    await calm(watching);
    const other = join(aFolder(), "other");
    writeFileSync(other, readFileSync(join(folder, replaced)));
    const { mtimeMs } = statSync(join(folder, replaced));
    utimesSync(other, mtimeMs / 1000, mtimeMs / 1000);
    renameSync(other, join(folder, replaced));
    await until(() => expect(watching.events).toEqual([replaced]));
    overwrite(join(folder, grown), archiveBytes({ container: "main", pagesBytes: 65_536 }));
    await until(() => expect(watching.events).toEqual([replaced, grown]));
    writeFileSync(join(folder, cut), archiveBytes({ container: "main", pagesBytes: 512 }));
    await until(() => expect(watching.events).toEqual([replaced, grown, cut]));
  });

  it("another content of the same size makes an archive news again, and the same content does not", async () => {
    const folder = aFolder();
    const file = "checkpoint-p_a-b-c-2026-01-02T03:04:05Z.tar";
    writeFileSync(join(folder, file), ambiguous("a", "b-c", 65_536));
    const watching = watch(folder);
    await until(() => expect(watching.index.get(file)?.identity?.namespace).toBe("a"));
    overwrite(join(folder, file), ambiguous("a", "b-c", 65_536));
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
    // The tail of the older one stays, and so does the size.
    overwrite(join(folder, file), ambiguous("a-b", "c"));
    await until(() => expect(watching.index.get(file)?.identity?.namespace).toBe("a-b"));
    await settle(folder, watching);
    expect(watching.events).toEqual([file]);
  });

  it("an archive that was found half written is news when the rest has come", async () => {
    const folder = aFolder();
    const file = archiveName();
    writeFileSync(join(folder, file), archiveBytes().subarray(0, 3000));
    const watching = watch(folder);
    await until(() => expect(watching.state(file)).toBe("unsettled"));
    utimesSync(join(folder, file), new Date(), new Date());
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
    expect(watching.observer.record()).toEqual(aRecord(folder, [file]));
    appendFileSync(join(folder, file), archiveBytes().subarray(3000));
    await until(() => expect(watching.events).toEqual([file]));
  });

  it("an arrival that waits for the clock is told once the clock has passed it, and not again after a step back", async () => {
    const folder = aFolder();
    let aheadMs = 0;
    const clock = { ...systemClock, wallMs: () => Date.now() + aheadMs };
    const watching = watch(folder, { clock });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = writeArchive(folder, { time: archiveTime(Date.now() + HOUR_MS) });
    await until(() => expect(watching.state(file)).toBe("postdated"));
    expect(watching.observer.record()).toEqual(aRecord(folder, []));
    for (const ms of [2 * HOUR_MS, 0, 2 * HOUR_MS]) {
      aheadMs = ms;
      await until(() => expect(watching.state(file)).toBe(ms === 0 ? "postdated" : "complete"));
      expect(watching.events).toEqual([file]);
      expect(watching.observer.record()).toEqual(aRecord(folder, [file]));
    }
  });

  it("a pinned half archive is no event when it is given up, nor when its pin goes", async () => {
    const folder = aFolder();
    const watching = watch(folder, { incompleteAfterMs: 300 });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = archiveName();
    writeFileSync(join(folder, `${file}.keep`), "");
    writeFileSync(join(folder, file), archiveBytes().subarray(0, 3000));
    await until(() => expect(watching.state(file)).toBe("incomplete"));
    unlinkSync(join(folder, `${file}.keep`));
    await until(() => expect(watching.index.get(file)?.pinned).toBe(false));
    await settle(folder, watching);
    expect(watching.events).toEqual([]);
  });
});

describe("the record for the next start", () => {
  it("is unknown before the first listing, holds what is there after it, and is the same object at rest", async () => {
    const folder = aFolder();
    const files = series(folder, 3);
    const watching = watch(folder);
    expect(watching.observer.record()).toBeUndefined();
    await calm(watching);
    const record = watching.observer.record();
    expect(record).toEqual(aRecord(folder, files));
    expect(watching.observer.record()).toBe(record);
    chmodSync(join(folder, files[0] ?? ""), 0o640);
    utimesSync(join(folder, files[1] ?? ""), new Date(), new Date());
    await settle(folder, watching);
    expect(watching.observer.record()).toBe(record);
    unlinkSync(join(folder, files[2] ?? ""));
    await until(() => expect(watching.observer.record()).toEqual(aRecord(folder, files.slice(0, 2))));
  });

  it("is the one that was kept until the directory has been listed again", async () => {
    const folder = aFolder();
    series(folder, 3);
    const watched = aRecord(folder, ["one that is gone"]);
    const watching = watch(folder, { watched });
    expect(watching.observer.record()).toBe(watched);
    const missing = watch(join(folder, "missing"), { watched });
    expect(missing.observer.record()).toBe(watched);
  });

  it("is not used for a directory that this observer has seen since", async () => {
    const [folder, other] = [aFolder(), aFolder()];
    const watched = aRecord(folder, []);
    const [file] = series(folder, 1);
    const watching = watch(folder, { watched });
    await until(() => expect(watching.events).toEqual([file]));
    watching.observer.setPath(other, watched);
    await until(() => expect(watching.observer.record()).toEqual(aRecord(other, [])));
    watching.observer.setPath(folder, watched);
    await settle(folder, watching);
    expect(watching.events).toEqual([file]);
  });

  it("leaves out a half archive, so that it is news at the next start, when it is whole", async () => {
    const folder = aFolder();
    const first = watch(folder);
    await until(() => expect(first.observer.status().isListed).toBe(true));
    const file = archiveName();
    writeFileSync(join(folder, file), archiveBytes().subarray(0, 3000));
    await until(() => expect(first.state(file)).toBe("unsettled"));
    const watched = first.observer.record();
    await first.stop();
    expect(watched).toEqual(aRecord(folder, []));
    appendFileSync(join(folder, file), archiveBytes().subarray(3000));
    const second = watch(folder, { watched: watched as Watched });
    await until(() => expect(second.events).toEqual([file]));
    await calm(second);
    expect(second.observer.record()).toEqual(aRecord(folder, [file]));
  });
});

describe("a directory that goes and comes back", () => {
  it("brings as news what came in between, and arrivals whose event had not come before it went", async () => {
    const parent = aFolder();
    const [folder, aside] = [join(parent, "checkpoints"), join(parent, "aside")];
    mkdirSync(folder);
    const files = series(folder, 3);
    const watching = watch(folder);
    await calm(watching);
    const torn = archiveName({ container: "torn" });
    writeFileSync(join(folder, torn), archiveBytes({ container: "torn" }).subarray(0, 3000));
    await until(() => expect(watching.state(torn)).toBe("unsettled"));
    renameSync(folder, aside);
    await until(() => expect(watching.observer.status().state).toBe("missing"));
    appendFileSync(join(aside, torn), archiveBytes({ container: "torn" }).subarray(3000));
    const came = writeArchive(aside, { container: "came", mtimeMs: 0 });
    for (const file of files) chmodSync(join(aside, file), 0o640);
    // For a while another one is in its place, as under a file system that is unmounted.
    mkdirSync(folder);
    const below = writeArchive(folder, { container: "below" });
    await until(() => expect(watching.state(below)).toBe("complete"));
    rmSync(folder, { recursive: true });
    renameSync(aside, folder);
    await until(() => expect(watching.state(came)).toBe("complete"));
    await until(() => expect(watching.events.toSorted()).toEqual([came, torn].sort()));
    await settle(folder, watching);
    expect(watching.events.toSorted()).toEqual([came, torn].sort());
    expect(existsSync(join(folder, below))).toBe(false);
  });
});
