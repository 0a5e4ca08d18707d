import type { PolicyDocument } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { type Clock, TIME_TOLERANCE_MS, type TrustedTime } from "../clock.ts";
import type { ArchiveIndex } from "../inventory/archive-index.ts";
import type { Entry } from "../inventory/entry.ts";
import type { InForce } from "./in-force.ts";

/** Tells of archives that reach their maxAge, each once. */
export interface Ages {
  /** Ages that were reached before the policy was accepted are no news to it. */
  setPolicy(inForce: InForce): void;
  /** Everything is to be looked through again, as after another directory was listed. */
  restart(): void;
  /** This archive came, changed, or was found to be somebody's. */
  noticed(entry: Entry): void;
  /** The containers of archives whose age was reached since the last call; none while no time can be trusted. */
  reached(): ContainerIdentity[];
  /** Whether no archive reached its age by this trusted time of which {@link reached} has not told. */
  areNoneDue(nowMs: number | undefined): boolean;
}

export function createAges(options: {
  index: ArchiveIndex<Entry>;
  clock: Clock;
  time: Pick<TrustedTime, "nowMs">;
}): Ages {
  const { index, clock, time } = options;
  let policy: InForce | undefined;
  let isAsked = false;
  /** Ages up to this trusted time have been told of; undefined until a time is trusted under this policy. */
  let toldUpToMs: number | undefined;
  /** When that was set in this start of the agent, on the monotonic clock. */
  let toldAtMs: number | undefined;
  /** The next age that will be reached, trusted time; nothing is looked through before. */
  let nextMs = Number.NEGATIVE_INFINITY;

  /**
   * Where the present look begins. Between two looks no more ages are reached than time has passed: should the trusted
   * time itself jump, because every clock of the cluster was set right, what it jumped over is not reached now.
   */
  function windowStart(nowMs: number): number {
    const startMs = toldUpToMs ?? nowMs;
    if (toldAtMs === undefined) return startMs;
    return Math.max(startMs, nowMs - (clock.monotonicMs() - toldAtMs) - TIME_TOLERANCE_MS);
  }

  return {
    setPolicy(next) {
      policy = next;
      isAsked = hasAges(next.document);
      toldUpToMs = next.acceptedAtTrustedMs;
      toldAtMs = undefined;
      nextMs = Number.NEGATIVE_INFINITY;
    },
    restart() {
      nextMs = Number.NEGATIVE_INFINITY;
    },
    noticed({ identity, timeMs }) {
      const maxAgeMs = identity && policy?.govern(identity).maxAgeMs;
      if (maxAgeMs !== undefined) nextMs = Math.min(nextMs, timeMs + maxAgeMs + 1);
    },
    reached() {
      const nowMs = time.nowMs();
      if (policy === undefined || nowMs === undefined || nowMs < nextMs) return [];
      nextMs = Number.POSITIVE_INFINITY;
      if (!isAsked) return [];
      const startMs = windowStart(nowMs);
      const reached: ContainerIdentity[] = [];
      let isAllKnown = true;
      for (const { identity, timeMs, walked } of index.all()) {
        if (identity === undefined) {
          isAllKnown &&= walked;
          continue;
        }
        const { maxAgeMs } = policy.govern(identity);
        if (maxAgeMs === undefined) continue;
        const reachedMs = timeMs + maxAgeMs + 1;
        if (reachedMs > nowMs) nextMs = Math.min(nextMs, reachedMs);
        else if (reachedMs > startMs) reached.push(identity);
      }
      if (isAllKnown) {
        toldUpToMs = nowMs;
        toldAtMs = clock.monotonicMs();
      } else {
        // An archive that has not been walked has no known owner, so no known maxAge. Look again on the next tick.
        toldUpToMs ??= nowMs;
        nextMs = Number.NEGATIVE_INFINITY;
      }
      return reached;
    },
    areNoneDue: (nowMs) => !isAsked || (nowMs !== undefined && nowMs < nextMs),
  };
}

/** Whether any rule of a policy asks how old an archive is. */
export function hasAges({ global, rules }: PolicyDocument): boolean {
  return [global, ...rules].some(({ maxAgeMs }) => maxAgeMs !== undefined);
}
