/** How many requests may still be made: as many a second, and none is saved for longer than that. */
export interface Budget {
  left(): number;
  take(): void;
}

/** @param options.nowMs a monotonic clock */
export function createBudget({ perSecond, nowMs }: { perSecond: number; nowMs: () => number }): Budget {
  let takenAtMs: number[] = [];
  return {
    left() {
      takenAtMs = takenAtMs.filter((atMs) => nowMs() - atMs < 1000);
      return perSecond - takenAtMs.length;
    },
    take: () => void takenAtMs.push(nowMs()),
  };
}
