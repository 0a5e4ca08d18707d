import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  isPodOf,
  LENGTH_THAT_MAY_BE_CUT,
  mayBeCut,
  WORKLOAD_KINDS,
  type WorkloadKind,
} from "../../src/policy/workload.ts";
import { arbNameOfPodOf, isNameOfPodOf } from "../support/pod-names.ts";
import { soak } from "../support/soak.ts";

const LONG = "a".repeat(49);

describe("isPodOf", () => {
  it.each<[WorkloadKind, string, string]>([
    ["Deployment", "web", "web-6f9f8977b7-w28kl"],
    ["Deployment", "web", "web-4-bbbbb"],
    ["Deployment", "my.app", "my.app-6f9f8977b7-w28kl"],
    ["Deployment", `${LONG}b`, `${LONG}b-6f9f897w28kl`],
    ["Deployment", "c".repeat(253), `${"c".repeat(58)}w28kl`],
    ["ReplicaSet", "web-6f9f8977b7", "web-6f9f8977b7-w28kl"],
    ["ReplicaSet", "web", "web-w28kl"],
    ["DaemonSet", "d".repeat(57), `${"d".repeat(57)}-w28kl`],
    ["DaemonSet", "d".repeat(58), `${"d".repeat(58)}w28kl`],
    ["StatefulSet", "db", "db-0"],
    ["StatefulSet", "db", "db-2147483647"],
    ["Job", "once", "once-w28kl"],
    ["Job", "once", "once-0-w28kl"],
    ["Job", "once", "once-9999999-w28kl"],
    ["Job", `${LONG}bcdefgh`, `${LONG}bcdefg-0-`.slice(0, 55).concat("-0-w28kl")],
    ["CronJob", "backup", "backup-29384756-w28kl"],
    ["CronJob", "backup", "backup-29384756-12-w28kl"],
    ["CronJob", `${LONG}bcd`, `${LONG}bcd-29384w28kl`],
    ["CronJob", `${LONG}bcd`, `${LONG}bcd-29-0-w28kl`],
    ["CronJob", `${LONG}bcd`, `${LONG}-1234567-w28kl`],
  ])("knows a pod of %s %s: %s", (kind, name, pod) => {
    expect(isNameOfPodOf({ kind, name }, pod)).toBe(true);
    expect(isPodOf({ kind, name }, pod)).toBe(true);
  });

  it.each<[WorkloadKind, string, string, string]>([
    ["Deployment", "web", "web-admin-w28kl", "of a ReplicaSet or DaemonSet web-admin"],
    ["Deployment", "web", "web-grpc-w28kl", "whose middle is made of consonants, but not of a hash's"],
    ["Deployment", "web", "web-w28kl", "without a hash"],
    ["Deployment", "web", "web-admin-6f9f8977b7-w28kl", "of Deployment web-admin"],
    ["Deployment", "web", "web-6f9f8977b7b-w28kl", "whose hash is too long"],
    ["Deployment", "web", "web-6f9f8977b7-w28ka", "that ends in a vowel"],
    ["Deployment", "web", "web-6f9f8977b7-w28k", "whose end is too short"],
    ["Deployment", "web", "web-0", "of a StatefulSet"],
    ["Deployment", "web", "web", "of its own name"],
    ["Deployment", "web", "awebs-6f9f8977b7-w28kl", "that holds the name"],
    ["ReplicaSet", "web", "web-6f9f8977b7-w28kl", "of Deployment web"],
    ["DaemonSet", "web", "web-1-w28kl", "of indexed Job web"],
    ["StatefulSet", "db", "db-00", "whose ordinal begins with 0"],
    ["StatefulSet", "db", "db-", "without an ordinal"],
    ["StatefulSet", "db", "db-1a", "whose ordinal is no number"],
    ["StatefulSet", "db", "db-1-0", "of StatefulSet db-1"],
    ["Job", "backup", "backup-29384756-w28kl", "of CronJob backup"],
    ["Job", "once", "once-01-w28kl", "whose index begins with 0"],
    ["CronJob", "backup", "backup-1234567-w28kl", "of indexed Job backup"],
    ["CronJob", "backup", "backup-w28kl", "of Job backup"],
    ["CronJob", "backup", "backup-1700000000-w28kl", "of a Job named by the second"],
  ])("does not take for a pod of %s %s: %s, %s", (kind, name, pod) => {
    expect(isNameOfPodOf({ kind, name }, pod)).toBe(false);
    expect(isPodOf({ kind, name }, pod)).toBe(false);
  });

  describe("among the names that a real kube-controller-manager gave", () => {
    const { pods } = JSON.parse(readFileSync(new URL("../../../fixtures/pod-names.json", import.meta.url), "utf8")) as {
      pods: Array<{ pod: string; owners: string[] }>;
    };
    const workloadOf = (owner: string) => {
      const [kind, name = ""] = owner.split("/");
      return { kind: kind as WorkloadKind, name };
    };
    const owners = [...new Set(pods.flatMap((one) => one.owners))];

    it("knows each pod's owners, of every kind", () => {
      const unknown = pods.flatMap(({ pod, owners: own }) =>
        own.filter((owner) => !isPodOf(workloadOf(owner), pod)).map((owner) => `${pod} of ${owner}`),
      );
      expect(unknown).toEqual([]);
      expect(new Set(owners.map((owner) => workloadOf(owner).kind))).toEqual(new Set(WORKLOAD_KINDS));
    });

    it("takes no pod for another workload's, but where the names of both are the same as far as they are not cut", () => {
      const beginOf = (owner: string) => workloadOf(owner).name.slice(0, LENGTH_THAT_MAY_BE_CUT - 1);
      const mistaken = pods.flatMap(({ pod, owners: own }) =>
        owners
          .filter((owner) => !own.includes(owner) && isPodOf(workloadOf(owner), pod))
          .filter(
            (owner) => beginOf(owner).length < LENGTH_THAT_MAY_BE_CUT - 1 || !own.map(beginOf).includes(beginOf(owner)),
          )
          .map((owner) => `${pod} for ${owner}`),
      );
      expect(mistaken).toEqual([]);
    });

    it("has cut names of 63 characters alone", () => {
      const cut = pods.filter(({ pod, owners: own }) =>
        own.some((owner) => !pod.startsWith(`${workloadOf(owner).name}-`)),
      );
      expect(cut.length).toBeGreaterThan(20);
      expect(cut.filter(({ pod }) => !mayBeCut(pod))).toEqual([]);
    });
  });

  const arbName = fc.oneof(
    fc.constantFrom("web", "web-admin", "web-0", "web-6f9f8977b7", "a.b", "x-29384756"),
    fc.integer({ min: 40, max: 62 }).map((length) => `${"long-".repeat(20).slice(0, length - 1)}z`),
    fc.constant("n".repeat(253)),
  );
  const arbWorkload = fc.record({ kind: fc.constantFrom(...WORKLOAD_KINDS), name: arbName });

  it("knows every name that the controllers may give", () => {
    const world = arbWorkload.chain((workload) =>
      fc.record({ workload: fc.constant(workload), pod: arbNameOfPodOf(workload) }),
    );
    fc.assert(
      fc.property(world, ({ workload, pod }) => {
        expect(isPodOf(workload, pod)).toBe(true);
      }),
      { numRuns: soak(2000) },
    );
  });

  it("agrees with the forms written out, for the names of other workloads' pods and for names that almost are one", () => {
    const almost = fc.tuple(fc.nat(80), fc.constantFrom("", "-", "0", "a", "b", "4", "long-", "-0-")).map(
      ([at, text]) =>
        (pod: string) =>
          `${pod.slice(0, at)}${text}${pod.slice(at + 1)}`,
    );
    const arbPod = fc.oneof(
      arbWorkload.chain(arbNameOfPodOf),
      fc.tuple(arbWorkload.chain(arbNameOfPodOf), almost).map(([pod, change]) => change(pod)),
    );
    fc.assert(
      fc.property(arbWorkload, arbPod, (workload, pod) => {
        expect(isPodOf(workload, pod)).toBe(isNameOfPodOf(workload, pod));
      }),
      { numRuns: soak(3000) },
    );
  });
});
