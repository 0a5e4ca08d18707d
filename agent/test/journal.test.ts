import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseArchiveName } from "../src/archive/name.ts";
import { openDirectory } from "../src/inventory/directory.ts";
import { createJournal, JOURNAL, JOURNAL_BYTES, JOURNAL_MS, type JournalEntry, readJournal } from "../src/journal.ts";
import { aClock } from "./support/driven.ts";
import { aFolder } from "./support/watching.ts";

const anEntry = (at: number, timeMs = Date.now()): JournalEntry => ({
  time: new Date(timeMs).toISOString(),
  file: `${at}.tar`,
  bytes: 1024,
  ...{ namespace: "team", pod: "web", container: "main", reason: "max_checkpoints", limit: "maxCheckpoints 3" },
});

async function keepJournal() {
  const folder = aFolder();
  const opened = openDirectory(folder, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  const { directory } = opened;
  onTestFinished(() => directory.close());
  const problems: Array<{ message: string; isFirst: boolean }> = [];
  const journal = createJournal({
    clock: aClock(),
    onProblem: (cause, { isFirst }) => problems.push({ message: (cause as Error).message, isFirst }),
  });
  await journal.setDirectory(directory);
  const files = async (sinceMs = 0) => (await readJournal(directory, sinceMs)).map(({ file }) => file);
  return { directory, journal, problems, files, at: (name: string) => join(folder, name) };
}

describe("the journal", () => {
  it("tells what was deleted, in order, in a file that only its owner reads", async () => {
    const { journal, files, at, directory } = await keepJournal();
    expect(await files()).toEqual([]);
    for (let count = 0; count < 500; count += 1) journal.add(anEntry(count));
    await journal.written();
    journal.add(anEntry(500));
    await journal.written();
    expect(await files()).toEqual(Array.from({ length: 501 }, (_, count) => `${count}.tar`));
    expect(statSync(at(JOURNAL.file)).mode & 0o777).toBe(0o600);
    expect((await readJournal(directory, 0))[0]).toMatchObject({
      reason: "max_checkpoints",
      limit: "maxCheckpoints 3",
    });
  });

  it("begins a new file at its size, and keeps the one before", async () => {
    const { journal, files, at } = await keepJournal();
    journal.add(anEntry(1));
    await journal.written();
    truncateSync(at(JOURNAL.file), JOURNAL_BYTES);
    journal.add(anEntry(2));
    await journal.written();
    expect(statSync(at(JOURNAL.older)).size).toBe(JOURNAL_BYTES);
    expect(statSync(at(JOURNAL.file)).size).toBeLessThan(1000);
    expect(await files()).toEqual(["1.tar", "2.tar"]);
  });

  it("forgets the file before once its last line is 30 days old", async () => {
    const { journal, at } = await keepJournal();
    for (const [ageMs, isKept] of [
      [JOURNAL_MS - 60_000, true],
      [JOURNAL_MS + 60_000, false],
    ] as const) {
      writeFileSync(at(JOURNAL.older), "");
      utimesSync(at(JOURNAL.older), new Date(), new Date(Date.now() - ageMs));
      journal.add(anEntry(1));
      await journal.written();
      expect(existsSync(at(JOURNAL.older))).toBe(isKept);
    }
  });

  it("passes over a line that was cut off, and what comes next is a line of its own", async () => {
    const { journal, files, at, directory } = await keepJournal();
    journal.add(anEntry(1));
    await journal.written();
    appendFileSync(at(JOURNAL.file), '{"time":"2026-');
    await journal.setDirectory(directory);
    journal.add(anEntry(2));
    await journal.written();
    appendFileSync(at(JOURNAL.file), '{"time": 7}\n');
    expect(await files()).toEqual(["1.tar", "2.tar"]);
  });

  it("tells only of deletions since a moment", async () => {
    const { journal, files } = await keepJournal();
    journal.add(anEntry(1, Date.parse("2026-11-01T00:00:00Z")));
    journal.add(anEntry(2, Date.parse("2026-11-02T00:00:00Z")));
    await journal.written();
    expect(await files(Date.parse("2026-11-01T12:00:00Z"))).toEqual(["2.tar"]);
  });

  it.each<[string, (path: string) => void, string]>([
    ["a link", (path) => symlinkSync("/nowhere/else", path), "ELOOP"],
    ["a folder", (path) => mkdirSync(path), "EISDIR"],
    ["a pipe that nobody reads", (path) => execFileSync("mkfifo", [path]), "ENXIO"],
    ["a device", (path) => symlinkSync("/dev/full", path), "ELOOP"],
  ])("is not written into %s: that is told each time, as the first only once", async (_what, make, code) => {
    const { journal, problems, at } = await keepJournal();
    make(at(JOURNAL.file));
    for (const at of [1, 2]) {
      journal.add(anEntry(at));
      await journal.written();
    }
    expect(problems.map(({ isFirst }) => isFirst)).toEqual([true, false]);
    expect(problems[0]?.message).toContain(code);
    expect(await journal.setDirectory(undefined)).toBeUndefined();
  });

  it("is written through no link that is read, either", async () => {
    const { directory, at } = await keepJournal();
    writeFileSync(at("other"), `${JSON.stringify(anEntry(1))}\n`);
    symlinkSync(at("other"), at(JOURNAL.file));
    await expect(readJournal(directory, 0)).rejects.toThrow("ELOOP");
  });

  it("goes with the directory, and loses what comes while there is none", async () => {
    const { journal, problems, files, directory } = await keepJournal();
    journal.add(anEntry(1));
    const left = journal.setDirectory(undefined);
    journal.add(anEntry(2));
    await left;
    await journal.written();
    expect(problems).toEqual([{ message: "the directory is gone", isFirst: true }]);
    await journal.setDirectory(directory);
    journal.add(anEntry(3));
    await journal.written();
    expect(await files()).toEqual(["1.tar", "3.tar"]);
  });

  it("changes the directory only when it begins a file, so that no line makes the observer list it again", async () => {
    const { directory, journal } = await keepJournal();
    const before = directory.stat().mtimeNs;
    journal.add(anEntry(1));
    await journal.written();
    const begun = directory.stat().mtimeNs;
    expect(begun).not.toBe(before);
    journal.add(anEntry(2));
    await journal.written();
    expect(directory.stat().mtimeNs).toBe(begun);
    expect(parseArchiveName(JOURNAL.file) ?? parseArchiveName(JOURNAL.older)).toBeUndefined();
  });

  it("holds a bounded number of lines that wait", async () => {
    const { journal, problems, at } = await keepJournal();
    for (let count = 0; count < 10_001; count += 1) journal.add(anEntry(count));
    await journal.written();
    expect(problems).toHaveLength(1);
    expect(readFileSync(at(JOURNAL.file), "utf8").trim().split("\n")).toHaveLength(10_000);
  });
});
