import type { Report } from "@cro/shared/wire/report";
import type { Clock } from "./clock.ts";

/**
 * How long a report stands if nothing changes, in milliseconds. The coordinator answers what a report asks for a minute and
 * looks every 7 s: a report that asks about pods is replaced in between.
 */
const STANDS_MS = { asking: 40_000, silent: 180_000 } as const;

/** Knows whether a report would tell anything that the last one did not. */
export interface ReportNews {
  /** Something has changed that a report tells of. */
  raise(): void;
  /** A report was made. */
  told(report: Report): void;
  /** Whether there is news for the reader of that report; for the reader of any but the last one there always is. */
  isNewTo(known: { bootId: string; number: number }): boolean;
}

export function createReportNews({ bootId, clock }: { bootId: string; clock: Clock }): ReportNews {
  let isRaised = true;
  let last = { number: 0, endMs: Number.NEGATIVE_INFINITY };
  return {
    raise() {
      isRaised = true;
    },
    told({ number, orphanScopes }) {
      isRaised = false;
      const standsMs = orphanScopes.length > 0 ? STANDS_MS.asking : STANDS_MS.silent;
      last = { number, endMs: clock.monotonicMs() + standsMs };
    },
    isNewTo: (known) =>
      isRaised || known.bootId !== bootId || known.number !== last.number || clock.monotonicMs() >= last.endMs,
  };
}
