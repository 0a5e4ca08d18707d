import fc from "fast-check";
import type { WorkloadKind } from "../../src/policy/workload.ts";

/** Kubernetes' random characters, and the digits of a pod-template-hash. */
const RANDOM = "bcdfghjklmnpqrstvwxz2456789";
const HASH = "456789bcdf";

/** The characters that may stand at one place of a name. */
type Place = string;

const textual = (text: string): Place[] => [...text];
const repeated = (place: Place, times: number): Place[] => Array.from({ length: times }, () => place);
const numbers = (digits: number): Place[] => ["123456789", ...repeated("0123456789", digits - 1)];
const upTo = (count: number) => Array.from({ length: count }, (_, at) => at + 1);

/** The indexes of a Job as places, with the dashes around them. */
const indexes = () => [["0"], ...upTo(7).map(numbers)].map((index) => ["-", ...index, "-"]);
const indexed = (job: Place[]) => indexes().map((index) => [...job.slice(0, 58 - index.length), ...index]);

/**
 * Every form that the names of a workload's pods may have, place by place: written out as the controllers put them together and
 * then cut, and so in another way than the code does it.
 */
function formsOf({ kind, name }: { kind: WorkloadKind; name: string }): Place[][] {
  const whole = textual(name);
  const cronJob = [...whole, "-", ...numbers(8)];
  const ends = (heads: Place[][]) => heads.map((head) => [...head.slice(0, 58), ...repeated(RANDOM, 5)]);
  switch (kind) {
    case "Deployment":
      return ends(upTo(10).map((length) => [...whole, "-", ...repeated(HASH, length), "-"]));
    case "ReplicaSet":
    case "DaemonSet":
      return ends([[...whole, "-"]]);
    case "Job":
      return ends([[...whole, "-"], ...indexed(whole)]);
    case "CronJob":
      return ends([[...cronJob, "-"], ...indexed(cronJob)]);
    case "StatefulSet":
      return [["0"], ...upTo(10).map(numbers)].map((ordinal) => [...whole, "-", ...ordinal]);
  }
}

/** Whether a pod may be called so by the controllers of a workload. */
export function isNameOfPodOf(workload: { kind: WorkloadKind; name: string }, pod: string): boolean {
  const letters = [...pod];
  return formsOf(workload).some(
    (form) => form.length === letters.length && form.every((place, at) => place.includes(letters[at] as string)),
  );
}

/** Names that the controllers may give to the pods of a workload. */
export function arbNameOfPodOf(workload: { kind: WorkloadKind; name: string }): fc.Arbitrary<string> {
  return fc
    .constantFrom(...formsOf(workload))
    .chain((form) => fc.tuple(...form.map((place) => fc.constantFrom(...place))))
    .map((letters) => letters.join(""));
}
