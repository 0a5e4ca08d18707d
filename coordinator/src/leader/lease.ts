import { type KubeClient, type KubeObject, type KubeResult, kubePath, malformed } from "../kube/client.ts";
import type { LeaseSeen } from "./step.ts";

/** Where the fencing term stands on the Lease. */
export const TERM_ANNOTATION = "criu.org/fencing-term";
/** Where a leader leaves for the next one who rules which node. */
export const MEMO_ANNOTATION = "criu.org/rulings";
/**
 * The term under which that was last known to be right: each leader that keeps it writes its own term here. A leader of
 * version 0.1.0 does not, so that what another left before it counts no more.
 */
export const MEMO_TERM_ANNOTATION = "criu.org/rulings-term";

/** Stands there until the first leader of a Lease leaves something: so far nothing was acted upon. */
const NO_MEMO = "none";

/** The Lease that candidates compete for. It exists already: nobody here may create one. */
export interface LeaseReference {
  namespace: string;
  name: string;
}

/** What a holder writes; undefined holder is letting go. */
export interface LeaseWrite {
  /** The Lease that the decision was made on: if it has changed since, the write is refused with a Conflict. */
  basis: LeaseSeen;
  holder: string | undefined;
  durationMs: number;
  term: number;
  /** What is left for the next leader; what was left before stays if this is undefined. */
  memo?: string | undefined;
  /** The wall clock, for readers only. */
  now: Date;
}

interface Lease extends KubeObject {
  spec?: {
    holderIdentity?: string;
    leaseDurationSeconds?: number;
    leaseTransitions?: number;
    renewTime?: string;
    acquireTime?: string;
  };
}

/** No number of elections leads to a higher term, and all that elections lead to from here are exact integers. */
const MAX_TERM = 2 ** 52;

interface CallOptions {
  timeoutMs: number;
  signal?: AbortSignal;
}

/** Reads the Lease. One whose duration makes no sense is taken to last defaultDurationMs. */
export async function readLease(
  client: KubeClient,
  reference: LeaseReference,
  options: CallOptions & { defaultDurationMs: number },
): Promise<KubeResult<LeaseSeen>> {
  const request = { path: leasePath(reference), kind: "Lease", ...options };
  return toSeen(request, { answer: await client.request<Lease>(request), ...options });
}

/** Writes the Lease, and only on the version that was read. What it holds besides, such as the chart's labels, stays. */
export async function writeLease(
  client: KubeClient,
  reference: LeaseReference,
  { write, ...options }: CallOptions & { write: LeaseWrite },
): Promise<KubeResult<LeaseSeen>> {
  const { basis, holder, durationMs, term, memo, now } = write;
  const isTakingOver = holder !== undefined && holder !== basis.holder;
  const time = now.toISOString().replace("Z", "000Z");
  const request = {
    method: "PATCH" as const,
    path: leasePath(reference),
    kind: "Lease",
    body: {
      metadata: {
        uid: basis.uid,
        resourceVersion: basis.resourceVersion,
        annotations: {
          [TERM_ANNOTATION]: String(term),
          [MEMO_TERM_ANNOTATION]: String(term),
          // With the first write goes what counts no more; that it is lost stays known.
          ...((memo !== undefined || !basis.memo) && { [MEMO_ANNOTATION]: memo ?? basis.memo ?? NO_MEMO }),
        },
      },
      spec: {
        holderIdentity: holder ?? null,
        leaseDurationSeconds: Math.ceil(durationMs / 1000),
        renewTime: time,
        ...(isTakingOver ? { acquireTime: time, leaseTransitions: transitionsOf(basis) + 1 } : {}),
      },
    },
    ...options,
  };
  return toSeen(request, { answer: await client.request<Lease>(request), defaultDurationMs: durationMs });
}

function leasePath({ namespace, name }: LeaseReference): string {
  return kubePath`/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${name}`;
}

function toSeen(
  request: { path: string },
  { answer, defaultDurationMs }: { answer: KubeResult<Lease>; defaultDurationMs: number },
): KubeResult<LeaseSeen> {
  if (!answer.ok) return answer;
  const { metadata, spec = {} } = answer.value;
  if (!metadata?.uid || !metadata.resourceVersion) return malformed(request, "the Lease has no uid or resourceVersion");
  const { annotations = {} } = metadata;
  const term = Number(annotations[TERM_ANNOTATION] ?? 0);
  const seconds = spec.leaseDurationSeconds ?? 0;
  return {
    ok: true,
    value: {
      uid: metadata.uid,
      resourceVersion: metadata.resourceVersion,
      holder: spec.holderIdentity ?? "",
      durationMs: seconds > 0 ? seconds * 1000 : defaultDurationMs,
      record: JSON.stringify(spec),
      // What is no such number was not written by a coordinator; the agents' answers bring the term back.
      term: Number.isSafeInteger(term) && term >= 0 && term <= MAX_TERM ? term : 0,
      memo: readMemo(annotations),
    },
  };
}

/** See {@link LeaseSeen.memo}. */
function readMemo(annotations: Readonly<Record<string, string>>): string | undefined {
  const { [TERM_ANNOTATION]: term, [MEMO_TERM_ANNOTATION]: memoTerm, [MEMO_ANNOTATION]: memo } = annotations;
  if (term === undefined && memoTerm === undefined && memo === undefined) return undefined;
  if (term === undefined || memoTerm !== term) return "";
  return memo === NO_MEMO ? undefined : (memo ?? "");
}

function transitionsOf({ record }: LeaseSeen): number {
  return (JSON.parse(record) as NonNullable<Lease["spec"]>).leaseTransitions ?? 0;
}
