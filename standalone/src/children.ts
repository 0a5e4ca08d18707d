import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";

/**
 * How long a process that ended rests before it is started again, in milliseconds: `first` after a long life, else twice as
 * long as the last time.
 */
const RESTART_MS = { first: 500, longest: 10_000 } as const;
/** How long a process that lived this long counts as having started well, in milliseconds. */
const STABLE_MS = 10_000;
/** How long a process that is asked to end may take for it, in milliseconds. */
const STOP_MS = 10_000;

/** A process that is started again whenever it ends, as the kubelet does with a container. */
export interface Child {
  readonly pid: number | undefined;
  /** Asks it to end, kills it if it does not, and settles when it has ended. */
  stop(): Promise<void>;
}

/**
 * Starts a command of this project and keeps it running. Its log is taken line by line. One that ends before it ever
 * became ready with an error that a restart cannot mend, such as a port in use, is given up.
 */
export function keepRunning(options: {
  command: string;
  /** Node's own flags, and what is added to its environment. */
  nodeFlags?: readonly string[];
  nodeEnvironment?: Readonly<Record<string, string>>;
  args: string[];
  onLog: (line: Record<string, unknown>) => void;
  onRestart: (code: number | null) => void;
  onGivenUp: (problem: string) => void;
}): Child {
  const { command, nodeFlags = [], nodeEnvironment = {}, args, onLog, onRestart, onGivenUp } = options;
  let child: ChildProcess;
  let isStopping = false;
  let restMs: number = RESTART_MS.first;
  let timer: NodeJS.Timeout | undefined;
  let isFirst = true;

  function start(): void {
    const startedMs = performance.now();
    const lastWords: string[] = [];
    // A group of its own: the terminal's Ctrl-C reaches only us, and we stop them in order. The IPC channel tells it of our
    // end, whatever that is.
    child = spawn(process.execPath, ["--enable-source-maps", ...nodeFlags, command, ...args], {
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      detached: true,
      env: { ...process.env, ...nodeEnvironment },
    });
    if (child.stdout) createInterface(child.stdout).on("line", (line) => onLog(parseLog(line)));
    if (child.stderr) createInterface(child.stderr).on("line", (line) => lastWords.push(line));
    child.once("close", (code) => {
      if (isStopping) return;
      const livedMs = performance.now() - startedMs;
      if (isFirst && livedMs < STABLE_MS && (code === 1 || code === 2)) {
        onGivenUp(lastWords.join("\n") || `it ended with ${code}`);
        return;
      }
      isFirst = false;
      restMs = livedMs > STABLE_MS ? RESTART_MS.first : Math.min(restMs * 2, RESTART_MS.longest);
      onRestart(code);
      timer = setTimeout(start, restMs);
    });
  }

  start();
  return {
    get pid() {
      return child.pid;
    },
    async stop() {
      isStopping = true;
      clearTimeout(timer);
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise<void>((resolve) => child.once("close", () => resolve()));
      child.kill("SIGTERM");
      const killing = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
      await ended;
      clearTimeout(killing);
    },
  };
}

function parseLog(line: string): Record<string, unknown> {
  try {
    return JSON.parse(line) as Record<string, unknown>;
  } catch {
    return { msg: line };
  }
}
