/** How long the file system may take to show the space that deletions gave back, in milliseconds. */
const SHOWN_WITHIN_MS = 60_000;
/** How long a stall lasts, in milliseconds: the first one, doubled with each further one up to the longest. */
const STALL_MS = { first: 5 * 60_000, longest: 60 * 60_000 } as const;
/** So much of what was deleted may stay unshown and nothing is awaited: others write meanwhile, and files have tails. */
const UNSHOWN_SHARE = 0.1;

/**
 * Where the deletions for the sake of disk space stand, or of inodes: each has a state of its own, in allocated bytes and
 * in numbers.
 * - `ready`: a pass may run.
 * - `waiting`: something was deleted whose space the file system does not show yet. Another pass would delete for the same
 *   bytes again.
 * - `stalled`: the space of the last pass did not show in time: somebody holds the files open. Deleting on would take
 *   everything and free nothing. Until the stall ends, passes may take only `arrived`: what archives brought since, less
 *   what passes took. It is below zero where a pass took more than had come.
 *
 * `stalls` counts the stalls in a row, so that each next one lasts longer.
 */
export type WatermarkState =
  | { phase: "ready"; stalls: number }
  | { phase: "waiting"; stalls: number; untilMs: number; expectedAvailable: number; wasPass: boolean }
  | { phase: "stalled"; stalls: number; untilMs: number; expectedAvailable: number; arrived: number };

export const READY: WatermarkState = { phase: "ready", stalls: 0 };

/** What deletions gave back to the file system: allocated bytes, or inodes. */
export interface Freed {
  /** Of what was deleted. */
  amount: number;
  /** How much of it the file system showed right at the unlinks. Measured there, as others write all the time. */
  shown: number;
  /** Whether the disk was the reason. */
  isPass: boolean;
  /** What is free after the deletions. */
  available: number;
  /** Monotonic clock. */
  nowMs: number;
}

/** How much a pass may take now. */
export function passLimit(state: WatermarkState): number {
  if (state.phase === "ready") return Number.POSITIVE_INFINITY;
  return state.phase === "stalled" ? Math.max(0, state.arrived) : 0;
}

/** The state after an archive that takes up so much came. */
export function afterArrival(state: WatermarkState, amount: number): WatermarkState {
  return state.phase === "stalled" ? { ...state, arrived: state.arrived + amount } : state;
}

/** The state after deletions, for whatever reason. */
export function afterDeletions(state: WatermarkState, freed: Freed): WatermarkState {
  const { amount, isPass, available, nowMs } = freed;
  const shown = Math.min(freed.shown, amount);
  const unshown = amount - shown;
  switch (state.phase) {
    case "ready": {
      if (unshown <= amount * UNSHOWN_SHARE) return amount > 0 ? READY : state;
      const expectedAvailable = available + unshown;
      return { ...state, phase: "waiting", untilMs: nowMs + SHOWN_WITHIN_MS, expectedAvailable, wasPass: isPass };
    }
    case "waiting": {
      // What is awaited already must show too, or another pass would delete for the same bytes again; and not for longer,
      // or a disk that other archives come and go on would be waited for without end.
      const expectedAvailable = Math.max(available, state.expectedAvailable + shown) + unshown;
      return { ...state, expectedAvailable, wasPass: isPass || state.wasPass };
    }
    case "stalled":
      // A pass takes whole archives. What it took too much the next arrivals must bring first.
      return { ...state, arrived: state.arrived - (isPass ? amount : 0) };
  }
}

/** The state after a look at the disk; `isOverLimit` where a limit of it is broken just now. */
export function afterLook(
  state: WatermarkState,
  { available, isOverLimit, nowMs }: { available: number; isOverLimit: boolean; nowMs: number },
): WatermarkState {
  if (!isOverLimit) return READY;
  if (state.phase === "ready") return state;
  if (available >= state.expectedAvailable) return READY;
  if (nowMs < state.untilMs) return state;
  const { stalls, expectedAvailable } = state;
  if (state.phase === "stalled" || !state.wasPass) return { phase: "ready", stalls };
  const lastsMs = Math.min(STALL_MS.first * 2 ** stalls, STALL_MS.longest);
  return { phase: "stalled", stalls: stalls + 1, untilMs: nowMs + lastsMs, expectedAvailable, arrived: 0 };
}

/** The state under a new policy, which ends a stall: what it asks for is tried at once. Space that is awaited still is. */
export function afterPolicy(state: WatermarkState): WatermarkState {
  return state.phase === "stalled" ? { phase: "ready", stalls: state.stalls } : state;
}
