import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { OrphanFact } from "@cro/shared/wire/directive";
import { startAgent } from "./support/agent.ts";
import { aSize, chance, type Owner, owners, writeWhole } from "./support/archives.ts";
import type { Benchmark } from "./support/benchmark.ts";
import { factsOf, type ProcessFacts } from "./support/process-facts.ts";

const PODS = 100;
/** Each pod is checkpointed every 30 s, a day at 24-fold speed. */
const CHECKPOINT_EVERY_MS = 30_000 / 24;
/** A pod lives for two hours, a policy changes every half an hour, the coordinator asks every 30 s; 24-fold. */
const POD_EVERY_MS = (2 * 3_600_000) / PODS / 24;
const POLICY_EVERY_MS = 1_800_000 / 24;
const REPORT_EVERY_MS = 30_000 / 24;
const HOUR_MS = 3_600_000;
const BRIEF_MS = 120_000;
/** Of the whole time: how much is not looked at while all is new, and how much the beginning and the end are. */
const SHARE = { warmUp: 0.2, window: 0.2 };

export default {
  title: "A day",
  about:
    "a node with 100 pods at 24-fold speed, for an hour, or 2 minutes where not all is run: a checkpoint of each pod every 30 s, a pod replaced every 72 s, a policy changed every 30 min, a report every 30 s; what the agent has at the end, beside what it has at the beginning",
  async run(context) {
    const directory = join(context.folder, "checkpoints");
    mkdirSync(directory);
    const agent = await startAgent(context);
    const pods = owners(PODS);
    const gone = new Set<string>();
    const keyOf = ({ namespace, pod }: Pick<Owner, "namespace" | "pod">) => `${namespace}/${pod}`;
    let limit = 10;
    let deleted = 0;
    let written = 0;
    let replaced = 0;
    agent.onLine(({ msg }) => {
      if (msg === "archive deleted") deleted += 1;
    });
    const push = (orphans: readonly OrphanFact[] = []) =>
      agent.apply(
        {
          applyPoliciesImmediately: true,
          globalPolicy: { maxCheckpointsPerContainer: limit, maxAge: "1d", retainOrphan: false },
        },
        directory,
        orphans,
      );
    await push();

    const durationMs = context.isFull ? HOUR_MS : BRIEF_MS;
    const startMs = performance.now();
    const elapsed = () => performance.now() - startMs;
    const first: ProcessFacts[] = [];
    const last: ProcessFacts[] = [];
    const every = (periodMs: number, work: () => unknown) => {
      let done = 0;
      return async () => {
        // As many as are due by now: a timer that is late must not make the day a quieter one.
        for (; done < elapsed() / periodMs; done += 1) await work();
      };
    };
    const steps = [
      every(CHECKPOINT_EVERY_MS / PODS, () => {
        const owner = pods[written % PODS] as Owner;
        // Names tell seconds: at this speed they advance by one with each round, from a while ago.
        const timeMs = Date.now() - HOUR_MS * 12 + 1000 * Math.floor(written / PODS);
        writeWhole(directory, { owner, timeMs, sizeBytes: aSize(written) });
        written += 1;
      }),
      every(POD_EVERY_MS, () => {
        const index = Math.floor(chance(replaced) * PODS);
        const { pod, ...owner } = pods[index] as Owner;
        gone.add(keyOf({ ...owner, pod }));
        pods[index] = {
          ...owner,
          pod: `${pod.slice(0, pod.lastIndexOf("-"))}-${replaced.toString(36).padStart(5, "r")}`,
        };
        replaced += 1;
      }),
      every(POLICY_EVERY_MS, async () => {
        limit = limit === 10 ? 8 : 10;
        await push();
      }),
      every(REPORT_EVERY_MS, async () => {
        const { bootId, number, orphanScopes } = await agent.report();
        const facts = orphanScopes
          .filter((scope) => gone.has(keyOf(scope)))
          .map(({ namespace, pod }) => ({ bootId, report: number, namespace, pod }));
        if (facts.length > 0) await push(facts);
      }),
      every(1000, () => {
        const share = elapsed() / durationMs;
        if (share > SHARE.warmUp && share <= SHARE.warmUp + SHARE.window) first.push(factsOf(agent.pid));
        if (share > 1 - SHARE.window) last.push(factsOf(agent.pid));
      }),
    ];
    while (elapsed() < durationMs) {
      for (const step of steps) await step();
      await sleep(5);
    }
    context.note(`${written} archives, ${deleted} deleted, ${replaced} pods replaced`);
    const { archives } = await agent.report();
    const valuesOf = (facts: readonly ProcessFacts[], field: keyof ProcessFacts) => facts.map((fact) => fact[field]);
    const compare = (what: string, unit: "MiB" | "", field: keyof ProcessFacts, times: number) => ({
      what,
      unit,
      values: valuesOf(last, field),
      yardstick: { what: "at the beginning", values: valuesOf(first, field) },
      atMost: { times },
    });
    return [
      compare("resident memory", "MiB", "residentMib", 1.1),
      compare("handles", "", "handles", 1),
      compare("inotify watches", "", "inotifyWatches", 1),
      { what: "archives written", unit: "", values: [written] },
      { what: "archives deleted", unit: "", values: [deleted] },
      { what: "pods replaced", unit: "", values: [replaced] },
      { what: "archives left", unit: "", values: [archives] },
    ];
  },
} satisfies Benchmark;
