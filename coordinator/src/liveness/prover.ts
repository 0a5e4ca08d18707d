import type { OrphanFact } from "@cro/shared/wire/directive";
import type { OrphanScope, Report } from "@cro/shared/wire/report";
import type { Logger } from "pino";
import { type KubeClient, type KubeObject, provesAbsence } from "../kube/client.ts";
import { listObjects } from "../kube/list.ts";
import type { WatchEvent } from "../kube/watch.ts";

/** A pod by its names; nothing else of it is kept. */
export interface PodName {
  namespace: string;
  name: string;
  uid: string;
}

/** How long a fact is sent along, in milliseconds: the agent lets it lapse as soon. */
const FACT_LIFETIME_MS = 60_000;
/** Pods that are read one by one in a second, over all agents. */
const GETS_PER_SECOND = 20;
/** Above so many absent pods in one namespace, one list proves them all. */
const LIST_ABOVE = 20;
/** The span and the number over which proofs for most of a node are suspicious. */
const HOLD_WINDOW_MS = 10 * 60_000;
const HOLD_ABOVE = 10;
/** How long the moment of a pod's deletion is remembered, in milliseconds; longer than any sane grace period. */
const DELETIONS_REMEMBERED_MS = 60 * 60_000;
/** How long an agent's report may be old for its questions to be still answered, in milliseconds. */
const QUESTIONS_LIFETIME_MS = 90_000;
/** How long an answer is taken to be on its way, in milliseconds, before the same question is answered anew. */
const ASK_AGAIN_MS = 10_000;
/** How long a question rests whose answer was unknown, in milliseconds; the API server may ask for more. */
const UNKNOWN_REST_MS = 2000;
/** The shortest time between two rounds of answers, in milliseconds. */
const ROUND_REST_MS = 50;
/** How many times as long as a look at all questions took nothing is looked at: a cluster may ask about every pod. */
const LOOK_REST = 10;

export interface ProverOptions {
  client: KubeClient;
  /** Monotonic clock. */
  nowMs: () => number;
  signal: AbortSignal;
  /** Whether the leadership still lasts. */
  mayAct: () => boolean;
  log: Pick<Logger, "info" | "warn">;
  emit: {
    /** All facts that the agent's next directive shall carry. */
    facts: (podUID: string, facts: OrphanFact[]) => void;
    /** How many proofs of this agent's questions are held back. */
    held: (podUID: string, count: number) => void;
  };
}

/** Answers the agents' questions about pods that may be gone, by proof alone. */
export interface OrphanProver {
  podsEvent(event: WatchEvent<PodName>): void;
  /** An agent's report; its orphan scopes are the questions. `graceMs` is how long a pod must have been absent. */
  reported(podUID: string, report: Report, graceMs: number): void;
  /** The agent was brought up to date anew: what was held back may be proved again, and then goes. */
  resynced(podUID: string): void;
  agentGone(podUID: string): void;
  stop(): Promise<void>;
}

interface AgentQuestions {
  bootId: string;
  number: number;
  atMs: number;
  graceMs: number;
  scopes: Map<string, OrphanScope>;
  omitted: number;
  facts: Map<string, { fact: OrphanFact; atMs: number }>;
  /** When facts were emitted, in the last minutes. */
  emittedAtMs: number[];
  held: Set<string>;
  /** Held ones that go when they are proved once more. */
  confirmed: Set<string>;
}

/** What an agent asks and has no answer to. */
interface OpenQuestion {
  podUID: string;
  agent: AgentQuestions;
  proof: Proof;
  dueMs: number;
}

/** An answer that was just proved. */
interface Proof {
  key: string;
  namespace: string;
  pod: string;
  container?: string;
}

export function createOrphanProver(options: ProverOptions): OrphanProver {
  const { client, nowMs, signal, mayAct, log, emit } = options;
  /** Names and UIDs of all pods, by namespace; undefined while the watch knows nothing. */
  let pods: Map<string, Map<string, string>> | undefined;
  let syncedAtMs = 0;
  const deletedAtMs = new Map<string, number>();
  const agents = new Map<string, AgentQuestions>();
  /** Containers of a living pod, by UID, and since when one that is asked about is missing among them. */
  const containersOf = new Map<string, Set<string>>();
  const missingSinceMs = new Map<string, number>();
  const restUntilMs = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let planning: NodeJS.Timeout | undefined;
  /** Before that moment no plan is made. */
  let planFromMs = 0;
  let working: Promise<void> | undefined;
  const gets: number[] = [];

  function absentSince(namespace: string, pod: string): number | undefined {
    if (pods === undefined || pods.get(namespace)?.has(pod)) return undefined;
    return deletedAtMs.get(`${namespace}/${pod}`) ?? syncedAtMs;
  }

  function wake(atMs: number): void {
    clearTimeout(timer);
    if (!signal.aborted) timer = setTimeout(work, Math.max(0, Math.ceil(atMs - nowMs())));
  }

  function work(): void {
    if (working !== undefined || signal.aborted) return;
    working = answer()
      .catch((err: unknown) => log.warn({ err }, "orphans cannot be proved"))
      .finally(() => {
        working = undefined;
        planFromMs = Math.max(planFromMs, nowMs() + ROUND_REST_MS);
        plan();
      });
  }

  /** Plans the next round, once for everything that happens until then. */
  function plan(): void {
    if (signal.aborted) return;
    planning ??= setTimeout(
      () => {
        planning = undefined;
        const startMs = nowMs();
        const next = nextDueMs();
        planFromMs = nowMs() + (nowMs() - startMs) * LOOK_REST;
        if (next !== undefined) wake(next);
      },
      Math.max(0, planFromMs - nowMs()),
    );
  }

  /** When the earliest question may be answered; undefined where none waits. */
  function nextDueMs(): number | undefined {
    let next: number | undefined;
    for (const { dueMs } of openQuestions()) next = Math.min(next ?? Number.POSITIVE_INFINITY, dueMs);
    return next;
  }

  function* openQuestions(): Generator<OpenQuestion> {
    if (pods === undefined || !mayAct()) return;
    const now = nowMs();
    for (const [podUID, agent] of agents) {
      if (now - agent.atMs > QUESTIONS_LIFETIME_MS) continue;
      const isOpen = (key: string) => !agent.facts.has(key) && (!agent.held.has(key) || agent.confirmed.has(key));
      for (const [podKey, { namespace, pod, containers }] of agent.scopes) {
        const uid = pods.get(namespace)?.get(pod);
        const restMs = restUntilMs.get(podKey) ?? 0;
        if (uid === undefined) {
          const dueMs = Math.max((absentSince(namespace, pod) ?? now) + agent.graceMs, restMs);
          if (isOpen(podKey)) yield { podUID, agent, proof: { key: podKey, namespace, pod }, dueMs };
          continue;
        }
        const known = containersOf.get(uid);
        for (const container of containers) {
          // So it is with nearly all that is asked, and a cluster may ask about all of its pods.
          if (known?.has(container)) continue;
          const key = `${podKey}/${container}`;
          if (!isOpen(key)) continue;
          const dueMs = known === undefined ? restMs : (missingSinceMs.get(key) ?? now) + agent.graceMs;
          yield { podUID, agent, proof: { key, namespace, pod, container }, dueMs };
        }
      }
    }
  }

  async function answer(): Promise<void> {
    forgetOld();
    const due = [...openQuestions()].filter(({ dueMs }) => dueMs <= nowMs());
    const gone = due.filter(({ proof }) => proof.container === undefined);
    const byNamespace = Map.groupBy(gone, ({ proof }) => proof.namespace);
    const proved = new Map<string, Proof>();
    for (const [namespace, questions] of byNamespace) {
      const names = new Set(questions.map(({ proof }) => proof.pod));
      const absent = names.size > LIST_ABOVE ? await listAbsent(namespace, names) : await getAbsent(namespace, names);
      for (const pod of absent) proved.set(`${namespace}/${pod}`, { key: `${namespace}/${pod}`, namespace, pod });
    }
    const living = new Map(
      due
        .filter(({ proof }) => proof.container !== undefined)
        .map((open) => [`${open.proof.namespace}/${open.proof.pod}`, open.proof]),
    );
    // So many and no more, for pods that are gone meanwhile shall not wait until all the living are read.
    for (const { namespace, pod } of [...living.values()].slice(0, GETS_PER_SECOND)) {
      await readContainers(namespace, pod);
    }
    for (const { proof } of due) {
      if (proof.container === undefined) continue;
      const uid = pods?.get(proof.namespace)?.get(proof.pod);
      const known = containersOf.get(uid ?? "");
      const since = missingSinceMs.get(proof.key);
      if (known === undefined || known.has(proof.container)) missingSinceMs.delete(proof.key);
      else if (since === undefined) missingSinceMs.set(proof.key, nowMs());
      else proved.set(proof.key, proof);
    }
    // Between the proof and this moment the watch may have lost its footing, or the leadership its hold.
    if (pods === undefined || !mayAct() || signal.aborted) return;
    const answered = Map.groupBy(
      due.filter(({ proof }) => proved.has(proof.key)),
      ({ podUID }) => podUID,
    );
    for (const [podUID, questions] of answered) {
      // It may have reported again meanwhile. What it has listed since then the proof is too old for.
      const [asked] = questions.map((question) => question.agent);
      const agent = agents.get(podUID);
      if (asked === undefined || asked.bootId !== agent?.bootId) continue;
      const mine = questions.map(({ proof }) => proof);
      const still = mine.filter(
        (proof) => proof.container !== undefined || absentSince(proof.namespace, proof.pod) !== undefined,
      );
      const ripe = still.filter(
        (proof) =>
          proof.container === undefined || nowMs() >= (missingSinceMs.get(proof.key) ?? nowMs()) + agent.graceMs,
      );
      if (ripe.length > 0) settle(podUID, agent, { proofs: ripe, report: asked.number });
    }
  }

  /** Sends proofs on, or holds them back where they are for most of a node: so looks a restored API server, too. */
  function settle(
    podUID: string,
    agent: AgentQuestions,
    { proofs, report }: { proofs: Proof[]; report: number },
  ): void {
    const now = nowMs();
    agent.emittedAtMs = agent.emittedAtMs.filter((atMs) => now - atMs < HOLD_WINDOW_MS);
    const absent = [...agent.scopes.values()].filter(
      ({ namespace, pod }) => absentSince(namespace, pod) !== undefined,
    ).length;
    const scopes = agent.scopes.size + agent.omitted + agent.emittedAtMs.length;
    const suspicious = Math.max(absent, proofs.length) + agent.emittedAtMs.length;
    const isHeld = suspicious > HOLD_ABOVE && suspicious > scopes / 2;
    for (const proof of proofs) {
      if (isHeld && !agent.confirmed.has(proof.key)) {
        agent.held.add(proof.key);
        continue;
      }
      const { key: _key, ...names } = proof;
      agent.facts.set(proof.key, { fact: { bootId: agent.bootId, report, ...names }, atMs: now });
      agent.emittedAtMs.push(now);
      agent.held.delete(proof.key);
      agent.confirmed.delete(proof.key);
    }
    if (isHeld) log.warn({ held: agent.held.size, scopes }, "suspiciously many pods are gone; their archives wait");
    emit.held(podUID, agent.held.size);
    emitFacts(podUID, agent);
  }

  function emitFacts(podUID: string, agent: AgentQuestions): void {
    emit.facts(
      podUID,
      [...agent.facts.values()].map(({ fact }) => fact),
    );
  }

  async function getAbsent(namespace: string, names: Set<string>): Promise<string[]> {
    const absent: string[] = [];
    for (const name of names) {
      if (!(await takeTurn())) break;
      const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
      const answer = await client.request<KubeObject>({ path, kind: "Pod", signal });
      if (!answer.ok && provesAbsence(answer, { kind: "pods", name })) absent.push(name);
      else rest(`${namespace}/${name}`, answer.ok ? undefined : answer.retryAfterMs);
    }
    return absent;
  }

  async function listAbsent(namespace: string, names: Set<string>): Promise<string[]> {
    const collection = { path: `/api/v1/namespaces/${namespace}/pods`, metadataOnly: true };
    const list = await listObjects(client, collection, { project: ({ metadata }) => metadata.name, signal });
    if (!list.ok) {
      for (const name of names) rest(`${namespace}/${name}`, list.retryAfterMs);
      return [];
    }
    const present = new Set(list.value.items);
    return [...names].filter((name) => !present.has(name));
  }

  async function readContainers(namespace: string, pod: string): Promise<void> {
    if (!(await takeTurn())) return;
    const path = `/api/v1/namespaces/${namespace}/pods/${pod}`;
    const answer = await client.request<KubeObject & { spec?: Record<string, unknown> }>({ path, kind: "Pod", signal });
    const uid = answer.ok ? answer.value.metadata.uid : undefined;
    const names = answer.ok ? containerNames(answer.value.spec) : undefined;
    if (uid === undefined || names === undefined || answer.ok === false) {
      rest(`${namespace}/${pod}`, answer.ok ? undefined : answer.retryAfterMs);
      return;
    }
    if (pods?.get(namespace)?.get(pod) === uid) containersOf.set(uid, names);
  }

  function rest(key: string, retryAfterMs: number | undefined): void {
    restUntilMs.set(key, nowMs() + Math.max(UNKNOWN_REST_MS, retryAfterMs ?? 0));
  }

  /** Waits until another pod may be read; false where the leadership ended meanwhile. */
  async function takeTurn(): Promise<boolean> {
    while (gets.length >= GETS_PER_SECOND) {
      const waitMs = (gets[0] ?? 0) + 1000 - nowMs();
      if (waitMs <= 0) gets.shift();
      else await new Promise((resolve) => setTimeout(resolve, waitMs));
      if (signal.aborted || !mayAct()) return false;
    }
    gets.push(nowMs());
    return true;
  }

  function forgetOld(): void {
    const now = nowMs();
    for (const [key, atMs] of deletedAtMs) if (now - atMs > DELETIONS_REMEMBERED_MS) deletedAtMs.delete(key);
    for (const [key, untilMs] of restUntilMs) if (untilMs < now) restUntilMs.delete(key);
    for (const [podUID, agent] of agents) {
      const before = agent.facts.size;
      for (const [key, { atMs }] of agent.facts) if (now - atMs > FACT_LIFETIME_MS) agent.facts.delete(key);
      if (agent.facts.size !== before) emitFacts(podUID, agent);
    }
  }

  /** A pod is there, or there again: whatever was proved of it holds no more. */
  function appeared(namespace: string, name: string): void {
    deletedAtMs.delete(`${namespace}/${name}`);
    for (const [podUID, agent] of agents) {
      const key = `${namespace}/${name}`;
      agent.held.delete(key);
      agent.confirmed.delete(key);
      if (agent.facts.delete(key)) emitFacts(podUID, agent);
    }
  }

  return {
    podsEvent(event) {
      if (event.type === "lost") {
        pods = undefined;
        deletedAtMs.clear();
        missingSinceMs.clear();
        for (const [podUID, agent] of agents) {
          agent.facts.clear();
          agent.held.clear();
          agent.confirmed.clear();
          emitFacts(podUID, agent);
          emit.held(podUID, 0);
        }
        return;
      }
      if (event.type === "synced") {
        pods = new Map();
        syncedAtMs = nowMs();
        for (const { namespace, name, uid } of event.items) enter(pods, namespace, name, uid);
        const living = new Set(event.items.map(({ uid }) => uid));
        for (const uid of containersOf.keys()) if (!living.has(uid)) containersOf.delete(uid);
      } else if (pods !== undefined) {
        const { namespace, name, uid } = event.item;
        const known = pods.get(namespace)?.get(name);
        if (event.type !== "deleted") {
          if (known !== uid) appeared(namespace, name);
          enter(pods, namespace, name, uid);
        } else if (known === uid) {
          pods.get(namespace)?.delete(name);
          if (pods.get(namespace)?.size === 0) pods.delete(namespace);
          containersOf.delete(uid);
          deletedAtMs.set(`${namespace}/${name}`, nowMs());
        }
      }
      plan();
    },

    reported(podUID, report, graceMs) {
      const before = agents.get(podUID);
      const isSameStart = before?.bootId === report.bootId;
      const scopes = new Map(report.orphanScopes.map((scope) => [`${scope.namespace}/${scope.pod}`, scope]));
      const isAsked = (key: string) => scopes.has(key.split("/").slice(0, 2).join("/"));
      const keep = <V>(entries: Iterable<[string, V]>) => [...entries].filter(([key]) => isSameStart && isAsked(key));
      const agent: AgentQuestions = {
        bootId: report.bootId,
        number: report.number,
        atMs: nowMs(),
        graceMs,
        scopes,
        omitted: report.orphanScopesOmitted,
        // What is asked again although it was answered needs a proof of its own: the last one may have come too early.
        facts: new Map(keep(before?.facts ?? []).filter(([, { atMs }]) => nowMs() - atMs < ASK_AGAIN_MS)),
        emittedAtMs: before?.emittedAtMs ?? [],
        held: new Set(
          keep([...(before?.held ?? [])].map((key) => [key, true] as [string, boolean])).map(([key]) => key),
        ),
        confirmed: isSameStart ? (before?.confirmed ?? new Set()) : new Set(),
      };
      agents.set(podUID, agent);
      if ((before?.facts.size ?? 0) !== agent.facts.size) emitFacts(podUID, agent);
      if ((before?.held.size ?? 0) !== agent.held.size) emit.held(podUID, agent.held.size);
      plan();
    },

    resynced(podUID) {
      const agent = agents.get(podUID);
      if (agent === undefined || agent.held.size === 0) return;
      agent.confirmed = new Set(agent.held);
      wake(nowMs());
    },

    agentGone: (podUID) => void agents.delete(podUID),

    async stop() {
      clearTimeout(timer);
      clearTimeout(planning);
      await working;
    },
  };
}

function enter(pods: Map<string, Map<string, string>>, namespace: string, name: string, uid: string): void {
  const names = pods.get(namespace);
  if (names === undefined) pods.set(namespace, new Map([[name, uid]]));
  else names.set(name, uid);
}

/** The names of all containers of a pod, init and ephemeral ones too; undefined where the spec is none. */
function containerNames(spec: Record<string, unknown> | undefined): Set<string> | undefined {
  if (spec === undefined || !Array.isArray(spec.containers)) return undefined;
  const names = new Set<string>();
  for (const list of [spec.containers, spec.initContainers, spec.ephemeralContainers]) {
    if (!Array.isArray(list)) continue;
    for (const container of list as Array<{ name?: unknown }>)
      if (typeof container.name === "string") names.add(container.name);
  }
  return names;
}
