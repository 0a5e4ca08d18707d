import type { DiskUsage } from "../retention/plan.ts";

/** How long the file system may take to show the space that deletions gave back, in milliseconds. */
const SHOWN_WITHIN_MS = 60_000;
/** How long a stall lasts, in milliseconds: the first one, doubled with each further one up to the longest. */
const STALL_MS = { first: 5 * 60_000, longest: 60 * 60_000 } as const;
/** So much of what was deleted may stay unshown and nothing is awaited: others write meanwhile, and files have tails. */
const UNSHOWN_SHARE = 0.1;

/**
 * Where the deletions for the sake of disk space stand.
 * - `ready`: a pass may run.
 * - `waiting`: something was deleted whose space the file system does not show yet. Another pass would delete for the same
 *   bytes again.
 * - `stalled`: the space of the last pass did not show in time: somebody holds the files open. Deleting on would take
 *   everything and free nothing. Until the stall ends, passes may take only `arrivedBytes`: what archives brought since, less
 *   what passes took. It is below zero where a pass took more than had come.
 *
 * `stalls` counts the stalls in a row, so that each next one lasts longer.
 */
export type WatermarkState =
  | { phase: "ready"; stalls: number }
  | { phase: "waiting"; stalls: number; untilMs: number; expectedAvailableBytes: number; wasPass: boolean }
  | { phase: "stalled"; stalls: number; untilMs: number; expectedAvailableBytes: number; arrivedBytes: number };

export const READY: WatermarkState = { phase: "ready", stalls: 0 };

/** What deletions gave back to the file system. */
export interface Freed {
  /** Allocated bytes of what was deleted. */
  bytes: number;
  /** How many of them the file system showed right at the unlinks. Measured there, as others write all the time. */
  shownBytes: number;
  /** Whether the disk was the reason. */
  isPass: boolean;
  /** What can be written after the deletions. */
  availableBytes: number;
  /** Monotonic clock. */
  nowMs: number;
}

/** How many allocated bytes a pass may take now. */
export function passLimit(state: WatermarkState): number {
  if (state.phase === "ready") return Number.POSITIVE_INFINITY;
  return state.phase === "stalled" ? Math.max(0, state.arrivedBytes) : 0;
}

/** The state after an archive of so many allocated bytes came. */
export function afterArrival(state: WatermarkState, bytes: number): WatermarkState {
  return state.phase === "stalled" ? { ...state, arrivedBytes: state.arrivedBytes + bytes } : state;
}

/** The state after deletions, for whatever reason. */
export function afterDeletions(state: WatermarkState, freed: Freed): WatermarkState {
  const { bytes, isPass, availableBytes, nowMs } = freed;
  const shownBytes = Math.min(freed.shownBytes, bytes);
  const unshownBytes = bytes - shownBytes;
  switch (state.phase) {
    case "ready": {
      if (unshownBytes <= bytes * UNSHOWN_SHARE) return bytes > 0 ? READY : state;
      const expectedAvailableBytes = availableBytes + unshownBytes;
      return { ...state, phase: "waiting", untilMs: nowMs + SHOWN_WITHIN_MS, expectedAvailableBytes, wasPass: isPass };
    }
    case "waiting": {
      // What is awaited already must show too, or another pass would delete for the same bytes again; and not for longer,
      // or a disk that other archives come and go on would be waited for without end.
      const expectedAvailableBytes = Math.max(availableBytes, state.expectedAvailableBytes + shownBytes) + unshownBytes;
      return { ...state, expectedAvailableBytes, wasPass: isPass || state.wasPass };
    }
    case "stalled":
      // A pass takes whole archives. What it took too much the next arrivals must bring first.
      return { ...state, arrivedBytes: state.arrivedBytes - (isPass ? bytes : 0) };
  }
}

/** The state after a look at the disk; `isOverLimit` where a watermark or minFree is broken just now. */
export function afterLook(
  state: WatermarkState,
  { disk, isOverLimit, nowMs }: { disk: DiskUsage; isOverLimit: boolean; nowMs: number },
): WatermarkState {
  if (!isOverLimit) return READY;
  if (state.phase === "ready") return state;
  if (disk.availableBytes >= state.expectedAvailableBytes) return READY;
  if (nowMs < state.untilMs) return state;
  const { stalls, expectedAvailableBytes } = state;
  if (state.phase === "stalled" || !state.wasPass) return { phase: "ready", stalls };
  const lastsMs = Math.min(STALL_MS.first * 2 ** stalls, STALL_MS.longest);
  return { phase: "stalled", stalls: stalls + 1, untilMs: nowMs + lastsMs, expectedAvailableBytes, arrivedBytes: 0 };
}

/** The state under a new policy, which ends a stall: what it asks for is tried at once. Space that is awaited still is. */
export function afterPolicy(state: WatermarkState): WatermarkState {
  return state.phase === "stalled" ? { phase: "ready", stalls: state.stalls } : state;
}
