import { isDeepStrictEqual } from "node:util";
import { POLICY_KIND } from "@cro/shared/crd/schema";
import type { PolicyStatus } from "@cro/shared/crd/status";
import type { Logger } from "pino";
import { createBudget } from "../budget.ts";
import type { KubeClient, KubeObject, KubeResult } from "../kube/client.ts";
import type { PolicyResource } from "../policy/judge.ts";
import { continueStatus } from "./aggregate.ts";

/**
 * The shortest time between two writes of one resource, in milliseconds. An agent is asked within 8 s whether anything has
 * changed; what it tells is in the status 10 s after it was so, even if that was written just before.
 */
const REST_MS = 2000;
/**
 * How long nothing is written after a write that failed, and after a new leader read what the one before had written, in
 * milliseconds: its agents have yet to answer, and the status shall not flap meanwhile.
 */
const RETRY_MS = 5000;
/** If nothing else changes, the time of the last report is written when it is so much later, in milliseconds. */
const RENEW_MS = 110_000;

/** How many requests are made in a second, over all resources. */
const REQUESTS_PER_SECOND = 20;
/** How long statuses are made at a time, in milliseconds. */
const MAKE_MS = 20;
/** What is dated later than this has not happened, in milliseconds from now. */
const CLOCK_TOLERANCE_MS = 5 * 60_000;

/** Where the status of a resource is written. */
export type StatusPath = (resource: Pick<PolicyResource, "namespace" | "name">) => string;

/** Writes statuses, each only when it differs, and now and then to show that it is still looked after. */
export interface StatusWriter {
  /**
   * Writes what is due of these; never overlaps with itself. Statuses are made one after the other, each when it may be
   * written, and only so many at once that other work is not kept waiting; the others have their turn the next time.
   *
   * @param versionOf while it is the same, so is the status but for the time of the last report, and it is not made again
   * before that is to be written; undefined if nothing is known of that
   */
  write<T extends { resource: PolicyResource }>(
    all: readonly T[],
    makeStatus: (one: T) => PolicyStatus,
    versionOf?: (one: T) => number | undefined,
  ): Promise<void>;
}

interface Known {
  status: PolicyStatus;
  /** When it may be written next. */
  nextMs: number;
  /** The version of what it was made of; undefined if it must be made to be compared. */
  version?: number | undefined;
  /** When the time of the last report may be due to be written, although the version is the same. */
  renewMs?: number;
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
  /** When a resource last had its turn. */
  const turnAtMs = new Map<string, number>();
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
   * writing. Of the same version of the resource it rests: this leader's agents have yet to tell what they have.
   */
  async function read(resource: PolicyResource): Promise<Known | undefined> {
    if (nowMs() - (triedAtMs.get(resource.uid) ?? Number.NEGATIVE_INFINITY) < RETRY_MS) return undefined;
    triedAtMs.set(resource.uid, nowMs());
    const answer = await patch(resource, []);
    if (!answer.ok) {
      if (answer.status !== 404) complain(resource, answer.message);
      return undefined;
    }
    const found = withoutFuture(answer.value.status ?? {}, wallMs());
    const isOfThisVersion = found.observedGeneration === resource.generation;
    const entry = { status: found, nextMs: isOfThisVersion ? nowMs() + RETRY_MS : Number.NEGATIVE_INFINITY };
    known.set(resource.uid, entry);
    return entry;
  }

  /** When a status that is as it was written may be due because of the time of its last report alone. */
  function renewalMs({ lastReportTime: written }: PolicyStatus): number {
    if (written === undefined) return Number.POSITIVE_INFINITY;
    // If no agent is heard of, the time stays too old without being due.
    return nowMs() + Math.max(RETRY_MS, Date.parse(written) + RENEW_MS - wallMs());
  }

  return {
    async write(all, makeStatus, versionOf = () => undefined) {
      if (isWriting) return;
      isWriting = true;
      try {
        const uids = new Set(all.map(({ resource }) => resource.uid));
        for (const memory of [known, triedAtMs, turnAtMs]) {
          for (const uid of memory.keys()) if (!uids.has(uid)) memory.delete(uid);
        }
        const lastTurnMs = ({ resource: { uid } }: { resource: PolicyResource }) =>
          turnAtMs.get(uid) ?? Number.NEGATIVE_INFINITY;
        let madeMs = 0;
        // Those that wait longest come first, so that none waits for ever for the others.
        for (const one of all.toSorted((a, b) => compare(lastTurnMs(a), lastTurnMs(b)))) {
          if (signal.aborted || !mayAct() || budget.left() < 2 || madeMs >= MAKE_MS) return;
          const { resource } = one;
          const before = known.get(resource.uid) ?? (await read(resource));
          // The turn of one that may not be written yet is not over.
          if (before === undefined || nowMs() < before.nextMs) continue;
          const version = versionOf(one);
          const isSame = version !== undefined && version === before.version;
          if (isSame && nowMs() < (before.renewMs ?? 0)) continue;
          const startMs = nowMs();
          turnAtMs.set(resource.uid, startMs);
          const status = continueStatus(makeStatus(one), before.status);
          const isDue =
            !isDeepStrictEqual(withoutReportTime(before.status), withoutReportTime(status)) ||
            isOld(before.status, status);
          madeMs += nowMs() - startMs;
          if (!isDue) {
            Object.assign(before, { version, renewMs: renewalMs(before.status) });
            continue;
          }
          // Reading may have taken long.
          if (signal.aborted || !mayAct()) return;
          before.nextMs = nowMs() + RETRY_MS;
          const answer = await patch(resource, [{ op: "add", path: "/status", value: status }]);
          if (answer.ok) {
            known.set(resource.uid, { status, nextMs: nowMs() + REST_MS, version, renewMs: renewalMs(status) });
          }
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

function withoutReportTime({ lastReportTime: _, ...status }: PolicyStatus): PolicyStatus {
  return status;
}

/** Whether a status would soon be taken for one that nobody looks after. */
function isOld({ lastReportTime: written }: PolicyStatus, { lastReportTime: now }: PolicyStatus): boolean {
  if (now === undefined) return false;
  return written === undefined || Date.parse(now) - Date.parse(written) >= RENEW_MS;
}
