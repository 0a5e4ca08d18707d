import { execFileSync } from "node:child_process";
import { closeSync, existsSync, openSync, statSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { archiveBytes, archiveName, archivesIn, archiveTime, writeArchive } from "../support/archives.ts";
import { packNames } from "../support/seen.ts";
import { aFolder, anAcceptedPolicy, watchDirectory } from "../support/watching.ts";

const until = (condition: () => void, timeout = 10_000) => vi.waitFor(condition, { timeout, interval: 20 });
const isRoot = process.getuid?.() === 0;
const DAY_MS = 86_400_000;

/** So many archives of one container, one a second, the oldest first; old enough in mtime to be settled at once. */
function series(folder: string, count: number, parts: { container?: string; startMs?: number } = {}): string[] {
  const { container = "main", startMs = Date.now() - 3_600_000 } = parts;
  return Array.from({ length: count }, (_, index) =>
    writeArchive(folder, { container, time: archiveTime(startMs + index * 1000), mtimeMs: startMs + index * 1000 }),
  );
}

describe("arrivals in the same instant", () => {
  it("leave as many as the limit says, and the newest: four at a limit of two", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder, { spec: { globalPolicy: { maxCheckpointsPerContainer: 2 } } });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const files = series(folder, 4, { startMs: Date.now() - 10_000 });
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(2)));
    // A file is gone a moment before that is told.
    await until(() => expect(watching.deleted.map(({ file }) => file)).toEqual(files.slice(0, 2)));
  });

  it("never delete more than the same ones by and by: three at ten of ten, a thousand around, a hundred times", async () => {
    const folder = aFolder();
    const containers = Array.from({ length: 100 }, (_, index) => `c${index}`);
    const before = new Map(containers.map((container) => [container, series(folder, 10, { container })]));
    const watching = watchDirectory(folder, { spec: { globalPolicy: { maxCheckpointsPerContainer: 10 } } });
    await until(() => expect([...watching.index.all()].filter(({ settled }) => settled)).toHaveLength(1000));
    for (const container of containers) {
      const arrived = series(folder, 3, { container, startMs: Date.now() - 60_000 });
      const wanted = [...(before.get(container) ?? []).slice(3), ...arrived];
      await until(() => {
        const left = archivesIn(folder).filter((name) => name.includes(`-${container}-2`));
        expect(left).toEqual(wanted.sort());
      });
    }
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(watching.deleted).toHaveLength(300);
    expect(archivesIn(folder)).toHaveLength(1000);
  }, 60_000);

  it("wait for an oldest one that is too fresh to go, instead of taking the next", async () => {
    const folder = aFolder();
    const settled = series(folder, 2, { startMs: Date.now() - 3_600_000 });
    const watching = watchDirectory(folder, { spec: { globalPolicy: { maxCheckpointsPerContainer: 2 } } });
    await until(() => expect([...watching.index.all()].filter((entry) => entry.settled)).toHaveLength(2));
    const oldest = writeArchive(folder, { container: "main", time: archiveTime(Date.now() - 7_200_000) });
    await until(() => expect(archivesIn(folder)).toEqual(settled));
    await until(() => expect(watching.deleted.map(({ file }) => file)).toEqual([oldest]));
  });
});

describe("an incomplete archive", () => {
  it("goes before a complete one and never pushes one out", async () => {
    const folder = aFolder();
    const files = series(folder, 2);
    const watching = watchDirectory(folder, {
      incompleteAfterMs: 500,
      spec: { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } },
    });
    await until(() => expect([...watching.index.all()].filter(({ settled }) => settled)).toHaveLength(2));
    const torn = archiveName({ container: "main", time: archiveTime(Date.now()) });
    writeFileSync(join(folder, torn), archiveBytes({ container: "main" }).subarray(0, 1024));
    await until(() => expect(watching.deleted).toEqual([{ file: torn, reason: "max_checkpoints" }]));
    expect(archivesIn(folder)).toEqual(files);
  });
});

describe("nothing is deleted", () => {
  const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } };

  it("by DryRun, which tells what would be", async () => {
    const folder = aFolder();
    const files = series(folder, 3);
    const watching = watchDirectory(folder, { spec: { ...spec, mode: "DryRun" } });
    await until(() => expect([...watching.enforcer.status().planned.keys()].sort()).toEqual(files.slice(0, 2)));
    writeArchive(folder, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(watching.enforcer.status().planned.size).toBe(3));
    expect(archivesIn(folder)).toHaveLength(4);
  });

  it("while a .pause lies in the directory, and is once it is gone", async () => {
    const folder = aFolder();
    writeFileSync(join(folder, ".pause"), "");
    const files = series(folder, 3);
    const watching = watchDirectory(folder, { spec });
    await until(() => expect(watching.enforcer.status().planned.size).toBe(2));
    expect(watching.enforcer.status().isPaused).toBe(true);
    expect(archivesIn(folder)).toEqual(files);
    unlinkSync(join(folder, ".pause"));
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(2)));
    await until(() => expect(watching.enforcer.status().planned.size).toBe(0));
  });

  it("without a policy", async () => {
    const folder = aFolder();
    const files = series(folder, 20);
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    expect(archivesIn(folder)).toEqual(files);
    watching.apply({ applyPoliciesImmediately: true });
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(10)));
  });

  it("of an old plan once a new policy is there", async () => {
    const folder = aFolder();
    const files = series(folder, 400);
    const watching = watchDirectory(folder, { spec });
    await until(() => expect(watching.deleted.length).toBeGreaterThan(0), 10_000);
    watching.enforcer.setPolicy({
      ...anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 0 } }, folder),
      fence: { term: 1, revision: 2 },
    });
    const count = watching.deleted.length;
    await until(() => expect(watching.isCalm()).toBe(true));
    // At most the one whose unlink was under way.
    expect(watching.deleted.length).toBeLessThanOrEqual(count + 1);
    expect(archivesIn(folder).length).toBeGreaterThanOrEqual(files.length - count - 1);
  });
});

describe("a deletion that fails", () => {
  it("is logged once, counted, tried again, and not made up for by another", async ({ skip }) => {
    const folder = aFolder();
    const files = series(folder, 3);
    const stuck = join(folder, files[0] ?? "");
    try {
      execFileSync("chattr", ["+i", stuck], { stdio: "ignore" });
    } catch {
      skip("chattr +i is not to be had here");
    }
    onTestFinished(() => {
      if (existsSync(stuck)) execFileSync("chattr", ["-i", stuck]);
    });
    const watching = watchDirectory(folder, {
      spec: { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } },
    });
    await until(() => expect(watching.failed.length).toBeGreaterThanOrEqual(2));
    expect(watching.failed[0]).toEqual({ file: files[0], code: "EPERM" });
    expect(watching.logged.filter(({ msg }) => String(msg).startsWith("archive cannot be deleted"))).toHaveLength(1);
    expect(archivesIn(folder)).toEqual(files);
    execFileSync("chattr", ["-i", stuck]);
    await until(() => expect(archivesIn(folder)).toEqual(files.slice(1)));
  });
});

describe("a policy that does not act at once", () => {
  const lenient = { globalPolicy: { maxCheckpointsPerContainer: 10 } };
  const strict = { globalPolicy: { maxCheckpointsPerContainer: 1 } };

  it("acts on a container with its next archive, and on no other", async () => {
    const folder = aFolder();
    const quiet = series(folder, 3, { container: "quiet" });
    const busy = series(folder, 3, { container: "busy" });
    const watching = watchDirectory(folder, { spec: lenient });
    await until(() => expect([...watching.index.all()].filter(({ settled }) => settled)).toHaveLength(6));
    watching.apply(strict);
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(archivesIn(folder)).toHaveLength(6);
    const next = writeArchive(folder, { container: "busy", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(folder)).toEqual([next, ...quiet].sort()));
    await until(() => expect(watching.deleted.map(({ file }) => file)).toEqual(busy));
  });

  it("takes what was not there when the same directory was last seen for an event, and all else for none", async () => {
    const folder = aFolder();
    const old = series(folder, 3, { container: "old", startMs: Date.now() - 3_600_000 });
    const fresh = series(folder, 3, { container: "fresh", startMs: Date.now() - 7_200_000 });
    const { dev, ino } = statSync(folder, { bigint: true });
    const watched = { device: `${dev}`, inode: `${ino}`, seen: packNames(old) };
    watchDirectory(folder, { spec: strict, watched });
    await until(() => expect(archivesIn(folder)).toEqual([...old, fresh[2]].sort()));
    const elsewhere = aFolder();
    const kept = series(elsewhere, 3, { startMs: Date.now() - 10_000 });
    const other = watchDirectory(elsewhere, { spec: strict, watched });
    await until(() => expect(other.isCalm() && [...other.index.all()].every(({ settled }) => settled)).toBe(true));
    expect(archivesIn(elsewhere)).toEqual(kept);
  });

  it("acts when an age is reached", async () => {
    const folder = aFolder();
    const dying = writeArchive(folder, { time: archiveTime(Date.now() - DAY_MS + 4000), mtimeMs: Date.now() - DAY_MS });
    const dead = writeArchive(folder, { container: "dead", time: archiveTime(Date.now() - 2 * DAY_MS) });
    const watching = watchDirectory(folder, { spec: { globalPolicy: { maxAge: "1d" } } });
    await until(() => expect(watching.deleted).toEqual([{ file: dying, reason: "max_age" }]));
    // It was too old before the policy came: no event of its scope.
    expect(archivesIn(folder)).toEqual([dead]);
  });

  it("still enforces the node's own limits", async () => {
    const folder = aFolder();
    const files = series(folder, 3);
    const size = statSync(join(folder, files[0] ?? "")).size;
    for (const file of files) truncateSync(join(folder, file), 1024 * 1024 + size);
    const watching = watchDirectory(folder, { spec: { nodePolicy: { maxTotalSize: "2500Ki" } } });
    await until(() => expect(watching.deleted).toEqual([{ file: files[0], reason: "node_max_total_size" }]));
  });
});

describe("ages", () => {
  it("wait while the clock is not to be trusted", async () => {
    const folder = aFolder();
    const file = writeArchive(folder, { time: archiveTime(Date.now() - 2 * DAY_MS), mtimeMs: Date.now() - 2 * DAY_MS });
    let isTrusted = false;
    const watching = watchDirectory(folder, {
      spec: { applyPoliciesImmediately: true, globalPolicy: { maxAge: "1d" } },
      isTimeTrusted: () => isTrusted,
    });
    await until(() => expect(watching.index.get(file)?.settled).toBe(true));
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(archivesIn(folder)).toEqual([file]);
    isTrusted = true;
    await until(() => expect(archivesIn(folder)).toEqual([]));
  });
});

describe("a proof that a pod is gone", () => {
  it("deletes what had been listed by then, once, and nothing that came later", async () => {
    const folder = aFolder();
    const files = series(folder, 2);
    const watching = watchDirectory(folder, { spec: { globalPolicy: { retainOrphan: false } } });
    await until(() => expect([...watching.index.all()].filter(({ settled }) => settled)).toHaveLength(2));
    watching.proofs.reported(1, watching.observer.status().listedUpTo);
    const later = writeArchive(folder, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(watching.index.get(later)?.settled).toBe(true));
    const [first] = [...watching.index.all()];
    const { namespace = "", pod = "" } = first?.identity ?? {};
    const fact = { bootId: "boot", report: 1, namespace, pod };
    watching.enforcer.proved(watching.proofs.receive([fact], performance.now()));
    await until(() => expect(archivesIn(folder)).toEqual([later]));
    await until(() => expect(watching.deleted).toEqual(files.map((file) => ({ file, reason: "orphan" }))));
    expect(watching.proofs.receive([fact], performance.now())).toEqual([]);
    expect(watching.proofs.receive([{ ...fact, bootId: "another", report: 1 }], performance.now())).toEqual([]);
  });
});

describe("a proof that comes early", () => {
  it("waits for an archive that has not settled yet", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder, { spec: { globalPolicy: { retainOrphan: false } } });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = writeArchive(folder, { time: archiveTime(Date.now() - 60_000) });
    await until(() => expect(watching.state(file)).toBe("complete"));
    watching.proofs.reported(1, watching.observer.status().listedUpTo);
    const { namespace = "", pod = "" } = watching.index.get(file)?.identity ?? {};
    const facts = [{ bootId: "boot", report: 1, namespace, pod }];
    watching.enforcer.proved(watching.proofs.receive(facts, performance.now()));
    await until(() => expect(watching.deleted).toEqual([{ file, reason: "orphan" }]));
  });
});

describe("a full disk", () => {
  const mount = (folder: string, size: string) => {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", folder]);
    onTestFinished(() => void execFileSync("umount", ["-l", folder]));
  };
  const MIB = 1024 * 1024;
  const large = (folder: string, index: number) =>
    writeArchive(folder, {
      container: `c${index % 2}`,
      time: archiveTime(Date.now() - 3_600_000 + index * 1000),
      pagesBytes: 4 * MIB,
    });

  it("loses as much as brings it below the low watermark, the oldest first, and no more", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aFolder();
    mount(folder, "64m");
    const files = Array.from({ length: 14 }, (_, index) => large(folder, index)); // 56 of 64 MiB
    const watching = watchDirectory(folder, {
      spec: { nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 60 } },
    });
    await until(() => expect(watching.deleted).toHaveLength(5)); // 36.x of 64 MiB are below 60 %
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(watching.deleted).toEqual(files.slice(0, 5).map((file) => ({ file, reason: "node_watermark" })));
    expect(archivesIn(folder)).toEqual(files.slice(5).sort());
  });

  it("is not emptied where the deleted files are held open", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aFolder();
    mount(folder, "64m");
    const files = Array.from({ length: 14 }, (_, index) => large(folder, index));
    const held = files.map((file) => openSync(join(folder, file), "r"));
    onTestFinished(() => held.forEach(closeSync));
    const watching = watchDirectory(folder);
    await until(() => expect([...watching.index.all()].filter(({ settled }) => settled)).toHaveLength(14));
    watching.apply({ nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 60 } });
    await until(() => expect(watching.deleted).toHaveLength(5));
    // Several looks at the disk later it still waits for the space that does not show.
    const reads = watching.enforcer.status().disk;
    await until(() => expect(watching.enforcer.status().disk).not.toBe(reads));
    expect(archivesIn(folder)).toHaveLength(9);
  });
});
