import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { directoryKey, isGoneMount, isStillAt, openDirectory, withPath } from "../../src/inventory/directory.ts";
import { aFolder } from "../support/watching.ts";

const open = (path: string, roots: string[] = []) => {
  const opened = openDirectory(path, roots);
  if (opened.ok) onTestFinished(() => opened.directory.close());
  return opened;
};
const problemOf = (path: string, roots: string[] = []) => {
  const opened = open(path, roots);
  return opened.ok ? "none" : opened.problem.state;
};

describe("a directory", () => {
  it("that is missing, or is a file, is told apart", () => {
    const folder = aFolder();
    writeFileSync(join(folder, "file"), "");
    expect(problemOf(join(folder, "missing"))).toBe("missing");
    expect(problemOf(join(folder, "file"))).toBe("unreadable");
    expect(problemOf(join(folder, "file", "below"))).toBe("unreadable");
    expect(problemOf(folder)).toBe("none");
  });

  it("must lie in a root when all links are resolved, a root itself may be one", () => {
    const root = aFolder();
    const outside = aFolder();
    mkdirSync(join(root, "inside"));
    mkdirSync(`${root}-beside`);
    onTestFinished(() => rmdirSync(`${root}-beside`));
    symlinkSync(outside, join(root, "leads-out"));
    symlinkSync(join(root, "inside"), join(outside, "leads-in"));
    symlinkSync(root, join(outside, "root"));
    expect(problemOf(join(root, "inside"), [root])).toBe("none");
    expect(problemOf(root, [root])).toBe("none");
    expect(problemOf(join(outside, "leads-in"), [root])).toBe("none");
    expect(problemOf(join(outside, "root", "inside"), [join(outside, "root")])).toBe("none");
    expect(problemOf(join(root, "leads-out"), [root])).toBe("not_mounted");
    expect(problemOf(`${root}-beside`, [root])).toBe("not_mounted");
    expect(problemOf(outside, [root])).toBe("not_mounted");
    expect(problemOf("/", [root])).toBe("not_mounted");
    expect(problemOf(outside, [root, outside])).toBe("none");
    expect(problemOf(root, ["/"])).toBe("none");
    // A root that is not there yet hides no other.
    expect(problemOf(root, [`${root}-missing`, root])).toBe("none");
  });

  it("that is missing is one to wait for inside a root, and none outside", () => {
    const root = aFolder();
    expect(problemOf(join(root, "late"), [root])).toBe("missing");
    expect(problemOf(`${root}-late`, [root])).toBe("not_mounted");
  });

  it("that cannot be opened is named, and the mounted ones with it", () => {
    const root = aFolder();
    const messageOf = (path: string, roots: string[] = []) => {
      const opened = open(path, roots);
      return opened.ok ? "opened" : opened.problem.message;
    };
    const file = join(root, "file");
    writeFileSync(file, "");
    symlinkSync(join(root, "loop"), join(root, "loop"));
    expect(messageOf(file)).toBe(`${file} is not a directory`);
    expect(messageOf(join(root, "loop"))).toMatch(/^ELOOP/);
    expect(messageOf(join(root, "missing"))).toBe(`${join(root, "missing")} does not exist`);
    expect(messageOf("/proc", [root, "/sys"])).toBe(`/proc lies in none of the mounted directories: ${root}, /sys`);
    expect(messageOf("/missing", [root, "/sys"])).toBe(
      `/missing lies in none of the mounted directories: ${root}, /sys`,
    );
    // One of the roots is enough.
    expect(problemOf(join(root, "missing"), ["/sys", root])).toBe("missing");
  });

  it("is told by its path in errors, and not by a number of this process", () => {
    const folder = aFolder();
    const opened = open(folder);
    if (!opened.ok) throw new Error(opened.problem.message);
    const { directory } = opened;
    const cause = Object.assign(new Error("open '/proc/self/fd/123/a' and '/proc/self/fd/4'"), { code: "EIO" });
    expect(withPath(cause, directory)).toMatchObject({ code: "EIO", message: `open '${folder}/a' and '${folder}'` });
    expect(withPath(new Error("x"), directory)).toMatchObject({ code: "UNKNOWN", message: "x" });
  });

  it("has no descriptor any more when it is closed, and tells until then what it is", () => {
    const folder = aFolder();
    const opened = openDirectory(folder, []);
    if (!opened.ok) throw new Error(opened.problem.message);
    const { directory } = opened;
    expect(directory.stat()).toMatchObject({ dev: directory.device, ino: directory.inode });
    directory.close();
    expect(() => directory.stat()).toThrow("EBADF");
  });

  it("is another one where the inode's number is the same on another device", () => {
    const opened = open(aFolder());
    if (!opened.ok) throw new Error(opened.problem.message);
    expect(isStillAt({ ...opened.directory, device: opened.directory.device + 1n })).toBe(false);
    expect(isStillAt({ ...opened.directory, inode: opened.directory.inode + 1n })).toBe(false);
    const keys = [directoryKey({ device: 1n, inode: 23n }), directoryKey({ device: 12n, inode: 3n })];
    expect(keys).toEqual([directoryKey({ device: "1", inode: "23" }), directoryKey({ device: "12", inode: "3" })]);
    expect(new Set(keys).size).toBe(2);
  });

  it("stays the one that was opened, whatever takes its path", () => {
    const parent = aFolder();
    const path = join(parent, "archives");
    mkdirSync(path);
    writeFileSync(join(path, "a"), "old");
    const opened = open(path);
    if (!opened.ok) throw new Error(opened.problem.message);
    expect(isStillAt(opened.directory)).toBe(true);
    renameSync(path, join(parent, "aside"));
    expect(isStillAt(opened.directory)).toBe(false);
    mkdirSync(path);
    writeFileSync(join(path, "a"), "new");
    expect(isStillAt(opened.directory)).toBe(false);
    expect(readFileSync(opened.directory.at("a"), "utf8")).toBe("old");
  });
});

it("a mount whose source was deleted is gone for good, a directory that is merely missing is not", ({ skip }) => {
  const parent = aFolder();
  const [source, target] = [join(parent, "source"), join(parent, "target")];
  mkdirSync(source);
  mkdirSync(target);
  expect(isGoneMount(target)).toBe(false);
  expect(isGoneMount(join(parent, "missing"))).toBe(false);
  try {
    execFileSync("mount", ["--bind", source, target], { stdio: "ignore" });
  } catch {
    skip("mounting is not permitted here");
  }
  onTestFinished(() => void execFileSync("umount", ["-l", target]));
  expect(isGoneMount(target)).toBe(false);
  rmdirSync(source);
  expect(isGoneMount(target)).toBe(true);
});
