import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectory } from "../../src/inventory/directory.ts";
import { pause, pin, resume, unpin } from "../../src/local/marks.ts";
import { archiveName } from "../support/archives.ts";
import { aFolder } from "../support/watching.ts";

const file = archiveName();

function anOpened() {
  const folder = aFolder();
  writeFileSync(join(folder, file), "");
  const opened = openDirectory(folder, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  onTestFinished(() => opened.directory.close());
  return { folder, directory: opened.directory, at: (name: string) => join(folder, name) };
}

describe("pin and unpin", () => {
  it("make and remove a file beside the archive that only its owner reads, once", () => {
    const { directory, at } = anOpened();
    expect([pin(directory, file, "case 4711"), pin(directory, file, "other")]).toEqual([true, false]);
    expect(JSON.parse(readFileSync(at(`${file}.keep`), "utf8"))).toEqual({ reason: "case 4711" });
    expect(statSync(at(`${file}.keep`)).mode & 0o777).toBe(0o600);
    expect([unpin(directory, file), unpin(directory, file)]).toEqual([true, false]);
    expect(existsSync(at(`${file}.keep`))).toBe(false);
    pin(directory, file, undefined);
    expect(readFileSync(at(`${file}.keep`), "utf8")).toBe("");
  });

  it.each([`../${file}`, `/tmp/${file}`, "other.tar", `${file}.keep`, ".pause", ""])("refuse %j", (name) => {
    const { directory } = anOpened();
    expect(() => pin(directory, name, undefined)).toThrow(/is not the name of an archive; `agent list --json`/);
    expect(() => unpin(directory, name)).toThrow("is not the name of an archive");
  });

  it("refuse to pin what is not there, or is no regular file", () => {
    const { directory, at } = anOpened();
    const [missing, folder] = [archiveName({ pod: "missing" }), archiveName({ pod: "folder" })];
    mkdirSync(at(folder));
    for (const name of [missing, folder]) {
      expect(() => pin(directory, name, undefined)).toThrow(/has no archive checkpoint-/);
      expect(existsSync(at(`${name}.keep`))).toBe(false);
    }
  });

  it("follow no link, and remove nothing but a regular file", () => {
    const { directory, at } = anOpened();
    symlinkSync(at("elsewhere"), at(`${file}.keep`));
    expect(pin(directory, file, "reason")).toBe(false);
    expect(existsSync(at("elsewhere"))).toBe(false);
    expect(() => unpin(directory, file)).toThrow(/\.keep is no regular file; remove it on the node/);
  });
});

describe("pause and resume", () => {
  it("make and remove .pause, once, and remove nothing but a regular file", () => {
    const { directory, at } = anOpened();
    expect([pause(directory), pause(directory)]).toEqual([true, false]);
    expect(statSync(at(".pause")).mode & 0o777).toBe(0o600);
    expect([resume(directory), resume(directory)]).toEqual([true, false]);
    mkdirSync(at(".pause"));
    expect(() => resume(directory)).toThrow(".pause is no regular file");
  });

  it("name the path that cannot be changed", () => {
    const { directory, folder } = anOpened();
    const nowhere = { ...directory, at: (name: string) => join(directory.at(file), name) };
    expect(() => pause(nowhere)).toThrow(`${folder}/.pause cannot be changed: ENOTDIR`);
    expect(() => resume(nowhere)).toThrow(`${folder}/.pause cannot be changed: ENOTDIR`);
    expect(() => pin(nowhere, file, undefined)).toThrow("cannot be changed: ENOTDIR");
  });
});
