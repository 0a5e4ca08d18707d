import { type Archive, compareAge, countsInNumber } from "../archive/archive.ts";
import { sortByAge } from "../retention/plan.ts";

/** Archives in the order in which they go, and their sums, by key: kept from change to change, and not gathered and sorted anew. */
export interface Roster<A extends Archive> {
  /** Enters an archive as it is now, or strikes it out where it has no keys any more. Returns whether it counts for less. */
  put(archive: A): boolean;
  /** Strikes an archive out; returns whether it was entered. */
  remove(archive: A): boolean;
  /**
   * Enters very many into a roster that is empty, in steps of some milliseconds. What is put or removed between two steps is
   * entered in the end, and is no loss: nobody may ask of the roster before.
   */
  fill(archives: Iterable<A>): Generator<void>;
  get(key: string): Section<A> | undefined;
  /** What an archive is entered as. */
  entered(archive: A): Entered<A> | undefined;
}

/** What is entered under one key. */
export interface Section<A> {
  readonly key: string;
  /** Incomplete ones first, then the oldest. */
  readonly order: ReadonlyArray<Entered<A>>;
  /** How many of them limits in numbers count. */
  readonly archives: number;
  /** How many of those are pinned. */
  readonly pinned: number;
  /** st_size of all. */
  readonly bytes: number;
}

/** An archive as it was when it was entered: it itself changes with its file. */
export interface Entered<A> extends Pick<Archive, "file" | "timeMs" | "mtimeNs" | "size"> {
  readonly archive: A;
  readonly sections: ReadonlyArray<Section<A>>;
  readonly isIncomplete: boolean;
  readonly isPinned: boolean;
  readonly inNumber: boolean;
}

/** @param keysOf the keys under which an archive counts; none where it does not count */
export function createRoster<A extends Archive>(keysOf: (archive: A) => readonly string[]): Roster<A> {
  type Kept = { -readonly [K in keyof Section<A>]: Section<A>[K] } & { order: Entered<A>[] };
  const sections = new Map<string, Kept>();
  const entries = new Map<A, Entered<A>>();
  /** What was put, or removed, while it is filled. */
  let meanwhile: Map<A, boolean> | undefined;

  function sectionOf(key: string): Kept {
    let section = sections.get(key);
    if (section === undefined) {
      section = { key, order: [], archives: 0, pinned: 0, bytes: 0 };
      sections.set(key, section);
    }
    return section;
  }

  function enter(archive: A): Entered<A> | undefined {
    const keys = keysOf(archive);
    if (keys.length === 0) return undefined;
    const { file, timeMs, mtimeNs, size, pinned, state } = archive;
    const entered: Entered<A> = {
      ...{ archive, file, timeMs, mtimeNs, size },
      sections: keys.map(sectionOf),
      isIncomplete: state === "incomplete",
      isPinned: pinned,
      inNumber: countsInNumber(archive),
    };
    entries.set(archive, entered);
    count(entered, 1);
    return entered;
  }

  function count({ sections: around, size, inNumber, isPinned }: Entered<A>, sign: 1 | -1): void {
    for (const section of around as Kept[]) {
      section.bytes += sign * size;
      if (!inNumber) continue;
      section.archives += sign;
      if (isPinned) section.pinned += sign;
    }
  }

  function strike(entered: Entered<A>): void {
    entries.delete(entered.archive);
    count(entered, -1);
    for (const { key, order } of entered.sections as Kept[]) {
      order.splice(placeOf(entered, order), 1);
      if (order.length === 0) sections.delete(key);
    }
  }

  function put(archive: A): boolean {
    const before = entries.get(archive);
    if (before !== undefined) strike(before);
    const after = enter(archive);
    for (const { order } of (after?.sections ?? []) as Kept[]) {
      order.splice(placeOf(after as Entered<A>, order), 0, after as Entered<A>);
    }
    return before !== undefined && isLess(after, before);
  }

  function remove(archive: A): boolean {
    const before = entries.get(archive);
    if (before !== undefined) strike(before);
    return before !== undefined;
  }

  function note(archive: A, isThere: boolean): boolean {
    if (meanwhile === undefined) return isThere ? put(archive) : remove(archive);
    meanwhile.set(archive, isThere);
    return false;
  }

  return {
    put: (archive) => note(archive, true),
    remove: (archive) => note(archive, false),
    *fill(archives) {
      meanwhile = new Map();
      const incomplete: A[] = [];
      const others: A[] = [];
      for (const archive of inSteps(archives)) {
        if (archive === undefined) yield;
        else (archive.state === "incomplete" ? incomplete : others).push(archive);
      }
      const inOrder = (yield* sortByAge(incomplete)).concat(yield* sortByAge(others));
      for (const archive of inSteps(inOrder)) {
        if (archive === undefined) yield;
        else if (!meanwhile.has(archive)) {
          const entered = enter(archive);
          for (const { order } of (entered?.sections ?? []) as Kept[]) order.push(entered as Entered<A>);
        }
      }
      const late = meanwhile;
      meanwhile = undefined;
      for (const [archive, isThere] of late) note(archive, isThere);
    },
    get: (key) => sections.get(key),
    entered: (archive) => entries.get(archive),
  };
}

/** How many archives are taken in one step: some milliseconds of work. */
const ARCHIVES_A_STEP = 1024;

/** The archives, and undefined where a step is over. */
function* inSteps<A>(archives: Iterable<A>): Generator<A | undefined> {
  let taken = 0;
  for (const archive of archives) {
    yield archive;
    taken += 1;
    if (taken % ARCHIVES_A_STEP === 0) yield undefined;
  }
}

/** Whether a plan that counted on an archive as it was may take too much of what is left. */
function isLess<A>(after: Entered<A> | undefined, before: Entered<A>): boolean {
  if (after === undefined || after.size < before.size || after.isPinned !== before.isPinned) return true;
  if (before.inNumber && !after.inNumber) return true;
  return before.sections.some((section) => !after.sections.includes(section));
}

/** Negative where a goes before b. */
function compareOrder<A>(a: Entered<A>, b: Entered<A>): number {
  if (a.isIncomplete !== b.isIncomplete) return a.isIncomplete ? -1 : 1;
  return compareAge(a, b);
}

/** Where an archive stands in an order, or would stand. */
function placeOf<A>(entered: Entered<A>, order: ReadonlyArray<Entered<A>>): number {
  let low = 0;
  let high = order.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (compareOrder(order[middle] as Entered<A>, entered) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}
