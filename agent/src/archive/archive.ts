import type { NodePolicy } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { ArchiveState } from "@cro/shared/wire/report";

/** A checkpoint archive at one moment: all that a decision about it may rest on. */
export interface Archive {
  /** Name of the file in the checkpoint directory. */
  file: string;
  /** Whose it is; undefined while that is not known, and for ever if it is unidentified or {@link isOwnerless}. */
  identity: ContainerIdentity | undefined;
  /** Every reading that the name allows. While there is no identity, it may turn out to be any of them. */
  candidates: readonly ContainerIdentity[];
  /** The UID of the very pod, if spec.dump tells it. */
  podUID: string | undefined;
  /** Whether its pod is a static one, or may be: {@link mayBeStaticPod}. No proof makes its archives orphans. */
  isStaticPod: boolean;
  /** The time in the name, in milliseconds since 1970: its age and order. */
  timeMs: number;
  /** Last modification, in nanoseconds since 1970: the order within the same second. */
  mtimeNs: bigint;
  /** st_size, in bytes: what size limits count. */
  size: number;
  /** st_blocks, in bytes: what deleting it gives back to the file system. */
  allocated: number;
  /** Whether its file has other names, as hard links: then deleting it gives no inode back. */
  hasOtherNames: boolean;
  state: ArchiveState;
  /** Whether a walk of its present content has been tried. */
  walked: boolean;
  /** Whether a `.keep` lies beside it. */
  pinned: boolean;
  /** Whether it has been unchanged for long enough to be deleted. */
  settled: boolean;
  /**
   * Its number in the order in which the agent first listed archives and their contents; a proof covers only what was listed
   * before it.
   */
  listed: number;
  /**
   * Since when the agent has seen it unchanged as what no rule but maxAgeUnmanaged may take, in milliseconds since 1970, by a
   * time that could be trusted. Undefined for all that is not known to be so, and while that time is not known.
   */
  unmanagedSinceMs: number | undefined;
}

/** What the age of an archive goes by. */
type Aged = Pick<Archive, "timeMs" | "mtimeNs" | "file">;

/**
 * Negative where a is older than b: by the time in the name, then by mtime, then by name bytewise, smaller is older.
 * Names of archives are ASCII, for which JavaScript's order is the bytewise one.
 */
export function compareAge(a: Aged, b: Aged): number {
  if (a.timeMs !== b.timeMs) return a.timeMs - b.timeMs;
  if (a.mtimeNs !== b.mtimeNs) return a.mtimeNs < b.mtimeNs ? -1 : 1;
  return a.file < b.file ? -1 : a.file > b.file ? 1 : 0;
}

/** Whether a limit in numbers counts it: complete and incomplete ones, of pinned ones the complete ones. */
export function countsInNumber({ identity, state, pinned }: Archive): boolean {
  return identity !== undefined && (pinned ? state === "complete" : isWhole(state));
}

/** An archive that is somebody's. */
export type OwnedArchive = Archive & { identity: ContainerIdentity };

/** Whether a limit in bytes counts it: complete and incomplete ones, and all pinned ones that are somebody's. */
export function countsInBytes(archive: Archive): archive is OwnedArchive {
  return archive.identity !== undefined && (archive.pinned || isWhole(archive.state));
}

/**
 * Whether it is torn before anything told its owner. Only the rules of the node count it, in bytes, and only they take it;
 * a pinned one counts nowhere.
 */
export function isOwnerless({ identity, state, pinned }: Archive): boolean {
  return identity === undefined && state === "incomplete" && !pinned;
}

/** Whether the node as a whole counts it in bytes. */
export function countsForNode(archive: Archive): boolean {
  return countsInBytes(archive) || isOwnerless(archive);
}

/** Whether a rule may take it at all. */
export function isDeletable(archive: Archive): boolean {
  const { identity, state, pinned } = archive;
  return isOwnerless(archive) || (identity !== undefined && !pinned && isWhole(state));
}

/** Whether nobody can use it or own it: no rule but maxAgeUnmanaged may ever take an archive of this state. */
export function isUnmanagedState(state: ArchiveState): boolean {
  return state === "unread" || state === "unidentified";
}

/**
 * Whether maxAgeUnmanaged takes it: only what was looked into and can never be anybody's archive, and never without a time
 * that can be trusted.
 */
export function isOldUnmanaged(
  { state, walked, pinned, unmanagedSinceMs }: Archive,
  { maxAgeUnmanagedMs }: NodePolicy,
  nowMs: number | undefined,
): boolean {
  if (maxAgeUnmanagedMs === undefined || nowMs === undefined || unmanagedSinceMs === undefined) return false;
  if (pinned || !walked || !isUnmanagedState(state)) return false;
  return nowMs - unmanagedSinceMs > maxAgeUnmanagedMs;
}

/**
 * Whether an archive's pod is a static one, as far as can be told: the kubelet runs it from a file on the node. The API
 * server may know nothing of it while it runs, so that its absence there proves nothing. A static pod's UID is 32 hex digits
 * without a dash, those of the API server are UUIDs. Any other UID comes from the pod's own file, or it is not known: then
 * the name decides, because the kubelet appends `-NODENAME` to a static pod's (generatePodName in its pkg/kubelet/config).
 */
export function mayBeStaticPod({
  pod,
  podUID,
  nodeName,
}: {
  /** Undefined while nobody is known to own the archive. */
  pod: string | undefined;
  podUID: string | undefined;
  /** Undefined if there is no telling on which node the archive lies. */
  nodeName: string | undefined;
}): boolean {
  if (podUID !== undefined && UUID.test(podUID)) return false;
  if (podUID !== undefined && HASH.test(podUID)) return true;
  return pod === undefined || nodeName === undefined || pod.endsWith(`-${nodeName.toLowerCase()}`);
}

const UUID = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const HASH = /^[0-9a-f]{32}$/i;

function isWhole(state: ArchiveState): boolean {
  return state === "complete" || state === "incomplete";
}
