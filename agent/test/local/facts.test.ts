import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { factLines, type Head, parseFacts, planFacts } from "../../src/local/facts.ts";
import { explainPlan } from "../../src/retention/explain.ts";
import { planRetention } from "../../src/retention/plan.ts";
import { watermarkBytes } from "../retention/builders.ts";
import { archiveTime, writeArchive } from "../support/archives.ts";
import { aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

type Driven = ReturnType<typeof driveEnforcer>;

const HEAD: Head = {
  ...{ node: "node-a", version: "0.0.0", time: "2026-11-22T12:00:00Z", directory: "/checkpoints", state: "watching" },
  ...{ archives: 0, held: [], deleted: 0, deleteErrors: 0, unreachable: [] },
};

/** What a command reads of an enforcer, as the running agent tells it. */
function tellOf({ enforcer, index }: Driven) {
  const situation = enforcer.situation();
  return [...factLines({ ...HEAD, ...(situation && { plan: planFacts(situation) }) }, index.all(), situation)];
}

function planOf(driven: Driven) {
  const input = parseFacts(tellOf(driven))?.input;
  if (input === undefined) throw new Error("there is nothing to plan with");
  const plan = planRetention(input);
  const decisions = explainPlan(plan, input);
  return {
    plan,
    decisions,
    going: decisions
      .filter(({ action }) => action === "delete")
      .map(({ archive: { file }, reason }) => `${file} ${reason}`),
  };
}

const gone = ({ deleted }: Driven) => deleted.map(({ file, reason }) => `${file} ${reason}`);

const NAMESPACES = ["team", "ops"];
const CONTAINERS = ["main", "side"];

const arbSpec = fc.record({
  applyPoliciesImmediately: fc.boolean(),
  globalPolicy: fc.record({
    retainOrphan: fc.boolean(),
    maxCheckpointsPerContainer: fc.integer({ min: 0, max: 3 }),
    maxCheckpointsPerPod: fc.integer({ min: 0, max: 4 }),
    maxCheckpointsPerNamespace: fc.integer({ min: 0, max: 4 }),
    maxAge: fc.constantFrom("0", "30m"),
  }),
  namespacePolicies: fc.constantFrom([], [{ namespace: "ops", maxCheckpoints: 2, retainOrphan: false }]),
});

const arbOwner = {
  namespace: fc.constantFrom(...NAMESPACES),
  container: fc.constantFrom(...CONTAINERS),
};
const arbStep = fc.oneof(
  fc.record({ what: fc.constant("arrives" as const), ...arbOwner, isWalked: fc.boolean() }),
  fc.record({ what: fc.constant("pinned" as const), at: fc.nat() }),
  fc.record({ what: fc.constant("taken away" as const), at: fc.nat() }),
  fc.record({ what: fc.constant("pod gone" as const), namespace: fc.constantFrom(...NAMESPACES) }),
  fc.record({ what: fc.constant("policy" as const), spec: arbSpec }),
);
type Step = typeof arbStep extends fc.Arbitrary<infer T> ? T : never;

describe("what the running agent tells", () => {
  it("makes the plan that it carries out at the next event, proof or policy", async () => {
    await fc.assert(
      fc.asyncProperty(
        arbSpec,
        fc.array(fc.array(arbStep, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 5 }),
        async (spec, rounds) => {
          const folder = aFolder();
          const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
          for (const namespace of NAMESPACES) {
            for (const container of CONTAINERS) {
              for (const file of aSeries(folder, 2, { namespace, container })) driven.see(file, { isTold: false });
            }
          }
          driven.enforcer.listed();
          let made = 0;
          let asked = 0;
          const take = (step: Step): void => {
            const file = "at" in step ? [...driven.index.all()][step.at % Math.max(1, driven.index.size)]?.file : "";
            if (step.what === "arrives") {
              const { namespace, container, ...how } = step;
              made += 1;
              const time = archiveTime(driven.clock.wallMs() - 1_000_000 + made * 1000);
              driven.see(writeArchive(folder, { namespace, container, time }), { isEvent: true, ...how });
            } else if (step.what === "policy") driven.apply(step.spec);
            else if (step.what === "pod gone") {
              asked += 1;
              driven.proofs.reported(asked, driven.listedUpTo());
              const fact = { bootId: "boot", report: asked, namespace: step.namespace, pod: "web-0" };
              driven.enforcer.proved(driven.proofs.receive([fact], driven.clock.monotonicMs()));
            } else if (file) {
              if (step.what === "pinned") writeFileSync(join(folder, `${file}.keep`), "");
              else unlinkSync(join(folder, file));
              const entry = driven.see(file, { isTold: false });
              if (step.what === "pinned") entry.pinned = true;
              driven.enforcer.changed(entry, false);
            }
          };
          for (const steps of rounds) {
            driven.enforcer.setWaiting(true);
            for (const step of steps) take(step);
            const expected = planOf(driven).going;
            const before = driven.deleted.length;
            driven.enforcer.setWaiting(false);
            await driven.calm();
            expect(gone(driven).slice(before).sort()).toEqual(expected.sort());
            expect(planOf(driven).going).toEqual([]);
          }
        },
      ),
      { numRuns: soak(40) },
    );
  }, 60_000);

  it("says of an archive that waits for its scope's next event that it is kept", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 1 } }, folder),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(planOf(driven).decisions.map(({ action, why }) => [action, why])).toEqual(
      files.map(() => ["keep", "waits for the next archive of its scope"]),
    );
    driven.see(files[2] ?? "", { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
  });

  it("says why an archive rests that could not be deleted", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(
        { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } },
        folder,
      ),
      isStuck: (file) => file === files[0],
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(planOf(driven).decisions[0]).toMatchObject({
      action: "keep",
      why: "to be deleted (max_checkpoints); the last try failed with ENOTDIR",
    });
  });

  it("plans for the node once every archive was walked, and for free space by what the disk shows now", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    let disk: { usedBytes: number; availableBytes: number; sizeBytes: number } | undefined;
    const spec = {
      globalPolicy: { maxCheckpointsPerContainer: 0 },
      nodePolicy: { highWatermarkPercent: 50, lowWatermarkPercent: 40 },
    };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder), readDisk: () => disk });
    driven.enforcer.setWaiting(true);
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    expect(planOf(driven).going).toEqual([]);
    disk = { usedBytes: 90e9, availableBytes: 10e9, sizeBytes: 100e9 };
    expect(planOf(driven).going).toEqual(files.slice(0, 2).map((file) => `${file} node_watermark`));
    // The pass is over and the disk shows nothing: no further one is planned.
    driven.enforcer.setWaiting(false);
    await driven.calm();
    expect(gone(driven)).toEqual(files.slice(0, 2).map((file) => `${file} node_watermark`));
    expect(watermarkBytes(planOf(driven).plan)).toBe(0);
    driven.see(writeArchive(folder, { time: archiveTime(Date.now() - 60_000) }), { isWalked: false });
    expect(parseFacts(tellOf(driven))?.input?.node).toBeUndefined();
  });

  it("is no plan without a policy or a directory", () => {
    const folder = aFolder();
    expect(parseFacts(tellOf(driveEnforcer(folder, {})))).toMatchObject({ input: undefined });
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy({}, folder) });
    void driven.enforcer.setDirectory(undefined);
    expect(driven.enforcer.situation()).toBeUndefined();
  });

  it("is not believed where it was cut off, or is something else", () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy({}, folder) });
    driven.see(aSeries(folder, 1)[0] ?? "", { isTold: false });
    const lines = tellOf(driven);
    expect(parseFacts(lines)?.archives).toHaveLength(1);
    for (let count = 0; count < lines.length; count += 1) expect(parseFacts(lines.slice(0, count))).toBeUndefined();
    const [head = "", archive = "", end = ""] = lines;
    expect(parseFacts(["{}", archive, end])).toBeUndefined();
    expect(parseFacts([head, archive.slice(1), end])).toBeUndefined();
    expect(parseFacts([head, "{}", end])).toBeUndefined();
  });
});
