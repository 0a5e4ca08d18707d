/** How many requests may still be made: as many a second, and none is saved for longer than that. */
export interface Budget {
  left(): number;
  /** When the next one may be made, in milliseconds of the same clock; undefined if that is now. */
  nextMs(): number | undefined;
  take(): void;
}

/** @param options.nowMs a monotonic clock */
export function createBudget({ perSecond, nowMs }: { perSecond: number; nowMs: () => number }): Budget {
  let takenAtMs: number[] = [];

  function left(): number {
    takenAtMs = takenAtMs.filter((atMs) => nowMs() - atMs < 1000);
    return perSecond - takenAtMs.length;
  }

  return {
    left,
    nextMs() {
      if (left() > 0) return undefined;
      const [first = nowMs()] = takenAtMs;
      return first + 1000;
    },
    take: () => void takenAtMs.push(nowMs()),
  };
}
