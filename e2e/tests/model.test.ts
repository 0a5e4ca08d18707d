import fc from "fast-check";
import { beforeAll, describe, expect, it } from "vitest";
import { soak, withSeed } from "../../shared/test/support/soak.ts";
import { describeWithKube, installPolicyDefinition } from "../support/kube.ts";
import { obey, outcomesOf, putFile } from "../support/model.ts";
import { begin, commandSequences, end, startModel } from "../support/model-commands.ts";
import { startWorld } from "../support/model-world.ts";
import { policyDocument } from "../support/policy-document.ts";

/** Nodes that live side by side, for most of what happens to one is waiting. */
const NODES = 6;
/** How many runs a node makes, one after the other, and how many commands one has at the most. */
const RUNS = soak(1);
const MAX_COMMANDS = 250;
/** How long one run takes at the most, and how long a failing one is made shorter, in milliseconds. */
const RUN_MS = 3 * 60_000;
const SHRINKING_MS = 2 * 60_000;

describe("the model", () => {
  it("lets the proof that a pod is gone come before its archives have settled, or after a count took the oldest", () => {
    const model = { ...startModel().node, policy: policyDocument({}), gone: new Set(["shop/web"]) };
    const owner = { namespace: "shop", pod: "web", container: "main" };
    for (const [file, agoMs] of Object.entries({ older: 2000, newer: 1000 })) {
      const timeMs = Date.now() - agoMs;
      const content = { kind: "whole", written: { owner, runtime: "cri-o", pagesBytes: 1 } } as const;
      const spelling = { pod: owner.pod, joined: "shop-main", timeMs };
      putFile(model, { file, spelling, content, size: 1, mtimeMs: timeMs });
    }
    const globalPolicy = { maxCheckpointsPerContainer: 1, retainOrphan: false };
    const policy = policyDocument({ applyPoliciesImmediately: true, globalPolicy });

    const how = { isAtOnce: true, isEverythingFresh: false };
    const outcomes = outcomesOf(model, [(node) => obey(node, policy)], how);
    expect(outcomes.map(({ deleted }) => [...deleted].map(([file, { reasons }]) => [file, reasons]).sort())).toEqual([
      [
        ["newer", new Set(["orphan"])],
        ["older", new Set(["max_checkpoints", "orphan"])],
      ],
    ]);
  });
});

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
      let failure: unknown;
      const live = async (node: number) => {
        // Each run is a property of its own, so that the time to make it shorter counts from its beginning.
        for (let run = 0; run < RUNS && failure === undefined; run += 1) {
          const bounds = { numRuns: 1, interruptAfterTimeLimit: RUN_MS + SHRINKING_MS };
          await fc.assert(property, { ...bounds, ...withSeed(node) }).catch((cause) => {
            failure ??= cause;
          });
        }
      };
      await Promise.all(Array.from({ length: NODES }, (_, node) => live(node)));
      if (failure !== undefined) throw failure;
      console.info(`${steps} steps on ${NODES * RUNS} nodes`);
    },
    RUN_MS * (RUNS + 1) + SHRINKING_MS,
  );
});
