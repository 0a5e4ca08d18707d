import { readFile } from "node:fs/promises";
import { readPolicy } from "@cro/shared/crd/read-policy";
import { type CompiledPolicy, formatProblem } from "@cro/shared/policy/compile";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { formatBytes } from "@cro/shared/quantity";
import type { Clock } from "./clock.ts";
import { hasAges } from "./enforce/ages.ts";
import { EXIT, InputError } from "./errors.ts";
import { enforceOnce, planOnce, type Scan, scanDirectory } from "./once.ts";
import {
  ARCHIVE_COLUMNS,
  archiveCells,
  archiveFacts,
  describeUnreachable,
  toExplainedJson,
  toJson,
  toTable,
} from "./present.ts";

/** Where a command reads from and writes to. */
export interface CommandContext {
  clock: Clock;
  /** Writes one line to stdout: results and nothing else. Settles once it is written. */
  out: (line: string) => Promise<void>;
  /** Writes one line to stderr: all that is said about the results. Settles once it is written. */
  err: (line: string) => Promise<void>;
  incompleteAfterMs: number;
}

/**
 * Reads a policy file; throws an {@link InputError} that names the field where it is wrong. Quantities without a unit
 * are pointed out, for they are taken as MiB.
 */
export async function loadPolicy(file: string, { err }: Pick<CommandContext, "err">): Promise<CompiledPolicy> {
  const text = await readFile(file, "utf8").catch((cause: Error) => {
    throw new InputError(`--policy: ${cause.message}`);
  });
  const result = readPolicy(text);
  if (!result.ok) {
    const [first, ...others] = result.problems.map((problem) =>
      problem.field === "" ? `${file} ${problem.message}` : formatProblem(problem),
    );
    const more = others.length > 0 ? ` (and ${others.length} more: ${others.join("; ")})` : "";
    throw new InputError(`${first}${more}`);
  }
  for (const problem of result.policy.unitless) await err(formatProblem(problem));
  return result.policy;
}

/** `agent list`: what lies in a directory. */
export async function listArchives(options: { directory: string; json: boolean }, context: CommandContext) {
  const scan = await scanAndTell(options.directory, context);
  if (options.json) for (const archive of scan.entries) await context.out(JSON.stringify(archiveFacts(archive)));
  else await context.out(toTable(ARCHIVE_COLUMNS, scan.entries.map(archiveCells)));
  return EXIT.done;
}

/** `agent plan`: what a policy would do with each archive, and why. */
export async function planArchives(
  options: { directory: string | undefined; policy: string; json: boolean },
  context: CommandContext,
) {
  const { document } = await loadPolicy(options.policy, context);
  const scan = await scanAndTell(options.directory ?? document.directory, context);
  await tellClock(scan, document, context);
  const { plan, decisions } = planOnce(scan, document, context.clock);
  if (options.json) for (const decision of decisions) await context.out(toExplainedJson(decision));
  else {
    const rows = decisions.map(({ archive, action, reason, policy, why }) => [
      action,
      reason ?? "-",
      ...archiveCells(archive),
      policy,
      why,
    ]);
    await context.out(toTable(["ACTION", "REASON", ...ARCHIVE_COLUMNS, "POLICY", "WHY"], rows));
  }
  for (const limit of plan.unreachable) await context.err(describeUnreachable(limit));
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
  const inForce = options.dryRun ? { ...document, mode: "DryRun" as const } : document;
  const { plan, outcomes, isHeldBack } = await enforceOnce(scan, inForce, context);
  if (options.json) for (const outcome of outcomes) await context.out(toJson(outcome));
  else {
    const rows = outcomes.map(({ archive, action, reason }) => [action, reason ?? "-", ...archiveCells(archive)]);
    await context.out(toTable(["ACTION", "REASON", ...ARCHIVE_COLUMNS], rows));
  }
  for (const limit of plan.unreachable) await context.err(describeUnreachable(limit));
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

async function scanAndTell(directory: string, { clock, err, incompleteAfterMs }: CommandContext): Promise<Scan> {
  const scan = await scanDirectory(directory, clock, incompleteAfterMs);
  for (const { file, why } of scan.ignored) await err(`${JSON.stringify(file)} ${why}; it is left alone`);
  for (const { file, problem } of scan.entries) if (problem !== undefined) await err(`${file} is kept: ${problem}`);
  return scan;
}
