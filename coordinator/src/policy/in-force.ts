import type { SerializedPolicy } from "../agents/directive.ts";
import { isSameMemory, isSameRecord, type RulingMemory, readRecord, writeRecord } from "./record.ts";
import { type NodeRuling, type Ruling, type RulingInput, ruleNodes } from "./ruling.ts";

export interface RulingsOptions {
  /** What the leader before left. */
  record: string | undefined;
  /** Leaves a text for the next leader. Resolves true once it is safe; false if a later text took its place. */
  leave: (record: string) => Promise<boolean>;
  /** Other policies, or other grace periods, than before may hold. */
  onChange: () => void;
  /** How much resting time a change of leader may lose, in milliseconds. */
  refreshMs: number;
}

/** Who rules which node, and what of that may be acted upon. */
export interface Rulings {
  /** Decides anew, from all that is known by now. */
  decide(input: RulingInput): Ruling;
  /**
   * Something was told that is not decided upon yet: of this node, or, without a name, of what may rule any node. Until
   * the next decision no grace period is known there.
   */
  outdate(node?: string): void;
  /**
   * A watch of policies or nodes was lost, or listed anew. What went may have come back in between, so the time until the
   * next decision counts for no absence.
   */
  interrupt(): void;
  /** What may be pushed to the agent of a node; undefined is nothing. */
  policyOf(node: string): SerializedPolicy | undefined;
  /**
   * How long something must have been absent on a node, in milliseconds, by the policy that rules it; undefined if that
   * is not known, or does not act yet.
   */
  graceOf(node: string): number | undefined;
}

/**
 * Remembers who rules, and leaves that to the next leader before it is acted upon. A rest acts at once. Nothing else is
 * pushed for a node until the record says that this is what rules it: a leader that dies then leaves no node of which the
 * next leader does not know what went away.
 */
export function createRulings({ record, leave, onChange, refreshMs }: RulingsOptions): Rulings {
  let memory = readRecord(record);
  /** What is on record for sure. */
  let written = memory;
  /** What was last given to be written: it may be on record. */
  let left: RulingMemory | undefined;
  let rules: ReadonlyMap<string, NodeRuling> = new Map();
  let acting = new Map<string, NodeRuling>();
  /** Whether no decision rests on what is known now, for all nodes or for some. */
  let isOutdated = true;
  const outdated = new Set<string>();

  /** Goes over to the rules that are on record. */
  function act(): void {
    const next = new Map<string, NodeRuling>();
    for (const [node, rule] of rules) {
      const mayAct =
        rule.source === "rest" ||
        rule.source === "unknown" ||
        isSameMemory(written.nodes.get(node), memory.nodes.get(node));
      const chosen = mayAct ? rule : acting.get(node);
      if (chosen !== undefined) next.set(node, chosen);
    }
    acting = next;
    onChange();
  }

  async function leaveRecord(now: RulingMemory): Promise<void> {
    left = now;
    const isWritten = await leave(writeRecord(now));
    if (!isWritten) return;
    written = now;
    act();
  }

  return {
    decide(input) {
      const ruling = ruleNodes(input, memory);
      memory = ruling.memory;
      rules = ruling.nodes;
      isOutdated = false;
      outdated.clear();
      act();
      const last = left ?? written;
      const isOld = last.atMs === undefined || input.nowMs - last.atMs >= refreshMs;
      if (!isSameRecord(memory, last) || (ruling.nextMs !== undefined && isOld)) void leaveRecord(memory);
      return ruling;
    },
    outdate(node) {
      if (node === undefined) isOutdated = true;
      else outdated.add(node);
    },
    interrupt() {
      isOutdated = true;
      memory = { ...memory, atMs: undefined };
    },
    policyOf: (node) => acting.get(node)?.policy,
    graceOf(node) {
      const decided = rules.get(node);
      // What was decided and what acts differ until the record is written.
      if (isOutdated || outdated.has(node) || decided !== acting.get(node)) return undefined;
      const isRuled = decided?.source === "resource" || decided?.source === "default";
      return isRuled ? decided.policy?.compiled.orphanGraceMs : undefined;
    },
  };
}
