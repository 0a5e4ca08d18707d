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
/** How many archives there are, and how many MiB the agent may then have at rest. */
const GOALS_MIB: ReadonlyMap<number, number | undefined> = new Map([
  [0, undefined],
  [10_000, 72],
  [50_000, 90],
]);

export default {
  title: "Memory",
  about: "resident memory of the agent as shipped, at rest with so many archives walked, and its peak on the way there",
  async run(context) {
    const agents: Array<{ count: number; agent: BenchAgent }> = [];
    for (const count of GOALS_MIB.keys()) {
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
    for (const [size, goalMib] of GOALS_MIB) {
      const facts = agents.filter(({ count }) => count === size).map(({ agent }) => factsOf(agent.pid));
      const rest = facts.map(({ residentMib }) => residentMib);
      const peak = facts.map(({ peakMib }) => peakMib);
      const atMost = goalMib === undefined ? {} : { atMost: { value: goalMib } };
      figures.push({ what: `agent, ${size} archives`, unit: "MiB", values: rest, yardstick, ...atMost });
      figures.push({ what: `agent, ${size} archives, peak`, unit: "MiB", values: peak, yardstick });
    }
    return figures;
  },
} satisfies Benchmark;
