import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { NODE_ENVIRONMENT, NODE_FLAGS } from "@cro/agent/node-flags";
import { aPolicy } from "../support/kube.ts";
import { findPreviousRelease } from "../support/previous-release.ts";
import { startWireProxy } from "../support/wire-proxy.ts";
import { freePort } from "./support/agent.ts";
import { owners, populate } from "./support/archives.ts";
import type { BenchContext, Benchmark } from "./support/benchmark.ts";
import { cpuMsOf } from "./support/process-facts.ts";

const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const COUNT = 10_000;
/** Until archives are walked and V8 has given back what it does not need. */
const SETTLE_MS = 60_000;
const WATCHED_MINUTES = 5;
const MINUTE_MS = 60_000;

/** One release at work on a directory of its own: agent, coordinator, and what goes between them. */
interface Pair {
  cpuMs(): number;
  /** Bytes that went either way, TLS counted. */
  bytes(): number;
}

async function startPair(context: BenchContext, { name, dist }: { name: string; dist: string }): Promise<Pair> {
  const folder = join(context.folder, name);
  const directory = join(folder, "checkpoints");
  mkdirSync(directory, { recursive: true });
  populate(directory, { count: COUNT, of: owners(COUNT / 10) });
  const policyFile = join(folder, "policy.yaml");
  writeFileSync(policyFile, JSON.stringify(aPolicy({ globalPolicy: { maxCheckpointsPerContainer: 20 } })));
  const [api, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
  const start = (args: string[]) => {
    const child = spawn(process.execPath, args, {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, ...NODE_ENVIRONMENT },
    });
    context.onEnd(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill();
      await once(child, "close");
    });
    return child.pid as number;
  };
  const wire = await startWireProxy({ host: "127.0.0.1", port: 0 }, { host: "127.0.0.1", port: api });
  context.onEnd(() => wire.close());
  let bytes = 0;
  wire.fault = (chunk) => {
    bytes += chunk.bytes;
    return undefined;
  };
  const certificates = join(folder, "certificates");
  mkdirSync(join(certificates, "agent"), { recursive: true });
  start([
    ...[join(dist, "coordinator.js"), "serve", "--policy-file", policyFile, "--directory", directory],
    ...["--state-dir", join(folder, "coordinator"), "--certs-dir", certificates],
    ...["--agent", `https://127.0.0.1:${wire.port}`, "--agent-node", "node-a", "--agent-pod-uid", "pod-a"],
    ...["--metrics-address", `127.0.0.1:${coordinatorMetrics}`],
  ]);
  const pid = start([
    ...[...NODE_FLAGS, join(dist, "agent.js"), "serve", "--node-name", "node-a", "--pod-uid", "pod-a"],
    ...["--certs-dir", join(certificates, "agent"), "--state-dir", join(folder, "agent")],
    ...["--api-address", `127.0.0.1:${api}`, "--metrics-address", `127.0.0.1:${agentMetrics}`],
  ]);
  return { cpuMs: () => cpuMsOf(pid), bytes: () => bytes };
}

export default {
  title: "At rest",
  about: `an agent with ${COUNT} archives that do not change, and its coordinator, beside those of the release before at the same time; by the minute`,
  async run(context) {
    const previous = await findPreviousRelease();
    if (!previous.found) throw new Error(previous.why);
    const pairs = {
      now: await startPair(context, { name: "now", dist: DIST }),
      before: await startPair(context, { name: "before", dist: previous.value.dist }),
    };
    context.note("coming to rest");
    await sleep(SETTLE_MS);
    const read = ({ cpuMs, bytes }: Pair) => ({ cpuMs: cpuMs(), kib: bytes() / 1024 });
    const from = { now: read(pairs.now), before: read(pairs.before) };
    context.note(`${WATCHED_MINUTES} minutes`);
    await sleep(WATCHED_MINUTES * MINUTE_MS);
    const to = { now: read(pairs.now), before: read(pairs.before) };
    /** By the minute: single minutes differ by the reports that fall into them. */
    const mean = (name: keyof typeof pairs, what: keyof ReturnType<typeof read>) => [
      (to[name][what] - from[name][what]) / WATCHED_MINUTES,
    ];
    return [
      {
        what: "CPU time of the agent, a minute",
        unit: "ms",
        values: mean("now", "cpuMs"),
        yardstick: { what: "the release before", values: mean("before", "cpuMs") },
        atMost: { times: 1.1 },
      },
      {
        what: "bytes between the two, TLS counted, a minute",
        unit: "KiB",
        values: mean("now", "kib"),
        yardstick: { what: "the release before", values: mean("before", "kib") },
        atMost: { times: 1.1 },
      },
    ];
  },
} satisfies Benchmark;
