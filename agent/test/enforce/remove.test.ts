import { mkdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseArchiveName } from "../../src/archive/name.ts";
import { removeArchive } from "../../src/enforce/remove.ts";
import { openDirectory } from "../../src/inventory/directory.ts";
import { findFile, newEntry } from "../../src/inventory/entry.ts";
import { archiveBytes, archiveName, writeArchive } from "../support/archives.ts";
import { aFolder } from "../support/watching.ts";

function anEntry() {
  const folder = aFolder();
  const file = writeArchive(folder);
  const opened = openDirectory(folder, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  const { directory } = opened;
  onTestFinished(() => directory.close());
  const found = findFile(directory, file);
  const name = parseArchiveName(file);
  if (found.kind !== "file" || name === undefined) throw new Error("no archive");
  const facts = { file, listed: 1, pinned: false, isArrival: false, unchangedSinceMs: 0 };
  return { folder, path: join(folder, file), directory, entry: newEntry(name, found.stat, facts) };
}

describe("the last look before a deletion", () => {
  it("deletes what is as it was planned", async () => {
    const { directory, entry } = anEntry();
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "deleted" });
    expect(findFile(directory, entry.file).kind).toBe("absent");
    expect(await removeArchive(directory, entry)).toEqual({ outcome: "gone" });
  });

  const changes: Array<[string, (path: string, folder: string) => void]> = [
    [
      "replaced by another file",
      (path) => {
        writeFileSync(`${path}.new`, archiveBytes());
        const when = new Date(1_700_000_000_000);
        utimesSync(path, when, when);
        utimesSync(`${path}.new`, when, when);
        renameSync(`${path}.new`, path);
      },
    ],
    ["written to", (path) => writeFileSync(path, "more", { flag: "a" })],
    ["touched", (path) => utimesSync(path, 1, 1)],
    ["pinned", (path) => writeFileSync(`${path}.keep`, "")],
    ["pinned by a directory", (path) => mkdirSync(`${path}.keep`)],
    ["pinned by a link that leads nowhere", (path) => symlinkSync("/nowhere", `${path}.keep`)],
    ["paused", (_path, folder) => writeFileSync(join(folder, ".pause"), "")],
    [
      "a link now",
      (path) => {
        renameSync(path, `${path}.aside`);
        symlinkSync(`${path}.aside`, path);
      },
    ],
    [
      "a directory now",
      (path) => {
        rmSync(path);
        mkdirSync(path);
      },
    ],
  ];
  it.each(changes)("keeps what was %s since the plan", async (_what, change) => {
    const { path, folder, directory, entry } = anEntry();
    change(path, folder);
    expect((await removeArchive(directory, entry)).outcome).toBe("refused");
    expect(findFile(directory, entry.file).kind).not.toBe("absent");
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
    const facts = { file, listed: 2, pinned: false, isArrival: false, unchangedSinceMs: 0 };
    expect(await removeArchive(directory, newEntry(entry.name, found.stat, facts))).toEqual({ outcome: "deleted" });
  });
});
