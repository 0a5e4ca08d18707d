import { execFileSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { readDisk, readingOf } from "../../src/enforce/disk.ts";
import { openDirectory } from "../../src/inventory/directory.ts";
import { aFolder } from "../support/watching.ts";

function directoryAt(path: string) {
  const opened = openDirectory(path, []);
  if (!opened.ok) throw new Error(opened.problem.message);
  return opened.directory;
}

describe("the use of a disk", () => {
  it("is what df tells, in bytes", () => {
    const folder = aFolder();
    const df = execFileSync("df", ["-B1", "--output=size,used,avail", folder], { encoding: "utf8" });
    const [size = 0, used = 0, available = 0] = (df.split("\n")[1] ?? "").trim().split(/\s+/).map(Number);
    const read = readDisk(directoryAt(folder));
    expect(read?.sizeBytes).toBe(size);
    // Others write meanwhile.
    const near = 0.05 * size;
    expect(Math.abs((read?.usedBytes ?? 0) - used)).toBeLessThan(near);
    expect(Math.abs((read?.availableBytes ?? 0) - available)).toBeLessThan(near);
  });

  it("tells of inodes where they are counted, and nothing of them where they are not", () => {
    const answer = { bsize: 4096, frsize: 4096, blocks: 10, bfree: 5, bavail: 4, files: 100, ffree: 30 };
    expect(readingOf(answer)?.inodes).toEqual({ total: 100, free: 30 });
    for (const uncounted of [
      { files: 0, ffree: 0 },
      { files: 100, ffree: 2 ** 64 },
      { files: 100, ffree: 101 },
    ]) {
      expect(readingOf({ ...answer, ...uncounted })).toEqual({
        ...{ sizeBytes: 40_960, usedBytes: 20_480, availableBytes: 16_384 },
      });
    }
  });

  it("is unknown where the file system answers zeros, or does not answer", () => {
    expect(readDisk(directoryAt("/proc"))).toBeUndefined();
    const folder = aFolder();
    expect(readDisk({ ...directoryAt(folder), at: (file) => `${folder}/gone/${file}` })).toBeUndefined();
  });
});
