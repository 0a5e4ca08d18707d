import { hostname } from "node:os";
import { anyHost } from "@cro/shared/any-host";
import { whenAskedToStop } from "@cro/shared/asked-to-stop";
import { VERSION } from "@cro/shared/version";
import { PORTS } from "@cro/shared/wire/identities";
import { Command, CommanderError, Option } from "commander";
import { startAgent } from "./app.ts";
import { systemClock } from "./clock.ts";
import type { CommandContext } from "./commands.ts";
import { parseAbsolutePath, parseAddress, parseMilliseconds, type ServeConfig } from "./config.ts";
import { EXIT, InputError } from "./errors.ts";
import { GRANULARITIES } from "./granularity.ts";
import { createOutput, exitCodeFor } from "./output.ts";

const DEFAULT_INCOMPLETE_AFTER_MS = 10 * 60_000;

const DEFAULT_WAIT_FOR_COORDINATOR_MS = 30_000;

const incompleteAfter = () =>
  new Option("--incomplete-after <duration>", "how long a torn archive must be unchanged to count as incomplete")
    .argParser(parseMilliseconds)
    .default(DEFAULT_INCOMPLETE_AFTER_MS, "10m");

/** Runs a command that ends by itself. Returns its exit code, once all that it has to say is written. */
async function command(
  work: (context: CommandContext) => Promise<number>,
  { incompleteAfter: incompleteAfterMs }: { incompleteAfter: number },
): Promise<number> {
  const out = createOutput(process.stdout);
  const err = createOutput(process.stderr);
  const code = await work({ clock: systemClock, out: out.line, err: err.line, incompleteAfterMs });
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
    .description("Print the archives of a directory.")
    .requiredOption("--directory <path>", "the directory")
    .option("--json", "one JSON object a line", false)
    .addOption(incompleteAfter())
    .action(async (options) => {
      const { listArchives } = await import("./commands.ts");
      code = await command((context) => listArchives(options, context), options);
    })
    .addHelpText("after", "\nExample:\n  agent list --directory /var/lib/kubelet/checkpoints");

  program
    .command("plan")
    .description(
      "Print for every archive which policy governs it, what would be done with it and why. Deletes nothing.",
    )
    .requiredOption("--policy <file>", "a policy resource in YAML")
    .option("--directory <path>", "the directory (default: the policy's checkpointDirectory)")
    .option("--json", "one JSON object a line", false)
    .addOption(incompleteAfter())
    .action(async (options) => {
      const { planArchives } = await import("./commands.ts");
      code = await command((context) => planArchives(options, context), options);
    })
    .addHelpText("after", "\nExample:\n  agent plan --policy policy.yaml --directory /var/lib/kubelet/checkpoints");

  program
    .command("enforce")
    .description("Apply a policy to a directory once.")
    .requiredOption("--policy <file>", "a policy resource in YAML")
    .option("--directory <path>", "the directory (default: the policy's checkpointDirectory)")
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
