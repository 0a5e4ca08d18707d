import { closeSync, mkdirSync, openSync, renameSync, statfsSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import { patience, soak } from "../../shared/test/support/soak.ts";
import { createStateFolder } from "../src/policy/state-folder.ts";
import { archiveBytes, archiveName, archivesIn, archiveTime, writeArchive } from "./support/archives.ts";
import {
  aDiskFileSystem,
  aMemoryFileSystem,
  changeAttributes,
  makeBusy,
  remount,
  whyNoLoop,
} from "./support/file-systems.ts";
import { aFolder, watchDirectory } from "./support/watching.ts";

const MIB = 1024 * 1024;
const isRoot = process.getuid?.() === 0;
const noLoop = whyNoLoop();

const until = (condition: () => unknown, timeoutMs = 30_000) =>
  vi.waitFor(condition, { timeout: timeoutMs, interval: 20 });
const keepOnly = (maxCheckpointsPerContainer: number) => ({
  applyPoliciesImmediately: true,
  globalPolicy: { maxCheckpointsPerContainer },
});

/** Archives of one container, an hour old and a minute apart, the oldest first. */
function series(folder: string, count: number, parts: { container?: string; pagesBytes?: number } = {}): string[] {
  return Array.from({ length: count }, (_, at) => {
    const timeMs = Date.now() - 3_600_000 + at * 60_000;
    return writeArchive(folder, { ...parts, time: archiveTime(timeMs), mtimeMs: timeMs });
  });
}

describe("a file system that is full", () => {
  it("leaves half an archive, which goes before any whole one once nobody writes it", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aMemoryFileSystem("size=8m");
    const whole = series(folder, 3);
    const torn = archiveName({ time: archiveTime(Date.now()) });
    const writer = openSync(join(folder, torn), "w");
    const bytes = archiveBytes({ pagesBytes: 16 * MIB });
    let error: NodeJS.ErrnoException | undefined;
    try {
      for (let at = 0; at < bytes.length; ) at += writeSync(writer, bytes, at);
    } catch (cause) {
      error = cause as NodeJS.ErrnoException;
    }
    closeSync(writer);
    expect(error?.code).toBe("ENOSPC");
    const watching = watchDirectory(folder, { spec: keepOnly(3), incompleteAfterMs: 2000 });
    await until(() => expect(watching.deleted).toEqual([{ file: torn, reason: "max_checkpoints" }]));
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(archivesIn(folder)).toEqual(whole);
  });

  it("of files has as many inodes free as asked for, once the oldest archives have gone", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aMemoryFileSystem("size=8m,nr_inodes=24");
    const files = series(folder, 6);
    const freeInodes = () => statfsSync(folder).ffree;
    for (let at = 0; freeInodes() > 2; at += 1) writeFileSync(join(folder, `other-${at}`), "");
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { minFreeInodes: 5 } };
    const watching = watchDirectory(folder, { spec });
    await until(() => expect(watching.deleted).toHaveLength(3));
    await until(() => expect(watching.isCalm()).toBe(true));
    // Each goes as soon as the agent has seen it unchanged for long enough, which the oldest may not be the first to be.
    expect(watching.deleted.map(({ file, reason }) => `${reason} ${file}`).sort()).toEqual(
      files.slice(0, 3).map((file) => `node_inodes ${file}`),
    );
    expect(freeInodes()).toBe(5);
  });

  it("of inodes or of bytes keeps the agent from writing its state, which it tells, and from nothing else", async ({
    skip,
  }) => {
    if (!isRoot) skip("mounting needs root");
    for (const options of ["size=1m,nr_inodes=16", "size=128k"]) {
      const folder = aMemoryFileSystem(options);
      const files = series(folder, 4);
      try {
        for (let at = 0; ; at++)
          writeFileSync(join(folder, `filler-${at}`), options.includes("inodes") ? "" : "x".repeat(4096));
      } catch (cause) {
        expect((cause as NodeJS.ErrnoException).code).toBe("ENOSPC");
      }
      const problems: string[] = [];
      const state = createStateFolder(folder, (message) => problems.push(message));
      await state.writeWatched({ device: "1", inode: "2", seen: "" });
      expect([options, problems]).toEqual([options, ["state cannot be written"]]);
      const watching = watchDirectory(folder, { spec: keepOnly(2) });
      await until(() => expect(archivesIn(folder)).toEqual(files.slice(2)));
      expect(watching.failed).toEqual([]);
    }
  });
});

describe("a file system that cannot be written", () => {
  it("loses nothing while it is read-only, and what is due when it can be written again", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aMemoryFileSystem("size=8m");
    const files = series(folder, 3);
    remount(folder, "ro");
    const watching = watchDirectory(folder, { spec: keepOnly(1) });
    await until(() => expect(watching.failed.length).toBeGreaterThanOrEqual(4));
    expect(new Set(watching.failed.map(({ code }) => code))).toEqual(new Set(["EROFS"]));
    expect(archivesIn(folder)).toEqual(files);
    expect(watching.logged.filter(({ msg }) => String(msg).startsWith("archive cannot be deleted"))).toHaveLength(2);
    remount(folder, "rw");
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(2)));
  }, 60_000);

  it("loses nothing else in the place of archives that are immutable, nor of a directory that only grows", async ({
    skip,
  }) => {
    if (noLoop !== undefined) skip(noLoop);
    const { folder } = aDiskFileSystem(16 * MIB);
    const files = series(folder, 4);
    const [first = ""] = files;
    changeAttributes("+i", join(folder, first));
    const watching = watchDirectory(folder, { spec: keepOnly(2) });
    await until(() => expect(archivesIn(folder)).toEqual([first, ...files.slice(2)]));
    await until(() => expect(watching.failed).toContainEqual({ file: first, code: "EPERM" }));
    changeAttributes("+a", folder);
    const next = writeArchive(folder, { time: archiveTime(Date.now() - 60_000), mtimeMs: Date.now() - 60_000 });
    await until(() => expect(watching.failed).toContainEqual({ file: files[2], code: "EPERM" }));
    expect(archivesIn(folder)).toEqual([first, files[2], files[3], next]);
    changeAttributes("-a", folder);
    changeAttributes("-i", join(folder, first));
    await until(() => expect(archivesIn(folder)).toEqual([files[3], next]));
  }, 90_000);

  it("keeps an archive that is busy, tries it again, and takes no other in its place", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aFolder();
    const files = series(folder, 3);
    const [first = ""] = files;
    const busy = makeBusy(join(folder, first));
    const watching = watchDirectory(folder, { spec: keepOnly(2) });
    await until(() => expect(watching.failed.length).toBeGreaterThanOrEqual(2));
    expect(watching.failed[0]).toEqual({ file: first, code: "EBUSY" });
    expect(archivesIn(folder)).toEqual(files);
    busy.release();
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(1)));
  });
});

describe("a disk that fails", () => {
  it("makes what cannot be read unread: it stays, is told with its error, counts nowhere and stands in nobody's way", async ({
    skip,
  }) => {
    if (noLoop !== undefined) skip(noLoop);
    const disk = aDiskFileSystem(64 * MIB);
    const readable = series(disk.folder, 3);
    const filler = join(disk.folder, "filler");
    writeFileSync(filler, Buffer.alloc(24 * MIB, 1));
    // The oldest of its container, and the only one of a container whose name has two readings.
    const lost = [
      { time: "2026-01-01T00:00:00Z" },
      { namespace: "team", container: "prod-main", time: "2026-01-01T00:00:00Z" },
    ].map((parts) => writeArchive(disk.folder, { ...parts, pagesBytes: 8 * MIB }));
    disk.breakBehind(20 * MIB);
    const watching = watchDirectory(disk.folder, { spec: keepOnly(2) });
    await until(() => expect(watching.deleted).toEqual([{ file: readable[0], reason: "max_checkpoints" }]));
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(lost.map((file) => watching.state(file))).toEqual(["unread", "unread"]);
    expect(lost.map((file) => watching.index.get(file)?.problem)).toEqual([
      "reading failed: EIO",
      "reading failed: EIO",
    ]);
    expect(archivesIn(disk.folder)).toEqual([...readable.slice(1), ...lost].sort());
  }, 60_000);
});

describe("a directory of 100,000 archives, each of a namespace of its own", () => {
  it("is watched all the same: an arrival takes the oldest of its container, and nothing else goes", async () => {
    const folder = aFolder();
    const count = 100_000;
    const bytes = archiveBytes({ runtime: "none", pagesBytes: 0 });
    for (let at = 0; at < count; at++) {
      writeFileSync(join(folder, archiveName({ namespace: `t${at}`, time: "2026-01-01T00:00:00Z" })), bytes);
    }
    const files = series(folder, 2, { container: "busy" });
    const watching = watchDirectory(folder, { spec: keepOnly(2) });
    await until(() => expect(watching.isCalm()).toBe(true), 120_000);
    expect(watching.deleted).toEqual([]);
    const next = writeArchive(folder, { container: "busy", time: archiveTime(Date.now()) });
    await until(() => expect(watching.deleted).toEqual([{ file: files[0], reason: "max_checkpoints" }]));
    expect(watching.state(next)).toBe("complete");
    expect(archivesIn(folder)).toHaveLength(count + 2);
  }, 240_000);
});

describe("a directory that is replaced while it is listed", () => {
  it(
    "loses what its policy asks for and nothing by what was seen of the one before",
    async () => {
      // All of them are watched until the test is over, so that there cannot be very many.
      const turns = Math.min(soak(10), 40);
      for (let turn = 0; turn < turns; turn++) {
        const parent = aFolder();
        const [folder, aside, next] = ["checkpoints", "aside", "next"].map((name) => join(parent, name)) as [
          string,
          string,
          string,
        ];
        for (const path of [folder, next]) mkdirSync(path);
        const names = series(folder, 300);
        series(folder, 300, { container: "other" });
        // Under the names that would go in the old one, in the new one is what has to stay.
        const kept = names.slice(0, 10);
        for (const file of kept) writeFileSync(join(next, file), archiveBytes());
        const watching = watchDirectory(folder, { spec: keepOnly(10) });
        for (let waited = 0; waited < turn * 7; waited++) await new Promise((resolve) => setImmediate(resolve));
        renameSync(folder, aside);
        renameSync(next, folder);
        await until(() => expect(watching.files()).toEqual(kept));
        await until(() => expect(watching.isCalm()).toBe(true));
        expect(archivesIn(folder)).toEqual(kept);
        const left = archivesIn(aside);
        // What had been deleted by then was the old one's surplus.
        expect(left).toEqual(expect.arrayContaining(names.slice(-10)));
      }
    },
    patience(120_000),
  );
});
