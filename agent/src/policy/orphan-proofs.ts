import type { OrphanFact } from "@cro/shared/wire/directive";
import type { OrphanCover } from "../retention/plan.ts";

/** How long a proof may be acted upon, in milliseconds. */
const LIFETIME_MS = 60_000;
/** How many reports back a proof may answer. */
const REMEMBERED_REPORTS = 256;

interface Proof extends OrphanCover {
  untilMs: number;
}

/**
 * Keeps what the coordinator proved about absent pods, for as long as it may be acted upon. A proof answers one question
 * of one report of this very start of the agent; it covers only what was listed when that report was made, is good once
 * and for a minute, and a repetition of it counts for nothing.
 */
export interface OrphanProofs {
  /** Remembers what a report covers: archives listed up to this number. */
  reported(report: number, listedUpTo: number): void;
  /** Takes in the facts of a directive; returns those that are new and good. */
  receive(facts: readonly OrphanFact[], nowMs: number): OrphanCover[];
  /** The proofs that may be acted upon now. */
  current(nowMs: number): readonly OrphanCover[];
  /** Ends proofs that have been acted upon. */
  use(covers: readonly OrphanCover[]): void;
}

/** Times are of the monotonic clock. */
export function createOrphanProofs(bootId: string): OrphanProofs {
  const reports = new Map<number, { listedUpTo: number; answered: Set<string> }>();
  let proofs: Proof[] = [];
  return {
    reported(report, listedUpTo) {
      reports.set(report, { listedUpTo, answered: new Set() });
      reports.delete(report - REMEMBERED_REPORTS);
    },
    receive(facts, nowMs) {
      const fresh: Proof[] = [];
      for (const { bootId: asked, report, namespace, pod, container } of facts) {
        const question = asked === bootId ? reports.get(report) : undefined;
        const key = [namespace, pod, container ?? ""].join("/");
        if (question === undefined || question.answered.has(key)) continue;
        question.answered.add(key);
        fresh.push({ namespace, pod, container, listedUpTo: question.listedUpTo, untilMs: nowMs + LIFETIME_MS });
      }
      proofs.push(...fresh);
      return fresh;
    },
    current(nowMs) {
      proofs = proofs.filter(({ untilMs }) => nowMs < untilMs);
      return proofs;
    },
    use(covers) {
      const used = new Set<OrphanCover>(covers);
      proofs = proofs.filter((proof) => !used.has(proof));
    },
  };
}
