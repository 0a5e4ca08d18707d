import { getOrMake } from "@cro/shared/get-or-make";
import type { NodePolicy, Policy, PolicyDocument, ScopeLimits } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import type { PinnedLimit, Reason, UnreachableLimit } from "@cro/shared/wire/report";
import TinyQueue from "tinyqueue";
import {
  type Archive,
  compareAge,
  countsInBytes,
  isDeletable,
  isOldUnmanaged,
  isOwnerless,
  type OwnedArchive,
} from "../archive/archive.ts";
import {
  blockingScope,
  containerScope,
  isContainerAsked,
  namespaceScope,
  podScope,
  unwalkedScopes,
  workloadOf,
  workloadScope,
} from "./scope.ts";

/** Proof that a pod, or one container of a pod that lives on, no longer exists, or that a pod's name is another one's now. */
export interface OrphanCover {
  namespace: string;
  pod: string;
  /** Absent where the whole pod is gone. */
  container?: string;
  /** Given where another pod has the name: only archives of the pod of this UID are covered, if the policy goes by UIDs. */
  uid?: string | undefined;
  /** Only archives whose {@link Archive.listed} is at most this are covered. */
  listedUpTo: number;
}

/** All that a plan rests on. */
export interface PlanInput {
  /** Read once, in any order, over several steps. */
  archives: Iterable<Archive>;
  policy: PolicyDocument;
  /** The lookup that `createGovernor(policy)` yields, where the caller has it already. */
  govern?: ((identity: ContainerIdentity) => Policy) | undefined;
  /** A time that can be trusted, in milliseconds since 1970; undefined if there is none: then no archive is too old. */
  nowMs: number | undefined;
  orphans: readonly OrphanCover[];
  /** Whether rules may act on a scope now, by its key. Rules of the node as a whole do not ask. */
  isActive: (scope: string) => boolean;
  /**
   * Files that cannot be deleted just now, because deleting them failed. Rules about scopes wait for them: nothing goes in
   * their stead. Rules of the node do not take them and count them as still there, so that others go for the disk's sake.
   */
  stuck?: ReadonlySet<string> | undefined;
  /**
   * The error codes of files whose last deletion failed, by file: those of `stuck`, and those that are tried again now. Only
   * what is told of limits rests on them.
   */
  failing?: ReadonlyMap<string, string> | undefined;
  /** Undefined where `archives` are not all of the node's: then no rule of the node acts. */
  node:
    | {
        disk: DiskUsage | undefined;
        /** What may go for free space, in allocated bytes. */
        passLimitBytes?: number;
        /** How many archives may go for free inodes. */
        passLimitInodes?: number;
        /** Bytes that the node, and each namespace, holds beside `archives`; no rule of the node takes any of it. */
        beyond?: { bytes: number; bytesOf: (namespace: string) => number };
      }
    | undefined;
  /**
   * What a scope holds beside `archives`, by its key: it counts, and no rule takes any of it. Undefined where `archives` are
   * all of a scope.
   */
  beyond?: ((scope: string) => Beyond | undefined) | undefined;
}

/** What a scope holds that a plan need not know, as its limits count it. */
export interface Beyond {
  archives: number;
  bytes: number;
}

/** Of the file system that holds the archives; unknown usage deletes nothing. */
export interface DiskUsage {
  usedBytes: number;
  /** What can still be written without privileges; used and available together are the whole. */
  availableBytes: number;
  /** How many files it may hold, and how many more. Absent where the file system does not count them, as btrfs. */
  inodes?: { total: number; free: number };
}

export interface PlannedDeletion {
  archive: Archive;
  reason: Reason;
}

export interface Plan {
  /** In the order in which they are to be carried out. */
  deletions: PlannedDeletion[];
  /** What would be deleted, had it been unchanged for long enough. Nothing goes in its stead; plan again once it has. */
  deferred: PlannedDeletion[];
  /** What would be deleted, could it be: files of {@link PlanInput.stuck}. Nothing goes in their stead but for the node. */
  stuck: PlannedDeletion[];
  /** Limits that do not hold even when all of the plan is carried out, or would not if deletions fail again as they did. */
  unreachable: UnreachableLimit[];
  /** Limits on numbers that pinned archives use up, whether or not rules may act there now. */
  pinnedLimits: PinnedLimit[];
  /** Whether rules would act on scopes on which they may not act before their next event. */
  waits: boolean;
}

/**
 * Decides which archives go, and why. Rules act in a fixed order, each on what earlier ones left, and each takes no more
 * than its limit asks for: orphans, too large ones, too old ones, counts and then total sizes by container, pod, workload
 * and namespace, the node's total size, the node's free space. Within a rule incomplete archives go first, then the oldest.
 * What is pinned is never in a plan. What is neither complete nor incomplete is taken by maxAgeUnmanaged alone, before all
 * other rules of the node. What is incomplete and has no owner is taken by rules of the node alone. Apart from orphans, each
 * container keeps as many newest complete archives as its policy's floor says; under a workload policy that is for containers
 * of one name together, in all pods of the workload.
 *
 * Pure; the same archives in another order give the same plan. Costs O(n log n).
 */
export function planRetention(input: PlanInput): Plan {
  const steps = planInSteps(input);
  let step = steps.next();
  while (!step.done) step = steps.next();
  return step.value;
}

/**
 * The same, in steps of some milliseconds, between two of which the caller may let everything else have its turn. The
 * plan is worth nothing if an archive that counts was changed, pinned or taken away after it was read and before the last
 * step.
 */
export function* planInSteps(input: PlanInput): Generator<void, Plan> {
  const survey = yield* surveyArchives(input);
  const draft: Draft = { deletions: [], deferred: [], stuck: [], unreachable: [], pinnedLimits: [] };
  takeOrphans(survey, draft);
  yield;
  // Whether there is a limit is asked first: to read size or time of each archive, somewhere in memory, costs more.
  takeViolating(survey, draft, {
    reason: "max_checkpoint_size",
    violates: (archive, { maxCheckpointBytes }) =>
      maxCheckpointBytes !== undefined && archive.size > maxCheckpointBytes,
  });
  yield;
  const { nowMs } = input;
  if (nowMs !== undefined) {
    takeViolating(survey, draft, {
      reason: "max_age",
      violates: (archive, { maxAgeMs }) => maxAgeMs !== undefined && nowMs - archive.timeMs > maxAgeMs,
    });
  }
  yield;
  for (const scope of survey.scopes) enforceCount(scope, survey.mayActOn, draft);
  yield;
  for (const scope of survey.scopes) enforceTotalSize(scope, survey.mayActOn, draft);
  yield;
  enforceNode(input, survey, draft);
  return { ...draft, waits: survey.waits() };
}

type Draft = Pick<Plan, "deletions" | "deferred" | "stuck" | "unreachable" | "pinnedLimits">;

/** An archive that counts, and what became of it so far. */
interface Entry<C = Container | undefined> {
  archive: Archive;
  /** Whose it is; undefined if it has no owner: then only rules of the node know it. */
  container: C;
  isComplete: boolean;
  isIncomplete: boolean;
  /** Whether any rule at all may take it. */
  isDeletable: boolean;
  /** Whether deleting it fails just now. */
  isStuck: boolean;
  /** The error code with which its last deletion failed; undefined if none did. */
  failure: string | undefined;
  /** Whether only orphan deletion may take it. */
  isKept: boolean;
  isTaken: boolean;
}

type OwnedEntry = Entry<Container>;

interface Container extends Floor {
  policy: Policy;
  namespace: string;
  /** The scope on which rules about single archives act. */
  own: Scope;
  /** Those of its scopes that have limits. */
  limited: Scope[];
  /** Archives listed up to here are proved to be orphans that the policy does not retain. */
  orphanedUpTo: number;
  /** The same for archives of a pod of that name by its UID; undefined if nothing is proved of any. */
  orphanedByUid: ReadonlyMap<string, number> | undefined;
  /** What its policy's floor is counted by: it itself, or what it shares with others of a workload. */
  floor: Floor;
}

interface Floor {
  /** How many newest complete archives are kept so far. */
  kept: number;
}

interface Scope {
  width: typeof CONTAINER | typeof POD | typeof WORKLOAD | typeof NAMESPACE;
  /** Of one of its archives: names the scope as far as its width goes. */
  identity: ContainerIdentity;
  /** The workload that it is the scope of, as {@link workloadOf} names it; empty for other widths. */
  workload: string;
  limits: ScopeLimits | undefined;
  /** In the order in which they go; only gathered where there are limits. */
  entries: Entry[];
  /** What else counts in it. */
  beyond: Beyond;
  /** Whether rules may act on it; undefined as long as none has asked. */
  acts: boolean | undefined;
}

interface Survey {
  /** Every archive that counts in its scopes, in the order in which they go. */
  entries: OwnedEntry[];
  /** Those that have no owner. */
  ownerless: Archive[];
  /** Those that nobody can use or own, and that have been unchanged for too long. */
  unmanaged: Archive[];
  /** How many archives take up disk space and may still be written. */
  unsettled: number;
  /** Those with limits: containers, then pods, then workloads, then namespaces. */
  scopes: Scope[];
  /** Whether rules may act on a scope: every archive that may lie in it was walked, and it is active. */
  mayActOn: (scope: Scope) => boolean;
  /** Whether that was refused of a scope for want of an event alone. */
  waits: () => boolean;
  isNodeBlocked: boolean;
}

const CONTAINER = 0;
const POD = 1;
const WORKLOAD = 2;
const NAMESPACE = 3;

const NOTHING_LISTED = -1;
const NOTHING: Beyond = { archives: 0, bytes: 0 };

/** How many archives are surveyed in one step: some milliseconds of work. */
const ENTRIES_A_STEP = 2048;

function* surveyArchives(input: PlanInput): Generator<void, Survey> {
  const incomplete: OwnedArchive[] = [];
  const others: OwnedArchive[] = [];
  const ownerless: Archive[] = [];
  const unmanaged: Archive[] = [];
  const unwalked: Archive[] = [];
  let unsettled = 0;
  let read = 0;
  for (const archive of input.archives) {
    read += 1;
    if (read % ENTRIES_A_STEP === 0) yield;
    if (!archive.walked) unwalked.push(archive);
    if (countsInBytes(archive)) (archive.state === "incomplete" ? incomplete : others).push(archive);
    else if (isOwnerless(archive)) ownerless.push(archive);
    else if (isOldUnmanaged(archive, input.policy.node, input.nowMs)) unmanaged.push(archive);
    else if (archive.state === "unsettled" && !archive.pinned && archive.allocated > 0) unsettled += 1;
  }
  yield;
  const containerOf = createContainerLookup(input);
  // In the order in which they go: incomplete ones first, then the oldest.
  const inOrder = incomplete.sort(compareAge).concat(yield* sortByAge(others));
  const entries: OwnedEntry[] = [];
  const scopes: [Scope[], Scope[], Scope[], Scope[]] = [[], [], [], []];
  for (const archive of inOrder) {
    if (entries.length % ENTRIES_A_STEP === 0) yield;
    const entry = toEntry(archive, containerOf(archive.identity), input);
    entries.push(entry);
    for (const scope of entry.container.limited) {
      // Only now, for the order of scopes must follow from the archives and not from the order in which they came.
      if (scope.entries.length === 0) scopes[scope.width].push(scope);
      scope.entries.push(entry);
    }
  }
  yield;
  keepNewest(entries, { floorOf: ({ floor }) => floor, countFor: ({ policy }) => policy.minCheckpoints ?? 0 });
  // Most plans have nothing to do, and none of these to ask.
  let blockedKeys: ReadonlySet<string> | undefined;
  let waits = false;
  return {
    entries,
    ownerless,
    unmanaged: unmanaged.sort(compareAge),
    unsettled,
    scopes: scopes.flat(),
    mayActOn(scope) {
      if (scope.acts === undefined) {
        const key = keyOf(scope);
        blockedKeys ??= unwalkedScopes(unwalked);
        const isWalked = !blockedKeys.has(blockingScope(key));
        scope.acts = isWalked && input.isActive(key);
        waits ||= isWalked && !scope.acts;
      }
      return scope.acts;
    },
    waits: () => waits,
    isNodeBlocked: unwalked.length > 0,
  };
}

/** What failed in a way that nobody named. */
const UNKNOWN_FAILURE = "UNKNOWN";

function toEntry<C>(
  archive: Archive,
  container: C,
  { stuck, failing }: Pick<PlanInput, "stuck" | "failing">,
): Entry<C> {
  const isStuck = stuck?.has(archive.file) ?? false;
  return {
    archive,
    container,
    isComplete: archive.state === "complete",
    isIncomplete: archive.state === "incomplete",
    isDeletable: isDeletable(archive),
    isStuck,
    failure: failing?.get(archive.file) ?? (isStuck ? UNKNOWN_FAILURE : undefined),
    isKept: false,
    isTaken: false,
  };
}

/**
 * The oldest first: by numbers of second and place, for to compare archives, somewhere in memory, is what a sort would
 * spend its time on. Only those of the same second are compared themselves.
 */
export function* sortByAge<A extends Archive>(archives: A[]): Generator<void, A[]> {
  const count = archives.length;
  const keys = new Float64Array(count);
  archives.forEach(({ timeMs }, place) => {
    keys[place] = Math.floor(timeMs / 1000) * count + place;
  });
  yield;
  keys.sort();
  yield;
  const keyAt = (rank: number) => keys[rank] as number;
  // Beyond, numbers are not exact; the first and the last are the largest either way.
  if (!Number.isSafeInteger(Math.max(Math.abs(keyAt(0)), Math.abs(keyAt(count - 1))))) return archives.sort(compareAge);

  const secondAt = (rank: number) => Math.floor(keyAt(rank) / count);
  const sorted: A[] = [];
  for (let rank = 0; rank < count; rank += 1) {
    sorted.push(archives[keyAt(rank) - secondAt(rank) * count] as A);
  }
  yield;
  for (let start = 0, end = 1; start < count; start = end, end += 1) {
    while (secondAt(end) === secondAt(start)) end += 1;
    if (end - start === 1) continue;
    const tied = sorted.slice(start, end).sort(compareAge);
    for (const [at, archive] of tied.entries()) sorted[start + at] = archive;
  }
  return sorted;
}

function keyOf({ width, identity, workload }: Scope): string {
  switch (width) {
    case CONTAINER:
      return containerScope(identity);
    case POD:
      return podScope(identity);
    case WORKLOAD:
      return workloadScope(identity, workload);
    case NAMESPACE:
      return namespaceScope(identity);
  }
}

function namesOf({
  width,
  identity,
  workload,
}: Scope): Pick<UnreachableLimit, "namespace" | "pod" | "container" | "workload"> {
  const { namespace, pod, container } = identity;
  switch (width) {
    case CONTAINER:
      return { namespace, pod, container };
    case POD:
      return { namespace, pod };
    case WORKLOAD:
      return { namespace, workload };
    case NAMESPACE:
      return { namespace };
  }
}

/** A namespace or a pod of the lookup: its scope, where its archives count in one, and what it is made of. */
interface Branch<T> {
  scope: Scope | undefined;
  children: Map<string, T>;
}

/**
 * Yields the lookup of containers, each of which is governed only once. It goes name by name, for joining the names of
 * every archive would cost more than all the rest of the survey.
 */
function createContainerLookup(input: PlanInput): (identity: ContainerIdentity) => Container {
  const governorOf = input.govern ?? createGovernor(input.policy);
  const orphans = createOrphanLookup(input);
  const namespaces = new Map<string, Branch<Branch<Container>>>();
  const workloads = new Map<string, { scope: Scope; floors: Map<string, Floor> }>();
  // Archives of one container mostly share what names it, which is found with one look and not with three.
  const known = new Map<ContainerIdentity, Container>();

  function open(
    width: Scope["width"],
    identity: ContainerIdentity,
    { limits, workload = "" }: { limits: ScopeLimits | undefined; workload?: string },
  ): Scope {
    const scope: Scope = { width, identity, workload, limits, entries: [], beyond: NOTHING, acts: undefined };
    if (input.beyond !== undefined) scope.beyond = input.beyond(keyOf(scope)) ?? NOTHING;
    return scope;
  }

  function findOrOpenWorkload(identity: ContainerIdentity, governing: Policy) {
    const workload = workloadOf(governing);
    return getOrMake(workloads, workloadScope(identity, workload), () => ({
      scope: open(WORKLOAD, identity, { limits: governing.perWorkload, workload }),
      floors: new Map(),
    }));
  }

  function findOrOpen(identity: ContainerIdentity): Container {
    let namespace = namespaces.get(identity.namespace);
    if (namespace === undefined) {
      namespace = { scope: undefined, children: new Map() };
      namespaces.set(identity.namespace, namespace);
    }
    let pod = namespace.children.get(identity.pod);
    if (pod === undefined) {
      pod = { scope: undefined, children: new Map() };
      namespace.children.set(identity.pod, pod);
    }
    const found = pod.children.get(identity.container);
    if (found !== undefined) return found;

    const governing = governorOf(identity);
    const { level, perContainer, perPod, perNamespace } = governing;
    const isGlobal = level === "global";
    const scopes: Scope[] = []; // the policy's own comes first; the global one's wider ones matter for their limits
    if (level === "container" || isGlobal) scopes.push(open(CONTAINER, identity, { limits: perContainer }));
    if (level === "pod" || isGlobal) {
      pod.scope ??= open(POD, identity, { limits: perPod });
      scopes.push(pod.scope);
    }
    let floor: Floor | undefined;
    if (level === "workload") {
      const { scope, floors } = findOrOpenWorkload(identity, governing);
      scopes.push(scope);
      floor = getOrMake(floors, identity.container, () => ({ kept: 0 }));
    }
    if (level === "namespace" || isGlobal) {
      namespace.scope ??= open(NAMESPACE, identity, { limits: perNamespace });
      scopes.push(namespace.scope);
    }
    const itself: Floor = { kept: 0 };
    const container: Container = Object.assign(itself, {
      policy: governing,
      namespace: identity.namespace,
      own: scopes[0] as Scope,
      limited: scopes.filter(({ limits }) => limits !== undefined),
      orphanedUpTo: governing.retainOrphan ? NOTHING_LISTED : orphans.upTo(identity, governing),
      orphanedByUid: governing.retainOrphan ? undefined : orphans.byUid(identity),
      floor: floor ?? itself,
    });
    pod.children.set(identity.container, container);
    return container;
  }

  return (identity) => getOrMake(known, identity, () => findOrOpen(identity));
}

/** Yields up to which number a container's archives are proved to be orphans, all of them or those of a pod by its UID. */
function createOrphanLookup({ orphans, policy }: Pick<PlanInput, "orphans" | "policy">) {
  const upTo = new Map<string, number>();
  const byUid = new Map<string, Map<string, number>>();
  for (const { namespace, pod, container, uid, listedUpTo } of orphans) {
    if (uid !== undefined) {
      if (policy.orphanMatch !== "UID") continue;
      const uids = getOrMake(byUid, podScope({ namespace, pod }), () => new Map());
      uids.set(uid, Math.max(listedUpTo, uids.get(uid) ?? NOTHING_LISTED));
      continue;
    }
    const key = container === undefined ? podScope({ namespace, pod }) : containerScope({ namespace, pod, container });
    upTo.set(key, Math.max(listedUpTo, upTo.get(key) ?? NOTHING_LISTED));
  }
  return {
    upTo(identity: ContainerIdentity, { level }: Policy): number {
      if (upTo.size === 0) return NOTHING_LISTED;
      const byPod = upTo.get(podScope(identity)) ?? NOTHING_LISTED;
      if (!isContainerAsked(level)) return byPod;
      return Math.max(byPod, upTo.get(containerScope(identity)) ?? NOTHING_LISTED);
    },
    byUid: (identity: ContainerIdentity) => (byUid.size === 0 ? undefined : byUid.get(podScope(identity))),
  };
}

/** Keeps so many newest complete archives by each floor, of those that are still there. */
function keepNewest(
  entries: readonly OwnedEntry[],
  { floorOf, countFor }: { floorOf: (container: Container) => Floor; countFor: (container: Container) => number },
): void {
  for (const { container } of entries) floorOf(container).kept = 0;
  for (let index = entries.length - 1; index >= 0; index -= 1) {
    const entry = entries[index] as OwnedEntry;
    const floor = floorOf(entry.container);
    if (!entry.isComplete || entry.isTaken || floor.kept >= countFor(entry.container)) continue;
    floor.kept += 1;
    entry.isKept = true;
  }
}

function mayGo(entry: Entry): boolean {
  return entry.isDeletable && !entry.isTaken && !entry.isKept;
}

function take(entry: Entry, reason: Reason, draft: Draft): void {
  const { archive } = entry;
  entry.isTaken = true;
  const into = entry.isStuck ? draft.stuck : archive.settled ? draft.deletions : draft.deferred;
  into.push({ archive, reason });
}

function takeOrphans({ entries, mayActOn }: Survey, draft: Draft): void {
  for (const entry of entries) {
    const { own, orphanedUpTo, orphanedByUid } = entry.container;
    if (orphanedUpTo === NOTHING_LISTED && orphanedByUid === undefined) continue;
    const { listed, isStaticPod, podUID } = entry.archive;
    const upToOfPod = podUID === undefined ? undefined : orphanedByUid?.get(podUID);
    const upTo = Math.max(orphanedUpTo, upToOfPod ?? NOTHING_LISTED);
    // Not mayGo: the floor does not hold for what nobody can restore any more.
    if (entry.isDeletable && !isStaticPod && listed <= upTo && mayActOn(own)) take(entry, "orphan", draft);
  }
}

/** Takes every archive that violates a limit by itself. */
function takeViolating(
  { entries, mayActOn }: Survey,
  draft: Draft,
  { reason, violates }: { reason: Reason; violates: (archive: Archive, policy: Policy) => boolean },
): void {
  const violated = new Map<Scope, OwnedEntry[]>();
  for (const entry of entries) {
    const { container } = entry;
    if (entry.isTaken || !violates(entry.archive, container.policy) || !mayActOn(container.own)) continue;
    getOrMake(violated, container.own, () => []).push(entry);
    if (mayGo(entry)) take(entry, reason, draft);
  }
  for (const [scope, wanted] of violated) {
    const freed = wanted.filter(({ isTaken, failure }) => isTaken && failure === undefined).length;
    if (freed === wanted.length) continue;
    const amounts = { wanted: wanted.length, freed, unit: "archives" } as const;
    draft.unreachable.push({ limit: reason, ...namesOf(scope), ...amounts, ...obstaclesOf(wanted) });
  }
}

function enforceCount(scope: Scope, mayActOn: Survey["mayActOn"], draft: Draft): void {
  const limit = scope.limits?.maxCheckpoints;
  if (limit === undefined || scope.entries.length + scope.beyond.archives < limit) return;
  notePins(scope, limit, draft);
  const over = sumOfLeft(scope.entries, inNumbers) + scope.beyond.archives - limit;
  if (over <= 0 || !mayActOn(scope)) return;
  const excess = createExcess(over, { reason: "max_checkpoints", amountOf: inNumbers, draft });
  excess.takeFrom(scope.entries);
  excess.report(scope.entries, { ...namesOf(scope), unit: "archives" });
}

/** Tells that pinned archives alone are as many as the limit allows: each new one goes as soon as it is there. */
function notePins(scope: Scope, maxCheckpoints: number, draft: Draft): void {
  let pinned = 0;
  for (const { archive, isComplete } of scope.entries) if (archive.pinned && isComplete) pinned += 1;
  const names = namesOf(scope) as Pick<PinnedLimit, "namespace" | "pod" | "container" | "workload">;
  if (pinned >= maxCheckpoints) draft.pinnedLimits.push({ ...names, maxCheckpoints, pinned });
}

function enforceTotalSize(scope: Scope, mayActOn: Survey["mayActOn"], draft: Draft): void {
  const limit = scope.limits?.maxTotalBytes;
  if (limit === undefined) return;
  const over = sumOfLeft(scope.entries, sizeOf) + scope.beyond.bytes - limit;
  if (over <= 0 || !mayActOn(scope)) return;
  const excess = createExcess(over, { reason: "max_total_size", amountOf: sizeOf, draft });
  excess.takeFrom(scope.entries, ({ archive }) => archive.size > limit);
  excess.takeFrom(scope.entries);
  excess.report(scope.entries, { ...namesOf(scope), unit: "bytes" });
}

function hasNodeRules({ policy, node }: PlanInput): boolean {
  return node !== undefined && Object.keys(policy.node).length > 0;
}

/** Enforces the limits of the node as a whole. */
function enforceNode(input: PlanInput, survey: Survey, draft: Draft): void {
  if (survey.isNodeBlocked || !hasNodeRules(input)) return;
  for (const archive of survey.unmanaged) take(toEntry(archive, undefined, input), "max_age_unmanaged", draft);
  const owned = survey.entries;
  // First: what an earlier rule wants gone, and cannot have, is not what its container will have left.
  keepNewest(owned, { floorOf: (container) => container, countFor: () => 1 });
  const entries = withOwnerless(survey, input);
  for (const entry of entries) {
    if (!entry.isStuck) continue;
    entry.isTaken = false;
    entry.isDeletable = false;
  }
  const limit = input.policy.node.maxTotalBytes;
  if (limit !== undefined) {
    // No complete archive goes for the bytes of incomplete ones, even if those cannot be deleted.
    const tornBytes = sumOfLeft(entries, (entry) => (entry.isStuck && entry.isIncomplete ? sizeOf(entry) : 0));
    const { bytes, bytesOf } = input.node?.beyond ?? { bytes: 0, bytesOf: undefined };
    const over = sumOfLeft(entries, sizeOf) + bytes - limit;
    const excess = createExcess(over, {
      reason: "node_max_total_size",
      amountOf: sizeOf,
      draft,
      toleratedAmount: tornBytes,
    });
    excess.takeFrom(entries, ({ archive }) => archive.size > limit);
    excess.takeFrom(entries, isIncomplete);
    excess.takeFromLargest(owned, bytesOf);
    excess.report(entries, { unit: "bytes" });
  }
  if (input.node?.disk === undefined) return;
  const { disk, passLimitBytes, passLimitInodes } = input.node;
  const free = (
    wanted: number,
    passLimit: number | undefined,
    { gives, ...how }: Limited & { gives: (entry: Entry) => boolean },
  ) => {
    const over = Math.min(wanted, passLimit ?? Number.POSITIVE_INFINITY);
    if (over <= 0) return;
    const excess = createExcess(over, { ...how, draft });
    const giving = entries.filter(gives);
    excess.takeFrom(giving, isIncomplete);
    excess.takeFromLargest(owned.filter(gives));
    excess.report(giving, { unit: how.unit, unsettled: survey.unsettled });
  };
  // What is deferred goes as soon as it has settled: another archive must not go for its space meanwhile.
  const freedBytes = sumAllocated(draft.deletions) + sumAllocated(draft.deferred);
  free(bytesToFree(input.policy.node, disk, { freedBytes }), passLimitBytes, {
    ...{ reason: "node_watermark", amountOf: allocatedOf, unit: "bytes", gives: () => true },
  });
  // At most so many: a file that has other names gives its inode back with the last of them.
  const freed = draft.deletions.length + draft.deferred.length;
  free(inodesToFree(input.policy.node, disk, { freed }), passLimitInodes, {
    ...{ reason: "node_inodes", amountOf: inInodes, unit: "archives", gives: isOnlyName },
  });
}

/** All that the node counts, in the order in which it goes: those without an owner go among the other incomplete ones. */
function withOwnerless({ entries, ownerless }: Survey, input: PlanInput): readonly Entry[] {
  if (ownerless.length === 0) return entries;
  const incomplete: Entry[] = entries.filter(isIncomplete);
  for (const archive of ownerless) incomplete.push(toEntry(archive, undefined, input));
  incomplete.sort((a, b) => compareAge(a.archive, b.archive));
  return incomplete.concat(entries.filter((entry) => !isIncomplete(entry)));
}

/** Whether a disk is above the high watermark, or less is free than must be: then archives go. */
export function isOverLimit(node: NodePolicy, disk: DiskUsage): boolean {
  return bytesToFree(node, disk, { freedBytes: 0 }) > 0;
}

/** Whether a disk needs no more archives to go: it is below the low watermark, and as much is free as must be. */
export function isRelieved({ watermark, minFreeBytes }: NodePolicy, { usedBytes, availableBytes }: DiskUsage): boolean {
  const isLow = watermark === undefined || usedBytes * 100 < watermark.low * (usedBytes + availableBytes);
  return isLow && (minFreeBytes === undefined || availableBytes >= minFreeBytes);
}

/** How many bytes must go until the low watermark and minFree hold, given what goes already; 0 where nothing must. */
function bytesToFree(
  { watermark, minFreeBytes }: NodePolicy,
  { usedBytes, availableBytes }: DiskUsage,
  { freedBytes }: { freedBytes: number },
): number {
  const size = usedBytes + availableBytes;
  if (size <= 0) return 0; // some file systems know no usage and answer zeros
  const used = usedBytes - freedBytes;
  let wanted = 0;
  if (watermark !== undefined) {
    // Percentages of large file systems exceed what a double holds exactly.
    const hundredfold = 100n * BigInt(used);
    if (hundredfold > BigInt(watermark.high) * BigInt(size)) {
      wanted = Number((hundredfold - BigInt(watermark.low) * BigInt(size)) / 100n) + 1;
    }
  }
  return minFreeBytes === undefined ? wanted : Math.max(wanted, minFreeBytes - (size - used));
}

/** Whether fewer inodes are free than must be: then archives go. */
export function isShortOfInodes(node: NodePolicy, disk: DiskUsage): boolean {
  return inodesToFree(node, disk, { freed: 0 }) > 0;
}

/** How many inodes must be given back until minFreeInodes holds, given what goes already; 0 where none is known to. */
function inodesToFree({ minFreeInodes = 0 }: NodePolicy, { inodes }: DiskUsage, { freed }: { freed: number }): number {
  return inodes === undefined ? 0 : minFreeInodes - (inodes.free + freed);
}

type AmountOf = (entry: Entry) => number;

const sizeOf: AmountOf = ({ archive }) => archive.size;
/** Each is one file. */
const inInodes: AmountOf = () => 1;
const isOnlyName = ({ archive }: Entry) => !archive.hasOtherNames;
const allocatedOf: AmountOf = ({ archive }) => archive.allocated;
/** Pinned ones count in numbers only where they are complete. */
const inNumbers: AmountOf = ({ isComplete, isDeletable }) => (isComplete || isDeletable ? 1 : 0);
const isIncomplete = (entry: Entry) => entry.isIncomplete;

function sumOfLeft(entries: readonly Entry[], amountOf: AmountOf): number {
  let sum = 0;
  for (const entry of entries) if (!entry.isTaken) sum += amountOf(entry);
  return sum;
}

function sumAllocated(deletions: readonly PlannedDeletion[]): number {
  return deletions.reduce((sum, { archive }) => sum + archive.allocated, 0);
}

/** What a limit limits. */
interface Limited {
  reason: Reason;
  amountOf: AmountOf;
  unit: UnreachableLimit["unit"];
}

/**
 * By how much a limit is exceeded, and how that comes down: nothing more is taken once the limit is exceeded by no more than
 * the tolerated amount.
 */
function createExcess(
  over: number,
  { reason, amountOf, draft, toleratedAmount = 0 }: Omit<Limited, "unit"> & { draft: Draft; toleratedAmount?: number },
) {
  let left = over - toleratedAmount;
  /** Of what was taken, what probably cannot be deleted. */
  let failingAmount = 0;

  function takeOne(entry: Entry): void {
    take(entry, reason, draft);
    left -= amountOf(entry);
    if (entry.failure !== undefined) failingAmount += amountOf(entry);
  }

  return {
    /** Takes in the order given, but only those that fit, where that is said. */
    takeFrom(entries: readonly Entry[], fits?: (entry: Entry) => boolean): void {
      for (const entry of entries) {
        if (left <= 0) return;
        if (mayGo(entry) && (fits === undefined || fits(entry))) takeOne(entry);
      }
    },

    /**
     * Takes the first of the namespace with the most at that moment, again and again. `beyondOf` is what a namespace has beside
     * the entries.
     */
    takeFromLargest(entries: readonly OwnedEntry[], beyondOf = (_namespace: string) => 0): void {
      if (left <= 0) return;
      const largest = new TinyQueue(sharesOf(entries, { amountOf, beyondOf }), compareShares);
      for (let share = largest.pop(); share !== undefined && left > 0; share = largest.pop()) {
        const entry = share.takeable[share.next];
        if (entry === undefined) continue;
        takeOne(entry);
        share.next += 1;
        share.amount -= amountOf(entry);
        largest.push(share);
      }
    },

    /** Tells that the limit still does not hold, if that is so, and what of `entries` and else stands in the way. */
    report(
      entries: readonly Entry[],
      {
        unit,
        unsettled = 0,
        ...names
      }: Partial<ReturnType<typeof namesOf>> & Pick<UnreachableLimit, "unit"> & { unsettled?: number },
    ): void {
      const stillOver = left + toleratedAmount + failingAmount;
      if (stillOver <= 0) return;
      const amounts = { wanted: over, freed: over - stillOver, unit };
      draft.unreachable.push({
        limit: reason,
        ...names,
        ...amounts,
        ...obstaclesOf(
          entries.filter((entry) => amountOf(entry) > 0),
          unsettled,
        ),
      });
    },
  };
}

/** How many error codes are told of one limit. */
const MAX_CODES = 5;

/** What keeps archives from going, by how many; nothing where none is left. */
function obstaclesOf(entries: readonly Entry[], unsettled = 0): Pick<UnreachableLimit, "obstacles" | "codes"> {
  const codes = new Set<string>();
  const count = { pinned: 0, floor: 0, failing: 0, unsettled };
  for (const { archive, isTaken, isKept, failure } of entries) {
    if (failure !== undefined) {
      count.failing += 1;
      codes.add(failure);
    } else if (archive.pinned) count.pinned += 1;
    else if (isKept && !isTaken) count.floor += 1;
  }
  const obstacles = Object.fromEntries(Object.entries(count).filter(([, archives]) => archives > 0));
  return {
    ...(Object.keys(obstacles).length > 0 && { obstacles }),
    ...(codes.size > 0 && { codes: [...codes].sort().slice(0, MAX_CODES) }),
  };
}

/** What one namespace has of the node, and what of it may go, in order. */
interface Share {
  namespace: string;
  amount: number;
  takeable: OwnedEntry[];
  next: number;
}

function sharesOf(
  entries: readonly OwnedEntry[],
  { amountOf, beyondOf }: { amountOf: AmountOf; beyondOf: (namespace: string) => number },
): Share[] {
  const shares = new Map<string, Share>();
  for (const entry of entries) {
    if (entry.isTaken) continue;
    const { namespace } = entry.container;
    let share = shares.get(namespace);
    if (share === undefined) {
      share = { namespace, amount: beyondOf(namespace), takeable: [], next: 0 };
      shares.set(namespace, share);
    }
    share.amount += amountOf(entry);
    if (mayGo(entry)) share.takeable.push(entry);
  }
  return [...shares.values()];
}

/** Names of namespaces are ASCII, for which JavaScript's order is the bytewise one. */
function compareShares(a: Share, b: Share): number {
  return b.amount - a.amount || (a.namespace < b.namespace ? -1 : 1);
}
