import { once } from "node:events";
import { existsSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aFolder, freePort, ROOT, read, run, samples, until } from "../support/processes.ts";
import { aPolicyFile, series, startPair, writePolicy } from "../support/standalone.ts";

const now = { applyPoliciesImmediately: true };

async function ports(): Promise<string[]> {
  const [agent, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
  return [
    ...["--agent-port", `${agent}`, "--agent-metrics-port", `${agentMetrics}`],
    ...["--coordinator-metrics-port", `${coordinatorMetrics}`],
  ];
}

async function start(...args: string[]) {
  const env = { XDG_STATE_HOME: aFolder() };
  const running = run("standalone", [...args, ...(await ports())], { env });
  // Its children outlive a SIGKILL; what a test leaves behind is asked to end.
  onTestFinished(async () => {
    if (running.process.exitCode === null) await running.kill("SIGTERM");
  });
  return running;
}

describe("npm start without arguments", () => {
  it("shows a newcomer the archives, what goes and why, an arrival with the oldest going, and both addresses", async () => {
    const folder = join(ROOT, "sample-checkpoints");
    rmSync(folder, { recursive: true, force: true });
    const running = await start();
    await until(
      () => expect(running.out.filter((line) => line.startsWith("arrived")).length).toBeGreaterThan(0),
      30_000,
    );
    await until(() => expect(running.out.filter((line) => line.startsWith("deleted")).length).toBeGreaterThan(5));
    const text = running.out.join("\n");
    expect(text).toMatch(/Found 16 archives, .* in .*sample-checkpoints/);
    expect(text).toMatch(/^ACTION +REASON +NAMESPACE +POD +CONTAINER +TIME +SIZE +STATE +WHY$/m);
    expect(text).toMatch(/^delete +max_checkpoints +team-prod +web-6f9f8977b7-w28kl +main-c .* too many archives$/m);
    expect(text).toMatch(/^delete +max_age +default +hostnet +c .* too old$/m);
    expect(text).toMatch(/pinned by its .keep/);
    const urls = [...text.matchAll(/http:\/\/\S+\/metrics/g)].map(([url]) => url);
    expect(urls).toHaveLength(2);
    for (const url of urls) expect((await read(url)).status).toBe(200);
    expect(await running.kill("SIGINT")).toBe(0);
  }, 60_000);
});

describe("npm start on a policy and a directory", () => {
  it("reads a changed policy again, keeps the last good one when it becomes wrong, and says why", async () => {
    const directory = aFolder();
    const files = series(directory, 6);
    const policy = aPolicyFile({ ...now, globalPolicy: { maxCheckpointsPerContainer: 4 } });
    const running = await start("--policy", policy, "--directory", directory);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)));
    writePolicy(policy, { ...now, globalPolicy: { maxCheckpointsPerContainer: 3 } });
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(3)));
    writePolicy(policy, { ...now, globalPolicy: { maxCheckpointsPerContainer: "none" } });
    await until(() => expect(running.out.join("\n")).toMatch(/last good policy stays.*maxCheckpointsPerContainer/));
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(directory)).toEqual([...files.slice(4), next]));
    expect(await running.kill("SIGTERM")).toBe(0);
  }, 40_000);

  it("leaves what is there alone until the next archive, where the policy does not act at once", async () => {
    const directory = aFolder();
    const files = series(directory, 3);
    const policy = aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 1 } });
    const running = await start("--policy", policy, "--directory", directory);
    await until(() => expect(running.out.join("\n")).toMatch(/the agent applies it/));
    expect(running.out.join("\n")).toMatch(/waits for the next archive of its scope/);
    expect(archivesIn(directory)).toEqual(files);
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(directory)).toEqual([next]));
  }, 40_000);

  it.each(["--agent-port", "--agent-metrics-port", "--coordinator-metrics-port"])(
    "ends with 1 and one clear line when the port of %s is taken",
    async (flag) => {
      const server = createServer().listen(0, "127.0.0.1");
      await once(server, "listening");
      onTestFinished(() => void server.close());
      const { port } = server.address() as { port: number };
      const others = await ports();
      others[others.indexOf(flag) + 1] = `${port}`;
      const env = { XDG_STATE_HOME: aFolder() };
      const running = run("standalone", ["--policy", aPolicyFile({}), "--directory", aFolder(), ...others], { env });
      expect(await running.exited).toBe(1);
      expect(running.err.filter((line) => /EADDRINUSE|in use/.test(line))).toHaveLength(1);
      expect(running.err.join("\n")).toContain(`${port}`);
    },
    30_000,
  );

  it("ends with 2 on bad input, before anything is started", async () => {
    const running = await start("--policy", aPolicyFile({ mode: "Off" }), "--directory", aFolder());
    expect(await running.exited).toBe(2);
    expect(running.err).toEqual(['spec.mode: "Off" is not one of Enforce, DryRun']);
  });
});

describe("killed at any time", () => {
  it("agent and coordinator lose nothing that the policy keeps, and end where they would have ended", async () => {
    const directory = aFolder();
    const policy = aPolicyFile({ ...now, globalPolicy: { maxCheckpointsPerContainer: 3 } });
    const containers = ["a", "b", "c"];
    const pair = await startPair({ policy, directory });
    let agent = pair.startAgent();
    let coordinator = pair.startCoordinator();
    const written = new Map(containers.map((container) => [container, [] as string[]]));
    const startMs = Date.now() - 6 * 3_600_000;
    const newest = () => containers.flatMap((container) => (written.get(container) ?? []).slice(-3)).sort();
    // A fixed sequence that looks like none: which of them dies, and how soon after the last arrival.
    let seed = 20_261_122;
    const random = (below: number) => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
      return seed % below;
    };
    for (let round = 0; round < 14; round += 1) {
      for (const container of containers) {
        const time = archiveTime(startMs + (round * 10 + random(10)) * 60_000);
        const file = writeArchive(directory, { container, time });
        written.get(container)?.push(file);
        await new Promise((resolve) => setImmediate(resolve));
      }
      const present = () => archivesIn(directory);
      for (const file of newest()) expect(present()).toContain(file);
      const deadline = performance.now() + random(700);
      await until(() => expect(performance.now()).toBeGreaterThan(deadline));
      if (random(3) > 0) {
        await agent.kill("SIGKILL");
        agent = pair.startAgent();
      } else {
        await coordinator.kill("SIGKILL");
        coordinator = pair.startCoordinator();
      }
    }
    await until(() => expect(archivesIn(directory)).toEqual(newest()), 30_000);
    expect(agent.err).toEqual([]);
    expect(coordinator.err).toEqual([]);
  }, 90_000);

  it("the coordinator is not missed: the agent goes on alone, also after its own restart", async () => {
    const directory = aFolder();
    const policy = aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 2 } });
    const pair = await startPair({ policy, directory });
    let agent = pair.startAgent();
    const coordinator = pair.startCoordinator();
    await until(() => expect(coordinator.log().some(({ msg }) => msg === "agent applied policy")).toBe(true));
    await coordinator.kill("SIGKILL");
    const first = series(directory, 3);
    await until(() => expect(archivesIn(directory)).toEqual(first.slice(1)));
    await agent.kill("SIGKILL");
    // It arrives while nobody watches, and is an event all the same.
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now() - 60_000) });
    agent = pair.startAgent({ args: ["--wait-for-coordinator", "1s"] });
    await until(() => expect(archivesIn(directory)).toEqual([first[2], next]));
    const metrics = samples((await read(`${pair.agentUrl}/metrics`)).body);
    expect(metrics.get('checkpoint_archives_deleted_total{namespace="shop",reason="max_checkpoints"}')).toBe(1);
  }, 60_000);
});

describe("an agent", () => {
  it("waits for its certificates and its policy, says so, and loses no state that it cannot write", async () => {
    const directory = aFolder();
    const pair = await startPair({ policy: aPolicyFile(now), directory });
    rmSync(join(pair.folder, "agent"), { recursive: true });
    writeFileSync(join(pair.folder, "agent"), "a file where the state folder should be");
    const agent = pair.startAgent();
    await until(() => expect(agent.log().some(({ msg }) => msg === "waiting for certificates")).toBe(true));
    expect((await read(`${pair.agentUrl}/readyz`)).status).toBe(503);
    const files = series(directory, 12);
    pair.startCoordinator();
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)));
    expect((await read(`${pair.agentUrl}/readyz`)).status).toBe(200);
    const metrics = samples((await read(`${pair.agentUrl}/metrics`)).body);
    expect(metrics.get("checkpoint_agent_state_errors_total")).toBeGreaterThan(0);
    expect(existsSync(join(pair.folder, "agent"))).toBe(true);
  }, 40_000);

  it("carries on by listing where inotify is not to be had, with a metric", async ({ skip }) => {
    const directory = aFolder();
    const pair = await startPair({
      policy: aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 2 } }),
      directory,
    });
    // A user namespace of its own has limits of its own: no inotify at all.
    const script = 'echo 0 > /proc/sys/user/max_inotify_instances && exec "$@"';
    const agent = pair.startAgent({ prefix: ["unshare", "-Ur", "sh", "-c", script, "sh"] });
    const coordinator = pair.startCoordinator();
    const isApplied = () => coordinator.log().some(({ msg }) => msg === "agent applied policy");
    await until(() => expect(agent.process.exitCode !== null || isApplied()).toBe(true));
    if (agent.process.exitCode !== null) skip(`user namespaces are not to be had here: ${agent.err.join(" ")}`);
    const metrics = async () => samples((await read(`${pair.agentUrl}/metrics`)).body);
    expect((await metrics()).get("checkpoint_watch_degraded")).toBe(1);
    const files = series(directory, 4);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)), 20_000);
  }, 60_000);
});
