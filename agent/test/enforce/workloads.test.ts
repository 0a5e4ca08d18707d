import { unlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { archivesIn } from "../support/archives.ts";
import { aSeries, driveEnforcer, startOn } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const BEFORE = "web-6f9f8977b7-w28kl";
const AFTER = "web-5d4b8c7f9d-x7k2p";
const deployment = (limits: object, name = "web") => ({ namespace: "shop", kind: "Deployment", name, ...limits });
const HOUR_AGO = Date.now() - 3_600_000;

/** An enforcer that has seen these files, all of them before its policy. */
const watch = (folder: string, files: readonly string[], spec: object) =>
  startOn(folder, files, { policy: anAcceptedPolicy(spec, folder) });

describe("an event of one pod of a workload", () => {
  it("acts on the archives of all its pods, and on no other workload", async () => {
    const folder = aFolder();
    const old = aSeries(folder, 3, { pod: BEFORE, startMs: HOUR_AGO });
    const other = aSeries(folder, 4, { pod: "api-6f9f8977b7-w28kl", startMs: HOUR_AGO });
    const rest = aSeries(folder, 4, { pod: "web-admin-w28kl", startMs: HOUR_AGO });
    const spec = { workloadPolicies: [deployment({ maxCheckpoints: 3 }), deployment({ maxCheckpoints: 3 }, "api")] };
    const driven = await watch(folder, [...old, ...other, ...rest], spec);
    expect(driven.files()).toEqual([]);
    for (const file of aSeries(folder, 2, { pod: AFTER, startMs: Date.now() - 60_000 }))
      driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual(old.slice(0, 2));
  });

  it("is an event for the workload anew once none of its archives was left", async () => {
    const folder = aFolder();
    const spec = { workloadPolicies: [deployment({ maxCheckpoints: 1 })] };
    const driven = await watch(folder, [], spec);
    const [first = ""] = aSeries(folder, 1, { pod: BEFORE });
    driven.see(first, { isEvent: true });
    await driven.calm();
    unlinkSync(join(folder, first));
    driven.see(first);
    await driven.calm();
    const found = aSeries(folder, 2, { pod: AFTER });
    for (const file of found) driven.see(file);
    await driven.calm();
    expect(archivesIn(folder)).toEqual(found);
    expect([...driven.enforcer.status().planned.keys()]).toEqual(found.slice(0, 1));
  });
});

describe("an event of a container beside those of a workload policy", () => {
  it("leaves what is known of the workload as it is, though its pod is planned for", async () => {
    const folder = aFolder();
    const spec = {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerPod: 1 },
      workloadPolicies: [deployment({ container: "main", maxAge: "1m", minCheckpoints: 2 })],
    };
    const files = [BEFORE, AFTER].flatMap((pod) => aSeries(folder, 1, { pod, container: "main", startMs: HOUR_AGO }));
    const driven = await watch(folder, files, spec);
    const told = () => driven.enforcer.status().unreachable;
    expect(told()).toMatchObject([{ workload: "Deployment/web/main", wanted: 2, obstacles: { floor: 2 } }]);
    const sides = aSeries(folder, 2, { pod: BEFORE, container: "side" });
    for (const file of sides) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual(sides.slice(0, 1));
    expect(told()).toMatchObject([{ workload: "Deployment/web/main", wanted: 2, obstacles: { floor: 2 } }]);
  });
});

describe("a workload with a policy", () => {
  it("waits for the walks of its namespace, and is planned for as soon as the last one is done", async () => {
    const folder = aFolder();
    const old = aSeries(folder, 2, { pod: BEFORE, startMs: HOUR_AGO });
    const [unwalked = ""] = aSeries(folder, 1, { pod: "db-0" });
    const spec = { applyPoliciesImmediately: true, workloadPolicies: [deployment({ maxCheckpoints: 1 })] };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    driven.see(unwalked, { isTold: false, isWalked: false });
    for (const file of old) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.see(unwalked);
    await driven.calm();
    expect(driven.files()).toEqual(old.slice(0, 1));
  });

  it("keeps a proof that its pod is gone until it may be acted on, though the pod's other containers were", async () => {
    const folder = aFolder();
    const [main = ""] = aSeries(folder, 1, { pod: BEFORE, container: "main" });
    const [side = ""] = aSeries(folder, 1, { pod: BEFORE, container: "side" });
    const [unwalked = ""] = aSeries(folder, 1, { pod: "db-0" });
    const spec = {
      globalPolicy: { retainOrphan: false },
      workloadPolicies: [deployment({ container: "main", retainOrphan: false, maxCheckpoints: 9 })],
    };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    for (const file of [main, side]) driven.see(file, { isTold: false });
    driven.see(unwalked, { isTold: false, isWalked: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const facts = [{ bootId: "boot", report: 1, namespace: "shop", pod: BEFORE }];
    driven.enforcer.proved(driven.proofs.receive(facts, driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.files()).toEqual([side]);
    driven.see(unwalked);
    await driven.calm();
    expect(driven.files()).toEqual([side, main]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toEqual([]);
  });

  it("is no longer told of once its archives are gone", async () => {
    const folder = aFolder();
    const spec = {
      applyPoliciesImmediately: true,
      workloadPolicies: [deployment({ maxAge: "1m", minCheckpoints: 1 })],
    };
    const [file = ""] = aSeries(folder, 1, { pod: BEFORE, startMs: HOUR_AGO });
    const driven = await watch(folder, [file], spec);
    expect(driven.enforcer.status().unreachable).toHaveLength(1);
    unlinkSync(join(folder, file));
    driven.see(file);
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });
});
