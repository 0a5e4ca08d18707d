import { POLICY_API_VERSION, POLICY_KIND } from "@cro/shared/crd/schema";
import { formatBytes } from "@cro/shared/quantity";
import type { Deletion, Reason, Report } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import type { KubeClient } from "../kube/client.ts";
import type { PolicyResource } from "../policy/judge.ts";

/** The shortest time between two Events about deletions of one node under one resource, in milliseconds. */
const DELETIONS_MS = 60_000;
/** The API server's limits: of a message (pkg/apis/core/validation/events.go), and of a name with what we append. */
const MAX_MESSAGE = 1024;
const MAX_NAME = 200;

/** Tells of what happens under a resource, as Events that `kubectl describe` shows with it. */
export interface EventWriter {
  /**
   * New deletions of a node, from its report; each deletion is told of once. Without a resource that ruled the node
   * nobody is told, and they are none of the next one's either.
   */
  deletions(resource: PolicyResource | undefined, report: Report): void;
  /** Something that is told at once; the same again only of another version of the resource. */
  note(resource: PolicyResource, event: { type: "Normal" | "Warning"; reason: string; message: string }): void;
  /** To be called about once a second: writes what is due. */
  tick(): void;
}

/** Deletions that are still to be told of. */
interface Pending {
  resource: PolicyResource;
  node: string;
  reasons: Map<Reason, { count: number; bytes: number }>;
  /** Deletions of which no report told in time. */
  omitted: number;
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
  let count = 0;
  /** The last deletion heard of, by node. */
  const heard = new Map<string, { bootId: string; number: number }>();
  const pending = new Map<string, Pending>();
  const toldAtMs = new Map<string, number>();
  const noted = new Map<string, string>();

  /** Writes an Event; false where it may succeed later. */
  async function write(
    { namespace, name, uid }: PolicyResource,
    event: { type: string; reason: string; message: string; count: number },
  ): Promise<boolean> {
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
    const path = `/api/v1/namespaces/${namespace}/events`;
    const answer = await client.request({ method: "POST", path, body, signal });
    if (answer.ok) return true;
    if (!signal.aborted) log.warn({ problem: answer.message }, "event not written");
    return answer.status !== undefined && answer.status < 500 && answer.status !== 429;
  }

  function enqueue({ resource, node, reasons, omitted }: Pending): void {
    const key = `${resource.uid} ${node}`;
    const entry = pending.get(key) ?? { resource, node, reasons: new Map(), omitted: 0 };
    for (const [reason, more] of reasons) {
      const sum = entry.reasons.get(reason) ?? { count: 0, bytes: 0 };
      entry.reasons.set(reason, { count: sum.count + more.count, bytes: sum.bytes + more.bytes });
    }
    entry.omitted += omitted;
    pending.set(key, entry);
  }

  return {
    deletions(resource, { bootId, node, deletions }) {
      const last = heard.get(node);
      const lastNumber = last?.bootId === bootId ? last.number : 0;
      heard.set(node, { bootId, number: Math.max(lastNumber, deletions.at(-1)?.number ?? 0) });
      if (resource === undefined) return;
      let fresh = deletions.filter(({ number }) => number > lastNumber);
      let omitted = Math.max(0, (fresh[0]?.number ?? 0) - lastNumber - 1);
      if (last === undefined) {
        // What lies before this leader's time, another has told of; what lies before the resource's, was not its doing.
        const sinceMs = Math.max(startedAtMs, Date.parse(resource.createdAt)) - DELETIONS_MS;
        fresh = fresh.filter(({ time }) => Date.parse(time) >= sinceMs);
        omitted = 0;
      }
      if (fresh.length > 0) enqueue({ resource, node, reasons: byReason(fresh), omitted });
    },
    note(resource, event) {
      const key = `${resource.uid} ${event.reason}`;
      const said = `${resource.generation} ${event.message}`;
      if (signal.aborted || !mayAct() || noted.get(key) === said) return;
      noted.set(key, said);
      void write(resource, { ...event, count: 1 }).then((isDone) => {
        if (!isDone && noted.get(key) === said) noted.delete(key);
      });
    },
    tick() {
      if (signal.aborted || !mayAct()) return;
      for (const [key, entry] of pending) {
        if (nowMs() - (toldAtMs.get(key) ?? Number.NEGATIVE_INFINITY) < DELETIONS_MS) continue;
        toldAtMs.set(key, nowMs());
        pending.delete(key);
        void write(entry.resource, { type: "Normal", reason: "ArchivesDeleted", ...describe(entry) }).then((isDone) => {
          if (!isDone) enqueue(entry);
        });
      }
    },
  };
}

function byReason(deletions: Deletion[]): Pending["reasons"] {
  const reasons: Pending["reasons"] = new Map();
  for (const { reason, bytes } of deletions) {
    const sum = reasons.get(reason) ?? { count: 0, bytes: 0 };
    reasons.set(reason, { count: sum.count + 1, bytes: sum.bytes + bytes });
  }
  return reasons;
}

function describe({ node, reasons, omitted }: Pending): { message: string; count: number } {
  const told = [...reasons].map(([reason, { count, bytes }]) => `${count} for ${reason} (${formatBytes(bytes)}B)`);
  const more = omitted > 0 ? `, and ${omitted} more that its report no longer held` : "";
  return {
    message: `node ${node}: deleted ${told.join(", ")}${more}`,
    count: [...reasons.values()].reduce((sum, { count }) => sum + count, omitted),
  };
}
