import fc from "fast-check";
import { beforeAll, it } from "vitest";
import { soak } from "../../shared/test/support/soak.ts";
import { describeWithKube, installPolicyDefinition } from "../support/kube.ts";
import { begin, commandSequences, end, startModel } from "../support/model-commands.ts";
import { startWorld } from "../support/model-world.ts";

/** Nodes that live side by side, for most of what happens to one is waiting. */
const NODES = 5;
/** How many runs a node makes, one after the other, and how many commands one has at the most. */
const RUNS = soak(1);
const MAX_COMMANDS = 200;
/** How long one run takes at the most, and how long a failing one is made shorter, in milliseconds. */
const RUN_MS = 5 * 60_000;
const SHRINKING_MS = 3 * 60_000;

describeWithKube("the whole, at random", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  it(
    "keeps and deletes what a plain model says, whatever happens to archives, policies, pods, clocks and processes",
    async () => {
      let steps = 0;
      const property = fc.asyncProperty(commandSequences(MAX_COMMANDS), async (commands) => {
        const world = await startWorld(kube);
        try {
          const model = startModel();
          await begin(model, world);
          await fc.asyncModelRun(() => ({ model, real: world }), commands);
          await end(model, world);
        } finally {
          steps += world.trace.length;
          await world.stop();
        }
      });
      const bounds = { numRuns: RUNS, interruptAfterTimeLimit: RUN_MS * RUNS + SHRINKING_MS };
      const ends = await Promise.allSettled(Array.from({ length: NODES }, () => fc.assert(property, bounds)));
      if (process.env.MODEL_TRACE) console.log(`${steps} steps`);
      for (const ended of ends) if (ended.status === "rejected") throw ended.reason;
    },
    RUN_MS * (RUNS + 1) + SHRINKING_MS,
  );
});
