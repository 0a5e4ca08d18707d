import { linkSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { DiskReading } from "../../src/enforce/disk.ts";
import { archivesIn } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const BYTES = { sizeBytes: 1000, usedBytes: 0, availableBytes: 1000 };

/** A folder of four archives of a container on a file system with so many free inodes, less what was deleted there. */
function onADisk(nodePolicy: Record<string, unknown>, options: { free?: number; shows?: () => boolean } = {}) {
  const { free = 10, shows = () => true } = options;
  const folder = aFolder();
  const files = aSeries(folder, 4);
  const clock = aClock();
  let deleted = 0;
  const reading = (): DiskReading => ({
    ...BYTES,
    inodes: { total: 100, free: free + (shows() ? deleted : 0) },
  });
  const driven = driveEnforcer(folder, {
    clock,
    policy: anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy }, folder),
    readDisk: reading,
    onDeleted: () => {
      deleted += 1;
    },
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  const tick = async (ms = 10_000) => {
    clock.pass(ms);
    driven.enforcer.tick();
    await driven.calm();
  };
  return { driven, files, tick, folder };
}

const told = (driven: ReturnType<typeof driveEnforcer>) =>
  driven.deleted.map(({ file, reason }) => `${reason} ${file}`);

it.each([12, "12%"])("so many inodes are made free as minFreeInodes asks for: %s", async (minFreeInodes) => {
  const { driven, files } = onADisk({ minFreeInodes });
  await driven.calm();
  expect(told(driven)).toEqual(files.slice(0, 2).map((file) => `node_inodes ${file}`));
});

it("nothing goes as long as enough inodes are free", async () => {
  const { driven, folder, files, tick } = onADisk({ minFreeInodes: 10 });
  await driven.calm();
  await tick();
  expect(archivesIn(folder)).toEqual(files);
});

it("what goes for bytes gives its inode back, too", async () => {
  const { driven, files } = onADisk({ minFreeInodes: 12, maxTotalSize: "1%" });
  await driven.calm();
  // All but the newest, for the bytes; none for inodes.
  expect(told(driven)).toEqual(files.slice(0, 3).map((file) => `node_max_total_size ${file}`));
});

it("no more go while the file system does not show the inodes that were given back, and that is told", async () => {
  let isShown = false;
  const { driven, files, tick } = onADisk({ minFreeInodes: 12 }, { shows: () => isShown });
  await driven.calm();
  await tick(30_000);
  expect(driven.files()).toEqual(files.slice(0, 2));
  await tick(31_000);
  expect(driven.enforcer.status().unreachable).toEqual([
    { limit: "node_inodes", wanted: 2, freed: 0, unit: "archives" },
  ]);
  expect(driven.files()).toEqual(files.slice(0, 2));
  isShown = true;
  await tick();
  expect(driven.enforcer.status().unreachable).toEqual([]);
  expect(driven.files()).toEqual(files.slice(0, 2));
});

it("what has yet to show is not made up for where another rule of the node acts", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 8);
  const sizeOfOne = statSync(join(folder, files[0] ?? "")).size;
  const sizeBytes = 550 * sizeOfOne;
  const minFreeInodes = 12;
  const globalPolicy = { maxCheckpointsPerContainer: 0 };
  const driven = driveEnforcer(folder, {
    policy: anAcceptedPolicy({ globalPolicy, nodePolicy: { minFreeInodes } }, folder),
    large: Number.POSITIVE_INFINITY,
    readDisk: () => ({ sizeBytes, usedBytes: 0, availableBytes: sizeBytes, inodes: { total: 100, free: 10 } }),
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  // Of the six that are left, five are within the limit.
  driven.apply({ globalPolicy, nodePolicy: { minFreeInodes, maxTotalSize: "1%" } });
  await driven.calm();
  expect(told(driven)).toEqual([
    ...files.slice(0, 2).map((file) => `node_inodes ${file}`),
    `node_max_total_size ${files[2]}`,
  ]);
});

it("in the way are told the archives that may not go", async () => {
  const { driven } = onADisk({ minFreeInodes: 50 });
  await driven.calm();
  expect(driven.enforcer.status().unreachable).toEqual([
    { limit: "node_inodes", wanted: 40, freed: 3, unit: "archives", obstacles: { floor: 1 } },
  ]);
});

it("a file system that does not count inodes is told of once, and nothing goes", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 2);
  const clock = aClock();
  const spec = { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { minFreeInodes: "50%" } };
  const driven = driveEnforcer(folder, { clock, policy: anAcceptedPolicy(spec, folder), readDisk: () => BYTES });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  for (let look = 0; look < 3; look += 1) {
    clock.pass(10_000);
    driven.enforcer.tick();
    await driven.calm();
  }
  expect(archivesIn(folder)).toEqual(files);
  expect(driven.logged.filter(({ msg }) => String(msg).includes("does not count inodes"))).toHaveLength(1);
});

it.each([{ minFree: 1 }, { maxTotalSize: "10%" }])(
  "a file system that tells nothing is told of once: %j",
  async (nodePolicy) => {
    const clock = aClock();
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const globalPolicy = { maxCheckpointsPerContainer: 0 };
    const driven = driveEnforcer(folder, { clock, policy: anAcceptedPolicy({ globalPolicy, nodePolicy }, folder) });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    for (let look = 0; look < 3; look += 1) {
      clock.pass(10_000);
      driven.enforcer.tick();
      await driven.calm();
    }
    expect(archivesIn(folder)).toEqual(files);
    const told = driven.logged.filter(({ msg }) => String(msg).includes("does not tell how full it is"));
    expect(told).toHaveLength(1);
  },
);

it("what gives no inode back is not awaited", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 5);
  for (const file of files.slice(0, 2)) linkSync(join(folder, file), join(folder, `${file}.copy`));
  const spec = {
    applyPoliciesImmediately: true,
    globalPolicy: { maxCheckpointsPerContainer: 3 },
    nodePolicy: { minFreeInodes: 11 },
  };
  const driven = driveEnforcer(folder, {
    policy: anAcceptedPolicy(spec, folder),
    readDisk: () => ({ ...BYTES, inodes: { total: 100, free: 10 + Math.max(0, driven.deleted.length - 2) } }),
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  expect(told(driven)).toEqual([
    ...files.slice(0, 2).map((file) => `max_checkpoints ${file}`),
    `node_inodes ${files[2]}`,
  ]);
});

it("a file system that shrinks while archives go makes a share of it another limit", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 4);
  const clock = aClock();
  const nodePolicy = { minFreeInodes: 11, maxTotalSize: "10%" };
  let free = 11;
  const driven = driveEnforcer(folder, {
    clock,
    policy: anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy }, folder),
    readDisk: () => {
      const gone = driven.deleted.length;
      const sizeBytes = gone === 0 ? 1024 ** 3 : 1000;
      return { sizeBytes, usedBytes: 0, availableBytes: sizeBytes, inodes: { total: 100, free: free + gone } };
    },
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  driven.enforcer.tick();
  await driven.calm();
  free = 10;
  clock.pass(10_000);
  driven.enforcer.tick();
  await driven.calm();
  expect(told(driven)).toEqual([`node_inodes ${files[0]}`]);
  clock.pass(10_000);
  driven.enforcer.tick();
  await driven.calm();
  expect(driven.files()).toEqual(files.slice(0, 3));
});

it("a file system that grows makes a share of it another limit", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 3);
  const clock = aClock();
  const GIB = 1024 ** 3;
  let sizeBytes = GIB;
  const driven = driveEnforcer(folder, {
    clock,
    policy: anAcceptedPolicy(
      { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { maxTotalSize: "10%" } },
      folder,
    ),
    readDisk: () => ({ sizeBytes, usedBytes: 0, availableBytes: sizeBytes }),
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  // The first tick alone makes the time a trusted one, and so plans for everything.
  driven.enforcer.tick();
  await driven.calm();
  expect(driven.files()).toEqual([]);
  sizeBytes = 1000;
  clock.pass(10_000);
  driven.enforcer.tick();
  await driven.calm();
  expect(driven.files()).toEqual(files.slice(0, 2));
});

it("what has another name gives no inode back: it does not go for one until it has no other", async () => {
  const folder = aFolder();
  const files = aSeries(folder, 5);
  const copies = files.slice(0, 2).map((file) => join(folder, `${file}.copy`));
  for (const [at, copy] of copies.entries()) linkSync(join(folder, files[at] ?? ""), copy);
  const driven = driveEnforcer(folder, {
    policy: anAcceptedPolicy(
      { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { minFreeInodes: 12 } },
      folder,
    ),
    readDisk: () => ({ ...BYTES, inodes: { total: 100, free: 10 + driven.deleted.length } }),
  });
  for (const file of files) driven.see(file, { isTold: false });
  driven.enforcer.listed();
  await driven.calm();
  expect(driven.files()).toEqual(files.slice(2, 4));
  unlinkSync(copies[1] ?? "");
  driven.see(files[1] ?? "");
  driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { minFreeInodes: 14 } });
  await driven.calm();
  expect(driven.files()).toEqual([...files.slice(2, 4), files[1]]);
});

it("a file system that grows, or tells no more how large it is, ends what its share asks for", async () => {
  for (const next of [{ sizeBytes: 1024 ** 3, usedBytes: 0, availableBytes: 1024 ** 3 }, undefined]) {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(
        { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { maxTotalSize: "10%" } },
        folder,
      ),
      readDisk: () => (driven.deleted.length > 0 ? next : BYTES),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
  }
});
