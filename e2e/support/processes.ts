import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { NODE_ENVIRONMENT, NODE_FLAGS } from "@cro/agent/node-flags";
import { NODE_FLAGS as COORDINATOR_FLAGS } from "@cro/coordinator/node-flags";
import { onTestFailed, onTestFinished, vi } from "vitest";

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Waits for a condition; looks every 20 ms. */
export const until = <T>(condition: () => T | Promise<T>, timeoutMs = 15_000): Promise<T> =>
  vi.waitFor(condition, { timeout: timeoutMs, interval: 20 });

/** A folder of its own, removed when the test is over. */
export function aFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cro-e2e-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/**
 * A port that nobody listens on at any of these addresses. It is below the ports that the kernel gives to whoever asks for
 * any (ip_local_port_range begins at 32768): it is bound only seconds later, and must not be given away meanwhile.
 */
export async function freePort(...hosts: string[]): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_000);
    const isFree = await Promise.all((hosts.length > 0 ? hosts : ["127.0.0.1"]).map((host) => canListen(port, host)));
    if (isFree.every(Boolean)) return port;
  }
}

async function canListen(port: number, host: string): Promise<boolean> {
  const server = createServer().listen(port, host);
  try {
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}

/** A process of this project, and all that it has said. */
export interface Running {
  process: ChildProcess;
  out: string[];
  err: string[];
  /** Its log, as far as stdout is JSON. */
  log: () => Array<Record<string, unknown>>;
  exited: Promise<number | null>;
  kill(signal?: NodeJS.Signals): Promise<number | null>;
}

/**
 * Runs one of the bundled commands until the test is over; `prefix` is a command that runs it in turn, `dist` where the
 * bundles are.
 */
export function run(
  command: string,
  args: string[],
  {
    env = {},
    prefix = [],
    dist = join(ROOT, "dist"),
  }: { env?: NodeJS.ProcessEnv; prefix?: string[]; dist?: string | undefined } = {},
): Running {
  const bundle = join(dist, `${command}.js`);
  if (!existsSync(bundle)) throw new Error(`${bundle} is missing`);
  const [flags, own] = command === "agent" ? [NODE_FLAGS, NODE_ENVIRONMENT] : [COORDINATOR_FLAGS, {}];
  const [program = "", ...rest] = [...prefix, process.execPath, ...flags, bundle, ...args];
  return track(spawn(program, rest, { env: { ...process.env, ...own, ...env }, cwd: ROOT }));
}

/** How many of a process's last lines are shown when its test fails. */
const LINES_SHOWN = 40;

/** Follows what a process says, and ends it with the test; a test that fails shows the last of it. */
function track(child: ChildProcess): Running {
  const running = observe(child);
  onTestFailed(() => show(running));
  onTestFinished(async () => {
    if (child.exitCode === null && child.signalCode === null) await running.kill("SIGKILL");
  });
  return running;
}

/** Follows what a process says. Whoever calls this ends the process. */
export function observe(child: ChildProcess): Running {
  const running: Running = {
    process: child,
    out: [],
    err: [],
    log: () =>
      running.out.flatMap((line) => {
        try {
          return [JSON.parse(line) as Record<string, unknown>];
        } catch {
          return [];
        }
      }),
    exited: once(child, "close").then(([code]) => code as number | null),
    async kill(signal = "SIGTERM") {
      child.kill(signal);
      return running.exited;
    },
  };
  if (child.stdout) createInterface(child.stdout).on("line", (line) => running.out.push(line));
  if (child.stderr) createInterface(child.stderr).on("line", (line) => running.err.push(line));
  return running;
}

/** Prints the last that a process said, if anything. */
export function show({ process: child, out, err }: Running): void {
  const lines = [...err.slice(-LINES_SHOWN), ...out.slice(-LINES_SHOWN)];
  if (lines.length === 0) return;
  const command = child.spawnargs.filter((word) => !word.includes("\n")).join(" ");
  process.stderr.write(`${command}\n${lines.map((line) => `  ${line}\n`).join("")}`);
}

/** The text of a page. */
export async function read(url: string): Promise<{ status: number; body: string }> {
  const response = await fetch(url);
  return { status: response.status, body: await response.text() };
}

/** Samples of an exposition by series: `name{label="value"}` → number. */
export function samples(exposition: string): Map<string, number> {
  const lines = exposition.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.slice(line.lastIndexOf(" ") + 1))]),
  );
}
