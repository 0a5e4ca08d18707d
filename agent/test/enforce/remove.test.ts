import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseArchiveName } from "../../src/archive/name.ts";
import { removeArchive } from "../../src/enforce/remove.ts";
import { type Directory, openDirectory } from "../../src/inventory/directory.ts";
import { findFile, newEntry } from "../../src/inventory/entry.ts";
import { archiveBytes, archiveName, writeArchive } from "../support/archives.ts";
import { aFolder } from "../support/watching.ts";

/** Of every archive here, so that what takes one's place can have it, too. */
const MTIME = new Date(1_700_000_000_000);

function anEntry() {
  const folder = aFolder();
  const file = writeArchive(folder, { mtimeMs: MTIME.getTime() });
  const opened = openDirectory(folder, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  const { directory } = opened;
  onTestFinished(() => directory.close());
  const found = findFile(directory, file);
  const name = parseArchiveName(file);
  if (found.kind !== "file" || name === undefined) throw new Error("no archive");
  const facts = { file, timeMs: name.timeMs, listed: 1, pinned: false, isNews: false, unchangedSinceMs: 0 };
  return { folder, path: join(folder, file), directory, entry: newEntry(name, found.stat, facts) };
}

function fail(): never {
  throw new Error("no error of the system");
}

describe("the last look before a deletion", () => {
  it("deletes what is as it was planned", async () => {
    const { directory, entry } = anEntry();
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "deleted" });
    expect(findFile(directory, entry.file).kind).toBe("absent");
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "gone" });
  });

  const changes: Array<[string, why: string, (path: string, folder: string) => void]> = [
    [
      "replaced by another file of the same size and mtime",
      "was replaced",
      (path) => {
        writeFileSync(`${path}.new`, readFileSync(path));
        utimesSync(`${path}.new`, MTIME, MTIME);
        renameSync(`${path}.new`, path);
      },
    ],
    [
      "written to, its mtime set back",
      "was changed",
      (path) => {
        writeFileSync(path, "more", { flag: "a" });
        utimesSync(path, MTIME, MTIME);
      },
    ],
    ["touched", "was changed", (path) => utimesSync(path, 1, 1)],
    ["pinned", "was pinned", (path) => writeFileSync(`${path}.keep`, "")],
    ["pinned by a directory", "was pinned", (path) => mkdirSync(`${path}.keep`)],
    ["pinned by a link that leads nowhere", "was pinned", (path) => symlinkSync("/nowhere", `${path}.keep`)],
    [
      "a link now",
      "is no regular file any more",
      (path) => {
        renameSync(path, `${path}.aside`);
        symlinkSync(`${path}.aside`, path);
      },
    ],
    [
      "a directory now",
      "is no regular file any more",
      (path) => {
        rmSync(path);
        mkdirSync(path);
      },
    ],
  ];
  it.each(changes)("keeps what was %s since the plan, for it %s", async (_what, why, change) => {
    const { path, folder, directory, entry } = anEntry();
    change(path, folder);
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "refused", why });
    expect(findFile(directory, entry.file).kind).not.toBe("absent");
  });

  it("keeps everything while deletion is paused", async () => {
    const { path, folder, directory, entry } = anEntry();
    writeFileSync(join(folder, ".pause"), "");
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "paused" });
    expect(existsSync(path)).toBe(true);
  });

  const survivorChanges: Array<[what: string, change: (path: string) => void]> = [
    ["moved away", (path) => renameSync(path, `${path}.aside`)],
    [
      "replaced",
      (path) => {
        renameSync(path, `${path}.aside`);
        writeFileSync(path, "other");
      },
    ],
    ["written to", (path) => writeFileSync(path, "more", { flag: "a" })],
    [
      "a link now",
      (path) => {
        renameSync(path, `${path}.aside`);
        symlinkSync(`${path}.aside`, path);
      },
    ],
  ];
  it.each(survivorChanges)("keeps an archive if the newest one that would be left was %s", async (_, change) => {
    const { path, folder, directory, entry } = anEntry();
    const file = writeArchive(folder, { time: "2030-01-01T00:00:00Z" });
    const found = findFile(directory, file);
    if (found.kind !== "file") throw new Error("no file");
    const facts = { file, timeMs: entry.timeMs, listed: 2, pinned: false, isNews: false, unchangedSinceMs: 0 };
    const survivor = newEntry(entry.name, found.stat, facts);
    change(join(folder, file));
    const why = `is perhaps the newest of its container, as ${file} is not what it was`;
    expect(await removeArchive(directory, entry, survivor)).toEqual({ outcome: "refused", why });
    expect(existsSync(path)).toBe(true);
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "deleted" });
  });

  describe("where a file cannot be looked at or unlinked", () => {
    /** The directory with the place of one file led astray: below a file, where nothing can be. */
    const astray = (
      directory: Directory,
      { path, isLed }: { path: string; isLed: (file: string) => boolean },
    ): Directory => ({
      ...directory,
      at: (file) => (isLed(file) ? join(path, "below-a-file") : directory.at(file)),
    });

    it("keeps what it cannot look at, and says how that failed", async () => {
      const { path, directory, entry } = anEntry();
      const led = astray(directory, { path, isLed: (file) => file === entry.file });
      expect(await removeArchive(led, entry)).toMatchObject({ outcome: "failed", code: "ENOTDIR" });
      const odd = { ...directory, at: () => fail() };
      expect(await removeArchive(odd, entry)).toMatchObject({ outcome: "failed", code: "UNKNOWN" });
      expect(existsSync(path)).toBe(true);
    });

    it.each([
      [".keep", "refused"],
      [".pause", "paused"],
    ])("keeps what may have a %s, for any doubt is one", async (suffix, outcome) => {
      const { path, directory, entry } = anEntry();
      const led = astray(directory, { path, isLed: (file) => file.endsWith(suffix) });
      expect((await removeArchive(led, entry)).outcome).toBe(outcome);
      expect(existsSync(path)).toBe(true);
    });

    it("says how unlinking failed, and takes it for no deletion", async () => {
      const { path, directory, entry } = anEntry();
      let asked = 0;
      const isLed = (file: string) => {
        if (file === entry.file) asked += 1;
        return file === entry.file && asked === 2;
      };
      expect(await removeArchive(astray(directory, { path, isLed }), entry)).toMatchObject({
        outcome: "failed",
        code: "ENOTDIR",
      });
      expect(existsSync(path)).toBe(true);
    });
  });

  it("works in the directory that was opened, whatever takes its path", async () => {
    const { folder, directory, entry } = anEntry();
    renameSync(folder, `${folder}-aside`);
    onTestFinished(() => rmSync(`${folder}-aside`, { recursive: true }));
    mkdirSync(folder);
    const twin = writeArchive(folder);
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "deleted" });
    const opened = openDirectory(folder, []);
    if (!opened.ok) throw new Error(opened.problem.message);
    expect(findFile(opened.directory, twin).kind).toBe("file");
    opened.directory.close();
  });

  it("takes a name too long for a .keep as not pinned", async () => {
    const { directory, entry } = anEntry();
    const file = archiveName({ pod: "p".repeat(253 - archiveName({ pod: "" }).length) });
    writeFileSync(directory.at(file), archiveBytes());
    const found = findFile(directory, file);
    if (found.kind !== "file") throw new Error("no file");
    const facts = { file, timeMs: entry.timeMs, listed: 2, pinned: false, isNews: false, unchangedSinceMs: 0 };
    expect(await removeArchive(directory, newEntry(entry.name, found.stat, facts))).toEqual({ outcome: "deleted" });
  });
});
