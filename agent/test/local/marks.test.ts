import { existsSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectory } from "../../src/inventory/directory.ts";
import { pause, pin, resume, unpin, unpinExpired } from "../../src/local/marks.ts";
import { parseMoment } from "../../src/moment.ts";
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
    expect([pin(directory, file, { reason: "case 4711" }), pin(directory, file, { reason: "other" })]).toEqual([
      true,
      false,
    ]);
    expect(JSON.parse(readFileSync(at(`${file}.keep`), "utf8"))).toEqual({ reason: "case 4711" });
    expect(statSync(at(`${file}.keep`)).mode & 0o777).toBe(0o600);
    expect([unpin(directory, file), unpin(directory, file)]).toEqual([true, false]);
    expect(existsSync(at(`${file}.keep`))).toBe(false);
    pin(directory, file);
    expect(readFileSync(at(`${file}.keep`), "utf8")).toBe("");
  });

  it.each([`../${file}`, `/tmp/${file}`, "other.tar", `${file}.keep`, ".pause", ""])("refuse %j", (name) => {
    const { directory } = anOpened();
    expect(() => pin(directory, name)).toThrow(/is not the name of an archive; `agent list --json`/);
    expect(() => unpin(directory, name)).toThrow("is not the name of an archive");
  });

  it("refuse to pin what is not there, or is no regular file", () => {
    const { directory, at } = anOpened();
    const [missing, folder] = [archiveName({ pod: "missing" }), archiveName({ pod: "folder" })];
    mkdirSync(at(folder));
    for (const name of [missing, folder]) {
      expect(() => pin(directory, name)).toThrow(/has no archive checkpoint-/);
      expect(existsSync(at(`${name}.keep`))).toBe(false);
    }
  });

  it("follow no link, and remove nothing but a regular file", () => {
    const { directory, at } = anOpened();
    symlinkSync(at("elsewhere"), at(`${file}.keep`));
    expect(pin(directory, file, { reason: "x" })).toBe(false);
    expect(existsSync(at("elsewhere"))).toBe(false);
    expect(() => unpin(directory, file)).toThrow(/\.keep is no regular file; remove it on the node/);
  });
});

describe("pins whose time is over", () => {
  const nowMs = Date.UTC(2027, 0, 31, 12);

  it("are taken away, and no other", () => {
    const { directory, at } = anOpened();
    const archives = Object.fromEntries(
      ["over", "ends", "later", "plain", "junk", "half", "null", "huge", "link", "folder", "unpinned"].map((pod) => [
        pod,
        archiveName({ pod }),
      ]),
    ) as Record<string, string>;
    for (const name of Object.values(archives)) writeFileSync(at(name), "");
    const keep = (pod: string) => at(`${archives[pod]}.keep`);
    pin(directory, archives.over as string, { reason: "case", until: "2027-01-30" });
    pin(directory, archives.ends as string, { until: "2027-01-31T13:00:00+01:00" });
    pin(directory, archives.later as string, { until: "2027-01-31T12:00:00.001Z" });
    pin(directory, archives.plain as string);
    writeFileSync(keep("junk"), "until 2020");
    writeFileSync(keep("half"), '{"until":"2020-01-01"');
    writeFileSync(keep("null"), "null");
    writeFileSync(keep("huge"), JSON.stringify({ reason: "x".repeat(20_000), until: "2020-01-01" }));
    writeFileSync(at("elsewhere"), '{"until":"2020-01-01"}');
    symlinkSync(at("elsewhere"), keep("link"));
    mkdirSync(keep("folder"));
    writeFileSync(at("other.keep"), '{"until":"2020-01-01"}');
    expect(unpinExpired(directory, nowMs)).toEqual([archives.ends, archives.over].sort());
    const left = Object.keys(archives).filter((pod) => existsSync(keep(pod)));
    expect(left).toEqual(["later", "plain", "junk", "half", "null", "huge", "link", "folder"]);
    expect(existsSync(at("other.keep"))).toBe(true);
  });

  it.each([
    ["2027-01-31", Date.UTC(2027, 0, 31)],
    ["2027-01-31T12:00:00Z", nowMs],
    ["2027-01-31T14:30:00+02:30", nowMs],
    ["2027-13-31", undefined],
    ["2027-02-30", undefined],
    ["2027-01-31T12:00:00", undefined],
    ["tomorrow", undefined],
    ["9", undefined],
    [9, undefined],
  ])("are told by RFC 3339 or a date: %j", (text, timeMs) => {
    expect(parseMoment(text)).toBe(timeMs);
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
    expect(() => pin(nowhere, file)).toThrow("cannot be changed: ENOTDIR");
  });
});
