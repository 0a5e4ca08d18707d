import type { Archive } from "@cro/agent/archive/archive";
import { planRetention } from "@cro/agent/retention/plan";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { policyDocument } from "../support/policy-document.ts";
import { aSize, chance, owners } from "./support/archives.ts";
import type { Benchmark, Figure } from "./support/benchmark.ts";

const SIZES = [1000, 10_000, 100_000, 1_000_000];
/** One resource may have 3,000 beside its global one; what comes after is what a larger definition would cost. */
const POLICIES = [1, 100, 5000];
const MAX_OF_A_LEVEL = 1000;

const GLOBAL = {
  maxCheckpointsPerContainer: 8,
  maxCheckpointsPerPod: 30,
  maxTotalSizePerNamespace: "5Ti",
  maxAge: "30d",
};

/** A policy with so many rules, the global one included, about a third of each level, every second one by prefix. */
function aPolicy(rules: number): PolicyDocument {
  const perLevel = Math.floor(rules / 3);
  const parts = Array.from({ length: Math.max(1, Math.ceil(perLevel / MAX_OF_A_LEVEL)) }, (_, part) =>
    aPart(part * MAX_OF_A_LEVEL, Math.min(MAX_OF_A_LEVEL, perLevel - part * MAX_OF_A_LEVEL)),
  );
  const [first] = parts;
  if (first === undefined) throw new Error("there is a part");
  return { ...first, rules: parts.flatMap((part) => part.rules) };
}

/** As many rules of each level as one resource may have at most, counted from a number. */
function aPart(from: number, perLevel: number): PolicyDocument {
  const name = (index: number, prefix: string) => (index % 2 === 0 ? `${prefix}${index}-*` : `${prefix}${index}`);
  const list = (make: (index: number) => object) => Array.from({ length: perLevel }, (_, index) => make(from + index));
  return policyDocument({
    applyPoliciesImmediately: true,
    globalPolicy: GLOBAL,
    containerPolicies: list((index) => ({
      namespace: "shop",
      pod: name(index, "web-"),
      container: "main",
      maxCheckpoints: 3,
    })),
    podPolicies: list((index) => ({ namespace: "team-prod", pod: name(index, "api-server-"), maxTotalSize: "2Gi" })),
    namespacePolicies: list((index) => ({ namespace: name(index, "ns-"), maxCheckpoints: 20 })),
    nodePolicy: { maxTotalSize: "100Ti" },
  });
}

function archives(count: number, nowMs: number): Archive[] {
  const all = owners(Math.max(1, count / 10));
  return Array.from({ length: count }, (_, index) => {
    const identity = all[index % all.length];
    const timeMs = nowMs - 1000 * Math.floor(40 * 86_400 * chance(index));
    const size = aSize(index);
    return {
      file: `checkpoint-${identity?.pod}_${identity?.namespace}-${identity?.container}-${timeMs}.tar`,
      identity,
      candidates: identity === undefined ? [] : [identity],
      podUID: undefined,
      isStaticPod: false,
      timeMs,
      mtimeNs: BigInt(timeMs) * 1_000_000n,
      size,
      allocated: size,
      hasOtherNames: false,
      state: chance(index + 3) < 0.02 ? "incomplete" : "complete",
      walked: true,
      pinned: chance(index + 5) < 0.01,
      settled: true,
      listed: index + 1,
      unmanagedSinceMs: undefined,
    };
  });
}

export default {
  title: "Planner",
  about:
    "one plan of everything: ten archives a container, counts, sizes, ages and node rules; time also as a multiple of n log n at 10,000",
  async run(context) {
    const figures: Figure[] = [];
    const nowMs = Date.now();
    let perUnit: number[] | undefined;
    for (const count of SIZES) {
      context.note(`${count} archives`);
      const all = archives(count, nowMs);
      // Of the largest, which takes the longest, one tells how cost grows.
      for (const rules of count > 100_000 ? [1] : POLICIES) {
        const policy = aPolicy(rules);
        const times: number[] = [];
        // So many first ones do not count: the code is still being compiled.
        const [warmUps, repeats] = count > 100_000 ? [1, 3] : [Math.max(2, 100_000 / count), 11];
        for (let repeat = 0; repeat < warmUps + repeats; repeat += 1) {
          const startMs = performance.now();
          const plan = planRetention({
            archives: all,
            policy,
            nowMs,
            orphans: [],
            isActive: () => true,
            node: { disk: undefined },
          });
          if (repeat >= warmUps) times.push(performance.now() - startMs);
          if (plan.deletions.length === 0) throw new Error("the plan is empty");
        }
        const unit = count * Math.log2(count);
        if (count === 10_000 && rules === 1) perUnit = times.map((time) => time / unit);
        figures.push({
          what: `${count} archives, ${policy.rules.length + 1} policies`,
          unit: "ms",
          values: times,
          ...(perUnit !== undefined && {
            yardstick: { what: "n log n, from 10,000", values: perUnit.map((time) => time * unit) },
          }),
          ...(count === 100_000 && { atMost: { value: 150 } }),
        });
      }
    }
    return figures;
  },
} satisfies Benchmark;
