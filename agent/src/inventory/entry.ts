import { type BigIntStats, closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";
import { type Archive, countsInNumber, isUnmanagedState, mayBeStaticPod } from "../archive/archive.ts";
import { identify } from "../archive/identity.ts";
import type { OwnerName } from "../archive/name.ts";
import { archiveState, isPostdated } from "../archive/state.ts";
import { startWalk, type Verdict, type Walk } from "../archive/walk.ts";
import type { Clock } from "../clock.ts";
import type { Directory } from "./directory.ts";
import { createWalkStep, type ReadSpace } from "./read-ahead.ts";
import { hashName } from "./seen.ts";

/** How long a complete archive must have been unchanged to be deletable, in milliseconds. */
export const SETTLED_MS = 2000;

/** How long an archive that is torn before its spec.dump must have been unchanged to have no owner, in milliseconds. */
export const OWNERLESS_AFTER_MS = 60 * 60_000;

/** The walk of whatever has not been looked into: one for all, for a full directory holds thousands of them at its start. */
const NOT_BEGUN: Walk = Object.freeze(startWalk());

/** An archive of the watched directory, and what the agent knows of how it came to be as it is. */
export interface Entry extends Archive {
  name: OwnerName;
  /** Computed once, so that a record of very many archives does not block the event loop. */
  nameHash: number;
  inode: bigint;
  /** When the inode was last changed in any way, mode, owner and links among them, in nanoseconds since 1970. */
  ctimeNs: bigint;
  /** Since when its size and mtime have been seen unchanged, on the monotonic clock, in milliseconds. */
  unchangedSinceMs: number;
  /** When it was looked at last, on the monotonic clock, in milliseconds. */
  lookedAtMs: number;
  /** Whether it arrived and its event is still to come, which waits until it is complete or incomplete. */
  isNews: boolean;
  isPostdated: boolean;
  /** The walk of its present content; it is resumed when a torn archive has grown. One that has ended may be others' too. */
  walk: Walk;
  /** After a change of the mtime alone: what the walk had found before, to be compared with what the next one finds. */
  foundBefore: Verdict | undefined;
  /** Why it is unidentified or unread, if it is. */
  problem: string | undefined;
}

/** What lies at a name of the directory. */
export type Found =
  | { kind: "file"; stat: BigIntStats }
  | { kind: "absent" }
  /** A directory, a symbolic link, a device: named like an archive, and never touched. */
  | { kind: "foreign" }
  | { kind: "unreadable"; cause: unknown };

export function findFile(directory: Directory, file: string): Found {
  try {
    const stat = lstatSync(directory.at(file), { bigint: true });
    return stat.isFile() ? { kind: "file", stat } : { kind: "foreign" };
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    return code === "ENOENT" ? { kind: "absent" } : { kind: "unreadable", cause };
  }
}

/** An archive that was just found and has not been walked. */
export function newEntry(
  name: OwnerName,
  stat: BigIntStats,
  found: Pick<Entry, "file" | "timeMs" | "listed" | "pinned" | "isNews" | "unchangedSinceMs">,
): Entry {
  const { file, timeMs, listed, pinned, isNews, unchangedSinceMs } = found;
  return {
    file,
    name,
    nameHash: hashName(file),
    candidates: name.candidates,
    podUID: undefined,
    isStaticPod: true,
    timeMs,
    inode: stat.ino,
    mtimeNs: stat.mtimeNs,
    ctimeNs: stat.ctimeNs,
    size: Number(stat.size),
    allocated: Number(stat.blocks) * 512,
    hasOtherNames: stat.nlink > 1n,
    identity: name.isAmbiguous ? undefined : name.candidates[0],
    state: "unread",
    walked: false,
    pinned,
    settled: false,
    listed,
    unmanagedSinceMs: undefined,
    unchangedSinceMs,
    lookedAtMs: unchangedSinceMs,
    isNews,
    isPostdated: false,
    walk: NOT_BEGUN,
    foundBefore: undefined,
    problem: undefined,
  };
}

/** Whether the file is another one than the entry knows, or the same with other content. */
export function hasChanged(entry: Entry, stat: BigIntStats): boolean {
  return isRewritten(entry, stat) || entry.mtimeNs !== stat.mtimeNs;
}

/** Whether the name has another file, or the file another size. A new mtime proves nothing, because `touch` sets it, too. */
function isRewritten(entry: Entry, stat: BigIntStats): boolean {
  return entry.inode !== stat.ino || entry.size !== Number(stat.size);
}

/**
 * Takes in that the file changed. A torn archive that grew is walked on from where it ended, and is what it was until
 * then; anything else is a new content, of which nothing is known.
 *
 * New content is news, but not during the first listing (`isListed` is false).
 */
export function adoptChange(
  entry: Entry,
  stat: BigIntStats,
  { listed, nowMs, isListed }: { listed: number; nowMs: number; isListed: boolean },
): void {
  const { verdict } = entry.walk;
  const isGrowing =
    entry.inode === stat.ino && verdict?.kind === "torn" && Number(stat.size) >= entry.size && entry.walked;
  if (isRewritten(entry, stat)) {
    entry.isNews ||= isListed;
    entry.foundBefore = undefined;
  } else if (isListed && entry.walked && verdict?.kind !== "failed") entry.foundBefore = verdict;
  entry.inode = stat.ino;
  entry.mtimeNs = stat.mtimeNs;
  noteInodeChange(entry, stat);
  entry.size = Number(stat.size);
  entry.allocated = Number(stat.blocks) * 512;
  entry.listed = listed;
  entry.unchangedSinceMs = nowMs;
  entry.isPostdated = false;
  if (isGrowing) return;
  entry.walk = NOT_BEGUN;
  entry.walked = false;
}

/** Takes in that mode, owner, links or content may have changed: then nothing has been seen unchanged any more. */
export function noteInodeChange(entry: Entry, { ctimeNs, nlink }: BigIntStats): void {
  if (entry.ctimeNs !== ctimeNs) entry.unmanagedSinceMs = undefined;
  entry.ctimeNs = ctimeNs;
  entry.hasOtherNames = nlink > 1n;
}

/**
 * Whether no rule but maxAgeUnmanaged can ever take it. Undefined while that cannot be told: it was not looked into, could not
 * be read, or its time is still to come.
 */
export function isUnmanaged({ walked, walk, state, isPostdated }: Entry): boolean | undefined {
  const { verdict } = walk;
  if (!walked || verdict === undefined || verdict.kind === "failed" || isPostdated) return undefined;
  return isUnmanagedState(state);
}

/**
 * Call this when a walk of the present content has ended. If only the mtime had changed, it compares what this walk and the
 * one before found: a difference means that the archive was overwritten in place, and makes it news.
 */
export function compareContent(entry: Entry): void {
  const { foundBefore, walk } = entry;
  if (foundBefore === undefined || walk.verdict === undefined || walk.verdict.kind === "failed") return;
  entry.isNews ||= !isSameContent(foundBefore, walk.verdict);
  entry.foundBefore = undefined;
}

/**
 * Ends the news of an archive that is complete or incomplete. Returns whether that is an event: a pinned incomplete archive
 * makes none, because it counts in no number and unpinning it is no arrival.
 */
export function endNews(entry: Entry): boolean {
  if (!entry.isNews || (entry.state !== "complete" && entry.state !== "incomplete")) return false;
  entry.isNews = false;
  return countsInNumber(entry);
}

/**
 * Walks the entry's present content, one short read between two yields. Yields until there is a verdict; returns whether
 * the file stayed the same meanwhile, without which the verdict is worth nothing.
 */
export function* walkEntry(directory: Directory, entry: Entry, space: ReadSpace): Generator<void, boolean> {
  let descriptor: number;
  try {
    // Neither a link nor a pipe that took the file's place may lead elsewhere or block.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOATIME;
    descriptor = openSync(directory.at(entry.file), flags);
  } catch (cause) {
    entry.walk = { ...entry.walk, verdict: failed(cause) };
    return true;
  }
  try {
    if (hasChanged(entry, fstatSync(descriptor, { bigint: true }))) return false;
    if (entry.walk === NOT_BEGUN) entry.walk = startWalk();
    const step = createWalkStep(descriptor, space);
    while (!step(entry.walk)) yield;
    return !hasChanged(entry, fstatSync(descriptor, { bigint: true }));
  } catch (cause) {
    entry.walk = { ...entry.walk, verdict: failed(cause) };
    return true;
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Brings identity, state and what else time changes up to date; returns whether anything that a plan looks at changed.
 */
export function refresh(
  entry: Entry,
  clock: Clock,
  { incompleteAfterMs, nodeName }: { incompleteAfterMs: number; nodeName: string | undefined },
): boolean {
  const { identity, state, settled } = entry;
  const verdict = entry.walked ? entry.walk.verdict : undefined;
  const unchangedMs = clock.monotonicMs() - entry.unchangedSinceMs;
  const identification = identify(entry.name, verdict);
  entry.isPostdated = isPostdated(
    { timeMs: entry.timeMs, mtimeMs: Number(entry.mtimeNs / 1_000_000n), nowMs: clock.wallMs() },
    entry.isPostdated,
  );
  entry.state = archiveState({
    identification,
    verdict,
    isPostdated: entry.isPostdated,
    isStale: unchangedMs >= incompleteAfterMs,
    isOwnerless: unchangedMs >= Math.max(OWNERLESS_AFTER_MS, incompleteAfterMs),
  });
  const isIdentified = identification.kind === "identified";
  entry.identity = isIdentified ? identification.identity : undefined;
  entry.podUID = isIdentified ? identification.podUID : undefined;
  entry.isStaticPod = mayBeStaticPod({ pod: entry.identity?.pod, podUID: entry.podUID, nodeName });
  entry.settled = entry.state === "incomplete" || unchangedMs >= SETTLED_MS;
  entry.problem = identification.kind === "unidentified" ? identification.reason : problemOf(entry, verdict);
  return identity !== entry.identity || state !== entry.state || settled !== entry.settled;
}

/** Whether two walks found the same. Whether they were resumed says nothing of the content. */
function isSameContent(a: Verdict, b: Verdict): boolean {
  const contentOf = (verdict: Verdict) => JSON.stringify({ ...verdict, isResumed: undefined });
  return contentOf(a) === contentOf(b);
}

function failed(cause: unknown): Verdict {
  return { kind: "failed", code: (cause as NodeJS.ErrnoException).code ?? "unknown" };
}

function problemOf({ state }: Entry, verdict: Verdict | undefined): string | undefined {
  if (state === "unidentified") return "the file name has more than one reading, and spec.dump does not decide";
  if (verdict?.kind === "refused") return verdict.message;
  if (verdict?.kind === "failed") return `reading failed: ${verdict.code}`;
  if (verdict?.kind !== "ended") return undefined;
  if (verdict.spec === undefined) return "has no spec.dump";
  return verdict.hasConfig ? undefined : "has no config.dump";
}
