import { existsSync, renameSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { systemClock } from "../src/clock.ts";
import { enforceOnce, scanDirectory } from "../src/once.ts";
import { archiveBytes, archivesIn } from "./support/archives.ts";
import { aSeries } from "./support/driven.ts";
import { aFolder, anAcceptedPolicy } from "./support/watching.ts";

const INCOMPLETE_AFTER_MS = 600_000;

/** Applies a policy once, while another hand acts as soon as something was deleted. */
async function enforceWhile(folder: string, spec: unknown, act: (deleted: number) => boolean) {
  const scan = await scanDirectory(folder, systemClock, INCOMPLETE_AFTER_MS);
  const { document } = anAcceptedPolicy(spec, folder);
  const before = scan.entries.length;
  let isOver = false;
  const enforcing = enforceOnce(scan, document, { clock: systemClock, incompleteAfterMs: INCOMPLETE_AFTER_MS });
  void enforcing.finally(() => {
    isOver = true;
  });
  while (!isOver && !act(before - archivesIn(folder).length)) await nextTurn();
  const result = await enforcing;
  scan.directory.close();
  return result;
}

const keep = (count: number) => ({
  globalPolicy: { maxCheckpointsPerContainer: count, minCheckpointsPerContainer: 1 },
});

describe("a policy that is applied once", () => {
  it("leaves as many as its limit says, though somebody moves the newest away meanwhile", async () => {
    const folder = aFolder();
    const elsewhere = aFolder();
    const files = aSeries(folder, 400);
    const result = await enforceWhile(folder, keep(10), (deleted) => {
      if (deleted < 3) return false;
      for (const file of files.slice(-10)) renameSync(join(folder, file), join(elsewhere, file));
      return true;
    });
    expect(archivesIn(folder)).toEqual(files.slice(-20, -10));
    expect(result.isHeldBack).toBeUndefined();
    const deleted = result.outcomes.filter(({ removal }) => removal?.outcome === "deleted");
    expect(deleted.map(({ archive }) => archive.file)).toEqual(files.slice(0, 380));
    expect(result.outcomes).toHaveLength(390);
  });

  it("leaves as many as its limit says, though somebody moved others away since the scan", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 40);
    const scan = await scanDirectory(folder, systemClock, INCOMPLETE_AFTER_MS);
    // Of the newest ten all but the newest, by which alone the last look would notice.
    for (const file of files.slice(-10, -1)) renameSync(join(folder, file), join(folder, `${file}.aside`));
    const { document } = anAcceptedPolicy(keep(10), folder);
    await enforceOnce(scan, document, { clock: systemClock, incompleteAfterMs: INCOMPLETE_AFTER_MS });
    scan.directory.close();
    expect(archivesIn(folder)).toEqual([...files.slice(-19, -10), files.at(-1)]);
  });

  it("is done with what is there in the end, though an archive that must go is written anew meanwhile", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 200);
    const last = files[150] ?? "";
    const result = await enforceWhile(folder, keep(10), (deleted) => {
      if (deleted < 3) return false;
      if (existsSync(join(folder, last))) {
        writeFileSync(join(folder, last), archiveBytes({ container: "main", pagesBytes: 8192 }));
        utimesSync(join(folder, last), 1, 1);
      }
      return true;
    });
    expect(archivesIn(folder)).toEqual(files.slice(-10));
    expect(result.outcomes.map(({ archive }) => archive.file).sort()).toEqual(files);
  });

  it("stops at a .pause, and says so", async () => {
    const folder = aFolder();
    aSeries(folder, 300);
    const result = await enforceWhile(folder, keep(10), (deleted) => {
      if (deleted < 3) return false;
      writeFileSync(join(folder, ".pause"), "");
      return true;
    });
    expect(result.isHeldBack).toBe("paused");
    const left = archivesIn(folder);
    expect(left.length).toBeGreaterThan(10);
    const kept = result.outcomes.filter(({ removal }) => removal?.outcome !== "deleted");
    expect(kept.map(({ archive }) => archive.file)).toEqual(left);
  });
});
