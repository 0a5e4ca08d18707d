import { POLICY_API_VERSION, POLICY_KIND } from "@cro/shared/crd/schema";
import { formatBytes } from "@cro/shared/quantity";
import type { Deletion, Report } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import type { KubeClient } from "../kube/client.ts";
import type { PolicyResource } from "../policy/ruling.ts";

/** The shortest time between two Events about deletions of one node under one resource, in milliseconds. */
const DELETIONS_MS = 60_000;

/** Tells of what happens under a resource, as Events that `kubectl describe` shows with it. */
export interface EventWriter {
  /** New deletions of a node, from its report; each deletion is told of once. */
  deletions(resource: PolicyResource, report: Report): void;
  /** Something that is told at once; the same again only when it has changed. */
  note(resource: PolicyResource, event: { type: "Normal" | "Warning"; reason: string; message: string }): void;
  /** To be called about once a second: writes what is due. */
  tick(): void;
}

export function createEventWriter(options: {
  client: KubeClient;
  nowMs: () => number;
  now: () => Date;
  signal: AbortSignal;
  mayAct: () => boolean;
  log: Pick<Logger, "warn">;
  /** Unique to this process, as Events want to know who tells. */
  identity: string;
}): EventWriter {
  const { client, nowMs, now, signal, mayAct, log, identity } = options;
  let count = 0;
  /** The last deletion told of, by start of an agent. */
  const seen = new Map<string, number>();
  const pending = new Map<string, { resource: PolicyResource; node: string; deletions: Deletion[]; omitted: number }>();
  const toldAtMs = new Map<string, number>();
  const noted = new Map<string, string>();

  function write(
    resource: PolicyResource,
    event: { type: string; reason: string; message: string; count: number },
  ): void {
    if (signal.aborted || !mayAct()) return;
    count += 1;
    const { namespace, name, uid } = resource;
    const time = now().toISOString();
    const body = {
      apiVersion: "v1",
      kind: "Event",
      metadata: { namespace, name: `${name.slice(0, 200)}.${identity.slice(-20)}.${Date.now().toString(16)}${count}` },
      involvedObject: { apiVersion: POLICY_API_VERSION, kind: POLICY_KIND, namespace, name, uid },
      source: { component: "checkpoint-restore-operator" },
      firstTimestamp: time,
      lastTimestamp: time,
      ...event,
      message: event.message.slice(0, 1024),
    };
    void client
      .request({ method: "POST", path: `/api/v1/namespaces/${namespace}/events`, body, signal })
      .then((answer) => {
        if (!answer.ok && !signal.aborted) log.warn({ problem: answer.message }, "event not written");
      });
  }

  return {
    deletions(resource, { bootId, node, deletions }) {
      const last = seen.get(bootId);
      const fresh = deletions.filter(({ number }) => number > (last ?? 0));
      const newest = fresh.at(-1)?.number;
      if (newest === undefined) return;
      seen.set(bootId, newest);
      // What this leader did not see happen may have been told of by the one before.
      if (last === undefined && deletions.every(({ time }) => Date.parse(time) < now().getTime() - DELETIONS_MS))
        return;
      const key = `${resource.uid} ${node}`;
      const entry = pending.get(key) ?? { resource, node, deletions: [], omitted: 0 };
      entry.omitted += last === undefined ? 0 : Math.max(0, (fresh[0]?.number ?? 0) - last - 1);
      entry.deletions.push(...fresh);
      pending.set(key, entry);
    },
    note(resource, event) {
      const key = `${resource.uid} ${event.reason}`;
      if (noted.get(key) === event.message) return;
      noted.set(key, event.message);
      write(resource, { ...event, count: 1 });
    },
    tick() {
      for (const [key, { resource, node, deletions, omitted }] of pending) {
        if (nowMs() - (toldAtMs.get(key) ?? Number.NEGATIVE_INFINITY) < DELETIONS_MS) continue;
        toldAtMs.set(key, nowMs());
        pending.delete(key);
        const reasons = Object.entries(Object.groupBy(deletions, ({ reason }) => reason)).map(
          ([reason, of = []]) =>
            `${of.length} for ${reason} (${formatBytes(of.reduce((sum, { bytes }) => sum + bytes, 0))}B)`,
        );
        const more = omitted > 0 ? `, and ${omitted} more that its report no longer held` : "";
        const message = `node ${node}: deleted ${reasons.join(", ")}${more}`;
        write(resource, { type: "Normal", reason: "ArchivesDeleted", message, count: deletions.length + omitted });
      }
    },
  };
}
