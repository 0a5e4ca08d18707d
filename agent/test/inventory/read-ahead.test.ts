import { closeSync, openSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { startWalk, type Verdict } from "../../src/archive/walk.ts";
import { stepWalk } from "../../src/archive/walk-file.ts";
import { createReadSpace, createWalkStep, READ_AHEAD } from "../../src/inventory/read-ahead.ts";
import { archiveBytes, tarBytes } from "../support/archives.ts";
import { aFolder } from "../support/watching.ts";

const walkFile = (path: string, windowBytes: number | undefined): { verdict: Verdict | undefined; steps: number } => {
  const descriptor = openSync(path, "r");
  const walk = startWalk();
  const buffer = Buffer.alloc(512);
  const step =
    windowBytes === undefined
      ? () => stepWalk(descriptor, walk, buffer)
      : createWalkStep(descriptor, createReadSpace(windowBytes)).bind(undefined, walk);
  let steps = 1;
  while (!step()) steps += 1;
  closeSync(descriptor);
  return { verdict: walk.verdict, steps };
};

const entry = fc.record({
  name: fc.constantFrom("checkpoint/core-1.img", "config.dump", "spec.dump", "dump.log"),
  content: fc.uint8Array({ maxLength: 6000 }),
});

it("comes to the same verdict as single reads do, whatever the archive holds, wherever it is cut and however much is read ahead", () => {
  const path = join(aFolder(), "archive");
  fc.assert(
    fc.property(
      fc.array(entry, { maxLength: 12 }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.constantFrom(READ_AHEAD.none, 700, 1536, READ_AHEAD.some, 65_536),
      (entries, share, windowBytes) => {
        const bytes = tarBytes(entries);
        for (const cut of [bytes.length, Math.floor(share * bytes.length)]) {
          writeFileSync(path, bytes.subarray(0, cut));
          expect(walkFile(path, windowBytes)).toEqual(walkFile(path, undefined));
        }
      },
    ),
    { numRuns: soak(200) },
  );
});

it("tells what reading failed with", () => {
  const descriptor = openSync(aFolder(), "r");
  const walk = startWalk();
  expect(createWalkStep(descriptor, createReadSpace(READ_AHEAD.some))(walk)).toBe(true);
  closeSync(descriptor);
  expect(walk.verdict).toEqual({ kind: "failed", code: "EISDIR" });
});

it("mixes up no two files that are walked with the same space in turn", () => {
  const folder = aFolder();
  const space = createReadSpace(READ_AHEAD.some);
  const walks = ["a", "b"].map((name) => {
    const path = join(folder, name);
    writeFileSync(path, archiveBytes({ namespace: name }));
    const descriptor = openSync(path, "r");
    const walk = startWalk();
    return { descriptor, walk, step: createWalkStep(descriptor, space) };
  });
  let ended = 0;
  while (ended < walks.length) ended = walks.filter(({ step, walk }) => step(walk)).length;
  for (const { descriptor } of walks) closeSync(descriptor);
  expect(walks.map(({ walk }) => walk.verdict)).toEqual(
    ["a", "b"].map((namespace) => expect.objectContaining({ spec: expect.objectContaining({ namespace }) })),
  );
});

it("reads a small archive in one read, and by as many as it has headers if nothing is to be read ahead", () => {
  const path = join(aFolder(), "archive");
  writeFileSync(path, archiveBytes({ pagesBytes: 512 }));
  /** How many reads this thread has made. */
  const reads = () => Number(/syscr: (\d+)/.exec(readFileSync("/proc/thread-self/io", "utf8"))?.[1]);
  const readsOf = (act: () => void) => {
    const before = reads();
    act();
    return reads() - before;
  };
  const own = readsOf(() => {});
  const walked = (windowBytes: number) => readsOf(() => void walkFile(path, windowBytes)) - own;
  expect(walked(READ_AHEAD.some)).toBe(1);
  expect(walked(READ_AHEAD.none)).toBeGreaterThan(5);
});

it("stays at its verdict", () => {
  const path = join(aFolder(), "archive");
  writeFileSync(path, archiveBytes());
  const descriptor = openSync(path, "r");
  const walk = startWalk();
  const step = createWalkStep(descriptor, createReadSpace(READ_AHEAD.some));
  while (!step(walk));
  const { verdict } = walk;
  expect(verdict?.kind).toBe("ended");
  expect(step(walk)).toBe(true);
  closeSync(descriptor);
  expect(walk.verdict).toBe(verdict);
});

it("reads what does not fit into its space all the same", () => {
  const path = join(aFolder(), "archive");
  writeFileSync(path, archiveBytes({ copied: { note: "x".repeat(20_000) } }));
  expect(walkFile(path, READ_AHEAD.some).verdict).toMatchObject({ kind: "ended", spec: { namespace: "shop" } });
});
