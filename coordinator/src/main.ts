import { pino } from "pino";
import { startCoordinator } from "./app.ts";
import { parseArguments } from "./config.ts";
import { StartError } from "./errors.ts";

const parsed = parseArguments(process.argv.slice(2));
if (!parsed.ok) {
  (parsed.exitCode === 0 ? process.stdout : process.stderr).write(parsed.text);
  process.exitCode = parsed.exitCode;
} else {
  await run(parsed.config);
}

async function run(config: (typeof parsed & { ok: true })["config"]): Promise<void> {
  // Written synchronously, so that the last lines before an exit are not lost.
  const log = pino({ level: config.logLevel }, pino.destination({ dest: 1, sync: true }));
  const stopping = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, resolve);
  });
  try {
    const coordinator = await startCoordinator(config, { log });
    const signal = await stopping;
    log.info({ signal }, "coordinator stops");
    await coordinator.stop();
  } catch (cause) {
    if (!(cause instanceof StartError)) throw cause;
    process.stderr.write(`error: ${cause.message}\n`);
    process.exitCode = cause.exitCode;
  }
}
