import type { Clock } from "../clock.ts";

/** How far the machine's clock may be from the coordinator's before ages are no longer believed, in milliseconds. */
const TOLERANCE_MS = 5 * 60_000;

/** What a directive told of the time, and when it came. */
export interface TimeReference {
  /** The coordinator's clock on sending, in milliseconds since 1970. */
  coordinatorMs: number;
  /** This machine's monotonic clock on receipt. */
  monotonicMs: number;
}

/**
 * Whether the wall clock may be used to tell the age of an archive. The coordinator's time, carried on by the monotonic
 * clock, must agree with it; a clock that jumped makes everything look old. Without a coordinator there is nothing to
 * compare with, and the clock is taken as it is.
 */
export function isClockTrusted(reference: TimeReference | undefined, clock: Clock): boolean {
  if (reference === undefined) return true;
  const expectedMs = reference.coordinatorMs + (clock.monotonicMs() - reference.monotonicMs);
  return Math.abs(clock.wallMs() - expectedMs) <= TOLERANCE_MS;
}
