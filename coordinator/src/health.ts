/**
 * An election that has not used its Lease for so long is stuck, in milliseconds: it does so every 2 s, and no use of it
 * takes longer than 5 s.
 */
const STUCK_MS = 60_000;

/** What a coordinator answers to probes: what is missing, or undefined if nothing is. */
export interface Health {
  /** The election has used the Lease; `problem` is what was wrong with it. */
  leaseUsed(problem: string | undefined): void;
  /** What a leader is asked for as well; undefined while this one does not lead. */
  setLeader(notReady: (() => string | undefined) | undefined): void;
  /** Why it can neither lead nor stand by. */
  notReady(): string | undefined;
  /** Why only a restart can help. */
  notAlive(): string | undefined;
}

/** @param options.nowMs a monotonic clock */
export function createHealth({ nowMs }: { nowMs: () => number }): Health {
  let leaseProblem: string | undefined = "the Lease has not been read yet";
  let usedAtMs = nowMs();
  let leaderNotReady: (() => string | undefined) | undefined;
  return {
    leaseUsed(problem) {
      leaseProblem = problem;
      usedAtMs = nowMs();
    },
    setLeader(notReady) {
      leaderNotReady = notReady;
    },
    notReady: () => leaseProblem ?? leaderNotReady?.(),
    notAlive() {
      const restMs = nowMs() - usedAtMs;
      return restMs < STUCK_MS ? undefined : `the election last used its Lease ${Math.floor(restMs / 1000)} s ago`;
    },
  };
}
