import { compareFences, type Fence } from "@cro/shared/wire/fence";
import type { Report } from "@cro/shared/wire/report";
import type { AgentOutcome } from "./client.ts";

/** How often agents are called, in milliseconds. */
export interface PushTimings {
  /** Between two directives to an agent that has the current one already. */
  resyncMs: number;
  /** Between two reports of an agent. */
  reportMs: number;
  /** The wait after the first failed call; doubled with each further one. */
  minBackoffMs: number;
  maxBackoffMs: number;
}

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
  /** Failed calls in a row. */
  failures: number;
  /** Whether it answered the last call, be it with a refusal. */
  isAnswering: boolean;
  /** Nothing is sent before. */
  retryAtMs: number;
  resyncAtMs: number;
  reportAtMs: number;
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
    failures: 0,
    isAnswering: true,
    retryAtMs: nowMs,
    resyncAtMs: nowMs,
    reportAtMs: nowMs,
  };
}

/** Whether the agent has what it should have, as far as it has said. */
export function isApplied({ desired, applied }: AgentState): boolean {
  return desired !== undefined && applied !== undefined && isSame(applied, desired);
}

/** The call to be made next, and when. */
export function nextCall(state: AgentState): NextCall {
  const { desired, retryAtMs, resyncAtMs, reportAtMs } = state;
  if (desired !== undefined && !isApplied(state)) return { call: "push", atMs: retryAtMs };
  if (desired !== undefined && resyncAtMs <= reportAtMs) return { call: "push", atMs: Math.max(retryAtMs, resyncAtMs) };
  return { call: "report", atMs: Math.max(retryAtMs, reportAtMs) };
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
    retryAtMs: state.isAnswering ? nowMs : state.retryAtMs,
  };
}

/** Its connection ended: maybe it restarts, and if so it shall not wait for its turn. */
export function suspectRestart(state: AgentState, { nowMs, random, timings }: StepContext): AgentState {
  return { ...state, reportAtMs: Math.min(state.reportAtMs, nowMs + timings.minBackoffMs * random()) };
}

/** What is known after a directive, `sent`, was answered, or was not. */
export function afterPush(
  state: AgentState,
  { sent, withDocument, outcome }: { sent: DirectiveKey; withDocument: boolean; outcome: AgentOutcome },
  context: StepContext,
): AgentState {
  if (outcome.outcome === "documentNeeded" && !withDocument) {
    const isStillWanted = state.desired?.digest === sent.digest;
    return { ...state, documentWanted: isStillWanted, failures: 0, isAnswering: true, retryAtMs: context.nowMs };
  }
  if (outcome.outcome !== "accepted") return afterFailure(state, outcome, context);
  const { accepted, bootId } = outcome.report;
  if (accepted === undefined || !isSame(accepted, sent)) return afterFailure(state, outcome, context);
  return {
    ...answered(state, context),
    applied: { ...sent, bootId },
    documentWanted: false,
    resyncAtMs: context.nowMs + jitter(context.timings.resyncMs, context.random),
  };
}

/** What is known after a report was fetched, or was not. */
export function afterReport(state: AgentState, outcome: AgentOutcome, context: StepContext): AgentState {
  if (outcome.outcome !== "accepted") return afterFailure(state, outcome, context);
  const { accepted, bootId } = outcome.report;
  const { applied } = state;
  const isUnchanged = applied !== undefined && bootId === applied.bootId && accepted && isSame(accepted, applied);
  return { ...answered(state, context), applied: isUnchanged ? applied : undefined };
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

function answered(state: AgentState, { nowMs, random, timings }: StepContext): AgentState {
  return {
    ...state,
    failures: 0,
    isAnswering: true,
    retryAtMs: nowMs,
    reportAtMs: nowMs + jitter(timings.reportMs, random),
  };
}

function afterFailure(
  state: AgentState,
  { outcome }: AgentOutcome,
  { nowMs, random, timings }: StepContext,
): AgentState {
  const backoffMs = Math.min(timings.maxBackoffMs, timings.minBackoffMs * 2 ** Math.min(state.failures, 30));
  return {
    ...state,
    failures: state.failures + 1,
    isAnswering: outcome !== "failed" && outcome !== "misdirected",
    retryAtMs: nowMs + backoffMs * (0.5 + random() / 2),
  };
}

/** Within a tenth around the mean, so that agents that started together do not stay together. */
function jitter(meanMs: number, random: () => number): number {
  return meanMs * (0.9 + random() * 0.2);
}
