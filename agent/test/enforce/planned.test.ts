import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { planRetention } from "../../src/retention/plan.ts";
import { archivesIn } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const keepTwo = { globalPolicy: { maxCheckpointsPerContainer: 2 } };

/** An enforcer that watches a folder in which nothing is an event. */
async function watching(folder: string, files: string[], spec: object) {
  const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  const planned = () => [...driven.enforcer.status().planned.keys()].sort();
  return { ...driven, driven, planned };
}

describe("what DryRun keeps", () => {
  it("is told of although its scope waits for an event, once an archive, and nothing is deleted", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const { driven, planned } = await watching(folder, files, { mode: "DryRun", ...keepTwo });
    expect(planned()).toEqual(files.slice(0, 3));
    const told = files.slice(0, 3).map((file) => ({ file, reason: "max_checkpoints" }));
    expect(driven.wouldDelete).toEqual(told);
    driven.see(files[4] ?? "", { isEvent: true });
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.wouldDelete).toEqual(told);
    expect(archivesIn(folder)).toEqual(files);
  });

  it("is told of again under another policy, and for another reason", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const { driven } = await watching(folder, files, { mode: "DryRun", ...keepTwo });
    driven.apply({ mode: "DryRun", globalPolicy: { maxCheckpointsPerContainer: 2, maxAge: "1s" } });
    await driven.calm();
    expect(driven.wouldDelete.map(({ reason }) => reason)).toEqual(["max_checkpoints", ...files.map(() => "max_age")]);
  });

  it("of the node's rules is told of only as long as the node is over its limit", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 120);
    const globalPolicy = { maxCheckpointsPerContainer: 0 };
    const spec = { mode: "DryRun", globalPolicy, nodePolicy: { maxTotalSize: "1Mi" } };
    const { driven, planned } = await watching(folder, files, spec);
    expect(planned()).toEqual(files.slice(0, 7));
    for (const file of files.slice(-10)) {
      unlinkSync(join(folder, file));
      driven.see(file);
    }
    await driven.calm();
    expect(planned()).toEqual([]);
  });
});

describe("an orphan that DryRun keeps", () => {
  it("is told of as long as its proof holds, whatever else happens to its pod", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const spec = { mode: "DryRun", globalPolicy: { retainOrphan: false } };
    const { driven, planned } = await watching(folder, files, spec);
    driven.proofs.reported(1, driven.listedUpTo());
    const facts = [{ bootId: "boot", report: 1, namespace: "shop", pod: "web-0" }];
    driven.enforcer.proved(driven.proofs.receive(facts, driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.wouldDelete).toEqual(files.map((file) => ({ file, reason: "orphan" })));
    const [later = ""] = aSeries(folder, 1, { container: "other" });
    driven.see(later, { isEvent: true });
    await driven.calm();
    expect(planned()).toEqual(files);
    expect(archivesIn(folder)).toHaveLength(3);
  });
});

describe("what waits for the next event of its scope", () => {
  it("is that of the policy in force, whenever in a plan that came", async () => {
    const limit = (maxCheckpointsPerContainer: number) => ({ globalPolicy: { maxCheckpointsPerContainer } });
    for (let at = 1; at <= 40; at += 1) {
      const folder = aFolder();
      const files = aSeries(folder, 3);
      const plain = aClock();
      let reads = 0;
      const replaceInTime = () => {
        reads += 1;
        if (reads === at) driven.apply(limit(1));
      };
      const clock = {
        ...plain,
        monotonicMs: () => {
          if (isArmed) replaceInTime();
          return plain.monotonicMs();
        },
      };
      let isArmed = false;
      const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(limit(2), folder), clock });
      for (const file of files) driven.see(file, { isTold: false });
      isArmed = true;
      driven.enforcer.listed();
      await driven.calm();
      isArmed = false;
      const kept = reads < at ? 2 : 1;
      expect([at, ...driven.enforcer.status().planned.keys()]).toEqual([at, ...files.slice(0, -kept)]);
      expect(archivesIn(folder)).toEqual(files);
    }
  });

  it("is told of until the event comes", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const { driven, planned } = await watching(folder, files, keepTwo);
    expect(planned()).toEqual(files.slice(0, 3));
    expect(driven.wouldDelete).toEqual([]);
    driven.see(files[4] ?? "", { isEvent: true });
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(-2));
    expect(planned()).toEqual([]);
  });

  it("is told of after a change from DryRun to Enforce, and is not deleted by it", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const { driven, planned } = await watching(folder, files, { mode: "DryRun", ...keepTwo });
    driven.apply(keepTwo);
    await driven.calm();
    expect(planned()).toEqual(files.slice(0, 3));
    expect(archivesIn(folder)).toEqual(files);
  });

  it("is forgotten with an archive that another hand takes away, and with its directory", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const { driven, planned } = await watching(folder, files, keepTwo);
    unlinkSync(join(folder, files[0] ?? ""));
    driven.see(files[0] ?? "");
    expect(planned()).toEqual([]);
    const more = aSeries(folder, 2, { container: "side", startMs: Date.now() - 7_200_000 });
    for (const file of more) driven.see(file, { isTold: false });
    driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 1 } });
    await driven.calm();
    expect(planned()).toHaveLength(2);
    await driven.enforcer.setDirectory(driven.directory);
    expect(planned()).toEqual([]);
  });

  it("is told of beside what a pause holds back", async () => {
    const folder = aFolder();
    const main = aSeries(folder, 3);
    const side = aSeries(folder, 3, { container: "side" });
    const { driven, planned } = await watching(folder, [...main, ...side], keepTwo);
    writeFileSync(join(folder, ".pause"), "");
    driven.see(main[2] ?? "", { isEvent: true });
    await driven.calm();
    expect(planned()).toEqual([main[0], side[0]].sort());
    expect(archivesIn(folder)).toHaveLength(6);
    unlinkSync(join(folder, ".pause"));
    driven.enforcer.tick();
    await driven.calm();
    expect(planned()).toEqual([side[0]]);
    expect(archivesIn(folder)).not.toContain(main[0]);
  });

  it("is what a plan with every scope active takes of what is left, whatever has happened", async () => {
    const limit = fc.constantFrom(undefined, 1, 2, 3);
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          perContainer: fc.constantFrom(0, 1, 2),
          perPod: limit,
          perWorkload: limit,
          perNamespace: limit,
          isDry: fc.boolean(),
        }),
        fc.array(
          fc.record({
            container: fc.constantFrom("main", "side"),
            pod: fc.constantFrom("web-0", "web-1"),
            namespace: fc.constantFrom("a", "b"),
          }),
          { minLength: 1, maxLength: 8 },
        ),
        fc.array(fc.nat(7), { maxLength: 4 }),
        async ({ perContainer, perPod, perWorkload, perNamespace, isDry }, owners, events) => {
          const folder = aFolder();
          const startMs = Date.now() - 3_600_000;
          const files = owners.flatMap((owner, at) => aSeries(folder, 1, { ...owner, startMs: startMs + at * 1000 }));
          const spec = {
            mode: isDry ? "DryRun" : "Enforce",
            globalPolicy: {
              maxCheckpointsPerContainer: perContainer,
              ...(perPod !== undefined && { maxCheckpointsPerPod: perPod }),
              ...(perNamespace !== undefined && { maxCheckpointsPerNamespace: perNamespace }),
            },
            ...(perWorkload !== undefined && {
              workloadPolicies: [
                { namespace: "a", kind: "StatefulSet", name: "web", maxCheckpoints: perWorkload },
                { namespace: "b", kind: "StatefulSet", name: "web", container: "main", maxCheckpoints: perWorkload },
              ],
            }),
          };
          const { driven, planned } = await watching(folder, files, spec);
          for (const at of events) {
            const file = files[at];
            if (file === undefined || driven.index.get(file) === undefined) continue;
            driven.see(file, { isEvent: true });
            await driven.calm();
          }
          const left = [...driven.index.all()];
          const { document } = anAcceptedPolicy(spec, folder);
          const facts = { orphans: [], node: undefined, nowMs: Date.now(), isActive: () => true };
          const plan = planRetention({ archives: left, policy: document, ...facts });
          expect(planned()).toEqual(plan.deletions.map(({ archive }) => archive.file).sort());
          if (isDry) expect(archivesIn(folder).sort()).toEqual([...files].sort());
        },
      ),
      { numRuns: soak(100) },
    );
  });
});
