import { hostname } from "node:os";
import { anyHost } from "@cro/shared/any-host";
import { whenAskedToStop } from "@cro/shared/asked-to-stop";
import { VERSION } from "@cro/shared/version";
import { PORTS } from "@cro/shared/wire/identities";
import { Command, CommanderError, Option } from "commander";
import { startAgent } from "./app.ts";
import { systemClock } from "./clock.ts";
import type { CommandContext } from "./commands.ts";
import { parseAbsolutePath, parseAddress, parseMilliseconds, parseTime, type ServeConfig } from "./config.ts";
import { EXIT, InputError } from "./errors.ts";
import { GRANULARITIES } from "./granularity.ts";
import { JOURNAL_MS } from "./journal.ts";
import { createOutput, exitCodeFor } from "./output.ts";

const DEFAULT_INCOMPLETE_AFTER_MS = 10 * 60_000;

/** The node, as far as the environment tells it. */
const NODE = process.env.NODE_NAME ?? hostname();

const DEFAULT_WAIT_FOR_COORDINATOR_MS = 30_000;

const incompleteAfter = () =>
  new Option("--incomplete-after <duration>", "how long a torn archive must be unchanged to count as incomplete")
    .argParser(parseMilliseconds)
    .default(DEFAULT_INCOMPLETE_AFTER_MS, "10m");

/** Where the chart mounts it, so that a command in the agent's container finds the agent. */
const DEFAULT_STATE_DIR = "/state";

const stateDir = () =>
  new Option("--state-dir <path>", "state folder of the running agent")
    .argParser(parseAbsolutePath)
    .default(DEFAULT_STATE_DIR);

const directory = (otherwise = "that of the running agent") =>
  new Option("--directory <path>", `the directory of archives (default: ${otherwise})`);

const policy = () =>
  new Option("--policy <file>", "a policy resource in YAML, - for stdin (default: the policy of the running agent)");

const EXAMPLE = "checkpoint-web-0_team-main-2026-11-22T22:20:17Z.tar";

const exitsAnd = (...examples: string[]) =>
  `\nExit codes: 0 done, 1 failed, 2 bad input or no agent.\n\nExamples:\n${examples.map((line) => `  ${line}`).join("\n")}`;

/** Runs a command that ends by itself. Returns its exit code, once all that it has to say is written. */
async function command(
  work: (context: CommandContext) => Promise<number>,
  { incompleteAfter: incompleteAfterMs }: { incompleteAfter: number } = {
    incompleteAfter: DEFAULT_INCOMPLETE_AFTER_MS,
  },
): Promise<number> {
  const out = createOutput(process.stdout);
  const err = createOutput(process.stderr);
  const code = await work({ clock: systemClock, out: out.line, err: err.line, incompleteAfterMs, node: NODE });
  return exitCodeFor(code, { name: "agent", out, err });
}

async function serve(
  options: Omit<ServeConfig, "incompleteAfterMs" | "waitForCoordinatorMs"> & {
    incompleteAfter: number;
    waitForCoordinator: number;
  },
): Promise<number> {
  const { incompleteAfter: incompleteAfterMs, waitForCoordinator: waitForCoordinatorMs, ...rest } = options;
  const agent = await startAgent({ ...rest, incompleteAfterMs, waitForCoordinatorMs }).catch(
    (cause: NodeJS.ErrnoException) => {
      if (cause.code === "EADDRINUSE" || cause.code === "EACCES" || cause.code === "EADDRNOTAVAIL") {
        throw new InputError(`--metrics-address: ${cause.message}; name another one`);
      }
      throw cause;
    },
  );
  const asked = whenAskedToStop().then(() => ({ code: EXIT.done, problem: undefined }));
  const { code, problem } = await Promise.race([agent.ended, asked]);
  if (problem !== undefined) process.stderr.write(`agent: ${problem}\n`);
  await agent.stop();
  return code;
}

async function main(): Promise<number> {
  let code: number = EXIT.done;
  const program = new Command("agent")
    .description("Keeps the container checkpoints of one node within their policy.")
    .version(VERSION)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "agent: ")) });

  program
    .command("serve")
    .description("Watch a directory, obey the coordinator, report to it and to Prometheus.")
    .addOption(new Option("--node-name <name>", "the node").env("NODE_NAME").default(hostname(), "the host's name"))
    .addOption(new Option("--pod-uid <uid>", "UID of the agent's pod").env("POD_UID").default("none"))
    .requiredOption("--certs-dir <path>", "folder of tls.crt, tls.key and ca.crt", parseAbsolutePath)
    .requiredOption("--state-dir <path>", "folder to remember the last policy in", parseAbsolutePath)
    .option(
      "--checkpoint-root <path>",
      "mounted directory in which a policy's directory must lie; may be repeated (default: any directory)",
      (value: string, roots: string[]) => [...roots, parseAbsolutePath(value)],
      [],
    )
    .option("--api-address <host:port>", "the coordinator's way in, mutual TLS", parseAddress, {
      host: anyHost(),
      port: PORTS.agentApi,
    })
    .option("--metrics-address <host:port>", "metrics and probes, plain HTTP", parseAddress, {
      host: anyHost(),
      port: PORTS.agentMetrics,
    })
    .addOption(
      new Option("--metrics-granularity <scope>", "labels of archive metrics")
        .choices(GRANULARITIES)
        .default("namespace"),
    )
    .addOption(incompleteAfter())
    .addOption(
      new Option(
        "--wait-for-coordinator <duration>",
        "how long the last policy waits for the coordinator after a start",
      )
        .argParser(parseMilliseconds)
        .default(DEFAULT_WAIT_FOR_COORDINATOR_MS, "30s"),
    )
    .option("--log-level <level>", "trace, debug, info, warn, error", "info")
    .action(async ({ checkpointRoot, ...options }) => {
      try {
        code = await serve({ ...options, checkpointRoots: checkpointRoot });
      } finally {
        // What still holds the process must not: a connection that does not end, or what a failed start leaves behind.
        setTimeout(() => process.exit(), 1000).unref();
      }
    })
    .addHelpText(
      "after",
      "\nExample:\n  agent serve --certs-dir /certs --state-dir /state --checkpoint-root /var/lib/kubelet/checkpoints",
    );

  program
    .command("list")
    .description(
      "Print the archives, by namespace, pod, container and time: those of a directory, or all that the running agent knows.",
    )
    .addOption(directory())
    .addOption(stateDir())
    .option("--json", "one JSON object a line", false)
    .addOption(incompleteAfter())
    .action(async (options) => {
      const { listArchives } = await import("./commands.ts");
      code = await command((context) => listArchives(options, context), options);
    })
    .addHelpText("after", exitsAnd("agent list", "agent list --directory /var/lib/kubelet/checkpoints"));

  program
    .command("plan")
    .description(
      "Print for every archive which policy governs it, what is done with it and why. Deletes nothing. Without a policy, " +
        "that of the running agent, with all that it knows.",
    )
    .addOption(policy())
    .addOption(directory("the policy's checkpointDirectory"))
    .addOption(stateDir())
    .option("--json", "one JSON object a line", false)
    .addOption(incompleteAfter())
    .action(async (options) => {
      const { planArchives } = await import("./commands.ts");
      code = await command((context) => planArchives(options, context), options);
    })
    .addHelpText("after", exitsAnd("agent plan", "agent plan --policy - <policy.yaml"));

  program
    .command("explain")
    .argument("<archive>", "name of the archive's file")
    .description("Print which policy governs an archive, what is done with it and why. Deletes nothing.")
    .addOption(policy())
    .addOption(directory("the policy's checkpointDirectory"))
    .addOption(stateDir())
    .option("--json", "a JSON object", false)
    .addOption(incompleteAfter())
    .action(async (archive, options) => {
      const { explainArchive } = await import("./commands.ts");
      code = await command((context) => explainArchive(archive, options, context), options);
    })
    .addHelpText("after", exitsAnd(`agent explain ${EXAMPLE}`));

  program
    .command("pin")
    .argument("<archive>", "name of the archive's file")
    .description("Keep an archive, whatever any policy says, until it is unpinned: makes ARCHIVE.keep beside it.")
    .option("--reason <text>", "why; kept in that file for whoever finds it")
    .addOption(
      new Option(
        "--until <time>",
        "note until when it is wanted, e.g. 2027-01-31 or 2027-01-31T12:00:00Z; `unpin --expired` unpins it from then on",
      ).argParser(parseTime),
    )
    .addOption(directory())
    .addOption(stateDir())
    .action(async (archive, options) => {
      const { pinArchive } = await import("./commands.ts");
      code = await command((context) => pinArchive(archive, options, context));
    })
    .addHelpText("after", exitsAnd(`agent pin ${EXAMPLE} --reason "case 4711"`));

  program
    .command("unpin")
    .argument("[archive]", "name of the archive's file")
    .description("Let policies have an archive again: removes ARCHIVE.keep, if that is a regular file.")
    .option("--expired", "all those whose --until is over, in the running agent's directory", false)
    .addOption(directory())
    .addOption(stateDir())
    .action(async (archive: string | undefined, { expired, ...place }) => {
      const { unpinArchive, unpinExpiredArchives } = await import("./commands.ts");
      if ((archive === undefined) !== expired || (expired && place.directory !== undefined)) {
        throw new InputError("unpin: give the name of one archive, or --expired alone");
      }
      code = await command((context) =>
        archive === undefined ? unpinExpiredArchives(place, context) : unpinArchive(archive, place, context),
      );
    })
    .addHelpText("after", exitsAnd(`agent unpin ${EXAMPLE}`, "agent unpin --expired"));

  program
    .command("pause")
    .description("Stop all deletion on this node: makes .pause in the directory.")
    .addOption(directory())
    .addOption(stateDir())
    .action(async (options) => {
      const { pauseDeletion } = await import("./commands.ts");
      code = await command((context) => pauseDeletion(options, context));
    })
    .addHelpText("after", exitsAnd("agent pause"));

  program
    .command("resume")
    .description("Let deletion go on: removes .pause, if that is a regular file.")
    .addOption(directory())
    .addOption(stateDir())
    .action(async (options) => {
      const { resumeDeletion } = await import("./commands.ts");
      code = await command((context) => resumeDeletion(options, context));
    })
    .addHelpText("after", exitsAnd("agent resume"));

  program
    .command("history")
    .description("Print what was deleted on this node within the last 30 days, as far as its journal reaches.")
    .addOption(
      new Option("--since <duration>", "only of so long ago").argParser(parseMilliseconds).default(JOURNAL_MS, "30d"),
    )
    .addOption(directory())
    .addOption(stateDir())
    .option("--json", "one JSON object a line", false)
    .action(async ({ since: sinceMs, ...options }) => {
      const { tellHistory } = await import("./commands.ts");
      code = await command((context) => tellHistory({ ...options, sinceMs }, context));
    })
    .addHelpText("after", exitsAnd("agent history --since 24h"));

  program
    .command("status")
    .description("Print what the running agent says of itself.")
    .addOption(stateDir())
    .option("--json", "a JSON object", false)
    .action(async (options) => {
      const { tellStatus } = await import("./commands.ts");
      code = await command((context) => tellStatus(options, context));
    })
    .addHelpText("after", exitsAnd("agent status"));

  program
    .command("enforce")
    .description("Apply a policy to a directory once.")
    .requiredOption("--policy <file>", "a policy resource in YAML, - for stdin")
    .addOption(directory("the policy's checkpointDirectory"))
    .option("--dry-run", "delete nothing", false)
    .option("--json", "one JSON object a line", false)
    .addOption(incompleteAfter())
    .action(async (options) => {
      const { enforceArchives } = await import("./commands.ts");
      code = await command((context) => enforceArchives(options, context), options);
    })
    .addHelpText(
      "after",
      "\nExit codes: 0 done, 1 some deletion failed, 2 bad input.\n\nExample:\n  agent enforce --policy policy.yaml --dry-run",
    );

  try {
    await program.parseAsync();
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.badInput;
    if (error instanceof InputError) {
      process.stderr.write(`agent: ${error.message}\n`);
      return EXIT.badInput;
    }
    throw error;
  }
}

process.exitCode = await main();
