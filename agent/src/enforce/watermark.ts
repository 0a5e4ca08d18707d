import type { DiskUsage } from "../retention/plan.ts";

/** How long the file system may take to show the space that deletions gave back, in milliseconds. */
const SHOWN_WITHIN_MS = 60_000;

/**
 * Where the deletions for the sake of disk space stand.
 * - `ready`: a pass may run.
 * - `waiting`: something was deleted whose space the file system does not show yet. Another pass would delete for the same
 *   bytes again.
 * - `stalled`: the last pass did not help in time: somebody holds the files open, or other data fills the disk as fast.
 *   Deleting on would take everything and free nothing, so no pass runs until the space shows or is no longer wanted.
 */
export type WatermarkState =
  | { phase: "ready" }
  | { phase: "waiting"; untilMs: number; expectedAvailableBytes: number; wasPass: boolean }
  | { phase: "stalled"; expectedAvailableBytes: number };

/** The state after deletions freed so many bytes for whatever reason. `isPass` where the disk was the reason. */
export function afterDeletions(
  state: WatermarkState,
  freed: { bytes: number; isPass: boolean; availableBeforeBytes: number; nowMs: number },
): WatermarkState {
  if (freed.bytes === 0 || state.phase === "stalled") return state;
  const { bytes, isPass, availableBeforeBytes, nowMs } = freed;
  if (state.phase === "ready") {
    const expectedAvailableBytes = availableBeforeBytes + bytes;
    return { phase: "waiting", untilMs: nowMs + SHOWN_WITHIN_MS, expectedAvailableBytes, wasPass: isPass };
  }
  // What is awaited already must show too, or another pass would delete for the same bytes again; and not for longer, or
  // a disk that other archives come and go on would be waited for without end.
  const expectedAvailableBytes = Math.max(availableBeforeBytes, state.expectedAvailableBytes) + bytes;
  return { ...state, expectedAvailableBytes, wasPass: isPass || state.wasPass };
}

/** The state after a look at the disk; `isOverLimit` where a watermark or minFree is broken just now. */
export function afterLook(
  state: WatermarkState,
  { disk, isOverLimit, nowMs }: { disk: DiskUsage; isOverLimit: boolean; nowMs: number },
): WatermarkState {
  if (state.phase === "ready") return state;
  if (!isOverLimit || disk.availableBytes >= state.expectedAvailableBytes) return { phase: "ready" };
  if (state.phase === "stalled" || nowMs < state.untilMs) return state;
  return state.wasPass
    ? { phase: "stalled", expectedAvailableBytes: state.expectedAvailableBytes }
    : { phase: "ready" };
}
