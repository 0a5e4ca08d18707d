import type { Policy } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import { formatQuantity } from "@cro/shared/quantity";
import type { ArchiveState, Reason } from "@cro/shared/wire/report";
import { type Archive, compareAge } from "../archive/archive.ts";
import type { Plan, PlanInput, PlannedDeletion } from "./plan.ts";
import { containerScope, scopesOf, unwalkedScopes } from "./scope.ts";

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
  const unwalked = unwalkedScopes(archives);
  const floors = floorsOf(archives, govern);

  function whyKept(archive: Archive, policy: Policy | undefined): string {
    if (archive.pinned) return "pinned by its .keep";
    if (archive.identity === undefined || policy === undefined || !isWhole(archive.state))
      return WHY_STATE[archive.state];
    const waiting = deferred.get(archive);
    if (waiting !== undefined) return `to be deleted (${waiting}) once it has been unchanged for 2 s`;
    const floor = floors.get(archive);
    if (floor !== undefined) return floor;
    const scopes = scopesOf(policy, archive.identity);
    if (scopes.some((scope) => unwalked.has(scope))) return "not every archive beside it has been read yet";
    if (!scopes.some(input.isActive)) return "waits for the next archive of its scope";
    return "within the limits";
  }

  return archives.map((archive) => {
    const policy = archive.identity && govern(archive.identity);
    const reason = deletions.get(archive) ?? null;
    return {
      archive,
      action: reason === null ? "keep" : "delete",
      reason,
      policy: describePolicy(policy),
      why: reason === null ? whyKept(archive, policy) : whyDeleted(reason, policy),
    };
  });
}

/** What an archive that no rule may take is waiting for. */
const WHY_STATE: Readonly<Record<ArchiveState, string>> = {
  unidentified: "nobody is known to own it",
  postdated: "dated in the future",
  unread: "could not be read to its end yet",
  unsettled: "may still be written",
  incomplete: "within the limits",
  complete: "within the limits",
};

function isWhole(state: ArchiveState): boolean {
  return state === "complete" || state === "incomplete";
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
    const container = containerScope(archive.identity);
    const rank = (seen.get(container) ?? 0) + 1;
    seen.set(container, rank);
    const { minCheckpoints = 0 } = govern(archive.identity);
    if (rank <= minCheckpoints)
      floors.set(archive, `newest ${rank} of ${minCheckpoints} that its container always keeps`);
  }
  return floors;
}

function describePolicy(policy: Policy | undefined): string {
  if (policy === undefined) return "none";
  if (policy.level === "global") return "global policy";
  const names = [policy.namespace, policy.pod, policy.container].filter((name) => name !== undefined);
  return `${policy.level} policy ${names.join("/")}`;
}

function whyDeleted(reason: Reason, policy: Policy | undefined): string {
  switch (reason) {
    case "orphan":
      return "its pod or container no longer exists";
    case "max_checkpoint_size":
      return `larger than ${formatQuantity(policy?.maxCheckpointBytes ?? 0)}`;
    case "max_age":
      return "too old";
    case "max_checkpoints":
      return "too many archives";
    case "max_total_size":
      return "too many bytes";
    case "node_max_total_size":
      return "too many bytes on the node";
    case "node_watermark":
      return "the disk is too full";
  }
}
