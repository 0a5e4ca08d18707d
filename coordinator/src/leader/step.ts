/** The Lease as a read or a write of it showed it. */
export interface LeaseSeen {
  uid: string;
  resourceVersion: string;
  /** The identity of who holds it; empty where nobody does. */
  holder: string;
  /** How long the holder may count on it from its last renewal. */
  durationMs: number;
  /** All that a holder writes into it: it differs from one renewal to the next. */
  record: string;
  /** The fencing term; 0 where there is none yet. */
  term: number;
  /**
   * What a leader left on it for the next one; undefined while no leader has left anything yet, and empty if something was
   * left, or may have been, that counts no more.
   */
  memo?: string | undefined;
}

/** The times of an election, in milliseconds; renewDeadline is under leaseDuration, by more than clocks drift apart. */
export interface ElectionTiming {
  /** How long a candidate waits without seeing the holder renew. */
  leaseDurationMs: number;
  /** How long after its last renewal a leader still acts. */
  renewDeadlineMs: number;
  /** How often the Lease is looked at or renewed. */
  retryPeriodMs: number;
}

/** client-go's defaults (k8s.io/client-go/tools/leaderelection, and component-base's LeaderElectionConfiguration). */
export const ELECTION_TIMING: ElectionTiming = {
  leaseDurationMs: 15_000,
  renewDeadlineMs: 10_000,
  retryPeriodMs: 2_000,
};

/** All that one candidate knows. Times are of its own monotonic clock: nobody else's clock is asked. */
export interface ElectionState {
  /** The Lease as last seen, and since when it has looked so; undefined where it does not exist, or is not known yet. */
  seen?: LeaseSeen & { sinceMs: number };
  /** Until when the holder of a Lease that was since replaced by a new one may not know that yet. */
  occupiedUntilMs: number;
  /** Terms up to this one are used up, as far as anyone has said. */
  usedTerm: number;
  /** Set while this candidate leads. */
  leading?: { term: number; uid: string; untilMs: number };
}

export const INITIAL_STATE: ElectionState = { occupiedUntilMs: Number.NEGATIVE_INFINITY, usedTerm: 0 };

/** Why a leader has to stop. */
export type StandDownReason = "renew_deadline" | "lease_gone" | "lease_taken";

export type Step =
  | { do: "acquire"; term: number }
  /** The term is the leader's own, or a higher one if its own is used up. It counts once the write has succeeded. */
  | { do: "renew"; term: number }
  /** Nothing to gain before that time, unless the holder lets go. */
  | { do: "wait"; untilMs: number }
  | { do: "stand down"; reason: StandDownReason };

/** Takes in what a read of the Lease that has just been answered showed; undefined is that there is none. */
export function observeLease(state: ElectionState, lease: LeaseSeen | undefined, nowMs: number): ElectionState {
  const { seen: previous, ...rest } = state;
  if (previous !== undefined && previous.uid !== lease?.uid) {
    rest.usedTerm = Math.max(rest.usedTerm, previous.term);
    // Who held a Lease that was deleted learns of that only when it tries to renew: it may act until then.
    if (previous.holder !== "" && rest.leading === undefined) {
      rest.occupiedUntilMs = Math.max(rest.occupiedUntilMs, previous.sinceMs + previous.durationMs);
    }
  }
  if (lease === undefined) return rest;
  const isSame = previous?.uid === lease.uid && previous.record === lease.record;
  return { ...rest, seen: { ...lease, sinceMs: isSame ? previous.sinceMs : nowMs } };
}

/**
 * Takes in that the API server has accepted this candidate's write.
 * @param write.sentAtMs when the request was sent: no candidate can have seen it earlier, so a leader that counts from
 * there stops before the others' wait is over
 */
export function leaseWritten(
  state: ElectionState,
  write: { lease: LeaseSeen; sentAtMs: number; nowMs: number; timing: ElectionTiming },
): ElectionState {
  const { lease, sentAtMs, nowMs, timing } = write;
  return {
    ...state,
    seen: { ...lease, sinceMs: nowMs },
    leading: { term: lease.term, uid: lease.uid, untilMs: sentAtMs + timing.renewDeadlineMs },
  };
}

/** Takes in that terms up to this one are used up. */
export function raiseUsedTerm(state: ElectionState, term: number): ElectionState {
  return { ...state, usedTerm: Math.max(state.usedTerm, term) };
}

/** Takes in that this candidate has stopped acting. */
export function stoodDown({ leading, ...state }: ElectionState): ElectionState {
  return leading === undefined ? state : raiseUsedTerm(state, leading.term);
}

/** A higher term than a leader's own by more than this is not one that elections have led to. */
const MAX_TERM_STEP = 1_000_000;
/** How long a node waits, in milliseconds, until the term is raised for its sake again. */
const RAISE_REST_MS = 60_000;

/** For which nodes the term was raised, and when. */
export type Raises = ReadonlyMap<string, number>;

/**
 * Decides whether the term is raised above the one that a node names. A node that lies can name any term: it is believed
 * once a minute, and only within what elections can have led to. `isNeeded` is false, too, if the leader's term is higher already.
 */
export function decideRaise(
  raises: Raises,
  { node, named, term, nowMs }: { node: string; named: number; term: number; nowMs: number },
): { isNeeded: boolean; raises: Raises } {
  const recent = new Map([...raises].filter(([, atMs]) => nowMs - atMs < RAISE_REST_MS));
  const isPlausible = Number.isSafeInteger(named) && named <= term + MAX_TERM_STEP;
  if (named < term || !isPlausible || recent.has(node)) return { isNeeded: false, raises: recent };
  return { isNeeded: true, raises: recent.set(node, nowMs) };
}

/** What to do now. A step that was decided is to be carried out at once or decided anew. */
export function decideStep(state: ElectionState, { identity, nowMs }: { identity: string; nowMs: number }): Step {
  const { seen, leading } = state;
  if (leading !== undefined) {
    const reason = reasonToStandDown({ ...state, leading }, { identity, nowMs });
    return reason === undefined
      ? { do: "renew", term: termToRenew({ ...state, leading }) }
      : { do: "stand down", reason };
  }
  if (seen === undefined) return { do: "wait", untilMs: Number.POSITIVE_INFINITY };
  // Its own name in a Lease that it does not lead under is that of a write whose answer got lost.
  const isHeldByAnother = seen.holder !== "" && seen.holder !== identity;
  const freeAtMs = Math.max(
    state.occupiedUntilMs,
    isHeldByAnother ? seen.sinceMs + seen.durationMs : Number.NEGATIVE_INFINITY,
  );
  if (nowMs < freeAtMs) return { do: "wait", untilMs: freeAtMs };
  return { do: "acquire", term: Math.max(seen.term, state.usedTerm) + 1 };
}

function reasonToStandDown(
  { seen, leading }: ElectionState & { leading: NonNullable<ElectionState["leading"]> },
  { identity, nowMs }: { identity: string; nowMs: number },
): StandDownReason | undefined {
  if (nowMs >= leading.untilMs) return "renew_deadline";
  if (seen === undefined || seen.uid !== leading.uid) return "lease_gone";
  if (seen.holder !== identity) return "lease_taken";
  return undefined;
}

/**
 * The term of the next renewal. If the own one is used up, or the Lease carries a higher one, then one above both: as
 * every write rests on the version that was read, each term in the Lease is above all that it carried before.
 */
function termToRenew({
  seen,
  leading,
  usedTerm,
}: ElectionState & { leading: NonNullable<ElectionState["leading"]> }): number {
  const usedUp = Math.max(usedTerm, seen?.term ?? 0);
  return usedTerm >= leading.term || usedUp > leading.term ? usedUp + 1 : leading.term;
}
