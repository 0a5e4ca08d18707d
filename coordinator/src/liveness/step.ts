import { getOrMake } from "@cro/shared/get-or-make";
import { MAX_FACTS, type OrphanFact, PROTOCOL_WITH_PROOFS, REPORT_LIFETIME_MS } from "@cro/shared/wire/directive";
import { OrphanScope, type Report } from "@cro/shared/wire/report";
import { Compile } from "typebox/compile";
import {
  dropHolds,
  dropHoldsOf,
  forgetProved,
  holdBack,
  isSuspicious,
  type NodeHold,
  namespaceRead,
  newNodeHold,
  noteProved,
  toldOf,
} from "./hold.ts";
import { createPodView, type PodEvent, type PodName, type PodView } from "./pods.ts";

/** How long an answer is taken to be on its way, in milliseconds. A question that is asked later is answered anew. */
const ASK_AGAIN_MS = 10_000;
/** How long a question rests whose answer was unknown, in milliseconds; the API server may ask for more, up to the second. */
const UNKNOWN_REST_MS = 2000;
const MAX_REST_MS = 60_000;
/** Above so many absent pods in one namespace, one list proves them all. */
const LIST_ABOVE = 20;
/** Deletions are remembered at least so long, and at least as long as the longest grace period, in milliseconds. */
const DELETIONS_REMEMBERED_MS = 60 * 60_000;
const checkScope = Compile(OrphanScope);

/** The part of a report that asks. */
export type Asking = Pick<Report, "bootId" | "number" | "protocol" | "orphanScopes" | "orphanScopesOmitted">;

/** An agent by its pod and its node. */
export interface AgentName {
  podUID: string;
  node: string;
}

interface Fact {
  fact: OrphanFact;
  /** The pod that it is about, `namespace/pod`. */
  pod: string;
  madeAtMs: number;
  graceMs: number;
  untilMs: number;
}

/** An agent, what it asks and what was proved for it. */
interface Agent extends AgentName {
  bootId: string;
  number: number;
  reportedAtMs: number;
  /** How long something must have been absent, by the policy that is known to rule the node; undefined if none is. */
  graceMs: number | undefined;
  /** What it asks about, by `namespace/pod`. */
  scopes: Map<string, OrphanScope>;
  omitted: number;
  /** By {@link factKey}. */
  facts: Map<string, Fact>;
  /** Pods to be read now, because something may be proved of them. */
  proofs: Set<string>;
  /** Living pods to be read now, to see which containers they have. */
  looks: Set<string>;
  /** When each of the other questions comes due, if it will. */
  dueAtMs: Map<string, number>;
  /** The first of these moments; infinite if there are none. */
  nextDueMs: number;
  /** When the first of its facts lapses; infinite if it has none. */
  nextLapseMs: number;
}

/** What may be proved: that a pod is gone, that it has no such container, or that its name is another pod's than that of the UID. */
interface Provable {
  namespace: string;
  pod: string;
  container?: string;
  uid?: string;
}

/** A question of one report that a read answers. */
interface Question {
  podUID: string;
  bootId: string;
  report: number;
  untilMs: number;
  pod: string;
  /** `namespace/pod` */
  key: string;
}

/** A read that is on its way: of one pod, of all pods of a namespace, or of the namespace itself. */
export interface Read {
  of: "pod" | "pods" | "namespace";
  namespace: string;
  /** Undefined if it is not of one pod. */
  pod: string | undefined;
  /** Of the pod that the watch lists; undefined if it lists none. */
  uid: string | undefined;
  sentAtMs: number;
  sentAt: string;
  questions: Question[];
}

/** What a read brought. */
export type Answer =
  /** The API server's own word that there is no such pod. */
  | { found: "nothing" }
  | { found: "pod"; uid: string; containers: readonly string[] }
  /** The names of all pods of the namespace. */
  | { found: "list"; pods: ReadonlySet<string> }
  /** The namespace: whether it is being deleted, so that nothing can come into it any more. */
  | { found: "namespace"; isTerminating: boolean }
  | { found: "unknown"; retryAfterMs?: number | undefined };

/** What is to be told of an agent's facts or of a node's held proofs. */
export interface Changes {
  /** Agents whose facts changed. Facts that were only added may wait to be sent together; a withdrawal may not. */
  facts: Map<string, { isWithdrawn: boolean }>;
  /** How many proofs of a node were held back, or let go after their hold; both 0 if held ones were dropped. */
  held: Map<string, { held: number; released: number }>;
}

/** What a read is for: to prove something, to look at a living pod, or to find out whether a namespace is gone. */
const READ_KINDS = ["proofs", "looks", "suspects"] as const;
type ReadKind = (typeof READ_KINDS)[number];

/** All that the prover knows. The functions of this module change it in place: a cluster may ask about all its pods. */
export interface ProofState {
  /** How long suspicious proofs are held, in milliseconds. */
  resyncMs: number;
  pods: PodView;
  agents: Map<string, Agent>;
  nodes: Map<string, NodeHold>;
  /** Namespaces to be read, because proofs of their pods are suspicious. */
  suspects: Set<string>;
  /** Reads on their way, by {@link idOf}. One that is no longer among them is void. */
  reads: Map<string, Read>;
  /** Before that moment a pod is not read again. */
  restUntilMs: Map<string, number>;
  /** Counts the reads, and the last one for each node, so that each gets its share. */
  readCount: number;
  lastRead: Map<string, number>;
  /** What the last read was for. */
  lastKind: ReadKind;
  longestGraceMs: number;
  changes: Changes;
}

export function newProofState({ resyncMs }: { resyncMs: number }): ProofState {
  return {
    resyncMs,
    pods: createPodView(),
    agents: new Map(),
    nodes: new Map(),
    suspects: new Set(),
    reads: new Map(),
    restUntilMs: new Map(),
    readCount: 0,
    lastRead: new Map(),
    lastKind: "suspects",
    longestGraceMs: 0,
    changes: { facts: new Map(), held: new Map() },
  };
}

/** Takes in that the watch of pods knows nothing any more: all that was read, proved or held is void. */
export function podsLost(state: ProofState): void {
  state.pods.lost();
  state.reads.clear();
  state.suspects.clear();
  for (const agent of state.agents.values()) {
    withdraw(state, agent, () => true);
    forgetDue(agent);
  }
  for (const [node, hold] of state.nodes) if (dropHolds(hold, () => true)) noteHeld(state, node);
}

/** Takes in all pods that there are. */
export function podsSynced(state: ProofState, items: readonly PodName[], nowMs: number): void {
  podsLost(state);
  state.pods.synced(items, nowMs);
  for (const agent of state.agents.values()) reviewAll(state, agent, nowMs);
}

/** Takes in a pod that came, changed or went: whatever was read, proved or held of another one of its name is void. */
export function podChanged(state: ProofState, event: PodEvent, nowMs: number): void {
  if (!state.pods.changed(event, nowMs)) return;
  const { namespace, name } = event.item;
  const key = `${namespace}/${name}`;
  state.reads.delete(key);
  const list = state.reads.get(namespace);
  if (list !== undefined) list.questions = list.questions.filter((question) => question.key !== key);
  refute(state, key);
  for (const agent of state.agents.values()) {
    if (agent.scopes.has(key)) review(state, agent, { key, nowMs });
  }
}

/** Takes in that a pod, or these containers of it, was seen: no proof of the contrary stands, or has served its hold. */
function refute(state: ProofState, pod: string, isSeen: (key: string) => boolean = () => true): void {
  for (const [node, hold] of state.nodes) if (dropHoldsOf(hold, pod, isSeen)) noteHeld(state, node);
  for (const agent of state.agents.values()) withdraw(state, agent, (fact, key) => fact.pod === pod && isSeen(key));
}

/**
 * Takes in an agent's report; its orphan scopes are the questions, in place of the ones before. `graceMs` is by the policy
 * that rules the node, undefined while that is unknown.
 */
export function takeReport(
  state: ProofState,
  { podUID, node }: AgentName,
  { report, graceMs, nowMs }: { report: Asking; graceMs: number | undefined; nowMs: number },
): void {
  const before = state.agents.get(podUID);
  const isSameStart = before?.bootId === report.bootId;
  if (isSameStart && report.number <= before.number) return;
  const isAnswered = (report.protocol ?? 1) >= PROTOCOL_WITH_PROOFS;
  const asked = isAnswered ? report.orphanScopes.filter((scope) => checkScope.Check(scope)) : [];
  const agent: Agent = {
    podUID,
    node,
    bootId: report.bootId,
    number: report.number,
    reportedAtMs: nowMs,
    graceMs: before?.graceMs,
    scopes: new Map(asked.map((scope) => [`${scope.namespace}/${scope.pod}`, scope])),
    omitted: isAnswered ? report.orphanScopesOmitted : 0,
    facts: before?.facts ?? new Map(),
    proofs: new Set(),
    looks: new Set(),
    dueAtMs: new Map(),
    nextDueMs: Number.POSITIVE_INFINITY,
    nextLapseMs: before?.nextLapseMs ?? Number.POSITIVE_INFINITY,
  };
  state.agents.set(podUID, agent);
  // A fact of what is asked again stands until another one replaces it: the agent may be deleting by it.
  withdraw(state, agent, ({ pod }, key) => !isSameStart || !mayAsk(agent, { pod, key }));
  const hold = state.nodes.get(node);
  // Another start of the agent may not have listed everything yet: it does not end a hold.
  if (hold !== undefined && isSameStart) {
    const asking = [...state.agents.values()].filter((one) => one.node === node && isFresh(one, nowMs));
    const isOver = (key: string, { pod }: { pod: string }) => !asking.some((one) => mayAsk(one, { pod, key }));
    if (dropHolds(hold, isOver)) noteHeld(state, node);
  }
  if (!setGrace(state, podUID, { graceMs, nowMs })) reviewAll(state, agent, nowMs);
}

/** Takes in how long something must have been absent for an agent, by a policy now known to rule it. Tells if it changed. */
export function setGrace(
  state: ProofState,
  podUID: string,
  { graceMs, nowMs }: { graceMs: number | undefined; nowMs: number },
): boolean {
  const agent = state.agents.get(podUID);
  if (agent === undefined || agent.graceMs === graceMs) return false;
  agent.graceMs = graceMs;
  if (graceMs === undefined) {
    for (const read of state.reads.values()) {
      read.questions = read.questions.filter((question) => question.podUID !== podUID);
    }
  }
  state.longestGraceMs = Math.max(state.longestGraceMs, graceMs ?? 0);
  withdraw(state, agent, (fact) => graceMs === undefined || fact.graceMs < graceMs);
  reviewAll(state, agent, nowMs);
  return true;
}

/**
 * Takes in that an operator knows the held pods of a node to be gone. Their proofs wait no longer; they are still made anew,
 * and what comes to be suspicious later is held again.
 */
export function confirmHeld(state: ProofState, node: string, nowMs: number): void {
  const hold = state.nodes.get(node);
  if (hold === undefined) return;
  for (const waits of hold.held.values()) waits.sinceMs = Math.min(waits.sinceMs, nowMs - state.resyncMs);
  for (const agent of state.agents.values()) if (agent.node === node) reviewAll(state, agent, nowMs);
}

/** Forgets an agent. What is held of its node stays held: another agent will ask. */
export function forgetAgent(state: ProofState, podUID: string): void {
  const agent = state.agents.get(podUID);
  if (agent === undefined) return;
  state.agents.delete(podUID);
  state.changes.facts.delete(podUID);
  state.lastRead.delete(agent.node);
}

/** Lets lapse what is too old, and finds what has come due. */
export function advance(state: ProofState, nowMs: number): void {
  state.pods.forgetDeletions(nowMs - Math.max(DELETIONS_REMEMBERED_MS, state.longestGraceMs));
  for (const [key, untilMs] of state.restUntilMs) if (untilMs <= nowMs) state.restUntilMs.delete(key);
  for (const agent of state.agents.values()) {
    if (agent.nextLapseMs <= nowMs) {
      withdraw(state, agent, ({ untilMs }) => untilMs <= nowMs);
      reviewAll(state, agent, nowMs);
    } else if (agent.nextDueMs <= nowMs) reviewDue(state, agent, nowMs);
  }
  if (state.nodes.size === 0) return;
  const nodes = new Set([...state.agents.values()].map(({ node }) => node));
  for (const [node, hold] of state.nodes) {
    forgetProved(hold, nowMs);
    // A node that had no agent for so long could have let its proofs go; one that only gets another agent keeps them.
    const isOver = (_: string, { sinceMs }: { sinceMs: number }) => nowMs - sinceMs >= 2 * state.resyncMs;
    if (!nodes.has(node) && dropHolds(hold, isOver)) noteHeld(state, node);
    if (hold.held.size + hold.released.size + hold.provedAtMs.size === 0) state.nodes.delete(node);
  }
}

/** When {@link advance} has something to do; infinite if nothing waits for a time. */
export function nextMs({ agents }: ProofState): number {
  let next = Number.POSITIVE_INFINITY;
  for (const { nextDueMs, nextLapseMs } of agents.values()) next = Math.min(next, nextDueMs, nextLapseMs);
  return next;
}

/**
 * Begins the next read; undefined if nothing is due that is not being read already. Nodes take turns, and so do the kinds
 * of reads, so that none waits for all of another.
 */
export function startRead(state: ProofState, now: { nowMs: number; wallMs: number }): Read | undefined {
  if (!state.pods.isKnown()) return undefined;
  const turn = READ_KINDS.indexOf(state.lastKind) + 1;
  for (const kind of [...READ_KINDS.slice(turn), ...READ_KINDS.slice(0, turn)]) {
    const read = kind === "suspects" ? beginSuspect(state, now) : beginDue(state, kind, now);
    if (read === undefined) continue;
    state.lastKind = kind;
    return read;
  }
  return undefined;
}

function beginDue(
  state: ProofState,
  kind: "proofs" | "looks",
  now: { nowMs: number; wallMs: number },
): Read | undefined {
  const chosen = choose(state, kind, now.nowMs);
  if (chosen === undefined) return undefined;
  state.readCount += 1;
  state.lastRead.set(chosen.agent.node, state.readCount);
  return begin(state, chosen.scope, now);
}

function beginSuspect(state: ProofState, now: { nowMs: number; wallMs: number }): Read | undefined {
  for (const namespace of state.suspects) {
    const what = { of: "namespace" as const, namespace, pod: undefined, uid: undefined, questions: [] };
    if (state.reads.has(idOf(what))) continue;
    state.suspects.delete(namespace);
    return send(state, what, now);
  }
  return undefined;
}

/** Puts a read on its way. */
function send(
  state: ProofState,
  what: Omit<Read, "sentAtMs" | "sentAt">,
  { nowMs, wallMs }: { nowMs: number; wallMs: number },
): Read {
  const read: Read = { ...what, sentAtMs: nowMs, sentAt: new Date(wallMs).toISOString() };
  state.reads.set(idOf(read), read);
  return read;
}

/** Takes in what a read brought. A read that became void in the meantime brought nothing. */
export function takeAnswer(state: ProofState, read: Read, { answer, nowMs }: { answer: Answer; nowMs: number }): void {
  const id = idOf(read);
  if (state.reads.get(id) !== read) return;
  state.reads.delete(id);
  const { pod, uid } = read;
  if (read.of === "namespace") takeNamespace(state, read, { answer, nowMs });
  else if (pod === undefined || uid === undefined) takeAbsence(state, read, { answer, nowMs });
  else takeContainers(state, { ...read, pod, uid }, { answer, nowMs });
  for (const { podUID, key } of read.questions) {
    const agent = state.agents.get(podUID);
    if (agent !== undefined) review(state, agent, { key, nowMs });
  }
}

/** The facts that an agent's next directive shall carry. */
export function factsOf({ agents }: ProofState, podUID: string): OrphanFact[] {
  return [...(agents.get(podUID)?.facts.values() ?? [])].map(({ fact }) => fact);
}

/** What is held back of a node, and not only until its namespace is read: how many proofs, and of which pods. */
export function heldOf({ nodes }: ProofState, node: string): { count: number; pods: Set<string> } {
  const hold = nodes.get(node);
  const pods = hold === undefined ? [] : [...toldOf(hold)];
  return { count: pods.length, pods: new Set(pods) };
}

/**
 * Takes in an answer about a namespace. One that is gone, or going, took its pods with it, and there is nothing suspicious in
 * that: they are read once more, and proved. Every other answer leaves them held.
 */
function takeNamespace(
  state: ProofState,
  { namespace, sentAtMs }: Read,
  { answer, nowMs }: { answer: Answer; nowMs: number },
): void {
  const isGone = answer.found === "nothing" || (answer.found === "namespace" && answer.isTerminating);
  for (const [node, hold] of state.nodes) {
    const held = namespaceRead(hold, namespace, { isGone, sentAtMs, provableAtMs: nowMs - state.resyncMs });
    if (held > 0 || isGone) noteHeld(state, node, { held });
  }
  if (!isGone) return;
  for (const agent of state.agents.values()) {
    for (const [key, scope] of agent.scopes) if (scope.namespace === namespace) review(state, agent, { key, nowMs });
  }
}

/** Takes in an answer about pods that the watch does not list. */
function takeAbsence(state: ProofState, read: Read, { answer, nowMs }: { answer: Answer; nowMs: number }): void {
  const suspicions = new Map<Agent, boolean>();
  const { namespace } = read;
  const found = answer.found === "list" ? answer.pods : new Set(answer.found === "pod" && read.pod ? [read.pod] : []);
  for (const pod of found) {
    if (state.pods.uidOf(namespace, pod) !== undefined) continue;
    state.pods.found(namespace, pod, nowMs);
    refute(state, `${namespace}/${pod}`);
  }
  for (const question of read.questions) {
    const { pod, key } = question;
    if (answer.found === "unknown") rest(state, key, { nowMs, retryAfterMs: answer.retryAfterMs });
    else if (found.has(pod)) rest(state, key, { nowMs });
    else {
      const sinceMs = state.pods.absentSinceMs(namespace, pod);
      if (sinceMs !== undefined)
        prove(state, question, { read, names: { namespace, pod }, sinceMs, nowMs, suspicions });
    }
  }
}

/** Takes in an answer about a pod that the watch lists. */
function takeContainers(
  state: ProofState,
  read: Read & { pod: string; uid: string },
  { answer, nowMs }: { answer: Answer; nowMs: number },
): void {
  const { namespace, pod, uid, questions } = read;
  const key = `${namespace}/${pod}`;
  if (answer.found !== "pod" || answer.uid !== uid) {
    // The watch may be behind; what it lists lives until it says otherwise.
    rest(state, key, { nowMs, retryAfterMs: answer.found === "unknown" ? answer.retryAfterMs : undefined });
    return;
  }
  const scopeOf = ({ podUID }: Question) => state.agents.get(podUID)?.scopes.get(key);
  const missing = questions.map((question) => ({
    question,
    containers: (scopeOf(question)?.containers ?? []).flatMap((container) => {
      const sinceMs = state.pods.missingSinceMs(uid, container);
      return sinceMs === undefined ? [] : [{ container, sinceMs }];
    }),
  }));
  state.pods.containersRead(uid, answer.containers, nowMs);
  const there = new Set(answer.containers.map((container) => `${key}/${container}`));
  refute(state, key, (fact) => there.has(fact));
  const suspicions = new Map<Agent, boolean>();
  for (const { question, containers } of missing) {
    for (const { container, sinceMs } of containers) {
      if (state.pods.missingSinceMs(uid, container) === undefined) continue;
      prove(state, question, { read, names: { namespace, pod, container }, sinceMs, nowMs, suspicions });
    }
  }
  // No two pods have a name at the same time, and none has it for a second time under the same UID.
  const sinceMs = state.pods.presentSinceMs(uid);
  for (const question of questions) {
    for (const other of otherUids(scopeOf(question), uid)) {
      prove(state, question, { read, names: { namespace, pod, uid: other }, sinceMs, nowMs, suspicions });
    }
  }
}

/** The UIDs that are asked about, but for that of the pod that has the name now. */
function otherUids(scope: OrphanScope | undefined, uid: string): string[] {
  return (scope?.uids ?? []).filter((one) => one !== uid);
}

/**
 * Makes a fact of what a read did not find, or holds it back. Nothing is made of a read that was sent before the
 * question was due, of a report that is too old, or while the policy of the node is unknown.
 */
function prove(
  state: ProofState,
  question: Question,
  proof: {
    read: Read;
    names: Provable;
    sinceMs: number;
    nowMs: number;
    suspicions: Map<Agent, boolean>;
  },
): void {
  const { read, names, sinceMs, nowMs, suspicions } = proof;
  const { podUID, bootId, report, untilMs, key: podKey } = question;
  const agent = state.agents.get(podUID);
  if (agent === undefined || agent.bootId !== bootId || agent.graceMs === undefined || untilMs <= nowMs) return;
  // Of very many scopes the latest report names a part; otherwise it says what is still asked.
  if (!agent.scopes.has(podKey) && agent.omitted === 0) return;
  if (read.sentAtMs < sinceMs + agent.graceMs) return;
  const key = factKey(names);
  if (!isOpen(agent, key)) return;
  const hold = getOrMake(state.nodes, agent.node, newNodeHold);
  const held = hold.held.get(key);
  if (held !== undefined && read.sentAtMs < held.sinceMs + state.resyncMs) return;
  const mayGo = held !== undefined || hold.released.has(key);
  if (!mayGo && isHeldBack(state, agent, { hold, read, nowMs, suspicions })) {
    // A pod that is there is in a namespace that is there.
    const isNamespaceAsked = key === podKey;
    if (!holdBack(hold, key, { pod: podKey, nowMs, isNamespaceAsked })) rest(state, podKey, { nowMs });
    else if (isNamespaceAsked) state.suspects.add(names.namespace);
    else noteHeld(state, agent.node, { held: 1 });
    for (const one of state.agents.values()) {
      if (one.node === agent.node) withdraw(state, one, (_, told) => told === key);
    }
    return;
  }
  const { graceMs } = agent;
  const fact: OrphanFact = { bootId, report, ...names, provedAt: read.sentAt, graceMs };
  agent.facts.set(key, { fact, pod: podKey, madeAtMs: nowMs, graceMs, untilMs });
  agent.nextLapseMs = Math.min(agent.nextLapseMs, untilMs);
  if (noteProved(hold, key, { pod: podKey, nowMs })) noteHeld(state, agent.node, { released: 1 });
  if (!state.changes.facts.has(podUID)) state.changes.facts.set(podUID, { isWithdrawn: false });
}

/** Whether a fact is still to be proved: there is none, or the agent has asked again since although there was one. */
function isOpen({ facts, reportedAtMs }: Agent, key: string): boolean {
  const fact = facts.get(key);
  return fact === undefined ? facts.size < MAX_FACTS : reportedAtMs - fact.madeAtMs >= ASK_AGAIN_MS;
}

/** Whether the latest report of an agent asks this. Of very many scopes it names a part: it may ask about any other. */
function mayAsk({ scopes, omitted }: Agent, { pod, key }: { pod: string; key: string }): boolean {
  const scope = scopes.get(pod);
  if (omitted > 0 || scope === undefined) return omitted > 0;
  if (key === pod) return true;
  const part = key.slice(pod.length + 1);
  return part.startsWith("/") ? scope.uids?.includes(part.slice(1)) === true : scope.containers.includes(part);
}

/** What a fact is known by: `namespace/pod`, `namespace/pod/container`, or `namespace/pod//uid`. */
function factKey({ namespace, pod, container, uid }: Provable): string {
  const key = `${namespace}/${pod}`;
  if (uid !== undefined) return `${key}//${uid}`;
  return container === undefined ? key : `${key}/${container}`;
}

/** Whether proofs for an agent are suspicious; decided once for each answer. */
function isHeldBack(
  state: ProofState,
  agent: Agent,
  { hold, read, nowMs, suspicions }: { hold: NodeHold; read: Read; nowMs: number; suspicions: Map<Agent, boolean> },
): boolean {
  const decided = suspicions.get(agent);
  if (decided !== undefined) return decided;
  const seemsGone = (scope: OrphanScope) => {
    const uid = state.pods.uidOf(scope.namespace, scope.pod);
    return (
      uid === undefined ||
      scope.containers.some((container) => state.pods.missingSinceMs(uid, container) !== undefined) ||
      otherUids(scope, uid).length > 0
    );
  };
  const gone = [...agent.scopes].filter(([, scope]) => seemsGone(scope)).map(([key]) => key);
  // Those that an earlier report asked about may be gone, too: the read is about them.
  for (const { podUID, key } of read.questions) if (podUID === agent.podUID) gone.push(key);
  const isHeld = isSuspicious(hold, { asked: agent.scopes, gone }, nowMs);
  suspicions.set(agent, isHeld);
  return isHeld;
}

/** When a question about a pod may be answered, and by what kind of read; undefined if it is answered, or unanswerable. */
function opening(state: ProofState, agent: Agent, key: string): { kind: "proofs" | "looks"; atMs: number } | undefined {
  const scope = agent.scopes.get(key);
  const { graceMs } = agent;
  if (scope === undefined || graceMs === undefined || !state.pods.isKnown()) return undefined;
  const { namespace, pod, containers } = scope;
  const restMs = state.restUntilMs.get(key) ?? Number.NEGATIVE_INFINITY;
  const held = state.nodes.get(agent.node)?.held;
  const dueMs = (sinceMs: number, fact: string) => {
    const heldSinceMs = held?.get(fact)?.sinceMs;
    return Math.max(sinceMs + graceMs, heldSinceMs === undefined ? sinceMs : heldSinceMs + state.resyncMs, restMs);
  };
  const uid = state.pods.uidOf(namespace, pod);
  if (uid === undefined) {
    const sinceMs = state.pods.absentSinceMs(namespace, pod);
    return sinceMs === undefined || !isOpen(agent, key) ? undefined : { kind: "proofs", atMs: dueMs(sinceMs, key) };
  }
  let first: ReturnType<typeof opening>;
  for (const container of containers) {
    // So it is with nearly all that is asked, and a cluster may ask about all of its pods.
    if (state.pods.hasContainer(uid, container)) continue;
    const fact = factKey({ namespace, pod, container });
    if (!isOpen(agent, fact)) continue;
    const sinceMs = state.pods.missingSinceMs(uid, container);
    const atMs = sinceMs === undefined ? restMs : dueMs(sinceMs, fact);
    if (first === undefined || atMs < first.atMs) first = { kind: sinceMs === undefined ? "looks" : "proofs", atMs };
  }
  for (const other of otherUids(scope, uid)) {
    const fact = factKey({ namespace, pod, uid: other });
    if (!isOpen(agent, fact)) continue;
    const atMs = dueMs(state.pods.presentSinceMs(uid), fact);
    if (first === undefined || atMs < first.atMs) first = { kind: "proofs", atMs };
  }
  return first;
}

/** Finds out anew whether, and when, a pod that an agent asks about is to be read. */
function review(state: ProofState, agent: Agent, { key, nowMs }: { key: string; nowMs: number }): void {
  agent.proofs.delete(key);
  agent.looks.delete(key);
  agent.dueAtMs.delete(key);
  const next = opening(state, agent, key);
  if (next === undefined) return;
  if (next.atMs <= nowMs) agent[next.kind].add(key);
  else {
    agent.dueAtMs.set(key, next.atMs);
    agent.nextDueMs = Math.min(agent.nextDueMs, next.atMs);
  }
}

function reviewAll(state: ProofState, agent: Agent, nowMs: number): void {
  forgetDue(agent);
  for (const key of agent.scopes.keys()) review(state, agent, { key, nowMs });
}

/** Reviews what has come due. Each of a thousand pods may come due by itself, and may be asked about with its containers. */
function reviewDue(state: ProofState, agent: Agent, nowMs: number): void {
  const due: string[] = [];
  agent.nextDueMs = Number.POSITIVE_INFINITY;
  for (const [key, atMs] of agent.dueAtMs) {
    if (atMs <= nowMs) due.push(key);
    else agent.nextDueMs = Math.min(agent.nextDueMs, atMs);
  }
  for (const key of due) review(state, agent, { key, nowMs });
}

function forgetDue(agent: Agent): void {
  agent.proofs.clear();
  agent.looks.clear();
  agent.dueAtMs.clear();
  agent.nextDueMs = Number.POSITIVE_INFINITY;
}

/** The first question of this kind that is due, of the node whose last read is the longest ago. */
function choose(
  state: ProofState,
  kind: "proofs" | "looks",
  nowMs: number,
): { agent: Agent; scope: OrphanScope } | undefined {
  let chosen: { agent: Agent; scope: OrphanScope } | undefined;
  let chosenTurn = Number.POSITIVE_INFINITY;
  for (const agent of state.agents.values()) {
    const turn = state.lastRead.get(agent.node) ?? 0;
    if (agent[kind].size === 0 || turn >= chosenTurn || !isFresh(agent, nowMs)) continue;
    const scope = firstDue(state, agent, { kind, nowMs });
    if (scope === undefined) continue;
    chosen = { agent, scope };
    chosenTurn = turn;
  }
  return chosen;
}

function firstDue(
  state: ProofState,
  agent: Agent,
  { kind, nowMs }: { kind: "proofs" | "looks"; nowMs: number },
): OrphanScope | undefined {
  for (const key of agent[kind]) {
    const scope = agent.scopes.get(key);
    if (scope === undefined || isBeingRead(state, scope)) continue;
    // What was due may have been answered for another agent since.
    review(state, agent, { key, nowMs });
    if (agent[kind].has(key)) return scope;
  }
  return undefined;
}

/** Begins to read a pod, or all pods of its namespace if that many seem to be gone, for all who ask. */
function begin(state: ProofState, scope: OrphanScope, { nowMs, wallMs }: { nowMs: number; wallMs: number }): Read {
  const { namespace, pod } = scope;
  const uid = state.pods.uidOf(namespace, pod);
  const isListed = uid === undefined && isCrowd(state, namespace, nowMs);
  const questions: Question[] = [];
  for (const agent of state.agents.values()) {
    if (!isFresh(agent, nowMs)) continue;
    for (const key of isListed ? absentIn(state, agent, namespace) : [`${namespace}/${pod}`]) {
      const asked = agent.scopes.get(key);
      if (asked === undefined || (!agent.proofs.has(key) && !agent.looks.has(key))) continue;
      const { podUID, bootId, number: report, reportedAtMs } = agent;
      const untilMs = reportedAtMs + REPORT_LIFETIME_MS;
      questions.push({ podUID, bootId, report, untilMs, pod: asked.pod, key });
    }
  }
  const of = isListed ? "pods" : "pod";
  return send(state, { of, namespace, pod: isListed ? undefined : pod, uid, questions }, { nowMs, wallMs });
}

function isCrowd(state: ProofState, namespace: string, nowMs: number): boolean {
  const absent = new Set<string>();
  for (const agent of state.agents.values()) {
    if (!isFresh(agent, nowMs)) continue;
    for (const key of absentIn(state, agent, namespace)) {
      absent.add(key);
      if (absent.size > LIST_ABOVE) return true;
    }
  }
  return false;
}

/** Pods of a namespace that an agent asks about, that seem to be gone, and that are to be read now. */
function* absentIn(state: ProofState, agent: Agent, namespace: string): Generator<string> {
  const prefix = `${namespace}/`;
  for (const key of agent.proofs) {
    if (!key.startsWith(prefix) || state.reads.has(key)) continue;
    if (state.pods.uidOf(namespace, key.slice(prefix.length)) === undefined) yield key;
  }
}

function isFresh({ reportedAtMs }: Agent, nowMs: number): boolean {
  return nowMs - reportedAtMs < REPORT_LIFETIME_MS;
}

function isBeingRead({ reads, pods }: ProofState, { namespace, pod }: OrphanScope): boolean {
  if (reads.has(`${namespace}/${pod}`)) return true;
  return reads.has(namespace) && pods.uidOf(namespace, pod) === undefined;
}

/** `namespace/pod`, `namespace` of all its pods, or `namespace/` of itself. */
function idOf({ of, namespace, pod = "" }: Pick<Read, "of" | "namespace" | "pod">): string {
  return of === "pods" ? namespace : `${namespace}/${pod}`;
}

function rest(
  state: ProofState,
  key: string,
  { nowMs, retryAfterMs = 0 }: { nowMs: number; retryAfterMs?: number | undefined },
): void {
  state.restUntilMs.set(key, nowMs + Math.min(Math.max(UNKNOWN_REST_MS, retryAfterMs), MAX_REST_MS));
}

function withdraw(state: ProofState, agent: Agent, isWithdrawn: (fact: Fact, key: string) => boolean): void {
  if (agent.facts.size === 0) return;
  const before = agent.facts.size;
  agent.nextLapseMs = Number.POSITIVE_INFINITY;
  for (const [key, fact] of agent.facts) {
    if (isWithdrawn(fact, key)) agent.facts.delete(key);
    else agent.nextLapseMs = Math.min(agent.nextLapseMs, fact.untilMs);
  }
  if (agent.facts.size < before) state.changes.facts.set(agent.podUID, { isWithdrawn: true });
}

function noteHeld({ changes }: ProofState, node: string, { held = 0, released = 0 } = {}): void {
  const noted = changes.held.get(node);
  changes.held.set(node, { held: (noted?.held ?? 0) + held, released: (noted?.released ?? 0) + released });
}
