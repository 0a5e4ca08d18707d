import { setImmediate as nextTurn } from "node:timers/promises";
import type { NodePolicy } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import type { PinnedLimit, Reason, UnreachableLimit } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import { countsForNode, isDeletable, isOldUnmanaged } from "../archive/archive.ts";
import type { Clock, TrustedTime } from "../clock.ts";
import type { ArchiveIndex } from "../inventory/archive-index.ts";
import type { Directory } from "../inventory/directory.ts";
import type { Entry } from "../inventory/entry.ts";
import { startSlice } from "../inventory/slice.ts";
import type { AcceptedPolicy } from "../policy/accept.ts";
import type { OrphanProofs } from "../policy/orphan-proofs.ts";
import { isOfNode } from "../retention/explain.ts";
import { type DiskUsage, type Plan, type PlanInput, planInSteps } from "../retention/plan.ts";
import { containerScope, podScope } from "../retention/scope.ts";
import { withShares } from "../retention/shares.ts";
import { createAges, hasAges } from "./ages.ts";
import { archivesOf, type Batch, createAttention, type Due, keyOf, type Scope, scopesDownTo } from "./attention.ts";
import { carryOut, type Ending, newBasis, type Step, stepsOf } from "./carry-out.ts";
import type { DiskReading } from "./disk.ts";
import { createFailures } from "./failures.ts";
import type { InForce } from "./in-force.ts";
import { isPaused, type Removal } from "./remove.ts";
import { RESOURCES, type Resource } from "./resources.ts";
import { createShortlists, NODE, type Shortlist } from "./shortlist.ts";
import { createOldUnmanaged } from "./unmanaged.ts";
import {
  afterArrival,
  afterDeletions,
  afterLook,
  afterPolicy,
  passLimit,
  READY,
  type WatermarkState,
} from "./watermark.ts";

/** How often the file system is asked how full it is, in milliseconds; more often while freed space is awaited. */
const DISK_EVERY_MS = 10_000;

const WHOLE_NODE: ReadonlySet<string> = new Set([NODE]);

/** What the enforcer tells of what it does. */
export interface EnforcerEvents {
  deleted(deletion: { entry: Entry; reason: Reason; sinceEventMs: number }): void;
  deleteFailed(failure: { entry: Entry; code: string }): void;
  /** DryRun keeps an archive from being deleted. Told once of each archive and reason. */
  wouldDelete(deletion: { entry: Entry; reason: Reason }): void;
  enforced(run: { durationMs: number }): void;
  /** The entry is not what the index says: look at it again. */
  stale(file: string): void;
}

export interface EnforcerOptions {
  index: ArchiveIndex<Entry>;
  proofs: OrphanProofs;
  clock: Clock;
  log: Logger;
  events: EnforcerEvents;
  time: Pick<TrustedTime, "nowMs">;
  readDisk: (directory: Directory) => DiskReading | undefined;
  /** From how many archives on a scope is planned for by what changed in it. */
  large?: number | undefined;
  /** All archives whose {@link Entry.unmanagedSinceMs} is known. */
  unmanaged: () => Iterable<Entry>;
}

/** What is held back, cannot be done, or waits. */
export interface EnforcerStatus {
  /** What would be deleted now, did not DryRun, a pause, or the wait for its scope's next event keep it. */
  planned: ReadonlyMap<string, Reason>;
  unreachable: readonly UnreachableLimit[];
  /** Limits on numbers that pinned archives use up. */
  pinnedLimits: readonly PinnedLimit[];
  deleteErrors: number;
  /** The error code of each file that must go and whose last deletion failed. */
  failing: ReadonlyMap<string, string>;
  isPaused: boolean;
  /** Whether all that happened so far has been acted upon. */
  isIdle: boolean;
  disk: DiskReading | undefined;
}

/** Brings the watched directory within its policy: change → plan → deletion, one run at a time. */
export interface Enforcer {
  /**
   * Works on another directory from now on, or on none; nothing is deleted before {@link listed}. `resumed` are the events
   * of this very directory that were not acted upon to the end when it was last watched. Settles when nothing is done in
   * the one before any more.
   */
  setDirectory(directory: Directory | undefined, resumed?: Due): Promise<void>;
  /** The directory has been listed as a whole. */
  listed(): void;
  setPolicy(policy: AcceptedPolicy): void;
  /** Whether to plan nothing for now: events are taken in and wait, as the policy may soon be another one. */
  setWaiting(isWaiting: boolean): void;
  /** An archive came, changed or went. `isEvent` where that makes the policy act on its scopes. */
  changed(entry: Entry, isEvent: boolean): void;
  /** Acts on proofs that just came in. */
  proved(covers: ReadonlyArray<{ namespace: string; pod: string; container?: string | undefined }>): void;
  /** To be called about once a second: ages, retries, the disk, the pause. */
  tick(): void;
  status(): EnforcerStatus;
  /** What is to be resumed after the agent, or the directory, was away. */
  due(): Due | undefined;
  /** All but the archives that a plan made now rests on, for a reader: nothing changes. Undefined without policy or directory. */
  situation(): Omit<PlanInput, "archives"> | undefined;
  /** Settles when the run under way, if any, has ended. */
  stop(): Promise<void>;
}

/** What a run stands on. It is given up where either of them is replaced. */
interface Ground {
  from: Directory;
  inForce: InForce;
}

/** A plan, and all archives that it was made for: of its scopes, or those of a shortlist. */
interface MadePlan {
  plan: Plan;
  archives: ReadonlySet<Entry>;
  isShort: boolean;
}

export function createEnforcer(options: EnforcerOptions): Enforcer {
  const { index, proofs, clock, log, events, time, readDisk } = options;
  const attention = createAttention({ index, clock });
  const ages = createAges({ index, clock, time });
  const failures = createFailures(clock);
  const shortlists = createShortlists({
    index,
    ...(options.large !== undefined && { large: options.large }),
    onLoss: (entry, scope) => {
      if (basis.scopes.has(scope) && !basis.going.has(entry)) basis.isOvertaken = true;
    },
  });
  const { unmanaged } = options;
  const oldUnmanaged = createOldUnmanaged({ unmanaged, time, nodePolicy: () => policy?.document.node });

  let directory: Directory | undefined;
  let isListed = false;
  let policy: InForce | undefined;
  let isWaiting = false;
  let running: Promise<void> | undefined;
  /** Of the plan under way. */
  let basis = newBasis({});
  /** Scopes whose plan a changed file ended, of which the observer may know nothing yet: planned again with the next tick. */
  const postponed = new Map<string, Scope>();
  let isNodePostponed = false;
  let isEverythingPostponed = false;
  /** Whether the node was planned for once more because deletions failed, since the disk was last read by the clock. */
  let isNodeRetried = false;
  let stopped = false;

  const planned = new Map<string, Reason>();
  /** The archives that were told of as ones that DryRun keeps, and why they would go. */
  const toldOfDryRun = new Map<string, Reason>();
  const deferred = new Set<string>();
  const unreachable = new Map<string, UnreachableLimit>();
  /** Limits that pinned archives use up, by their scope's key. */
  const pinnedLimits = new Map<string, PinnedLimit>();
  let deleteErrors = 0;

  let paused = false;
  let isTimeTrusted = false;
  /** Where the deletions for the sake of each resource stand. */
  const relief = new Map<Resource, WatermarkState>();
  /** What the file system does not tell, although limits of the node ask for it, as the log told last. */
  let toldLack: string | undefined;
  /** The limit by which the node's total size was checked last. */
  let checkedTotalBytes: number | undefined;
  let disk: DiskReading | undefined;
  let diskReadAtMs = Number.NEGATIVE_INFINITY;

  function schedule(): void {
    if (running !== undefined || stopped || !attention.isPending()) return;
    running = nextTurn()
      .then(run)
      .catch((err) => {
        log.error({ err }, "enforcement failed; everything is planned anew");
        isEverythingPostponed = true;
      })
      .finally(() => {
        running = undefined;
        if (groundOf() !== undefined) schedule();
      });
  }

  /** What a run stands on; undefined while nothing may be deleted. */
  function groundOf(): Ground | undefined {
    if (stopped || isWaiting || !isListed || directory === undefined || policy === undefined) return undefined;
    return { from: directory, inForce: policy };
  }

  function isStill({ from, inForce }: Ground): boolean {
    return !stopped && !isWaiting && policy === inForce && directory === from;
  }

  async function run(): Promise<void> {
    for (let ground = groundOf(); ground !== undefined; ground = groundOf()) {
      const batch = attention.take();
      if (batch === undefined) return;
      const startedMs = clock.monotonicMs();
      await enforce(batch, ground);
      basis = newBasis({});
      events.enforced({ durationMs: clock.monotonicMs() - startedMs });
    }
  }

  async function enforce(batch: Batch, ground: Ground): Promise<void> {
    // Namespaces have nothing to do with each other: one after the other, nothing else waits for all of them.
    for (const scopes of partsOf(batch)) {
      await nextTurn();
      if (!isStill(ground) || !(await enforcePart(scopes, ground, batch.sinceMs))) return;
    }
    await enforceUnmanaged(ground, batch.sinceMs);
    if (isStill(ground)) await enforceNode(ground, batch.sinceMs);
  }

  /** What is to be planned for, by namespace. */
  function partsOf({ scopes, everything }: Batch): Iterable<Scope[]> {
    const all = [...scopes.values()];
    if (everything) {
      // A namespace that is gone is planned for too, if a limit of it was told: so that it is taken back.
      for (const { namespace } of [...unreachable.values(), ...pinnedLimits.values()]) {
        if (namespace !== undefined && !some(index.inScope({ namespace }))) all.push({ namespace });
      }
    }
    return Map.groupBy(all, ({ namespace }) => namespace).values();
  }

  /** Plans for scopes of one namespace and carries that out; false if the run must end. */
  async function enforcePart(scopes: Scope[], ground: Ground, sinceMs: number): Promise<boolean> {
    const covers = proofs.current(clock.monotonicMs()).filter(({ namespace }) => namespace === scopes[0]?.namespace);
    const input = { ...situation(ground), orphans: covers, node: undefined };
    const keys = new Set(scopes.map(keyOf));
    const [only, ...others] = scopes;
    const quiet = others.length === 0 && isQuiet(input) ? only : undefined;
    if (quiet !== undefined) await inSlices(shortlists.prepare(quiet));
    if (!isStill(ground)) return false;
    const shortlist = quiet && shortlists.of(quiet);
    shortlists.begin(scopes);
    const made =
      (await makeShortPlan(shortlist, { input, scopes: keys })) ?? (await makePlan(inScopes(scopes, ground), input));
    if (!isStill(ground)) return false;
    if (made === undefined) {
      postpone(scopes);
      return true;
    }
    const { plan, archives } = made;
    const asked = covers.filter((cover) => some(index.inScope(cover), (entry) => archives.has(entry)));
    // Within a scope there may be others, planned for by themselves, of which a shortlist has none.
    keepBooks(plan, archives, { isOfNode: false, isReplanned: (limit) => !made.isShort && isWithin(limit, keys) });
    if (!made.isShort) keepPins(plan, keys);
    const { ending, undone } = await execute(plan, { ground, sinceMs });
    const { isOvertaken } = basis;
    await notePlanned(made, input, { ground, ending });
    // If the observer knows what was changed, the plan is made anew at once; else the observer first looks. So it does where
    // this plan got nothing done: an archive that changes all the time would be planned for without a pause.
    if (ending === "overtaken" && isOvertaken && undone.length < plan.deletions.length) attention.markAgain(scopes);
    else if (ending === "overtaken") postpone(scopes);
    if (ending === "stopped") return false;
    if (ending !== "done") return true;
    const waiting = [...undone, ...[...plan.deferred, ...plan.stuck].map(({ archive }) => archive as Entry)];
    const isAgeUnknown = input.nowMs === undefined && hasAges(ground.inForce.document);
    if (waiting.length === 0 && !isAgeUnknown) attention.finish(scopes, made);
    shortlists.end(scopes, waiting.length === 0 && !isAgeUnknown && hasNothingLeft(plan, input));
    // A proof whose archives wait to settle, to be walked or to be deleted is still needed; so is one that DryRun tells of.
    const kept = ground.inForce.document.mode === "DryRun" ? plan.deletions.map(({ archive }) => archive as Entry) : [];
    const needed = new Set([...waiting, ...kept].flatMap(({ identity }) => coversOf(identity as ContainerIdentity)));
    // So is one of a pod of which a part is planned for elsewhere, as what a workload policy governs of it.
    const isElsewhere = (entry: Entry) => !archives.has(entry) && isOrphanDue(entry);
    proofs.use(
      asked.filter(
        (cover) =>
          !needed.has(keyOf(cover)) && !index.isBlocked(keyOf(cover)) && !some(index.inScope(cover), isElsewhere),
      ),
    );
    return true;
  }

  /** Whether maxAgeUnmanaged takes the file of that name now. */
  function isUnmanagedDue(file: string): boolean {
    const entry = index.get(file);
    return entry !== undefined && policy !== undefined && isOldUnmanaged(entry, policy.document.node, time.nowMs());
  }

  /** maxAgeUnmanaged asks of each file alone: it is planned for those that are due, whatever else lies around them. */
  async function enforceUnmanaged(ground: Ground, sinceMs: number): Promise<void> {
    const archives = oldUnmanaged.due();
    for (const [file, reason] of planned) {
      if (reason === "max_age_unmanaged" && !isUnmanagedDue(file)) planned.delete(file);
    }
    // As the other rules of the node: the last walk brings the next run.
    if (archives.size === 0 || index.unwalked > 0) return;
    basis = newBasis({});
    const input = { ...situation(ground), orphans: [], node: { disk: undefined } };
    const plan = await planInSlices({ ...input, archives });
    if (!isStill(ground)) return;
    keepBooks(plan, archives, { isOfNode: true, isReplanned: () => false });
    const { ending } = await execute(plan, { ground, sinceMs });
    await notePlanned({ plan, archives, isShort: false }, input, { ground, ending });
    if (ending === "overtaken") isNodePostponed = true;
  }

  /** The rules of the node as a whole need all archives, so they run only when one of their limits is broken. */
  async function enforceNode(ground: Ground, sinceMs: number): Promise<void> {
    if (asksForDisk(ground.inForce.document.node)) lookAtDisk();
    const { maxTotalBytes } = limitsOfNode(ground.inForce, disk);
    checkedTotalBytes = maxTotalBytes;
    const isOverTotal = maxTotalBytes !== undefined && index.countedBytes > maxTotalBytes;
    const isOverDisk = RESOURCES.some((resource) => isScarce(resource) && passLimit(stateOf(resource)) > 0);
    if (!isOverTotal && !isOverDisk) {
      failures.forgetOfNode(isUnmanagedDue);
      for (const [file, reason] of planned) if (isNodeRule(reason)) planned.delete(file);
      forgetUnreachable(({ limit }) => isNodeRule(limit) && phaseOf(limit) === "ready");
      noteStalled();
      return;
    }
    // A rule of the node acts only when every archive was walked; the last walk brings the next run.
    if (index.unwalked > 0) return;
    const node = { disk, ...passLimits(stateOf) };
    // Proved orphans are freed as well: no other archive goes for their bytes.
    const orphans = proofs.current(clock.monotonicMs());
    const input = { ...situation(ground), orphans, node };
    const isForTotal = isOverTotal && !isOverDisk;
    if (isForTotal && isNodeQuiet(input)) await inSlices(shortlists.prepareNode());
    const shortlist = isForTotal && isNodeQuiet(input) ? shortlists.ofNode(maxTotalBytes) : undefined;
    const made =
      (await makeShortPlan(shortlist, { input, scopes: WHOLE_NODE })) ?? (await makePlan(index.all(), input));
    if (!isStill(ground)) return;
    if (made === undefined) {
      isNodePostponed = true;
      return;
    }
    const { plan, archives } = made;
    const isReplanned = ({ limit }: UnreachableLimit) => phaseOf(limit) !== "stalled";
    keepBooks(plan, archives, { isOfNode: true, isReplanned });
    const errorsBefore = deleteErrors;
    const { ending, undone } = await execute(plan, { ground, sinceMs });
    await notePlanned(made, input, { ground, ending });
    if (ending === "overtaken") isNodePostponed = true;
    if (deleteErrors === errorsBefore) return;
    // What could not be deleted rests now, and others must go for the disk's sake. If nothing can be deleted at all, as on
    // a read-only file system, that is tried only as often as the disk is read.
    if (undone.length < plan.deletions.length || !isNodeRetried) isNodePostponed = true;
    isNodeRetried = true;
  }

  /** These scopes are planned for with the next tick: the observer looks meanwhile at what changed. */
  function postpone(scopes: Scope[]): void {
    for (const scope of scopes) postponed.set(keyOf(scope), scope);
  }

  function* inScopes(scopes: Scope[], { inForce: { govern } }: Ground): Generator<Entry> {
    for (const scope of scopes) yield* archivesOf(scope, { index, govern });
  }

  /**
   * Makes a plan in slices, for the archives that `found` yields while it is made. Undefined if another hand changed what the
   * plan rests on before it was made.
   */
  async function makePlan(
    found: Iterable<Entry>,
    input: Omit<PlanInput, "archives">,
    scopes: ReadonlySet<string> = new Set(),
  ): Promise<MadePlan | undefined> {
    basis = newBasis({ scopes });
    const archives = new Set<Entry>();
    const plan = await planInSlices({ ...input, archives: watched(found, archives) });
    return basis.isOvertaken ? undefined : { plan, archives, isShort: scopes.size > 0 };
  }

  /**
   * Makes a plan for a shortlist. Undefined if there is none, if another hand changed what the plan rests on, or if there is
   * more to it than deletions: then only a plan for all archives tells what.
   */
  async function makeShortPlan(
    shortlist: Shortlist | undefined,
    { input, scopes }: { input: Omit<PlanInput, "archives">; scopes: ReadonlySet<string> },
  ): Promise<MadePlan | undefined> {
    if (shortlist === undefined) return undefined;
    const made = await makePlan(shortlist.archives, { ...input, ...shortlist.told }, scopes);
    return made && hasNothingLeft(made.plan, input) ? made : undefined;
  }

  /** Whether nothing but a change to an archive can make anything due: no proof, no age and no failure waits. */
  function isQuiet({ policy: { mode }, orphans, nowMs, failing }: Omit<PlanInput, "archives">): boolean {
    return mode === "Enforce" && orphans.length === 0 && failing?.size === 0 && ages.areNoneDue(nowMs);
  }

  /** Whether no rule of any scope has anything to do, now that the scopes have been planned for. */
  function isNodeQuiet(input: Omit<PlanInput, "archives">): boolean {
    const waiting = [planned, deferred, unreachable, postponed];
    return (
      isQuiet(input) && waiting.every(({ size }) => size === 0) && !isEverythingPostponed && !attention.isPending()
    );
  }

  function planInSlices(input: PlanInput): Promise<Plan> {
    return inSlices(planInSteps(input));
  }

  async function inSlices<T>(steps: Generator<void, T>): Promise<T> {
    const slice = startSlice(clock);
    let step = steps.next();
    while (!step.done) {
      if (slice.isOver()) await slice.next();
      step = steps.next();
    }
    return step.value;
  }

  /**
   * Notes what is kept although the policy would have it gone, once a plan has been carried out as far as it may be. What
   * waits for the next event of its scope is found by another plan, made only if anything waits.
   */
  async function notePlanned(
    { plan, archives }: MadePlan,
    input: Omit<PlanInput, "archives">,
    { ground, ending }: { ground: Ground; ending: Ending },
  ): Promise<void> {
    if (ending === "overtaken" || ending === "stopped") return;
    const isDryRun = ground.inForce.document.mode === "DryRun";
    let kept = isDryRun || ending === "paused" ? plan.deletions : [];
    if (plan.waits) {
      const left = [...archives].filter((entry) => index.get(entry.file) === entry);
      const active = await planInSlices({ ...input, archives: left, isActive: () => true });
      if (!isStill(ground)) return;
      kept = active.deletions;
    }
    for (const { file } of archives) planned.delete(file);
    for (const { archive, reason } of kept) {
      // Meanwhile another hand may have taken it away.
      if (index.get(archive.file) !== archive) continue;
      planned.set(archive.file, reason);
      if (!isDryRun || toldOfDryRun.get(archive.file) === reason) continue;
      toldOfDryRun.set(archive.file, reason);
      events.wouldDelete({ entry: archive as Entry, reason });
    }
  }

  /** Each of these archives once, watched from the moment at which the plan reads it. The index may change on the way. */
  function* watched(found: Iterable<Entry>, archives: Set<Entry>): Generator<Entry> {
    for (const entry of found) {
      if (archives.has(entry)) continue;
      archives.add(entry);
      // What does not count is not counted on: an archive that is being written changes all the time.
      if (countsForNode(entry)) basis.archives.add(entry);
      yield entry;
    }
  }

  function situation({ inForce }: Ground) {
    return {
      policy: withShares(inForce.document, disk),
      govern: inForce.govern,
      nowMs: time.nowMs(),
      // DryRun tells of everything, whatever waits for an event.
      isActive: inForce.document.mode === "DryRun" ? () => true : attention.isActive,
      stuck: failures.resting(),
      failing: failures.codes(),
    };
  }

  function keepBooks(
    plan: Plan,
    archives: ReadonlySet<Entry>,
    { isOfNode, isReplanned }: { isOfNode: boolean; isReplanned: (limit: UnreachableLimit) => boolean },
  ): void {
    for (const { file } of archives) deferred.delete(file);
    for (const { archive } of plan.deferred) deferred.add(archive.file);
    const due = failures.due();
    const going = new Set(due.length > 0 ? plan.deletions.map(({ archive }) => archive.file) : []);
    for (const failure of due) {
      // None of the rules that wanted it gone does so any more.
      const isReplannedFor = failure.isOfNode === isOfNode && archives.has(index.get(failure.file) as Entry);
      if (isReplannedFor && !going.has(failure.file)) failures.forget(failure.file);
    }
    const known = new Set(unreachable.keys());
    forgetUnreachable(isReplanned);
    for (const limit of plan.unreachable) {
      const key = limitKey(limit);
      if (!known.has(key)) log.warn({ ...limit }, "limit cannot be reached");
      unreachable.set(key, limit);
    }
  }

  /** Keeps what a plan found of pins in the scopes that it was made for. */
  function keepPins(plan: Plan, keys: ReadonlySet<string>): void {
    const known = new Set(pinnedLimits.keys());
    for (const [key, limit] of pinnedLimits) if (isWithin(limit, keys)) pinnedLimits.delete(key);
    for (const limit of plan.pinnedLimits) {
      const key = keyOf(limit);
      if (!known.has(key)) log.warn({ ...limit }, "pinned archives use a limit up; each new one goes at once");
      pinnedLimits.set(key, limit);
    }
  }

  function forgetUnreachable(isForgotten: (limit: UnreachableLimit) => boolean): void {
    for (const [key, limit] of unreachable) if (isForgotten(limit)) unreachable.delete(key);
  }

  /** Where the last pass freed nothing that shows: a limit that cannot be reached, by what it still wants. */
  function noteStalled(): void {
    for (const resource of RESOURCES) {
      const state = stateOf(resource);
      const free = disk && resource.freeOf(disk);
      if (state.phase !== "stalled" || free === undefined) continue;
      const { reason: limit, unit } = resource;
      const wanted = Math.max(0, state.expectedAvailable - free);
      if (!unreachable.has(limitKey({ limit }))) {
        log.warn(
          { limit, wanted, unit },
          "deleting archives did not free the disk: other data fills it, or the files are held open",
        );
      }
      unreachable.set(limitKey({ limit }), { limit, wanted, freed: 0, unit });
    }
  }

  /** Carries a plan out, unless nothing may be deleted. `undone` are planned archives that are still there. */
  async function execute(
    plan: Plan,
    { ground, sinceMs }: { ground: Ground; sinceMs: number },
  ): Promise<{ ending: Ending; undone: Entry[] }> {
    const { from, inForce } = ground;
    if (inForce.document.mode === "DryRun" || plan.deletions.length === 0) return { ending: "done", undone: [] };
    if (isPaused(from)) {
      paused = true;
      return { ending: "paused", undone: [] };
    }
    const steps = stepsOf(plan.deletions, (container) => index.inScope(container));
    const undone = new Set(steps.map(({ entry }) => entry));
    const freed = RESOURCES.map((resource) => ({ resource, amount: 0, shown: 0, isPass: false }));
    let before: DiskReading | undefined;
    let lastKnown: DiskReading | undefined;
    const look = () => {
      const reading = readDisk(from);
      lastKnown = reading ?? lastKnown;
      return reading;
    };
    const ending = await carryOut(steps, {
      from,
      basis,
      mayGoOn: () => isStill(ground),
      mayDelete: ({ entry, reason }) => {
        before = look();
        return index.get(entry.file) === entry && isReasonStill(entry, reason, { inForce, disk: before });
      },
      onRemoval: (step, removal) => {
        if (removal.outcome === "deleted" || removal.outcome === "gone") undone.delete(step.entry);
        if (removal.outcome === "deleted") {
          const after = look();
          for (const one of freed) {
            const { freeOf, takenBy, reason } = one.resource;
            one.amount += takenBy(step.asPlanned);
            // What cannot be measured has not been shown.
            one.shown += Math.max(0, ((after && freeOf(after)) ?? 0) - ((before && freeOf(before)) ?? Infinity));
            one.isPass ||= step.reason === reason;
          }
        }
        noteRemoval(step, removal, { sinceMs, from });
      },
    });
    if (directory === from && freed.some(({ amount }) => amount > 0)) {
      look();
      const nowMs = clock.monotonicMs();
      for (const { resource, ...what } of freed) {
        const available = lastKnown && resource.freeOf(lastKnown);
        if (available === undefined || what.amount === 0) continue;
        relief.set(resource, afterDeletions(stateOf(resource), { ...what, available, nowMs }));
      }
      lookAtDisk();
    }
    return { ending, undone: [...undone] };
  }

  /** Whether what a deletion rests on still holds: carrying a plan out may take longer than a proof, a time or a full disk lasts. */
  function isReasonStill(
    entry: Entry,
    reason: Reason,
    { inForce, disk: reading }: { inForce: InForce; disk: DiskUsage | undefined },
  ): boolean {
    // What became readable since the plan stays; so does what no longer may go by any other rule.
    if (reason === "max_age_unmanaged") return isOldUnmanaged(entry, inForce.document.node, time.nowMs());
    if (!isDeletable(entry)) return false;
    if (reason === "orphan") return isProved(entry, inForce);
    const resource = RESOURCES.find((one) => one.reason === reason);
    if (resource !== undefined) {
      return reading !== undefined && resource.isWanted(limitsOfNode(inForce, reading), reading);
    }
    if (reason === "node_max_total_size") {
      // A share of a file system that grew, or is not known any more, is another limit than that of the plan.
      const { maxTotalBytes } = limitsOfNode(inForce, reading);
      return maxTotalBytes !== undefined && index.countedBytes > maxTotalBytes;
    }
    if (reason !== "max_age") return true;
    const nowMs = time.nowMs();
    const maxAgeMs = entry.identity && inForce.govern(entry.identity).maxAgeMs;
    return nowMs !== undefined && maxAgeMs !== undefined && nowMs - entry.timeMs > maxAgeMs;
  }

  function noteRemoval(
    { entry, asPlanned, reason, survivor }: Step & { asPlanned: Entry },
    removal: Removal,
    { sinceMs, from }: { sinceMs: number; from: Directory },
  ): void {
    const { file } = entry;
    switch (removal.outcome) {
      case "deleted":
      case "gone":
        // The limits of its scopes were told as ones that it stands in the way of.
        if (failures.has(file)) markAround(entry);
        failures.forget(file);
        planned.delete(file);
        // Meanwhile another may have been seen under its name.
        if (index.get(file) === entry && entry.listed === asPlanned.listed) {
          index.remove(file);
          attention.deactivateEmpty(entry);
        }
        if (removal.outcome === "deleted") {
          events.deleted({ entry: asPlanned, reason, sinceEventMs: clock.monotonicMs() - sinceMs });
        }
        break;
      case "refused":
        log.info({ archive: file, why: removal.why }, "archive kept: it changed since the plan");
        events.stale(file);
        if (survivor !== undefined) events.stale(survivor.file);
        break;
      case "paused":
        paused = true;
        break;
      case "failed": {
        deleteErrors += 1;
        const { code, cause } = removal;
        events.deleteFailed({ entry, code });
        // Of a directory that is gone nothing is tried again.
        if (directory !== from) return;
        const ofNode = isOfNode(reason);
        if (failures.note(file, { isOfNode: ofNode, code }) > 1) return;
        log.error({ archive: file, err: cause }, "archive cannot be deleted; it is tried again");
        // Its limits are told from now on as ones that it stands in the way of. The node is planned for again anyway.
        if (!ofNode) attention.mark(entry.identity as ContainerIdentity);
      }
    }
  }

  /** The scopes of an archive are to be planned for; of one without an owner, the node alone. */
  function markAround({ identity }: Entry): void {
    if (identity === undefined) attention.markNode();
    else attention.mark(identity);
  }

  /** Whether a plan that counted on an archive may take too much now. One that merely settled takes nothing away. */
  function isWeaker(entry: Entry): boolean {
    return index.get(entry.file) !== entry || entry.pinned || !entry.walked || !countsForNode(entry);
  }

  function isProved({ identity, podUID, listed }: Entry, { document }: InForce): boolean {
    const uid = document.orphanMatch === "UID" ? podUID : undefined;
    return identity !== undefined && proofs.covers({ ...identity, uid, listed }, clock.monotonicMs());
  }

  /** Whether a proof that its pod is gone makes an archive go: then it is an event of its scopes. */
  function isOrphanDue(entry: Entry): boolean {
    const { identity, isStaticPod } = entry;
    if (identity === undefined || isStaticPod || policy === undefined) return false;
    return !policy.govern(identity).retainOrphan && isProved(entry, policy);
  }

  function stateOf(resource: Resource): WatermarkState {
    return relief.get(resource) ?? READY;
  }

  /** Where the deletions for a limit of the node stand; they need not wait for what no resource limits. */
  function phaseOf(limit: Reason): WatermarkState["phase"] {
    const resource = RESOURCES.find(({ reason }) => reason === limit);
    return resource === undefined ? "ready" : stateOf(resource).phase;
  }

  /** Whether archives must go for a resource, by the last look at the disk. */
  function isScarce(resource: Resource): boolean {
    return disk !== undefined && policy !== undefined && resource.isScarce(limitsOfNode(policy, disk), disk);
  }

  function lookAtDisk(): void {
    if (directory === undefined) return;
    disk = readDisk(directory);
    diskReadAtMs = clock.monotonicMs();
    const lack = policy && lackOf(policy.document.node, disk);
    if (lack !== undefined && lack !== toldLack) log.warn(lack);
    toldLack = lack;
    if (disk === undefined) return;
    const phases = RESOURCES.map((resource) => stateOf(resource).phase);
    for (const resource of RESOURCES) {
      relief.set(resource, seenBy(resource, disk, isScarce(resource)));
    }
    if (RESOURCES.some((resource, at) => stateOf(resource).phase !== phases[at])) noteStalled();
  }

  /** The state of a resource after a look at the disk. */
  function seenBy(resource: Resource, reading: DiskUsage, isOverLimit: boolean): WatermarkState {
    const available = resource.freeOf(reading);
    const nowMs = clock.monotonicMs();
    return available === undefined ? READY : afterLook(stateOf(resource), { available, isOverLimit, nowMs });
  }

  /** Makes events of the ages that were reached: a scope whose archive grew too old is acted upon. */
  function watchAges(): void {
    if (!isListed) return;
    for (const identity of ages.reached()) {
      shortlists.doubt(identity);
      attention.activate(identity);
      attention.mark(identity);
    }
  }

  function retryFailures(): void {
    for (const { file, isOfNode } of failures.due()) {
      const entry = index.get(file);
      if (entry !== undefined && isOfNode) attention.markNode();
      else if (entry?.identity === undefined) failures.forget(file);
      else attention.mark(entry.identity);
    }
  }

  return {
    async setDirectory(next, resumed) {
      directory = next;
      isListed = false;
      attention.setDirectory(resumed);
      for (const memory of [
        planned,
        toldOfDryRun,
        deferred,
        unreachable,
        pinnedLimits,
        failures,
        postponed,
        shortlists,
      ])
        memory.clear();
      isNodePostponed = false;
      relief.clear();
      disk = undefined;
      diskReadAtMs = Number.NEGATIVE_INFINITY;
      await running;
    },
    listed() {
      isListed = true;
      ages.restart();
      attention.markEverything();
      schedule();
    },
    setPolicy(next) {
      // A plan goes on where only the directive is a new one.
      if (policy?.digest === next.digest) return;
      policy = { ...next, govern: createGovernor(next.document) };
      attention.setPolicy(policy);
      ages.setPolicy(policy);
      shortlists.setPolicy(policy);
      toldOfDryRun.clear();
      for (const [resource, state] of relief) relief.set(resource, afterPolicy(state));
      lookAtDisk();
      attention.markEverything();
      schedule();
    },
    setWaiting(next) {
      isWaiting = next;
      schedule();
    },
    changed(entry, isEvent) {
      if (basis.archives.has(entry) && isWeaker(entry)) basis.isOvertaken = true;
      if (index.get(entry.file) !== entry) {
        planned.delete(entry.file);
        toldOfDryRun.delete(entry.file);
        deferred.delete(entry.file);
        attention.deactivateEmpty(entry);
      }
      if (entry.identity !== undefined) {
        // The proof that its pod is gone may have come before it was known to be that pod's.
        if (isEvent || isOrphanDue(entry)) attention.activate(entry.identity);
        if (isEvent) {
          for (const [resource, state] of relief) relief.set(resource, afterArrival(state, resource.takenBy(entry)));
        }
        ages.noticed(entry);
      }
      // Until it was walked, it stood in the way of every scope that its name allows.
      for (const reading of entry.identity === undefined || entry.name.isAmbiguous
        ? entry.candidates
        : [entry.identity]) {
        attention.mark(reading);
      }
      schedule();
    },
    proved(covers) {
      for (const { namespace, pod, container } of covers) {
        for (const entry of index.inScope({ namespace, pod, container })) {
          if (isOrphanDue(entry)) attention.activate(entry.identity);
          attention.mark(entry.identity);
        }
      }
      schedule();
    },
    tick() {
      if (directory === undefined) return;
      const wasPaused = paused;
      paused = isPaused(directory);
      if (wasPaused !== paused) log.warn({ paused }, paused ? "deletion is paused" : "deletion goes on");
      const wasTimeTrusted = isTimeTrusted;
      isTimeTrusted = time.nowMs() !== undefined;
      if (wasTimeTrusted && !isTimeTrusted) log.warn("the clock jumped; ages wait for the next directive");
      const isAnew = isEverythingPostponed || (wasPaused && !paused) || (!wasTimeTrusted && isTimeTrusted);
      if (isAnew) attention.markEverything();
      isEverythingPostponed = false;
      watchAges();
      if (isListed && oldUnmanaged.isNews()) attention.markNode();
      retryFailures();
      attention.markAgain(postponed.values());
      postponed.clear();
      if (isNodePostponed) attention.markNode();
      isNodePostponed = false;
      const waiting = RESOURCES.filter((resource) => stateOf(resource).phase === "waiting");
      if (waiting.length > 0 || clock.monotonicMs() - diskReadAtMs >= DISK_EVERY_MS) {
        isNodeRetried = false;
        lookAtDisk();
        // A share of a file system that grew or shrank is another limit.
        if (policy && limitsOfNode(policy, disk).maxTotalBytes !== checkedTotalBytes) attention.markNode();
        for (const resource of RESOURCES) {
          const mayBeScarce = waiting.includes(resource) || unreachable.has(limitKey({ limit: resource.reason }));
          if ((isScarce(resource) || mayBeScarce) && passLimit(stateOf(resource)) > 0) attention.markNode();
        }
      }
      schedule();
    },
    status: () => ({
      planned,
      unreachable: [...unreachable.values()],
      pinnedLimits: [...pinnedLimits.values()],
      deleteErrors,
      failing: failures.codes(),
      isPaused: paused,
      isIdle: !attention.isPending() && running === undefined && deferred.size === 0,
      disk,
    }),
    due: attention.due,
    situation() {
      if (directory === undefined || policy === undefined) return undefined;
      const nowMs = clock.monotonicMs();
      const reading = readDisk(directory);
      const limits = limitsOfNode(policy, reading);
      const seen = (resource: Resource) =>
        reading ? seenBy(resource, reading, resource.isScarce(limits, reading)) : stateOf(resource);
      return {
        ...situation({ from: directory, inForce: policy }),
        policy: withShares(policy.document, reading),
        orphans: proofs.current(nowMs),
        node: index.unwalked > 0 ? undefined : { disk: reading, ...passLimits(seen) },
      };
    },
    async stop() {
      stopped = true;
      await running;
    },
  };
}

function some<T>(items: Iterable<T>, isIt: (item: T) => boolean = () => true): boolean {
  for (const item of items) if (isIt(item)) return true;
  return false;
}

/** Whether a plan had nothing to tell but deletions. */
function hasNothingLeft(plan: Plan, { policy: { mode } }: Pick<PlanInput, "policy">): boolean {
  const left = [plan.deferred, plan.stuck, plan.unreachable, plan.pinnedLimits];
  return mode === "Enforce" && !plan.waits && left.every(({ length }) => length === 0);
}

/** By what a limit that cannot be reached is known: its name and its scope, which the node's own limits have not. */
function limitKey(limit: Pick<UnreachableLimit, "limit" | "namespace" | "pod" | "container" | "workload">): string {
  return `${limit.limit} ${keyOf(limit)}`;
}

function isNodeRule(reason: string): boolean {
  return reason === "node_max_total_size" || RESOURCES.some((resource) => resource.reason === reason);
}

/** Whether any limit of the node asks how full its file system is, or how large. */
function asksForDisk({ maxTotalBytes: _, maxAgeUnmanagedMs: _age, ...others }: NodePolicy): boolean {
  return Object.keys(others).length > 0;
}

/** What limits of the node ask of the file system, and it does not tell; undefined if it tells all of it. */
function lackOf(node: NodePolicy, disk: DiskUsage | undefined): string | undefined {
  if (disk === undefined) {
    return asksForDisk(node)
      ? "the file system does not tell how full it is: watermarks, minFree, minFreeInodes and shares do nothing"
      : undefined;
  }
  const isAsked = node.minFreeInodes !== undefined || node.minFreeInodesPercent !== undefined;
  return isAsked && disk.inodes === undefined
    ? "the file system does not count inodes: minFreeInodes does nothing"
    : undefined;
}

function limitsOfNode({ document }: InForce, disk: DiskUsage | undefined): NodePolicy {
  return withShares(document, disk).node;
}

function passLimits(stateOf: (resource: Resource) => WatermarkState) {
  const [passLimitBytes = 0, passLimitInodes = 0] = RESOURCES.map((resource) => passLimit(stateOf(resource)));
  return { passLimitBytes, passLimitInodes };
}

/** The keys of the proofs that would cover an archive of this container. */
function coversOf(identity: ContainerIdentity): string[] {
  return [podScope(identity), containerScope(identity)];
}

/** Whether a limit's scope lies in one of the scopes, given by their keys. */
function isWithin(limit: Partial<Scope>, scopes: ReadonlySet<string>): boolean {
  return scopesDownTo(limit).some((key) => scopes.has(key));
}
