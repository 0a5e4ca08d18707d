import { randomBytes } from "node:crypto";
import type { AddressInfo } from "node:net";
import { boundAnswers, makeRoom, PAGES_ON_THEIR_WAY, STATUS_CONNECTIONS } from "@cro/shared/make-room";
import { type CompiledPolicy, formatProblem } from "@cro/shared/policy/compile";
import { VERSION } from "@cro/shared/version";
import type { Fence } from "@cro/shared/wire/fence";
import Fastify from "fastify";
import type { Logger } from "pino";
import { type AgentClient, createAgentClient } from "./agents/client.ts";
import { type SerializedPolicy, serializePolicy } from "./agents/directive.ts";
import { createPusher, type Pusher, type PusherEvents } from "./agents/push.ts";
import type { PushTimings } from "./agents/step.ts";
import { createCertificateKeeper, type TlsMaterial } from "./certs/rotate.ts";
import { createFolderStore } from "./certs/store.ts";
import type { Config, ListenAddress } from "./config.ts";
import { StartError } from "./errors.ts";
import { decideRaise, type Raises } from "./leader/step.ts";
import { createMetrics, type Metrics, setExpiry } from "./metrics.ts";
import { acceptedCondition, unitlessCondition } from "./policy/conditions.ts";
import { followPolicyFile } from "./policy/file-source.ts";
import { createTermFile } from "./term.ts";

/** How often things are done and how long they may take, in milliseconds. */
export interface Timings extends PushTimings {
  callDeadlineMs: number;
  certificatesMs: number;
  policyFile: { pollMs: number; settleMs: number };
}

/** A coordinator at work. */
export interface Coordinator {
  /** Where /metrics, /healthz and /readyz are served: `http://127.0.0.1:9812`. */
  metricsUrl: string;
  /** Settles when it cannot go on or was stopped, and rejects where there is a cause; a process without a coordinator is to end. */
  ended: Promise<void>;
  /** Ends when nothing of it is left. What agents have stays in force. */
  stop(): Promise<void>;
}

const CONCURRENT_CALLS = 64;

/** The timings of a coordinator whose agents are a given list. */
export function defaultTimings({ lifetimes }: Pick<Config, "lifetimes">): Timings {
  return {
    resyncMs: 5 * 60_000,
    reportMs: 30_000,
    changeMs: 7000,
    // Nobody announces that an agent of a given list is there, so it is asked for more often than in a cluster.
    minBackoffMs: 250,
    maxBackoffMs: 5000,
    callDeadlineMs: 10_000,
    certificatesMs: Math.min(60_000, lifetimes.leafMs / 30),
    policyFile: { pollMs: 250, settleMs: 300 },
  };
}

/**
 * Starts a coordinator without a cluster: its policy comes from a file, its agents are a given list, and it leads.
 * Rejects with a StartError where it cannot; then nothing of it is left running.
 */
export async function startCoordinator(
  config: Config,
  { log, timings = defaultTimings(config) }: { log: Logger; timings?: Timings },
): Promise<Coordinator> {
  const stops: Parts = [];
  const stop = () => stopAll(stops);
  try {
    const metricsUrl = await startParts(config, { log, timings, stops });
    return { metricsUrl, ended: new Promise(() => {}), stop };
  } catch (cause) {
    await stop();
    throw cause;
  }
}

/** What stops the parts of something, in the order of their start. */
export type Parts = Array<() => unknown>;

/** Stops what was started, the last first. */
export async function stopAll(parts: Parts): Promise<void> {
  for (const stopPart of parts.splice(0).reverse()) await stopPart();
}

interface PartsContext {
  log: Logger;
  timings: Timings;
  stops: Parts;
}

async function startParts(config: Config, context: PartsContext): Promise<string> {
  const { log, timings, stops } = context;
  let pusher: Pusher | undefined;
  let policy: SerializedPolicy | undefined;
  const metrics = createMetrics({ version: VERSION, agents: () => pusher?.view() ?? [] });

  const followed = await followPolicyFile({
    path: config.policyFile,
    overrides: { directory: config.directory, isDryRun: config.isDryRun },
    timings: timings.policyFile,
    onPolicy(compiled) {
      policy = serializePolicy(compiled.document);
      logPolicy(log, config.policyFile, { compiled, digest: policy.digest });
      metrics.watchSynced.set({ resource: "policies" }, 1);
      pusher?.setPolicy(() => policy);
    },
    onRefused(problems) {
      const condition = acceptedCondition(problems);
      log.error({ file: config.policyFile, problems, condition }, "policy refused, keeping the last good one");
      metrics.watchSynced.set({ resource: "policies" }, 0);
    },
  });
  if (!followed.ok) {
    const problems = followed.problems.map((problem) => (problem.field ? formatProblem(problem) : problem.message));
    throw new StartError(`--policy-file ${config.policyFile}: ${problems.join("; ")}`, { exitCode: 2 });
  }
  stops.push(followed.close);

  let isReady = false;
  const metricsUrl = await startHttp(config.metricsAddress, {
    metrics,
    stops,
    notReady: () => (isReady ? undefined : "certificates or policy are not there yet"),
    notAlive: () => undefined,
  });

  const termFile = createTermFile(config.stateDirectory);
  let term = await termFile.raiseAbove(0).catch((cause: Error) => {
    throw new StartError(`--state-dir ${config.stateDirectory}: ${cause.message}`, { exitCode: 1, cause });
  });
  log.info({ term }, "term raised");

  let client: AgentClient | undefined;
  let material: TlsMaterial | undefined;
  const keeper = createCertificateKeeper({
    store: createFolderStore(config.certificatesDirectory),
    lifetimes: config.lifetimes,
    now: Date.now,
    randomBytes,
    reported: () => pusher?.view().map(({ report }) => report?.certificates),
    onMaterial(next) {
      material = next;
      client?.reload(next);
    },
    onExpiry: (name, notAfterMs) => setExpiry(metrics, name, notAfterMs),
    log,
  });
  await keeper.refresh().catch((cause: Error) => {
    throw new StartError(`--certs-dir ${config.certificatesDirectory}: ${cause.message}`, { exitCode: 1, cause });
  });
  if (material === undefined) throw new Error("a refreshed keeper has certificates");

  client = createAgentClient({
    material,
    deadlineMs: timings.callDeadlineMs,
    wallMs: Date.now,
    onDisconnect: (origin) => pusher?.noteDisconnect(origin),
  });
  stops.push(client.close);

  let raising = Promise.resolve();
  let raises: Raises = new Map();
  /** One at a time: when several agents name the same term, it is raised above it once. */
  function raiseTerm(node: string, named: Fence): void {
    raising = raising
      .then(async () => {
        const decided = decideRaise(raises, { node, named: named.term, term, nowMs: performance.now() });
        raises = decided.raises;
        if (!decided.isNeeded) return;
        term = await termFile.raiseAbove(named.term);
        log.warn({ node, named, term }, "term raised above the one that an agent follows");
        pusher?.setTerm(term);
      })
      .catch((err: Error) => log.error({ node, named, err }, "term cannot be raised"));
  }

  pusher = createPusher({
    client,
    term,
    timings,
    concurrency: CONCURRENT_CALLS,
    wallMs: Date.now,
    monotonicMs: () => performance.now(),
    random: Math.random,
    events: {
      ...logPush(log, metrics),
      onReport: () => {},
      onOlder: ({ node }, newest) => raiseTerm(node, newest),
    },
  });
  stops.push(pusher.stop);
  pusher.setPolicy(() => policy);
  pusher.setAgents(config.agents);

  let refreshed = Promise.resolve();
  const refreshing = setInterval(() => {
    refreshed = keeper.refresh().catch((err: Error) => log.error({ err }, "certificates cannot be kept fresh"));
  }, timings.certificatesMs);
  stops.push(async () => {
    clearInterval(refreshing);
    await refreshed;
  });

  metrics.isLeader.set(1);
  isReady = true;
  log.info({ agents: config.agents.length, metricsUrl }, "coordinator started");
  return metricsUrl;
}

/** What is logged and counted of pushing. */
export function logPush(
  log: Logger,
  metrics: Metrics,
): Pick<PusherEvents, "onApplied" | "onDisbelief" | "onFailure" | "onPush"> {
  return {
    onDisbelief: ({ node, podUID }, dropped) =>
      log.warn({ node, podUID, dropped }, "parts of an agent's report are not believed"),
    onApplied: ({ node, podUID }, { term, revision, digest }) =>
      log.info({ node, podUID, term, revision, digest }, "agent applied policy"),
    onFailure: ({ node, url }, problem) => log.warn({ node, url, problem }, "agent does not follow"),
    onPush(durationSeconds, ok) {
      metrics.pushDurationSeconds.observe(durationSeconds);
      if (!ok) metrics.pushErrors.inc();
    },
  };
}

function logPolicy(
  log: Logger,
  file: string,
  { compiled, digest }: { compiled: CompiledPolicy; digest: string },
): void {
  const { document, unitless, nodeSelector, nodeMatchExpressions } = compiled;
  const loaded = { file, digest, directory: document.directory, mode: document.mode };
  if (unitless.length === 0) log.info(loaded, "policy loaded");
  else log.warn({ ...loaded, condition: unitlessCondition(unitless), warnings: unitless }, "policy loaded");
  if (nodeSelector !== undefined || nodeMatchExpressions !== undefined) {
    const message = "nodeSelector and nodeMatchExpressions are not looked at: without a cluster nodes have no labels";
    log.warn({ file, nodeSelector, nodeMatchExpressions }, message);
  }
}

/** Serves /metrics, /healthz and /readyz; returns where. Rejects with a StartError where it cannot listen. */
export async function startHttp(
  { host, port }: ListenAddress,
  {
    metrics,
    stops,
    notReady,
    notAlive,
  }: {
    metrics: Metrics;
    stops: Parts;
    /** What is missing; undefined if nothing is. */
    notReady: () => string | undefined;
    /** Why only a restart can help; undefined if none is needed. */
    notAlive: () => string | undefined;
  },
): Promise<string> {
  // Anyone who reaches the port can open connections, drip into them, and leave answers unread: not many, and not for long.
  const server = Fastify({
    forceCloseConnections: true,
    requestTimeout: 20_000,
    connectionTimeout: 20_000,
    maxRequestsPerSocket: 1,
    bodyLimit: 1024,
    http: { headersTimeout: 5000, connectionsCheckingInterval: 1000 },
  });
  makeRoom(server.server, STATUS_CONNECTIONS);
  const bound = boundAnswers(PAGES_ON_THEIR_WAY);
  server.get("/metrics", async (_request, reply) => {
    bound(reply.raw);
    reply.type(metrics.registry.contentType);
    return metrics.registry.metrics();
  });
  for (const [path, problemOf] of [
    ["/healthz", notAlive],
    ["/readyz", notReady],
  ] as const) {
    server.get(path, async (_request, reply) => {
      const problem = problemOf();
      return problem === undefined ? "ok\n" : reply.code(503).send(`${problem}\n`);
    });
  }
  stops.push(() => server.close());
  try {
    await server.listen({ host, port });
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const problem = code === "EADDRINUSE" ? "the port is in use by another process; give another one" : message;
    const shown = host.includes(":") ? `[${host}]` : host;
    throw new StartError(`--metrics-address ${shown}:${port}: ${problem}`, { exitCode: 1, cause });
  }
  const address = server.server.address() as AddressInfo;
  return `http://${address.family === "IPv6" ? `[${address.address}]` : address.address}:${address.port}`;
}
