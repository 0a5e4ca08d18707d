import type { NodeRuling } from "../policy/ruling.ts";
import type { StatusInput } from "./aggregate.ts";

/** What of a {@link StatusInput} changes between two looks at who rules which node, and what that look decided. */
type Known = Pick<StatusInput, "nodes" | "agents" | "starts" | "held">;

/** Tells which statuses may differ from what was made of them before, at a cost of the nodes, not of policies × nodes. */
export interface StatusVersions {
  /** Takes in what is known now. */
  update(known: Known): void;
  /**
   * As long as it is the same, the status of a resource is the same but for the time of the last report. Undefined while
   * one of its nodes rests, for its status tells how long.
   *
   * @param key `namespace/name`
   */
  of(key: string): number | undefined;
}

export function createStatusVersions(): StatusVersions {
  let last: Known | undefined;
  let count = 0;
  /** The count at which everything changed last. */
  let allChangedAt = 0;
  /** The count at which a resource changed since, by key. */
  const changedAt = new Map<string, number>();
  /** Resources that wait for a node that rests. */
  let resting = new Set<string>();

  return {
    update(now) {
      count += 1;
      const before = last;
      // What was held is changed in place.
      last = { ...now, held: new Map(now.held) };
      if (before?.nodes !== now.nodes) {
        allChangedAt = count;
        changedAt.clear();
        resting = new Set(
          [...now.nodes.values()].flatMap((rules) => (rules.source === "rest" ? (rules.next ?? []) : [])),
        );
        return;
      }
      for (const [node, rules] of now.nodes) {
        // A node counts in the status of one resource alone: the others only match it.
        const key = countsFor(rules);
        if (key !== undefined && !isSameNode(node, before, now)) changedAt.set(key, count);
      }
    },
    of: (key) => (resting.has(key) ? undefined : (changedAt.get(key) ?? allChangedAt)),
  };
}

/** The resource that rules a node or will rule it. */
function countsFor(rules: NodeRuling): string | undefined {
  if (rules.source === "default") return undefined;
  return rules.source === "resource" ? rules.resource : rules.next;
}

/** Whether a status has nothing else to tell of a node, but for the time of its last report. */
function isSameNode(node: string, before: Known, now: Known): boolean {
  const [one, other] = [before.agents.get(node), now.agents.get(node)];
  return (
    (one === undefined) === (other === undefined) &&
    one?.state === other?.state &&
    one?.report === other?.report &&
    one?.problem === other?.problem &&
    before.starts.get(node) === now.starts.get(node) &&
    before.held.get(node) === now.held.get(node)
  );
}
