import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { startAgent, untilWalked } from "./support/agent.ts";
import { owners, populate } from "./support/archives.ts";
import type { Benchmark, Figure } from "./support/benchmark.ts";
import { cpuMsOf } from "./support/process-facts.ts";

const REPEATS = 3;
const SIZES = [1000, 10_000, 50_000, 100_000];

function timeFind(directory: string): number {
  const startMs = performance.now();
  execFileSync("find", [directory, "-printf", "%s %T@ %f\\n"], { maxBuffer: 1024 ** 3 });
  return performance.now() - startMs;
}

export default {
  title: "Cold start",
  about: "an agent starts on a folder of so many archives of 1 MiB to 1 GiB, ten of each container",
  async run(context) {
    const directory = join(context.folder, "checkpoints");
    mkdirSync(directory);
    const figures: Figure[] = [];
    let there = 0;
    for (const count of SIZES) {
      context.note(`${count} archives`);
      populate(directory, { from: there, count, of: owners(count / 10) });
      there = count;
      const found: number[] = [];
      const start: number[] = [];
      const names: number[] = [];
      const walk: number[] = [];
      const cpu: number[] = [];
      const delay: number[] = [];
      for (let repeat = 0; repeat < (count > 50_000 ? 1 : REPEATS); repeat += 1) {
        found.push(timeFind(directory));
        const agent = await startAgent(context, { watchesLoop: true });
        start.push(Date.now() - agent.startedMs);
        await agent.loopDelays();
        await agent.apply({ mode: "DryRun" }, directory);
        const opened = await agent.line(({ msg }) => msg === "directory opened");
        const listed = await agent.line(({ msg }) => msg === "directory listed");
        names.push((listed.time ?? 0) - (opened.time ?? 0));
        // As a coordinator does every 30 s.
        await agent.report();
        await untilWalked(agent, count);
        walk.push(Date.now() - (listed.time ?? 0));
        cpu.push(cpuMsOf(agent.pid));
        const [longest = 0] = await agent.loopDelays();
        delay.push(longest);
        await agent.stop();
      }
      const isTarget = count === 50_000;
      const yardstick = { what: "find -printf of the folder", values: found };
      figures.push(
        { what: `${count}: process start to ready for its coordinator`, unit: "ms", values: start },
        {
          what: `${count}: names and sizes`,
          unit: "ms",
          values: names,
          yardstick,
          ...(isTarget && { atMost: { times: 2 } }),
        },
        {
          what: `${count}: walk, in the background`,
          unit: "ms",
          values: walk,
          yardstick,
          ...(isTarget && { atMost: { value: 15_000 } }),
        },
        {
          what: `${count}: process start to full index, all walked`,
          unit: "ms",
          values: start.map((ms, repeat) => ms + (names[repeat] ?? 0) + (walk[repeat] ?? 0)),
          yardstick,
        },
        { what: `${count}: CPU time until all is walked`, unit: "ms", values: cpu },
        {
          what: `${count}: longest block of the event loop`,
          unit: "ms",
          values: delay,
          ...(isTarget && { atMost: { value: 50 } }),
        },
      );
    }
    return figures;
  },
} satisfies Benchmark;
