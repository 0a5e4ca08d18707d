import { watch } from "node:fs";
import { opendir } from "node:fs/promises";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import { parseArchiveName } from "./archive/name.ts";
import type { Clock } from "./clock.ts";
import { carryOut, type Ending, newBasis, stepsOf } from "./enforce/carry-out.ts";
import { readDisk } from "./enforce/disk.ts";
import { isPaused, isPinned, PIN_SUFFIX, type Removal } from "./enforce/remove.ts";
import { InputError } from "./errors.ts";
import { type Directory, openDirectory, withPath } from "./inventory/directory.ts";
import { type Entry, findFile, newEntry, refresh, walkEntry } from "./inventory/entry.ts";
import { createReadSpace, READ_AHEAD } from "./inventory/read-ahead.ts";
import { type Decision, explainPlan } from "./retention/explain.ts";
import { type Plan, type PlanInput, planRetention } from "./retention/plan.ts";
import { containerScope } from "./retention/scope.ts";
import { withShares } from "./retention/shares.ts";

/** A directory, looked at once. */
export interface Scan {
  directory: Directory;
  entries: Entry[];
  /** What is named like an archive and is none, or could not be looked at, each with the reason. */
  ignored: Array<{ file: string; why: string }>;
  changes: Changes;
}

/** What happens in a directory from the moment before it is scanned. */
interface Changes {
  /** Names of files that changed since the scan began. */
  names: Set<string>;
  onChange: (name: string) => void;
}

/** What was decided about an archive, and what came of it where it was to be deleted. */
export interface Outcome extends Decision {
  archive: Entry;
  removal: Removal | undefined;
}

/**
 * Opens a directory and looks at every archive in it once, each walked to its end. As nobody watched before, an archive
 * counts as unchanged since its mtime. Throws an {@link InputError} where there is no such directory.
 */
export async function scanDirectory(path: string, clock: Clock, incompleteAfterMs: number): Promise<Scan> {
  if (!path.startsWith("/")) throw new InputError(`--directory: ${JSON.stringify(path)} is not an absolute path`);
  const opened = openDirectory(path, []);
  if (!opened.ok) throw new InputError(`--directory: ${opened.problem.message}`);
  const { directory } = opened;
  return readDirectory({ directory, changes: watchChanges(directory) }, clock, incompleteAfterMs);
}

/** Looks at every archive of an opened directory, as {@link scanDirectory} does; closes it if that fails. */
async function readDirectory(
  { directory, changes }: Pick<Scan, "directory" | "changes">,
  clock: Clock,
  incompleteAfterMs: number,
): Promise<Scan> {
  const scan: Scan = { directory, entries: [], ignored: [], changes };
  changes.names.clear();
  const space = createReadSpace(READ_AHEAD.some);
  try {
    for await (const { name: file } of await opendir(directory.at("."), { bufferSize: 1024 })) {
      const name = parseArchiveName(file);
      if (name === undefined) {
        if (/^checkpoint-.*\.tar$/s.test(file))
          scan.ignored.push({ file, why: "is not a name that the kubelet gives" });
        continue;
      }
      const found = findFile(directory, file);
      if (found.kind === "foreign") scan.ignored.push({ file, why: "is no regular file" });
      if (found.kind === "unreadable") scan.ignored.push({ file, why: withPath(found.cause, directory).message });
      if (found.kind !== "file") continue;
      const agoMs = clock.wallMs() - Number(found.stat.mtimeNs) / 1e6;
      const entry = newEntry(name, found.stat, {
        file,
        timeMs: name.timeMs,
        listed: scan.entries.length + 1,
        pinned: isPinned(directory, file),
        isNews: false,
        unchangedSinceMs: clock.monotonicMs() - agoMs,
      });
      const walk = walkEntry(directory, entry, space);
      let step = walk.next();
      while (!step.done) step = walk.next();
      entry.walked = step.value;
      refresh(entry, clock, { incompleteAfterMs, nodeName: undefined });
      scan.entries.push(entry);
    }
  } catch (cause) {
    directory.close();
    throw new InputError(`--directory: ${directory.path} cannot be listed: ${withPath(cause, directory).message}`);
  }
  return scan;
}

/**
 * Plans for all that a scan found: no pod is known to be gone, the clock is believed, and every scope is acted upon; only
 * for a look at what an agent that starts watching will do (`isWatching`), a policy waits for events where it says so.
 */
export function planOnce(
  scan: Scan,
  policy: PolicyDocument,
  clock: Clock,
  { isWatching = false } = {},
): { plan: Plan; decisions: Decision[] } {
  const disk = readDisk(scan.directory);
  const input: PlanInput = {
    archives: scan.entries,
    policy: withShares(policy, disk),
    govern: createGovernor(policy),
    nowMs: clock.wallMs(),
    orphans: [],
    isActive: () => !isWatching || policy.applyImmediately,
    node: { disk },
  };
  const plan = planRetention(input);
  return { plan, decisions: explainPlan(plan, input) };
}

/** How often a plan is made anew because the directory changed while it was carried out, before that is given up. */
const MAX_ROUNDS = 10;

/** What came of applying a policy once. */
export interface OnceResult {
  plan: Plan;
  outcomes: Outcome[];
  /** Why not all was deleted that the policy asks for; undefined if all of it was tried. */
  isHeldBack: "dry_run" | "paused" | "changing" | undefined;
}

/**
 * Applies a policy to what a scan found, unless it is a dry run or deletion is paused. If another hand changes an archive
 * that the plan rests on, the directory is scanned again and a new plan is made.
 */
export async function enforceOnce(
  scan: Scan,
  policy: PolicyDocument,
  { clock, incompleteAfterMs }: { clock: Clock; incompleteAfterMs: number },
): Promise<OnceResult> {
  const gone: Outcome[] = [];
  let current = scan;
  for (let round = 1; ; round += 1) {
    const { plan, decisions } = planOnce(current, policy, clock);
    const untouched = (): Outcome[] => decisions.map((one) => toOutcome(one, undefined));
    if (policy.mode === "DryRun") return { plan, outcomes: untouched(), isHeldBack: "dry_run" };
    if (isPaused(current.directory)) return { plan, outcomes: [...gone, ...untouched()], isHeldBack: "paused" };
    const removals = new Map<string, Removal>();
    const ending = await carryOutOnce(current, plan, (file, removal) => removals.set(file, removal));
    const outcomes = decisions.map((one) => toOutcome(one, removals.get(one.archive.file)));
    if (ending === "overtaken" && round < MAX_ROUNDS) {
      gone.push(...outcomes.filter(({ removal }) => removal?.outcome === "deleted"));
      current = await readDirectory(current, clock, incompleteAfterMs);
      continue;
    }
    const isHeldBack = ending === "paused" ? "paused" : ending === "overtaken" ? "changing" : undefined;
    return { plan, outcomes: [...gone, ...outcomes], isHeldBack };
  }
}

function toOutcome(decision: Decision, removal: Removal | undefined): Outcome {
  const archive = decision.archive as Entry;
  if (removal?.outcome !== "refused" && removal?.outcome !== "paused") return { ...decision, archive, removal };
  const why = removal.outcome === "paused" ? "deletion is paused" : `${removal.why} since the plan`;
  return { ...decision, archive, removal, action: "keep", reason: null, why };
}

async function carryOutOnce(
  { directory, entries, changes }: Scan,
  { deletions }: Plan,
  onRemoval: (file: string, removal: Removal) => void,
): Promise<Ending> {
  const basis = newBasis({ archives: entries });
  const byFile = new Map(entries.map((entry) => [entry.file, entry]));
  const byContainer = Map.groupBy(entries, ({ identity }) => identity && containerScope(identity));
  changes.onChange = (name) => {
    const entry = byFile.get(name.endsWith(PIN_SUFFIX) ? name.slice(0, -PIN_SUFFIX.length) : name);
    if (entry !== undefined && basis.archives.has(entry)) basis.isOvertaken = true;
  };
  // What the kernel has told so far is heard in the next turns.
  for (let turn = 0; turn < 2; turn += 1) await nextTurn();
  for (const name of changes.names) changes.onChange(name);
  return carryOut(
    stepsOf(deletions, (container) => byContainer.get(containerScope(container)) ?? []),
    {
      from: directory,
      basis,
      mayGoOn: () => true,
      mayDelete: () => true,
      onRemoval: ({ entry }, removal) => onRemoval(entry.file, removal),
    },
  );
}

/** Hears of files that change, as long as the process has other work; without inotify the last look alone must do. */
function watchChanges(directory: Directory): Changes {
  const changes: Changes = { names: new Set(), onChange: () => {} };
  try {
    const watcher = watch(directory.at("."), (_type, name) => {
      if (name === null) return;
      changes.names.add(name);
      changes.onChange(name);
    });
    watcher.on("error", () => {});
    watcher.unref();
  } catch {
    // Too many watches, or a file system that cannot tell.
  }
  return changes;
}
