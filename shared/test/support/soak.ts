import fc from "fast-check";

/** How many times longer than usual everything random is tried: $SOAK, as `make soak` sets it; 1 by default. */
export const SOAK = Number(process.env.SOAK ?? 1) || 1;

/** So many runs, or steps, and in a soak a multiple of them. */
export const soak = (runs: number): number => Math.max(1, Math.round(runs * SOAK));

/** A time limit in milliseconds, and in a soak a multiple of it; with fewer runs than usual it stays what it is. */
export const patience = (limitMs: number): number => limitMs * Math.max(1, SOAK);

/**
 * For random runs of the whole, one of which takes a minute: always the same one, so that no change is judged by luck;
 * in a soak another one each time.
 */
export const withSeed = (seed: number): { seed?: number } => (SOAK > 1 ? {} : { seed });

fc.configureGlobal({ numRuns: soak(100) });
