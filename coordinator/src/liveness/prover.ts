import type { OrphanFact } from "@cro/shared/wire/directive";
import type { Logger } from "pino";
import { createBudget } from "../budget.ts";
import { type KubeClient, type KubeFailure, type KubeObject, kubePath, provesAbsence } from "../kube/client.ts";
import { listObjects } from "../kube/list.ts";
import type { WatchEvent } from "../kube/watch.ts";
import { type HeldProofs, NAMED_PODS } from "./hold.ts";
import type { PodName } from "./pods.ts";
import {
  type AgentName,
  type Answer,
  type Asking,
  advance,
  confirmHeld,
  factsOf,
  forgetAgent,
  heldOf,
  newProofState,
  nextMs,
  podChanged,
  podsLost,
  podsSynced,
  type Read,
  setGrace,
  startRead,
  takeAnswer,
  takeReport,
} from "./step.ts";

export type { PodName } from "./pods.ts";

/** Reads of pods that begin in a second, over all agents. */
const READS_PER_SECOND = 20;
/** Reads on their way at the same time: a slow answer delays no other. */
const MAX_READS = 20;
/** How long facts of one agent are gathered before the next ones are sent, in milliseconds: each sending is answered by a report. */
const GATHER_MS = 1000;
/** The longest sleep, in milliseconds: a timer cannot hold a grace period of a month. */
const MAX_SLEEP_MS = 60_000;
export interface ProverOptions {
  client: KubeClient;
  /** Monotonic clock. */
  nowMs: () => number;
  /** Milliseconds since 1970: the time that proofs carry. */
  wallMs: () => number;
  signal: AbortSignal;
  /** Whether the leadership still lasts. */
  mayAct: () => boolean;
  /** How long suspicious proofs are held before they are proved again, in milliseconds. */
  resyncMs: number;
  /**
   * How long something must have been absent, in milliseconds, by the policy that is known to rule this node now;
   * undefined if none is known.
   */
  graceOf: (node: string) => number | undefined;
  log: Pick<Logger, "info" | "warn">;
  emit: {
    /** All facts that the agent's next directive shall carry. */
    facts: (podUID: string, facts: OrphanFact[]) => void;
    held: (node: string, held: HeldProofs) => void;
  };
}

/** Answers the agents' questions about pods that may be gone, by proof alone. */
export interface OrphanProver {
  podsEvent(event: WatchEvent<PodName>): void;
  /** An agent's report; its orphan scopes are the questions. */
  reported(agent: AgentName, report: Asking): void;
  /** What rules a node, and so its grace period, may have changed, or may have become unknown. */
  ruled(): void;
  /** An operator says that the held pods of a node are gone: their proofs wait no longer, and are made anew. */
  confirmed(node: string): void;
  agentGone(podUID: string): void;
  stop(): Promise<void>;
}

export function createOrphanProver(options: ProverOptions): OrphanProver {
  const { client, nowMs, wallMs, signal, mayAct, resyncMs, graceOf, log, emit } = options;
  const state = newProofState({ resyncMs });
  const reads = new Set<Promise<void>>();
  const budget = createBudget({ perSecond: READS_PER_SECOND, nowMs });
  const sentAtMs = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let pending: NodeJS.Immediate | undefined;

  /** Works once on all that happens until then. */
  function workSoon(): void {
    if (signal.aborted) return;
    pending ??= setImmediate(() => {
      pending = undefined;
      work();
    });
  }

  function work(): void {
    clearTimeout(timer);
    if (signal.aborted) return;
    advance(state, nowMs());
    const readAtMs = beginReads();
    const tellAtMs = tell();
    const delayMs = Math.min(nextMs(state), readAtMs, tellAtMs) - nowMs();
    timer = setTimeout(work, Math.min(Math.max(1, Math.ceil(delayMs)), MAX_SLEEP_MS));
  }

  /** Begins the reads that are due. Returns when it may go on; infinite if it need not. */
  function beginReads(): number {
    if (!mayAct()) return Number.POSITIVE_INFINITY;
    while (reads.size < MAX_READS) {
      const againMs = budget.nextMs();
      if (againMs !== undefined) return againMs;
      const read = startRead(state, { nowMs: nowMs(), wallMs: wallMs() });
      if (read === undefined) break;
      budget.take();
      const reading = carryOut(read)
        .catch((err: unknown) => log.warn({ err }, "a pod cannot be read"))
        .finally(() => {
          reads.delete(reading);
          workSoon();
        });
      reads.add(reading);
    }
    return Number.POSITIVE_INFINITY;
  }

  async function carryOut(read: Read): Promise<void> {
    const { of, namespace, pod } = read;
    let answer: Answer = { found: "unknown" };
    try {
      if (of === "namespace") answer = await readNamespace(namespace);
      else answer = pod === undefined ? await listPods(namespace) : await readPod(namespace, pod);
    } finally {
      // During the read the leadership may have ended, or another policy may have come to rule the node.
      if (!mayAct()) answer = { found: "unknown" };
      refreshGraces(new Set(read.questions.map(({ podUID }) => podUID)));
      takeAnswer(state, read, { answer, nowMs: nowMs() });
    }
  }

  async function readPod(namespace: string, name: string): Promise<Answer> {
    const answer = await client.request<KubeObject & { spec?: Record<string, unknown> }>({
      path: kubePath`/api/v1/namespaces/${namespace}/pods/${name}`,
      kind: "Pod",
      signal,
    });
    if (!answer.ok) return provesAbsence(answer, { kind: "pods", name }) ? { found: "nothing" } : unknown(answer);
    const { metadata, spec } = answer.value;
    const containers = containerNames(spec);
    const isAsked = metadata?.name === name && metadata.namespace === namespace && typeof metadata.uid === "string";
    return isAsked && containers !== undefined ? { found: "pod", uid: metadata.uid, containers } : { found: "unknown" };
  }

  async function readNamespace(name: string): Promise<Answer> {
    const path = kubePath`/api/v1/namespaces/${name}`;
    const answer = await client.request<KubeObject>({ path, kind: "Namespace", signal });
    if (!answer.ok) return provesAbsence(answer, { kind: "namespaces", name }) ? { found: "nothing" } : unknown(answer);
    const { metadata } = answer.value;
    if (metadata?.name !== name || typeof metadata.uid !== "string") return { found: "unknown" };
    return { found: "namespace", isTerminating: typeof metadata.deletionTimestamp === "string" };
  }

  async function listPods(namespace: string): Promise<Answer> {
    const collection = { path: kubePath`/api/v1/namespaces/${namespace}/pods`, metadataOnly: true };
    const list = await listObjects(client, collection, { project: ({ metadata }) => metadata, signal });
    if (!list.ok) return unknown(list);
    const { items } = list.value;
    if (items.some((metadata) => metadata.namespace !== namespace)) return { found: "unknown" };
    return { found: "list", pods: new Set(items.map(({ name }) => name)) };
  }

  function refreshGraces(podUIDs: Iterable<string>): void {
    for (const podUID of podUIDs) {
      const agent = state.agents.get(podUID);
      if (agent !== undefined) setGrace(state, podUID, { graceMs: graceOf(agent.node), nowMs: nowMs() });
    }
  }

  /** Tells what changed. Returns when the facts that still wait are to be told; infinite if none do. */
  function tell(): number {
    let nextTellMs = Number.POSITIVE_INFINITY;
    for (const [podUID, { isWithdrawn }] of state.changes.facts) {
      const tellAtMs = (sentAtMs.get(podUID) ?? Number.NEGATIVE_INFINITY) + GATHER_MS;
      if (!isWithdrawn && nowMs() < tellAtMs) {
        nextTellMs = Math.min(nextTellMs, tellAtMs);
        continue;
      }
      state.changes.facts.delete(podUID);
      sentAtMs.set(podUID, nowMs());
      emit.facts(podUID, factsOf(state, podUID));
    }
    for (const [node, { held, released }] of state.changes.held) {
      const { count, pods: all } = heldOf(state, node);
      const pods = [...all].slice(0, NAMED_PODS);
      if (held > 0) log.warn({ node, held: count, pods }, "suspiciously many pods are gone; their archives wait");
      if (released > 0) log.info({ node, released, held: count }, "held proofs were proved again and are released");
      emit.held(node, { count, podCount: all.size, pods });
    }
    state.changes.held.clear();
    return nextTellMs;
  }

  return {
    podsEvent(event) {
      if (event.type === "lost") podsLost(state);
      else if (event.type === "synced") podsSynced(state, event.items, nowMs());
      else podChanged(state, event, nowMs());
      tell();
      workSoon();
    },

    reported(agent, report) {
      takeReport(state, agent, { report, graceMs: graceOf(agent.node), nowMs: nowMs() });
      tell();
      workSoon();
    },

    ruled() {
      refreshGraces(state.agents.keys());
      tell();
      workSoon();
    },

    confirmed(node) {
      log.info({ node, held: heldOf(state, node).count }, "held proofs are confirmed by an annotation");
      confirmHeld(state, node, nowMs());
      workSoon();
    },

    agentGone(podUID) {
      forgetAgent(state, podUID);
      sentAtMs.delete(podUID);
    },

    async stop() {
      clearTimeout(timer);
      clearImmediate(pending);
      await Promise.all(reads);
    },
  };
}

function unknown({ retryAfterMs }: KubeFailure): Answer {
  return { found: "unknown", retryAfterMs };
}

/** The names of all containers of a pod, init and ephemeral ones too; undefined if the spec does not tell all of them. */
function containerNames(spec: Record<string, unknown> | undefined): string[] | undefined {
  if (spec === undefined || !Array.isArray(spec.containers)) return undefined;
  const names: string[] = [];
  for (const list of [spec.containers, spec.initContainers ?? [], spec.ephemeralContainers ?? []]) {
    if (!Array.isArray(list)) return undefined;
    for (const container of list as Array<{ name?: unknown } | null>) {
      if (typeof container?.name !== "string") return undefined;
      names.push(container.name);
    }
  }
  return names;
}
