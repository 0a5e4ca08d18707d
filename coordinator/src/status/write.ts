import { isDeepStrictEqual } from "node:util";
import { POLICY_KIND } from "@cro/shared/crd/schema";
import type { PolicyStatus } from "@cro/shared/crd/status";
import type { Logger } from "pino";
import type { KubeClient, KubeObject, KubeResult } from "../kube/client.ts";
import type { PolicyResource } from "../policy/judge.ts";
import { continueStatus } from "./aggregate.ts";
import { createBudget } from "./budget.ts";

/** The shortest time between two writes of one resource, and between two that only numbers call for; in milliseconds. */
const CONDITIONS_MS = 5000;
const NUMBERS_MS = 60_000;

/** How many requests are made in a second, over all resources. */
const REQUESTS_PER_SECOND = 20;
/** What is dated later than this has not happened, in milliseconds from now. */
const CLOCK_TOLERANCE_MS = 5 * 60_000;

/** Where the status of a resource is written. */
export type StatusPath = (resource: Pick<PolicyResource, "namespace" | "name">) => string;

/** Writes statuses, each only when it differs, conditions soon and numbers now and then. */
export interface StatusWriter {
  /** What stands in the resource as far as is known; the basis of the next status. */
  written(uid: string): PolicyStatus | undefined;
  /** Writes what is due of these; never overlaps with itself. */
  write(statuses: ReadonlyArray<{ resource: PolicyResource; status: PolicyStatus }>): Promise<void>;
}

interface Known {
  status: PolicyStatus;
  /** When it was written, or last tried to be. */
  atMs: number;
}

/** RFC 6902, as far as it is needed here. */
interface PatchOperation {
  op: "test" | "add";
  path: string;
  value: unknown;
}

type StatusObject = KubeObject & { status?: PolicyStatus };

export function createStatusWriter(options: {
  client: KubeClient;
  path: StatusPath;
  nowMs: () => number;
  /** Milliseconds since 1970. */
  wallMs: () => number;
  signal: AbortSignal;
  mayAct: () => boolean;
  log: Pick<Logger, "warn">;
}): StatusWriter {
  const { client, path, nowMs, wallMs, signal, mayAct, log } = options;
  const budget = createBudget({ perSecond: REQUESTS_PER_SECOND, nowMs });
  const known = new Map<string, Known>();
  /** Resources that could not even be read, and when that was tried. */
  const triedAtMs = new Map<string, number>();
  let isWriting = false;

  /** Changes a resource's status, if it is still this one, and not another that took its name over. */
  function patch(resource: PolicyResource, changes: PatchOperation[]): Promise<KubeResult<StatusObject>> {
    budget.take();
    return client.request<StatusObject>({
      method: "PATCH",
      path: `${path(resource)}/status`,
      contentType: "application/json-patch+json",
      body: [{ op: "test", path: "/metadata/uid", value: resource.uid } satisfies PatchOperation, ...changes],
      signal,
      kind: POLICY_KIND,
    });
  }

  function complain(resource: PolicyResource, problem: string): void {
    if (!signal.aborted) log.warn({ resource: path(resource), problem }, "status not written");
  }

  /**
   * What another leader left in the resource. A patch that changes nothing reads it, and needs no right beyond that of
   * writing. Of the same version of the resource it counts as written just now: this leader's agents have yet to tell
   * what they have, and the status shall not flap meanwhile.
   */
  async function read({ resource, status }: { resource: PolicyResource; status: PolicyStatus }) {
    if (nowMs() - (triedAtMs.get(resource.uid) ?? Number.NEGATIVE_INFINITY) < CONDITIONS_MS) return undefined;
    triedAtMs.set(resource.uid, nowMs());
    const answer = await patch(resource, []);
    if (!answer.ok) {
      if (answer.status !== 404) complain(resource, answer.message);
      return undefined;
    }
    const found = withoutFuture(answer.value.status ?? {}, wallMs());
    const isOfThisVersion = found.observedGeneration === status.observedGeneration;
    const entry = { status: found, atMs: isOfThisVersion ? nowMs() : Number.NEGATIVE_INFINITY };
    known.set(resource.uid, entry);
    return entry;
  }

  return {
    written: (uid) => known.get(uid)?.status,
    async write(statuses) {
      if (isWriting) return;
      isWriting = true;
      try {
        const uids = new Set(statuses.map(({ resource }) => resource.uid));
        for (const memory of [known, triedAtMs]) {
          for (const uid of memory.keys()) if (!uids.has(uid)) memory.delete(uid);
        }
        const lastAtMs = ({ resource: { uid } }: { resource: PolicyResource }) =>
          known.get(uid)?.atMs ?? triedAtMs.get(uid) ?? Number.NEGATIVE_INFINITY;
        // Those that wait longest come first, so that none waits for ever for the others.
        for (const { resource, status: next } of statuses.toSorted((a, b) => compare(lastAtMs(a), lastAtMs(b)))) {
          if (signal.aborted || !mayAct() || budget.left() < 2) return;
          const before = known.get(resource.uid) ?? (await read({ resource, status: next }));
          if (before === undefined) continue;
          const status = continueStatus(next, before.status);
          const restMs = headline(before.status) === headline(status) ? NUMBERS_MS : CONDITIONS_MS;
          if (nowMs() - before.atMs < restMs || isDeepStrictEqual(before.status, status)) continue;
          // Reading may have taken long.
          if (signal.aborted || !mayAct()) return;
          before.atMs = nowMs();
          const answer = await patch(resource, [{ op: "add", path: "/status", value: status }]);
          if (answer.ok) known.set(resource.uid, { status, atMs: nowMs() });
          // Where there is no such resource any more the watch will tell.
          else if (answer.status !== 404) complain(resource, answer.message);
        }
      } finally {
        isWriting = false;
      }
    },
  };
}

/** A status without a time that is still to come, as a node with a wrong clock may have left there. */
function withoutFuture({ lastEnforcementTime, ...status }: PolicyStatus, nowMs: number): PolicyStatus {
  const isPast = lastEnforcementTime !== undefined && Date.parse(lastEnforcementTime) <= nowMs + CLOCK_TOLERANCE_MS;
  return isPast ? { ...status, lastEnforcementTime } : status;
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a < b ? -1 : 1;
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
