import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Reason } from "@cro/shared/wire/report";
import { compareAge } from "../archive/archive.ts";
import type { Directory } from "../inventory/directory.ts";
import type { Entry } from "../inventory/entry.ts";
import type { PlannedDeletion } from "../retention/plan.ts";
import { containerScope } from "../retention/scope.ts";
import { type Removal, removeArchive } from "./remove.ts";

/**
 * What a plan rests on: the archives that it was made for, and the scopes of which it knows sums alone, by their keys. If
 * another hand changes one of those archives, or takes an archive of one of those scopes away, the plan ends and is made
 * anew. Archives that came since do not matter, for they can only add to what must go.
 */
export interface Basis {
  archives: Set<Entry>;
  scopes: ReadonlySet<string>;
  /** Those that the plan itself takes away. */
  going: Set<Entry>;
  isOvertaken: boolean;
}

/** A basis on which nothing has happened yet. */
export function newBasis({ archives, scopes }: { archives?: Iterable<Entry>; scopes?: ReadonlySet<string> }): Basis {
  return { archives: new Set(archives), scopes: scopes ?? new Set(), going: new Set(), isOvertaken: false };
}

/** One deletion of a plan. */
export interface Step {
  /** The archive, which changes with its file. */
  entry: Entry;
  /** Its number when the plan was made: it is raised whenever the content changes. */
  listed: number;
  reason: Reason;
  /** The newest complete archive that the plan leaves to the same container; undefined if there is none. */
  survivor: Entry | undefined;
}

/**
 * How carrying a plan out ended. `overtaken`: the plan is to be made anew. `stopped`: the policy or the directory is
 * another one, or the agent stops.
 */
export type Ending = "done" | "paused" | "overtaken" | "stopped";

/**
 * Deletes what was planned, one archive after the other, as long as the plan still rests on what is there. Archives that
 * the caller does not let go, and those that cannot be deleted, are passed over.
 */
export async function carryOut(
  steps: readonly Step[],
  options: {
    from: Directory;
    basis: Basis;
    /** Whether policy and directory are the ones that the plan was made for. */
    mayGoOn: () => boolean;
    mayDelete: (step: Step) => boolean;
    /** `asPlanned` is the archive as it was before its deletion. */
    onRemoval: (step: Step & { asPlanned: Entry }, removal: Removal) => void;
  },
): Promise<Ending> {
  const { from, basis, mayGoOn, mayDelete, onRemoval } = options;
  for (const step of steps) {
    if (!mayGoOn()) return "stopped";
    if (basis.isOvertaken) return "overtaken";
    const { entry, listed, survivor } = step;
    if (entry.listed !== listed || !mayDelete(step)) continue;
    const asPlanned = { ...entry };
    // What is seen of this file from now on is the plan's own doing.
    basis.archives.delete(entry);
    basis.going.add(entry);
    const ctimeNs = step.reason === "max_age_unmanaged" ? asPlanned.ctimeNs : undefined;
    const removal = await removeArchive(from, { ...asPlanned, ctimeNs }, survivor);
    if (removal.outcome !== "deleted") {
      basis.archives.add(entry);
      basis.going.delete(entry);
    }
    onRemoval({ ...step, asPlanned }, removal);
    if (removal.outcome === "paused") return "paused";
    if (removal.outcome === "refused" || removal.outcome === "gone") return "overtaken";
  }
  return "done";
}

/**
 * The steps of a plan.
 * @param archivesOf all archives of a container
 */
export function stepsOf(
  deletions: readonly PlannedDeletion[],
  archivesOf: (container: ContainerIdentity) => Iterable<Entry>,
): Step[] {
  const planned = new Set(deletions.map(({ archive }) => archive));
  const survivors = new Map<string, Entry | undefined>();
  return deletions.map(({ archive, reason }) => {
    // A plan is made of the very entries that it was made for.
    const entry = archive as Entry;
    const { identity } = entry;
    if (identity === undefined) return { entry, listed: entry.listed, reason, survivor: undefined };
    const container = containerScope(identity);
    let survivor = survivors.get(container);
    if (!survivors.has(container)) {
      const newest = newestKept(archivesOf(identity), planned);
      survivor = newest && { ...newest };
      survivors.set(container, survivor);
    }
    return { entry, listed: entry.listed, reason, survivor };
  });
}

function newestKept(archives: Iterable<Entry>, planned: ReadonlySet<unknown>): Entry | undefined {
  let newest: Entry | undefined;
  for (const archive of archives) {
    if (archive.state !== "complete" || planned.has(archive)) continue;
    if (newest === undefined || compareAge(archive, newest) > 0) newest = archive;
  }
  return newest;
}
