import type { Clock } from "../clock.ts";

/** How long a deletion that failed rests before it is tried again, in milliseconds: doubled from the first to the second. */
const RETRY_MS = { first: 1000, longest: 5 * 60_000 } as const;

/** A deletion that failed and is to be tried again. `isOfNode`: a rule of the node as a whole wanted it. */
export interface Failure {
  file: string;
  isOfNode: boolean;
}

/** Deletions that failed, and when each is tried again. */
export interface Failures {
  /** A deletion failed with that error code; returns how often in a row that was. */
  note(file: string, how: Pick<Failure, "isOfNode"> & { code: string }): number;
  forget(file: string): void;
  /** No rule of the node wants anything gone but these files. */
  forgetOfNode(isWanted: (file: string) => boolean): void;
  /** Files that cannot be deleted just now: they rest until they are tried again. */
  resting(): ReadonlySet<string>;
  /** The error code of each file whose last deletion failed, resting or not. */
  codes(): ReadonlyMap<string, string>;
  has(file: string): boolean;
  /** Those whose rest is over and that have not been tried since. */
  due(): Failure[];
  clear(): void;
}

export function createFailures(clock: Clock): Failures {
  const failures = new Map<string, { attempts: number; notBeforeMs: number; isOfNode: boolean; code: string }>();
  const isResting = ({ notBeforeMs }: { notBeforeMs: number }) => clock.monotonicMs() < notBeforeMs;
  return {
    note(file, { isOfNode, code }) {
      const attempts = (failures.get(file)?.attempts ?? 0) + 1;
      const restMs = Math.min(RETRY_MS.first * 2 ** (attempts - 1), RETRY_MS.longest);
      failures.set(file, { attempts, notBeforeMs: clock.monotonicMs() + restMs, isOfNode, code });
      return attempts;
    },
    forget: (file) => void failures.delete(file),
    forgetOfNode(isWanted) {
      for (const [file, { isOfNode }] of failures) if (isOfNode && !isWanted(file)) failures.delete(file);
    },
    resting: () => new Set([...failures].filter(([, failure]) => isResting(failure)).map(([file]) => file)),
    codes: () => new Map([...failures].map(([file, { code }]) => [file, code])),
    has: (file) => failures.has(file),
    due: () =>
      [...failures].filter(([, failure]) => !isResting(failure)).map(([file, { isOfNode }]) => ({ file, isOfNode })),
    clear: () => failures.clear(),
  };
}
