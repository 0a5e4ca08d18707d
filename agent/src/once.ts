import { opendir } from "node:fs/promises";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import { parseArchiveName } from "./archive/name.ts";
import type { Clock } from "./clock.ts";
import { readDisk } from "./enforce/disk.ts";
import { isPaused, isPinned, type Removal, removeArchive } from "./enforce/remove.ts";
import { InputError } from "./errors.ts";
import { type Directory, openDirectory } from "./inventory/directory.ts";
import { type Entry, findFile, newEntry, refresh, walkEntry } from "./inventory/entry.ts";
import { createReadSpace, READ_AHEAD } from "./inventory/read-ahead.ts";
import { type Decision, explainPlan } from "./retention/explain.ts";
import { type Plan, type PlanInput, planRetention } from "./retention/plan.ts";

/** A directory, looked at once. */
export interface Scan {
  directory: Directory;
  entries: Entry[];
  /** What is named like an archive and is none, or could not be looked at, each with the reason. */
  ignored: Array<{ file: string; why: string }>;
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
  const scan: Scan = { directory, entries: [], ignored: [] };
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
      if (found.kind === "unreadable") scan.ignored.push({ file, why: (found.cause as Error).message });
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
      refresh(entry, clock, { incompleteAfterMs });
      scan.entries.push(entry);
    }
  } catch (cause) {
    directory.close();
    throw new InputError(`--directory: ${path} cannot be listed: ${(cause as Error).message}`);
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
  const input: PlanInput = {
    archives: scan.entries,
    policy,
    govern: createGovernor(policy),
    nowMs: clock.wallMs(),
    isClockTrusted: true,
    orphans: [],
    isActive: () => !isWatching || policy.applyImmediately,
    node: { disk: readDisk(scan.directory) },
  };
  const plan = planRetention(input);
  return { plan, decisions: explainPlan(plan, input) };
}

/** Applies a policy to what a scan found, unless it is a dry run or deletion is paused. */
export async function enforceOnce(
  scan: Scan,
  policy: PolicyDocument,
  clock: Clock,
): Promise<{ plan: Plan; outcomes: Outcome[]; isHeldBack: "dry_run" | "paused" | undefined }> {
  const { plan, decisions } = planOnce(scan, policy, clock);
  const isHeldBack = policy.mode === "DryRun" ? "dry_run" : isPaused(scan.directory) ? "paused" : undefined;
  const removals = new Map<string, Removal>();
  if (isHeldBack === undefined) {
    for (const { archive } of plan.deletions) {
      removals.set(archive.file, await removeArchive(scan.directory, archive as Entry));
    }
  }
  const outcomes = decisions.map((decision): Outcome => {
    const archive = decision.archive as Entry;
    const removal = removals.get(archive.file);
    if (removal?.outcome !== "refused") return { ...decision, archive, removal };
    return { ...decision, archive, removal, action: "keep", reason: null, why: `${removal.why} since the plan` };
  });
  return { plan, outcomes, isHeldBack };
}
