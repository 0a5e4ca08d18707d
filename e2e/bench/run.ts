// node e2e/bench/run.ts [NAME…] [--json] [--full]: runs the benchmarks, each in a process of its own, and prints a table.
import { fork } from "node:child_process";
import { once } from "node:events";
import { cpus, totalmem } from "node:os";
import { parseArgs } from "node:util";
import { buildBundles } from "../../scripts/build.mjs";
import { type Benchmark, type Figure, isKept, runBenchmark } from "./support/benchmark.ts";
import { spreadOf } from "./support/stats.ts";
import { toTable } from "./support/table.ts";

const NAMES = [
  "cold-start",
  "namespace-limit",
  "event-cost",
  "memory",
  "at-rest",
  "event-to-deletion",
  "planner",
  "fleet",
  "day",
] as const;

interface Result {
  name: string;
  title: string;
  about: string;
  seconds: number;
  figures: Figure[];
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    full: { type: "boolean", default: false },
    alone: { type: "boolean", default: false },
  },
});

/** Runs one benchmark in this process and sends what it measured to the one that started it. */
async function runAlone(name: string): Promise<void> {
  const { default: benchmark } = (await import(`./${name}.ts`)) as { default: Benchmark };
  const startMs = performance.now();
  const note = (text: string) => process.stderr.write(`${name}: ${text}\n`);
  const figures = await runBenchmark(benchmark, { isFull: options.full, note });
  const seconds = (performance.now() - startMs) / 1000;
  process.send?.({ name, title: benchmark.title, about: benchmark.about, seconds, figures } satisfies Result);
}

async function runAll(names: readonly string[]): Promise<Result[]> {
  await buildBundles();
  const results: Result[] = [];
  for (const name of names) {
    const flags = ["--alone", ...(options.full ? ["--full"] : [])];
    const child = fork(new URL(import.meta.url), [name, ...flags]);
    child.once("message", (result) => results.push(result as Result));
    const [code] = await once(child, "exit");
    if (code !== 0) throw new Error(`${name} failed`);
  }
  return results;
}

function present(results: readonly Result[]): void {
  const [processor] = cpus();
  const machine = `${cpus().length} × ${processor?.model}, ${Math.round(totalmem() / 1024 ** 3)} GiB`;
  if (options.json) {
    const run = { date: new Date().toISOString(), machine, node: process.version };
    const withSpread = results.map((result) => ({
      ...result,
      figures: result.figures.map((figure) => ({ ...figure, ...spreadOf(figure.values), kept: keeps(figure) })),
    }));
    process.stdout.write(`${JSON.stringify({ ...run, results: withSpread })}\n`);
    return;
  }
  process.stdout.write(`${new Date().toISOString().slice(0, 10)}, ${machine}, Node ${process.version}\n`);
  for (const { title, about, seconds, figures } of results) {
    process.stdout.write(`\n### ${title} (${seconds.toFixed(0)} s)\n${about}\n\n${toTable(figures)}\n`);
  }
}

const keeps = (figure: Figure) => isKept(figure, (values) => spreadOf(values).median);

const unknown = positionals.find((name) => !(NAMES as readonly string[]).includes(name));
if (unknown !== undefined) {
  process.stderr.write(`${unknown} is none of the benchmarks: ${NAMES.join(", ")}\n`);
  process.exitCode = 2;
} else if (options.alone) {
  await runAlone(positionals[0] ?? "");
  process.disconnect?.();
} else {
  present(await runAll(positionals.length > 0 ? positionals : NAMES));
}
