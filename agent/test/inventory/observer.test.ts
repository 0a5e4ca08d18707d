import { execFileSync } from "node:child_process";
import {
  appendFileSync,
  chmodSync,
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { pino } from "pino";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { type Clock, systemClock } from "../../src/clock.ts";
import { type ArchiveIndex, createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Directory } from "../../src/inventory/directory.ts";
import { type Entry, OWNERLESS_AFTER_MS } from "../../src/inventory/entry.ts";
import { createObserver, type ObserverOptions } from "../../src/inventory/observer.ts";
import { archiveBytes, archiveName, archivesIn, archiveTime, tarHeader, writeArchive } from "../support/archives.ts";
import { realArchives } from "../support/real-archives.ts";
import { packNames } from "../support/seen.ts";
import { aFolder, watchDirectory } from "../support/watching.ts";

const until = (condition: () => void, timeout = 10_000) => vi.waitFor(condition, { timeout, interval: 20 });
const isRoot = process.getuid?.() === 0;

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}

/** An observer alone, which tells only what the test wants to know. Ends with the test. */
function anObserver(
  on: Partial<ObserverOptions["on"]>,
  { index = createArchiveIndex<Entry>(), clock = systemClock }: { index?: ArchiveIndex<Entry>; clock?: Clock } = {},
) {
  const observer = createObserver({
    index,
    clock,
    log: pino({ level: "silent" }),
    incompleteAfterMs: 600_000,
    nodeName: "node-a",
    roots: [],
    on: {
      ...{ directory: async () => {}, listed: () => {}, looked: () => {}, changed: () => {}, goneMount: () => {} },
      ...on,
    },
  });
  onTestFinished(() => observer.stop());
  return observer;
}

describe("what lies in the directory already", () => {
  it("is listed, walked and told apart", async () => {
    const folder = aFolder();
    for (const { file, bytes } of realArchives()) writeFileSync(join(folder, file), bytes);
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    expect(watching.files()).toEqual(
      realArchives()
        .map(({ file }) => file)
        .sort(),
    );
    for (const entry of watching.index.all()) expect(entry.state).toBe("complete");
    expect([...watching.index.inScope({ namespace: "team-prod" })]).toHaveLength(2);
    expect([...watching.index.inScope({ namespace: "a-b", pod: "p", container: "c" })]).toHaveLength(2);
    expect(watching.events).toEqual([]);
  });

  it("lets all else have its turn while it is walked, also where each walk ends at its first read", async () => {
    const folder = aFolder();
    const count = 8000;
    for (let pod = 0; pod < count; pod += 1) writeFileSync(join(folder, archiveName({ pod: `p${pod}` })), "");
    const { index } = watchDirectory(folder);
    let walked = 0;
    let mostInOneTurn = 0;
    while (walked < count) {
      await nextTurn();
      const now = [...index.all()].filter((entry) => entry.walked).length;
      mostInOneTurn = Math.max(mostInOneTurn, now - walked);
      walked = now;
    }
    expect(mostInOneTurn).toBeLessThan(count / 2);
  }, 180_000);

  it("waits for no archive of very many headers: such a walk gives way and goes on later", async () => {
    const folder = aFolder();
    const header = tarHeader({ name: "x" });
    const many = archiveName({ container: "many" });
    const bytes = archiveBytes({ container: "many", pagesBytes: 512 });
    writeFileSync(join(folder, many), Buffer.concat([Buffer.alloc(20_000 * header.length, header), bytes]));
    let monotonicMs = 0;
    const clock = { wallMs: () => Date.now(), monotonicMs: () => (monotonicMs += 1) };
    const { index, observer, state } = watchDirectory(folder, { clock });
    while (!((index.get(many)?.walk.offset ?? 0) > 0)) await nextTurn();
    const few = writeArchive(folder, { container: "few" });
    observer.lookAgain(few);
    while (index.get(few)?.walked !== true) await nextTurn();
    expect(index.get(many)?.walked).toBe(false);
    await until(() => expect(state(many)).toBe("complete"), 60_000);
    expect(index.get(many)?.walk.readBytes).toBeLessThan(22_000 * header.length);
  });

  it("is kept and not counted where it is junk, and the reason is logged", async () => {
    const folder = aFolder();
    const write = (container: string, bytes: Uint8Array) => {
      const file = archiveName({ container });
      writeFileSync(join(folder, file), bytes);
      return file;
    };
    const whole = archiveBytes({ container: "sum" });
    const damaged = Buffer.from(whole);
    damaged[148] = (damaged[148] ?? 0) ^ 1;
    const files = {
      empty: write("empty", Buffer.alloc(0)),
      compressed: write("gz", gzipSync(realArchives()[0]?.bytes ?? whole)),
      damaged: write("sum", damaged),
      torn: write("torn", archiveBytes({ container: "torn" }).subarray(0, 2048)),
      bare: write("bare", archiveBytes({ container: "bare", spec: null })),
      undecided: write("two-dashes", archiveBytes({ container: "two-dashes", spec: null })),
      packed: write("pack-ed", archiveBytes({ container: "pack-ed", spec: gzipSync("{}") })),
      half: write("ha-lf", archiveBytes({ container: "ha-lf", spec: Buffer.from('{"annotations":{"io.kub') })),
    };
    mkdirSync(join(folder, archiveName({ container: "directory" })));
    symlinkSync("/etc/passwd", join(folder, archiveName({ container: "link" })));
    execFileSync("mkfifo", [join(folder, archiveName({ container: "pipe" }))]);
    if (isRoot) execFileSync("mknod", [join(folder, archiveName({ container: "device" })), "c", "1", "3"]);
    writeFileSync(Buffer.concat([Buffer.from(`${folder}/checkpoint-p_n-\xff`, "latin1"), Buffer.from(".tar")]), "");
    writeFileSync(join(folder, "notes.txt"), Buffer.alloc(100));
    writeFileSync(join(folder, `${files.half}.gz`), Buffer.alloc(200));
    const watching = watchDirectory(folder, { spec: { applyPoliciesImmediately: true } });
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    expect(watching.files()).toEqual(Object.values(files).sort());
    expect(watching.state(files.empty)).toBe("unsettled");
    expect(watching.state(files.compressed)).toBe("unread");
    expect(watching.state(files.damaged)).toBe("unread");
    expect(watching.state(files.torn)).toBe("unsettled");
    expect(watching.state(files.bare)).toBe("unread");
    for (const file of [files.undecided, files.packed, files.half]) {
      expect(watching.state(file)).toBe("unidentified");
      expect(watching.logged.find(({ archive }) => archive === file)?.why).toMatch(/more than one reading/);
    }
    expect(watching.observer.status().foreignFiles).toBe(isRoot ? 4 : 3);
    await until(() => expect(watching.observer.status().foreignBytes).toBe(300));
    expect(watching.deleted).toEqual([]);
    rmdirSync(join(folder, archiveName({ container: "directory" })));
    await until(() => expect(watching.observer.status().foreignFiles).toBe(isRoot ? 3 : 2));
  });
});

describe("an archive that arrives", () => {
  it("is not counted while it grows under its final name, and is an event once it is complete", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = archiveName({ namespace: "team-prod", container: "main-c" });
    const bytes = archiveBytes({ namespace: "team-prod", container: "main-c", pagesBytes: 1 << 20 });
    const descriptor = openSync(join(folder, file), "w");
    const step = 64 * 1024;
    for (let at = 0; at < bytes.length; at += step) {
      writeSync(descriptor, bytes.subarray(at, at + step));
      await until(() => expect(watching.index.get(file)?.size).toBeGreaterThan(at));
      if (at + step < bytes.length) expect(["unread", "unsettled"]).toContain(watching.state(file));
    }
    closeSync(descriptor);
    await until(() => expect(watching.state(file)).toBe("complete"));
    expect(watching.index.get(file)?.identity).toEqual({ namespace: "team-prod", pod: "web-0", container: "main-c" });
    expect(watching.events).toEqual([file]);
  });

  it("is incomplete when its writer died, once nothing has changed for the time set, and not before", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder, { incompleteAfterMs: 1500 });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = archiveName();
    const startedMs = performance.now();
    writeFileSync(join(folder, file), archiveBytes().subarray(0, 3000));
    await until(() => expect(watching.state(file)).toBe("unsettled"));
    await until(() => expect(watching.state(file)).toBe("incomplete"));
    expect(performance.now() - startedMs).toBeGreaterThan(1500);
    appendFileSync(join(folder, file), archiveBytes().subarray(3000));
    await until(() => expect(watching.state(file)).toBe("complete"));
  });

  it("has no owner an hour after its writer died before naming one: told once, and taken by rules of the node alone", async () => {
    const folder = aFolder();
    const names = { namespace: "team", container: "prod-main" };
    const bytes = archiveBytes({ ...names, pagesBytes: 3 << 20 });
    const file = archiveName(names);
    writeFileSync(join(folder, file), bytes.subarray(0, 2 << 20));
    let passedMs = 0;
    const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + passedMs };
    const limits = { maxCheckpointsPerContainer: 1, maxCheckpointSize: "1Mi", maxTotalSizePerNamespace: "1Mi" };
    const spec = { applyPoliciesImmediately: true, globalPolicy: { ...limits, maxAge: "1ns" } };
    const watching = watchDirectory(folder, { clock, spec });
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(watching.state(file)).toBe("unsettled");
    passedMs = OWNERLESS_AFTER_MS + 10_000;
    await until(() => expect(watching.state(file)).toBe("incomplete"));
    await until(() => expect(watching.isCalm()).toBe(true));
    const told = () => watching.logged.filter(({ msg }) => String(msg).includes("has no owner"));
    expect(told()).toMatchObject([{ archive: file, bytes: 2 << 20 }]);
    expect(archivesIn(folder)).toContain(file);
    watching.apply({ ...spec, nodePolicy: { maxTotalSize: "1Mi" } });
    await until(() => expect(archivesIn(folder)).not.toContain(file));
    expect(watching.deleted).toContainEqual({ file, reason: "node_max_total_size" });
    expect(told()).toHaveLength(1);
  });

  it("is known anew when another is written over it in place, with an old tail behind its end", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder);
    const file = "checkpoint-p_a-b-c-2026-01-02T03:04:05Z.tar";
    writeFileSync(
      join(folder, file),
      archiveBytes({ pod: "p", namespace: "a", container: "b-c", pagesBytes: 1 << 20 }),
    );
    await until(() => expect(watching.index.get(file)?.identity?.namespace).toBe("a"));
    const descriptor = openSync(join(folder, file), "r+");
    writeSync(descriptor, archiveBytes({ pod: "p", namespace: "a-b", container: "c" }), 0);
    closeSync(descriptor);
    await until(() =>
      expect(watching.index.get(file)?.identity).toEqual({ namespace: "a-b", pod: "p", container: "c" }),
    );
    expect([...watching.index.inScope({ namespace: "a" })]).toEqual([]);
    expect(watching.state(file)).toBe("complete");
  });

  it("gets a higher number when its content changes, so that an earlier proof does not cover it", async () => {
    const folder = aFolder();
    const [file, other] = [writeArchive(folder), writeArchive(folder, { container: "other" })];
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    const asked = watching.observer.status().listedUpTo;
    writeFileSync(join(folder, file), archiveBytes({ pagesBytes: 8192 }));
    await until(() => expect(watching.events).toEqual([file]));
    expect(watching.index.get(file)?.listed).toBeGreaterThan(asked);
    expect(watching.observer.status().listedUpTo).toBe(watching.index.get(file)?.listed);
    expect(watching.index.get(other)?.listed).toBeLessThanOrEqual(asked);
  });

  it("is not believed to be what a walk found while another archive was written over it", async () => {
    const folder = aFolder();
    const file = "checkpoint-p_a-b-c-2026-01-02T03:04:05Z.tar";
    const path = join(folder, file);
    const of = (namespace: string, container: string, pagesBytes: number) =>
      archiveBytes({ pod: "p", namespace, container, pagesBytes });
    writeFileSync(path, of("a", "b-c", 512));
    const told: string[] = [];
    let isOverwritten = false;
    let frozenAtMs: number | undefined = systemClock.monotonicMs();
    const clock = {
      ...systemClock,
      // No slice of work is over before the walk is, so that no event tells of the change first.
      monotonicMs: () => {
        const descriptors = readdirSync("/proc/self/fd").map((fd) => readLink(`/proc/self/fd/${fd}`));
        if (!isOverwritten && descriptors.includes(path)) {
          isOverwritten = true;
          writeFileSync(path, of("a-b", "c", 1024));
          setImmediate(() => {
            frozenAtMs = undefined;
          });
        }
        return frozenAtMs ?? systemClock.monotonicMs();
      },
    };
    const changed = ({ state, identity }: Entry) => void told.push(`${state} ${identity?.namespace}`);
    anObserver({ changed }, { clock }).setPath(folder, undefined);
    await until(() => expect(told).toContain("complete a-b"));
    expect(isOverwritten).toBe(true);
    expect(told).not.toContain("complete a");
  });

  it("is walked from the start when it has stopped growing and is still torn, and then becomes incomplete", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder, { incompleteAfterMs: 500 });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = archiveName();
    const bytes = archiveBytes();
    writeFileSync(join(folder, file), bytes.subarray(0, 1024));
    for (const end of [2048, 3072]) {
      await until(() =>
        expect(watching.index.get(file)).toMatchObject({ size: end - 1024, walk: { verdict: { kind: "torn" } } }),
      );
      appendFileSync(join(folder, file), bytes.subarray(end - 1024, end));
    }
    await until(() => expect(watching.index.get(file)?.size).toBe(3072));
    await until(() => expect(watching.state(file)).toBe("incomplete"));
  });

  it("is forgotten when it is removed, and found again under another name", async () => {
    const folder = aFolder();
    const file = writeArchive(folder);
    const watching = watchDirectory(folder);
    await until(() => expect(watching.files()).toEqual([file]));
    const other = archiveName({ time: "2026-01-02T03:04:06Z" });
    renameSync(join(folder, file), join(folder, other));
    await until(() => expect(watching.files()).toEqual([other]));
    unlinkSync(join(folder, other));
    await until(() => expect(watching.files()).toEqual([]));
  });

  it("is pinned while a .keep lies beside it", async () => {
    const folder = aFolder();
    const file = writeArchive(folder);
    const pinnedBefore = writeArchive(folder, { container: "other" });
    mkdirSync(join(folder, `${pinnedBefore}.keep`));
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    expect(watching.index.get(pinnedBefore)?.pinned).toBe(true);
    expect(watching.index.get(file)?.pinned).toBe(false);
    writeFileSync(join(folder, `${file}.keep`), "");
    await until(() => expect(watching.index.get(file)?.pinned).toBe(true));
    unlinkSync(join(folder, `${file}.keep`));
    await until(() => expect(watching.index.get(file)?.pinned).toBe(false));
    const arrived = writeArchive(folder, { container: "arrived" });
    await until(() => expect(watching.events).toEqual([arrived]));
    writeFileSync(join(folder, `${arrived}.keep`), "");
    await until(() => expect(watching.index.get(arrived)?.pinned).toBe(true));
    unlinkSync(join(folder, `${arrived}.keep`));
    await until(() => expect(watching.index.get(arrived)?.pinned).toBe(false));
    // To be pinned or unpinned is no arrival.
    expect(watching.events).toEqual([arrived]);
  });

  it("that is none has been so since it was first seen, until its mode changes, it is removed or an archive takes its place", async () => {
    const folder = aFolder();
    const { index, sightings } = watchDirectory(folder);
    const [file, other, removed] = ["a", "b", "c"].map((container) => archiveName({ container })) as [
      string,
      string,
      string,
    ];
    for (const name of [file, other, removed]) writeFileSync(join(folder, name), "no tar".repeat(200));
    const since = (name: string) => index.get(name)?.unmanagedSinceMs;
    await until(() => expect([...sightings.unmanaged()]).toHaveLength(3));
    const [before = 0, stays] = [since(file), since(other)];
    chmodSync(join(folder, file), 0o640);
    unlinkSync(join(folder, removed));
    await until(() => expect(since(file)).toBeGreaterThan(before));
    await until(() => expect(sightings.record()?.sightings).toHaveLength(2));
    expect(since(other)).toBe(stays);
    unlinkSync(join(folder, other));
    writeArchive(folder, { container: "b" });
    await until(() => expect(index.get(other)).toMatchObject({ state: "complete", unmanagedSinceMs: undefined }));
  });

  it("is postdated while its time lies ahead of the clock", async () => {
    const folder = aFolder();
    const soon = writeArchive(folder, { time: archiveTime(Date.now() + 3 * 60_000) });
    const late = writeArchive(folder, { time: archiveTime(Date.now() + 10 * 60_000) });
    const touched = writeArchive(folder, { container: "touched", mtimeMs: Date.now() + 10 * 60_000 });
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isIdle).toBe(true));
    expect(watching.state(soon)).toBe("complete");
    expect(watching.state(late)).toBe("postdated");
    expect(watching.state(touched)).toBe("postdated");
  });
});

describe("an archive of many writes", () => {
  it("costs few looks: some twenty a second, however many events it makes", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const before = watching.observer.status().listedUpTo;
    const bytes = archiveBytes({ pagesBytes: 3 << 20 });
    const file = archiveName();
    const descriptor = openSync(join(folder, file), "w");
    const startedMs = performance.now();
    let writes = 0;
    for (let at = 0; at < bytes.length; at += 1024) {
      writeSync(descriptor, bytes.subarray(at, at + 1024));
      writes += 1;
      if (writes % 20 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    closeSync(descriptor);
    await until(() => expect(watching.state(file)).toBe("complete"));
    const lookedFor = performance.now() - startedMs;
    expect(writes).toBeGreaterThan(3000);
    // Each look that finds it changed gives it another number.
    expect(watching.observer.status().listedUpTo - before).toBeLessThanOrEqual(lookedFor / 50 + 3);
    expect(watching.events).toEqual([file]);
  });

  it("is an event also where it was taken for incomplete in between", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder, { incompleteAfterMs: 200 });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = archiveName();
    writeFileSync(join(folder, file), archiveBytes().subarray(0, 3000));
    await until(() => expect(watching.state(file)).toBe("incomplete"));
    expect(watching.events).toEqual([file]);
    appendFileSync(join(folder, file), archiveBytes().subarray(3000));
    await until(() => expect(watching.state(file)).toBe("complete"));
    expect(watching.events).toEqual([file, file]);
  });
});

describe("a burst", () => {
  it("of 40,000 archives is in the index whole, though the kernel tells of some alone", async () => {
    const folder = aFolder();
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    // Created by another process, as fast as the disk takes them.
    const script = `const fs=require("node:fs");for(let i=0;i<40000;i++)fs.closeSync(fs.openSync(process.argv[1]+"/checkpoint-p"+i+"_n-c-2026-01-02T03:04:05Z.tar","w"))`;
    const { spawn } = await import("node:child_process");
    const child = spawn(process.execPath, ["-e", script, folder], { stdio: "inherit" });
    await new Promise((resolve) => child.once("close", resolve));
    await until(() => expect(watching.index.size).toBe(40_000), 120_000);
  }, 180_000);
});

describe("a clock that jumps back", () => {
  it("makes what is dated ahead of it postdated within a second or two, so that nothing new goes in its stead", async () => {
    const folder = aFolder();
    let aheadMs = 0;
    const clock = { ...systemClock, wallMs: () => Date.now() + aheadMs };
    const old = writeArchive(folder, { time: archiveTime(Date.now() - 1000) });
    const watching = watchDirectory(folder, {
      clock,
      spec: { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } },
    });
    await until(() => expect(watching.index.get(old)?.settled).toBe(true));
    aheadMs = -3_600_000;
    const young = writeArchive(folder, { time: archiveTime(clock.wallMs() - 2000), mtimeMs: clock.wallMs() - 1000 });
    await until(() => expect(watching.index.get(young)?.settled).toBe(true));
    await until(() => expect(watching.isCalm()).toBe(true));
    expect(watching.state(old)).toBe("postdated");
    expect(watching.deleted).toEqual([]);
  });
});

describe("the directory", () => {
  it("may come late, be deleted and created again, or be replaced: what is there now is watched", async () => {
    const parent = aFolder();
    const folder = join(parent, "checkpoints");
    const watching = watchDirectory(folder);
    await until(() => expect(watching.observer.status().state).toBe("missing"));
    mkdirSync(folder);
    const first = writeArchive(folder);
    await until(() => expect(watching.files()).toEqual([first]));
    rmSync(folder, { recursive: true });
    await until(() => expect(watching.observer.status().state).toBe("missing"));
    expect(watching.files()).toEqual([]);
    mkdirSync(folder);
    const second = writeArchive(folder, { container: "second" });
    await until(() => expect(watching.files()).toEqual([second]));
    renameSync(folder, join(parent, "aside"));
    mkdirSync(folder);
    const third = writeArchive(folder, { container: "third" });
    await until(() => expect(watching.files()).toEqual([third]));
    await until(() => expect(watching.state(third)).toBe("complete"));
  });

  it("is another one when something is mounted over it", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const folder = aFolder();
    const below = writeArchive(folder);
    const watching = watchDirectory(folder);
    await until(() => expect(watching.files()).toEqual([below]));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]);
    onTestFinished(() => void execFileSync("umount", ["-l", folder]));
    const above = writeArchive(folder, { container: "above" });
    await until(() => expect(watching.files()).toEqual([above]));
    expect(statSync(join(folder, above)).size).toBeGreaterThan(0);
  });

  it("ends the agent where it is a mount whose source was deleted", async ({ skip }) => {
    if (!isRoot) skip("mounting needs root");
    const parent = aFolder();
    const source = join(parent, "source");
    const root = join(parent, "root");
    mkdirSync(source);
    mkdirSync(root);
    execFileSync("mount", ["--bind", source, root]);
    onTestFinished(() => void execFileSync("umount", ["-l", root]));
    const watching = watchDirectory(root, { roots: [root] });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    rmSync(source, { recursive: true });
    await until(() => expect(watching.gone).toContain(root));
  });

  it("brings no news from before, when it comes back", async () => {
    const parent = aFolder();
    const folder = join(parent, "checkpoints");
    mkdirSync(folder);
    const { dev, ino } = statSync(folder, { bigint: true });
    const watched = { device: `${dev}`, inode: `${ino}`, seen: packNames([]) };
    const watching = watchDirectory(folder, { watched });
    await until(() => expect(watching.observer.status().isListed).toBe(true));
    const file = writeArchive(folder);
    await until(() => expect(watching.events).toEqual([file]));
    renameSync(folder, join(parent, "aside"));
    await until(() => expect(watching.observer.status().state).toBe("missing"));
    renameSync(join(parent, "aside"), folder);
    await until(() => expect(watching.state(file)).toBe("complete"));
    expect(watching.events).toEqual([file]);
  });

  it("is not said to be watched by a listing that ends when it is gone", async () => {
    const folder = aFolder();
    let release = () => {};
    const observer = anObserver({
      // Somebody still works in the old one, so that its descriptor stays open for a while.
      directory: (directory) =>
        new Promise((resolve) => {
          if (directory === undefined) release = resolve;
          else resolve();
        }),
    });
    observer.setPath(folder, undefined);
    observer.setPath(join(folder, "missing"), undefined);
    expect(observer.status().state).toBe("missing");
    // Later listings by the same threads end after it.
    for (let listing = 0; listing < 8; listing += 1) await readdir(folder);
    expect(observer.status().state).toBe("missing");
    release();
  });

  it("is closed only when nothing uses it any more", async () => {
    const folder = aFolder();
    let old: Directory | undefined;
    let release = () => {};
    const observer = anObserver({
      directory: (directory) => {
        old ??= directory;
        return new Promise((resolve) => {
          if (directory === undefined) release = resolve;
          else resolve();
        });
      },
    });
    observer.setPath(folder, undefined);
    const { inode } = old as unknown as Directory;
    observer.setPath(aFolder(), undefined);
    // The next directory would otherwise have its descriptor.
    expect(old?.stat().ino).toBe(inode);
    release();
    await until(() => expect(() => old?.stat()).toThrow("EBADF"));
  });

  it("is said to be listed only when every name in it has been looked at", async () => {
    const folder = aFolder();
    const count = 3000;
    for (let pod = 0; pod < count; pod += 1) writeFileSync(join(folder, archiveName({ pod: `p${pod}` })), "");
    const index = createArchiveIndex<Entry>();
    const sizes: number[] = [];
    const observer = anObserver({ listed: () => sizes.push(index.size) }, { index });
    observer.setPath(folder, undefined);
    await until(() => expect(sizes).toEqual([count]));
  });

  it("is refused outside what is mounted, also behind a symbolic link", async () => {
    const root = aFolder();
    const outside = aFolder();
    symlinkSync(outside, join(root, "link"));
    writeArchive(outside);
    for (const path of [outside, join(root, "link")]) {
      const watching = watchDirectory(path, { roots: [root] });
      await until(() => expect(watching.observer.status().state).toBe("not_mounted"));
      expect(watching.files()).toEqual([]);
    }
    mkdirSync(join(root, "inside"));
    const inside = watchDirectory(join(root, "inside"), { roots: [root] });
    await until(() => expect(inside.observer.status().isListed).toBe(true));
  });
});
