import { getOrMake } from "@cro/shared/get-or-make";
import type { Policy, ScopeLimits } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { compareAge, countsForNode, countsInBytes, isDeletable } from "../archive/archive.ts";
import type { ArchiveIndex } from "../inventory/archive-index.ts";
import type { Entry } from "../inventory/entry.ts";
import type { Beyond, PlanInput } from "../retention/plan.ts";
import { containerScope, workloadOf } from "../retention/scope.ts";
import { archivesOf, keyOf, limitedScopes, type Scope } from "./attention.ts";
import type { InForce } from "./in-force.ts";
import { createRoster, type Entered, type Roster, type Section } from "./roster.ts";

/** How many archives a scope must hold for a shortlist of it to be worth the keeping of their order. */
const LARGE = 256;
/** How many archives may have changed since a scope was planned for, if it is to have a shortlist. */
const MAX_FRESH = 64;
/** Key of the node as a whole in its roster, where all others are namespaces. */
export const NODE = "";

/** The archives that a plan must know, and what it is told of all others. */
export interface Shortlist {
  archives: ReadonlySet<Entry>;
  told: Pick<PlanInput, "beyond"> | Pick<PlanInput, "node">;
}

/**
 * Makes an event cost the same in a large scope as in a small one. Decides nothing: it chooses the few archives for which the
 * planner plans as it would for all of the scope. Those are what changed since the last plan, if that left nothing to do. For
 * each limit that this broke they are also the first that go, as many as must; and of the containers of all these, what floors
 * keep.
 */
export interface Shortlists {
  /** Forgets everything: under another policy other scopes are limited, and nothing is known to be done. */
  setPolicy(inForce: InForce): void;
  /** Forgets everything, as another directory is watched. */
  clear(): void;
  /** These scopes are planned for from now on: what changes from here on is fresh. */
  begin(scopes: Iterable<Scope>): void;
  /** A plan for these scopes was carried out; `isDone` if it left nothing to do. */
  end(scopes: Iterable<Scope>, isDone: boolean): void;
  /** More may be due for this container than what changed tells, as when time made an archive too old. */
  doubt(identity: ContainerIdentity): void;
  /** Gets ready for {@link of}, in steps of some milliseconds: what is kept of a scope is gathered once. */
  prepare(scope: Scope): Generator<void>;
  /** The same for {@link ofNode}. */
  prepareNode(): Generator<void>;
  /** The shortlist of a scope that is planned for as a whole; undefined where a plan must know all of its archives. */
  of(scope: Scope): Shortlist | undefined;
  /** The shortlist for the node's total size, which is over its limit, where no other rule asks for anything; undefined as above. */
  ofNode(maxTotalBytes: number): Shortlist | undefined;
}

/** The widest limited scope of its archives. */
interface Group {
  scope: Scope;
  /** Archives that changed since the last plan began. */
  fresh: Set<Entry>;
  /** Whether the last plan left nothing to do. */
  isDone: boolean;
}

export function createShortlists({
  index,
  large = LARGE,
  onLoss,
}: {
  index: ArchiveIndex<Entry>;
  /** From how many archives on a scope has shortlists. */
  large?: number;
  /** An archive counts for less than before, or is gone, in a scope that had a shortlist, by its key; the node's is empty. */
  onLoss: (entry: Entry, scope: string) => void;
}): Shortlists {
  const groups = new Map<string, Group>();
  /** Of the groups that had a shortlist, and of the node. */
  const rosters = new Map<string, Roster<Entry>>();
  let policy: InForce | undefined;

  index.onFiled((entry, isThere) => {
    if (rosters.size === 0 && groups.size === 0) return;
    const key = entry.identity && widestKey(entry.identity);
    for (const [scope, roster] of rosters) {
      const isIn = isThere && (scope === NODE || scope === key);
      if (isIn ? roster.put(entry) : roster.remove(entry)) onLoss(entry, scope);
    }
    if (isThere && key !== undefined) groups.get(key)?.fresh.add(entry);
  });

  function widestKey(identity: ContainerIdentity): string {
    return keyOf(limitedScopes(policy as InForce, identity)[0] as Scope);
  }

  function clear(): void {
    groups.clear();
    rosters.clear();
  }

  function rosterOf(scope: Scope, inForce: InForce): Roster<Entry> {
    const own = keyOf(scope);
    // Archives of one container mostly share what names it.
    const keys = new WeakMap<ContainerIdentity, readonly string[]>();
    return createRoster((entry) => {
      if (!countsInBytes(entry)) return [];
      let around = keys.get(entry.identity);
      if (around === undefined) {
        around = limitedScopes(inForce, entry.identity).map(keyOf);
        if (around[0] !== own) around = [];
        keys.set(entry.identity, around);
      }
      return around;
    });
  }

  /** Whether very many archives have it for their widest scope. */
  function isLarge(scope: Scope, { govern }: InForce): boolean {
    const key = keyOf(scope);
    let own = 0;
    for (const { identity } of archivesOf(scope, { index, govern })) {
      if (widestKey(identity) === key) own += 1;
      if (own >= large) return true;
    }
    return false;
  }

  function rosterOfNode(): Roster<Entry> {
    return createRoster((entry) => {
      if (!countsForNode(entry)) return [];
      return entry.identity === undefined ? [NODE] : [NODE, entry.identity.namespace];
    });
  }

  /** The group of a scope, if what has changed is all that a plan must know of. */
  function quietGroup(scope: Scope): Group | undefined {
    const group = groups.get(keyOf(scope));
    return group?.isDone && group.fresh.size <= MAX_FRESH ? group : undefined;
  }

  /** What floors keep, so many newest complete archives each. `atLeast` is kept of each container, whatever its floor. */
  function createFloors({ govern }: InForce, atLeast: number) {
    const known = new Map<string, ReadonlySet<Entry>>();
    const newestOf = (key: string, archives: () => Iterable<Entry>, count: number) =>
      count === 0 ? NONE : getOrMake(known, key, () => newestComplete(archives(), count));
    /** All that is kept of what one archive is kept with. */
    return function keptWith(identity: ContainerIdentity): Array<ReadonlySet<Entry>> {
      const governing = govern(identity);
      const { level, minCheckpoints = 0 } = governing;
      const ofContainer = (count: number) =>
        newestOf(`${count} ${containerScope(identity)}`, () => index.inScope(identity), count);
      if (level !== "workload") return [ofContainer(Math.max(minCheckpoints, atLeast))];
      const scope = { namespace: identity.namespace, workload: workloadOf(governing) };
      const ofNamesakes = function* () {
        for (const entry of archivesOf(scope, { index, govern })) {
          if (entry.identity.container === identity.container) yield entry;
        }
      };
      const key = `${keyOf(scope)} ${identity.container}`;
      return [newestOf(key, ofNamesakes, minCheckpoints), ofContainer(atLeast)];
    };
  }

  return {
    setPolicy(next) {
      policy = next;
      clear();
    },
    clear,
    begin(scopes) {
      for (const scope of scopes) groups.set(keyOf(scope), { scope, fresh: new Set(), isDone: false });
    },
    end(scopes, isDone) {
      for (const scope of scopes) {
        const key = keyOf(scope);
        const group = groups.get(key);
        // Another policy, or another directory, may have come meanwhile.
        if (policy === undefined || group === undefined) continue;
        group.isDone = isDone;
        if (!rosters.has(key) && !isLarge(scope, policy)) groups.delete(key);
      }
    },
    doubt(identity) {
      if (groups.size === 0) return;
      const group = groups.get(widestKey(identity));
      if (group !== undefined) group.isDone = false;
    },
    *prepare(scope) {
      const key = keyOf(scope);
      if (policy === undefined || rosters.has(key) || quietGroup(scope) === undefined) return;
      const roster = rosterOf(scope, policy);
      rosters.set(key, roster);
      yield* roster.fill(archivesOf(scope, { index, govern: policy.govern }));
    },
    *prepareNode() {
      if (policy === undefined || rosters.has(NODE) || index.size < large) return;
      const roster = rosterOfNode();
      rosters.set(NODE, roster);
      yield* roster.fill(index.all());
    },
    of(scope) {
      const group = quietGroup(scope);
      const roster = rosters.get(keyOf(scope));
      if (policy === undefined || group === undefined || roster === undefined) return undefined;
      const chosen = new Set<Entered<Entry>>();
      const touched = new Map<Section<Entry>, ScopeLimits>();
      for (const entry of group.fresh) {
        const entered = roster.entered(entry);
        if (entered === undefined) continue;
        chosen.add(entered);
        const identity = entry.identity as ContainerIdentity;
        const governing = policy.govern(identity);
        for (const limited of limitedScopes(policy, identity)) {
          const limits = limitsOf(limited, governing);
          const section = roster.get(keyOf(limited));
          if (limits !== undefined && section !== undefined) touched.set(section, limits);
        }
      }
      const keptWith = createFloors(policy, 0);
      for (const [section, { maxCheckpoints, maxTotalBytes }] of touched) {
        // The planner tells of pins that use a limit up, and must see them all.
        if (maxCheckpoints !== undefined && section.pinned >= maxCheckpoints) return undefined;
        const over = {
          archives: maxCheckpoints === undefined ? 0 : section.archives - maxCheckpoints,
          bytes: maxTotalBytes === undefined ? 0 : section.bytes - maxTotalBytes,
        };
        if (!addFirst(chosen, section, { over, keptWith })) return undefined;
      }
      addKept(chosen, { roster, keptWith });
      const beyond = sumsBeyond(chosen);
      return { archives: archivesIn(chosen), told: { beyond: (key) => beyond.get(roster.get(key)) } };
    },
    ofNode(maxTotalBytes) {
      const roster = rosters.get(NODE);
      const whole = roster?.get(NODE);
      // What is torn goes first, wherever it lies.
      if (policy === undefined || roster === undefined || whole === undefined || isTornDue(whole)) return undefined;
      const over = { archives: 0, bytes: whole.bytes - maxTotalBytes };
      const sections = [...index.namespaces()].flatMap((namespace) => roster.get(namespace) ?? []);
      sections.sort((a, b) => b.bytes - a.bytes);
      const keptWith = createFloors(policy, 1);
      const chosen = new Set<Entered<Entry>>();
      // Archives go from the namespace that has the most just then. One that has enough of them keeps more than this. What is
      // larger than the limit alone goes before, and is among these: by as much at least its namespace is over that.
      let least = 0;
      for (const section of sections) {
        if (section.bytes < least) break;
        const hasEnough = addFirst(chosen, section, { over, keptWith });
        if (hasEnough) least = Math.max(least, section.bytes - over.bytes);
      }
      addKept(chosen, { roster, keptWith });
      const beyond = sumsBeyond(chosen);
      // The planner asks for what archives of the shortlist lie in, alone.
      const bytesOf = (key: string) => (beyond.get(roster.get(key)) as Beyond).bytes;
      return {
        archives: archivesIn(chosen),
        told: { node: { disk: undefined, beyond: { bytes: bytesOf(NODE), bytesOf } } },
      };
    },
  };
}

const NONE: ReadonlySet<Entry> = new Set();

type KeptWith = (identity: ContainerIdentity) => Array<ReadonlySet<Entry>>;

function limitsOf({ pod, container, workload }: Scope, policy: Policy): ScopeLimits | undefined {
  if (workload !== undefined) return policy.perWorkload;
  if (container !== undefined) return policy.perContainer;
  return pod === undefined ? policy.perNamespace : policy.perPod;
}

/** Whether a rule of the node would begin with an incomplete archive: they are the first in the order. */
function isTornDue({ order }: Section<Entry>): boolean {
  for (const { isIncomplete, archive } of order) {
    if (!isIncomplete) return false;
    if (isDeletable(archive)) return true;
  }
  return false;
}

/** So many newest complete ones of these archives. */
function newestComplete(archives: Iterable<Entry>, count: number): ReadonlySet<Entry> {
  const newest: Entry[] = [];
  for (const entry of archives) {
    if (entry.state !== "complete") continue;
    const last = newest[count - 1];
    if (last !== undefined && compareAge(entry, last) < 0) continue;
    const place = newest.findIndex((other) => compareAge(entry, other) > 0);
    newest.splice(place < 0 ? newest.length : place, 0, entry);
    if (newest.length > count) newest.pop();
  }
  return new Set(newest);
}

/**
 * Adds the first of a section until what of them may go amounts to what it is over its limits by; false where it has too few.
 * What narrower limits take is over no more either, so that a rule never looks beyond these.
 */
function addFirst(
  chosen: Set<Entered<Entry>>,
  { order }: Section<Entry>,
  { over, keptWith }: { over: { archives: number; bytes: number }; keptWith: KeptWith },
): boolean {
  let { archives, bytes } = over;
  for (const entered of order) {
    if (archives <= 0 && bytes <= 0) return true;
    chosen.add(entered);
    const { archive, size } = entered;
    if (!isDeletable(archive)) continue;
    if (keptWith(archive.identity as ContainerIdentity).some((kept) => kept.has(archive))) continue;
    archives -= 1;
    bytes -= size;
  }
  return archives <= 0 && bytes <= 0;
}

/** Adds what floors keep beside those that were chosen: else they would keep others. */
function addKept(
  chosen: Set<Entered<Entry>>,
  { roster, keptWith }: { roster: Roster<Entry>; keptWith: KeptWith },
): void {
  for (const { archive } of [...chosen]) {
    for (const kept of keptWith(archive.identity as ContainerIdentity).flatMap((some) => [...some])) {
      // A complete archive of the same scope counts in it.
      chosen.add(roster.entered(kept) as Entered<Entry>);
    }
  }
}

/** What sections hold beside those that were chosen. */
function sumsBeyond(chosen: Iterable<Entered<Entry>>): Map<Section<Entry> | undefined, Beyond> {
  const sums = new Map<Section<Entry> | undefined, Beyond>();
  for (const { sections, size, inNumber } of chosen) {
    for (const section of sections) {
      const { archives, bytes } = sums.get(section) ?? section;
      sums.set(section, { archives: archives - (inNumber ? 1 : 0), bytes: bytes - size });
    }
  }
  return sums;
}

function archivesIn(chosen: Iterable<Entered<Entry>>): Set<Entry> {
  return new Set(Array.from(chosen, ({ archive }) => archive));
}
