import { FIELDS_OF_0_1_0 } from "@cro/shared/policy/document-fields";
import type { OrphanFact } from "@cro/shared/wire/directive";
import type { Fence } from "@cro/shared/wire/fence";
import { plain } from "@cro/shared/wire/read-report";
import type { Report } from "@cro/shared/wire/report";
import pLimit from "p-limit";
import type { AgentClient, AgentOutcome } from "./client.ts";
import { type AgentAddress, type SerializedPolicy, writeDirective } from "./directive.ts";
import {
  type AgentState,
  afterPush,
  afterReport,
  desire,
  findNewer,
  isApplied,
  newAgentState,
  nextCall,
  type PushTimings,
  suspectRestart,
} from "./step.ts";

/**
 * From the best to the worst. `applied`: has the current directive. `pending`: has not got it yet, or does not take it. `stale`: did not answer the
 * last call.
 */
export const AGENT_VIEW_STATES = ["applied", "pending", "stale"] as const;

/** One agent as its coordinator sees it. */
export interface AgentView {
  address: AgentAddress;
  state: (typeof AGENT_VIEW_STATES)[number];
  /** Its last one, however old. */
  report: Report | undefined;
  /** When it last sent one, or said that nothing has changed since; milliseconds since 1970. */
  heardAtMs: number | undefined;
  /** Why it does not answer, or does not get or take its directive. */
  problem: string | undefined;
}

export interface PusherEvents {
  /** Each report, whatever brought it. */
  onReport(address: AgentAddress, report: Report): void;
  /** An agent has the current policy, and had it not before, or not in this start of it. */
  onApplied(address: AgentAddress, applied: Fence & { digest: string }): void;
  /** An agent obeys a directive that ours cannot supersede; only a higher term can. */
  onOlder(address: AgentAddress, newest: Fence): void;
  /** Parts of a report are not believed, others than of the report before. */
  onDisbelief(address: AgentAddress, dropped: readonly string[]): void;
  /** A call failed, or a directive was not taken, in a way that was not told of since all was well. */
  onFailure(address: AgentAddress, problem: string): void;
  /** A directive was sent and answered, or was not. */
  onPush(durationSeconds: number, ok: boolean): void;
}

export interface PusherOptions {
  client: Pick<AgentClient, "putDirective" | "getReport">;
  term: number;
  timings: PushTimings;
  /** Calls that are begun at the same time. */
  concurrency: number;
  /** Milliseconds since 1970: the time that directives carry. */
  wallMs: () => number;
  /** Milliseconds of a clock that never jumps: what waits are measured with. */
  monotonicMs: () => number;
  random: () => number;
  events: PusherEvents;
}

/** Brings every agent to what it should have, and keeps asking all of them for their reports. */
export interface Pusher {
  /** The agents that there are; the ones that are no longer among them are forgotten, calls to them broken off. */
  setAgents(addresses: readonly AgentAddress[]): void;
  /** What each agent should have; undefined pushes nothing to it. */
  setPolicy(policyOf: (address: AgentAddress) => SerializedPolicy | undefined): void;
  /** The proofs that an agent's next directive carries, in place of the ones before. */
  setOrphans(podUID: string, orphans: readonly OrphanFact[]): void;
  /** Another, higher term: every agent gets its directive anew. */
  setTerm(term: number): void;
  /** The connection to this origin ended. */
  noteDisconnect(origin: string): void;
  view(): AgentView[];
  /** Makes no more calls, and breaks off the ones on the way. */
  stop(): Promise<void>;
}

/**
 * After so long a call no longer counts against the concurrency: it then only waits, and what others wait for is the
 * work of beginning and ending calls.
 */
const PATIENCE_MS = 250;

/** How many problems of an agent are remembered, so as not to be told of again. */
const MAX_TOLD = 8;
/** How many fields that an agent does not know are named. */
const NAMED_FIELDS = 5;

interface Entry {
  address: AgentAddress;
  /** Of its address. */
  origin: string;
  state: AgentState;
  policy: SerializedPolicy | undefined;
  orphans: readonly OrphanFact[];
  revision: number;
  report: Report | undefined;
  heardAtMs: number | undefined;
  /** What its policy needs and it does not know. */
  unknownFields: readonly string[];
  /** What is not believed of its report, as text. */
  dropped: string;
  /** Why the last call was not answered. */
  silence: string | undefined;
  /** Why the last directive was not taken; it stays while only reports are fetched. */
  refusal: string | undefined;
  /** The problems that were told of since the last time that there was none. */
  told: Set<string>;
  timer: NodeJS.Timeout | undefined;
  /** Whether a call is on the way or waits for its turn: there is never a second one. */
  isBusy: boolean;
  abort: AbortController;
}

export function createPusher(options: PusherOptions): Pusher {
  const { client, events, monotonicMs, timings, random } = options;
  const entries = new Map<string, Entry>();
  const calls = new Set<Promise<void>>();
  const limit = pLimit(options.concurrency);
  let { term } = options;
  let revision = 0;
  let policyOf: (address: AgentAddress) => SerializedPolicy | undefined = () => undefined;
  let isStopped = false;

  function context() {
    return { nowMs: monotonicMs(), random, timings };
  }

  /** Every change of what an agent should have is a new revision, whatever changed. */
  function setDesired(entry: Entry, policy: SerializedPolicy | undefined, orphans: readonly OrphanFact[]): void {
    const isSamePolicy = policy?.digest === entry.policy?.digest && policy?.name === entry.policy?.name;
    const isChanged = !isSamePolicy || !isSameJson(orphans, entry.orphans);
    if (isChanged) entry.revision = ++revision;
    entry.policy = policy;
    entry.orphans = orphans;
    applyDesired(entry);
  }

  /** Tells the agent's state what to have; nothing while the agent would refuse it. */
  function applyDesired(entry: Entry): void {
    const { policy, report, revision: place } = entry;
    // An agent that has not told yet is taken for the oldest.
    const known = report?.documentFields ?? FIELDS_OF_0_1_0;
    entry.unknownFields = policy?.fields.filter((field) => !known.includes(field)) ?? [];
    const isKnown = entry.unknownFields.length === 0;
    const desired = policy && isKnown ? { term, revision: place, digest: policy.digest } : undefined;
    entry.state = desire(entry.state, desired, monotonicMs());
    arm(entry);
  }

  function arm(entry: Entry): void {
    if (isStopped || entry.isBusy || entry.abort.signal.aborted) return;
    clearTimeout(entry.timer);
    const delayMs = nextCall(entry.state).atMs - monotonicMs();
    if (delayMs > 0) {
      entry.timer = setTimeout(() => arm(entry), Math.ceil(delayMs));
      return;
    }
    entry.isBusy = true;
    void limit(() => {
      const call = makeCall(entry).finally(() => {
        calls.delete(call);
        entry.isBusy = false;
        arm(entry);
      });
      calls.add(call);
      return Promise.race([call, pause(PATIENCE_MS, call)]);
    });
  }

  /** Makes the call that is due by now: what an agent should have may have changed while it waited for its turn. */
  async function makeCall(entry: Entry): Promise<void> {
    if (entry.abort.signal.aborted) return;
    const { desired, documentWanted: withDocument } = entry.state;
    const { policy } = entry;
    if (nextCall(entry.state).call === "report" || desired === undefined || policy === undefined) {
      const known = entry.state.tellsChanges ? entry.report : undefined;
      const outcome = await client.getReport(entry.address, entry.abort.signal, known);
      settle(entry, outcome, () => afterReport(entry.state, outcome, context()));
      if (!entry.abort.signal.aborted) tell(entry);
      return;
    }
    const { address, orphans } = entry;
    const protocol = entry.report?.protocol ?? 1;
    const timeMs = options.wallMs();
    const body = writeDirective({ fence: desired, address, timeMs, policy, withDocument, orphans, protocol });
    const startedMs = monotonicMs();
    const outcome = await client.putDirective(address, body, entry.abort.signal);
    if (entry.abort.signal.aborted) return;
    const before = entry.state;
    settle(entry, outcome, () => afterPush(entry.state, { sent: desired, withDocument, outcome }, context()));
    const { applied, refusals } = entry.state;
    const isTaken = refusals <= before.refusals;
    entry.refusal = isTaken ? undefined : describeProblem(outcome);
    tell(entry);
    events.onPush((monotonicMs() - startedMs) / 1000, isTaken);
    // Another revision, or a higher term, may carry other proofs alone.
    const isKnown = applied?.digest === before.applied?.digest && applied?.bootId === before.applied?.bootId;
    if (applied !== undefined && isApplied(entry.state) && !isKnown) {
      events.onApplied(address, desired);
    }
    const newest = findNewer(desired, outcome);
    if (newest !== undefined) events.onOlder(address, newest);
  }

  function settle(entry: Entry, outcome: AgentOutcome, step: () => AgentState): void {
    if (entry.abort.signal.aborted) return;
    entry.state = step();
    entry.silence = entry.state.silences === 0 ? undefined : describeProblem(outcome);
    if (outcome.outcome === "accepted" || outcome.outcome === "unchanged") entry.heardAtMs = options.wallMs();
    if (outcome.outcome !== "accepted") return;
    const { report, dropped = [] } = outcome;
    entry.report = report;
    // Only now is it known which documents it takes.
    applyDesired(entry);
    const isNews = dropped.length > 0 && dropped.join() !== entry.dropped;
    entry.dropped = dropped.join();
    if (isNews) events.onDisbelief(entry.address, dropped);
    events.onReport(entry.address, report);
  }

  /** Tells of each problem once until there is none: directives and reports may fail in turn, each in its own way. */
  function tell(entry: Entry): void {
    const problem = problemOf(entry);
    if (problem === undefined || entry.told.size > MAX_TOLD) entry.told.clear();
    if (problem === undefined || entry.told.has(problem)) return;
    entry.told.add(problem);
    events.onFailure(entry.address, problem);
  }

  function forget(entry: Entry): void {
    clearTimeout(entry.timer);
    entry.abort.abort();
  }

  return {
    setAgents(addresses) {
      const wanted = new Map(addresses.map((address) => [address.podUID, address]));
      for (const [podUID, entry] of entries) {
        const address = wanted.get(podUID);
        if (address?.url === entry.address.url && address.node === entry.address.node) {
          entry.address = address;
          continue;
        }
        forget(entry);
        entries.delete(podUID);
      }
      for (const [podUID, address] of wanted) {
        if (entries.has(podUID)) continue;
        const entry: Entry = {
          address,
          origin: new URL(address.url).origin,
          state: newAgentState(monotonicMs()),
          policy: undefined,
          orphans: [],
          revision: 0,
          report: undefined,
          heardAtMs: undefined,
          unknownFields: [],
          dropped: "",
          silence: undefined,
          refusal: undefined,
          told: new Set(),
          timer: undefined,
          isBusy: false,
          abort: new AbortController(),
        };
        entries.set(podUID, entry);
        setDesired(entry, policyOf(address), []);
      }
    },

    setPolicy(next) {
      policyOf = next;
      for (const entry of entries.values()) setDesired(entry, next(entry.address), entry.orphans);
    },

    setOrphans(podUID, orphans) {
      const entry = entries.get(podUID);
      if (entry !== undefined) setDesired(entry, entry.policy, orphans);
    },

    setTerm(next) {
      term = next;
      for (const entry of entries.values()) applyDesired(entry);
    },

    noteDisconnect(origin) {
      for (const entry of entries.values()) {
        if (entry.origin !== origin) continue;
        entry.state = suspectRestart(entry.state, context());
        arm(entry);
      }
    },

    view() {
      return [...entries.values()].map((entry) => ({
        address: entry.address,
        state: entry.state.silences > 0 ? "stale" : isApplied(entry.state) ? "applied" : "pending",
        report: entry.report,
        heardAtMs: entry.heardAtMs,
        problem: problemOf(entry),
      }));
    },

    async stop() {
      isStopped = true;
      limit.clearQueue();
      for (const entry of entries.values()) forget(entry);
      await Promise.all(calls);
    },
  };
}

function problemOf({ silence, refusal, report, unknownFields }: Entry): string | undefined {
  if (silence !== undefined) return silence;
  if (report === undefined || unknownFields.length === 0) return refusal;
  const more = unknownFields.length > NAMED_FIELDS ? ` and ${unknownFields.length - NAMED_FIELDS} more` : "";
  const named = unknownFields.slice(0, NAMED_FIELDS).join(", ");
  return `agent ${plain(report.version)} does not know ${named}${more} of the policy; upgrade it`;
}

/** Why a call did not bring what it should, with the causes that libraries wrap. */
function describeProblem(outcome: AgentOutcome): string {
  switch (outcome.outcome) {
    case "accepted":
      return "answered a directive without having taken it";
    case "unchanged":
      return "answered a directive as if it were a question for its report";
    case "documentNeeded":
      return "asked for the policy that the directive carried";
    case "older":
      return `obeys a newer directive, of term ${outcome.term}, revision ${outcome.revision}`;
    case "misdirected":
      return `is another agent: ${outcome.error}`;
    case "invalid":
      return `refuses ${outcome.field ?? "the directive"}: ${outcome.error}`;
    case "failed":
      return describeCause(outcome.cause);
  }
}

function describeCause(cause: Error): string {
  const code = (cause as NodeJS.ErrnoException).code;
  const text = cause.message || code || cause.name;
  return cause.cause instanceof Error ? `${text}: ${describeCause(cause.cause)}` : text;
}

function isSameJson(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Ends after that time, or with the call, and leaves no timer behind. */
function pause(timeMs: number, call: Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, timeMs);
    void call.finally(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}
