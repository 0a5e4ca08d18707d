import { setImmediate as nextTurn } from "node:timers/promises";
import type { Clock } from "../clock.ts";

/** How long the event loop may be kept busy at a stretch, in milliseconds. */
const SLICE_MS = 5;

/** A stretch of work on the event loop, after which everything else has its turn. */
export interface Slice {
  isOver(): boolean;
  /** Lets everything else have its turn; then the next slice begins. */
  next(): Promise<void>;
}

export function startSlice(clock: Clock): Slice {
  let endMs = clock.monotonicMs() + SLICE_MS;
  return {
    isOver: () => clock.monotonicMs() >= endMs,
    async next() {
      await nextTurn();
      endMs = clock.monotonicMs() + SLICE_MS;
    },
  };
}
