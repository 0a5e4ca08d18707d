/** The machine's two clocks. Every wait is measured with the monotonic one. */
export interface Clock {
  /**
   * Milliseconds since 1970, as the machine believes; may jump in either direction. Only for what people read and for
   * telling that an archive is postdated: decisions about ages ask {@link TrustedTime}.
   */
  wallMs(): number;
  /** Milliseconds since some moment, never jumping. */
  monotonicMs(): number;
}

/** This module alone reads the machine's wall clock; Biome refuses to read it anywhere else in the agent. */
export const systemClock: Clock = { wallMs: () => Date.now(), monotonicMs: () => performance.now() };

/** How far the machine's clock may be from the coordinator's before the time counts as unknown, in milliseconds. */
export const TIME_TOLERANCE_MS = 5 * 60_000;

/** The time that decisions may rest on, or none. */
export interface TrustedTime {
  /** Takes in the time that an accepted directive carries, in milliseconds since 1970, and when the directive came. */
  told(coordinatorMs: number, receivedAtMs: number): void;
  /** The time that there would be if that had been told; nothing is taken in. */
  ifTold(coordinatorMs: number, receivedAtMs: number): number | undefined;
  /** Milliseconds since 1970; undefined while no time can be trusted. */
  nowMs(): number | undefined;
}

/**
 * Trusts what a directive of this start of the agent said, carried on by the monotonic clock, and only while the machine's
 * clock agrees within five minutes. One clock alone may be wrong by a year; two that agree are believed. Before the first
 * directive there is nothing to compare with, so there is no trusted time.
 */
export function createTrustedTime(clock: Clock): TrustedTime {
  let reference: { coordinatorMs: number; receivedAtMs: number } | undefined;

  function ifTold(coordinatorMs: number, receivedAtMs: number): number | undefined {
    const nowMs = coordinatorMs + (clock.monotonicMs() - receivedAtMs);
    return Math.abs(clock.wallMs() - nowMs) <= TIME_TOLERANCE_MS ? nowMs : undefined;
  }

  return {
    told(coordinatorMs, receivedAtMs) {
      reference = { coordinatorMs, receivedAtMs };
    },
    ifTold,
    nowMs() {
      if (reference === undefined) return undefined;
      return ifTold(reference.coordinatorMs, reference.receivedAtMs);
    },
  };
}
