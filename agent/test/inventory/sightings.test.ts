import { appendFileSync, chmodSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Entry } from "../../src/inventory/entry.ts";
import { createSightings, MAX_SIGHTINGS } from "../../src/inventory/sightings.ts";
import { archiveName, archiveTime, writeArchive } from "../support/archives.ts";
import { aClock, driveEnforcer } from "../support/driven.ts";
import { aFolder } from "../support/watching.ts";

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;

/** A folder that an agent watches, which is a minute ahead of the files that the test makes. */
function aNode({ folder = aFolder(), clock = aClock({ wallMs: Date.now() + MINUTE_MS }) } = {}) {
  const trusted = { isKnown: true };
  const trustedMs = () => (trusted.isKnown ? clock.wallMs() : undefined);
  const driven = driveEnforcer(folder, { clock, trustedMs });
  const since = (file: string) => driven.index.get(file)?.unmanagedSinceMs;
  /** The same folder after a restart: what was kept goes on, if anything was. */
  const restart = () => {
    const kept = driven.sightings.record();
    const next = aNode({ folder, clock });
    // As the agent does: restored before the directory is opened.
    if (kept !== undefined) next.sightings.restore(JSON.parse(JSON.stringify(kept)));
    next.sightings.setDirectory(next.directory);
    return next;
  };
  return { ...driven, folder, clock, trusted, since, restart };
}

let names = 0;
/** A file named as an archive that is none. */
function garbage(folder: string, text = "no tar at all".repeat(100)): string {
  names += 1;
  const file = archiveName({ time: archiveTime(Date.now() - names * 1000) });
  writeFileSync(join(folder, file), text);
  return file;
}

describe("since when a file is unmanaged", () => {
  it("is when it was first seen, whatever its own times say and however often it is looked at; not of what is an archive", () => {
    const { folder, see, since, clock } = aNode();
    const file = garbage(folder);
    utimesSync(join(folder, file), 1, 1);
    const startMs = clock.wallMs();
    const archive = writeArchive(folder);
    see(archive);
    see(file);
    clock.pass(DAY_MS);
    see(file);
    expect([since(file), since(archive)]).toEqual([startMs, undefined]);
  });

  it("is also told of what is nobody's", () => {
    const { folder, see, since, clock } = aNode();
    const file = writeArchive(folder, { namespace: "a-b", runtime: "none" });
    expect(see(file).state).toBe("unidentified");
    expect(since(file)).toBe(clock.wallMs());
  });

  it("is not known before it was looked into, nor while it cannot be read, nor while it is postdated; what was seen before goes on", () => {
    const { folder, see, since, clock, sightings, index } = aNode();
    const file = garbage(folder);
    see(file, { isWalked: false });
    expect(since(file)).toBeUndefined();
    clock.pass(1000);
    const entry = see(file);
    const startMs = clock.wallMs();
    expect(since(file)).toBe(startMs);
    clock.pass(DAY_MS);
    const lookAt = (changes: Partial<Entry>) => {
      const before = { ...entry };
      Object.assign(entry, changes);
      sightings.noticed(entry);
      const told = since(file);
      Object.assign(entry, before);
      return told;
    };
    const failed = { ...entry.walk, verdict: { kind: "failed", code: "EIO" } } as Entry["walk"];
    const begun = { ...entry.walk, verdict: undefined } as Entry["walk"];
    for (const changes of [{ walked: false }, { walk: failed }, { walk: begun }, { isPostdated: true }]) {
      expect(lookAt(changes)).toBeUndefined();
    }
    sightings.noticed(entry);
    expect([since(file), index.get(file)]).toEqual([startMs, entry]);
  });

  it.each<[string, (path: string) => void]>([
    ["is written to", (path) => appendFileSync(path, "x")],
    ["is touched", (path) => utimesSync(path, 1, 1)],
    ["is given another mode", (path) => chmodSync(path, 0o640)],
    [
      "is replaced by another with the same content",
      (path) => {
        writeFileSync(`${path}.new`, "no tar at all".repeat(100));
        renameSync(`${path}.new`, path);
      },
    ],
    [
      "is moved away and back",
      (path) => {
        renameSync(path, `${path}.away`);
        renameSync(`${path}.away`, path);
      },
    ],
  ])("begins anew if it %s", (_, change) => {
    const { folder, see, since, clock, restart } = aNode();
    const file = garbage(folder);
    see(file);
    clock.pass(DAY_MS);
    change(join(folder, file));
    const next = restart();
    see(file);
    expect(since(file)).toBe(clock.wallMs());
    // The same if that happened while no agent was there.
    next.see(file);
    expect(next.since(file)).toBe(clock.wallMs());
  });

  it("ends when the file becomes an archive, and begins anew if it then is none again", () => {
    const { folder, see, since, clock } = aNode();
    const file = writeArchive(folder);
    const path = join(folder, file);
    const whole = join(aFolder(), "whole");
    renameSync(path, whole);
    writeFileSync(path, "garbage".repeat(100));
    see(file);
    expect(since(file)).toBe(clock.wallMs());
    clock.pass(DAY_MS);
    rmSync(path);
    writeArchive(folder);
    expect(see(file).state).toBe("complete");
    expect(since(file)).toBeUndefined();
    writeFileSync(path, "garbage".repeat(100));
    clock.pass(DAY_MS);
    see(file);
    expect(since(file)).toBe(clock.wallMs());
  });

  it("waits for a time that can be trusted, and begins with that", () => {
    const { folder, see, since, clock, trusted, sightings } = aNode();
    trusted.isKnown = false;
    const file = garbage(folder);
    see(file);
    clock.pass(DAY_MS);
    sightings.tick();
    expect([since(file), sightings.record()?.sightings]).toEqual([undefined, []]);
    trusted.isKnown = true;
    sightings.tick();
    expect(since(file)).toBe(clock.wallMs());
    clock.pass(DAY_MS);
    sightings.tick();
    expect(since(file)).toBe(clock.wallMs() - DAY_MS);
  });

  it("outlives a restart, during which nobody watched, and an unmount of the directory", () => {
    const { folder, see, since, clock, restart, sightings, directory } = aNode();
    const file = garbage(folder);
    see(file);
    const startMs = since(file);
    clock.pass(DAY_MS);
    const next = restart();
    next.trusted.isKnown = false;
    next.see(file, { isWalked: false });
    next.sightings.listed();
    next.see(file);
    clock.pass(DAY_MS);
    next.trusted.isKnown = true;
    next.sightings.tick();
    expect(next.since(file)).toBe(startMs);
    sightings.setDirectory(directory);
    see(file);
    expect(since(file)).toBe(startMs);
  });

  it("begins anew in another directory, by its device and its inode", () => {
    const { folder, see, since, clock, sightings, directory } = aNode();
    const file = garbage(folder);
    see(file);
    for (const other of [{ inode: directory.inode + 1n }, { device: directory.device + 1n }]) {
      clock.pass(DAY_MS);
      sightings.setDirectory({ ...directory, ...other });
      see(file);
      expect(since(file)).toBe(clock.wallMs());
      sightings.setDirectory(directory);
    }
  });

  it("begins anew if it lies in the future, and is never before the file's own last change", () => {
    const { folder, see, restart, clock, sightings, since } = aNode();
    const [future, past] = [garbage(folder), garbage(folder)];
    for (const file of [future, past]) see(file);
    const record = sightings.record();
    for (const sighting of record?.sightings ?? []) {
      sighting.sinceMs = sighting.file === future ? clock.wallMs() + 5 * MINUTE_MS + 1 : 0;
    }
    const next = restart();
    for (const file of [future, past]) next.see(file);
    next.sightings.tick();
    expect(next.since(future)).toBe(clock.wallMs());
    const ctimeMs = Number((next.index.get(past) as Entry).ctimeNs / 1_000_000n);
    expect(next.since(past)).toBe(ctimeMs);
    expect(since(past)).toBe(clock.wallMs());
  });

  it.each([400, -400])(
    "moves with the trusted time if that jumps by %d days: nothing becomes older or younger",
    (days) => {
      const { folder, see, since, clock, sightings } = aNode({ clock: aClock({ wallMs: Date.now() + 1000 * DAY_MS }) });
      const file = garbage(folder);
      see(file);
      sightings.tick();
      clock.pass(DAY_MS);
      clock.jump(days * DAY_MS);
      sightings.tick();
      expect(since(file)).toBe(clock.wallMs() - DAY_MS);
      // As much as two clocks may be apart is no jump.
      clock.jump(5 * MINUTE_MS);
      sightings.tick();
      expect(since(file)).toBe(clock.wallMs() - DAY_MS - 5 * MINUTE_MS);
    },
  );
});

describe("what is kept of sightings", () => {
  it("is nothing before there is a directory, then the same object until something changes", () => {
    const { index, clock } = aNode();
    const empty = createSightings({ index, clock, time: { nowMs: clock.wallMs } });
    expect(empty.record()).toBeUndefined();
    const { folder, see, sightings } = aNode();
    const file = garbage(folder);
    see(file);
    const record = sightings.record();
    expect(record?.sightings).toHaveLength(1);
    see(file);
    sightings.tick();
    see(writeArchive(folder));
    expect(sightings.record()).toBe(record);
    rmSync(join(folder, file));
    see(file);
    expect(sightings.record()?.sightings).toEqual([]);
  });

  it("is not what is no longer there when the directory is listed", () => {
    const { folder, see, restart } = aNode();
    const [gone, stays] = [garbage(folder), garbage(folder)];
    for (const file of [gone, stays]) see(file);
    const next = restart();
    next.see(stays);
    next.sightings.listed();
    expect(next.sightings.record()?.sightings.map(({ file }) => file)).toEqual([stays]);
    expect([...next.sightings.unmanaged()].map(({ file }) => file)).toEqual([stays]);
  });

  it("is bounded: the first ones stay, and a later one finds room when one of them has gone", () => {
    const { folder, see, since, sightings, clock } = aNode();
    const entry = see(garbage(folder));
    const { index } = aNode();
    const full = createSightings({ index, clock, time: { nowMs: clock.wallMs } });
    full.setDirectory({ device: 1n, inode: 1n } as Parameters<typeof full.setDirectory>[0]);
    const entries = Array.from({ length: MAX_SIGHTINGS + 1 }, (_, at) => ({ ...entry, file: `${at}` }));
    for (const one of entries) {
      index.put(one);
      full.noticed(one);
    }
    const [first, last] = [entries[0] as Entry, entries.at(-1) as Entry];
    expect([full.record()?.sightings.length, last.unmanagedSinceMs]).toEqual([MAX_SIGHTINGS, undefined]);
    full.noticed(first);
    expect(first.unmanagedSinceMs).toBe(clock.wallMs());
    index.remove(first.file);
    full.noticed(first);
    full.noticed(last);
    expect([full.record()?.sightings.length, last.unmanagedSinceMs]).toEqual([MAX_SIGHTINGS, clock.wallMs()]);
    expect([sightings.record()?.sightings.length, since(entry.file)]).toEqual([1, clock.wallMs()]);
  });
});
