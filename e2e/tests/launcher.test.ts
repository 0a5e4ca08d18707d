import { spawn } from "node:child_process";
import { describe, expect, it, onTestFinished } from "vitest";
import { processTree, stillRunning, type TreeProcess } from "../support/process-tree.ts";
import { aFolder, freePort, observe, ROOT, until } from "../support/processes.ts";
import { aPolicyFile } from "../support/standalone.ts";

/** Each process of the chain, from the top down, and how it is started without what is above it. */
const COMMANDS = {
  npm: ["npm", "start", "--"],
  "run.mjs": [process.execPath, "scripts/run.mjs", "start"],
  standalone: [process.execPath, "dist/standalone.js"],
} as const;
type Level = keyof typeof COMMANDS;

/** Runs `npm start`, or a lower part of its chain, until coordinator and agent run. Returns all processes. */
async function start(level: Level = "npm", prefix: string[] = []) {
  const [api, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
  const [program = "", ...words] = [...prefix, ...COMMANDS[level]];
  const args = [
    ...words,
    ...["--policy", aPolicyFile({}), "--directory", aFolder(), "--agent-port", `${api}`],
    ...["--agent-metrics-port", `${agentMetrics}`, "--coordinator-metrics-port", `${coordinatorMetrics}`],
  ];
  const env = { ...process.env, XDG_STATE_HOME: aFolder() };
  // A process group of its own, so that no signal of a test reaches the test's own processes.
  const child = spawn(program, args, { cwd: ROOT, env, detached: true });
  const running = observe(child);
  const pid = child.pid ?? 0;
  let tree: TreeProcess[] = [];
  onTestFinished(() => {
    for (const { pid: left } of stillRunning(tree)) process.kill(left, "SIGKILL");
  });
  await until(() => {
    tree = processTree(pid);
    const commands = tree.map(({ command }) => command).join("\n");
    for (const part of ["dist/standalone.js", "dist/agent.js", "dist/coordinator.js"]) expect(commands).toContain(part);
    expect(running.out).not.toEqual([]);
  }, 120_000);
  return { child, pid, tree };
}

describe("npm start ends all that it started", () => {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"] as const;
  const levels = Object.keys(COMMANDS) as Level[];
  const cases = levels.flatMap((level) => signals.map((signal) => [signal, level] as const));
  it.each(cases)(
    "on %s to %s",
    async (signal, level) => {
      const { pid, tree } = await start(level);
      process.kill(pid, signal);
      await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
    },
    240_000,
  );

  it("on Ctrl-C, which reaches every process of the terminal at once", async () => {
    const { pid, tree } = await start();
    process.kill(-pid, "SIGINT");
    await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
  }, 240_000);

  it.each<[string, string[]]>([
    ["a socket", []],
    ["a pipe", ["sh", "-c", '"$@" | cat', "sh"]],
  ])(
    "when nobody reads what it writes into %s, though there is nothing to tell",
    async (_, prefix) => {
      const { child, tree } = await start("standalone", prefix);
      const reader = tree.find(({ command }) => command === "cat");
      if (reader !== undefined) process.kill(reader.pid, "SIGKILL");
      else child.stdout?.destroy();
      await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
    },
    240_000,
  );
});
