import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, rmdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { isGoneMount, isStillAt, openDirectory } from "../../src/inventory/directory.ts";
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
  });

  it("that is missing is one to wait for inside a root, and none outside", () => {
    const root = aFolder();
    expect(problemOf(join(root, "late"), [root])).toBe("missing");
    expect(problemOf(`${root}-late`, [root])).toBe("not_mounted");
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
