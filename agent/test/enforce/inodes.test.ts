import { linkSync, statSync, unlinkSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { DiskReading } from "../../src/enforce/disk.ts";
import { archivesIn } from "../support/archives.ts";
import { aClock, aSeries, startOn } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const BYTES = { sizeBytes: 1000, usedBytes: 0, availableBytes: 1000 };
const inodes = (free: number): DiskReading => ({ ...BYTES, inodes: { total: 100, free } });
/** Empty, and so large. */
const ofSize = (sizeBytes: number) => ({ sizeBytes, usedBytes: 0, availableBytes: sizeBytes });
const GIB = 1024 ** 3;

/** No rule of a scope takes anything. */
const globalPolicy = { maxCheckpointsPerContainer: 0 };

/** An agent that starts on a folder of so many archives of a container; what its disk tells depends on how many it deleted. */
async function start({
  archives,
  spec,
  disk,
  large,
  prepare = () => {},
}: {
  archives: number;
  spec: Record<string, unknown>;
  disk: (deleted: number) => DiskReading | undefined;
  large?: number;
  prepare?: (paths: string[]) => void;
}) {
  const folder = aFolder();
  const files = aSeries(folder, archives);
  prepare(files.map((file) => join(folder, file)));
  const clock = aClock();
  let deleted = 0;
  const driven = await startOn(folder, files, {
    clock,
    policy: anAcceptedPolicy({ globalPolicy, ...spec }, folder),
    readDisk: () => disk(deleted),
    onDeleted: () => {
      deleted += 1;
    },
    ...(large !== undefined && { large }),
  });
  /** A tick of the agent after so long: the disk is looked at every ten seconds. */
  const tick = async (ms = 10_000) => {
    clock.pass(ms);
    driven.enforcer.tick();
    await driven.calm();
  };
  const told = () => driven.deleted.map(({ file, reason }) => `${reason} ${file}`);
  return { driven, files, folder, tick, told };
}

const onlyInodes = (minFreeInodes: unknown) => ({ nodePolicy: { minFreeInodes } });

it.each([12, "12%"])("so many inodes are made free as minFreeInodes asks for: %s", async (minFreeInodes) => {
  const disk = (deleted: number) => inodes(10 + deleted);
  const { files, told } = await start({ archives: 4, spec: onlyInodes(minFreeInodes), disk });
  expect(told()).toEqual(files.slice(0, 2).map((file) => `node_inodes ${file}`));
});

it("nothing goes as long as enough inodes are free", async () => {
  const disk = (deleted: number) => inodes(10 + deleted);
  const { folder, files, tick } = await start({ archives: 4, spec: onlyInodes(10), disk });
  await tick();
  expect(archivesIn(folder)).toEqual(files);
});

it("what goes for bytes gives its inode back, too", async () => {
  const spec = { nodePolicy: { minFreeInodes: 12, maxTotalSize: "1%" } };
  const { files, told } = await start({ archives: 4, spec, disk: (deleted) => inodes(10 + deleted) });
  // All but the newest, for the bytes; none for inodes.
  expect(told()).toEqual(files.slice(0, 3).map((file) => `node_max_total_size ${file}`));
});

it("no more go while the file system does not show the inodes that were given back, and that is told", async () => {
  let isShown = false;
  const disk = (deleted: number) => inodes(isShown ? 10 + deleted : 10);
  const { driven, files, tick } = await start({ archives: 4, spec: onlyInodes(12), disk });
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
  let sizeOfOne = 0;
  const { driven, files, told } = await start({
    archives: 8,
    spec: onlyInodes(12),
    large: Number.POSITIVE_INFINITY,
    prepare: ([first = ""]) => {
      sizeOfOne = statSync(first).size;
    },
    disk: () => ({ ...ofSize(550 * sizeOfOne), inodes: { total: 100, free: 10 } }),
  });
  // Of the six that are left, five are within the limit.
  driven.apply({ globalPolicy, nodePolicy: { minFreeInodes: 12, maxTotalSize: "1%" } });
  await driven.calm();
  expect(told()).toEqual([
    ...files.slice(0, 2).map((file) => `node_inodes ${file}`),
    `node_max_total_size ${files[2]}`,
  ]);
});

it("in the way are told the archives that may not go", async () => {
  const { driven } = await start({ archives: 4, spec: onlyInodes(50), disk: (deleted) => inodes(10 + deleted) });
  expect(driven.enforcer.status().unreachable).toEqual([
    { limit: "node_inodes", wanted: 40, freed: 3, unit: "archives", obstacles: { floor: 1 } },
  ]);
});

it.each([
  { nodePolicy: { minFreeInodes: "50%" }, reading: BYTES, lack: "does not count inodes" },
  { nodePolicy: { minFree: 1 }, reading: undefined, lack: "does not tell how full it is" },
  { nodePolicy: { maxTotalSize: "10%" }, reading: undefined, lack: "does not tell how full it is" },
])("a file system that $lack is told of once, and nothing goes: $nodePolicy", async ({ nodePolicy, reading, lack }) => {
  const { driven, folder, files, tick } = await start({ archives: 2, spec: { nodePolicy }, disk: () => reading });
  for (let look = 0; look < 3; look += 1) await tick();
  expect(archivesIn(folder)).toEqual(files);
  expect(driven.logged.filter(({ msg }) => String(msg).includes(lack))).toHaveLength(1);
});

it("what gives no inode back is not awaited", async () => {
  const { files, told } = await start({
    archives: 5,
    spec: {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerContainer: 3 },
      nodePolicy: { minFreeInodes: 11 },
    },
    prepare: (paths) => {
      for (const path of paths.slice(0, 2)) linkSync(path, `${path}.copy`);
    },
    disk: (deleted) => inodes(10 + Math.max(0, deleted - 2)),
  });
  expect(told()).toEqual([...files.slice(0, 2).map((file) => `max_checkpoints ${file}`), `node_inodes ${files[2]}`]);
});

it("a file system that shrinks while archives go makes a share of it another limit", async () => {
  let free = 11;
  const { driven, files, told, tick } = await start({
    archives: 4,
    spec: { nodePolicy: { minFreeInodes: 11, maxTotalSize: "10%" } },
    disk: (deleted) => ({ ...ofSize(deleted === 0 ? GIB : 1000), inodes: { total: 100, free: free + deleted } }),
  });
  await tick(0);
  free = 10;
  await tick();
  expect(told()).toEqual([`node_inodes ${files[0]}`]);
  await tick();
  expect(driven.files()).toEqual(files.slice(0, 3));
});

it("a file system that grows makes a share of it another limit", async () => {
  let sizeBytes = GIB;
  const spec = { nodePolicy: { maxTotalSize: "10%" } };
  const { driven, files, tick } = await start({ archives: 3, spec, disk: () => ofSize(sizeBytes) });
  // The first tick alone makes the time a trusted one, and so plans for everything.
  await tick(0);
  expect(driven.files()).toEqual([]);
  sizeBytes = 1000;
  await tick();
  expect(driven.files()).toEqual(files.slice(0, 2));
});

it("what has another name gives no inode back: it does not go for one until it has no other", async () => {
  const copies: string[] = [];
  const { driven, files } = await start({
    archives: 5,
    spec: onlyInodes(12),
    prepare: (paths) => {
      for (const path of paths.slice(0, 2)) {
        linkSync(path, `${path}.copy`);
        copies.push(`${path}.copy`);
      }
    },
    disk: (deleted) => inodes(10 + deleted),
  });
  expect(driven.files()).toEqual(files.slice(2, 4));
  unlinkSync(copies[1] ?? "");
  driven.see(files[1] ?? "");
  driven.apply({ globalPolicy, ...onlyInodes(14) });
  await driven.calm();
  expect(driven.files()).toEqual([...files.slice(2, 4), files[1]]);
});

it.each([
  ["grows", ofSize(GIB)],
  ["tells no more how large it is", undefined],
])(
  "a file system that grows, or tells no more how large it is, ends what its share asks for: it %s",
  async (_, next) => {
    const spec = { nodePolicy: { maxTotalSize: "10%" } };
    const disk = (deleted: number) => (deleted > 0 ? next : BYTES);
    const { driven, files } = await start({ archives: 4, spec, disk });
    expect(driven.files()).toEqual(files.slice(0, 1));
  },
);
