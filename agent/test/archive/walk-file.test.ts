import { appendFileSync, closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SpecScan } from "../../src/archive/spec.ts";
import { startWalk, type Verdict, type Walk } from "../../src/archive/walk.ts";
import { stepWalk } from "../../src/archive/walk-file.ts";
import { archiveBytes, POD_UID, specBytes, writeArchive } from "../support/archives.ts";

const buffer = Buffer.alloc(4096);
const COMPLETE = {
  kind: "ended",
  hasConfig: true,
  hasImages: true,
  spec: { namespace: "shop", pod: "web-0", container: "app", podUID: POD_UID },
};

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "walk-file-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function walkPath(
  path: string,
  walk: Walk = startWalk(),
  space = buffer,
): { verdict: Verdict | undefined; steps: number } {
  const descriptor = openSync(path, "r");
  try {
    let steps = 1;
    while (!stepWalk(descriptor, walk, space)) steps++;
    return { verdict: walk.verdict, steps };
  } finally {
    closeSync(descriptor);
  }
}

describe("stepWalk", () => {
  it("walks a file in one step a read", () => {
    const path = join(folder, writeArchive(folder));
    expect(walkPath(path)).toEqual({ verdict: COMPLETE, steps: 8 });
  });

  it("needs no more steps for an archive of 20 GiB", () => {
    const path = join(folder, writeArchive(folder, { sparsePagesBytes: 20 * 2 ** 30 }));
    expect(walkPath(path)).toEqual({ verdict: COMPLETE, steps: 8 });
  });

  it("reads a spec.dump that is larger than the buffer", () => {
    const spec = Buffer.concat([specBytes(), Buffer.alloc(500_000, " ")]);
    const path = join(folder, writeArchive(folder, { spec }));
    expect(walkPath(path).verdict).toEqual(COMPLETE);
  });

  it("goes on when the file has grown", () => {
    const bytes = archiveBytes({ pagesBytes: 100_000 });
    const path = join(folder, "growing");
    const walk = startWalk();
    writeFileSync(path, bytes.subarray(0, 50_000));
    expect(walkPath(path, walk).verdict).toMatchObject({ kind: "torn" });
    appendFileSync(path, bytes.subarray(50_000));
    expect(walkPath(path, walk).verdict).toEqual(COMPLETE);
    expect(walkPath(path, walk)).toEqual({ verdict: COMPLETE, steps: 1 });
  });

  it("reads on where a read gives less than was asked for, as some file systems do", () => {
    const length = 16_384;
    const descriptor = openSync("/proc/self/smaps", "r");
    try {
      const once = readSync(descriptor, Buffer.alloc(length), 0, length, 0);
      expect(once).toBeGreaterThan(0);
      expect(once).toBeLessThan(length);
      const walk: Walk = {
        ...startWalk(),
        stage: "spec",
        length,
        specEnd: length,
        specScan: new SpecScan(),
        following: length,
      };
      expect(stepWalk(descriptor, walk, buffer)).toBe(false);
      expect(walk).toMatchObject({ stage: "header", offset: length, spec: {} });
    } finally {
      closeSync(descriptor);
    }
  });

  it("tells the code of an error, and goes on at the next call", () => {
    const path = join(folder, writeArchive(folder));
    const walk = startWalk();
    expect(walkPath(folder, walk).verdict).toEqual({ kind: "failed", code: "EISDIR" });
    expect(walkPath(path, walk).verdict).toEqual(COMPLETE);
  });

  it("tears at the end of the file, however far away the next header should be", () => {
    const path = join(folder, "torn");
    writeFileSync(path, archiveBytes({ pagesBytes: 100_000 }).subarray(0, 1024));
    expect(walkPath(path).verdict).toEqual({ kind: "torn", isResumed: false, spec: undefined });
  });

  it.each([1, 100, 511])("tears also %i bytes into a header", (bytes) => {
    const path = join(folder, "torn");
    writeFileSync(path, archiveBytes({ pagesBytes: 4096 }).subarray(0, 512 + bytes));
    const torn = { verdict: { kind: "torn", isResumed: false, spec: undefined }, steps: 2 };
    expect(walkPath(path)).toEqual(torn);
    expect(walkPath(path, startWalk(), Buffer.alloc(512))).toEqual(torn);
  });
});
