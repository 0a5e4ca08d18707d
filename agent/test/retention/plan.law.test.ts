import type { Policy, PolicyDocument } from "@cro/shared/policy/document";
import { type ContainerIdentity, createGovernor } from "@cro/shared/policy/govern";
import type { WorkloadKind } from "@cro/shared/policy/workload";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { isNameOfPodOf } from "../../../shared/test/support/pod-names.ts";
import { patience, soak } from "../../../shared/test/support/soak.ts";
import type { Archive } from "../../src/archive/archive.ts";
import { keyOf as keyOfScope } from "../../src/enforce/attention.ts";
import { type Plan, type PlanInput, type PlannedDeletion, planRetention } from "../../src/retention/plan.ts";
import { containerScope, scopesOf } from "../../src/retention/scope.ts";
import { arbActive, arbArchives, arbDisk, arbOrphans, arbPolicy } from "./arbitrary.ts";
import { anInput, files, NOW_MS, watermarkBytes } from "./builders.ts";
import { byAge, floorKey, governs, matches, referencePlan } from "./reference.ts";

// The plain reference costs the square of its archives and more.
vi.setConfig({ testTimeout: patience(180_000) });

const RUNS = { numRuns: soak(400) };

const arbInput = ({ isWalked = true, hasNode = true } = {}): fc.Arbitrary<PlanInput> =>
  fc
    .record({
      archives: arbArchives({ isWalked }),
      policy: arbPolicy({ hasNode }),
      nowMs: fc.option(fc.constant(NOW_MS), { nil: undefined }),
      stuck: fc.option(fc.array(fc.nat(30), { maxLength: 4 }), { nil: undefined }),
      orphans: arbOrphans(),
      isActive: arbActive(),
      node: fc.option(
        fc.record({
          disk: arbDisk(),
          passLimitBytes: fc.option(fc.nat(100), { nil: Number.POSITIVE_INFINITY }),
          passLimitInodes: fc.option(fc.nat(10), { nil: Number.POSITIVE_INFINITY }),
        }),
        { nil: undefined },
      ),
    })
    .map(({ node, stuck, ...rest }) => ({
      ...rest,
      stuck: stuck && new Set(stuck.flatMap((at) => rest.archives[at]?.file ?? [])),
      node: node && {
        passLimitBytes: node.passLimitBytes,
        passLimitInodes: node.passLimitInodes,
        disk: node.disk && {
          ...node.disk,
          // A file system holds at least what the archives take up.
          usedBytes: node.disk.usedBytes + rest.archives.reduce((sum, { allocated }) => sum + allocated, 0),
        },
      },
    }));

const sorted = (planned: readonly PlannedDeletion[]) =>
  planned.map(({ archive, reason }) => `${reason} ${archive.file}`).sort();
const limits = (plan: Pick<Plan, "unreachable">) => plan.unreachable.map((limit) => JSON.stringify(limit)).sort();
const listOf = (input: PlanInput) => [...input.archives];
const coverOf = ({ candidates: [reading] }: Archive) => ({
  namespace: reading?.namespace ?? "",
  pod: reading?.pod ?? "",
  listedUpTo: 9,
});
const goneOf = ({ deletions, deferred, stuck }: Plan) =>
  new Set([...deletions, ...deferred, ...stuck].map(({ archive }) => archive));
const settled = (archives: Archive[]) => archives.map((archive) => ({ ...archive, settled: true }));
/** The newest complete archives of each container that its policy's floor keeps. */
function floorOf(input: PlanInput): Set<Archive> {
  const seen = new Map<string, number>();
  return new Set(
    listOf(input)
      .sort(byAge)
      .reverse()
      .filter(({ identity, state }) => {
        if (identity === undefined || state !== "complete") return false;
        const policy = governs(input.policy.rules, input.policy.global, identity);
        const key = floorKey(identity, policy);
        const rank = (seen.get(key) ?? 0) + 1;
        seen.set(key, rank);
        return rank <= (policy.minCheckpoints ?? 0);
      }),
  );
}

/** What is there, and how full the disk is, once a plan is carried out. */
function after(input: PlanInput, { deletions }: Plan): PlanInput {
  const gone = new Set(deletions.map(({ archive }) => archive));
  const freed = deletions.reduce((sum, { archive }) => sum + archive.allocated, 0);
  const disk = input.node?.disk;
  return {
    ...input,
    archives: listOf(input).filter((archive) => !gone.has(archive)),
    node: input.node && {
      passLimitBytes: Math.max(
        0,
        (input.node.passLimitBytes ?? Number.POSITIVE_INFINITY) - watermarkBytes({ deletions }),
      ),
      passLimitInodes: Math.max(
        0,
        (input.node.passLimitInodes ?? Number.POSITIVE_INFINITY) -
          deletions.filter(({ reason }) => reason === "node_inodes").length,
      ),
      disk: disk && {
        usedBytes: disk.usedBytes - freed,
        availableBytes: disk.availableBytes + freed,
        ...(disk.inodes && { inodes: { ...disk.inodes, free: disk.inodes.free + deletions.length } }),
      },
    },
  };
}

describe("planRetention, whatever the archives and the policy", () => {
  it("decides as the plain reference does", () => {
    fc.assert(
      fc.property(arbInput({ isWalked: false }), (input) => {
        const plan = planRetention(input);
        const expected = referencePlan(input);
        expect(sorted(plan.deletions)).toEqual(sorted(expected.deletions));
        expect(sorted(plan.deferred)).toEqual(sorted(expected.deferred));
        expect(sorted(plan.stuck)).toEqual(sorted(expected.stuck));
        expect(limits(plan)).toEqual(limits(expected));
      }),
      { numRuns: soak(3000) },
    );
  });

  it("decides as the plain reference does on a crowded node", () => {
    fc.assert(
      fc.property(arbInput(), arbArchives({ maxLength: 30 }), (some, archives) => {
        const global: Policy = { level: "global", retainOrphan: true, maxCheckpointBytes: 25 };
        const input = { ...some, archives, policy: { ...some.policy, rules: [], global } };
        const plan = planRetention(input);
        const expected = referencePlan(input);
        expect(sorted(plan.deletions)).toEqual(sorted(expected.deletions));
        expect(limits(plan)).toEqual(limits(expected));
      }),
      { numRuns: soak(1000) },
    );
  });

  it("decides as the plain reference does where most archives are of workloads with policies", () => {
    fc.assert(
      fc.property(
        arbInput({ isWalked: false }),
        arbPolicy({ levels: ["workload"], namespaces: ["team"] }),
        (some, policy) => {
          const archives = listOf(some).map((archive) =>
            archive.identity === undefined
              ? archive
              : { ...archive, identity: { ...archive.identity, namespace: "team" }, candidates: [] },
          );
          const input = { ...some, archives, policy };
          const plan = planRetention(input);
          const expected = referencePlan(input);
          expect(sorted(plan.deletions)).toEqual(sorted(expected.deletions));
          expect(sorted(plan.deferred)).toEqual(sorted(expected.deferred));
          expect(limits(plan)).toEqual(limits(expected));
        },
      ),
      { numRuns: soak(1000) },
    );
  });

  it("gives a workload's policy no say over an archive of a pod that is not of that workload", () => {
    const arbWorkloads = arbPolicy({ hasNode: false, levels: ["workload"] });
    fc.assert(
      fc.property(arbArchives(), arbWorkloads, (archives, some) => {
        const policy = { ...some, global: { level: "global" as const, retainOrphan: true } };
        const plan = planRetention({ ...anInput(archives, {}), policy, orphans: archives.map(coverOf) });
        for (const { identity } of goneOf(plan)) {
          const { namespace, pod, container } = identity as ContainerIdentity;
          const owners = policy.rules.filter(
            (rule) =>
              matches(rule.namespace, namespace) &&
              matches(rule.container, container) &&
              isNameOfPodOf({ kind: rule.kind as WorkloadKind, name: rule.workload as string }, pod),
          );
          expect(owners).not.toEqual([]);
        }
      }),
      RUNS,
    );
  });

  it("plans no archive twice, and none that is pinned, whole and of unknown owner, or neither complete nor incomplete, but for maxAgeUnmanaged", () => {
    fc.assert(
      fc.property(arbInput({ isWalked: false }), (input) => {
        const plan = planRetention(input);
        const all = [...plan.deletions, ...plan.deferred, ...plan.stuck];
        const planned = all.map(({ archive }) => archive);
        expect(new Set(planned).size).toBe(planned.length);
        for (const { pinned } of planned) expect(pinned).toBe(false);
        for (const { archive } of all.filter(({ reason }) => reason !== "max_age_unmanaged")) {
          const { identity, state } = archive;
          if (identity === undefined) expect(state).toBe("incomplete");
          expect(["complete", "incomplete"]).toContain(state);
        }
        for (const { archive } of plan.deletions) expect(archive.settled).toBe(true);
        for (const { archive } of plan.deferred) expect(archive.settled).toBe(false);
      }),
      RUNS,
    );
  });

  it("takes by maxAgeUnmanaged only what is unread or unidentified, not pinned, and older than asked by a trusted time", () => {
    let taken = 0;
    fc.assert(
      fc.property(arbInput({ isWalked: false }), (input) => {
        const plan = planRetention(input);
        for (const { archive, reason } of [...plan.deletions, ...plan.deferred, ...plan.stuck]) {
          const { state, pinned, walked, unmanagedSinceMs } = archive;
          expect(["unread", "unidentified"].includes(state)).toBe(reason === "max_age_unmanaged");
          if (reason !== "max_age_unmanaged") continue;
          taken += 1;
          expect([pinned, walked, input.nowMs]).toEqual([false, true, NOW_MS]);
          expect(NOW_MS - (unmanagedSinceMs as number)).toBeGreaterThan(input.policy.node.maxAgeUnmanagedMs as number);
        }
        // And whatever it takes, no scope's rule takes another one for that.
        const { maxAgeUnmanagedMs: _, ...node } = input.policy.node;
        const without = planRetention({ ...input, policy: { ...input.policy, node } });
        const ofScopes = (one: Plan) => sorted(one.deletions.filter(({ reason }) => !/^node_|unmanaged/.test(reason)));
        expect(ofScopes(plan)).toEqual(ofScopes(without));
      }),
      { numRuns: soak(3000) },
    );
    expect(taken).toBeGreaterThan(0);
  });

  it("takes what is torn and has no owner by rules of the node alone, and before all that is whole", () => {
    fc.assert(
      fc.property(arbInput(), (some) => {
        const input = { ...some, policy: { ...some.policy, node: { ...some.policy.node, maxTotalBytes: 1000 } } };
        const isOwnerless = ({ identity, state, pinned }: Archive) =>
          identity === undefined && state === "incomplete" && !pinned;
        const plan = planRetention(input);
        const gone = goneOf(plan);
        const planned = [...plan.deletions, ...plan.deferred, ...plan.stuck];
        for (const { archive, reason } of planned) if (isOwnerless(archive)) expect(reason).toMatch(/^node_/);
        const isFreed = planned.some(
          ({ archive, reason }) => reason === "node_watermark" && archive.state === "complete",
        );
        const canGo = (archive: Archive) => isOwnerless(archive) && !input.stuck?.has(archive.file);
        if (isFreed) expect(listOf(input).filter((archive) => canGo(archive) && !gone.has(archive))).toEqual([]);
        // No rule about scopes knows of them.
        const archives = listOf(input).filter((archive) => !isOwnerless(archive));
        const ofScopes = (one: Plan) => sorted(one.deletions.filter(({ reason }) => !reason.startsWith("node_")));
        expect(ofScopes(plan)).toEqual(ofScopes(planRetention({ ...input, archives })));
      }),
      RUNS,
    );
  });

  it("takes no archive of a static pod for an orphan, whatever was proved", () => {
    fc.assert(
      fc.property(arbInput(), (input) => {
        const plan = planRetention(input);
        const orphans = [...plan.deletions, ...plan.deferred].filter(({ reason }) => reason === "orphan");
        for (const { archive } of orphans) expect(archive.isStaticPod).toBe(false);
        // And the proof says nothing of it to any other rule either.
        const archives = listOf(input).map((archive) => ({ ...archive, isStaticPod: true }));
        const proved = planRetention({ ...input, archives });
        const unproved = planRetention({ ...input, archives, orphans: [] });
        expect(proved).toEqual(unproved);
      }),
      RUNS,
    );
  });

  it("gives the same plan for any order of the archives", () => {
    fc.assert(
      fc.property(
        arbInput({ isWalked: false }).chain((input) =>
          fc.record({
            input: fc.constant(input),
            shuffled: fc.shuffledSubarray(listOf(input), { minLength: listOf(input).length }),
          }),
        ),
        ({ input, shuffled }) => {
          expect(planRetention({ ...input, archives: shuffled })).toEqual(planRetention(input));
        },
      ),
      RUNS,
    );
  });

  it("finds nothing more to delete once it has been carried out", () => {
    fc.assert(
      fc.property(arbInput(), (some) => {
        const input = { ...some, archives: settled(listOf(some)) };
        const plan = planRetention(input);
        expect(planRetention(after(input, plan)).deletions).toEqual([]);
      }),
      RUNS,
    );
  });

  it("takes nothing in the stead of what is deferred, however often it is planned again", () => {
    fc.assert(
      fc.property(arbInput({ hasNode: false }), (input) => {
        const plan = planRetention(input);
        const again = planRetention(after(input, plan));
        expect(again.deletions).toEqual([]);
        // Not their reasons: what one rule no longer asks for, a later one may.
        expect(files(plan.deferred)).toEqual(expect.arrayContaining(files(again.deferred)));
      }),
      RUNS,
    );
  });

  it("leaves each container the newest complete archives of its floor, orphans apart", () => {
    fc.assert(
      fc.property(arbInput(), (some) => {
        const input = { ...some, orphans: [] };
        const gone = goneOf(planRetention(input));
        expect([...floorOf(input)].filter((archive) => gone.has(archive))).toEqual([]);
      }),
      RUNS,
    );
  });

  it("never takes the last complete archive of a container for the node's sake", () => {
    fc.assert(
      fc.property(arbInput(), (input) => {
        const plan = planRetention(input);
        const byNode = [...plan.deletions, ...plan.deferred].filter(({ reason }) => reason.startsWith("node_"));
        const gone = goneOf(plan);
        for (const { archive } of byNode.filter((planned) => planned.archive.state === "complete")) {
          const newer = listOf(input).filter(
            (other) =>
              other.identity !== undefined &&
              archive.identity !== undefined &&
              containerScope(other.identity) === containerScope(archive.identity) &&
              other.state === "complete" &&
              byAge(other, archive) > 0 &&
              !gone.has(other),
          );
          expect(newer).not.toEqual([]);
        }
      }),
      RUNS,
    );
  });

  it("leaves a limit broken only where it says so and nothing is left that may go", () => {
    fc.assert(
      fc.property(arbInput({ hasNode: false }), (some) => {
        const input: PlanInput = { ...some, isActive: () => true, orphans: [] };
        const plan = planRetention(input);
        const gone = goneOf(plan);
        const govern = createGovernor(input.policy);
        const floor = floorOf(input);
        const owned = listOf(input).flatMap((archive) =>
          archive.identity === undefined || gone.has(archive)
            ? []
            : [{ ...archive, identity: archive.identity, archive }],
        );
        const keys = new Set(owned.flatMap(({ identity }) => scopesOf(govern(identity), identity)));
        for (const key of keys) {
          const members = owned.filter(({ identity }) => scopesOf(govern(identity), identity).includes(key));
          const [first] = members;
          if (first === undefined) continue;
          const policy = govern(first.identity);
          const width = key.includes("//") ? "workload" : ["namespace", "pod", "container"][key.split("/").length - 1];
          const limit = {
            container: policy.perContainer,
            pod: policy.perPod,
            workload: policy.perWorkload,
            namespace: policy.perNamespace,
          }[width as string];
          const isWhole = ({ state }: Archive) => state === "complete" || state === "incomplete";
          const count = members.filter((one) => isWhole(one) && !(one.pinned && one.state === "incomplete")).length;
          const bytes = members.filter((one) => one.pinned || isWhole(one)).reduce((sum, { size }) => sum + size, 0);
          const broken = [
            ...(count > (limit?.maxCheckpoints ?? Infinity) ? ["max_checkpoints"] : []),
            ...(bytes > (limit?.maxTotalBytes ?? Infinity) ? ["max_total_size"] : []),
          ];
          const told = plan.unreachable
            .filter((one) => keyOfScope(one) === key)
            .map(({ limit }) => limit)
            .filter((limit) => limit === "max_checkpoints" || limit === "max_total_size");
          // Narrower scopes take more than a wider one knew when it told of its limit, so that it may hold after all.
          expect(told).toEqual(expect.arrayContaining(broken));
          if (broken.length === 0) continue;
          expect(members.filter((one) => isWhole(one) && !one.pinned && !floor.has(one.archive))).toEqual([]);
        }
      }),
      RUNS,
    );
  });

  it("takes no more for a limit than it asks for: give the last archive back and the limit is broken", () => {
    const arbLimit = fc.record({
      scope: fc.constantFrom("perContainer" as const, "perPod" as const, "perNamespace" as const),
      limits: fc.oneof(
        fc.integer({ min: 1, max: 6 }).map((maxCheckpoints) => ({ maxCheckpoints })),
        fc.integer({ min: 1, max: 60 }).map((maxTotalBytes) => ({ maxTotalBytes })),
      ),
    });
    fc.assert(
      fc.property(arbArchives().map(settled), arbLimit, (archives, { scope, limits }) => {
        const policy: PolicyDocument = {
          ...anInput([], {}).policy,
          global: { level: "global", retainOrphan: true, [scope]: limits },
        };
        const plan = planRetention({ ...anInput(archives, {}), policy });
        const gone = goneOf(plan);
        const depth = { perContainer: 3, perPod: 2, perNamespace: 1 }[scope];
        const keyOf = (archive: Archive) =>
          archive.identity && containerScope(archive.identity).split("/").slice(0, depth).join("/");
        const lasts = new Map([...gone].map((archive) => [keyOf(archive), archive]));
        for (const [key, last] of lasts) {
          const left = archives.filter((archive) => keyOf(archive) === key && (!gone.has(archive) || archive === last));
          const isWhole = ({ state }: Archive) => state === "complete" || state === "incomplete";
          if ("maxCheckpoints" in limits) {
            const counted = left.filter((one) => isWhole(one) && !(one.pinned && one.state === "incomplete"));
            expect(counted.length).toBeGreaterThan(limits.maxCheckpoints);
          } else {
            const bytes = left.filter((one) => one.pinned || isWhole(one)).reduce((sum, { size }) => sum + size, 0);
            expect(bytes).toBeGreaterThan(limits.maxTotalBytes);
          }
        }
      }),
      RUNS,
    );
  });

  it("deletes the same complete archives whether or not incomplete ones lie beside them", () => {
    fc.assert(
      fc.property(arbInput(), (some) => {
        const input = { ...some, node: some.node && { disk: undefined } };
        const whole = (plan: Plan) =>
          sorted(
            [...plan.deletions, ...plan.deferred, ...plan.stuck].filter(({ archive }) => archive.state === "complete"),
          );
        const archives = listOf(input).filter(({ state, pinned }) => state !== "incomplete" || pinned);
        expect(whole(planRetention(input))).toEqual(whole(planRetention({ ...input, archives })));
      }),
      RUNS,
    );
  });

  it("says whether something waits for an event: if not, it takes all that it would take were every scope active", () => {
    fc.assert(
      fc.property(arbInput({ isWalked: false }), (input) => {
        const plan = planRetention(input);
        const active = planRetention({ ...input, isActive: () => true });
        expect(active.waits).toBe(false);
        if (!plan.waits) expect(sorted(plan.deletions)).toEqual(sorted(active.deletions));
      }),
      RUNS,
    );
  });

  it("takes no complete archive for a count while an incomplete one of that scope is left", () => {
    fc.assert(
      fc.property(arbArchives(), fc.integer({ min: 1, max: 4 }), (archives, maxCheckpointsPerNamespace) => {
        const plan = planRetention(anInput(archives, { globalPolicy: { maxCheckpointsPerNamespace } }));
        const gone = goneOf(plan);
        for (const archive of gone) {
          if (archive.state !== "complete") continue;
          const passedOver = archives.filter(
            (other) =>
              other.identity?.namespace === archive.identity?.namespace &&
              other.state === "incomplete" &&
              !other.pinned &&
              other.identity !== undefined &&
              !gone.has(other),
          );
          expect(passedOver).toEqual([]);
        }
      }),
      RUNS,
    );
  });

  it("touches nothing in another namespace when one namespace's policy is narrowed", () => {
    fc.assert(
      fc.property(arbInput({ hasNode: false }), fc.integer({ min: 1, max: 3 }), (input, maxCheckpoints) => {
        const rules = input.policy.rules.filter(({ namespace }) => namespace !== "team");
        const narrow = (perNamespace: object): PlanInput => ({
          ...input,
          policy: {
            ...input.policy,
            rules: [...rules, { level: "namespace", namespace: "team", retainOrphan: false, perNamespace }],
          },
        });
        const elsewhere = ({ deletions, deferred }: Plan) =>
          sorted([...deletions, ...deferred].filter(({ archive }) => archive.identity?.namespace !== "team"));
        expect(elsewhere(planRetention(narrow({ maxCheckpoints, maxTotalBytes: 1 })))).toEqual(
          elsewhere(planRetention({ ...input, policy: { ...input.policy, rules } })),
        );
      }),
      RUNS,
    );
  });

  it("lets the most specific policy alone govern: without limits of its own it keeps everything", () => {
    fc.assert(
      fc.property(arbInput({ hasNode: false }), (input) => {
        const rules = input.policy.rules.filter(({ namespace }) => namespace !== "team" || namespace === undefined);
        const policy: PolicyDocument = {
          ...input.policy,
          rules: [
            ...rules.filter(({ level }) => level !== "container"),
            { level: "container", namespace: "team*", pod: "*", container: "*", retainOrphan: true },
          ],
        };
        const planned = planRetention({ ...input, policy });
        expect(
          files(
            [...planned.deletions, ...planned.deferred].filter(({ archive }) =>
              archive.identity?.namespace.startsWith("team"),
            ),
          ),
        ).toEqual([]);
      }),
      RUNS,
    );
  });
});
