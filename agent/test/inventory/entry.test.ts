import { execFileSync } from "node:child_process";
import { lstatSync, mkdirSync, readdirSync, renameSync, rmSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { parseArchiveName } from "../../src/archive/name.ts";
import { openDirectory } from "../../src/inventory/directory.ts";
import {
  adoptChange,
  compareContent,
  endNews,
  findFile,
  hasChanged,
  newEntry,
  OWNERLESS_AFTER_MS,
  refresh,
  walkEntry,
} from "../../src/inventory/entry.ts";
import { createReadSpace, READ_AHEAD } from "../../src/inventory/read-ahead.ts";
import { archiveBytes, POD_UID, specBytes, tarBytes, writeArchive } from "../support/archives.ts";
import { aClock } from "../support/driven.ts";
import { aFolder } from "../support/watching.ts";

const INCOMPLETE_AFTER_MS = 600_000;

/** One archive in a directory of its own, found and not walked. */
function anEntry(parts: Parameters<typeof writeArchive>[1] = {}, content?: Uint8Array) {
  const folder = aFolder();
  const file = writeArchive(folder, parts);
  const path = join(folder, file);
  if (content !== undefined) writeFileSync(path, content);
  const opened = openDirectory(folder, []);
  const name = parseArchiveName(file);
  if (!opened.ok || name === undefined) throw new Error("no archive");
  const { directory } = opened;
  onTestFinished(() => directory.close());
  const clock = aClock();
  const stat = () => {
    const found = findFile(directory, file);
    if (found.kind !== "file") throw new Error(found.kind);
    return found.stat;
  };
  const unchangedSinceMs = clock.monotonicMs();
  const entry = newEntry(name, stat(), {
    file,
    timeMs: name.timeMs,
    listed: 1,
    pinned: false,
    isNews: false,
    unchangedSinceMs,
  });
  let listed = 1;
  return {
    ...{ path, folder, directory, entry, clock, stat },
    /** Walks to a verdict; `midway` happens after the first read. */
    walk: (midway = () => {}) => {
      const walking = walkEntry(directory, entry, createReadSpace(READ_AHEAD.none));
      let step = walking.next();
      if (!step.done) midway();
      while (!step.done) step = walking.next();
      if (step.value) entry.walked = true;
      return step.value;
    },
    adopt: ({ isListed = true } = {}) => {
      listed += 1;
      adoptChange(entry, stat(), { listed, nowMs: clock.monotonicMs(), isListed });
    },
    state: () => {
      refresh(entry, clock, { incompleteAfterMs: INCOMPLETE_AFTER_MS, nodeName: "node-a" });
      return entry.state;
    },
  };
}

describe("what lies at a name", () => {
  it("is a file, nothing, or something that is none of ours", () => {
    const { folder, directory, entry } = anEntry();
    mkdirSync(join(folder, "d"));
    symlinkSync(join(folder, entry.file), join(folder, "l"));
    symlinkSync("/nowhere", join(folder, "broken"));
    expect(findFile(directory, entry.file).kind).toBe("file");
    expect(findFile(directory, "missing").kind).toBe("absent");
    for (const foreign of ["d", "l", "broken"]) expect(findFile(directory, foreign).kind).toBe("foreign");
    expect(findFile(directory, `${entry.file}/below`).kind).toBe("unreadable");
  });
});

describe("the walk of an archive", () => {
  it("is worth nothing where the file changed meanwhile, or was another one from the start", () => {
    const { path, entry, walk, stat } = anEntry();
    expect(walk(() => writeFileSync(path, "x", { flag: "a" }))).toBe(false);
    expect(entry.walked).toBe(false);
    expect(hasChanged(entry, stat())).toBe(true);
    expect(walk()).toBe(false);
  });

  it("is worth nothing where content of the same size was written over the file meanwhile", () => {
    const parts = { pod: "p", namespace: "a", container: "b-c" };
    const { path, entry, walk } = anEntry({ ...parts, mtimeMs: 1_700_000_000_000 });
    const other = archiveBytes({ pod: "p", namespace: "a-b", container: "c" });
    expect(other).toHaveLength(entry.size);
    expect(walk(() => writeFileSync(path, other, { flag: "r+" }))).toBe(false);
    expect(entry.walked).toBe(false);
  });

  it("reads nothing of a file that is another one than was found, and leaves no descriptor behind", () => {
    const { path, entry, walk } = anEntry();
    const descriptors = () => readdirSync("/proc/self/fd").length;
    const before = descriptors();
    writeFileSync(path, "x", { flag: "a" });
    expect([walk(), entry.walk.readBytes, entry.walk.verdict]).toEqual([false, 0, undefined]);
    expect(descriptors()).toBe(before);
  });

  it("notices a replacement of the same size and time", () => {
    const { path, entry, walk, stat } = anEntry({ mtimeMs: 1_700_000_000_000 });
    writeFileSync(`${path}.new`, archiveBytes());
    utimesSync(`${path}.new`, 1_700_000_000, 1_700_000_000);
    renameSync(`${path}.new`, path);
    expect(Number(stat().size)).toBe(entry.size);
    expect(walk()).toBe(false);
  });

  it("leaves the file as it was, the time of its last access too", () => {
    const { path, walk } = anEntry({ mtimeMs: 1_700_000_000_000 });
    utimesSync(path, 1_600_000_000, 1_700_000_000);
    const before = lstatSync(path, { bigint: true });
    expect(walk()).toBe(true);
    expect(lstatSync(path, { bigint: true })).toEqual(before);
  });

  it("neither follows a link nor waits at a pipe that took the file's place, and failing is not to be unsettled", () => {
    const linked = anEntry();
    renameSync(linked.path, `${linked.path}.aside`);
    symlinkSync(`${linked.path}.aside`, linked.path);
    expect(linked.walk()).toBe(true);
    expect(linked.entry.walk.verdict).toEqual({ kind: "failed", code: "ELOOP" });
    expect(linked.state()).toBe("unread");
    const piped = anEntry();
    rmSync(piped.path);
    execFileSync("mkfifo", [piped.path]);
    expect(piped.walk()).toBe(false);
    const gone = anEntry();
    rmSync(gone.path);
    expect(gone.walk()).toBe(true);
    expect(gone.entry.walk.verdict).toEqual({ kind: "failed", code: "ENOENT" });
  });
});

describe("a torn archive", () => {
  const bytes = archiveBytes({ pagesBytes: 64 * 1024 });

  it("is incomplete only when the agent has seen it unchanged for the time set, whatever its mtime says", () => {
    const old = anEntry({}, bytes.subarray(0, 3000));
    utimesSync(old.path, 1_000_000, 1_000_000);
    old.adopt();
    expect(old.walk()).toBe(true);
    expect(old.state()).toBe("unsettled");
    old.clock.jump(INCOMPLETE_AFTER_MS * 10);
    expect(old.state()).toBe("unsettled");
    old.clock.jump(-INCOMPLETE_AFTER_MS * 10);
    old.clock.pass(INCOMPLETE_AFTER_MS - 1);
    expect(old.state()).toBe("unsettled");
    old.clock.pass(1);
    expect(old.state()).toBe("incomplete");
    expect(old.entry.settled).toBe(true);
  });

  it("that nothing names an owner of is incomplete without one after an hour, and not before", () => {
    const names = { namespace: "team", container: "prod-main" };
    const { entry, clock, walk, state } = anEntry(
      names,
      archiveBytes({ ...names, pagesBytes: 64 * 1024 }).subarray(0, 3000),
    );
    expect(walk()).toBe(true);
    clock.jump(OWNERLESS_AFTER_MS * 10);
    clock.pass(OWNERLESS_AFTER_MS - 1);
    expect(state()).toBe("unsettled");
    clock.pass(1);
    expect(state()).toBe("incomplete");
    expect([entry.identity, entry.settled, entry.problem]).toEqual([undefined, true, undefined]);
    // It counts in no scope, so that it is no event of any.
    entry.isNews = true;
    expect([endNews(entry), entry.isNews]).toEqual([false, false]);
  });

  it("that grows is unsettled again at once, walked on from where it ended, and complete in the end", () => {
    const { path, entry, clock, walk, adopt, state } = anEntry({}, bytes.subarray(0, 3000));
    walk();
    clock.pass(INCOMPLETE_AFTER_MS);
    expect(state()).toBe("incomplete");
    writeFileSync(path, bytes.subarray(3000, 40_000), { flag: "a" });
    adopt();
    expect(entry.walked).toBe(true);
    expect(state()).toBe("unsettled");
    walk();
    expect(state()).toBe("unsettled");
    expect(entry.walk.verdict).toMatchObject({ kind: "torn", isResumed: true });
    // Merely resumed, it is not taken for abandoned however long it rests.
    clock.pass(INCOMPLETE_AFTER_MS);
    expect(state()).toBe("unsettled");
    writeFileSync(path, bytes.subarray(40_000), { flag: "a" });
    adopt();
    expect(walk()).toBe(true);
    expect(state()).toBe("complete");
    expect(entry.settled).toBe(false);
    clock.pass(2000);
    expect([state(), entry.settled]).toEqual(["complete", true]);
  });

  it("that is only touched is known as before: its walk goes on from where it ended", () => {
    const { path, entry, walk, adopt, state } = anEntry({}, bytes.subarray(0, 3000));
    walk();
    const { offset } = entry.walk;
    utimesSync(path, 1_700_000_000, 1_700_000_000);
    adopt();
    expect([entry.walked, entry.walk.offset, state()]).toEqual([true, offset, "unsettled"]);
  });

  it("that is complete but for its images is settled as soon as it is incomplete, however short the time set", () => {
    const { entry, clock, walk } = anEntry({}, bytes.subarray(0, 3000));
    walk();
    const settledAfter = (ms: number) => {
      clock.pass(ms);
      const isChanged = refresh(entry, clock, { incompleteAfterMs: 500, nodeName: "node-a" });
      return [entry.state, entry.settled, isChanged];
    };
    expect(settledAfter(499)).toEqual(["unsettled", false, true]);
    expect(settledAfter(1)).toEqual(["incomplete", true, true]);
  });

  it("that shrinks, or is replaced, is a new content of which nothing is known", () => {
    const shrunk = anEntry({}, bytes.subarray(0, 3000));
    shrunk.walk();
    writeFileSync(shrunk.path, bytes.subarray(0, 2000));
    shrunk.adopt();
    expect([shrunk.entry.walked, shrunk.state()]).toEqual([false, "unread"]);
    const replaced = anEntry({}, bytes.subarray(0, 3000));
    replaced.walk();
    writeFileSync(`${replaced.path}.new`, bytes);
    renameSync(`${replaced.path}.new`, replaced.path);
    replaced.adopt();
    expect([replaced.entry.walked, replaced.state()]).toEqual([false, "unread"]);
  });
});

it("is unread, unsettled and not postdated when it is found, with the space that it takes up", () => {
  const { path, entry, stat, adopt } = anEntry();
  const known = () => [entry.state, entry.walked, entry.settled, entry.isPostdated, entry.allocated];
  expect(known()).toEqual(["unread", false, false, false, Number(stat().blocks) * 512]);
  expect(entry.allocated).toBeGreaterThanOrEqual(entry.size);
  writeFileSync(path, Buffer.alloc(100_000));
  adopt();
  expect(entry.allocated).toBe(Number(stat().blocks) * 512);
});

it("tells by a look whether state, owner or rest changed, and nothing else", () => {
  const { entry, clock, walk } = anEntry({ namespace: "team", container: "prod-main" });
  const isChanged = () => refresh(entry, clock, { incompleteAfterMs: INCOMPLETE_AFTER_MS, nodeName: "node-a" });
  expect(isChanged()).toBe(false);
  walk();
  expect([isChanged(), isChanged()]).toEqual([true, false]);
  clock.pass(1999);
  expect(isChanged()).toBe(false);
  clock.pass(1);
  expect([isChanged(), entry.settled, isChanged()]).toEqual([true, true, false]);
  // Only the state, and only the owner.
  clock.jump(-1000 * 86_400_000);
  expect([isChanged(), entry.state, isChanged()]).toEqual([true, "postdated", false]);
  entry.identity = undefined;
  expect([isChanged(), isChanged()]).toEqual([true, false]);
});

describe("why an archive is kept and not counted", () => {
  const names = { namespace: "team", container: "prod-main" };
  const problemOf = (parts: Parameters<typeof anEntry>[0], content?: Uint8Array, passedMs = 0) => {
    const { entry, clock, walk, state } = anEntry(parts, content);
    walk();
    clock.pass(passedMs);
    return [state(), entry.problem];
  };

  it.each<[string, unknown, () => ReturnType<typeof problemOf>]>([
    ["is not said where it counts", ["complete", undefined], () => problemOf({})],
    [
      "is not said while it is written",
      ["unsettled", undefined],
      () => problemOf({}, archiveBytes().subarray(0, 3000)),
    ],
    [
      "is that config.dump is missing",
      ["unread", "has no config.dump"],
      () => problemOf({}, tarBytes([{ name: "spec.dump", content: specBytes() }])),
    ],
    ["is that spec.dump is missing", ["unread", "has no spec.dump"], () => problemOf({ spec: null })],
    [
      "is that another owner is named",
      ["unidentified", expect.stringMatching(/^spec\.dump names .*"another"/)],
      () => problemOf({}, archiveBytes({ pod: "another" })),
    ],
    [
      "is that the file is no tar",
      ["unread", expect.stringMatching(/./)],
      () => problemOf({}, Buffer.alloc(4096, "x")),
    ],
    [
      "is that what there is of it does not decide",
      ["unidentified", "the file name has more than one reading, and spec.dump does not decide"],
      () => problemOf(names, archiveBytes({ ...names, runtime: "none" }).subarray(0, -1024), INCOMPLETE_AFTER_MS),
    ],
  ])("%s", (_, expected, find) => expect(find()).toEqual(expected));

  it("is the code of the error with which reading failed", () => {
    const { path, entry, walk, state } = anEntry();
    rmSync(path);
    walk();
    expect([state(), entry.problem]).toEqual(["unread", "reading failed: ENOENT"]);
  });
});

it("knows the UID of the pod and whether that is a static one, as soon as the walk has read it", () => {
  const uid = "db95e7e2e0ab3b170ce0094239084f5c";
  const told = (parts: Parameters<typeof anEntry>[0], content?: Uint8Array) => {
    const { entry, walk, state } = anEntry(parts, content);
    // Until then it may be one.
    expect([entry.podUID, entry.isStaticPod]).toEqual([undefined, true]);
    walk();
    state();
    return [entry.podUID, entry.isStaticPod];
  };
  expect(told({})).toEqual([POD_UID, false]);
  expect(told({ podUID: uid })).toEqual([uid, true]);
  expect(told({ podUID: null })).toEqual([undefined, false]);
  expect(told({ podUID: null, pod: "web-node-a" })).toEqual([undefined, true]);
  const torn = archiveBytes({ podUID: uid }).subarray(0, 3000);
  expect(told({ pod: "web-node-a" }, torn)).toEqual([undefined, true]);
  expect(told({ pod: "web-node-a" })).toEqual([POD_UID, false]);
  // What its owner cannot be told of tells no UID either.
  expect(told({}, archiveBytes({ pod: "another" }))).toEqual([undefined, true]);
});

it("an overwritten archive loses the owner that its old content named, and gets a new number", () => {
  const { path, entry, walk, adopt, state } = anEntry({ pod: "p", namespace: "a", container: "b-c" });
  walk();
  expect([state(), entry.identity?.namespace]).toEqual(["complete", "a"]);
  const old = entry.listed;
  writeFileSync(path, archiveBytes({ pod: "p", namespace: "a-b", container: "c", pagesBytes: 512 }), { flag: "r+" });
  adopt();
  expect([state(), entry.identity]).toEqual(["unread", undefined]);
  expect(entry.listed).toBeGreaterThan(old);
  walk();
  expect([state(), entry.identity?.namespace]).toEqual(["complete", "a-b"]);
});

it("is postdated as soon as a clock that jumped back leaves it behind, and again what it was when the clock is right", () => {
  const { clock, walk, state } = anEntry({ time: `${new Date().toISOString().slice(0, 19)}Z` });
  walk();
  expect(state()).toBe("complete");
  clock.jump(-3_600_000);
  expect(state()).toBe("postdated");
  clock.jump(3_600_000 - 1000);
  expect(state()).toBe("postdated");
  clock.jump(2000);
  expect(state()).toBe("complete");
});

describe("whether changed content is news", () => {
  const ambiguous = { pod: "p", namespace: "a", container: "b-c", pagesBytes: 65_536 };
  const writeOver = (path: string, container: "b-c" | "c") => {
    const namespace = container === "c" ? "a-b" : "a";
    writeFileSync(path, archiveBytes({ pod: "p", namespace, container }), { flag: "r+" });
  };

  it("is decided by the next walk if only the mtime changed, and not before", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    walk();
    writeOver(path, "b-c");
    adopt();
    expect(entry.isNews).toBe(false);
    walk();
    compareContent(entry);
    expect(entry.isNews).toBe(false);
    writeOver(path, "c");
    adopt();
    expect(entry.isNews).toBe(false);
    walk();
    compareContent(entry);
    expect(entry.isNews).toBe(true);
  });

  it("is decided by what the last walk found, also after two changes", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    walk();
    writeOver(path, "b-c");
    adopt();
    writeOver(path, "c");
    adopt();
    walk();
    compareContent(entry);
    expect(entry.isNews).toBe(true);
  });

  it("is not decided before the walk has ended", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    walk();
    writeOver(path, "c");
    adopt();
    compareContent(entry);
    expect(entry.isNews).toBe(false);
    walk();
    compareContent(entry);
    expect(entry.isNews).toBe(true);
  });

  it("is not decided by a walk that failed before the change", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    renameSync(path, `${path}.aside`);
    walk();
    renameSync(`${path}.aside`, path);
    writeOver(path, "b-c");
    adopt();
    walk();
    compareContent(entry);
    expect([entry.walk.verdict?.kind, entry.isNews]).toEqual(["ended", false]);
  });

  it("stays open when the walk after the change fails", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    walk();
    writeOver(path, "b-c");
    adopt();
    renameSync(path, `${path}.aside`);
    walk();
    compareContent(entry);
    expect([entry.walk.verdict?.kind, entry.isNews]).toEqual(["failed", false]);
    renameSync(`${path}.aside`, path);
    // Touched once more: what the walk found before it failed is still what to compare with.
    writeOver(path, "c");
    adopt();
    walk();
    compareContent(entry);
    expect(entry.isNews).toBe(true);
  });

  it("is not decided during the first listing: it makes no news", () => {
    const touched = anEntry(ambiguous);
    touched.walk();
    writeOver(touched.path, "c");
    touched.adopt({ isListed: false });
    touched.walk();
    compareContent(touched.entry);
    const grown = anEntry(ambiguous);
    writeFileSync(grown.path, "more", { flag: "a" });
    grown.adopt({ isListed: false });
    expect([touched.entry.isNews, grown.entry.isNews]).toEqual([false, false]);
  });

  it("needs no walk if the size changed", () => {
    const { path, entry, walk, adopt } = anEntry(ambiguous);
    walk();
    writeOver(path, "b-c");
    adopt();
    writeFileSync(path, archiveBytes({ pod: "p", namespace: "a-b", container: "c" }));
    adopt({ isListed: false });
    expect([entry.isNews, entry.foundBefore]).toEqual([false, undefined]);
    writeFileSync(path, archiveBytes({ pod: "p", namespace: "a", container: "b-c", pagesBytes: 512 }));
    adopt();
    expect(entry.isNews).toBe(true);
  });
});

describe("news", () => {
  it("ends as one event when the archive counts, and as none when it is pinned and incomplete", () => {
    const counted = anEntry();
    counted.entry.isNews = true;
    expect(endNews(counted.entry)).toBe(false);
    counted.walk();
    counted.state();
    expect([endNews(counted.entry), endNews(counted.entry), counted.entry.isNews]).toEqual([true, false, false]);
    const pinned = anEntry({}, archiveBytes().subarray(0, 3000));
    pinned.entry.isNews = true;
    pinned.entry.pinned = true;
    pinned.adopt();
    pinned.walk();
    expect([pinned.state(), endNews(pinned.entry), pinned.entry.isNews]).toEqual(["unsettled", false, true]);
    pinned.clock.pass(INCOMPLETE_AFTER_MS);
    expect([pinned.state(), endNews(pinned.entry), pinned.entry.isNews]).toEqual(["incomplete", false, false]);
  });
});
