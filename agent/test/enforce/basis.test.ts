import { appendFileSync, existsSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { patience, soak } from "../../../shared/test/support/soak.ts";
import { archivesIn } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy, watchDirectory } from "../support/watching.ts";

const keep = (count: number) => ({
  applyPoliciesImmediately: true,
  globalPolicy: { maxCheckpointsPerContainer: count, minCheckpointsPerContainer: 1 },
});

describe("a plan whose newest archives somebody moves away while it is carried out", () => {
  it("ends, and the next one leaves as many as the limit says", async () => {
    const folder = aFolder();
    const elsewhere = aFolder();
    const files = aSeries(folder, 600);
    const watching = watchDirectory(folder, { spec: keep(10) });
    await vi.waitFor(() => expect(watching.deleted.length).toBeGreaterThan(10), { timeout: 30_000, interval: 1 });
    const newest = files.slice(-10);
    for (const file of newest) renameSync(join(folder, file), join(elsewhere, file));
    const left = archivesIn(folder).length;
    expect(left).toBeGreaterThan(10);
    // Which of them went before the others had settled is a matter of time; how many stay is not.
    await vi.waitFor(() => expect(archivesIn(folder)).toHaveLength(10), { timeout: 30_000, interval: 20 });
    await vi.waitFor(() => expect(watching.isCalm()).toBe(true), { timeout: 30_000, interval: 20 });
    expect(archivesIn(folder)).toHaveLength(10);
  });

  it("ends at once, even if nobody was told of it yet", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 20);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keep(2), folder),
      onDeleted: () => {
        for (const file of files.slice(-2)) {
          if (existsSync(join(folder, file))) renameSync(join(folder, file), join(folder, `${file}.aside`));
        }
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
    expect(driven.stale).toEqual([files[1], files.at(-1)]);
    for (const file of files.slice(-2)) driven.see(file);
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(-4, -2));
  });
});

it(
  "whatever other hands take away or pin during a plan, no deletion leaves a scope fewer archives than its limit",
  async () => {
    const change = fc.record({
      after: fc.integer({ min: 1, max: 12 }),
      at: fc.nat(15),
      kind: fc.constantFrom("moved" as const, "pinned" as const),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("Container" as const, "Namespace" as const),
        fc.integer({ min: 1, max: 4 }),
        fc.array(change, { minLength: 1, maxLength: 8 }),
        async (scope, limit, changes) => {
          const folder = aFolder();
          const files = aSeries(folder, 16);
          const moved = new Set<string>();
          const pinned = new Set<string>();
          let deletions = 0;
          const leftAfterDeletion: number[] = [];
          const spec = { applyPoliciesImmediately: true, globalPolicy: { [`maxCheckpointsPer${scope}`]: limit } };
          const driven = driveEnforcer(folder, {
            policy: anAcceptedPolicy(spec, folder),
            onDeleted: () => {
              deletions += 1;
              leftAfterDeletion.push(archivesIn(folder).length);
              for (const { after, at, kind } of changes) {
                const file = files[at] ?? "";
                if (after !== deletions || !existsSync(join(folder, file)) || pinned.has(file)) continue;
                if (kind === "moved") {
                  renameSync(join(folder, file), join(folder, `${file}.aside`));
                  moved.add(file);
                  driven.see(file);
                  continue;
                }
                writeFileSync(join(folder, `${file}.keep`), "");
                pinned.add(file);
                const entry = driven.see(file, { isTold: false });
                entry.pinned = true;
                driven.enforcer.changed(entry, false);
              }
            },
          });
          for (const file of files) driven.see(file, { isTold: false });
          driven.enforcer.listed();
          await driven.calm();
          // No deletion of ours took more than was over the limit just then, and in the end it holds.
          expect(Math.min(limit, ...leftAfterDeletion)).toBe(limit);
          expect(archivesIn(folder).length).toBeLessThanOrEqual(Math.max(limit, pinned.size));
          for (const file of pinned) expect(existsSync(join(folder, file))).toBe(true);
        },
      ),
      { numRuns: soak(80) },
    );
  },
  patience(60_000),
);

describe("a plan in the middle of whose making", () => {
  /** Rules, and how many plans are made before the one that is meant. Of archives of 9 KiB, 1 MiB are 113. */
  const RULES = [
    { rule: "of a scope", spec: keep(100), most: 100, plansBefore: 0 },
    { rule: "of the node", spec: { nodePolicy: { maxTotalSize: "1Mi" } }, most: 113, plansBefore: 1 },
  ];

  /** An enforcer whose every step takes longer than a slice of work may; `interfere` comes in the middle of a plan. */
  function driveSlowly(
    files: string[],
    {
      folder,
      spec,
      plansBefore,
      interfere,
    }: {
      folder: string;
      spec: object;
      plansBefore: number;
      interfere: (driven: ReturnType<typeof driveEnforcer>) => void;
    },
  ) {
    const clock = aClock();
    let plans = 0;
    const driven: ReturnType<typeof driveEnforcer> = driveEnforcer(folder, {
      policy: anAcceptedPolicy(spec, folder),
      clock: {
        ...clock,
        monotonicMs: () => {
          clock.pass(10);
          return clock.monotonicMs();
        },
      },
      // Asked for right before a plan is begun.
      trustedMs: () => {
        if (plans === plansBefore) setImmediate(() => interfere(driven));
        plans += 1;
        return clock.wallMs();
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    return driven;
  }

  it.each(RULES)(
    "another hand moves the newest archives away, $rule, is not begun, and the next one is right",
    async ({ most, ...rule }) => {
      const folder = aFolder();
      const files = aSeries(folder, 150);
      const newest = files.slice(-10);
      const interfere = (driven: ReturnType<typeof driveEnforcer>) => {
        for (const file of newest) renameSync(join(folder, file), join(folder, `${file}.aside`));
        for (const file of newest) driven.see(file);
      };
      const driven = driveSlowly(files, { folder, ...rule, interfere });
      await driven.calm();
      driven.enforcer.tick();
      await driven.calm();
      // Begun, it would have found one of them gone, and told.
      expect(driven.stale).toEqual([]);
      expect(archivesIn(folder)).toEqual(files.slice(0, -10).slice(-most));
    },
  );

  it.each([
    { which: "read by then", taken: (files: string[]) => files.slice(0, 10) },
    { which: "still to be read", taken: (files: string[]) => files.slice(-10) },
  ])("another hand moves archives away that are $which takes no more than is over the limit", async ({ taken }) => {
    const folder = aFolder();
    // More than are read in one step.
    const files = aSeries(folder, 2100);
    const aside = taken(files);
    const interfere = (driven: ReturnType<typeof driveEnforcer>) => {
      for (const file of aside) renameSync(join(folder, file), join(folder, `${file}.aside`));
      for (const file of aside) driven.see(file);
    };
    const driven = driveSlowly(files, { folder, spec: keep(2080), plansBefore: 0, interfere });
    await driven.calm();
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.stale).toEqual([]);
    expect(archivesIn(folder)).toEqual(files.filter((file) => !aside.includes(file)).slice(-2080));
  });

  it.each(RULES)("the policy is replaced, $rule, is not begun", async (rule) => {
    const folder = aFolder();
    const files = aSeries(folder, 150);
    let isReplaced = false;
    const interfere = (driven: ReturnType<typeof driveEnforcer>) => {
      isReplaced = true;
      driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 0 } });
    };
    const driven = driveSlowly(files, { folder, ...rule, interfere });
    await driven.calm();
    expect(isReplaced).toBe(true);
    expect(driven.files()).toEqual([]);
  });
});

describe("the rules of the node", () => {
  const spec = { nodePolicy: { maxTotalSize: "1Mi" } };

  it("wait for the last archive to be walked", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 120);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    for (const file of files) driven.see(file, { isTold: false, isWalked: file !== files[60] });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.see(files[60] ?? "");
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(-113));
  });

  it("are planned anew when another hand takes archives away under a plan, and take no more than is left to take", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 120);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(spec, folder),
      onDeleted: () => {
        for (const file of files.slice(-3)) {
          if (!existsSync(join(folder, file))) continue;
          renameSync(join(folder, file), join(folder, `${file}.aside`));
          driven.see(file);
        }
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.enforcer.tick();
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(4, -3));
  });

  it("enforce a total and still tell of a disk that no deletion frees", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { maxTotalSize: "1Mi", minFree: "1Gi" } }, folder),
      readDisk: () => ({ sizeBytes: 2 ** 40, usedBytes: 2 ** 40 - 1, availableBytes: 1 }),
    });
    const told = () => driven.enforcer.status().unreachable.map(({ limit }) => limit);
    for (const file of aSeries(folder, 20)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    for (let second = 0; second < 90; second += 1) {
      driven.clock.pass(1000);
      driven.enforcer.tick();
      await driven.calm();
    }
    expect(told()).toEqual(["node_watermark"]);
    const next = aSeries(folder, 150, { container: "next" });
    for (const file of next) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(archivesIn(folder).length).toBeLessThanOrEqual(113);
    expect(told()).toEqual(["node_watermark"]);
  });
});

it("an archive that has changed since the plan is kept and looked at, whatever other archives the rule leaves", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 4);
  const driven = driveEnforcer(folder, {
    policy: anAcceptedPolicy({ applyPoliciesImmediately: true, globalPolicy: { maxAge: "1m" } }, folder),
    onDeleted: (file) => {
      if (file === files[0]) appendFileSync(join(folder, files[1] ?? ""), Buffer.alloc(512));
    },
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  expect(driven.stale).toEqual([files[1]]);
  expect(archivesIn(folder)).toContain(files[1]);
});

describe("an archive that cannot be deleted just now", () => {
  it("is waited for by the rules of its scopes, and no other goes in its stead", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const [stuck = "", second = "", newest = ""] = files;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(
        { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } },
        folder,
      ),
      isStuck: (file) => file === stuck,
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.see(newest, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([second]);
    expect(archivesIn(folder)).toEqual([stuck, newest]);
    const [third = ""] = aSeries(folder, 1, { startMs: Date.now() - 60_000 });
    driven.see(third, { isEvent: true });
    await driven.calm();
    expect(archivesIn(folder)).toEqual([stuck, third]);
  });

  it("is not counted as freed for the disk's sake", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 10);
    const stuck = files.slice(0, 3);
    const unit = () => driven.index.get(files.at(-1) ?? "")?.allocated ?? 0;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 75 } }, folder),
      isStuck: (file) => stuck.includes(file),
      readDisk: () => {
        const used = 17 - driven.deleted.length;
        return { sizeBytes: 20 * unit(), usedBytes: used * unit(), availableBytes: (20 - used) * unit() };
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    // Under 75 % are 14 of 20, and the three that should go cannot: others go in the next pass.
    expect(driven.files()).toEqual([]);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(3, 6));
  });
});
