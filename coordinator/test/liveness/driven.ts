import {
  type Answer,
  advance,
  confirmHeld,
  factsOf,
  heldOf,
  newProofState,
  podChanged,
  podsLost,
  podsSynced,
  type Read,
  setGrace,
  startRead,
  takeAnswer,
  takeReport,
} from "../../src/liveness/step.ts";

export const GRACE_MS = 30_000;
export const RESYNC_MS = 300_000;

export const ACTIVE: Answer = { found: "namespace", isTerminating: false };
export const TERMINATING: Answer = { found: "namespace", isTerminating: true };

export interface AskOptions {
  agent?: string;
  node?: string;
  bootId?: string;
  number?: number;
  containers?: string[];
  uids?: string[];
  omitted?: number;
  protocol?: number | undefined;
  graceMs?: number | undefined;
}

/** The pure half of the prover on a clock of its own: time passes when a test says so. Pods are named `namespace/pod`. */
export function aDrivenProver() {
  const state = newProofState({ resyncMs: RESYNC_MS });
  let nowMs = 0;
  const numbers = new Map<string, number>();
  const itemOf = (key: string, uid = `uid of ${key}`) => {
    const [namespace = "", name = ""] = key.split("/");
    return { namespace, name, uid };
  };
  /** Reads of pods that were begun beside those of namespaces. */
  const begun: Read[] = [];
  const driven = {
    state,
    /** What reads of namespaces bring; one that is not named is there. */
    namespaces: new Map<string, Answer>(),
    now: () => nowMs,
    pass(ms: number) {
      nowMs += ms;
      advance(state, nowMs);
    },
    synced: (...keys: string[]) =>
      podsSynced(
        state,
        keys.map((key) => itemOf(key)),
        nowMs,
      ),
    lost: () => podsLost(state),
    added: (key: string, uid?: string) => podChanged(state, { type: "added", item: itemOf(key, uid) }, nowMs),
    modified: (key: string, uid?: string) => podChanged(state, { type: "modified", item: itemOf(key, uid) }, nowMs),
    deleted: (key: string, uid?: string) => podChanged(state, { type: "deleted", item: itemOf(key, uid) }, nowMs),
    ask(pods: string[], options: AskOptions = {}) {
      const { agent = "agent", node = "node", bootId = "boot", containers = [], uids, omitted = 0 } = options;
      const protocol = "protocol" in options ? options.protocol : 2;
      const number = options.number ?? (numbers.get(agent) ?? 0) + 1;
      numbers.set(agent, number);
      const orphanScopes = pods.map((key) => ({
        namespace: itemOf(key).namespace,
        pod: itemOf(key).name,
        containers,
        ...(uids !== undefined && { uids }),
      }));
      const report = { bootId, number, orphanScopes, orphanScopesOmitted: omitted, ...(protocol && { protocol }) };
      const graceMs = "graceMs" in options ? options.graceMs : GRACE_MS;
      takeReport(state, { podUID: agent, node }, { report, graceMs, nowMs });
      return number;
    },
    confirm: (node = "node") => confirmHeld(state, node, nowMs),
    grace: (graceMs: number | undefined, agent = "agent") => setGrace(state, agent, { graceMs, nowMs }),
    /** The next read that is due. */
    read: () => startRead(state, { nowMs, wallMs: 1_800_000_000_000 + nowMs }),
    /** All reads of pods that are due; those of namespaces are answered. */
    reads() {
      const reads = begun.splice(0);
      for (let read = driven.read(); read !== undefined; read = driven.read()) {
        if (read.of === "namespace") driven.answer(read, driven.namespaces.get(read.namespace) ?? ACTIVE);
        else reads.push(read);
      }
      return reads;
    },
    answer: (read: Read | undefined, answer: Answer) => read && takeAnswer(state, read, { answer, nowMs }),
    /** Begins all reads that are due, and has them find nothing. */
    findNothing() {
      const reads = driven.reads();
      for (const read of reads) {
        driven.answer(read, read.pod === undefined ? { found: "list", pods: new Set() } : { found: "nothing" });
      }
      begun.push(...driven.reads());
      return reads.map(nameOf);
    },
    /** Begins all reads that are due, and has them find the pod with these containers. */
    findPod(containers: string[]) {
      const reads = driven.reads();
      for (const read of reads) driven.answer(read, { found: "pod", uid: read.uid ?? "another", containers });
      return reads.map(nameOf);
    },
    facts: (agent = "agent") =>
      factsOf(state, agent)
        .map(({ pod, container, uid }) => [pod, ...(container ? [container] : []), ...(uid ? ["", uid] : [])].join("/"))
        .sort(),
    held: (node = "node") => heldOf(state, node),
  };
  return driven;
}

export const nameOf = ({ namespace, pod }: Read) => (pod === undefined ? namespace : `${namespace}/${pod}`);
