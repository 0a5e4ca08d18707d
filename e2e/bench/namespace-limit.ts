import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { startAgent, untilWalked } from "./support/agent.ts";
import { owners, populate } from "./support/archives.ts";
import type { Benchmark } from "./support/benchmark.ts";
import { cpuMsOf } from "./support/process-facts.ts";

const COUNT = 50_000;
const REPEATS = 3;
const POLICIES = {
  without: { globalPolicy: { maxCheckpointsPerContainer: 0 } },
  with: { namespacePolicies: [{ namespace: "crowd", maxCheckpoints: COUNT - 10 }] },
} as const;

export default {
  title: "A limit for a namespace",
  about: `an agent starts on ${COUNT} archives of one namespace, with a limit for it that is exceeded (DryRun) and without one`,
  async run(context) {
    const directory = join(context.folder, "checkpoints");
    mkdirSync(directory);
    const crowd = owners(COUNT / 10).map((owner) => ({ ...owner, namespace: "crowd" }));
    populate(directory, { from: 0, count: COUNT, of: crowd });
    const cpu: Record<keyof typeof POLICIES, number[]> = { without: [], with: [] };
    const delay: Record<keyof typeof POLICIES, number[]> = { without: [], with: [] };
    for (let repeat = 0; repeat < REPEATS; repeat += 1) {
      // One after the other, so that a machine that grows slower does not favour either.
      for (const name of ["without", "with"] as const) {
        context.note(`${name} a limit, ${repeat + 1} of ${REPEATS}`);
        const agent = await startAgent(context, { watchesLoop: true });
        await agent.loopDelays();
        await agent.apply({ mode: "DryRun", applyPoliciesImmediately: true, ...POLICIES[name] }, directory);
        await agent.line(({ msg }) => msg === "directory listed");
        await untilWalked(agent, COUNT);
        cpu[name].push(cpuMsOf(agent.pid));
        const [longest = 0] = await agent.loopDelays();
        delay[name].push(longest);
        await agent.stop();
      }
    }
    return [
      {
        what: "CPU time until all is walked, with the limit",
        unit: "ms",
        values: cpu.with,
        yardstick: { what: "without a limit", values: cpu.without },
        atMost: { times: 1.3 },
      },
      {
        what: "longest block of the event loop, with the limit",
        unit: "ms",
        values: delay.with,
        yardstick: { what: "without a limit", values: delay.without },
        atMost: { value: 50 },
      },
    ];
  },
} satisfies Benchmark;
