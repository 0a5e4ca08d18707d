import { type NodePolicy, namesOfPolicy, type Policy, type ScopeLimits } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import { formatQuantity } from "@cro/shared/quantity";
import type { ArchiveState, Reason } from "@cro/shared/wire/report";
import { type Archive, compareAge, isOwnerless, isUnmanagedState } from "../archive/archive.ts";
import type { Plan, PlanInput, PlannedDeletion } from "./plan.ts";
import { blockingScope, containerScope, scopesOf, unwalkedScopes, workloadOf, workloadScope } from "./scope.ts";

/** What a plan does with one archive, for a reader. */
export interface Decision {
  archive: Archive;
  action: "keep" | "delete";
  /** Why it is deleted; null where it is kept. */
  reason: Reason | null;
  /** The policy that governs it: `container policy team-a/web/main`, `global policy`, or `none` while nobody owns it. */
  policy: string;
  /** A few words on why it is kept or deleted. */
  why: string;
}

/**
 * One decision for each archive of a plan's input, the oldest first. The archives are read again, so that `archives`
 * must be something that can be iterated twice.
 */
export function explainPlan(plan: Plan, input: PlanInput): Decision[] {
  const govern = input.govern ?? createGovernor(input.policy);
  const archives = [...input.archives].sort(compareAge);
  const deletions = byArchive(plan.deletions);
  const deferred = byArchive(plan.deferred);
  const stuck = byArchive(plan.stuck);
  const unwalked = unwalkedScopes(archives);
  const floors = floorsOf(archives, govern);

  function whyKept(archive: Archive): string {
    if (archive.pinned) return "pinned by its .keep";
    const waiting = deferred.get(archive);
    if (waiting !== undefined) return `to be deleted (${waiting}) once it has been unchanged for 2 s`;
    const failed = stuck.get(archive);
    if (failed !== undefined) {
      return `to be deleted (${failed}); the last try failed with ${input.failing?.get(archive.file) ?? "an error"}`;
    }
    const lack = WHY_STATE[archive.state];
    if (lack !== undefined) return lack + whenUnmanagedGoes(archive, input.policy.node);
    const floor = floors.get(archive);
    if (floor !== undefined) return floor;
    if (isOwnerless(archive)) return "torn and without an owner; only the rules of the node may take it";
    const scopes = archive.identity === undefined ? [] : scopesOf(govern(archive.identity), archive.identity);
    if (scopes.some((scope) => unwalked.has(blockingScope(scope))))
      return "not every archive beside it has been read yet";
    if (!scopes.some(input.isActive)) return "waits for the next archive of its scope";
    const isReleased = archive.identity !== undefined && !govern(archive.identity).retainOrphan;
    return isReleased && archive.isStaticPod
      ? "within the limits; its pod may be a static one, which is never taken for gone"
      : "within the limits";
  }

  return archives.map((archive) => {
    const policy = archive.identity && govern(archive.identity);
    const reason = deletions.get(archive) ?? null;
    return {
      archive,
      action: reason === null ? "keep" : "delete",
      reason,
      policy: describePolicy(policy),
      why: reason === null ? whyKept(archive) : whyDeleted(reason, policy),
    };
  });
}

/** What an archive lacks that no rule may take; those of the other states are known to be somebody's. */
const WHY_STATE: Readonly<Partial<Record<ArchiveState, string>>> = {
  unidentified: "nobody is known to own it",
  postdated: "dated in the future",
  unread: "could not be read to its end yet",
  unsettled: "may still be written",
};

/** When maxAgeUnmanaged takes an archive that is kept; empty if it does not. */
function whenUnmanagedGoes({ state, walked, unmanagedSinceMs }: Archive, { maxAgeUnmanagedMs }: NodePolicy): string {
  if (maxAgeUnmanagedMs === undefined || !walked || !isUnmanagedState(state)) return "";
  const when =
    unmanagedSinceMs === undefined
      ? `once the agent has seen it unchanged for ${maxAgeUnmanagedMs / 1000}s`
      : `after ${new Date(unmanagedSinceMs + maxAgeUnmanagedMs).toISOString().slice(0, 19)}Z, if nothing changes it`;
  return `; to be deleted (max_age_unmanaged) ${when}`;
}

function byArchive(planned: readonly PlannedDeletion[]): Map<Archive, Reason> {
  return new Map(planned.map(({ archive, reason }) => [archive, reason]));
}

/** For each archive under the floor, the words that say so. */
function floorsOf(
  oldestFirst: readonly Archive[],
  govern: (identity: ContainerIdentity) => Policy,
): Map<Archive, string> {
  const floors = new Map<Archive, string>();
  const seen = new Map<string, number>();
  for (const archive of oldestFirst.toReversed()) {
    if (archive.state !== "complete" || archive.identity === undefined) continue;
    const policy = govern(archive.identity);
    const { minCheckpoints = 0 } = policy;
    const isOfWorkload = policy.level === "workload";
    const floor = isOfWorkload
      ? `${workloadScope(archive.identity, workloadOf(policy))}//${archive.identity.container}`
      : containerScope(archive.identity);
    const rank = (seen.get(floor) ?? 0) + 1;
    seen.set(floor, rank);
    if (rank > minCheckpoints) continue;
    const keeper = isOfWorkload ? `the ${policy.kind} always keeps of this container` : "its container always keeps";
    floors.set(archive, `newest ${rank} of ${minCheckpoints} that ${keeper}`);
  }
  return floors;
}

/** The policy that governs an archive, in words: as {@link Decision.policy}. A workload is named by its kind, too. */
export function describePolicy(policy: Policy | undefined): string {
  if (policy === undefined) return "none";
  if (policy.level === "global") return "global policy";
  return `${policy.level} policy ${namesOfPolicy(policy)}`;
}

const WHY_REASON: Readonly<Record<Exclude<Reason, "max_checkpoint_size">, string>> = {
  orphan: "its pod or container no longer exists",
  max_age: "too old",
  max_checkpoints: "too many archives",
  max_total_size: "too many bytes",
  node_max_total_size: "too many bytes on the node",
  node_watermark: "the disk is too full",
  node_inodes: "the disk has too few inodes free",
  max_age_unmanaged: "unchanged for too long, and no other rule may take it",
};

/**
 * The limits that may ask for a deletion of this reason, as a policy resource writes them: `maxCheckpoints 3`. A global
 * policy may have several: the reason does not tell which of them it was.
 * @param policy the one that governs the archive
 */
export function describeLimit(reason: Reason, policy: Policy | undefined, node: NodePolicy): string {
  const limits: Record<Reason, Array<[name: string, value: string | number | undefined]>> = {
    orphan: [["retainOrphan", "false"]],
    max_checkpoint_size: [["maxCheckpointSize", ofBytes(policy?.maxCheckpointBytes)]],
    max_age: [["maxAge", policy?.maxAgeMs && `${policy.maxAgeMs / 1000}s`]],
    max_checkpoints: scopeLimits(policy, "maxCheckpoints", ({ maxCheckpoints }) => maxCheckpoints),
    max_total_size: scopeLimits(policy, "maxTotalSize", ({ maxTotalBytes }) => ofBytes(maxTotalBytes)),
    node_max_total_size: [["maxTotalSize", ofShare(node.maxTotalPercent) ?? ofBytes(node.maxTotalBytes)]],
    node_watermark: [
      ["highWatermarkPercent", node.watermark?.high],
      ["minFree", ofShare(node.minFreePercent) ?? ofBytes(node.minFreeBytes)],
    ],
    node_inodes: [["minFreeInodes", ofShare(node.minFreeInodesPercent) ?? node.minFreeInodes]],
    max_age_unmanaged: [["maxAgeUnmanaged", node.maxAgeUnmanagedMs && `${node.maxAgeUnmanagedMs / 1000}s`]],
  };
  const set = limits[reason].filter(([, value]) => value !== undefined);
  return set.map(([name, value]) => `${name} ${value}`).join(", ");
}

function ofShare(percent: number | undefined): string | undefined {
  return percent === undefined ? undefined : `${percent}%`;
}

function ofBytes(bytes: number | undefined): string | undefined {
  return bytes === undefined ? undefined : formatQuantity(bytes);
}

function scopeLimits(
  policy: Policy | undefined,
  name: string,
  read: (limits: ScopeLimits) => string | number | undefined,
): Array<[string, string | number | undefined]> {
  const scopes = [
    ["PerContainer", policy?.perContainer],
    ["PerPod", policy?.perPod],
    ["PerWorkload", policy?.perWorkload],
    ["PerNamespace", policy?.perNamespace],
  ] as const;
  const suffix = (scope: string) => (policy?.level === "global" ? scope : "");
  return scopes.map(([scope, limits]) => [`${name}${suffix(scope)}`, limits && read(limits)]);
}

const NODE_REASONS: ReadonlySet<Reason> = new Set([
  "max_age_unmanaged",
  "node_max_total_size",
  "node_watermark",
  "node_inodes",
]);

/** Whether a rule of the node as a whole gives this reason: then no policy of the archive's own does. */
export function isOfNode(reason: Reason): boolean {
  return NODE_REASONS.has(reason);
}

function whyDeleted(reason: Reason, policy: Policy | undefined): string {
  if (reason === "max_checkpoint_size") return `larger than ${formatQuantity(policy?.maxCheckpointBytes ?? 0)}`;
  return WHY_REASON[reason];
}
