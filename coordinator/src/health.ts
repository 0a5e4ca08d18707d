/**
 * An election that has not used its Lease for so long is stuck, in milliseconds: it does so every 2 s, and no use of it
 * takes longer than 5 s.
 */
const STUCK_MS = 60_000;

/** How long a coordinator is not ready before it complains, and how long it rests between two complaints, in milliseconds. */
const COMPLAIN_MS = 60_000;

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
  /** To be asked about once a second: why it has not been ready for a minute, once a minute. */
  complaint(): string | undefined;
}

/** @param options.nowMs a monotonic clock */
export function createHealth({ nowMs }: { nowMs: () => number }): Health {
  let leaseProblem: string | undefined = "the Lease has not been read yet";
  let usedAtMs = nowMs();
  let leaderNotReady: (() => string | undefined) | undefined;
  /** When it ceased to be ready, or last complained; undefined while it is ready. */
  let quietSinceMs: number | undefined;
  const notReady = () => leaseProblem ?? leaderNotReady?.();
  return {
    leaseUsed(problem) {
      leaseProblem = problem;
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
      quietSinceMs ??= nowMs();
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
