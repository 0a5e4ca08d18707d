import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { NODE_ENVIRONMENT, NODE_FLAGS } from "@cro/agent/node-flags";
import { type AgentClient, createAgentClient } from "@cro/coordinator/agents/client";
import { serializePolicy, writeDirective } from "@cro/coordinator/agents/directive";
import type { OrphanFact } from "@cro/shared/wire/directive";
import type { Report } from "@cro/shared/wire/report";
import { policyDocument } from "../../support/policy-document.ts";
import type { BenchContext } from "./benchmark.ts";
import { issueCertificates } from "./certificates.ts";
import { cpuMsOf } from "./process-facts.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const LOOP_DELAY = fileURLToPath(new URL("loop-delay.mjs", import.meta.url));

/** A line of an agent's log. */
export interface LogLine {
  msg?: string;
  /** Milliseconds since 1970. */
  time?: number;
  archive?: string;
  [field: string]: unknown;
}

/** The agent as it is shipped, in a process of its own, and its coordinator, which is this process. */
export interface BenchAgent {
  pid: number;
  /** When it was started, in milliseconds since 1970. */
  startedMs: number;
  metricsUrl: string;
  /** Gives it a policy for a directory, with proofs of orphans; the report it answers with. */
  apply(spec: Record<string, unknown>, directory: string, orphans?: readonly OrphanFact[]): Promise<Report>;
  report(): Promise<Report>;
  /** The first line, from now or before, that fits. */
  line(fits: (line: LogLine) => boolean): Promise<LogLine>;
  /** When it has written so many lines of that message since it started. */
  linesOf(msg: string, count: number): Promise<void>;
  onLine(take: (line: LogLine) => void): void;
  /** The longest times, in milliseconds, that its event loop was kept busy since the last call; over 5 ms only. */
  loopDelays(): Promise<number[]>;
  stop(): Promise<void>;
}

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (typeof address !== "object" || address === null) throw new Error("a listening TCP server has a port");
  return address.port;
}

let agents = 0;

/** Starts an agent; `flags` are further ones of Node's own, and `watchesLoop` preloads what measures its event loop. */
export async function startAgent(
  { folder, onEnd }: Pick<BenchContext, "folder" | "onEnd">,
  { flags = [], watchesLoop = false }: { flags?: readonly string[]; watchesLoop?: boolean } = {},
): Promise<BenchAgent> {
  agents += 1;
  const own = join(folder, `agent-${agents}`);
  mkdirSync(own);
  const { agentFolder, material } = await issueCertificates(own);
  const [api, metrics] = [await freePort(), await freePort()];
  const identity = { node: "node-a", podUID: "pod-a", url: `https://127.0.0.1:${api}` };
  const delayFile = join(own, "loop-delay.json");
  const startedMs = Date.now();
  const child: ChildProcess = spawn(
    process.execPath,
    [
      ...(watchesLoop ? ["--import", LOOP_DELAY] : []),
      ...NODE_FLAGS,
      ...flags,
      join(ROOT, "dist/agent.js"),
      "serve",
      ...["--node-name", identity.node, "--pod-uid", identity.podUID, "--certs-dir", agentFolder],
      ...["--state-dir", join(own, "state"), "--api-address", `127.0.0.1:${api}`],
      ...["--metrics-address", `127.0.0.1:${metrics}`],
    ],
    { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, ...NODE_ENVIRONMENT, LOOP_DELAY_FILE: delayFile } },
  );
  const lines: LogLine[] = [];
  const listeners = new Set<(line: LogLine) => void>();
  if (child.stdout !== null) {
    createInterface(child.stdout).on("line", (text) => {
      const { time, ...fields } = JSON.parse(text) as { time: string };
      const line: LogLine = { ...fields, time: Date.parse(time) };
      lines.push(line);
      for (const listener of listeners) listener(line);
    });
  }
  const client: AgentClient = createAgentClient({
    material,
    deadlineMs: 30_000,
    wallMs: Date.now,
    onDisconnect: () => {},
  });
  let revision = 0;
  let isStopped = false;
  const { signal } = new AbortController();

  const agent: BenchAgent = {
    pid: child.pid as number,
    startedMs,
    metricsUrl: `http://127.0.0.1:${metrics}/metrics`,
    async apply(spec, directory, orphans = []) {
      const policy = serializePolicy({ ...policyDocument(spec), directory });
      revision += 1;
      const fence = { term: 1, revision };
      const parts = { fence, address: identity, timeMs: Date.now(), policy, withDocument: true, orphans, protocol: 2 };
      const outcome = await client.putDirective(identity, writeDirective(parts), signal);
      if (outcome.outcome !== "accepted") throw new Error(JSON.stringify(outcome));
      return outcome.report;
    },
    async report() {
      const outcome = await client.getReport(identity, signal);
      if (outcome.outcome !== "accepted") throw new Error(JSON.stringify(outcome));
      return outcome.report;
    },
    line(fits) {
      const found = lines.find(fits);
      if (found !== undefined) return Promise.resolve(found);
      return new Promise((resolve) => {
        const listener = (line: LogLine) => {
          if (!fits(line)) return;
          listeners.delete(listener);
          resolve(line);
        };
        listeners.add(listener);
      });
    },
    async linesOf(msg, count) {
      let seen = lines.filter((line) => line.msg === msg).length;
      if (seen >= count) return;
      const { promise, resolve } = Promise.withResolvers<void>();
      const listener = (line: LogLine) => {
        if (line.msg !== msg) return;
        seen += 1;
        if (seen >= count) resolve();
      };
      listeners.add(listener);
      await promise;
      listeners.delete(listener);
    },
    onLine: (take) => void listeners.add(take),
    async loopDelays() {
      rmSync(delayFile, { force: true });
      child.kill("SIGUSR2");
      for (;;) {
        await sleep(20);
        try {
          return JSON.parse(readFileSync(delayFile, "utf8")) as number[];
        } catch {
          // Not written yet.
        }
      }
    },
    async stop() {
      if (isStopped) return;
      isStopped = true;
      await client.close();
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "close");
      child.kill("SIGTERM");
      await ended;
    },
  };
  onEnd(() => agent.stop());
  await agent.line(({ msg }) => msg === "waiting for the coordinator");
  return agent;
}

/** The share of a core that an agent uses at least while it walks. */
const WALKING = 0.1;

async function isAtRest({ pid }: BenchAgent, forMs: number): Promise<boolean> {
  const before = cpuMsOf(pid);
  await sleep(forMs);
  return cpuMsOf(pid) - before <= WALKING * forMs;
}

/**
 * Waits until every archive of the agent's directory has been walked. It is asked only when it seems to be at rest: a
 * coordinator asks every 30 s, and a report of very many costs what else would be walked meanwhile.
 */
export async function untilWalked(agent: BenchAgent, count: number): Promise<void> {
  const everyMs = Math.min(20 + count / 500, 200);
  for (;;) {
    if (!(await isAtRest(agent, everyMs))) continue;
    const { states } = await agent.report();
    const known = Object.values(states).reduce((sum, one) => sum + one, 0);
    if (known === count && states.unread === 0) return;
    if (known > count) throw new Error(`${known} archives where ${count} were expected`);
  }
}
