import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { describeLimit, explainPlan, isOfNode } from "../../src/retention/explain.ts";
import { planRetention } from "../../src/retention/plan.ts";
import { arbArchives, arbPolicy } from "./arbitrary.ts";
import { anArchive, anInput, aPolicy, archivesOf, MIB, NOW_MS } from "./builders.ts";

const explain = (...input: Parameters<typeof anInput>) => {
  const whole = anInput(...input);
  return explainPlan(planRetention(whole), whole);
};

describe("explainPlan", () => {
  it("tells of each archive, the oldest first, what is done with it, by which policy and why", () => {
    const archives = [
      anArchive({ file: "new", age: 1 }),
      anArchive({ file: "fresh", age: 6, settled: false }),
      anArchive({ file: "old", age: 7 }),
      anArchive({ file: "pinned", age: 4, pinned: true, state: "unsettled" }),
      anArchive({ file: "growing", age: 3, state: "unsettled" }),
      anArchive({ file: "tomorrow", age: -1, state: "postdated" }),
      anArchive({ file: "whose", age: 2, state: "unidentified", identity: null }),
      anArchive({ file: "other", age: 9, namespace: "ops" }),
      anArchive({ file: "torn", age: 10, state: "incomplete", identity: null }),
    ];
    const containerPolicies = [
      { namespace: "tea*", pod: "web", container: "main", maxCheckpoints: 1, minCheckpoints: 1 },
    ];
    const decisions = explain(archives, { containerPolicies });
    const policy = "container policy tea*/web/main";
    expect(decisions.map(({ archive: { file }, ...rest }) => [file, ...Object.values(rest)])).toEqual([
      ["torn", "keep", null, "none", "torn and without an owner; only the rules of the node may take it"],
      ["other", "keep", null, "global policy", "within the limits"],
      ["old", "delete", "max_checkpoints", policy, "too many archives"],
      ["fresh", "keep", null, policy, "to be deleted (max_checkpoints) once it has been unchanged for 2 s"],
      ["pinned", "keep", null, policy, "pinned by its .keep"],
      ["growing", "keep", null, policy, "may still be written"],
      ["whose", "keep", null, "none", "nobody is known to own it"],
      ["new", "keep", null, policy, "newest 1 of 1 that its container always keeps"],
      ["tomorrow", "keep", null, policy, "dated in the future"],
    ]);
  });

  it("names pod and namespace policies, and the limit that an archive is larger than", () => {
    const archives = [anArchive({ mib: 3 }), anArchive({ mib: 3, namespace: "ops" })];
    const decisions = explain(archives, {
      podPolicies: [{ namespace: "team", pod: "w*", maxCheckpointSize: "2Mi" }],
      namespacePolicies: [{ namespace: "*", maxCheckpointSize: "1536Ki" }],
    });
    expect(decisions.map(({ policy, why }) => `${policy}: ${why}`).sort()).toEqual([
      "namespace policy *: larger than 1536Ki",
      "pod policy team/w*: larger than 2Mi",
    ]);
  });

  it("names the workload, and says that the floor is the workload's", () => {
    const pods = ["web-6f9f8977b7-w28kl", "web-5d4b8c7f9d-x7k2p", "web-5d4b8c7f9d-zzzzz"];
    const archives = pods.map((pod, at) => anArchive({ pod, age: 9 - at }));
    const limits = { maxCheckpoints: 2, minCheckpoints: 1 };
    const decisions = explain(archives, {
      workloadPolicies: [{ namespace: "team", kind: "Deployment", name: "web", ...limits }],
    });
    expect(decisions.map(({ policy, why }) => `${policy}: ${why}`)).toEqual(
      [
        "too many archives",
        "within the limits",
        "newest 1 of 1 that the Deployment always keeps of this container",
      ].map((why) => `workload policy team/Deployment/web: ${why}`),
    );
    const { rules, node } = aPolicy({
      workloadPolicies: [{ namespace: "a", kind: "Job", name: "b", container: "c", maxCheckpoints: 3 }],
    });
    expect(describeLimit("max_checkpoints", rules[0], node)).toBe("maxCheckpoints 3");
  });

  it("tells of archives that wait for others to be read, and of those that wait for an event", () => {
    const archives = [anArchive({ age: 9 }), anArchive({ age: 8, state: "unread", walked: false })];
    expect(explain(archives, {}).map(({ why }) => why)).toEqual([
      "not every archive beside it has been read yet",
      "could not be read to its end yet",
    ]);
    expect(explain([anArchive()], {}, { isActive: () => false })[0]?.why).toBe(
      "waits for the next archive of its scope",
    );
  });

  it("says that a pod which may be static is never taken for gone, where the policy does not retain orphans", () => {
    const archives = [anArchive({ isStaticPod: true })];
    const orphans = [{ namespace: "team", pod: "web", listedUpTo: 9 }];
    const release = { globalPolicy: { retainOrphan: false } };
    const within = "within the limits";
    expect(explain(archives, release, { orphans })[0]).toMatchObject({
      action: "keep",
      why: `${within}; its pod may be a static one, which is never taken for gone`,
    });
    expect(explain(archives, {}, { orphans })[0]?.why).toBe(within);
    expect(explain([anArchive()], release)[0]?.why).toBe(within);
  });

  it("waits no longer once one of its scopes is active", () => {
    const [decision] = explain([anArchive()], {}, { isActive: (scope) => scope === "team/web" });
    expect(decision?.why).toBe("within the limits");
  });

  it("waits for what is unread in another container of its pod, where the pod is limited", () => {
    const archives = [anArchive({ age: 9 }), anArchive({ age: 8, container: "side", state: "unread", walked: false })];
    const decisions = explain(archives, { globalPolicy: { maxCheckpointsPerPod: 1 } });
    expect(decisions[0]?.why).toBe("not every archive beside it has been read yet");
  });

  it("ranks the complete archives of the floor from the newest, and no incomplete one", () => {
    const archives = [
      anArchive({ age: 5 }),
      anArchive({ age: 4, state: "incomplete" }),
      anArchive({ age: 3 }),
      anArchive({ age: 2, state: "incomplete", settled: false }),
      anArchive({ age: 1 }),
    ];
    const spec = { globalPolicy: { minCheckpointsPerContainer: 2, maxCheckpointsPerPod: 3 } };
    expect(explain(archives, spec).map(({ why }) => why)).toEqual([
      "within the limits",
      "too many archives",
      "newest 2 of 2 that its container always keeps",
      "to be deleted (max_checkpoints) once it has been unchanged for 2 s",
      "newest 1 of 2 that its container always keeps",
    ]);
  });

  it.each([
    ["orphan", "its pod or container no longer exists", { globalPolicy: { retainOrphan: false } }],
    ["max_checkpoint_size", "larger than 1Mi", { globalPolicy: { maxCheckpointSize: "1Mi" } }],
    ["max_age", "too old", { globalPolicy: { maxAge: "30s" } }],
    ["max_checkpoints", "too many archives", { globalPolicy: { maxCheckpointsPerContainer: 1 } }],
    ["max_total_size", "too many bytes", { globalPolicy: { maxTotalSizePerContainer: "3Mi" } }],
    ["node_max_total_size", "too many bytes on the node", { nodePolicy: { maxTotalSize: "3Mi" } }],
    ["node_watermark", "the disk is too full", { nodePolicy: { highWatermarkPercent: 50 } }],
  ])("says of what goes for %s: %s", (reason, why, spec) => {
    const orphans = [{ namespace: "team", pod: "web", listedUpTo: 9 }];
    const disk = { usedBytes: 90 * MIB, availableBytes: 10 * MIB };
    const [oldest] = explain(archivesOf(2, { mib: 2 }), spec, { orphans, node: { disk } });
    expect([oldest?.action, oldest?.reason, oldest?.why]).toEqual(["delete", reason, why]);
  });

  it("says when maxAgeUnmanaged takes a file, and of what it does not know since when it is so that it is yet to be seen", () => {
    const nodePolicy = { maxAgeUnmanaged: "2h" };
    const unread = { state: "unread", mib: 1 } as const;
    const archives = [
      anArchive({ ...unread, age: 9, unmanagedSinceMs: NOW_MS - 7_200_001 }),
      anArchive({ ...unread, age: 8, unmanagedSinceMs: NOW_MS - 3_600_000 }),
      anArchive({ ...unread, age: 7, state: "unidentified", identity: null }),
      anArchive({ ...unread, age: 6, walked: false }),
      anArchive({ ...unread, age: 5, unmanagedSinceMs: NOW_MS - 7_200_001, settled: false }),
      anArchive({ ...unread, age: 4, state: "postdated" }),
    ];
    const whyOf = (spec: Record<string, unknown>) =>
      explain(
        archives.filter(({ walked }) => walked),
        spec,
      ).map(({ why }) => why);
    expect(whyOf({ nodePolicy })).toEqual([
      "unchanged for too long, and no other rule may take it",
      "could not be read to its end yet; to be deleted (max_age_unmanaged) after 2026-11-22T13:00:00Z, if nothing changes it",
      "nobody is known to own it; to be deleted (max_age_unmanaged) once the agent has seen it unchanged for 7200s",
      "to be deleted (max_age_unmanaged) once it has been unchanged for 2 s",
      "dated in the future",
    ]);
    expect(whyOf({})[0]).toBe("could not be read to its end yet");
    expect(explain(archives, { nodePolicy })[3]?.why).toBe("could not be read to its end yet");
  });

  it("says of what cannot be deleted just now what the last try failed with", () => {
    const archives = archivesOf(2);
    const [{ file } = anArchive()] = archives;
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 1 } };
    const stuck = new Set([file]);
    const failing = new Map([[file, "EPERM"]]);
    const begin = "to be deleted (max_checkpoints); the last try failed with";
    expect(explain(archives, spec, { stuck, failing })[0]).toMatchObject({ action: "keep", why: `${begin} EPERM` });
    expect(explain(archives, spec, { stuck })[0]?.why).toBe(`${begin} an error`);
  });

  it("deletes exactly what the plan deletes", () => {
    fc.assert(
      fc.property(arbArchives({ isWalked: false }), arbPolicy(), (archives, policy) => {
        const input = { ...anInput(archives, {}), policy, nowMs: NOW_MS };
        const plan = planRetention(input);
        const decisions = explainPlan(plan, input);
        expect(decisions).toHaveLength(archives.length);
        expect(
          decisions
            .filter(({ action }) => action === "delete")
            .map(({ archive, reason }) => `${reason} ${archive.file}`)
            .sort(),
        ).toEqual(plan.deletions.map(({ archive, reason }) => `${reason} ${archive.file}`).sort());
      }),
      { numRuns: soak(200) },
    );
  });
});

describe("describeLimit", () => {
  const globalPolicy = {
    retainOrphan: false,
    maxCheckpointsPerContainer: 3,
    maxCheckpointsPerNamespace: 9,
    maxCheckpointSize: "1Gi",
    maxTotalSizePerPod: "2Gi",
    maxAge: "30d",
  };
  const document = aPolicy({
    globalPolicy,
    podPolicies: [{ namespace: "team", pod: "web", maxCheckpoints: 2 }],
    nodePolicy: { maxTotalSize: "10Gi", highWatermarkPercent: 85, minFree: "1Gi", maxAgeUnmanaged: "90d" },
  });

  it.each([
    ["orphan", "retainOrphan false"],
    ["max_checkpoint_size", "maxCheckpointSize 1Gi"],
    ["max_age", "maxAge 2592000s"],
    ["max_checkpoints", "maxCheckpointsPerContainer 3, maxCheckpointsPerNamespace 9"],
    ["max_total_size", "maxTotalSizePerPod 2Gi"],
    ["node_max_total_size", "maxTotalSize 10Gi"],
    ["node_watermark", "highWatermarkPercent 85, minFree 1Gi"],
    ["max_age_unmanaged", "maxAgeUnmanaged 7776000s"],
  ] as const)("writes the limits behind %s as the resource does: %s", (reason, limit) => {
    expect(describeLimit(reason, document.global, document.node)).toBe(limit);
    expect(isOfNode(reason)).toBe(/^node_|unmanaged/.test(reason));
  });

  it("names a limit of one scope without that scope, and none where there is none", () => {
    expect(describeLimit("max_checkpoints", document.rules[0], document.node)).toBe("maxCheckpoints 2");
    expect(describeLimit("max_checkpoint_size", undefined, {})).toBe("");
    expect(describeLimit("max_age", undefined, {})).toBe("");
    expect(describeLimit("max_checkpoints", undefined, {})).toBe("");
    expect(describeLimit("node_watermark", undefined, {})).toBe("");
    expect(describeLimit("max_age_unmanaged", undefined, {})).toBe("");
  });
});
