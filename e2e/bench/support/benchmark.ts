import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** One figure: what was measured again and again, and what it is held against. */
export interface Figure {
  what: string;
  unit: "ms" | "µs" | "MiB" | "KiB" | "calls" | "bytes" | "";
  values: number[];
  /** The same unit, measured in the same run. */
  yardstick?: { what: string; values: number[] };
  /** What it must not exceed: a value in the unit, or a multiple of the yardstick. */
  atMost?: { value: number } | { times: number };
}

export interface Benchmark {
  title: string;
  /** What is measured and on what. */
  about: string;
  run(context: BenchContext): Promise<Figure[]>;
}

export interface BenchContext {
  /** A folder of its own, removed when the benchmark is over. */
  folder: string;
  /** Whether all is to be measured at full length. */
  isFull: boolean;
  /** Tells what is going on. */
  note(text: string): void;
  /** Runs when the benchmark is over, the last one first. */
  onEnd(end: () => unknown): void;
}

/** Runs a benchmark and ends what it began. */
export async function runBenchmark(
  benchmark: Benchmark,
  { isFull, note }: Pick<BenchContext, "isFull" | "note">,
): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "cro-bench-"));
  const ends: Array<() => unknown> = [() => rmSync(folder, { recursive: true, force: true })];
  try {
    return await benchmark.run({ folder, isFull, note, onEnd: (end) => ends.push(end) });
  } finally {
    for (const end of ends.reverse()) await end();
  }
}

/** Whether a figure keeps what it promises; undefined where it promises nothing. */
export function isKept({ values, yardstick, atMost }: Figure, medianOf: (values: number[]) => number) {
  if (atMost === undefined) return undefined;
  const limit = "value" in atMost ? atMost.value : atMost.times * medianOf(yardstick?.values ?? []);
  return medianOf(values) <= limit;
}
