import { spawnSync } from "node:child_process";
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { archiveName, archivesIn, archiveTime } from "../../agent/test/support/archives.ts";
import { aFolder, ROOT } from "../support/processes.ts";
import { aPolicyFile, series } from "../support/standalone.ts";

const COUNT = 4000;

/** Many archives of one container, all long torn, which is quickest to write and to read. */
function manyArchives(directory: string): string[] {
  return Array.from({ length: COUNT }, (_, index) => {
    const timeMs = Date.UTC(2026, 0, 1) + index * 60_000;
    const file = archiveName({ time: archiveTime(timeMs) });
    writeFileSync(join(directory, file), "");
    utimesSync(join(directory, file), timeMs / 1000, timeMs / 1000);
    return file;
  });
}

/** Takes 4 KiB at a time and rests 20 ms after each, so that it is far behind when the command is done. */
const SLOW_READER = `
  const { readSync, writeSync } = require("node:fs");
  const buffer = Buffer.alloc(4096);
  const rest = new Int32Array(new SharedArrayBuffer(4));
  for (let size; (size = readSync(0, buffer)) > 0; Atomics.wait(rest, 0, 0, 20)) writeSync(1, buffer, 0, size);`;

/** Pipes a command into another, as a shell does, and tells what came out and how the first one ended. */
function pipe(command: string[], into: string[]) {
  const folder = aFolder();
  const file = (name: string) => join(folder, name);
  const quote = (words: string[]) => words.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(" ");
  const script = `{ ${quote(command)} 2>${file("err")}; echo $? >${file("code")}; } | ${quote(into)}`;
  const { stdout } = spawnSync("sh", ["-c", script], { cwd: ROOT, encoding: "utf8", maxBuffer: 1e9 });
  return {
    code: Number(readFileSync(file("code"), "utf8")),
    lines: stdout.split("\n").filter((line) => line !== ""),
    err: readFileSync(file("err"), "utf8"),
  };
}

const slowly = (...command: string[]) => pipe(command, [process.execPath, "-e", SLOW_READER]);
const headOf = (...command: string[]) => pipe(command, ["head", "-n", "1"]);

const agent = (...args: string[]) => [process.execPath, "dist/agent.js", ...args];
const once = (...args: string[]) => [process.execPath, "dist/standalone.js", "--once", ...args];

describe("into a slow pipe, every line is written:", () => {
  it.each<[string, (policy: string) => string[]]>([
    ["agent list", () => agent("list")],
    ["agent list --json", () => agent("list", "--json")],
    ["agent plan --json", (policy) => agent("plan", "--json", "--policy", policy)],
    ["agent enforce --json", (policy) => agent("enforce", "--json", "--policy", policy)],
    ["npm start -- --once --json", (policy) => once("--json", "--policy", policy)],
  ])(
    "%s",
    (what, command) => {
      const directory = aFolder();
      manyArchives(directory);
      const policy = aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 0 } });
      const { code, lines, err } = slowly(...command(policy), "--directory", directory);
      expect(lines).toHaveLength(what.includes("--json") ? COUNT : COUNT + 1);
      expect(err).not.toContain("Error");
      expect(code).toBe(0);
    },
    120_000,
  );
});

describe("into a pipe that is closed after a line, the command ends quietly:", () => {
  it.each<[string, (policy: string) => string[]]>([
    ["agent list", () => agent("list")],
    ["agent list --json", () => agent("list", "--json")],
    ["agent plan", (policy) => agent("plan", "--policy", policy)],
    ["agent --help", () => agent("--help")],
  ])(
    "%s, with 0",
    (what, command) => {
      const directory = aFolder();
      manyArchives(directory);
      const args = what === "agent --help" ? [] : ["--directory", directory];
      const { code, lines, err } = headOf(...command(aPolicyFile({})), ...args);
      expect({ code, lines: lines.length }).toEqual({ code: 0, lines: 1 });
      expect(err).not.toMatch(/EPIPE|Error/);
    },
    60_000,
  );

  it.each<[string, (...args: string[]) => string[]]>([
    ["agent enforce", (...args) => agent("enforce", "--json", ...args)],
    ["npm start -- --once", (...args) => once("--json", ...args)],
  ])(
    "%s, with the code that its deletions earned, all of which were made",
    (_what, command) => {
      const directory = aFolder();
      const files = manyArchives(directory);
      const policy = aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 10 } });
      const { code, lines, err } = headOf(...command("--policy", policy, "--directory", directory));
      expect(archivesIn(directory)).toEqual(files.slice(-10));
      expect({ code, lines: lines.length }).toEqual({ code: 0, lines: 1 });
      expect(err).not.toContain("EPIPE");
    },
    120_000,
  );
});

describe("to a disk that is full", () => {
  const toFullDisk = (command: string[]) =>
    spawnSync("sh", ["-c", 'exec "$0" "$@" >/dev/full', ...command], { cwd: ROOT, encoding: "utf8" });

  it.each<[string, (...args: string[]) => string[]]>([
    ["agent", (...args) => agent("plan", ...args)],
    ["npm start --", (...args) => once("--dry-run", ...args)],
    ["npm start --", (...args) => [process.execPath, "dist/standalone.js", ...args]],
  ])("%s says that its lines were lost, and ends with 1", (name, command) => {
    const directory = aFolder();
    series(directory, 2);
    const { status, stderr } = toFullDisk(command("--policy", aPolicyFile({}), "--directory", directory));
    expect(stderr).toContain(`${name}: cannot write to stdout: ENOSPC`);
    expect(status).toBe(1);
  });

  it.each<[string, (...args: string[]) => string[]]>([
    ["agent enforce", (...args) => agent("enforce", ...args)],
    ["npm start -- --once", (...args) => once(...args)],
  ])("%s makes its deletions all the same", (_what, command) => {
    const directory = aFolder();
    const [, newest] = series(directory, 2);
    const policy = aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 1 } });
    const { status } = toFullDisk(command("--policy", policy, "--directory", directory));
    expect(status).toBe(1);
    expect(archivesIn(directory)).toEqual([newest]);
  });
});
