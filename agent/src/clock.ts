/** The two clocks. Whatever measures a wait uses the monotonic one; only ages of archives look at the wall. */
export interface Clock {
  /** Milliseconds since 1970, as the machine believes. May jump in either direction. */
  wallMs(): number;
  /** Milliseconds since some moment, never jumping. */
  monotonicMs(): number;
}

export const systemClock: Clock = { wallMs: () => Date.now(), monotonicMs: () => performance.now() };
