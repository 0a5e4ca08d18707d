import { setImmediate as nextTurn } from "node:timers/promises";
import type { Policy } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import type { Reason, UnreachableLimit } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import { type Archive, countsInBytes, isDeletable } from "../archive/archive.ts";
import type { Clock } from "../clock.ts";
import type { ArchiveIndex } from "../inventory/archive-index.ts";
import type { Directory } from "../inventory/directory.ts";
import type { Entry } from "../inventory/entry.ts";
import type { AcceptedPolicy } from "../policy/accept.ts";
import type { OrphanProofs } from "../policy/orphan-proofs.ts";
import { type DiskUsage, type OrphanCover, type Plan, type PlannedDeletion, planRetention } from "../retention/plan.ts";
import { containerScope, namespaceScope, podScope, scopesOf } from "../retention/scope.ts";
import type { DiskReading } from "./disk.ts";
import { isPaused, REFUSED_BY_PAUSE, removeArchive } from "./remove.ts";
import { afterDeletions, afterLook, type WatermarkState } from "./watermark.ts";

/** How long a deletion that failed rests before it is tried again, in milliseconds: doubled from the first to the second. */
const RETRY_MS = { first: 1000, longest: 5 * 60_000 } as const;
/** How often the file system is asked how full it is, in milliseconds; more often while freed space is awaited. */
const DISK_EVERY_MS = 10_000;

/** What the enforcer tells of what it does. */
export interface EnforcerEvents {
  deleted(deletion: { entry: Entry; reason: Reason; sinceEventMs: number }): void;
  deleteFailed(failure: { entry: Entry; code: string }): void;
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
  /** Whether the machine's clock may be used to tell ages. */
  isClockTrusted: () => boolean;
  readDisk: (directory: Directory) => DiskReading | undefined;
}

/** What is held back, cannot be done, or waits. */
export interface EnforcerStatus {
  /** What DryRun, or a pause, keeps from being deleted. */
  planned: ReadonlyMap<string, Reason>;
  unreachable: readonly UnreachableLimit[];
  deleteErrors: number;
  isPaused: boolean;
  /** Whether all that happened so far has been acted upon. */
  isIdle: boolean;
  disk: DiskReading | undefined;
}

/** Brings the watched directory within its policy: change → plan → deletion, one run at a time. */
export interface Enforcer {
  /**
   * Works on another directory from now on, or on none; nothing is deleted before {@link listed}. Settles when nothing
   * is done in the one before any more.
   */
  setDirectory(directory: Directory | undefined): Promise<void>;
  /** The directory has been listed as a whole. */
  listed(): void;
  setPolicy(policy: AcceptedPolicy): void;
  /** An archive came, changed or went. `isEvent` where that makes the policy act on its scopes. */
  changed(entry: Entry, isEvent: boolean): void;
  /** Acts on proofs that just came in. */
  proved(covers: ReadonlyArray<{ namespace: string; pod: string; container?: string | undefined }>): void;
  /** To be called about once a second: ages, retries, the disk, the pause. */
  tick(): void;
  status(): EnforcerStatus;
  /** Settles when the run under way, if any, has ended. */
  stop(): Promise<void>;
}

/** The policy in force, with the lookup of what governs whom. */
type InForce = AcceptedPolicy & { govern: (identity: ContainerIdentity) => Policy };

/** What a run stands on. It is given up where either of them is replaced. */
interface Ground {
  from: Directory;
  inForce: InForce;
}

interface Scope {
  namespace: string;
  pod?: string;
  container?: string;
}

interface Dirty {
  scopes: Map<string, Scope>;
  everything: boolean;
  /** When the first of these changes happened, on the monotonic clock. */
  sinceMs: number;
}

export function createEnforcer(options: EnforcerOptions): Enforcer {
  const { index, proofs, clock, log, events, isClockTrusted, readDisk } = options;

  let directory: Directory | undefined;
  let isListed = false;
  let policy: InForce | undefined;
  /** Scopes on which the present policy acts, where it does not act everywhere at once. */
  let active = new Set<string>();
  let dirty: Dirty | undefined;
  let running: Promise<void> | undefined;
  let stopped = false;

  const planned = new Map<string, Reason>();
  const deferred = new Set<string>();
  const unreachable = new Map<string, UnreachableLimit>();
  const failures = new Map<string, { attempts: number; notBeforeMs: number }>();
  let deleteErrors = 0;

  let paused = false;
  let trusted = true;
  let watermark: WatermarkState = { phase: "ready" };
  let disk: DiskReading | undefined;
  let diskReadAtMs = Number.NEGATIVE_INFINITY;
  /** Up to when the passing of ages has been looked at, and when the next one passes; wall clock. */
  let agesSeenMs = Number.NEGATIVE_INFINITY;
  let nextAgeMs = Number.NEGATIVE_INFINITY;

  /** What is to be looked at next; it begins now where nothing was. */
  function marked(): Dirty {
    dirty ??= { scopes: new Map(), everything: false, sinceMs: clock.monotonicMs() };
    return dirty;
  }

  function markEverything(): void {
    marked().everything = true;
    schedule();
  }

  /** Marks the widest scope that the policy of this container limits: all that its rules may look at. */
  function mark(identity: ContainerIdentity): void {
    if (policy === undefined) return;
    const { namespace, pod, container } = identity;
    const rule = policy.govern(identity);
    let scope: Scope = { namespace, pod, container };
    if (rule.level === "namespace" || rule.perNamespace !== undefined) scope = { namespace };
    else if (rule.level === "pod" || rule.perPod !== undefined) scope = { namespace, pod };
    marked().scopes.set(keyOf(scope), scope);
  }

  function activate(identity: ContainerIdentity): void {
    if (policy === undefined || policy.document.applyImmediately) return;
    for (const key of scopesOf(policy.govern(identity), identity)) active.add(key);
  }

  /** Forgets that a policy acts on scopes that hold no archive any more: the next one in them is an event anyway. */
  function deactivateEmpty({ identity }: Entry): void {
    if (active.size === 0 || identity === undefined) return;
    const { namespace, pod } = identity;
    if (isEmpty(index.inScope(identity))) active.delete(containerScope(identity));
    if (isEmpty(index.inScope({ namespace, pod }))) active.delete(podScope(identity));
    if (isEmpty(index.inScope({ namespace }))) active.delete(namespaceScope(identity));
  }

  function schedule(): void {
    if (running !== undefined || stopped || dirty === undefined) return;
    running = nextTurn()
      .then(run)
      .catch((err) => log.error({ err }, "enforcement failed"))
      .finally(() => {
        running = undefined;
        if (groundOf() !== undefined) schedule();
      });
  }

  /** What a run stands on; undefined while nothing may be deleted. */
  function groundOf(): Ground | undefined {
    if (stopped || !isListed || directory === undefined || policy === undefined) return undefined;
    return { from: directory, inForce: policy };
  }

  function isStill({ from, inForce }: Ground): boolean {
    return !stopped && policy === inForce && directory === from;
  }

  async function run(): Promise<void> {
    for (let ground = groundOf(); dirty !== undefined && ground !== undefined; ground = groundOf()) {
      const batch = dirty;
      dirty = undefined;
      const startedMs = clock.monotonicMs();
      await enforce(batch, ground);
      events.enforced({ durationMs: clock.monotonicMs() - startedMs });
    }
  }

  async function enforce(batch: Dirty, ground: Ground): Promise<void> {
    // Namespaces have nothing to do with each other: one after the other, nothing else waits for all of them.
    for (const scopes of partsOf(batch)) {
      await nextTurn();
      if (!isStill(ground) || !(await enforcePart(scopes, ground, batch.sinceMs))) return;
    }
    await enforceNode(ground, batch.sinceMs);
  }

  /** What is to be looked at, by namespace. */
  function partsOf({ scopes, everything }: Dirty): Iterable<Scope[]> {
    if (everything) {
      // A namespace that is gone is planned for too, if a limit of it was told: so that it is taken back.
      const told = [...unreachable.values()].map(({ namespace }) => namespace).filter((name) => name !== undefined);
      return [...new Set([...index.namespaces(), ...told])].map((namespace) => [{ namespace }]);
    }
    return Map.groupBy(scopes.values(), ({ namespace }) => namespace).values();
  }

  /** Plans for scopes of one namespace and carries that out; false where it was given up. */
  async function enforcePart(scopes: readonly Scope[], ground: Ground, sinceMs: number): Promise<boolean> {
    const archives = gather(scopes);
    const covers = proofs.current(clock.monotonicMs());
    const plan = planRetention({ ...situation(ground), archives, orphans: covers, node: undefined });
    const keys = new Set(scopes.map(keyOf));
    keepBooks(plan, archives, (limit) => isWithin(limit, keys));
    if (!(await carryOut(plan.deletions, ground, { sinceMs, isPass: false }))) return false;
    // A proof whose archives wait, to settle or to be looked into, is not used up by a plan that could not act on it.
    const waiting = [...plan.deferred.map(({ archive }) => archive), ...[...archives].filter(({ walked }) => !walked)];
    const covered = (some: Iterable<Archive>, cover: OrphanCover) =>
      [...some].some(({ identity }) => identity !== undefined && isCovered(identity, cover));
    proofs.use(covers.filter((cover) => covered(archives, cover) && !covered(waiting, cover)));
    return true;
  }

  /** The rules of the node as a whole need all archives, so they run only when one of their limits is broken. */
  async function enforceNode(ground: Ground, sinceMs: number): Promise<void> {
    const { maxTotalBytes, watermark: percent, minFreeBytes } = ground.inForce.document.node;
    let usage: DiskUsage | undefined;
    if (percent !== undefined || minFreeBytes !== undefined) {
      lookAtDisk();
      if (watermark.phase === "ready") usage = disk;
    }
    const isOverTotal = maxTotalBytes !== undefined && countedBytes() > maxTotalBytes;
    const isOverDisk = usage !== undefined && isDiskOverLimit();
    if (!isOverTotal && !isOverDisk) {
      if (watermark.phase === "ready") forgetUnreachable(isOfNode);
      else noteStalled();
      return;
    }
    const archives = new Set(index.all());
    const plan = planRetention({ ...situation(ground), archives, orphans: [], node: { disk: usage } });
    keepBooks(plan, archives, () => true);
    await carryOut(plan.deletions, ground, { sinceMs, isPass: plan.watermarkBytes > 0 });
  }

  function situation({ inForce }: Ground) {
    return {
      policy: inForce.document,
      govern: inForce.govern,
      nowMs: clock.wallMs(),
      isClockTrusted: isClockTrusted(),
      isActive: inForce.document.applyImmediately ? () => true : (scope: string) => active.has(scope),
    };
  }

  function gather(scopes: Iterable<Scope>): Set<Entry> {
    const archives = new Set<Entry>();
    for (const scope of scopes) {
      for (const archive of index.inScope(scope)) archives.add(archive);
      for (const archive of index.undecidedIn(scope)) archives.add(archive);
    }
    return archives;
  }

  function keepBooks(plan: Plan, archives: Iterable<Entry>, isReplanned: (limit: UnreachableLimit) => boolean): void {
    for (const { file } of archives) {
      planned.delete(file);
      deferred.delete(file);
    }
    for (const { archive, reason } of plan.deletions) planned.set(archive.file, reason);
    for (const { archive } of plan.deferred) deferred.add(archive.file);
    const known = new Set(unreachable.keys());
    forgetUnreachable(isReplanned);
    for (const limit of plan.unreachable) {
      const key = `${limit.limit} ${keyOf(limit)}`;
      if (!known.has(key)) log.warn({ ...limit }, "limit cannot be reached");
      unreachable.set(key, limit);
    }
  }

  function forgetUnreachable(isForgotten: (limit: UnreachableLimit) => boolean): void {
    for (const [key, limit] of unreachable) if (isForgotten(limit)) unreachable.delete(key);
  }

  /** Where the last pass freed nothing that shows: a limit that cannot be reached, by what it still wants. */
  function noteStalled(): void {
    if (watermark.phase !== "stalled" || disk === undefined) return;
    const wanted = Math.max(0, watermark.expectedAvailableBytes - disk.availableBytes);
    if (!unreachable.has("node_watermark ")) {
      log.warn({ wanted }, "deleting archives did not free the disk: other data fills it, or the files are held open");
    }
    unreachable.set("node_watermark ", { limit: "node_watermark", wanted, freed: 0, unit: "bytes" });
  }

  /** Carries a plan out. False where it was given up, because a new policy or directory came or the enforcer stops. */
  async function carryOut(
    deletions: readonly PlannedDeletion[],
    ground: Ground,
    { sinceMs, isPass }: { sinceMs: number; isPass: boolean },
  ): Promise<boolean> {
    const { from, inForce } = ground;
    if (inForce.document.mode === "DryRun" || deletions.length === 0) return true;
    if (isPaused(from)) {
      paused = true;
      return true;
    }
    const availableBeforeBytes = readDisk(from)?.availableBytes ?? 0;
    let freedBytes = 0;
    let isPassTaken = false;
    for (const { entry, asPlanned, reason } of remember(deletions)) {
      if (!isStill(ground)) return false;
      const { file } = entry;
      const isAsPlanned = () => index.get(file) === entry && entry.listed === asPlanned.listed;
      const failure = failures.get(file);
      if (!isAsPlanned() || !isDeletable(entry)) continue;
      if (failure !== undefined && clock.monotonicMs() < failure.notBeforeMs) continue;
      const removal = await removeArchive(from, asPlanned);
      if (removal.outcome === "deleted" || removal.outcome === "gone") {
        failures.delete(file);
        planned.delete(file);
        // Meanwhile another may have been seen under its name.
        if (isAsPlanned()) {
          index.remove(file);
          deactivateEmpty(entry);
        }
      }
      if (removal.outcome === "deleted") {
        freedBytes += asPlanned.allocated;
        isPassTaken ||= isPass && reason === "node_watermark";
        events.deleted({ entry: asPlanned, reason, sinceEventMs: clock.monotonicMs() - sinceMs });
      } else if (removal.outcome === "refused") {
        if (removal.why === REFUSED_BY_PAUSE) {
          paused = true;
          break;
        }
        log.info({ archive: file, why: removal.why }, "archive kept: it changed since the plan");
        events.stale(file);
      } else if (removal.outcome === "failed") {
        noteFailure(entry, removal);
      }
    }
    watermark = afterDeletions(watermark, {
      bytes: freedBytes,
      isPass: isPassTaken,
      availableBeforeBytes,
      nowMs: clock.monotonicMs(),
    });
    if (freedBytes > 0) lookAtDisk();
    return true;
  }

  /**
   * What the planned archives are just now. Entries change with their files, while what may be deleted is only ever what
   * the plan was made for.
   */
  function remember(deletions: readonly PlannedDeletion[]): Array<{ entry: Entry; asPlanned: Entry; reason: Reason }> {
    return deletions.map(({ archive, reason }) => {
      // A plan is made of the very entries that it was made for.
      const entry = archive as Entry;
      return { entry, asPlanned: { ...entry }, reason };
    });
  }

  function noteFailure(entry: Entry, { code, cause }: { code: string; cause: unknown }): void {
    const attempts = (failures.get(entry.file)?.attempts ?? 0) + 1;
    const restMs = Math.min(RETRY_MS.first * 2 ** (attempts - 1), RETRY_MS.longest);
    failures.set(entry.file, { attempts, notBeforeMs: clock.monotonicMs() + restMs });
    deleteErrors += 1;
    if (attempts === 1) log.error({ archive: entry.file, err: cause }, "archive cannot be deleted; it is tried again");
    events.deleteFailed({ entry, code });
  }

  function countedBytes(): number {
    let bytes = 0;
    for (const archive of index.all()) if (countsInBytes(archive)) bytes += archive.size;
    return bytes;
  }

  function isDiskOverLimit(): boolean {
    const node = policy?.document.node;
    if (disk === undefined || node === undefined) return false;
    const { usedBytes, availableBytes } = disk;
    const high = node.watermark?.high;
    return (
      (high !== undefined && usedBytes * 100 > high * (usedBytes + availableBytes)) ||
      (node.minFreeBytes !== undefined && availableBytes < node.minFreeBytes)
    );
  }

  function lookAtDisk(): void {
    if (directory === undefined) return;
    disk = readDisk(directory);
    diskReadAtMs = clock.monotonicMs();
    if (disk === undefined) return;
    const before = watermark.phase;
    watermark = afterLook(watermark, { disk, isOverLimit: isDiskOverLimit(), nowMs: clock.monotonicMs() });
    if (before !== watermark.phase) noteStalled();
  }

  /** Makes events of the ages that were reached since the last look: a scope whose archive grew too old is acted upon. */
  function watchAges(): void {
    const nowMs = clock.wallMs();
    if (policy === undefined || !isListed || !isClockTrusted() || nowMs < nextAgeMs) return;
    const { global, rules } = policy.document;
    nextAgeMs = Number.POSITIVE_INFINITY;
    if ([global, ...rules].every(({ maxAgeMs }) => maxAgeMs === undefined)) return;
    let isAllKnown = true;
    for (const entry of index.all()) {
      if (entry.identity === undefined) {
        isAllKnown &&= entry.walked;
        continue;
      }
      const { maxAgeMs } = policy.govern(entry.identity);
      if (maxAgeMs === undefined) continue;
      const reachedMs = entry.timeMs + maxAgeMs + 1;
      if (reachedMs > nowMs) nextAgeMs = Math.min(nextAgeMs, reachedMs);
      else if (reachedMs > agesSeenMs) {
        activate(entry.identity);
        mark(entry.identity);
      }
    }
    // Whose an archive is that is still to be walked, and so at which age it goes, is seen later.
    if (isAllKnown) agesSeenMs = nowMs;
    else nextAgeMs = Number.NEGATIVE_INFINITY;
  }

  function retryFailures(): void {
    const nowMs = clock.monotonicMs();
    for (const [file, { notBeforeMs }] of failures) {
      const identity = index.get(file)?.identity;
      if (identity === undefined || !planned.has(file)) failures.delete(file);
      else if (nowMs >= notBeforeMs) mark(identity);
    }
  }

  return {
    async setDirectory(next) {
      directory = next;
      isListed = false;
      active = new Set();
      planned.clear();
      deferred.clear();
      unreachable.clear();
      failures.clear();
      watermark = { phase: "ready" };
      disk = undefined;
      diskReadAtMs = Number.NEGATIVE_INFINITY;
      await running;
    },
    listed() {
      isListed = true;
      nextAgeMs = Number.NEGATIVE_INFINITY;
      markEverything();
    },
    setPolicy(next) {
      // A plan goes on where only the directive is a new one.
      if (policy?.digest === next.digest) return;
      policy = { ...next, govern: createGovernor(next.document) };
      active = new Set();
      // Space that is awaited under the old policy is still to come under the new one, if that wants it.
      lookAtDisk();
      agesSeenMs = next.acceptedAtMs;
      nextAgeMs = Number.NEGATIVE_INFINITY;
      markEverything();
    },
    changed(entry, isEvent) {
      if (index.get(entry.file) !== entry) {
        planned.delete(entry.file);
        deferred.delete(entry.file);
        deactivateEmpty(entry);
      }
      if (entry.identity !== undefined) {
        if (isEvent) activate(entry.identity);
        const maxAgeMs = policy?.govern(entry.identity).maxAgeMs;
        if (maxAgeMs !== undefined) nextAgeMs = Math.min(nextAgeMs, entry.timeMs + maxAgeMs + 1);
      }
      // Until it was walked, it stood in the way of every scope that its name allows.
      for (const reading of entry.identity === undefined || entry.name.isAmbiguous
        ? entry.candidates
        : [entry.identity]) {
        mark(reading);
      }
      schedule();
    },
    proved(covers) {
      for (const { namespace, pod, container } of covers) {
        for (const { identity } of index.inScope({ namespace, pod, container })) {
          activate(identity);
          mark(identity);
        }
      }
      schedule();
    },
    tick() {
      if (directory === undefined) return;
      const wasPaused = paused;
      paused = isPaused(directory);
      if (wasPaused !== paused) log.warn({ paused }, paused ? "deletion is paused" : "deletion goes on");
      const wasTrusted = trusted;
      trusted = isClockTrusted();
      if (wasTrusted && !trusted) log.warn("the clock jumped; ages wait for the next directive");
      if ((wasPaused && !paused) || (!wasTrusted && trusted)) markEverything();
      watchAges();
      retryFailures();
      if (watermark.phase === "waiting" || clock.monotonicMs() - diskReadAtMs >= DISK_EVERY_MS) {
        const before = watermark.phase;
        lookAtDisk();
        if ((isDiskOverLimit() || before === "waiting") && watermark.phase === "ready") marked();
      }
      schedule();
    },
    status: () => ({
      planned: policy?.document.mode === "DryRun" || paused ? planned : new Map(),
      unreachable: [...unreachable.values()],
      deleteErrors,
      isPaused: paused,
      isIdle: dirty === undefined && running === undefined && deferred.size === 0,
      disk,
    }),
    async stop() {
      stopped = true;
      await running;
    },
  };
}

function keyOf({ namespace, pod, container }: Partial<Scope>): string {
  return [namespace, pod, container].filter((name) => name !== undefined).join("/");
}

function isEmpty(items: Iterable<unknown>): boolean {
  for (const _ of items) return false;
  return true;
}

function isOfNode({ limit }: UnreachableLimit): boolean {
  return limit === "node_max_total_size" || limit === "node_watermark";
}

/** Whether a limit's scope lies in one of the scopes, given by their keys. */
function isWithin({ namespace, pod, container }: UnreachableLimit, scopes: ReadonlySet<string>): boolean {
  return (
    namespace !== undefined &&
    (scopes.has(namespace) ||
      (pod !== undefined && scopes.has(`${namespace}/${pod}`)) ||
      (container !== undefined && scopes.has(`${namespace}/${pod}/${container}`)))
  );
}

function isCovered(identity: ContainerIdentity, cover: Partial<Scope>): boolean {
  return (
    identity.namespace === cover.namespace &&
    identity.pod === cover.pod &&
    (cover.container === undefined || identity.container === cover.container)
  );
}
