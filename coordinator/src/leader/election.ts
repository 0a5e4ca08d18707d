import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "pino";
import { type KubeClient, type KubeFailure, provesAbsence } from "../kube/client.ts";
import { type LeaseReference, readLease, writeLease } from "./lease.ts";
import {
  decideRaise,
  decideStep,
  ELECTION_TIMING,
  type ElectionState,
  type ElectionTiming,
  INITIAL_STATE,
  leaseWritten,
  observeLease,
  type Raises,
  raiseUsedTerm,
  type StandDownReason,
  stoodDown,
} from "./step.ts";

/** The right to act, for as long as it lasts. */
export interface Leadership {
  /** Above that of every leader before; later ones come by onTermRaised. */
  term: number;
  /** Aborts when the leadership ends. It may fire late in a process that was frozen: ask holds() before acting. */
  signal: AbortSignal;
  /** Whether the leadership lasts, by the clock, right now. */
  holds(): boolean;
  /**
   * Tells that a node obeys a term as high as this leader's or higher, as after a restored or recreated Lease. The
   * next renewal writes a higher one, and the leadership goes on. False if the term is not raised for that: the leader's is
   * higher already, the term is not plausible, or it was raised for this node within the last minute.
   */
  raiseTerm(node: string, named: number): boolean;
  /** Calls the listener with each higher term of this leadership, as soon as the Lease carries it, or now if it does. */
  onTermRaised(listener: (term: number) => void): void;
  /** What the leader before left on the Lease; undefined if there was none, empty if that is lost. */
  memo: string | undefined;
  /**
   * Leaves a text on the Lease for the next leader, in place of the one before. It travels with a renewal, which comes
   * early for it. Resolves true when it is there, and false if another text took its place first or the leadership ended.
   */
  leaveMemo(text: string): Promise<boolean>;
}

/** What a use of the Lease told. */
export interface LeaseUse {
  /** Why this process can neither lead nor stand by; undefined if it can. */
  problem: string | undefined;
  /** When somebody was last seen to take or to renew the Lease, by the monotonic clock; undefined if nobody was. */
  ledAtMs: number | undefined;
}

export interface ElectionOptions {
  client: KubeClient;
  lease: LeaseReference;
  /** Unique to this start of this process: a successor of the same name must not take the Lease for its own. */
  identity: string;
  /** Leads until leadership.signal aborts, and settles when it has stopped acting. */
  lead: (leadership: Leadership) => Promise<void>;
  /** Ends the election: the Lease is let go as soon as lead() has settled. */
  signal: AbortSignal;
  /** A monotonic clock. */
  nowMs: () => number;
  /** The wall clock; it is shown to readers of the Lease and decides nothing. */
  now: () => Date;
  /** A number from 0 up to 1, for jitter. */
  random: () => number;
  log: Pick<Logger, "info" | "warn">;
  timing?: ElectionTiming;
  /** Called after every use of the Lease. */
  onLeaseUsed?: (use: LeaseUse) => void;
}

/** Letting go is a courtesy to the successor, and must not keep a process from ending. */
const RELEASE_TIMEOUT_MS = 2_000;

/** How often in a row a renewal is tried whose write another write, a label's say, has overtaken. */
const TRIES_AT_ONCE = 5;

/** Renewals that come early for a memo are at least this part of the usual pause apart. */
const EARLY_PART = 1 / 10;

type Ending = StandDownReason | "shutdown" | "done";

/** A text for the next leader, and what tells its author whether it was written. */
interface Memo {
  text: string;
  settle: (isWritten: boolean) => void;
}

/**
 * Competes for the Lease until the signal, and runs lead() each time that it is won, one run after the other. A Lease
 * that does not exist is looked for again and again, for it is not for this process to create. Resolves, too, when lead()
 * settles although it still leads, and rejects with what it rejects with; always after letting go of the Lease.
 */
export async function runElection(options: ElectionOptions): Promise<void> {
  const { client, lease, identity, lead, signal, nowMs, now, random, log, timing = ELECTION_TIMING } = options;
  const requestTimeoutMs = timing.renewDeadlineMs / 2;
  let state: ElectionState = INITIAL_STATE;
  let raises: Raises = new Map();
  let lastProblem = "";
  /** The memo that is to be written, and the one that is on its way. */
  let memo: Memo | undefined;
  let sending: Memo | undefined;
  /** What this leader has left, or found; it is written again if somebody removes it. */
  let kept: string | undefined;
  let wake = () => {};

  /** Tells of a use of the Lease. A problem that is over is logged again when it comes again. */
  function used(problem: string | undefined): void {
    if (problem === undefined) lastProblem = "";
    const { seen } = state;
    options.onLeaseUsed?.({ problem, ledAtMs: seen === undefined || seen.holder === "" ? undefined : seen.sinceMs });
  }

  /** Each problem once, not every two seconds. */
  function warn(failure: KubeFailure): void {
    if (failure.reason === "Aborted") return;
    used(failure.message);
    if (failure.reason === lastProblem) return;
    lastProblem = failure.reason;
    const isGone = provesAbsence(failure, { kind: "leases", name: lease.name });
    log.warn(
      { ...lease, reason: failure.reason, err: failure.message },
      isGone ? "The Lease does not exist; install the chart again to have it created" : "The Lease cannot be used",
    );
  }

  /** Reads the Lease; false where the answer told nothing. */
  async function look(timeoutMs: number, until: AbortSignal): Promise<boolean> {
    const answer = await readLease(client, lease, {
      timeoutMs,
      signal: until,
      defaultDurationMs: timing.leaseDurationMs,
    });
    if (answer.ok) {
      state = observeLease(state, answer.value, nowMs());
      return true;
    }
    const isGone = provesAbsence(answer, { kind: "leases", name: lease.name });
    if (isGone) state = observeLease(state, undefined, nowMs());
    warn(answer);
    return isGone;
  }

  /** Writes this process into the Lease. After anything but `written` the Lease is to be read before the next write. */
  async function write(
    term: number,
    { timeoutMs, until }: { timeoutMs: number; until?: AbortSignal },
  ): Promise<"written" | "conflict" | "failed"> {
    if (state.seen === undefined) return "failed";
    const sentAtMs = nowMs();
    const carried = memo;
    const again = state.seen.memo === kept ? undefined : kept;
    sending = carried;
    const answer = await writeLease(client, lease, {
      write: {
        basis: state.seen,
        holder: identity,
        durationMs: timing.leaseDurationMs,
        term,
        memo: carried?.text ?? again,
        now: now(),
      },
      timeoutMs,
      ...(until === undefined ? {} : { signal: until }),
    });
    sending = undefined;
    // One that was not written is written with the next renewal, unless another took its place.
    if (answer.ok || memo !== carried) carried?.settle(answer.ok);
    if (answer.ok && memo === carried) memo = undefined;
    if (answer.ok) {
      kept = answer.value.memo;
      state = leaseWritten(state, { lease: answer.value, sentAtMs, nowMs: nowMs(), timing });
      used(undefined);
      return "written";
    }
    // Somebody else's write came first: the next look tells whose.
    if (answer.reason === "Conflict") {
      used(undefined);
      return "conflict";
    }
    warn(answer);
    return "failed";
  }

  async function release(): Promise<void> {
    for (let attempt = 0; attempt < 2 && state.seen?.holder === identity; attempt++) {
      const answer = await writeLease(client, lease, {
        write: { basis: state.seen, holder: undefined, durationMs: 1000, term: state.seen.term, now: now() },
        timeoutMs: RELEASE_TIMEOUT_MS,
      });
      if (answer.ok) {
        state = observeLease(state, answer.value, nowMs());
        log.info({ ...lease }, "Let go of the Lease");
        return;
      }
      if (answer.reason !== "Conflict" || !(await look(RELEASE_TIMEOUT_MS, AbortSignal.timeout(RELEASE_TIMEOUT_MS)))) {
        return;
      }
    }
  }

  const pauseMs = () => timing.retryPeriodMs * (0.8 + 0.4 * random());

  /** Waits for the next renewal, or less if there is a memo to be written. */
  async function pause(until: AbortSignal): Promise<void> {
    const startMs = nowMs();
    const dueMs = startMs + pauseMs();
    const earlyMs = startMs + timing.retryPeriodMs * EARLY_PART;
    while (!until.aborted) {
      const delayMs = (memo === undefined ? dueMs : Math.min(dueMs, earlyMs)) - nowMs();
      if (delayMs <= 0) return;
      const woken = new AbortController();
      wake = () => woken.abort();
      await sleep(delayMs, undefined, { signal: AbortSignal.any([until, woken.signal]) }).catch(() => {});
    }
  }

  function leaveMemo(text: string): Promise<boolean> {
    if (memo !== sending) memo?.settle(false);
    return new Promise((settle) => {
      memo = { text, settle };
      wake();
    });
  }

  /** Renews until the leadership ends; the reason is the abort reason of `ended`. */
  async function keepRenewing(ended: AbortController, onTerm: (term: number) => void): Promise<void> {
    let deadline: NodeJS.Timeout | undefined;
    const armDeadline = (untilMs: number) => {
      clearTimeout(deadline);
      deadline = setTimeout(() => ended.abort("renew_deadline" satisfies Ending), Math.max(0, untilMs - nowMs()));
    };
    let mustLook = false;
    let triesLeft = 0;
    while (!ended.signal.aborted && state.leading !== undefined) {
      const { untilMs } = state.leading;
      armDeadline(untilMs);
      if (triesLeft === 0) {
        await pause(ended.signal);
        triesLeft = TRIES_AT_ONCE;
      }
      triesLeft -= 1;
      if (ended.signal.aborted) break;
      const timeoutMs = Math.min(requestTimeoutMs, untilMs - nowMs());
      if (mustLook && !(await look(timeoutMs, ended.signal))) {
        triesLeft = 0;
        continue;
      }
      const step = decideStep(state, { identity, nowMs: nowMs() });
      if (step.do !== "renew") {
        ended.abort(step.do === "stand down" ? step.reason : ("renew_deadline" satisfies Ending));
        break;
      }
      const outcome = await write(step.term, { timeoutMs, until: ended.signal });
      if (outcome === "written" && !ended.signal.aborted) onTerm(step.term);
      mustLook = outcome !== "written";
      if (outcome !== "conflict") triesLeft = 0;
    }
    clearTimeout(deadline);
  }

  async function leadUntilEnd(term: number): Promise<Ending> {
    const ended = new AbortController();
    const end = (reason: Ending) => ended.abort(reason);
    const onShutdown = () => end("shutdown");
    signal.addEventListener("abort", onShutdown);
    if (signal.aborted) onShutdown();
    log.info({ ...lease, identity, term }, "Lease acquired");
    const listeners: Array<(term: number) => void> = [];
    let lastTerm = term;
    const renewing = keepRenewing(ended, (next) => {
      if (next === lastTerm) return;
      lastTerm = next;
      log.warn({ ...lease, term: next }, "term raised");
      for (const listener of listeners) listener(next);
    });
    renewing.catch(() => end("renew_deadline"));
    try {
      await lead({
        term,
        signal: ended.signal,
        memo: state.seen?.memo,
        leaveMemo: (text) => (ended.signal.aborted ? Promise.resolve(false) : leaveMemo(text)),
        holds: () => !ended.signal.aborted && nowMs() < (state.leading?.untilMs ?? Number.NEGATIVE_INFINITY),
        raiseTerm(node, named) {
          const decided = decideRaise(raises, {
            node,
            named,
            term: Math.max(lastTerm, state.usedTerm + 1),
            nowMs: nowMs(),
          });
          raises = decided.raises;
          if (decided.isNeeded) state = raiseUsedTerm(state, named);
          return decided.isNeeded;
        },
        onTermRaised(listener) {
          listeners.push(listener);
          if (lastTerm !== term) listener(lastTerm);
        },
      });
    } finally {
      end("done");
      await renewing;
      memo?.settle(false);
      memo = undefined;
      kept = undefined;
      signal.removeEventListener("abort", onShutdown);
      state = stoodDown(state);
      log.info({ ...lease, term: lastTerm, reason: ended.signal.reason as Ending }, "Lease given up or lost");
    }
    return ended.signal.reason as Ending;
  }

  try {
    while (!signal.aborted) {
      let delayMs = pauseMs();
      if (await look(requestTimeoutMs, signal)) {
        const step = decideStep(state, { identity, nowMs: nowMs() });
        // This write is not cut short by the signal: what it leaves behind is to be known, so as to be let go.
        if (step.do === "acquire" && (await write(step.term, { timeoutMs: requestTimeoutMs })) === "written") {
          if (signal.aborted) return;
          // An answer that came too late, as to a process that was frozen, is no leadership any more.
          if (decideStep(state, { identity, nowMs: nowMs() }).do !== "renew") state = stoodDown(state);
          else if ((await leadUntilEnd(step.term)) === "done") return;
          delayMs = 0;
        } else if (step.do === "wait") {
          // A Lease that it need not write now is as it should be; one that it could not write is not mended by a look.
          if (state.seen !== undefined) used(undefined);
          delayMs = Math.min(delayMs, Math.max(0, step.untilMs - nowMs()));
        }
      }
      await sleep(delayMs, undefined, { signal }).catch(() => {});
    }
  } finally {
    await release();
  }
}
