import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type BenchAgent, startAgent, untilWalked } from "./support/agent.ts";
import { owners, populate } from "./support/archives.ts";
import type { Benchmark, Figure } from "./support/benchmark.ts";
import { factsOf, residentOfBareNode } from "./support/process-facts.ts";

const REPEATS = 3;
/** What a process is given to come to rest, in milliseconds: V8 waits for 8 s before it gives back what it does not need. */
const REST_MS = 45_000;
const SIZES = [0, 10_000, 100_000];

export default {
  title: "Memory",
  about: "resident memory of the agent as shipped, at rest with so many archives walked, and its peak on the way there",
  async run(context) {
    const agents: Array<{ count: number; agent: BenchAgent }> = [];
    for (const count of SIZES) {
      context.note(`${count} archives`);
      const directory = join(context.folder, `${count}`);
      mkdirSync(directory);
      populate(directory, { count, of: owners(count / 10) });
      const walks = Array.from({ length: REPEATS }, async () => {
        const agent = await startAgent(context);
        agents.push({ count, agent });
        await agent.apply({}, directory);
        await untilWalked(agent, count);
      });
      await Promise.all(walks);
    }
    // All at once, for it is their rest that takes the time.
    context.note("at rest");
    await sleep(REST_MS);
    const bare: number[] = [];
    for (let repeat = 0; repeat < REPEATS; repeat += 1) bare.push(await residentOfBareNode());
    const yardstick = { what: "node -e, doing nothing", values: bare };
    const figures: Figure[] = [];
    for (const size of SIZES) {
      const facts = agents.filter(({ count }) => count === size).map(({ agent }) => factsOf(agent.pid));
      const rest = facts.map(({ residentMib }) => residentMib);
      const peak = facts.map(({ peakMib }) => peakMib);
      const atMost = size === 10_000 ? { atMost: { value: 72 } } : {};
      figures.push({ what: `agent, ${size} archives`, unit: "MiB", values: rest, yardstick, ...atMost });
      figures.push({ what: `agent, ${size} archives, peak`, unit: "MiB", values: peak, yardstick });
    }
    return figures;
  },
} satisfies Benchmark;
