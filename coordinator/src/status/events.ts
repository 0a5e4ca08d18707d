import { POLICY_API_VERSION, POLICY_KIND } from "@cro/shared/crd/schema";
import { getOrMake } from "@cro/shared/get-or-make";
import { formatBytes } from "@cro/shared/quantity";
import type { Report, ReportedDeletion } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import { createBudget } from "../budget.ts";
import { type KubeClient, kubePath } from "../kube/client.ts";
import type { PolicyResource } from "../policy/judge.ts";
import { nameNodes } from "./aggregate.ts";

/** The shortest time between two Events about deletions under one resource, in milliseconds. */
const DELETIONS_MS = 60_000;
/**
 * Deletions are told of when none was heard of for so long, in milliseconds: the pass is over then, on all nodes. Longer than an
 * agent is left alone.
 */
const GATHER_MS = 10_000;
/** How many deleted archives an Event names. */
const NAMED_ARCHIVES = 5;
/** How many Events are written in a second, over all resources. */
const EVENTS_PER_SECOND = 5;
/** How many reasons of deletions an Event tells apart: an agent may give any word for one. */
const MAX_REASONS = 20;
const OTHER_REASONS = "other reasons";
/** How many notes wait at most to be written; of more the oldest are let go. */
const MAX_NOTES = 1000;
/** How often a note is tried, and how long it rests after the first failure, in milliseconds; doubled each time. */
const MAX_TRIES = 5;
const RETRY_MS = 2000;
/** The API server's limits: of a message (pkg/apis/core/validation/events.go), of a count, and of a name with what we append. */
const MAX_MESSAGE = 1024;
const MAX_COUNT = 2 ** 31 - 1;
const MAX_NAME = 200;

/** Tells of what happens under a resource, as Events that `kubectl describe` shows with it. */
export interface EventWriter {
  /**
   * New deletions of an agent, from its report; each deletion is told of once. Without a resource that ruled the node
   * nobody is told, and they are none of the next one's either.
   */
  deletions(resource: PolicyResource | undefined, report: Report): void;
  /** Something that is told soon; the same again only of another version of the resource. */
  note(resource: PolicyResource, event: Note): void;
  /** The resources, by UID, and the agents, by the UID of their pod, that there are: all others are forgotten. */
  keepOnly(existing: { resources: ReadonlySet<string>; agents: ReadonlySet<string> }): void;
  /** To be called about once a second: writes what is due. */
  tick(): void;
}

interface Note {
  type: "Normal" | "Warning";
  reason: string;
  message: string;
}

/** Deletions under one resource that are still to be told of. */
interface Pending {
  resource: PolicyResource;
  sinceMs: number;
  lastMs: number;
  nodes: Set<string>;
  reasons: Map<string, Sum>;
  /** Some of the archives. */
  files: string[];
  /** Deletions of which no report told in time: only an agent of 0.1.0 does not count them by reason. */
  omitted: number;
}

/** The last deletion heard of, and how many there had been by then. */
interface Heard {
  bootId: string;
  number: number;
  sums: ReadonlyMap<string, Sum>;
}

interface Sum {
  count: number;
  bytes: number;
}

/** A note that is still to be written. */
interface WaitingNote extends Note {
  resource: PolicyResource;
  tries: number;
  notBeforeMs: number;
}

export function createEventWriter(options: {
  client: KubeClient;
  nowMs: () => number;
  now: () => Date;
  signal: AbortSignal;
  mayAct: () => boolean;
  log: Pick<Logger, "warn">;
  /** Unique to this process in its last twelve characters, of which names of Events are made. */
  identity: string;
}): EventWriter {
  const { client, nowMs, now, signal, mayAct, log, identity } = options;
  const startedAtMs = now().getTime();
  const budget = createBudget({ perSecond: EVENTS_PER_SECOND, nowMs });
  let count = 0;
  /** The last deletion heard of, by the agent's pod: two agents of one node count each for itself. */
  const heard = new Map<string, Heard>();
  /** By the resource's UID, as all that follows. */
  const pending = new Map<string, Pending>();
  const toldAtMs = new Map<string, number>();
  /** What was said last, by reason. */
  const noted = new Map<string, Map<string, string>>();
  const notes = new Set<WaitingNote>();

  /** Writes an Event; false where it may succeed later. */
  async function write(
    { namespace, name, uid }: PolicyResource,
    event: { type: string; reason: string; message: string; count: number },
  ): Promise<boolean> {
    budget.take();
    count += 1;
    const time = now();
    const unique = `${identity.slice(-12)}.${time.getTime().toString(16)}.${count}`;
    const body = {
      apiVersion: "v1",
      kind: "Event",
      // What is cut must not end in a dash or a dot.
      metadata: { namespace, name: `${name.slice(0, MAX_NAME).replace(/[^a-z0-9]+$/, "")}.${unique}` },
      involvedObject: { apiVersion: POLICY_API_VERSION, kind: POLICY_KIND, namespace, name, uid },
      source: { component: "checkpoint-restore-operator" },
      firstTimestamp: time.toISOString(),
      lastTimestamp: time.toISOString(),
      ...event,
      message: event.message.slice(0, MAX_MESSAGE),
    };
    const path = kubePath`/api/v1/namespaces/${namespace}/events`;
    const answer = await client.request({ method: "POST", path, body, signal });
    if (answer.ok) return true;
    if (!signal.aborted) log.warn({ problem: answer.message }, "event not written");
    return answer.status !== undefined && answer.status < 500 && answer.status !== 429;
  }

  function enqueue({ resource, nodes, reasons, files, omitted }: Omit<Pending, "sinceMs" | "lastMs">): void {
    const entry = getOrMake(pending, resource.uid, (): Pending => {
      return { resource, sinceMs: nowMs(), lastMs: 0, nodes: new Set(), reasons: new Map(), files: [], omitted: 0 };
    });
    entry.lastMs = nowMs();
    entry.files = [...entry.files, ...files].slice(0, NAMED_ARCHIVES);
    for (const node of nodes) entry.nodes.add(node);
    for (const [reason, sum] of reasons) add(entry.reasons, reason, sum);
    entry.omitted += omitted;
  }

  function writeDeletions(): void {
    for (const [uid, entry] of pending) {
      if (budget.left() <= 0) return;
      const restMs = nowMs() - (toldAtMs.get(uid) ?? Number.NEGATIVE_INFINITY);
      const isOver = nowMs() - entry.lastMs >= GATHER_MS || nowMs() - entry.sinceMs >= DELETIONS_MS;
      if (restMs < DELETIONS_MS || !isOver) continue;
      toldAtMs.set(uid, nowMs());
      pending.delete(uid);
      void write(entry.resource, { type: "Normal", reason: "ArchivesDeleted", ...describe(entry) }).then((isDone) => {
        // It is told again in a minute, with what came since.
        if (!isDone && toldAtMs.has(uid)) enqueue(entry);
      });
    }
  }

  function writeNotes(): void {
    for (const note of notes) {
      if (budget.left() <= 0) return;
      if (nowMs() < note.notBeforeMs) continue;
      notes.delete(note);
      const { resource, type, reason, message } = note;
      void write(resource, { type, reason, message, count: 1 }).then((isDone) => {
        if (isDone || note.tries + 1 >= MAX_TRIES || !noted.has(resource.uid)) return;
        notes.add({ ...note, tries: note.tries + 1, notBeforeMs: nowMs() + RETRY_MS * 2 ** note.tries });
      });
    }
  }

  return {
    deletions(resource, { bootId, node, podUID, deletions, deleted }) {
      const last = heard.get(podUID);
      const lastOfStart = last?.bootId === bootId ? last : undefined;
      const lastNumber = lastOfStart?.number ?? 0;
      const sums = new Map(
        Object.entries(deleted ?? {}).map(([reason, { archives, bytes }]) => [reason, { count: archives, bytes }]),
      );
      heard.set(podUID, { bootId, number: Math.max(lastNumber, deletions.at(-1)?.number ?? 0), sums });
      if (resource === undefined) return;
      let fresh = deletions.filter(({ number }) => number > lastNumber);
      let omitted = Math.max(0, (fresh[0]?.number ?? 0) - lastNumber - 1);
      if (last === undefined) {
        // What lies before this leader's time, another has told of; what lies before the resource's, was not its doing.
        const sinceMs = Math.max(startedAtMs, Date.parse(resource.createdAt)) - DELETIONS_MS;
        fresh = fresh.filter(({ time }) => time !== undefined && Date.parse(time) >= sinceMs);
        omitted = 0;
      }
      // Counters know of deletions that the list no longer holds.
      const isCounted = deleted !== undefined && last !== undefined;
      const reasons = isCounted ? since(sums, lastOfStart?.sums) : byReason(fresh);
      if (reasons.size === 0) return;
      const files = fresh.flatMap(({ file }) => file ?? []).slice(-NAMED_ARCHIVES);
      enqueue({ resource, nodes: new Set([node]), reasons, files, omitted: isCounted ? 0 : omitted });
    },
    note(resource, { type, reason, message }) {
      if (signal.aborted || !mayAct()) return;
      const cut = message.slice(0, MAX_MESSAGE);
      const said = `${resource.generation} ${cut}`;
      const before = getOrMake(noted, resource.uid, () => new Map<string, string>());
      if (before.get(reason) === said) return;
      before.set(reason, said);
      notes.add({ resource, type, reason, message: cut, tries: 0, notBeforeMs: nowMs() });
      const [oldest] = notes;
      if (notes.size > MAX_NOTES && oldest !== undefined) notes.delete(oldest);
      writeNotes();
    },
    keepOnly({ resources, agents }) {
      for (const podUID of heard.keys()) if (!agents.has(podUID)) heard.delete(podUID);
      for (const memory of [pending, toldAtMs, noted]) {
        for (const uid of memory.keys()) if (!resources.has(uid)) memory.delete(uid);
      }
      for (const note of notes) if (!resources.has(note.resource.uid)) notes.delete(note);
    },
    tick() {
      if (signal.aborted || !mayAct()) return;
      writeNotes();
      writeDeletions();
    },
  };
}

/** What was added to the counters since; an agent that counts backwards tells of nothing. */
function since(sums: ReadonlyMap<string, Sum>, before: ReadonlyMap<string, Sum> = new Map()): Map<string, Sum> {
  const added = [...sums].map(([reason, { count, bytes }]): [string, Sum] => {
    const then = before.get(reason) ?? { count: 0, bytes: 0 };
    return [reason, { count: count - then.count, bytes: Math.max(0, bytes - then.bytes) }];
  });
  return new Map(added.filter(([, { count }]) => count > 0));
}

function byReason(deletions: ReportedDeletion[]): Map<string, Sum> {
  const reasons = new Map<string, Sum>();
  for (const { reason, bytes } of deletions) add(reasons, reason, { count: 1, bytes });
  return reasons;
}

/** Adds to the sum of a reason, or, if there are very many reasons, to that of all others. */
function add(reasons: Map<string, Sum>, named: string, { count, bytes }: Sum): void {
  const reason = reasons.has(named) || reasons.size < MAX_REASONS ? named : OTHER_REASONS;
  const sum = reasons.get(reason) ?? { count: 0, bytes: 0 };
  reasons.set(reason, { count: sum.count + count, bytes: Math.min(Number.MAX_SAFE_INTEGER, sum.bytes + bytes) });
}

function describe({ nodes, reasons, files, omitted }: Pending): { message: string; count: number } {
  const told = [...reasons].map(([reason, { count, bytes }]) => `${count} for ${reason} (${formatBytes(bytes)}B)`);
  const more = omitted > 0 ? `, and ${omitted} more that no report held any longer` : "";
  const where = `${nodes.size === 1 ? "node" : "nodes"} ${nameNodes([...nodes].sort())}`;
  const all = [...reasons.values()].reduce((sum, { count }) => sum + count, omitted);
  const which = files.length === 0 ? "" : `: ${files.join(", ")}${all > files.length ? " and others" : ""}`;
  return {
    message: `${where}: deleted ${told.join(", ")}${more}${which}`,
    // A node that is not to be trusted may name any number.
    count: Math.min(MAX_COUNT, all),
  };
}
