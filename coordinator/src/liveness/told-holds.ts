import type { HeldProofs } from "./hold.ts";

/** How long after the watch knows all pods again a hold is told that has not come to be held again, in milliseconds. */
const TOLD_AFTER_MS = 3 * 60_000;

/**
 * What is told of held proofs, by node. A watch that is lost makes all of them void, and most are held again soon after it
 * knows all pods: until then what was held is told, for its archives are kept either way.
 */
export interface ToldHolds {
  /** What is held of a node now; nothing with a count of 0. */
  note(node: string, held: HeldProofs): void;
  /** The watch of pods is lost, or knows all pods: what is held now is about to become void. */
  watch(state: "lost" | "synced"): void;
  /** To be called about once a second. */
  tick(): void;
  byNode(): ReadonlyMap<string, HeldProofs>;
}

/** @param options.nowMs a monotonic clock */
export function createToldHolds({ nowMs }: { nowMs: () => number }): ToldHolds {
  const told = new Map<string, HeldProofs>();
  /** Until when void holds are told, by node. */
  const voidUntilMs = new Map<string, number>();

  function forget(node: string): void {
    told.delete(node);
    voidUntilMs.delete(node);
  }

  return {
    note(node, held) {
      if (held.count > 0) {
        told.set(node, held);
        voidUntilMs.delete(node);
      } else if (!voidUntilMs.has(node)) forget(node);
    },
    watch(state) {
      const untilMs = state === "lost" ? Number.POSITIVE_INFINITY : nowMs() + TOLD_AFTER_MS;
      for (const node of told.keys()) voidUntilMs.set(node, untilMs);
    },
    tick() {
      for (const [node, untilMs] of voidUntilMs) if (untilMs <= nowMs()) forget(node);
    },
    byNode: () => told,
  };
}
