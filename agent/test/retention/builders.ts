import { compilePolicy } from "@cro/shared/policy/compile";
import type { PolicyDocument } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Archive } from "../../src/archive/archive.ts";
import type { Plan, PlanInput, PlannedDeletion } from "../../src/retention/plan.ts";

export const NOW_MS = Date.parse("2026-11-22T12:00:00Z");
export const MIB = 1024 * 1024;

export interface ArchiveOptions extends Partial<Omit<Archive, "identity">>, Partial<ContainerIdentity> {
  /** Undefined is given as null: nobody is known to own it. */
  identity?: ContainerIdentity | null;
  /** Age in seconds at NOW_MS, in place of `timeMs`. */
  age?: number;
  /** Size and allocated bytes at once, in MiB. */
  mib?: number;
}

/** A settled, complete archive of team/web/main of 1 MiB, a minute old. */
export function anArchive(options: ArchiveOptions = {}): Archive {
  const { namespace = "team", pod = "web", container = "main", age = 60, mib = 1, identity, ...rest } = options;
  const owner = { namespace, pod, container };
  const timeMs = rest.timeMs ?? NOW_MS - age * 1000;
  return {
    file: `checkpoint-${pod}_${namespace}-${container}-${new Date(timeMs).toISOString().slice(0, 19)}Z.tar`,
    identity: identity === null ? undefined : (identity ?? owner),
    candidates: [owner],
    podUID: undefined,
    isStaticPod: false,
    timeMs,
    mtimeNs: BigInt(timeMs) * 1_000_000n,
    size: mib * MIB,
    allocated: mib * MIB,
    hasOtherNames: false,
    state: "complete",
    walked: true,
    pinned: false,
    settled: true,
    listed: 0,
    unmanagedSinceMs: undefined,
    ...rest,
  };
}

/** So many archives of one container, a minute apart, the oldest first. */
export function archivesOf(count: number, options: ArchiveOptions = {}): Archive[] {
  return Array.from({ length: count }, (_, index) => anArchive({ ...options, age: (count - index) * 60 }));
}

/** The document of a policy's `spec`; without one, no limit at all. */
export function aPolicy(spec: Record<string, unknown> = {}): PolicyDocument {
  const { globalPolicy, ...rest } = spec;
  const result = compilePolicy({
    ...rest,
    globalPolicy: { maxCheckpointsPerContainer: 0, ...(globalPolicy as Record<string, unknown> | undefined) },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.problems));
  return result.policy.document;
}

/** Everything may act, nothing is an orphan, the archives are all of the node's, its disk is unknown. */
export function anInput(archives: readonly Archive[], spec: Record<string, unknown>, rest: Partial<PlanInput> = {}) {
  const input: PlanInput = {
    archives,
    policy: aPolicy(spec),
    nowMs: NOW_MS,
    orphans: [],
    isActive: () => true,
    node: { disk: undefined },
    ...rest,
  };
  return input;
}

export function files(planned: readonly PlannedDeletion[]): string[] {
  return planned.map(({ archive }) => archive.file);
}

/** Allocated bytes of what a plan deletes for the watermark and minFree. */
export function watermarkBytes({ deletions }: Pick<Plan, "deletions">): number {
  const forDisk = deletions.filter(({ reason }) => reason === "node_watermark");
  return forDisk.reduce((sum, { archive }) => sum + archive.allocated, 0);
}

/** `reason file` of each deletion, in their order. */
export function told(plan: Pick<Plan, "deletions">): string[] {
  return plan.deletions.map(({ archive, reason }) => `${reason} ${archive.file}`);
}
