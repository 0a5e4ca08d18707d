import { type BigIntStats, type FSWatcher, readFileSync, watch } from "node:fs";
import { opendir } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { DirectoryState } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import { isOwnerless } from "../archive/archive.ts";
import { parseArchiveName } from "../archive/name.ts";
import { startWalk } from "../archive/walk.ts";
import type { Clock } from "../clock.ts";
import { isPinned, PIN_SUFFIX } from "../enforce/remove.ts";
import type { Watched } from "../policy/state-folder.ts";
import { createAgenda } from "./agenda.ts";
import type { ArchiveIndex } from "./archive-index.ts";
import { type Directory, directoryKey, isGoneMount, isStillAt, openDirectory, withPath } from "./directory.ts";
import {
  adoptChange,
  compareContent,
  type Entry,
  endNews,
  findFile,
  hasChanged,
  isUnmanaged,
  newEntry,
  noteInodeChange,
  OWNERLESS_AFTER_MS,
  refresh,
  SETTLED_MS,
  walkEntry,
} from "./entry.ts";
import { createReadSpace, READ_AHEAD } from "./read-ahead.ts";
import { hashName, packHashes, type SeenNames, unpackNames } from "./seen.ts";
import { createSharing } from "./sharing.ts";
import { startSlice } from "./slice.ts";
import { fullestFirst } from "./walk-order.ts";

/** The shortest time between two looks at one file, in milliseconds: a growing archive makes thousands of events. */
const LOOK_AGAIN_MS = 50;
/** The longest time between two looks at a file that is not settled, in milliseconds. */
const LOOK_AT_LEAST_MS = 2000;
/** How long an archive may be walked while others wait, in milliseconds: one of very many headers must not hold them up. */
const WALK_TURN_MS = 50;
const POLL_MS = 1000;
const FULL_LISTING_MS = 10 * 60_000;
/** How long until a look that failed, or one that waits for the clock, is repeated, in milliseconds. */
const RETRY_MS = 10_000;
/** How long until inotify is tried again after it was refused, in milliseconds. */
const REWATCH_MS = 60_000;
/** How far the wall clock may drift from the monotonic one until all archives are looked at again, in milliseconds. */
const CLOCK_STEP_MS = 60_000;
/** How many directories' contents are remembered: an unmount shows the directory below for a while. */
const MAX_REMEMBERED = 4;
/** The kernel's own default, where it does not tell (inotify(7), max_queued_events). */
const DEFAULT_EVENT_QUEUE = 16_384;

export interface ObserverOptions {
  index: ArchiveIndex<Entry>;
  clock: Clock;
  log: Logger;
  /** How long a torn archive must have been unchanged until nobody is believed to write it any more, in milliseconds. */
  incompleteAfterMs: number;
  /** The node that the directory is of. */
  nodeName: string;
  /** Directories that are mounted for the agent; none: any directory will do. */
  roots: readonly string[];
  on: {
    /** Another directory is watched from now on, or none. Settles when nobody uses the one before any more. */
    directory: (directory: Directory | undefined) => Promise<void>;
    /** Every archive that the first listing named is in the index; what comes from now on is news. */
    listed: () => void;
    /** An archive was looked at or walked, whether or not that changed anything, or went; told before {@link changed}. */
    looked: (entry: Entry) => void;
    /** An archive came, changed or went. `isEvent`: it is news, and counts from now on. Told once for each arrival. */
    changed: (entry: Entry, isEvent: boolean) => void;
    /** A mounted root was deleted on the host and can never come back in this container. */
    goneMount: (root: string) => void;
  };
}

export interface ObserverStatus {
  path: string | undefined;
  state: DirectoryState;
  message: string | undefined;
  isListed: boolean;
  isDegraded: boolean;
  /** The number of the archive or content listed last. */
  listedUpTo: number;
  foreignFiles: number;
  /** Bytes of all other files, as the last full listing found them. */
  foreignBytes: number;
  /** Whether no archive waits to be looked at or walked. */
  isIdle: boolean;
}

/**
 * Keeps the index in step with a directory. Events of the kernel only mark names; what is there is always looked up. As
 * the kernel may lose events without a word, the directory's own mtime is compared each second, and a change that no
 * event explains leads to a listing.
 */
export interface Observer {
  /**
   * Watches this path from now on. `watched` is what was kept of a directory before this start; what this observer itself
   * has seen of that directory since goes first.
   */
  setPath(path: string, watched: Watched | undefined): void;
  /** Looks at a file again soon. */
  lookAgain(file: string): void;
  status(): ObserverStatus;
  /**
   * What the next start must know: the archives of the directory that was listed last, without those whose event is still
   * to come. It is the same object while nothing has changed, and undefined before any directory has been listed.
   */
  record(): Watched | undefined;
  stop(): Promise<void>;
}

type Listing = "names" | "full";

export function createObserver(options: ObserverOptions): Observer {
  const { index, clock, log, incompleteAfterMs, nodeName, roots, on } = options;
  let path: string | undefined;
  let directory: Directory | undefined;
  let state: DirectoryState = "no_policy";
  let message: string | undefined;
  let stopped = false;

  let watcher: FSWatcher | undefined;
  let rewatchAtMs = Number.NEGATIVE_INFINITY;
  const eventQueueLength = readEventQueueLength();
  let eventsSincePoll = 0;
  let renamesSincePoll = 0;
  let directoryMtimeNs = 0n;

  let isListed = false;
  let wantedListing: Listing | undefined;
  let listing: Promise<void> | undefined;
  let lastFullMs = 0;
  /** How far the wall clock was ahead of the monotonic one at the last full listing. */
  let clockOffsetMs = 0;
  let listedUpTo = 0;

  /** What was in this directory when it was last seen. Undefined if that is unknown, and once the directory is listed. */
  let seen: SeenNames | undefined;
  /** Names that `lstat` has failed for so far, and whether they are news. */
  const unreadable = new Map<string, boolean>();
  const remembered = new Map<string, Watched>();
  let lastRecord: Watched | undefined;
  let isRecordStale = false;

  /** Names that events told of: a plan that is being carried out may rest on them. */
  const toLookFirst = new Set<string>();
  /** Other names to look at, in the order in which they came, with their pin where a listing told it. */
  const toLook = new Map<string, boolean | undefined>();
  /** How many of those have been looked at. */
  let looks = 0;
  const pendingLooks = () => toLookFirst.size + toLook.size;
  /** Archives to walk: those that just changed go before those that a listing found. */
  const toWalk = new Set<Entry>();
  const toWalkLater = new Set<Entry>();
  const pending = () => pendingLooks() + toWalk.size + toWalkLater.size;
  const sharing = createSharing();
  const foreign = new Set<string>();
  /** Names of the last full listing that are no archives, until their sizes have been summed up. */
  let otherNames: string[] | undefined;
  let foreignBytes = 0;
  const agenda = createAgenda(clock, (files) => {
    for (const file of files) wantLook(file);
    pump();
  });
  let pumping: Promise<void> | undefined;
  const spaces = { ofArrivals: createReadSpace(READ_AHEAD.none), ofFound: createReadSpace(READ_AHEAD.some) };
  const pollTimer = setInterval(poll, POLL_MS);

  function open(): void {
    if (path === undefined || directory !== undefined) return;
    const opened = openDirectory(path, roots);
    if (!opened.ok) {
      const { problem } = opened;
      if (problem.message !== message) log.warn({ directory: path }, problem.message);
      state = problem.state;
      message = problem.message;
      return;
    }
    directory = opened.directory;
    state = "watching";
    message = undefined;
    const before = remembered.get(directoryKey(directory));
    seen = before && unpackNames(before.seen);
    log.info({ directory: path, watchedBefore: seen !== undefined }, "directory opened");
    void on.directory(directory);
    startWatching(directory);
    requestListing("full");
  }

  function close(): void {
    watcher?.close();
    watcher = undefined;
    rewatchAtMs = Number.NEGATIVE_INFINITY;
    const old = directory;
    if (old !== undefined && isListed) remember(takeRecord(old));
    for (const { file } of [...index.all()]) index.remove(file);
    for (const collection of [toLookFirst, toLook, toWalk, toWalkLater, foreign, unreadable, agenda])
      collection.clear();
    directory = undefined;
    otherNames = undefined;
    foreignBytes = 0;
    isListed = false;
    // A deletion under way names its file through the descriptor, whose number must not be given to another directory.
    if (old !== undefined) void on.directory(undefined).finally(() => old.close());
  }

  /**
   * Decides once for a name that enters the index. During the first listing, a name that was not there when this directory
   * was last seen is news; if that is unknown, none is. Afterwards every new name is.
   */
  function isNews(file: string): boolean {
    return unreadable.get(file) ?? (isListed || (seen !== undefined && !seen.has(file)));
  }

  /** Leaves out archives whose event is still to come, so that they are news at the next start, too. */
  function takeRecord({ device, inode }: Directory): Watched {
    if (lastRecord !== undefined && !isRecordStale) return lastRecord;
    const hashes: number[] = [];
    for (const { isNews, nameHash } of index.all()) if (!isNews) hashes.push(nameHash);
    for (const [file, isNews] of unreadable) if (!isNews) hashes.push(hashName(file));
    isRecordStale = false;
    const record = { device: `${device}`, inode: `${inode}`, seen: packHashes(hashes) };
    if (
      lastRecord === undefined ||
      directoryKey(lastRecord) !== directoryKey(record) ||
      lastRecord.seen !== record.seen
    ) {
      lastRecord = record;
    }
    return lastRecord;
  }

  function remember(record: Watched): void {
    const key = directoryKey(record);
    remembered.delete(key);
    remembered.set(key, record);
    const [oldest] = remembered.keys();
    if (remembered.size > MAX_REMEMBERED && oldest !== undefined) remembered.delete(oldest);
  }

  function startWatching({ at }: Directory): void {
    rewatchAtMs = clock.monotonicMs() + REWATCH_MS;
    try {
      watcher = watch(at("."), (type, file) => {
        eventsSincePoll += 1;
        if (type === "rename") renamesSincePoll += 1;
        if (file !== null) noteEvent(file);
      });
      watcher.on("error", loseWatcher);
    } catch (err) {
      loseWatcher(err);
    }
  }

  function loseWatcher(err: unknown): void {
    watcher?.close();
    watcher = undefined;
    log.warn({ err }, "inotify is not to be had; the directory is listed whenever its mtime changes");
  }

  function noteEvent(name: string): void {
    const file = name.endsWith(PIN_SUFFIX) ? name.slice(0, -PIN_SUFFIX.length) : name;
    const entry = index.get(file);
    if (entry === undefined && parseArchiveName(file) === undefined) return;
    const freeAtMs = entry === undefined ? 0 : entry.lookedAtMs + LOOK_AGAIN_MS;
    if (freeAtMs > clock.monotonicMs()) agenda.enter(file, freeAtMs);
    else {
      toLookFirst.add(file);
      pump();
    }
  }

  function wantLook(file: string): void {
    toLook.set(file, undefined);
  }

  /** Works off what is to be looked at and walked, in slices, so that nothing else waits for long. */
  function pump(): void {
    if (pumping !== undefined || stopped) return;
    pumping = work().finally(() => {
      pumping = undefined;
      if (pending() > 0) pump();
    });
  }

  async function work(): Promise<void> {
    // What arrives in the same instant is looked at together.
    await nextTurn();
    const slice = startSlice(clock);
    const isOver = (current: Directory | undefined) => stopped || current === undefined || directory !== current;
    const walk = async (current: Directory, entry: Entry) => {
      const walking = walkEntry(current, entry, entry.isNews ? spaces.ofArrivals : spaces.ofFound);
      const turnEndMs = clock.monotonicMs() + WALK_TURN_MS;
      const mustWait = () => clock.monotonicMs() >= turnEndMs && pending() > 0;
      let step = walking.next();
      while (!step.done && !isOver(current)) {
        if (slice.isOver()) {
          if (mustWait()) break;
          await slice.next();
        }
        if (!isOver(current)) step = walking.next();
      }
      if (!step.done) walking.return(false);
      if (isOver(current) || index.get(entry.file) !== entry) return;
      if (step.done) noteWalked(entry, step.value);
      else toWalkLater.add(entry); // to go on from where it stopped, if it is the same by then
    };
    const current = directory;
    // Looking goes before walking, and what has just changed before what was found. Each loop goes on along its live
    // collection, for to begin anew at its start each time would cost the square of a burst.
    const lookFirst = async (from: Directory) => {
      for (const file of toLookFirst) {
        toLookFirst.delete(file);
        if (toLook.delete(file)) looks += 1;
        lookAt(from, file, undefined);
        if (slice.isOver()) await slice.next();
        if (isOver(from)) return;
      }
    };
    while (current !== undefined && !isOver(current) && pending() > 0) {
      await lookFirst(current);
      if (isOver(current)) return;
      for (const [file, pinned] of toLook) {
        toLook.delete(file);
        looks += 1;
        lookAt(current, file, pinned);
        if (slice.isOver()) await slice.next();
        if (isOver(current)) return;
        if (toLookFirst.size > 0) await lookFirst(current);
        if (isOver(current)) return;
      }
      for (const entries of [toWalk, toWalkLater]) {
        for (const entry of entries) {
          entries.delete(entry);
          await walk(current, entry);
          if (slice.isOver()) await slice.next();
          if (isOver(current)) return;
          if (pendingLooks() > 0 || (entries === toWalkLater && toWalk.size > 0)) break;
        }
        if (pendingLooks() > 0) break;
      }
    }
  }

  function lookAt(from: Directory, file: string, toldPinned: boolean | undefined): void {
    const found = findFile(from, file);
    const known = index.get(file);
    if (found.kind === "unreadable") {
      log.warn({ archive: file, err: withPath(found.cause, from) }, "archive cannot be looked at");
      if (known === undefined) {
        unreadable.set(file, isNews(file));
        isRecordStale = true;
      }
      agenda.enter(file, clock.monotonicMs() + LOOK_AT_LEAST_MS);
      return;
    }
    if (found.kind === "foreign") {
      if (!foreign.has(file)) log.warn({ file }, "named like an archive, but no regular file: left alone");
      foreign.add(file);
    } else foreign.delete(file);
    if (found.kind !== "file") {
      unreadable.delete(file);
      // Also where the enforcer has taken it out of the index.
      isRecordStale = true;
      if (known !== undefined) forget(known);
      return;
    }
    const pinned = toldPinned ?? isPinned(from, file);
    if (known === undefined) {
      addEntry(file, found.stat, pinned);
      unreadable.delete(file);
      return;
    }
    known.lookedAtMs = clock.monotonicMs();
    const wasPinned = known.pinned;
    known.pinned = pinned;
    if (hasChanged(known, found.stat)) {
      listedUpTo += 1;
      adoptChange(known, found.stat, { listed: listedUpTo, nowMs: clock.monotonicMs(), isListed });
      isRecordStale = true;
      toWalk.add(known);
      // At once, for as long as its old state stood, it could be deleted while it is being written.
      review(known, { isNewContent: !known.walked, isRepinned: wasPinned !== pinned });
      return;
    }
    noteInodeChange(known, found.stat);
    const { verdict } = known.walk;
    if (known.walked && verdict?.kind === "torn" && verdict.isResumed) {
      // It has stopped growing: only a walk from the start tells what it is.
      known.walk = startWalk();
      toWalk.add(known);
      if (wasPinned === pinned) return;
      index.put(known);
      on.changed(known, false);
      return;
    }
    if (verdict?.kind === "failed") toWalk.add(known);
    // Its last walk was given up, because the file changed meanwhile, and it looks as it did before.
    if (!known.walked && verdict === undefined && !toWalkLater.has(known)) toWalk.add(known);
    review(known, { isRepinned: wasPinned !== pinned });
  }

  function addEntry(file: string, stat: BigIntStats, pinned: boolean): void {
    const name = parseArchiveName(file);
    if (name === undefined) return;
    listedUpTo += 1;
    const entry = newEntry(sharing.name(name), stat, {
      file,
      timeMs: name.timeMs,
      listed: listedUpTo,
      pinned,
      isNews: isNews(file),
      unchangedSinceMs: clock.monotonicMs(),
    });
    index.put(entry);
    isRecordStale = true;
    (entry.isNews ? toWalk : toWalkLater).add(entry);
  }

  function forget(entry: Entry): void {
    index.remove(entry.file);
    agenda.cancel(entry.file);
    toWalk.delete(entry);
    toWalkLater.delete(entry);
    on.looked(entry);
    on.changed(entry, false);
  }

  function noteWalked(entry: Entry, isSame: boolean): void {
    if (!isSame) agenda.enter(entry.file, clock.monotonicMs() + LOOK_AGAIN_MS);
    if (!isSame && entry.walk.verdict?.kind !== "torn") {
      // The verdict is about a mixture of two contents; the next look begins anew.
      entry.walk = startWalk();
      return;
    }
    const wasWalked = entry.walked;
    if (isSame) compareContent(entry);
    entry.walked = true;
    review(entry, { isNewContent: !wasWalked });
  }

  /** Brings an entry up to date, tells of what changed, and plans the next look where time will change it. */
  function review(entry: Entry, { isNewContent = false, isRepinned = false }): void {
    const hadProblem = entry.problem;
    const wasOwnerless = isOwnerless(entry);
    const isChanged = refresh(entry, clock, { incompleteAfterMs, nodeName });
    entry.walk = sharing.walk(entry.identity, entry.walk);
    index.put(entry);
    on.looked(entry);
    if (entry.problem !== undefined && entry.problem !== hadProblem) {
      log.warn({ archive: entry.file, state: entry.state, why: entry.problem }, "archive is kept and not counted");
    }
    if (isOwnerless(entry) && !wasOwnerless) {
      log.warn(
        { archive: entry.file, bytes: entry.size },
        "archive is torn and has no owner: only node rules delete it",
      );
    }
    planNextLook(entry);
    if (!isChanged && !isNewContent && !isRepinned) return;
    const wasNews = entry.isNews;
    const isEvent = endNews(entry);
    if (wasNews !== entry.isNews) isRecordStale = true;
    on.changed(entry, isEvent);
  }

  function planNextLook(entry: Entry): void {
    const nowMs = clock.monotonicMs();
    const unchangedMs = nowMs - entry.unchangedSinceMs;
    if (entry.state === "unsettled") {
      const waitsForOwner = entry.identity === undefined && unchangedMs >= incompleteAfterMs;
      const endMs = waitsForOwner ? OWNERLESS_AFTER_MS : incompleteAfterMs;
      const restMs = waitsForOwner ? RETRY_MS : Math.min(unchangedMs, LOOK_AT_LEAST_MS);
      agenda.enter(entry.file, nowMs + Math.max(LOOK_AGAIN_MS, Math.min(restMs, endMs - unchangedMs)));
    } else if ((entry.state === "complete" || isUnmanaged(entry)) && !entry.settled)
      agenda.enter(entry.file, nowMs + SETTLED_MS - unchangedMs);
    else if (entry.state === "postdated" || entry.walk.verdict?.kind === "failed")
      agenda.enter(entry.file, nowMs + RETRY_MS);
  }

  function requestListing(kind: Listing): void {
    if (wantedListing !== "full") wantedListing = kind;
    listing ??= list()
      .then(measureOthers)
      .finally(() => {
        listing = undefined;
        if (wantedListing !== undefined && directory !== undefined && !stopped) requestListing(wantedListing);
      });
  }

  async function list(): Promise<void> {
    const kind = wantedListing;
    const current = directory;
    wantedListing = undefined;
    if (current === undefined) return;
    try {
      if (kind === "full") clockOffsetMs = clock.wallMs() - clock.monotonicMs();
      directoryMtimeNs = current.stat().mtimeNs;
      const names = new Set<string>();
      const pins = new Set<string>();
      const others: string[] = [];
      for await (const { name } of await opendir(current.at("."), { bufferSize: 1024 })) {
        if (name.endsWith(PIN_SUFFIX)) pins.add(name.slice(0, -PIN_SUFFIX.length));
        else if (name.startsWith("checkpoint-")) names.add(name);
        else others.push(name);
        if (directory !== current || stopped) return;
      }
      // Also after the last name, or where there is none: another directory must not be taken for this one.
      if (directory !== current || stopped) return;
      if (!(await takeListing(current, { names, pins, others, isFull: kind === "full" }))) return;
      if (kind === "full") otherNames = others;
    } catch (cause) {
      if (directory !== current || stopped) return;
      const err = withPath(cause, current);
      const problem = `${current.path} cannot be listed: ${err.message}`;
      if (problem !== message) log.warn({ err, directory: current.path }, "directory cannot be listed");
      state = "unreadable";
      message = problem;
      return;
    }
    state = "watching";
    message = undefined;
    if (kind === "full") lastFullMs = clock.monotonicMs();
    pump();
    if (isListed) return;
    // The first plan must see every name, or it would take the newest of what it sees for the newest there is. It does not
    // wait for names that events bring later, because events may never end.
    const looksNeeded = looks + toLook.size;
    while (looks < looksNeeded && directory === current && !stopped) await nextTurn();
    if (directory !== current || stopped) return;
    isListed = true;
    isRecordStale = true;
    seen = undefined;
    const inOrder = fullestFirst(toWalkLater);
    toWalkLater.clear();
    for (const entry of inOrder) toWalkLater.add(entry);
    log.info({ directory: current.path, archives: index.size }, "directory listed");
    on.listed();
  }

  /** Notes what differs from the index, in slices; false where another directory is watched meanwhile. */
  async function takeListing(
    current: Directory,
    listed: { names: ReadonlySet<string>; pins: ReadonlySet<string>; others: string[]; isFull: boolean },
  ): Promise<boolean> {
    const { names, pins, others, isFull } = listed;
    const slice = startSlice(clock);
    const isGivenUp = () => directory !== current || stopped;
    for (const name of names) {
      if (slice.isOver()) await slice.next();
      if (isGivenUp()) return false;
      const entry = index.get(name);
      const pinned = pins.has(name);
      if (entry !== undefined) {
        // A .keep may have come or gone since the listing passed it, so a difference is looked at and not believed.
        if (isFull || entry.pinned !== pinned) wantLook(name);
      } else if (!toLook.has(name) && (isFull || !foreign.has(name))) {
        if (parseArchiveName(name) === undefined) others.push(name);
        else toLook.set(name, pinned);
      }
    }
    // A listing may miss what is renamed meanwhile, so what it lacks is looked at and not simply forgotten.
    for (const { file } of index.all()) {
      if (slice.isOver()) await slice.next();
      if (isGivenUp()) return false;
      if (!names.has(file)) wantLook(file);
    }
    for (const file of foreign) if (!names.has(file)) foreign.delete(file);
    return true;
  }

  /** Sums up what else lies in the directory, once it has been listed: nothing waits for that. */
  async function measureOthers(): Promise<void> {
    const current = directory;
    const names = otherNames;
    otherNames = undefined;
    if (current === undefined || names === undefined) return;
    const slice = startSlice(clock);
    let bytes = 0;
    for (const name of names) {
      if (slice.isOver()) await slice.next();
      if (directory !== current || stopped) return;
      const found = findFile(current, name);
      if (found.kind === "file") bytes += Number(found.stat.size);
    }
    foreignBytes = bytes;
  }

  /** Each second: is it still this directory, and does what the events told explain its mtime? */
  function poll(): void {
    const gone = roots.find(isGoneMount);
    if (gone !== undefined) {
      on.goneMount(gone);
      return;
    }
    if (directory !== undefined && !isStillAt(directory)) {
      log.warn({ directory: directory.path }, "directory was removed, replaced or mounted over");
      close();
    }
    if (directory === undefined) {
      open();
      return;
    }
    if (watcher === undefined && clock.monotonicMs() >= rewatchAtMs) {
      startWatching(directory);
      requestListing("full");
    }
    const mtimeNs = mtimeOf(directory);
    const isUnexplained = mtimeNs !== directoryMtimeNs && (watcher === undefined || renamesSincePoll === 0);
    // As many events as the kernel queues are as many as it may have dropped.
    const mayHaveOverflown = eventsSincePoll >= eventQueueLength;
    directoryMtimeNs = mtimeNs;
    eventsSincePoll = 0;
    renamesSincePoll = 0;
    const nowMs = clock.monotonicMs();
    // After a step of the clock other archives are postdated than before.
    const isClockStepped = Math.abs(clock.wallMs() - nowMs - clockOffsetMs) > CLOCK_STEP_MS;
    const isFullDue = state !== "watching" || isClockStepped || nowMs - lastFullMs >= FULL_LISTING_MS;
    if (isFullDue) requestListing("full");
    else if (mayHaveOverflown || isUnexplained) requestListing("names");
  }

  return {
    setPath(next, watched) {
      if (next === path) return;
      close();
      path = next;
      if (watched !== undefined && !remembered.has(directoryKey(watched))) remember(watched);
      lastRecord ??= watched;
      open();
    },
    lookAgain(file) {
      toLookFirst.add(file);
      pump();
    },
    status: () => ({
      path,
      state,
      message,
      isListed,
      isDegraded: directory !== undefined && watcher === undefined,
      listedUpTo,
      foreignFiles: foreign.size,
      foreignBytes,
      isIdle: isListed && pumping === undefined && pending() === 0,
    }),
    record: () => (directory !== undefined && isListed ? takeRecord(directory) : lastRecord),
    async stop() {
      stopped = true;
      clearInterval(pollTimer);
      agenda.clear();
      watcher?.close();
      await Promise.allSettled([pumping, listing]);
      directory?.close();
    },
  };
}

/** When the directory's list of names changed last; 0, which is no time it ever has, where that cannot be told. */
function mtimeOf(directory: Directory): bigint {
  try {
    return directory.stat().mtimeNs;
  } catch {
    return 0n;
  }
}

function readEventQueueLength(): number {
  try {
    return Number(readFileSync("/proc/sys/fs/inotify/max_queued_events", "utf8")) || DEFAULT_EVENT_QUEUE;
  } catch {
    return DEFAULT_EVENT_QUEUE;
  }
}
