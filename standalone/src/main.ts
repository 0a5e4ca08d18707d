import { createHash } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { systemClock } from "@cro/agent/clock";
import { type CommandContext, enforceArchives, loadPolicy } from "@cro/agent/commands";
import { EXIT, InputError } from "@cro/agent/errors";
import { NODE_ENVIRONMENT, NODE_FLAGS } from "@cro/agent/node-flags";
import { planOnce, scanDirectory } from "@cro/agent/once";
import { createOutput, exitCodeFor } from "@cro/agent/output";
import { ARCHIVE_COLUMNS, archiveCells, describeUnreachable, toJson, toTable } from "@cro/agent/present";
import { NODE_FLAGS as COORDINATOR_FLAGS } from "@cro/coordinator/node-flags";
import { whenAskedToStop } from "@cro/shared/asked-to-stop";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { formatBytes } from "@cro/shared/quantity";
import { VERSION } from "@cro/shared/version";
import { PORTS } from "@cro/shared/wire/identities";
import { Command, CommanderError } from "commander";
import { keepRunning } from "./children.ts";
import { whenReaderGone } from "./reader-gone.ts";
import { addSample, seedSamples } from "./samples.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const SAMPLE_POLICY = join(root, "config/samples/getting-started.yaml");
const SAMPLE_FOLDER = join(root, "sample-checkpoints");
const FIXTURES = join(root, "fixtures");

const INCOMPLETE_AFTER_MS = 10 * 60_000;
/** How often, and how many times, a sample archive arrives where there was nothing but samples to begin with. */
const SAMPLES = { everyMs: 8000, times: 3 } as const;
const NODE = "this-machine";
const COMMAND = "npm start --";

interface Options {
  policy?: string;
  directory?: string;
  once: boolean;
  dryRun: boolean;
  json: boolean;
  agentPort: number;
  agentMetricsPort: number;
  coordinatorMetricsPort: number;
}

const stdout = createOutput(process.stdout);
const stderr = createOutput(process.stderr);
const { line: out } = stdout;
const { line: err } = stderr;
const exitCode = (earned: number) => exitCodeFor(earned, { name: COMMAND, out: stdout, err: stderr });
const context: CommandContext = { clock: systemClock, out, err, incompleteAfterMs: INCOMPLETE_AFTER_MS, node: NODE };

/** Whether nothing is given: then a folder of samples is what is kept. */
const isSample = ({ policy, directory }: Options) => policy === undefined && directory === undefined;

/** Runs coordinator and agent, as a cluster runs them, on this machine until it is stopped. */
async function watch(options: Options): Promise<number> {
  const { dryRun, json } = options;
  const say = json ? err : out;
  const policyFile = options.policy ?? SAMPLE_POLICY;
  const policy = await loadPolicy(policyFile, context);
  const directory = options.directory ?? (options.policy === undefined ? SAMPLE_FOLDER : policy.document.directory);
  if (isSample(options) && (await seedSamples(SAMPLE_FOLDER, FIXTURES, Date.now()))) {
    say(`Seeded ${SAMPLE_FOLDER} with archives that a real kubelet and CRIU made.`);
  }
  await showPlan({ directory, document: policy.document, dryRun, json, say });
  for (const field of ["nodeSelector", "nodeMatchExpressions"] as const) {
    if (policy[field] !== undefined) say(`The policy's ${field} is not looked at: this machine is the only node.`);
  }

  const over = Promise.race([whenAskedToStop(), whenReaderGone(), stdout.lost, stderr.lost]).then(() =>
    exitCode(EXIT.done),
  );
  // If that is so already, nobody is there to start anything for.
  const early = await Promise.race([over, setImmediate()]);
  if (early !== undefined) return early;

  const state = await makeStateFolder(directory);
  const host = "127.0.0.1";
  const addresses = {
    api: `${host}:${options.agentPort}`,
    agentMetrics: `${host}:${options.agentMetricsPort}`,
    coordinatorMetrics: `${host}:${options.coordinatorMetricsPort}`,
  };
  const { promise: ended, resolve: end } = Promise.withResolvers<number>();
  const giveUp = (name: string) => (problem: string) => {
    err(`${name}: ${problem}`);
    end(EXIT.failed);
  };
  let isApplied = false;
  const coordinator = keepRunning({
    command: join(root, "dist/coordinator.js"),
    nodeFlags: COORDINATOR_FLAGS,
    args: [
      "serve",
      ...["--policy-file", policyFile, "--directory", directory, ...(dryRun ? ["--dry-run"] : [])],
      ...["--agent", `https://${addresses.api}`, "--agent-node", NODE, "--agent-pod-uid", NODE],
      ...["--state-dir", join(state, "coordinator"), "--certs-dir", join(state, "certificates")],
      ...["--metrics-address", addresses.coordinatorMetrics],
    ],
    onLog: (line) => {
      if (line.msg === "agent applied policy" && !isApplied) {
        isApplied = true;
        say("The coordinator pushed the policy over mutual TLS; the agent applies it.");
        if (isSample(options)) letSamplesArrive(say);
      }
      if (line.msg === "policy loaded" && isApplied) say("The policy changed and was read again.");
      if (line.msg === "policy refused, keeping the last good one") {
        say(`The policy file is wrong and the last good policy stays: ${JSON.stringify(line.problems)}`);
      }
    },
    onRestart: (code) => say(`The coordinator ended (${code ?? "killed"}) and is started again.`),
    onGivenUp: giveUp("coordinator"),
  });
  const agent = keepRunning({
    command: join(root, "dist/agent.js"),
    nodeFlags: NODE_FLAGS,
    nodeEnvironment: NODE_ENVIRONMENT,
    args: [
      "serve",
      ...["--node-name", NODE, "--pod-uid", NODE],
      ...["--certs-dir", join(state, "certificates/agent"), "--state-dir", join(state, "agent")],
      ...["--api-address", addresses.api, "--metrics-address", addresses.agentMetrics],
    ],
    onLog: (line) => showAgentLog(line, { json, say }),
    onRestart: (code) => say(`The agent ended (${code ?? "killed"}) and is started again.`),
    onGivenUp: giveUp("agent"),
  });
  say(`Coordinator (pid ${coordinator.pid}): http://${addresses.coordinatorMetrics}/metrics`);
  say(`Agent       (pid ${agent.pid}): http://${addresses.agentMetrics}/metrics`);
  say(`Watching ${directory}; Ctrl-C ends it.`);

  void over.then(end);
  const code = await ended;
  clearInterval(arrivals);
  await Promise.all([coordinator.stop(), agent.stop()]);
  return code;
}

/** Prints what is there and what will be done with it. A policy that does not act at once keeps until the next event. */
async function showPlan(options: {
  directory: string;
  document: PolicyDocument;
  dryRun: boolean;
  json: boolean;
  say: (line: string) => Promise<void>;
}): Promise<void> {
  const { directory, document, dryRun, json, say } = options;
  const scan = await scanDirectory(directory, systemClock, INCOMPLETE_AFTER_MS);
  for (const { file, why } of scan.ignored) await err(`${JSON.stringify(file)} ${why}; it is left alone`);
  const { plan, decisions } = planOnce(scan, document, systemClock, { isWatching: true });
  const bytes = scan.entries.reduce((sum, { size }) => sum + size, 0);
  await say(`Found ${scan.entries.length} archives, ${formatBytes(bytes)}B, in ${directory}.`);
  if (json) for (const decision of decisions) await out(toJson(decision));
  else if (decisions.length > 0) {
    const rows = decisions.map(({ archive, action, reason, why }) => [
      action,
      reason ?? "-",
      ...archiveCells(archive),
      why,
    ]);
    await out(toTable(["ACTION", "REASON", ...ARCHIVE_COLUMNS, "WHY"], rows));
  }
  for (const limit of plan.unreachable) await err(describeUnreachable(limit));
  if (dryRun || document.mode === "DryRun") await say("Dry run: nothing is deleted.");
  scan.directory.close();
}

function showAgentLog(
  line: Record<string, unknown>,
  { json, say }: { json: boolean; say: (line: string) => void },
): void {
  const { msg, archive, namespace, pod, container, bytes, reason } = line;
  const size = formatBytes(Number(bytes ?? 0));
  if (msg === "archive arrived") say(`arrived  ${String(archive)} (${size}B)`);
  else if (msg === "archive deleted") {
    if (!json) out(`deleted  ${String(archive)} (${size}B): ${String(reason)} of ${namespace}/${pod}/${container}`);
    else {
      const facts = { file: archive, namespace, pod, container, size: bytes, state: line.state, pinned: false };
      out(JSON.stringify({ ...facts, action: "delete", reason }));
    }
  } else if (["warn", "error", "fatal"].includes(String(line.level)) && msg !== "waiting for certificates") {
    const { message } = (line.err ?? {}) as { message?: string };
    const detail = [archive ?? line.directory, line.why ?? line.problem ?? message].filter(Boolean).join(": ");
    err(`agent: ${String(msg)}${detail === "" ? "" : ` (${detail})`}`);
  }
}

let arrivals: NodeJS.Timeout | undefined;
function letSamplesArrive(say: (line: string) => void): void {
  let left: number = SAMPLES.times;
  arrivals = setInterval(() => {
    left -= 1;
    if (left === 0) clearInterval(arrivals);
    say("A container is checkpointed …");
    addSample(SAMPLE_FOLDER, FIXTURES, Date.now()).catch((cause: Error) => err(cause.message));
  }, SAMPLES.everyMs);
}

/** What coordinator and agent remember of this directory between two runs. */
async function makeStateFolder(directory: string): Promise<string> {
  const base = process.env.XDG_STATE_HOME ?? join(homedir(), ".local/state");
  const key = createHash("sha256").update(directory).digest("hex").slice(0, 16);
  const folder = join(base, "checkpoint-restore-operator", key);
  for (const part of ["coordinator", "agent", "certificates"]) {
    await mkdir(join(folder, part), { recursive: true, mode: 0o700 });
  }
  return folder;
}

async function main(): Promise<number> {
  const port = (value: string) => Number(value);
  const program = new Command(COMMAND)
    .description("Keeps a directory of checkpoint archives within a policy: coordinator and agent on this machine.")
    .version(VERSION)
    .option("--policy <file>", "a policy resource in YAML (default: config/samples/getting-started.yaml)")
    .option("--directory <path>", "the archives (default: the policy's; without a policy a folder of samples)")
    .option("--once", "apply the policy to what is there, print a line an archive, and end", false)
    .option("--dry-run", "delete nothing", false)
    .option("--json", "one JSON object a line on stdout, all else on stderr", false)
    .option("--agent-port <port>", "the agent's API", port, PORTS.agentApi)
    .option("--agent-metrics-port <port>", "the agent's /metrics", port, PORTS.agentMetrics)
    .option("--coordinator-metrics-port <port>", "the coordinator's /metrics", port, PORTS.coordinatorMetrics)
    .addHelpText(
      "after",
      `
Exit codes: 0 done, 1 some deletion failed, 2 bad input.

Examples:
  npm start
  npm start -- --policy policy.yaml --directory /var/lib/kubelet/checkpoints --dry-run
  npm start -- --policy policy.yaml --directory /var/lib/kubelet/checkpoints --once --json`,
    )
    .exitOverride();
  try {
    const options = program.parse().opts<Options>();
    if (!options.once) return await watch(options);
    // Nobody deletes on with nobody above, not even what was asked for.
    void whenAskedToStop().then(() => process.exit(EXIT.failed));
    const { policy = SAMPLE_POLICY, directory, json, dryRun } = options;
    if (isSample(options)) await seedSamples(SAMPLE_FOLDER, FIXTURES, Date.now());
    const folder = options.policy === undefined ? (directory ?? SAMPLE_FOLDER) : directory;
    return await exitCode(await enforceArchives({ policy, directory: folder, json, dryRun }, context));
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.badInput;
    if (!(error instanceof InputError)) throw error;
    await err(error.message);
    return EXIT.badInput;
  }
}

process.exitCode = await main();
