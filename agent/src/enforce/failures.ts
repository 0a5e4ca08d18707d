import type { Clock } from "../clock.ts";

/** How long a deletion that failed rests before it is tried again, in milliseconds: doubled from the first to the second. */
const RETRY_MS = { first: 1000, longest: 5 * 60_000 } as const;

/** Deletions that failed, by file, and when each is tried again. */
export interface Failures {
  /** A deletion failed; returns how often in a row that was. */
  note(file: string): number;
  forget(file: string): void;
  /** Files that cannot be deleted just now: they rest until they are tried again. */
  resting(): ReadonlySet<string>;
  /** Files whose rest is over and that have not been tried since. */
  due(): string[];
  clear(): void;
}

export function createFailures(clock: Clock): Failures {
  const failures = new Map<string, { attempts: number; notBeforeMs: number }>();
  const isResting = ({ notBeforeMs }: { notBeforeMs: number }) => clock.monotonicMs() < notBeforeMs;
  const filesWhere = (isWanted: (failure: { notBeforeMs: number }) => boolean) =>
    [...failures].filter(([, failure]) => isWanted(failure)).map(([file]) => file);
  return {
    note(file) {
      const attempts = (failures.get(file)?.attempts ?? 0) + 1;
      const restMs = Math.min(RETRY_MS.first * 2 ** (attempts - 1), RETRY_MS.longest);
      failures.set(file, { attempts, notBeforeMs: clock.monotonicMs() + restMs });
      return attempts;
    },
    forget: (file) => void failures.delete(file),
    resting: () => new Set(filesWhere(isResting)),
    due: () => filesWhere((failure) => !isResting(failure)),
    clear: () => failures.clear(),
  };
}
