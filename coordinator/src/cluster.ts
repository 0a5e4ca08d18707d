import { randomBytes, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { POLICY_PLURAL } from "@cro/shared/crd/manifest";
import { readPolicy } from "@cro/shared/crd/read-policy";
import { POLICY_API_VERSION } from "@cro/shared/crd/schema";
import { defaultPolicy, formatProblems } from "@cro/shared/policy/compile";
import { VERSION } from "@cro/shared/version";
import type { Logger } from "pino";
import { type AgentClient, createAgentClient } from "./agents/client.ts";
import { type AgentPod, describeStarts, toAddresses, toAgentPod } from "./agents/discover.ts";
import { viewByNode } from "./agents/nodes.ts";
import { type AgentView, createPusher, type Pusher } from "./agents/push.ts";
import { type Coordinator, logPush, type Parts, startHttp, stopAll, type Timings } from "./app.ts";
import { createCertificateKeeper, type TlsMaterial } from "./certs/rotate.ts";
import { createSecretStore } from "./certs/secret-store.ts";
import { guardStore } from "./certs/store.ts";
import type { ClusterConfig } from "./config.ts";
import { StartError } from "./errors.ts";
import { createHealth } from "./health.ts";
import { createKubeClient, type KubeClient, type KubeObject, kubePath, loadKubeAccess } from "./kube/client.ts";
import { createMirror, type Mirror } from "./kube/mirror.ts";
import { type WatchEvent, watchObjects } from "./kube/watch.ts";
import { type Leadership, runElection } from "./leader/election.ts";
import { createOrphanProver, type PodName } from "./liveness/prover.ts";
import { createToldHolds } from "./liveness/told-holds.ts";
import { countPolicies, createMetrics, forgetLeadership, type Metrics, setExpiry } from "./metrics.ts";
import { acceptedByNode } from "./policy/accepted.ts";
import { agentNodes, toNodeFacts } from "./policy/agent-nodes.ts";
import { createRulings } from "./policy/in-force.ts";
import {
  CONFIRM_ORPHANS,
  confirmedNodes,
  createJudge,
  type PolicyResource,
  type ReadyPolicy,
  readyPolicy,
} from "./policy/judge.ts";
import type { AcceptedDirective, NodeFacts, ResourceRuling, Ruling } from "./policy/ruling.ts";
import { aggregateStatus, nameNodes } from "./status/aggregate.ts";
import { createEventWriter } from "./status/events.ts";
import { createStatusVersions } from "./status/versions.ts";
import { createStatusWriter } from "./status/write.ts";

const CONCURRENT_CALLS = 64;
const TICK_MS = 500;
/** How long changes are gathered before they are looked at together, in milliseconds. */
const LOOK_SOON_MS = 50;
/** How much of a rest a change of leader may lose, in milliseconds: so often the record of it is renewed. */
const RECORD_REFRESH_MS = 20_000;

const policies = { path: `/apis/${POLICY_API_VERSION}/${POLICY_PLURAL}`, metadataOnly: false };
const policyPath = ({ namespace, name }: { namespace: string; name: string }) =>
  `/apis/${POLICY_API_VERSION}${kubePath`/namespaces/${namespace}/${POLICY_PLURAL}/${name}`}`;

/** The timings in a cluster, whose API server tells of agents that come back. */
const TIMINGS: Omit<Timings, "policyFile"> = {
  resyncMs: 5 * 60_000,
  reportMs: 30_000,
  changeMs: 7000,
  minBackoffMs: 250,
  maxBackoffMs: 30_000,
  callDeadlineMs: 10_000,
  certificatesMs: 60_000,
};

/**
 * Starts a coordinator of a cluster: it competes for the Lease and, while it holds it, brings every agent to what the
 * policy resources say. Rejects with a StartError where it cannot even begin.
 */
export async function startClusterCoordinator(config: ClusterConfig, { log }: { log: Logger }): Promise<Coordinator> {
  const stops: Parts = [];
  try {
    const fallback = readyPolicy(await loadDefaultPolicy(config));
    const access = await loadKubeAccess({ ...(config.kubeconfig && { kubeconfig: config.kubeconfig }), nowMs }).catch(
      (cause: Error) => {
        throw new StartError(`no access to an API server: ${cause.message}`, { exitCode: 1, cause });
      },
    );
    const client = createKubeClient(access, { userAgent: `checkpoint-restore-operator/${VERSION}` });
    stops.push(() => client.close());

    let agents: () => AgentView[] = () => [];
    const metrics = createMetrics({ version: VERSION, agents: () => agents() });
    metrics.isLeader.set(0);
    const health = createHealth({ nowMs });
    const metricsUrl = await startHttp(config.metricsAddress, { metrics, stops, ...health });

    const complaining = setInterval(() => {
      const problem = health.complaint();
      if (problem !== undefined) log.error({ problem }, "not ready for a minute");
    }, TICK_MS);
    stops.push(() => clearInterval(complaining));

    const ending = new AbortController();
    const identity = `${config.identity}_${randomUUID()}`;
    const election = runElection({
      client,
      lease: { namespace: config.namespace, name: config.leaseName },
      identity,
      signal: ending.signal,
      nowMs,
      now: () => new Date(),
      random: Math.random,
      log,
      onLeaseUsed: health.leaseUsed,
      lead: async (leadership) => {
        metrics.isLeader.set(1);
        try {
          await lead(leadership, {
            config,
            client,
            log,
            metrics,
            fallback,
            identity,
            watchAgents: (view) => (agents = view),
            watchReadiness: health.setLeader,
          });
        } finally {
          agents = () => [];
          health.setLeader(undefined);
          forgetLeadership(metrics);
        }
      },
    });
    stops.push(async () => {
      ending.abort();
      await election.catch(() => {});
    });
    log.info({ identity, metricsUrl }, "coordinator started");
    return { metricsUrl, ended: election, stop: () => stopAll(stops) };
  } catch (cause) {
    await stopAll(stops);
    throw cause;
  }
}

interface LeadContext {
  config: ClusterConfig;
  client: KubeClient;
  log: Logger;
  metrics: Metrics;
  fallback: ReadyPolicy;
  identity: string;
  watchAgents: (view: () => AgentView[]) => void;
  watchReadiness: (notReady: () => string | undefined) => void;
}

/** Everything that only the leader does; ends with the leadership. */
async function lead(leadership: Leadership, context: LeadContext): Promise<void> {
  const { config, client, log, metrics, fallback, identity, watchAgents, watchReadiness } = context;
  const { signal, term } = leadership;
  const mayAct = () => leadership.holds();
  const stops: Parts = [];
  log.info({ term }, "leading");

  let pusher: Pusher | undefined;
  const agentPods = createMirror<AgentPod>(({ uid }) => uid);
  /** Watches that are not synced, by what they watch. */
  const unsynced = new Set(["policies", "nodes", "agents", "pods"]);
  watchReadiness(() => "the leader's certificates are not there yet");
  const link = await openLink(context, {
    leadership,
    stops,
    // Which agents there are is not known while their watch is not synced.
    view: () => (agentPods.isSynced ? pusher?.view() : undefined),
    onDisconnect: (origin) => pusher?.noteDisconnect(origin),
  });
  if (link === undefined) return stopAll(stops);
  watchReadiness(() => (unsynced.size === 0 ? undefined : `the leader does not know all ${[...unsynced].join(", ")}`));

  const resources = createMirror<PolicyResource>(
    ({ uid }) => uid,
    (a, b) => a.generation === b.generation && a.confirmOrphans === b.confirmOrphans,
  );
  const nodes = createMirror<NodeFacts>(({ name }) => name);
  const judge = createJudge(config);
  const rulings = createRulings({
    record: leadership.memo,
    leave: leadership.leaveMemo,
    onChange() {
      // Proofs made for a shorter grace period are withdrawn before the policies go out.
      prover.ruled();
      pusher?.setPolicy(({ node }) => rulings.policyOf(node));
    },
    refreshMs: RECORD_REFRESH_MS,
  });
  let ruling: Ruling | undefined;
  /** The resources of that ruling, by key. */
  let resourceOf = new Map<string, PolicyResource>();
  /** What the last look saw of the nodes' agents. */
  let accepted = new Map<string, AcceptedDirective>();
  let nextLook: NodeJS.Timeout | undefined;
  let pendingLook: NodeJS.Timeout | undefined;
  const holds = createToldHolds({ nowMs });
  const countHeld = () =>
    metrics.orphansHeld.set([...holds.byNode().values()].reduce((sum, { count }) => sum + count, 0));

  const guarded: AgentClient = {
    ...link,
    // After a freeze the signal may come late; the clock does not.
    putDirective: async (...call) =>
      mayAct() ? link.putDirective(...call) : { outcome: "failed", cause: new Error("no longer the leader") },
  };
  const prover = createOrphanProver({
    client,
    nowMs,
    wallMs: Date.now,
    signal,
    mayAct,
    resyncMs: TIMINGS.resyncMs,
    graceOf: rulings.graceOf,
    log,
    emit: {
      facts: (podUID, facts) => pusher?.setOrphans(podUID, facts),
      held: (node, proofs) => {
        holds.note(node, proofs);
        countHeld();
      },
    },
  });
  stops.push(() => prover.stop());
  const statuses = createStatusWriter({ client, path: policyPath, nowMs, wallMs: Date.now, signal, mayAct, log });
  const versions = createStatusVersions();
  /** Why agents have not started; undefined if pods have changed since. */
  let starts: Map<string, string> | undefined;
  const events = createEventWriter({ client, nowMs, now: () => new Date(), signal, mayAct, log, identity });

  pusher = createPusher({
    client: guarded,
    term,
    timings: TIMINGS,
    concurrency: CONCURRENT_CALLS,
    wallMs: Date.now,
    monotonicMs: nowMs,
    random: Math.random,
    events: {
      ...logPush(log, metrics),
      onReport: ({ node, podUID }, report) => {
        const rules = ruling?.nodes.get(node);
        prover.reported({ podUID, node }, report);
        events.deletions(rules?.source === "resource" ? resourceOf.get(rules.resource) : undefined, report);
        if (rules === undefined || rules.source === "unknown") lookIfNew(node);
      },
      onOlder: ({ node }, newest) => {
        if (leadership.raiseTerm(node, newest.term))
          log.warn({ node, newest }, "an agent follows a directive that this term cannot supersede");
      },
    },
  });
  const { view, setAgents, setTerm, stop: stopPushing } = pusher;
  leadership.onTermRaised(setTerm);
  stops.push(stopPushing);
  watchAgents(view);

  /** Decides anew who rules which node, once everything that this rests on is known. */
  function look(): void {
    // While a watch is lost, a policy may have come back unseen. So no rest ends.
    if (!mayAct() || !resources.isSynced || !nodes.isSynced || agentPods.items === undefined) return;
    clearTimeout(nextLook);
    const policiesSeen = [...(resources.items?.values() ?? [])];
    if (judge.compileNext(policiesSeen)) {
      // Compiling many takes long: nothing that was proved by what ruled before stands for so long.
      prover.ruled();
      lookSoon(0);
      return;
    }
    accepted = acceptedByNode(view(), fallback.digest);
    ruling = rulings.decide({
      resources: judge.judge(policiesSeen),
      nodes: agentNodes(nodes.items?.values() ?? [], agentPods.items.values()),
      defaultPolicy: fallback,
      graceMs: config.policyGraceMs,
      nowMs: nowMs(),
      accepted,
    });
    resourceOf = new Map(ruling.resources.map(({ key, resource }) => [key, resource]));
    countPolicies(metrics, ruling);
    metrics.policyConflicts.set(ruling.resources.filter(({ conflicts }) => conflicts.size > 0).length);
    noteChanges(ruling);
    confirmOrphans(ruling);
    if (ruling.nextMs === undefined) return;
    nextLook = setTimeout(look, Math.max(10, Math.min(ruling.nextMs - nowMs() + 1, RECORD_REFRESH_MS)));
  }

  /** Looks once for all changes that come in the meantime: a look costs every node, and so does a fresh leader's start. */
  function lookSoon(delayMs = LOOK_SOON_MS): void {
    pendingLook ??= setTimeout(() => {
      pendingLook = undefined;
      look();
    }, delayMs);
  }

  /** Looks if a node's agents have accepted something else than the last look saw: only that can decide what rules it. */
  function lookIfNew(node: string): void {
    if (pendingLook !== undefined) return;
    const views = view().filter(({ address }) => address.node === node);
    const now = acceptedByNode(views, fallback.digest).get(node);
    if (!isDeepStrictEqual(now, accepted.get(node))) lookSoon();
  }

  function noteChanges({ changes, rests, returns, nodes: rules, resources: judged }: Ruling): void {
    for (const { resource, problems } of judged) {
      if (problems.length === 0) continue;
      events.note(resource, {
        type: "Warning",
        reason: "PolicyRefused",
        message: formatProblems(problems),
      });
    }
    // One Event tells of all nodes at once: a policy may rule a thousand.
    for (const same of Map.groupBy(changes, ({ from, to }) => `${from} ${to}`).values()) {
      const { from, to } = same[0] as (typeof same)[number];
      const message = `${to} rules ${nameNodes(same.map(({ node }) => node))} now, after ${from}`;
      for (const { key, resource } of judged) {
        if (key === from || key === to) events.note(resource, { type: "Normal", reason: "RulingChanged", message });
      }
    }
    for (const same of Map.groupBy(rests, ({ after, next }) => `${after} ${next}`).values()) {
      const { node: first, after, next } = same[0] as (typeof same)[number];
      const rest = rules.get(first);
      const remainingMs = rest?.source === "rest" ? rest.untilMs - nowMs() : 0;
      const until = new Date(Math.ceil((Date.now() + remainingMs) / 1000) * 1000).toISOString().replace(".000Z", "Z");
      const names = nameNodes(same.map(({ node }) => node));
      const gone = after ?? "a policy that this leader does not know";
      const acts = after === undefined ? "no rule is pushed there" : "only its node rules act there";
      const message = `${gone} went away from ${names}: until ${until} ${acts}, then ${next ?? "the default"} rules`;
      log.info({ nodes: same.length, after, next, until }, "nodes rest");
      for (const { key, resource } of judged) {
        if (key === after || key === next) events.note(resource, { type: "Normal", reason: "Resting", message });
      }
    }
    for (const [key, same] of Map.groupBy(returns, ({ resource }) => resource)) {
      const message = `${key} is back and rules ${nameNodes(same.map(({ node }) => node))} again, by its old rank`;
      const resource = resourceOf.get(key);
      if (resource !== undefined) events.note(resource, { type: "Normal", reason: "RulingResumed", message });
    }
  }

  /** The annotation of each resource that was acted upon last, by UID. */
  const confirmations = new Map<string, string | undefined>();

  /** Each value acts once. None does that a fresh leader finds, for nothing is held yet. */
  function confirmOrphans({ nodes: rules, resources: ruled }: Ruling): void {
    for (const { key, resource, matched } of ruled) {
      const { uid, confirmOrphans: value } = resource;
      if (confirmations.get(uid) === value) continue;
      confirmations.set(uid, value);
      const own = matched.filter((node) => {
        const rule = rules.get(node);
        return rule?.source === "resource" && rule.resource === key;
      });
      if (value !== undefined) for (const node of confirmedNodes(value, own)) prover.confirmed(node);
    }
    const uids = new Set(ruled.map(({ resource }) => resource.uid));
    for (const uid of confirmations.keys()) if (!uids.has(uid)) confirmations.delete(uid);
  }

  function tick(): void {
    events.tick();
    holds.tick();
    countHeld();
    if (ruling === undefined) return;
    const views = view();
    const byNode = viewByNode(views);
    events.keepOnly({
      resources: new Set(ruling.resources.map(({ resource }) => resource.uid)),
      agents: new Set(views.map(({ address }) => address.podUID)),
    });
    const { nodes: rules, resources: ruled } = ruling;
    const now = new Date().toISOString();
    starts ??= describeStarts(agentPods.items?.values() ?? []);
    const known = { nodes: rules, agents: byNode, starts, held: holds.byNode() };
    versions.update(known);
    // Writing may go on when the next tick knows more.
    const versionOf = new Map(ruled.map(({ key }) => [key, versions.of(key)]));
    const makeStatus = (one: ResourceRuling) => {
      const status = aggregateStatus({ ruling: one, ...known, now, nowMs: nowMs() });
      // Without numbers, which the status has: the same again is told only of another version of the policy.
      if (status.mode === "DryRun" && (status.planned?.archives ?? 0) > 0) {
        const message =
          "DryRun keeps archives that would be deleted: status.planned counts them, the agents' logs name them";
        events.note(one.resource, { type: "Normal", reason: "ArchivesPlanned", message });
      }
      return status;
    };
    void statuses.write(ruled, makeStatus, ({ key }) => versionOf.get(key));
  }

  const follow = <T>(
    name: string,
    collection: Parameters<typeof watchObjects>[0]["collection"],
    { project, emit }: { project: (object: KubeObject) => T; emit: (event: WatchEvent<T>) => void },
  ) =>
    watchObjects<T>({
      client,
      collection,
      project,
      signal,
      nowMs,
      random: Math.random,
      emit(event) {
        if (event.type === "synced" || event.type === "lost") {
          metrics.watchSynced.set({ resource: name }, event.type === "synced" ? 1 : 0);
          if (event.type === "synced") unsynced.delete(name);
          else unsynced.add(name);
          if (event.type === "lost" && !signal.aborted)
            log.warn({ resource: name, problem: event.failure.message }, "watch lost");
          if (name === "policies" || name === "nodes") rulings.interrupt();
        }
        emit(event);
        if (event.type === "lost") prover.ruled();
      },
    });
  const mirrored = <T>(
    mirror: Mirror<T>,
    project: (object: KubeObject) => T,
    onChange: (event: WatchEvent<T>) => void,
  ) => ({
    project,
    emit: (event: WatchEvent<T>) => {
      if (mirror.take(event)) onChange(event);
    },
  });
  /** Takes in what decides who rules: until the next look nothing is proved by what it may have changed. */
  const decisive =
    <T>(outdate: (item: T) => void) =>
    (event: WatchEvent<T>) => {
      if ("item" in event) outdate(event.item);
      lookSoon();
    };
  const { namespace, agentSelector, agentPort } = config;
  const watching = Promise.all([
    follow(
      "policies",
      policies,
      mirrored(
        resources,
        (object) => judge.keep(toResource(object)),
        decisive((resource) => {
          if (judge.counts(resource)) rulings.outdate();
        }),
      ),
    ),
    follow(
      "nodes",
      { path: "/api/v1/nodes", metadataOnly: true },
      mirrored(
        nodes,
        toNodeFacts,
        decisive(({ name }) => rulings.outdate(name)),
      ),
    ),
    follow(
      "agents",
      { path: kubePath`/api/v1/namespaces/${namespace}/pods`, labelSelector: agentSelector, metadataOnly: false },
      mirrored(agentPods, toAgentPod, () => {
        starts = undefined;
        const addresses = toAddresses(agentPods.items?.values() ?? [], agentPort);
        const present = new Set(addresses.map(({ podUID }) => podUID));
        for (const { address } of view()) {
          if (!present.has(address.podUID)) prover.agentGone(address.podUID);
        }
        setAgents(addresses);
        lookSoon();
      }),
    ),
    follow<PodName>(
      "pods",
      { path: "/api/v1/pods", metadataOnly: true },
      {
        project: toPodName,
        emit(event) {
          if (event.type === "lost" || event.type === "synced") holds.watch(event.type);
          prover.podsEvent(event);
        },
      },
    ),
  ]);
  const ticking = setInterval(tick, TICK_MS);

  const isOver = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
  try {
    // A watch ends before the leadership only if what it brought cannot be dealt with.
    await Promise.race([isOver, watching]);
  } finally {
    clearInterval(ticking);
    clearTimeout(nextLook);
    clearTimeout(pendingLook);
    await stopAll(stops);
  }
  await watching;
  log.info({ term }, "no longer leading");
}

/** The calls to agents, with certificates that are kept fresh; undefined where the leadership ended before there were any. */
async function openLink(
  { config, client, log, metrics }: LeadContext,
  options: {
    leadership: Leadership;
    stops: Parts;
    /** The agents that there are; undefined while that is not known. */
    view: () => AgentView[] | undefined;
    onDisconnect: (origin: string) => void;
  },
): Promise<AgentClient | undefined> {
  const { leadership, stops, view, onDisconnect } = options;
  const { signal } = leadership;
  let link: AgentClient | undefined;
  let material: TlsMaterial | undefined;
  const use = (next: TlsMaterial) => {
    material = next;
    link?.reload(next);
  };
  const secrets = createSecretStore(client, { namespace: config.namespace, names: config.secrets, signal });
  const store = guardStore(secrets, () => leadership.holds());
  const keeper = createCertificateKeeper({
    store,
    lifetimes: config.lifetimes,
    now: Date.now,
    randomBytes,
    reported: () => view()?.map(({ report }) => report?.certificates),
    onMaterial: use,
    onExpiry: (name, notAfterMs) => setExpiry(metrics, name, notAfterMs),
    log,
  });
  const readGiven = async () => {
    const { files } = await store.read("coordinator");
    const { "tls.crt": certificate = "", "tls.key": key = "", "ca.crt": authority = "" } = files;
    if (certificate === "" || key === "" || authority === "")
      throw new Error(`Secret ${config.secrets.coordinator} is empty`);
    if (certificate !== material?.certificate || authority !== material.authority) use({ certificate, key, authority });
  };
  const refresh = () => (config.areCertificatesManaged ? keeper.refresh() : readGiven());
  while (!signal.aborted && material === undefined) {
    await refresh().catch((err: Error) => log.warn({ err }, "certificates are not there yet"));
    if (material === undefined && !signal.aborted) await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  if (material === undefined) return undefined;
  link = createAgentClient({ material, deadlineMs: TIMINGS.callDeadlineMs, wallMs: Date.now, onDisconnect });
  const { close } = link;
  stops.push(close);
  const refreshing = setInterval(() => {
    refresh().catch((err: Error) => {
      if (leadership.holds()) log.error({ err }, "certificates cannot be kept fresh");
    });
  }, config.certificatesCheckMs);
  stops.push(() => clearInterval(refreshing));
  return link;
}

function toResource({ metadata, ...object }: KubeObject): PolicyResource {
  const { namespace = "", name, uid, generation = 0, creationTimestamp = "" } = metadata;
  const { spec } = object as { spec?: unknown };
  const confirmOrphans = metadata.annotations?.[CONFIRM_ORPHANS];
  return {
    ...{ namespace, name, uid, generation, createdAt: creationTimestamp, spec },
    ...(confirmOrphans !== undefined && { confirmOrphans }),
  };
}

function toPodName({ metadata }: KubeObject): PodName {
  return { namespace: metadata.namespace ?? "", name: metadata.name, uid: metadata.uid };
}

async function loadDefaultPolicy({ defaultPolicyFile: file, defaultDirectory }: ClusterConfig) {
  if (file === undefined) return defaultPolicy({ defaultDirectory });
  const text = await readFile(file, "utf8").catch((cause: Error) => {
    throw new StartError(`--default-policy ${file}: ${cause.message}`, { exitCode: 2, cause });
  });
  const result = readPolicy(text, { defaultDirectory });
  if (result.ok) return result.policy;
  throw new StartError(`--default-policy ${file}: ${formatProblems(result.problems)}`, { exitCode: 2 });
}

function nowMs(): number {
  return performance.now();
}
