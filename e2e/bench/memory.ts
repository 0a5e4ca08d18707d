import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startAgent, untilWalked } from "./support/agent.ts";
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
    const directory = join(context.folder, "checkpoints");
    mkdirSync(directory);
    const bare: number[] = [];
    const figures: Figure[] = [];
    let there = 0;
    for (const count of SIZES) {
      context.note(`${count} archives`);
      populate(directory, { from: there, count, of: owners(count / 10) });
      there = count;
      // Side by side, for it is their rest that takes the time.
      const facts = await Promise.all(
        Array.from({ length: REPEATS }, async () => {
          const agent = await startAgent(context);
          await agent.apply({}, directory);
          await untilWalked(agent, count);
          await sleep(REST_MS);
          const facts = factsOf(agent.pid);
          await agent.stop();
          return facts;
        }),
      );
      for (let repeat = 0; repeat < REPEATS; repeat += 1) bare.push(await residentOfBareNode());
      const rest = facts.map(({ residentMib }) => residentMib);
      const peak = facts.map(({ peakMib }) => peakMib);
      const yardstick = { what: "node -e, doing nothing", values: bare };
      const atMost = count === 10_000 ? { atMost: { value: 72 } } : {};
      figures.push({ what: `agent, ${count} archives`, unit: "MiB", values: rest, yardstick, ...atMost });
      figures.push({ what: `agent, ${count} archives, peak`, unit: "MiB", values: peak, yardstick });
    }
    return figures;
  },
} satisfies Benchmark;
