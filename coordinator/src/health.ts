import type { LeaseUse } from "./leader/election.ts";

/**
 * An election that has not used its Lease for so long is stuck, in milliseconds: it does so every 2 s, and no use of it
 * takes longer than 5 s.
 */
const STUCK_MS = 60_000;

/**
 * How long nobody leads before a coordinator is not ready, how long one is not ready for another reason before it
 * complains, and how long it rests between two complaints, in milliseconds.
 */
const COMPLAIN_MS = 60_000;

/** What a coordinator answers to probes: what is missing, or undefined if nothing is. */
export interface Health {
  /** The election has used the Lease. */
  leaseUsed(use: LeaseUse): void;
  /** What a leader is asked for as well; undefined while this one does not lead. */
  setLeader(notReady: (() => string | undefined) | undefined): void;
  /** Why it can neither lead nor stand by. */
  notReady(): string | undefined;
  /** Why only a restart can help. */
  notAlive(): string | undefined;
  /** To be asked about once a second: why it has not been ready, or nobody has led, for a minute; once a minute. */
  complaint(): string | undefined;
}

/** @param options.nowMs a monotonic clock */
export function createHealth({ nowMs }: { nowMs: () => number }): Health {
  let leaseProblem: string | undefined = "the Lease has not been read yet";
  let usedAtMs = nowMs();
  let leaderNotReady: (() => string | undefined) | undefined;
  /** When somebody was last seen to lead; the start counts as such. */
  let ledAtMs = nowMs();
  /** When it ceased to be ready, or last complained; undefined while it is ready. */
  let quietSinceMs: number | undefined;
  const leaderless = () => {
    const restMs = nowMs() - ledAtMs;
    if (restMs < COMPLAIN_MS) return undefined;
    const why = leaseProblem === undefined ? "" : `: ${leaseProblem}`;
    return `no coordinator has been seen to lead for ${Math.floor(restMs / 1000)} s${why}`;
  };
  const notReady = () => leaderless() ?? leaseProblem ?? leaderNotReady?.();
  return {
    leaseUsed(use) {
      leaseProblem = use.problem;
      if (use.ledAtMs !== undefined) ledAtMs = Math.max(ledAtMs, use.ledAtMs);
      usedAtMs = nowMs();
    },
    setLeader(notReady) {
      leaderNotReady = notReady;
    },
    notReady,
    complaint() {
      const problem = notReady();
      if (problem === undefined) {
        quietSinceMs = undefined;
        return undefined;
      }
      // That nobody leads is a problem only after a minute: then there is nothing more to wait for.
      quietSinceMs ??= leaderless() === undefined ? nowMs() : Number.NEGATIVE_INFINITY;
      if (nowMs() - quietSinceMs < COMPLAIN_MS) return undefined;
      quietSinceMs = nowMs();
      return problem;
    },
    notAlive() {
      const restMs = nowMs() - usedAtMs;
      return restMs < STUCK_MS ? undefined : `the election last used its Lease ${Math.floor(restMs / 1000)} s ago`;
    },
  };
}
