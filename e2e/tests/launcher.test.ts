import { spawn } from "node:child_process";
import { describe, expect, it, onTestFinished } from "vitest";
import { archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { processTree, stillRunning, type TreeProcess } from "../support/process-tree.ts";
import { aFolder, freePort, observe, ROOT, until } from "../support/processes.ts";
import { aPolicyFile, archivesIn, series } from "../support/standalone.ts";

/** Runs `npm start`, as a user does, until coordinator and agent are at work. */
async function npmStart(spec: unknown = {}) {
  const directory = aFolder();
  const [api, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
  const args = [
    ...["--policy", aPolicyFile(spec), "--directory", directory, "--agent-port", `${api}`],
    ...["--agent-metrics-port", `${agentMetrics}`, "--coordinator-metrics-port", `${coordinatorMetrics}`],
  ];
  const env = { ...process.env, XDG_STATE_HOME: aFolder() };
  // A process group of its own, so that no signal of a test reaches the test's own processes.
  const child = spawn("npm", ["start", "--", ...args], { cwd: ROOT, env, detached: true });
  const running = observe(child);
  let tree: TreeProcess[] = [];
  onTestFinished(() => {
    for (const { pid } of stillRunning(tree)) process.kill(pid, "SIGKILL");
  });
  await until(() => expect(running.out.join("\n")).toMatch(/the agent applies it/), 60_000);
  tree = processTree(child.pid ?? 0);
  const find = (command: RegExp) => {
    const found = tree.filter((one) => command.test(one.command));
    expect(found).toHaveLength(1);
    return found[0]?.pid ?? 0;
  };
  const pids = {
    npm: child.pid ?? 0,
    "run.mjs": find(/^node scripts\/run\.mjs/),
    standalone: find(/dist\/standalone\.js/),
    agent: find(/dist\/agent\.js/),
    coordinator: find(/dist\/coordinator\.js/),
  };
  return { directory, child, pids, tree };
}

describe("npm start ends all that it started", () => {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"] as const;
  const levels = ["npm", "run.mjs", "standalone"] as const;
  const cases = levels.flatMap((level) => signals.map((signal) => [signal, level] as const));
  it.each(cases)(
    "on %s to %s",
    async (signal, level) => {
      const { pids, tree } = await npmStart();
      process.kill(pids[level], signal);
      await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
    },
    120_000,
  );

  it("on Ctrl-C, which reaches every process of the terminal at once", async () => {
    const { pids, tree } = await npmStart();
    process.kill(-pids.npm, "SIGINT");
    await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
  }, 120_000);

  it("when the pipe is closed into which it writes what it deletes", async () => {
    const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } };
    const { child, directory, tree } = await npmStart(spec);
    child.stdout?.destroy();
    const [, newest] = series(directory, 2);
    await until(() => expect(archivesIn(directory)).toEqual([newest]));
    await until(() => expect(stillRunning(tree)).toEqual([]), 30_000);
    const later = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    expect(archivesIn(directory)).toEqual([newest, later]);
  }, 120_000);
});
