import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { defaultTimings, startCoordinator } from "../src/app.ts";
import { createCertificateKeeper } from "../src/certs/rotate.ts";
import { createFolderStore } from "../src/certs/store.ts";
import type { Config } from "../src/config.ts";
import { type AgentPeer, startAgentPeer } from "./support/agent-peer.ts";

const COMMAND = fileURLToPath(new URL("../../dist/coordinator.js", import.meta.url));
const DAY = 86_400_000;
const LIFETIMES = { authorityMs: 730 * DAY, leafMs: 90 * DAY };

let directory: string;
let peer: AgentPeer;
const stops: Array<() => unknown> = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "app-"));
  await writePolicy(3);
  peer = await startAgentPeer(await agentCertificates());
});
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
  await peer.close();
  await rm(directory, { recursive: true });
});

function writePolicy(limit: number | string): Promise<void> {
  const spec = `spec: {checkpointDirectory: /d, globalPolicy: {maxCheckpointsPerContainer: ${limit}}}`;
  const text = ["apiVersion: criu.org/v1", "kind: CheckpointRestoreOperator", spec].join("\n");
  return writeFile(join(directory, "policy.yaml"), text);
}

/** The certificates that an agent finds in the folder that the coordinator fills. */
async function agentCertificates() {
  const store = createFolderStore(join(directory, "certs"));
  const ignore = () => {};
  await createCertificateKeeper({
    store,
    lifetimes: LIFETIMES,
    now: Date.now,
    randomBytes,
    reported: () => [],
    onMaterial: ignore,
    onExpiry: ignore,
    log: { info: ignore },
  }).refresh();
  const { files } = await store.read("agent");
  return {
    certificate: files["tls.crt"] ?? "",
    key: files["tls.key"] ?? "",
    authority: files["ca.crt"] ?? "",
  };
}

function aConfig(config: Partial<Config> = {}): Config {
  return {
    policyFile: join(directory, "policy.yaml"),
    directory: undefined,
    isDryRun: false,
    agents: [peer.address],
    stateDirectory: join(directory, "state"),
    certificatesDirectory: join(directory, "certs"),
    lifetimes: LIFETIMES,
    metricsAddress: { host: "127.0.0.1", port: 0 },
    logLevel: "info",
    ...config,
  };
}

async function start(config: Partial<Config> = {}) {
  const lines: Array<Record<string, unknown>> = [];
  const log = pino({}, { write: (line: string) => lines.push(JSON.parse(line)) });
  const full = aConfig(config);
  const timings = { ...defaultTimings(full), minBackoffMs: 20, policyFile: { pollMs: 10, settleMs: 20 } };
  const coordinator = await startCoordinator(full, { log, timings });
  stops.push(coordinator.stop);
  const messages = (msg: string) => lines.filter((line) => line.msg === msg);
  return { coordinator, messages };
}

const documentOf = ({ calls }: AgentPeer) => calls.flatMap(({ directive }) => directive?.policy.document ?? []).at(-1);

describe("startCoordinator", () => {
  it("brings the agent the policy of the file, and says so in its log and its metrics", async () => {
    const { coordinator, messages } = await start();
    await expect.poll(() => messages("agent applied policy")).toHaveLength(1);
    expect(messages("agent applied policy")[0]).toMatchObject({ level: 30, node: "node-a", term: 1, revision: 1 });
    expect(messages("policy loaded")).toMatchObject([{ directory: "/d", mode: "Enforce" }]);
    expect(documentOf(peer)).toMatchObject({ directory: "/d", global: { perContainer: { maxCheckpoints: 3 } } });
    const metrics = await (await fetch(`${coordinator.metricsUrl}/metrics`)).text();
    expect(metrics).toContain('checkpoint_coordinator_agents{state="applied"} 1');
    expect(metrics).toContain("checkpoint_coordinator_is_leader 1");
    expect(metrics).toContain('checkpoint_node_archives{node="node-a"} 0');
    expect(metrics).toContain("checkpoint_coordinator_push_duration_seconds_count 2");
    expect(metrics).toContain("checkpoint_coordinator_push_errors_total 0");
    expect(metrics).toMatch(/checkpoint_certificate_expiry_timestamp_seconds\{certificate="agent"\} \d{10}/);
    for (const path of ["healthz", "readyz"]) {
      expect((await fetch(`${coordinator.metricsUrl}/${path}`)).status).toBe(200);
    }
  });

  it("lets the command line win over the policy", async () => {
    const { messages } = await start({ directory: "/other", isDryRun: true });
    await expect.poll(() => messages("agent applied policy")).toHaveLength(1);
    expect(documentOf(peer)).toMatchObject({ directory: "/other", mode: "DryRun" });
  });

  it("pushes a changed policy, and keeps the last good one when it is bad, saying why", async () => {
    const { coordinator, messages } = await start();
    await expect.poll(() => messages("agent applied policy")).toHaveLength(1);
    await writePolicy(-1);
    await expect.poll(() => messages("policy refused, keeping the last good one")).toHaveLength(1);
    expect(messages("policy refused, keeping the last good one")[0]).toMatchObject({
      problems: [{ field: "spec.globalPolicy.maxCheckpointsPerContainer" }],
      condition: { type: "Accepted", status: "False" },
    });
    const synced = async () =>
      (await (await fetch(`${coordinator.metricsUrl}/metrics`)).text()).match(/watch_synced\{.*/g);
    expect(await synced()).toEqual(['watch_synced{resource="policies"} 0']);
    expect(documentOf(peer)?.global.perContainer?.maxCheckpoints).toBe(3);
    await writePolicy(4);
    await expect.poll(() => documentOf(peer)?.global.perContainer?.maxCheckpoints).toBe(4);
    expect(await synced()).toEqual(['watch_synced{resource="policies"} 1']);
  });

  it("warns of sizes without a unit", async () => {
    await writePolicy("3, maxCheckpointSize: 10");
    const { messages } = await start();
    expect(messages("policy loaded")).toMatchObject([
      {
        level: 40,
        condition: { type: "UnitlessQuantity", status: "True", message: expect.stringMatching(/write 10Mi/) },
      },
    ]);
  });

  it("raises its term with each start, and above the one that an agent follows", async () => {
    const first = await start();
    await expect.poll(() => first.messages("agent applied policy")).toMatchObject([{ term: 1 }]);
    await first.coordinator.stop();
    const second = await start();
    await expect.poll(() => second.messages("agent applied policy")).toMatchObject([{ term: 2 }]);
    await second.coordinator.stop();
    peer.report = { ...peer.report, accepted: { term: 70, revision: 9, digest: "0" } };
    const third = await start();
    await expect.poll(() => third.messages("agent applied policy")).toMatchObject([{ term: 71 }]);
  });

  it("raises its term once where several agents follow the same one", async () => {
    const other = await startAgentPeer(await agentCertificates(), { node: "node-b", podUID: "uid-b" });
    stops.push(other.close);
    for (const each of [peer, other]) {
      each.report = { ...each.report, accepted: { term: 70, revision: 9, digest: "0" } };
    }
    const { messages } = await start({ agents: [peer.address, other.address] });
    await expect.poll(() => messages("agent applied policy")).toHaveLength(2);
    expect(messages("agent applied policy").map(({ term }) => term)).toEqual([71, 71]);
    expect(messages("term raised above the one that an agent follows")).toHaveLength(1);
  });

  it("refuses a bad policy file at the start, naming file and field", async () => {
    await writePolicy(-1);
    await expect(start()).rejects.toMatchObject({
      exitCode: 2,
      message: expect.stringMatching(/^--policy-file .*policy\.yaml: spec\.globalPolicy\.maxCheckpointsPerContainer: /),
    });
  });

  it("names the flag of a port that is in use, and leaves nothing running", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const { port } = blocker.address() as AddressInfo;
    await expect(start({ metricsAddress: { host: "127.0.0.1", port } })).rejects.toMatchObject({
      exitCode: 1,
      message: `--metrics-address 127.0.0.1:${port}: the port is in use by another process; give another one`,
    });
    expect(peer.calls).toEqual([]);
    blocker.close();
  });

  it("names the flag of a folder that cannot be written", async () => {
    const file = join(directory, "policy.yaml");
    await expect(start({ stateDirectory: file })).rejects.toMatchObject({
      exitCode: 1,
      message: expect.stringMatching(/^--state-dir /),
    });
    await expect(start({ certificatesDirectory: file })).rejects.toMatchObject({
      exitCode: 1,
      message: expect.stringMatching(/^--certs-dir /),
    });
  });
});

describe("the command coordinator", () => {
  function run(...args: string[]) {
    const child = spawn(process.execPath, [COMMAND, ...args], { stdio: ["ignore", "pipe", "pipe"] });
    stops.push(() => child.kill("SIGKILL"));
    let stderr = "";
    child.stderr.on("data", (chunk) => {
      stderr += chunk;
    });
    return { child, lines: createInterface({ input: child.stdout }), stderr: () => stderr };
  }

  const serve = () => [
    ...["serve", "--policy-file", join(directory, "policy.yaml"), "--agent", peer.address.url],
    ...["--agent-node", "node-a", "--agent-pod-uid", "uid-a", "--metrics-address", "127.0.0.1:0"],
    ...["--state-dir", join(directory, "state"), "--certs-dir", join(directory, "certs")],
  ];

  it.each(["SIGTERM", "SIGINT"] as const)("serves until %s, logging JSON, and ends with 0", async (signal) => {
    const { child, lines, stderr } = run(...serve());
    const messages: unknown[] = [];
    lines.on("line", (line) => messages.push(JSON.parse(line).msg));
    await expect.poll(() => messages, { timeout: 20_000 }).toContain("agent applied policy");
    child.kill(signal);
    expect(await once(child, "exit")).toEqual([0, null]);
    expect(messages.at(-1)).toBe("coordinator stops");
    expect(stderr()).toBe("");
  });

  it("ends with 2 and one line that names the field of a bad policy, or the flag that is wrong", async () => {
    const wrong = run(...serve(), "--log-level", "loud");
    expect(await once(wrong.child, "close")).toEqual([2, null]);
    expect(wrong.stderr()).toMatch(/^error: --log-level "loud".*\n$/);
    await writePolicy('"many"');
    const bad = run(...serve());
    expect(await once(bad.child, "close")).toEqual([2, null]);
    expect(bad.stderr()).toMatch(/^error: --policy-file .*spec\.globalPolicy\.maxCheckpointsPerContainer.*\n$/);
  });

  it("prints its help on stdout and ends with 0", async () => {
    const { child, lines } = run("serve", "--help");
    const text: string[] = [];
    lines.on("line", (line) => text.push(line));
    expect(await once(child, "close")).toEqual([0, null]);
    expect(text.join("\n")).toContain("--policy-file <file>");
  });
});
