/**
 * Kinds of workloads whose pods are known by their names, in the order in which they rule where a pod's name is one that two of
 * the same name could have given.
 */
export const WORKLOAD_KINDS = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"] as const;
export type WorkloadKind = (typeof WORKLOAD_KINDS)[number];

/** How many characters of a generated name come before its random ones: k8s.io/apiserver/pkg/storage/names, maxGeneratedNameLength. */
const MAX_HEAD = 58;
/** How many characters are random: the same place, randomLength. */
const SUFFIX_LENGTH = 5;
/** What those are made of: k8s.io/apimachinery/pkg/util/rand, alphanums. */
const SUFFIX = /^[bcdfghjklmnpqrstvwxz2456789]{5}$/;
/**
 * A Deployment's pod-template-hash: a number of 32 bits in decimal, each digit of which SafeEncodeString (the same package) makes
 * one of these ten. Narrower than the suffix, so that the pods of a DaemonSet `web-grpc` are not taken for a Deployment's `web`.
 */
const HASH = "[456789bcdf]{1,10}";
/** A StatefulSet's ordinal is an int32 (k8s.io/api/apps/v1: StatefulSetOrdinals), written without zeros before it. */
const ORDINAL = /^(0|[1-9][0-9]{0,9})$/;
/**
 * The index of a Job's pod. Kubernetes bounds it by 10^9 and more; ten million pods of one Job do not exist, and so no index is ever
 * taken for a CronJob's minutes.
 */
const INDEX = /-(0|[1-9][0-9]{0,6})-$/;
/** Minutes since 1970, of eight digits from 1989 to 2160: pkg/controller/cronjob, getJobName. */
const MINUTES = "[1-9][0-9]{7}";

/** From this length on, a controller may cut a workload's name in those of its pods: `-1234567-` needs nine characters of the head. */
export const LENGTH_THAT_MAY_BE_CUT = MAX_HEAD - 9 + 1;

const AFTER_MINUTES = new RegExp(`^${MINUTES}-$`);
const WHOLE_MINUTES = new RegExp(`^${MINUTES}$`);
const AFTER_HASH = new RegExp(`^${HASH}-$`);
const CUT_HASH = new RegExp(`^${HASH}$`);
const CUT_MINUTES = /^([1-9][0-9]{0,7})?$/;

/** Whether a pod's name is cut: what came before its random characters was longer than a generated name has room for. */
export function mayBeCut(pod: string): boolean {
  return pod.length === MAX_HEAD + SUFFIX_LENGTH;
}

/**
 * Whether a pod has a name that the controllers of Kubernetes give to the pods of this workload: by its name alone, for the pod
 * itself may be long gone. A pod that somebody named so by hand is taken for one of them.
 *
 * - Deployment `NAME-HASH-XXXXX`; ReplicaSet, DaemonSet and Job `NAME-XXXXX`; StatefulSet `NAME-ORDINAL`;
 * - an indexed Job `NAME-INDEX-XXXXX` (pkg/controller/job, podGenerateNameWithIndex: the name is cut, the index is not);
 * - CronJob `NAME-MINUTES-XXXXX`, with an index before the last part if its Job is indexed.
 *
 * Of generated names, what comes before XXXXX is cut to 58 characters, the dash before it included (SimpleNameGenerator).
 */
export function isPodOf({ kind, name }: { kind: WorkloadKind; name: string }, pod: string): boolean {
  const stem = `${name}-`;
  if (kind === "StatefulSet") return pod.startsWith(stem) && ORDINAL.test(pod.slice(stem.length));
  if (!SUFFIX.test(pod.slice(-SUFFIX_LENGTH))) return false;
  const head = pod.slice(0, -SUFFIX_LENGTH);
  switch (kind) {
    case "ReplicaSet":
    case "DaemonSet":
      return head === stem.slice(0, MAX_HEAD);
    case "Deployment":
      return followsStem(head, stem, { whole: AFTER_HASH, cut: CUT_HASH });
    case "Job":
      return head === stem.slice(0, MAX_HEAD) || beforeIndex(head) === name.slice(0, roomBeforeIndex(head));
    case "CronJob":
      return isOfCronJob(head, stem);
  }
}

/** Whether a head is the stem, and what must follow it, as far as there is room for both. */
function followsStem(head: string, stem: string, { whole, cut }: { whole: RegExp; cut: RegExp }): boolean {
  if (stem.length >= MAX_HEAD) return head === stem.slice(0, MAX_HEAD);
  if (!head.startsWith(stem)) return false;
  const rest = head.slice(stem.length);
  return whole.test(rest) || (head.length === MAX_HEAD && cut.test(rest));
}

function isOfCronJob(head: string, stem: string): boolean {
  if (followsStem(head, stem, { whole: AFTER_MINUTES, cut: CUT_MINUTES })) return true;
  const job = beforeIndex(head);
  if (job === undefined) return false;
  const isCut = head.length === MAX_HEAD;
  if (isCut && job.length <= stem.length) return job === stem.slice(0, job.length);
  if (!job.startsWith(stem)) return false;
  const minutes = job.slice(stem.length);
  return WHOLE_MINUTES.test(minutes) || (isCut && CUT_MINUTES.test(minutes));
}

/** The name of the Job in the head of the name of an indexed one's pod; undefined if there is no index. */
function beforeIndex(head: string): string | undefined {
  const index = INDEX.exec(head);
  return index === null ? undefined : head.slice(0, index.index);
}

function roomBeforeIndex(head: string): number {
  return MAX_HEAD - (INDEX.exec(head)?.[0].length ?? 0);
}
