import { readFile } from "node:fs/promises";
import { text as readAll } from "node:stream/consumers";
import { readPolicy } from "@cro/shared/crd/read-policy";
import { type CompiledPolicy, formatProblem } from "@cro/shared/policy/compile";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { formatBytes } from "@cro/shared/quantity";
import { isUnmanagedState } from "./archive/archive.ts";
import type { Clock } from "./clock.ts";
import { hasAges } from "./enforce/ages.ts";
import { isPaused, PAUSE_FILE } from "./enforce/remove.ts";
import { EXIT, InputError } from "./errors.ts";
import { type Directory, openDirectory } from "./inventory/directory.ts";
import { JOURNAL_MS, readJournal } from "./journal.ts";
import { askAgent } from "./local/ask.ts";
import { checkArchiveName, pause, pin, resume, unpin, unpinExpired } from "./local/marks.ts";
import { enforceOnce, planOnce, type Scan, scanDirectory } from "./once.ts";
import {
  ARCHIVE_COLUMNS,
  archiveCells,
  compareOwners,
  describePins,
  describeUnreachable,
  explainedFacts,
  locatedFacts,
  toJson,
  toTable,
} from "./present.ts";
import { explainPlan } from "./retention/explain.ts";
import { planRetention } from "./retention/plan.ts";

/** Where a command reads from and writes to. */
export interface CommandContext {
  clock: Clock;
  /** Writes one line to stdout: results and nothing else. Settles once it is written. */
  out: (line: string) => Promise<void>;
  /** Writes one line to stderr: all that is said about the results. Settles once it is written. */
  err: (line: string) => Promise<void>;
  incompleteAfterMs: number;
  /** The node on which a directory lies that no agent is asked about. */
  node: string;
}

/**
 * Reads a policy file, `-` being stdin; throws an {@link InputError} that names the field where it is wrong. Quantities without a unit
 * are pointed out, for they are taken as MiB.
 */
export async function loadPolicy(file: string, { err }: Pick<CommandContext, "err">): Promise<CompiledPolicy> {
  const text = await (file === "-" ? readAll(process.stdin) : readFile(file, "utf8")).catch((cause: Error) => {
    throw new InputError(`--policy: ${cause.message}`);
  });
  const result = readPolicy(text);
  if (!result.ok) {
    const [first, ...others] = result.problems.map((problem) =>
      problem.field === "" ? `${file === "-" ? "stdin" : file} ${problem.message}` : formatProblem(problem),
    );
    const more = others.length > 0 ? ` (and ${others.length} more: ${others.join("; ")})` : "";
    throw new InputError(`${first}${more}`);
  }
  for (const problem of result.policy.unitless) await err(formatProblem(problem));
  return result.policy;
}

/** Where a command looks: a directory, or what the agent knows that runs with this state folder. */
export interface Place {
  directory: string | undefined;
  stateDir: string;
}

/** `agent list`: the archives of a directory, or those that the running agent knows. */
export async function listArchives({ json, ...place }: Place & { json: boolean }, context: CommandContext) {
  const { node, archives } = await readArchives(place, context);
  const sorted = [...archives].sort(compareOwners);
  if (json) for (const archive of sorted) await context.out(JSON.stringify(locatedFacts(archive, node)));
  else await context.out(toTable(ARCHIVE_COLUMNS, sorted.map(archiveCells)));
  return EXIT.done;
}

async function readArchives({ directory, stateDir }: Place, context: CommandContext) {
  if (directory !== undefined) {
    return { node: context.node, archives: (await scanAndTell(directory, context)).entries };
  }
  const { head, archives } = await askAgent(stateDir);
  return { node: head.node, archives };
}

/** What is planned, and by whom: the policy that is given, else the one that the running agent has. */
export type PlanPlace = Place & { policy: string | undefined };

/** `agent plan`: what a policy would do with each archive, and why. */
export async function planArchives({ json, ...place }: PlanPlace & { json: boolean }, context: CommandContext) {
  const { node, decisions, plan, held } = await makePlan(place, context);
  const sorted = decisions.toSorted((a, b) => compareOwners(a.archive, b.archive));
  if (json) for (const decision of sorted) await context.out(JSON.stringify(explainedFacts(decision, node)));
  else {
    const rows = sorted.map(({ archive, action, reason, policy, why }) => [
      action,
      reason ?? "-",
      ...archiveCells(archive),
      policy,
      why,
    ]);
    await context.out(toTable(["ACTION", "REASON", ...ARCHIVE_COLUMNS, "POLICY", "WHY"], rows));
  }
  for (const limit of plan.unreachable) await context.err(describeUnreachable(limit));
  for (const limit of plan.pinnedLimits) await context.err(describePins(limit));
  for (const why of held) await context.err(`nothing is deleted now: ${why}`);
  return EXIT.done;
}

/** `agent explain`: the same of one archive. */
export async function explainArchive(
  file: string,
  { json, ...place }: PlanPlace & { json: boolean },
  context: CommandContext,
) {
  checkArchiveName(file);
  const { node, decisions, held } = await makePlan(place, context);
  const decision = decisions.find(({ archive }) => archive.file === file);
  if (decision === undefined) {
    throw new InputError(`there is no archive ${file}; \`agent list --json\` tells those that are there`);
  }
  const facts = explainedFacts(decision, node);
  if (json) await context.out(JSON.stringify(facts));
  else
    await context.out(
      toTable(
        [],
        Object.entries(facts).map(([name, value]) => [`${name}:`, String(value ?? "-")]),
      ),
    );
  for (const why of held) await context.err(`nothing is deleted now: ${why}`);
  return EXIT.done;
}

async function makePlan({ policy, directory, stateDir }: PlanPlace, context: CommandContext) {
  if (policy === undefined) {
    if (directory !== undefined) {
      throw new InputError("--directory: give --policy, too; without both, the running agent is asked");
    }
    const { head, input } = await askAgent(stateDir);
    if (input === undefined) throw new InputError(`the agent cannot plan: ${head.held.join("; ")}`);
    const plan = planRetention(input);
    return { node: head.node, plan, decisions: explainPlan(plan, input), held: head.held };
  }
  const { document } = await loadPolicy(policy, context);
  const scan = await scanAndTell(directory ?? document.directory, context);
  await tellClock(scan, document, context);
  await tellUnmanaged(scan, document, context);
  await context.err(
    "planned from the files alone: which pods are gone, and what waits for an event, is not known here",
  );
  const held = isPaused(scan.directory) ? [`${scan.directory.path}/${PAUSE_FILE} is there`] : [];
  return { node: context.node, ...planOnce(scan, document, context.clock), held };
}

/** `agent pin`: makes every rule keep an archive. */
export function pinArchive(
  file: string,
  { reason, until: untilMs, ...place }: Place & { reason: string | undefined; until: number | undefined },
  context: CommandContext,
) {
  const until = untilMs === undefined ? undefined : new Date(untilMs).toISOString();
  if (untilMs !== undefined && untilMs <= context.clock.wallMs()) {
    throw new InputError(`--until: ${until} is over by this machine's clock`);
  }
  const then = until === undefined ? "" : `; \`agent unpin --expired\` unpins it from ${until} on`;
  return change(place, context, (directory) =>
    pin(directory, file, { reason, until }) ? `${file} is pinned${then}` : `${file} was pinned already`,
  );
}

/** `agent unpin`: takes the pin away. */
export function unpinArchive(file: string, place: Place, context: CommandContext) {
  return change(place, context, (directory) =>
    unpin(directory, file) ? `${file} is no longer pinned` : `${file} was not pinned`,
  );
}

/**
 * `agent unpin --expired`: takes the pins away whose time is over, by the time of the running agent, which knows whether it
 * may be trusted.
 */
export async function unpinExpiredArchives({ stateDir }: Pick<Place, "stateDir">, context: CommandContext) {
  const { head } = await askAgent(stateDir);
  const nowMs = head.plan?.nowMs;
  if (nowMs === undefined) {
    throw new InputError("--expired: the agent's clock is not confirmed by its coordinator just now; try again later");
  }
  return change({ directory: head.directory, stateDir }, context, (directory) => {
    const files = unpinExpired(directory, nowMs);
    return files.length === 0 ? "no pin is over" : files.map((file) => `${file} is no longer pinned`).join("\n");
  });
}

/** `agent pause`: stops all deletion in the directory. */
export function pauseDeletion(place: Place, context: CommandContext) {
  return change(place, context, (directory) => {
    const what = pause(directory) ? "deletion is paused" : "deletion was paused already";
    return `${what} in ${directory.path}; \`agent resume\` lets it go on`;
  });
}

/** `agent resume`: lets deletion go on. */
export function resumeDeletion(place: Place, context: CommandContext) {
  return change(place, context, (directory) => {
    const what = resume(directory) ? "deletion goes on" : "deletion was not paused";
    return `${what} in ${directory.path}`;
  });
}

async function change(place: Place, { out }: CommandContext, work: (directory: Directory) => string): Promise<number> {
  const directory = await openPlace(place);
  try {
    await out(work(directory));
    return EXIT.done;
  } finally {
    directory.close();
  }
}

/** Opens the directory that is given, else the one that the running agent watches. */
async function openPlace({ directory, stateDir }: Place): Promise<Directory> {
  const path = directory ?? (await askAgent(stateDir)).head.directory;
  if (path === "") throw new InputError("the running agent has no policy, and so no directory, yet; give --directory");
  if (!path.startsWith("/")) throw new InputError(`--directory: ${JSON.stringify(path)} is not an absolute path`);
  const opened = openDirectory(path, []);
  if (!opened.ok) throw new InputError(`--directory: ${opened.problem.message}`);
  return opened.directory;
}

/** `agent history`: what the journal in the directory tells of deletions, the oldest first. */
export async function tellHistory(
  { sinceMs, json, ...place }: Place & { sinceMs: number; json: boolean },
  { clock, node, out }: CommandContext,
) {
  const directory = await openPlace(place);
  try {
    const entries = await readJournal(directory, clock.wallMs() - Math.min(sinceMs, JOURNAL_MS)).catch(
      (cause: Error) => {
        throw new InputError(`the journal in ${directory.path} cannot be read: ${cause.message}`);
      },
    );
    if (json) for (const entry of entries) await out(JSON.stringify({ ...entry, node }));
    else {
      const rows = entries.map(({ time, file, bytes, reason, limit = "-", entry = "-", policy = "-" }) => [
        `${time.slice(0, 19)}Z`,
        file,
        formatBytes(bytes),
        reason,
        limit,
        entry,
        policy,
      ]);
      await out(toTable(["DELETED", "FILE", "SIZE", "REASON", "LIMIT", "ENTRY", "POLICY"], rows));
    }
    return EXIT.done;
  } finally {
    directory.close();
  }
}

/** `agent status`: what the running agent says of itself. */
export async function tellStatus({ stateDir, json }: { stateDir: string; json: boolean }, context: CommandContext) {
  const { head } = await askAgent(stateDir);
  const { plan, ...told } = head;
  if (json) {
    await context.out(JSON.stringify({ ...told, mode: plan?.policy.mode ?? null }));
    return EXIT.done;
  }
  const { accepted, directiveAgeSeconds, state, message } = head;
  const age = directiveAgeSeconds === undefined ? "none since the start" : `${Math.round(directiveAgeSeconds)} s ago`;
  const rows = [
    ["node:", head.node],
    ["version:", head.version],
    ["time:", head.time],
    ["directory:", `${head.directory === "" ? "-" : head.directory} (${message ?? state})`],
    ["archives:", String(head.archives)],
    [
      "policy:",
      accepted === undefined
        ? "-"
        : [
            ...(accepted.name === undefined ? [] : [accepted.name]),
            `${accepted.digest.slice(0, 12)}, term ${accepted.term}, revision ${accepted.revision}`,
          ].join(", "),
    ],
    ["mode:", plan?.policy.mode ?? "-"],
    ["last directive:", age],
    ["deleted:", `${head.deleted} since the start, ${head.deleteErrors} failed`],
    ...head.held.map((why) => ["held:", why]),
    ...head.unreachable.map((limit) => ["limit:", describeUnreachable(limit)]),
  ];
  await context.out(toTable([], rows));
  return EXIT.done;
}

/** `agent enforce`, and `npm start -- --once`: applies a policy to what is there, and ends. */
export async function enforceArchives(
  options: { directory: string | undefined; policy: string; json: boolean; dryRun: boolean },
  context: CommandContext,
) {
  const { document } = await loadPolicy(options.policy, context);
  const scan = await scanAndTell(options.directory ?? document.directory, context);
  await tellClock(scan, document, context);
  await tellUnmanaged(scan, document, context);
  const inForce = options.dryRun ? { ...document, mode: "DryRun" as const } : document;
  const { plan, outcomes, isHeldBack } = await enforceOnce(scan, inForce, context);
  if (options.json) for (const outcome of outcomes) await context.out(toJson(outcome));
  else {
    const rows = outcomes.map(({ archive, action, reason }) => [action, reason ?? "-", ...archiveCells(archive)]);
    await context.out(toTable(["ACTION", "REASON", ...ARCHIVE_COLUMNS], rows));
  }
  for (const limit of plan.unreachable) await context.err(describeUnreachable(limit));
  for (const limit of plan.pinnedLimits) await context.err(describePins(limit));
  const deleted = outcomes.filter(({ removal }) => removal?.outcome === "deleted");
  const nothing = deleted.length === 0 ? "nothing was deleted" : "nothing more was deleted";
  if (isHeldBack === "paused") await context.err(`${scan.directory.path}/.pause is there: ${nothing}`);
  if (isHeldBack === "dry_run") await context.err("dry run: nothing was deleted");
  let code: number = EXIT.done;
  if (isHeldBack === "changing") {
    await context.err(`${scan.directory.path} keeps changing while its archives are deleted: ${nothing}; try again`);
    code = EXIT.failed;
  }
  for (const { archive, removal } of outcomes) {
    if (removal?.outcome === "refused") await context.err(`${archive.file} was kept: it ${removal.why}`);
    if (removal?.outcome !== "failed") continue;
    await context.err(`${archive.file} cannot be deleted: ${(removal.cause as Error).message}`);
    code = EXIT.failed;
  }
  if (!options.json) {
    const bytes = deleted.reduce((sum, { archive }) => sum + archive.size, 0);
    await context.err(`${outcomes.length} archives, ${deleted.length} deleted, ${formatBytes(bytes)}B freed`);
  }
  return code;
}

/** A clock that is further from the newest archive than that deserves a word, in milliseconds. */
const FAR_MS = 30 * 86_400_000;

/** Says by which clock ages are told, if that lies far from the newest archive: it may be wrong. */
async function tellClock({ entries }: Scan, document: PolicyDocument, { clock, err }: CommandContext): Promise<void> {
  if (entries.length === 0 || !hasAges(document)) return;
  const newestMs = entries.reduce((newest, { timeMs }) => Math.max(newest, timeMs), Number.NEGATIVE_INFINITY);
  if (Math.abs(clock.wallMs() - newestMs) <= FAR_MS) return;
  const [now, newest] = [clock.wallMs(), newestMs].map((ms) => `${new Date(ms).toISOString().slice(0, 19)}Z`);
  await err(`ages are told by this machine's clock, ${now}; the newest archive is of ${newest}: check the clock`);
}

/** Says that maxAgeUnmanaged takes nothing of what it might, because nobody watched. */
async function tellUnmanaged({ entries }: Scan, { node }: PolicyDocument, { err }: CommandContext): Promise<void> {
  const count = entries.filter(({ state }) => isUnmanagedState(state)).length;
  if (node.maxAgeUnmanagedMs === undefined || count === 0) return;
  const files = count === 1 ? "1 file is" : `${count} files are`;
  await err(
    `maxAgeUnmanaged takes nothing here: ${files} unidentified or unread, only an agent that runs sees for how long`,
  );
}

async function scanAndTell(directory: string, { clock, err, incompleteAfterMs }: CommandContext): Promise<Scan> {
  const scan = await scanDirectory(directory, clock, incompleteAfterMs);
  for (const { file, why } of scan.ignored) await err(`${JSON.stringify(file)} ${why}; it is left alone`);
  for (const { file, problem } of scan.entries) if (problem !== undefined) await err(`${file} is kept: ${problem}`);
  return scan;
}
