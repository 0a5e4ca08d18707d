import { getOrMake } from "@cro/shared/get-or-make";

/** The span, in milliseconds, and the number over which proofs for most of a node are suspicious. */
const HOLD_WINDOW_MS = 10 * 60_000;
const HOLD_ABOVE = 10;
/** How many proofs of a node are held, or remembered as released, at most: its agent may ask about any names. */
const MAX_HELD = 10_000;

/** How many held pods are named. */
export const NAMED_PODS = 10;

/** The proofs of a node that are held back because there are suspiciously many at once. */
export interface HeldProofs {
  /** How many proofs: a pod may have one for each of its containers. */
  count: number;
  /** How many pods they are about. */
  podCount: number;
  /** The first of these, `namespace/pod`. */
  pods: string[];
}

/** A proof that is held, or was released: the pod it is about, and the moment since when. */
interface Waiting {
  pod: string;
  sinceMs: number;
  /** "asked": nothing is told of it until its namespace is read. "gone": it went with that, which is an ordinary thing. */
  namespace?: "asked" | "gone";
}

/** What is held back of one node, and what was lately proved of it. It outlives the agents of the node. */
export interface NodeHold {
  /** Held proofs by their key. */
  held: Map<string, Waiting>;
  /** Proofs that have served their hold, the first one first. They are not held again: they would wait for ever. */
  released: Map<string, Waiting>;
  /** Their keys by pod. */
  releasedOf: Map<string, Set<string>>;
  /** When a pod of the node was last proved to be gone, the first one first. */
  provedAtMs: Map<string, number>;
}

export function newNodeHold(): NodeHold {
  return { held: new Map(), released: new Map(), releasedOf: new Map(), provedAtMs: new Map() };
}

/** Holds a proof back; false if so many are held that this one must wait until others are released. */
export function holdBack(
  { held }: NodeHold,
  key: string,
  { pod, nowMs, isNamespaceAsked = false }: { pod: string; nowMs: number; isNamespaceAsked?: boolean },
): boolean {
  if (held.size >= MAX_HELD) return false;
  held.set(key, { pod, sinceMs: nowMs, ...(isNamespaceAsked && { namespace: "asked" }) });
  return true;
}

/**
 * Takes in what a read of a namespace brought, for what was held when it was sent. If the namespace is gone, what is held of
 * its pods waits no longer than until `provableAtMs`; if not, what waited for the answer is told from now on. Returns how many
 * these are.
 */
export function namespaceRead(
  { held }: NodeHold,
  namespace: string,
  { isGone, sentAtMs, provableAtMs }: { isGone: boolean; sentAtMs: number; provableAtMs: number },
): number {
  let told = 0;
  for (const [key, waits] of held) {
    // The proof of a container is about a pod that is there, and so is its namespace.
    if (key !== waits.pod || !key.startsWith(`${namespace}/`) || waits.sinceMs > sentAtMs) continue;
    if (isGone) {
      waits.namespace = "gone";
      waits.sinceMs = Math.min(waits.sinceMs, provableAtMs);
    } else if (waits.namespace === "asked") {
      delete waits.namespace;
      told += 1;
    }
  }
  return told;
}

/** What is held and told of: the pod of each proof. */
export function* toldOf({ held }: NodeHold): Generator<string> {
  for (const { pod, namespace } of held.values()) if (namespace === undefined) yield pod;
}

/** Whether a pod was held, and then went with its namespace. */
export function wentWithNamespace({ held, released }: NodeHold, pod: string): boolean {
  return (held.get(pod) ?? released.get(pod))?.namespace === "gone";
}

/** Takes in that a pod was proved to be gone, or to lack a container. Tells whether that ended a hold that was told of. */
export function noteProved(hold: NodeHold, key: string, { pod, nowMs }: { pod: string; nowMs: number }): boolean {
  hold.provedAtMs.delete(pod);
  if (!wentWithNamespace(hold, pod)) hold.provedAtMs.set(pod, nowMs);
  const held = hold.held.get(key);
  if (held === undefined) return false;
  hold.held.delete(key);
  hold.released.set(key, { ...held, sinceMs: nowMs });
  getOrMake(hold.releasedOf, pod, () => new Set<string>()).add(key);
  const [oldest] = hold.released.keys();
  if (oldest !== undefined && hold.released.size > MAX_HELD) forgetReleased(hold, oldest);
  return held.namespace === undefined;
}

/** Drops what is held, and what was released, of these proofs. Tells whether any was held. */
export function dropHolds(hold: NodeHold, isDropped: (key: string, waits: Waiting) => boolean): boolean {
  for (const [key, waits] of hold.released) if (isDropped(key, waits)) forgetReleased(hold, key);
  return dropHeld(hold, isDropped);
}

/** The same for the proofs of one pod, which costs no look at all that was released. */
export function dropHoldsOf(hold: NodeHold, pod: string, isDropped: (key: string) => boolean): boolean {
  for (const key of hold.releasedOf.get(pod) ?? []) if (isDropped(key)) forgetReleased(hold, key);
  return dropHeld(hold, (key, waits) => waits.pod === pod && isDropped(key));
}

function dropHeld({ held }: NodeHold, isDropped: (key: string, waits: Waiting) => boolean): boolean {
  const before = held.size;
  for (const [key, waits] of held) if (isDropped(key, waits)) held.delete(key);
  return held.size < before;
}

function forgetReleased({ released, releasedOf }: NodeHold, key: string): void {
  const pod = released.get(key)?.pod;
  if (pod === undefined) return;
  released.delete(key);
  const keys = releasedOf.get(pod);
  keys?.delete(key);
  if (keys?.size === 0) releasedOf.delete(pod);
}

/**
 * Whether so much of a node seems to be gone that it may be the API server that is wrong, as one restored from a backup
 * is: over half of the pods that the agent knows, and over ten, within ten minutes. Pods that went with their namespace
 * do not count.
 * @param pods.asked the pods that the agent asks about now, `namespace/pod`
 * @param pods.gone those of them that seem to be gone
 */
export function isSuspicious(
  hold: NodeHold,
  pods: { asked: { has(pod: string): boolean; size: number }; gone: Iterable<string> },
  nowMs: number,
): boolean {
  forgetProved(hold, nowMs);
  const gone = new Set(pods.gone);
  for (const { pod } of hold.held.values()) gone.add(pod);
  for (const pod of hold.provedAtMs.keys()) gone.add(pod);
  for (const pod of gone) if (wentWithNamespace(hold, pod)) gone.delete(pod);
  let known = pods.asked.size;
  for (const pod of gone) if (!pods.asked.has(pod)) known += 1;
  return gone.size > HOLD_ABOVE && gone.size > known / 2;
}

/** Forgets proofs that no longer count. */
export function forgetProved(hold: NodeHold, nowMs: number): void {
  for (const [pod, atMs] of hold.provedAtMs) {
    if (nowMs - atMs < HOLD_WINDOW_MS) return;
    hold.provedAtMs.delete(pod);
  }
}
