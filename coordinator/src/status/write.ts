import type { PolicyStatus } from "@cro/shared/crd/status";
import type { Logger } from "pino";
import type { KubeClient } from "../kube/client.ts";
import type { PolicyResource } from "../policy/ruling.ts";

/** The shortest time between two writes of one resource, and between two that only numbers call for; in milliseconds. */
const CONDITIONS_MS = 5000;
const NUMBERS_MS = 60_000;

/** Where the status of a resource is written. */
export type StatusPath = (resource: Pick<PolicyResource, "namespace" | "name">) => string;

/** Writes statuses, each only when it differs, conditions soon and numbers now and then. */
export interface StatusWriter {
  /** What was written last; the basis of the next status. */
  written(uid: string): PolicyStatus | undefined;
  /** Writes what is due of these; never overlaps with itself. */
  write(statuses: ReadonlyArray<{ resource: PolicyResource; status: PolicyStatus }>): Promise<void>;
}

export function createStatusWriter(options: {
  client: KubeClient;
  path: StatusPath;
  nowMs: () => number;
  signal: AbortSignal;
  mayAct: () => boolean;
  log: Pick<Logger, "warn">;
}): StatusWriter {
  const { client, path, nowMs, signal, mayAct, log } = options;
  const known = new Map<string, { status: PolicyStatus; atMs: number }>();
  let isWriting = false;

  return {
    written: (uid) => known.get(uid)?.status,
    async write(statuses) {
      if (isWriting) return;
      isWriting = true;
      try {
        const uids = new Set(statuses.map(({ resource }) => resource.uid));
        for (const uid of known.keys()) if (!uids.has(uid)) known.delete(uid);
        for (const { resource, status } of statuses) {
          if (signal.aborted || !mayAct()) return;
          const before = known.get(resource.uid);
          const restMs =
            before === undefined || headline(before.status) !== headline(status) ? CONDITIONS_MS : NUMBERS_MS;
          if (before !== undefined && nowMs() - before.atMs < restMs) continue;
          if (before !== undefined && JSON.stringify(before.status) === JSON.stringify(status)) continue;
          const answer = await client.request({
            method: "PATCH",
            path: `${path(resource)}/status`,
            body: { status: blankMissing(status, before?.status) },
            signal,
          });
          if (answer.ok || answer.status === 404) known.set(resource.uid, { status, atMs: nowMs() });
          else if (!signal.aborted)
            log.warn({ resource: path(resource), problem: answer.message }, "status not written");
        }
      } finally {
        isWriting = false;
      }
    },
  };
}

/** What a change of is worth telling at once. */
function headline({ conditions = [], nodes, observedGeneration, mode }: PolicyStatus): string {
  return JSON.stringify([
    conditions.map(({ type, status, reason }) => [type, status, reason]),
    nodes?.summary,
    observedGeneration,
    mode,
  ]);
}

/** A merge patch keeps what it does not name: what is no longer told must be named as null. */
function blankMissing(status: PolicyStatus, before: PolicyStatus | undefined): Record<string, unknown> {
  const gone = Object.keys(before ?? {}).filter((key) => !(key in status));
  const global = status.effectiveGlobalPolicy;
  const limits = Object.keys(before?.effectiveGlobalPolicy ?? {}).filter(
    (key) => global !== undefined && !(key in global),
  );
  return {
    ...status,
    ...Object.fromEntries(gone.map((key) => [key, null])),
    ...(global && { effectiveGlobalPolicy: { ...global, ...Object.fromEntries(limits.map((key) => [key, null])) } }),
  };
}
