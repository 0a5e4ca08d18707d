import { whenAskedToStop } from "@cro/shared/asked-to-stop";
import { pino, stdTimeFunctions } from "pino";
import { startCoordinator } from "./app.ts";
import { runCheck } from "./check.ts";
import { startClusterCoordinator } from "./cluster.ts";
import { type ParsedArguments, parseArguments } from "./config.ts";
import { StartError } from "./errors.ts";

const parsed = parseArguments(process.argv.slice(2));
if (!parsed.ok) {
  (parsed.exitCode === 0 ? process.stdout : process.stderr).write(parsed.text);
  process.exitCode = parsed.exitCode;
} else if ("check" in parsed) {
  process.exitCode = await runCheck(parsed.check, (line) => process.stdout.write(`${line}\n`));
} else {
  await run(parsed);
}

async function run(parsed: Exclude<ParsedArguments, { ok: false } | { check: unknown }>): Promise<void> {
  // Written synchronously, so that the last lines before an exit are not lost.
  const { logLevel } = "cluster" in parsed ? parsed.cluster : parsed.config;
  const format = { timestamp: stdTimeFunctions.isoTime, formatters: { level: (level: string) => ({ level }) } };
  const log = pino({ level: logLevel, ...format }, pino.destination({ dest: 1, sync: true }));
  const stopping = whenAskedToStop();
  try {
    const coordinator = await ("cluster" in parsed
      ? startClusterCoordinator(parsed.cluster, { log })
      : startCoordinator(parsed.config, { log }));
    const failure = coordinator.ended.then(
      () => new Error("it ended by itself"),
      (cause: Error) => cause,
    );
    const ending = await Promise.race([stopping, failure]);
    if (ending instanceof Error) {
      // What is left of it neither leads nor ever will: the next process does.
      log.fatal({ err: ending }, "coordinator cannot go on");
      process.exit(1);
    }
    log.info({ signal: ending }, "coordinator stops");
    await coordinator.stop();
  } catch (cause) {
    if (!(cause instanceof StartError)) throw cause;
    process.stderr.write(`error: ${cause.message}\n`);
    process.exitCode = cause.exitCode;
  }
}
