import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createTermFile } from "../src/term.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "term-"));
});
afterEach(() => rm(directory, { recursive: true }));

describe("createTermFile", () => {
  it("raises the term at each start", async () => {
    expect(await createTermFile(join(directory, "new")).raiseAbove(0)).toBe(1);
    expect(await createTermFile(join(directory, "new")).raiseAbove(0)).toBe(2);
  });

  it("raises it above one that somebody else named, and never lowers it", async () => {
    const file = createTermFile(directory);
    expect(await file.raiseAbove(41)).toBe(42);
    expect(await file.raiseAbove(7)).toBe(43);
    expect(await createTermFile(directory).raiseAbove(0)).toBe(44);
  });

  it("gives simultaneous callers different terms", async () => {
    const file = createTermFile(directory);
    const terms = await Promise.all(Array.from({ length: 20 }, () => file.raiseAbove(3)));
    expect(new Set(terms).size).toBe(20);
  });

  it("begins again where its file was destroyed", async () => {
    await writeFile(join(directory, "term"), "\0garbage");
    expect(await createTermFile(directory).raiseAbove(0)).toBe(1);
  });

  it("rejects a term that no integer is above, and goes on with others", async () => {
    const file = createTermFile(directory);
    await expect(file.raiseAbove(Number.MAX_SAFE_INTEGER)).rejects.toThrow(/no term is above/);
    await expect(file.raiseAbove(1e300)).rejects.toThrow(/no term is above/);
    expect(await file.raiseAbove(0)).toBe(1);
  });

  it("rejects where the term cannot be kept", async () => {
    await writeFile(join(directory, "file"), "");
    await expect(createTermFile(join(directory, "file")).raiseAbove(0)).rejects.toThrow(/ENOTDIR|EEXIST/);
  });
});
