import { compareFences, type Fence } from "@cro/shared/wire/fence";
import type { Report } from "@cro/shared/wire/report";
import type { AgentOutcome } from "./client.ts";

/** How often agents are called, in milliseconds. */
export interface PushTimings {
  /** Between two directives to an agent that has the current one already. */
  resyncMs: number;
  /** Between two reports of an agent that sends the whole one each time. */
  reportMs: number;
  /** Between two questions to an agent that answers whether anything has changed. */
  changeMs: number;
  /** The wait after the first failed call; doubled with each further one. */
  minBackoffMs: number;
  maxBackoffMs: number;
}

/** How many reports at most come for hints that an agent restarted, in the time in which one would come without. */
const HINTS_PER_REPORT = 6;

/** The first version of the protocol in which an agent says that nothing has changed. */
const TELLS_CHANGES = 2;

/** What names a directive: its place in the order, and the policy it carries. */
export interface DirectiveKey extends Fence {
  digest: string;
}

/** What is known of one agent, and when it is due. Times are of the monotonic clock. */
export interface AgentState {
  /** What it should have; undefined while nothing is to be pushed to it. */
  desired: DirectiveKey | undefined;
  /** What it has said that it has, and the start of it that said so. */
  applied: (DirectiveKey & { bootId: string }) | undefined;
  /** Whether it asked for the document of the desired policy. */
  documentWanted: boolean;
  /** Directives in a row that it did not take. */
  refusals: number;
  /** Calls in a row that it did not answer. */
  silences: number;
  /** No call is made before. */
  retryAtMs: number;
  /** When the desired directive is due, if the agent does not have it. */
  pushAtMs: number;
  /** When it is due if the agent has it. */
  resyncAtMs: number;
  reportAtMs: number;
  /** Whether it answers a question for its report by saying that nothing has changed. */
  tellsChanges: boolean;
  /** When the last report came; undefined before the first one. */
  reportedAtMs: number | undefined;
}

export interface NextCall {
  call: "push" | "report";
  atMs: number;
}

/** What a step rests on beside the state. */
export interface StepContext {
  nowMs: number;
  /** In [0, 1), as Math.random: spreads the calls of many agents. */
  random: () => number;
  timings: PushTimings;
}

/** An agent that nothing is known of; it is due at once. */
export function newAgentState(nowMs: number): AgentState {
  return {
    desired: undefined,
    applied: undefined,
    documentWanted: false,
    refusals: 0,
    silences: 0,
    retryAtMs: nowMs,
    pushAtMs: nowMs,
    resyncAtMs: nowMs,
    reportAtMs: nowMs,
    tellsChanges: false,
    reportedAtMs: undefined,
  };
}

/** Whether the agent has what it should have, as far as it has said. */
export function isApplied({ desired, applied }: AgentState): boolean {
  return desired !== undefined && applied !== undefined && isSame(applied, desired);
}

/** The call to be made next, and when. Reports are fetched whatever becomes of directives, and the reverse. */
export function nextCall(state: AgentState): NextCall {
  const { desired, retryAtMs, pushAtMs, resyncAtMs, reportAtMs } = state;
  const directiveAtMs = desired === undefined ? Number.POSITIVE_INFINITY : isApplied(state) ? resyncAtMs : pushAtMs;
  const call = directiveAtMs <= reportAtMs ? "push" : "report";
  return { call, atMs: Math.max(retryAtMs, Math.min(directiveAtMs, reportAtMs)) };
}

/**
 * The agent should have another directive. It is pushed at once, but not to an agent that does not answer: that one is
 * tried again when its time comes. One that refused the directive before may have waited for exactly this.
 */
export function desire(state: AgentState, desired: DirectiveKey | undefined, nowMs: number): AgentState {
  if (desired === state.desired || (desired && state.desired && isSame(desired, state.desired))) return state;
  return {
    ...state,
    desired,
    documentWanted: state.documentWanted && desired?.digest === state.desired?.digest,
    pushAtMs: nowMs,
  };
}

/**
 * Its connection ended: maybe it restarts, and if so it shall not wait for its turn. An agent that ends the connection
 * after each answer is asked a few times more often, and not without end.
 */
export function suspectRestart(state: AgentState, { nowMs, random, timings }: StepContext): AgentState {
  const restedAtMs = (state.reportedAtMs ?? Number.NEGATIVE_INFINITY) + timings.reportMs / HINTS_PER_REPORT;
  const hintAtMs = Math.max(nowMs + timings.minBackoffMs * random(), restedAtMs);
  return { ...state, reportAtMs: Math.min(state.reportAtMs, hintAtMs) };
}

/** What is known after a directive, `sent`, was answered, or was not. */
export function afterPush(
  state: AgentState,
  { sent, withDocument, outcome }: { sent: DirectiveKey; withDocument: boolean; outcome: AgentOutcome },
  context: StepContext,
): AgentState {
  if (outcome.outcome === "documentNeeded" && !withDocument) {
    const isStillWanted = state.desired?.digest === sent.digest;
    return { ...answered(state, context), applied: undefined, documentWanted: isStillWanted, pushAtMs: context.nowMs };
  }
  const accepted = outcome.outcome === "accepted" ? outcome.report.accepted : undefined;
  if (outcome.outcome === "accepted" && accepted !== undefined && isSame(accepted, sent)) {
    return {
      ...reported(state, context, outcome.report),
      applied: { ...sent, bootId: outcome.report.bootId },
      documentWanted: false,
      refusals: 0,
      pushAtMs: context.nowMs,
      resyncAtMs: context.nowMs + jitter(context.timings.resyncMs, context.random),
    };
  }
  const againAtMs = context.nowMs + backoff(state.refusals, context);
  const refused = {
    ...state,
    refusals: state.refusals + 1,
    pushAtMs: againAtMs,
    resyncAtMs: againAtMs,
  };
  if (isSilent(outcome)) return silent(refused, context);
  // It does not have what was sent, whatever it said before.
  const next = outcome.outcome === "accepted" ? reported(refused, context, outcome.report) : answered(refused, context);
  return { ...next, applied: undefined };
}

/** What is known after a report was fetched, or was not. */
export function afterReport(state: AgentState, outcome: AgentOutcome, context: StepContext): AgentState {
  if (outcome.outcome === "unchanged") {
    const next = { ...answered(state, context), reportAtMs: nextReportMs(state, context) };
    return state.silences > 0 ? { ...next, pushAtMs: context.nowMs } : next;
  }
  if (outcome.outcome !== "accepted") {
    const next = silent(state, context);
    return { ...next, reportAtMs: next.retryAtMs };
  }
  const { accepted, bootId } = outcome.report;
  const { applied } = state;
  const isUnchanged = applied !== undefined && bootId === applied.bootId && accepted && isSame(accepted, applied);
  const next = { ...reported(state, context, outcome.report), applied: isUnchanged ? applied : undefined };
  // It is back: what it did not take may only not have reached it.
  return state.silences > 0 ? { ...next, pushAtMs: context.nowMs } : next;
}

/**
 * The newest directive that the agent has, where ours cannot come after it: another leader's, or one of an earlier life
 * of this one that has the same place and another policy.
 */
export function findNewer(sent: DirectiveKey, outcome: AgentOutcome): Fence | undefined {
  if (outcome.outcome === "older") {
    return compareFences(outcome, sent) >= 0 ? { term: outcome.term, revision: outcome.revision } : undefined;
  }
  if (outcome.outcome !== "accepted") return undefined;
  const { accepted } = outcome.report;
  return accepted !== undefined && !isSame(accepted, sent) && compareFences(accepted, sent) >= 0 ? accepted : undefined;
}

function isSame(a: NonNullable<Report["accepted"]>, b: DirectiveKey): boolean {
  return compareFences(a, b) === 0 && a.digest === b.digest;
}

/** Whether nothing came from the agent itself. */
function isSilent({ outcome }: AgentOutcome): boolean {
  return outcome === "failed" || outcome === "misdirected";
}

function answered(state: AgentState, { nowMs }: StepContext): AgentState {
  return { ...state, silences: 0, retryAtMs: nowMs };
}

function reported(state: AgentState, context: StepContext, { protocol = 1 }: Report): AgentState {
  const next = { ...answered(state, context), tellsChanges: protocol >= TELLS_CHANGES, reportedAtMs: context.nowMs };
  return { ...next, reportAtMs: nextReportMs(next, context) };
}

function nextReportMs({ tellsChanges }: AgentState, { nowMs, random, timings }: StepContext): number {
  return nowMs + jitter(tellsChanges ? timings.changeMs : timings.reportMs, random);
}

function silent(state: AgentState, context: StepContext): AgentState {
  return { ...state, silences: state.silences + 1, retryAtMs: context.nowMs + backoff(state.silences, context) };
}

/** Doubled with each failure before, up to the bound; half of it is left to chance. */
function backoff(failuresBefore: number, { random, timings }: StepContext): number {
  const longestMs = Math.min(timings.maxBackoffMs, timings.minBackoffMs * 2 ** Math.min(failuresBefore, 30));
  return longestMs * (0.5 + random() / 2);
}

/** Within a tenth around the mean, so that agents that started together do not stay together. */
function jitter(meanMs: number, random: () => number): number {
  return meanMs * (0.9 + random() * 0.2);
}
