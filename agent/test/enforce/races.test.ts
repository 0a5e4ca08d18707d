import { appendFileSync, existsSync, lstatSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { patience, soak } from "../../../shared/test/support/soak.ts";
import { archiveBytes, archiveTime, writeArchive } from "../support/archives.ts";
import { aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

/** What a writer, or an administrator, may do to an archive in the moment between the plan and its turn. */
const CHANGES = {
  "replaced by another of the same name, size and time": (path: string) => {
    const { atimeMs, mtimeMs } = lstatSync(path);
    writeFileSync(`${path}.new`, archiveBytes({ container: "main" }));
    utimesSync(`${path}.new`, atimeMs / 1000, mtimeMs / 1000);
    renameSync(`${path}.new`, path);
  },
  "overwritten in place": (path: string) => writeFileSync(path, archiveBytes({ container: "main", pagesBytes: 8192 })),
  "overwritten in place with as many bytes": (path: string) => writeFileSync(path, archiveBytes({ container: "main" })),
  grown: (path: string) => appendFileSync(path, Buffer.alloc(512)),
  touched: (path: string) => utimesSync(path, new Date(), new Date()),
  pinned: (path: string) => writeFileSync(`${path}.keep`, ""),
  "moved away": (path: string) => renameSync(path, `${path}.aside`),
  removed: (path: string) => rmSync(path),
} as const;
type Change = keyof typeof CHANGES;
const arbChange = fc.constantFrom(...(Object.keys(CHANGES) as Change[]));

describe("between a plan and the turn of an archive in it", () => {
  it(
    "the plan ends at whatever changed, and the next one, made of what is there, leaves what the limit says",
    async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.record({
            surplus: fc.integer({ min: 2, max: 8 }),
            // After how many deletions which of the archives still to go is changed, and how.
            changes: fc.array(
              fc.record({ after: fc.integer({ min: 1, max: 6 }), index: fc.nat(7), change: arbChange }),
              {
                minLength: 1,
                maxLength: 5,
              },
            ),
          }),
          async ({ surplus, changes }) => {
            const folder = aFolder();
            const files = aSeries(folder, surplus + 2);
            const planned = files.slice(0, surplus);
            const changed = new Map<string, Change>();
            let deletions = 0;
            let mayChange = true;
            const driven = driveEnforcer(folder, {
              policy: anAcceptedPolicy(
                { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } },
                folder,
              ),
              onDeleted: () => {
                deletions += 1;
                for (const { after, index, change } of mayChange ? changes : []) {
                  const file = planned[index];
                  // Only what has not had its turn; a second change might undo what the first one did.
                  if (after !== deletions || file === undefined || changed.has(file)) continue;
                  if (!existsSync(join(folder, file))) continue;
                  CHANGES[change](join(folder, file));
                  changed.set(file, change);
                }
              },
            });
            for (const file of files) driven.see(file, { isTold: false });
            driven.enforcer.listed();
            await driven.calm();
            const firstChanged = planned.findIndex((file) => changed.has(file));
            expect(driven.files()).toEqual(firstChanged < 0 ? planned : planned.slice(0, firstChanged));
            for (const [file, change] of changed) {
              const path = join(folder, change === "moved away" ? `${file}.aside` : file);
              expect([change, existsSync(path)]).toEqual([change, change !== "removed"]);
            }
            mayChange = false;
            // What the observer does with what it is told to look at.
            for (const file of changed.keys()) {
              if (driven.index.get(file) === undefined) continue;
              const entry = driven.see(file, { isTold: false });
              entry.pinned = existsSync(join(folder, `${file}.keep`));
              driven.enforcer.changed(entry, false);
            }
            driven.enforcer.tick();
            await driven.calm();
            const pinned = [...changed].filter(([, change]) => change === "pinned").map(([file]) => file);
            const left = files.filter((file) => existsSync(join(folder, file)));
            const newest = files.slice(Math.min(surplus + pinned.length, files.length));
            expect(left).toEqual([...pinned.sort(), ...newest]);
          },
        ),
        { numRuns: soak(150) },
      );
    },
    patience(120_000),
  );
});

describe("a checkpoint of a pod that is being deleted", () => {
  it(
    "is not deleted by a proof that its pod is gone while it is written, nor after: it has come later than the question",
    async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 4 }),
          fc.nat(3),
          fc.nat(4),
          async (parts, asked, answered) => {
            const folder = aFolder();
            const old = aSeries(folder, 2);
            const driven = driveEnforcer(folder, {
              policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
            });
            for (const file of old) driven.see(file, { isTold: false });
            driven.enforcer.listed();
            await driven.calm();
            const bytes = archiveBytes({ container: "main" });
            const growing = writeArchive(folder, { container: "main", time: archiveTime(Date.now() - 60_000) });
            const ends = [
              ...parts.map((part) => Math.floor((bytes.length * part) / 13)).sort((a, b) => a - b),
              bytes.length,
            ];
            const askedAt = Math.min(asked, ends.length - 2);
            const answeredAt = askedAt + answered;
            const answer = () => {
              const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0" };
              driven.enforcer.proved(driven.proofs.receive([fact], driven.clock.monotonicMs()));
            };
            for (const [step, end] of ends.entries()) {
              writeFileSync(join(folder, growing), bytes.subarray(0, end));
              driven.see(growing, { isEvent: true, isSettled: false });
              // The question is asked while a part of it is there; the answer comes then, later, or when all is.
              if (step === askedAt) driven.proofs.reported(1, driven.listedUpTo());
              if (step === answeredAt) answer();
              await driven.calm();
            }
            driven.clock.pass(10_000);
            driven.see(growing);
            if (answeredAt >= ends.length) answer();
            await driven.calm();
            expect(driven.files()).toEqual(old);
            expect(existsSync(join(folder, growing))).toBe(true);
          },
        ),
        { numRuns: soak(50) },
      );
    },
    patience(60_000),
  );
});
