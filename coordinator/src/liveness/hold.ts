/** The span, in milliseconds, and the number over which proofs for most of a node are suspicious. */
const HOLD_WINDOW_MS = 10 * 60_000;
const HOLD_ABOVE = 10;

/** What is held back of one node, and what was lately proved of it. It outlives the agents of the node. */
export interface NodeHold {
  /** Held proofs by their key, with the pod they are about and the moment since when they wait. */
  held: Map<string, { pod: string; sinceMs: number }>;
  /** When a pod of the node was last proved to be gone. */
  provedAtMs: Map<string, number>;
}

export function newNodeHold(): NodeHold {
  return { held: new Map(), provedAtMs: new Map() };
}

/**
 * Whether so much of a node seems to be gone that it may be the API server that is wrong, as one restored from a backup
 * is: over half of the pods that the agent knows, and over ten, within ten minutes.
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
  let known = pods.asked.size;
  for (const pod of gone) if (!pods.asked.has(pod)) known += 1;
  return gone.size > HOLD_ABOVE && gone.size > known / 2;
}

/** Forgets proofs that no longer count. */
export function forgetProved(hold: NodeHold, nowMs: number): void {
  for (const [pod, atMs] of hold.provedAtMs) if (nowMs - atMs >= HOLD_WINDOW_MS) hold.provedAtMs.delete(pod);
}
