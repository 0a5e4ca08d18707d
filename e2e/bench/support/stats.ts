/** How many numbers are distributed. */
export interface Spread {
  count: number;
  min: number;
  median: number;
  p99: number;
  max: number;
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
  return { count: sorted.length, min: at(0), median: at(0.5), p99: at(0.99), max: at(1) };
}

export function median(values: readonly number[]): number {
  return spreadOf(values).median;
}
