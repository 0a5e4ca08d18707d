import { type OrphanFact, REPORT_LIFETIME_MS } from "@cro/shared/wire/directive";
import type { OrphanCover } from "../retention/plan.ts";

/** How many reports back a proof may answer. */
const REMEMBERED_REPORTS = 256;

/** A proof, the report that asked for it, and the moment at which it lapses. */
export interface OrphanProof extends OrphanCover {
  report: number;
  untilMs: number;
}

/**
 * Keeps what the coordinator proved about absent pods, for as long as it may be acted upon. A proof answers one question
 * of one report of this very start of the agent; it covers only what was listed when that report was made, is good once,
 * and a repetition of it counts for nothing. It was made after that report, so it lapses a minute after the report: a
 * directive may have waited in the socket of an agent that was frozen.
 */
export interface OrphanProofs {
  /** Remembers what a report that is made now covers: archives listed up to this number. */
  reported(report: number, listedUpTo: number): void;
  /** Withdraws every proof that is not among the facts of a directive any more: they are all that hold. */
  withdraw(facts: readonly OrphanFact[]): void;
  /**
   * Takes in the facts of a directive; returns those that are new and good.
   * @param time when the directive was sent, as it says itself
   */
  receive(facts: readonly OrphanFact[], nowMs: number, time?: string): OrphanProof[];
  /** The proofs that may be acted upon now. */
  current(nowMs: number): readonly OrphanProof[];
  /** Whether a proof that has not lapsed covers this archive: to be asked again just before it goes. */
  covers(
    archive: { namespace: string; pod: string; container: string; uid: string | undefined; listed: number },
    nowMs: number,
  ): boolean;
  /** Ends proofs that have been acted upon. */
  use(covers: readonly OrphanCover[]): void;
}

/** Times are of the monotonic clock, which `monotonicMs` reads. */
export function createOrphanProofs(bootId: string, monotonicMs: () => number): OrphanProofs {
  const reports = new Map<number, { listedUpTo: number; madeAtMs: number; answered: Set<string> }>();
  let proofs: OrphanProof[] = [];
  return {
    reported(report, listedUpTo) {
      const madeAtMs = monotonicMs();
      for (const [number, asked] of reports) {
        // Its proofs would have lapsed.
        if (asked.madeAtMs + REPORT_LIFETIME_MS <= madeAtMs || number <= report - REMEMBERED_REPORTS)
          reports.delete(number);
        else break;
      }
      reports.set(report, { listedUpTo, madeAtMs, answered: new Set() });
    },
    withdraw(facts) {
      const told = new Set(facts.filter((fact) => fact.bootId === bootId).map(keyOf));
      proofs = proofs.filter((proof) => told.has(keyOf(proof)));
    },
    receive(facts, nowMs, time) {
      const fresh: OrphanProof[] = [];
      for (const { bootId: asked, report, namespace, pod, container, uid, provedAt } of facts) {
        const question = asked === bootId ? reports.get(report) : undefined;
        const key = [namespace, pod, container ?? "", uid ?? ""].join("/");
        if (question === undefined || question.answered.has(key)) continue;
        question.answered.add(key);
        const { listedUpTo, madeAtMs } = question;
        // Both times are of the coordinator's clock, which may have been set back in between.
        const ageMs = time && provedAt ? Math.max(0, Date.parse(time) - Date.parse(provedAt)) : 0;
        const untilMs = Math.min(madeAtMs, nowMs - ageMs) + REPORT_LIFETIME_MS;
        if (nowMs < untilMs) fresh.push({ report, namespace, pod, container, uid, listedUpTo, untilMs });
      }
      proofs.push(...fresh);
      return fresh;
    },
    current(nowMs) {
      proofs = proofs.filter(({ untilMs }) => nowMs < untilMs);
      return proofs;
    },
    covers({ namespace, pod, container, uid, listed }, nowMs) {
      return proofs.some(
        (proof) =>
          nowMs < proof.untilMs &&
          listed <= proof.listedUpTo &&
          proof.namespace === namespace &&
          proof.pod === pod &&
          (proof.container === undefined || proof.container === container) &&
          (proof.uid === undefined || proof.uid === uid),
      );
    },
    use(covers) {
      const used = new Set<OrphanCover>(covers);
      proofs = proofs.filter((proof) => !used.has(proof));
    },
  };
}

function keyOf({
  report,
  namespace,
  pod,
  container = "",
  uid = "",
}: Omit<OrphanProof, "listedUpTo" | "untilMs">): string {
  return [report, namespace, pod, container, uid].join("/");
}
