import { describe, expect, it } from "vitest";
import type { Archive } from "../../src/archive/archive.ts";
import { type Plan, planRetention } from "../../src/retention/plan.ts";
import {
  type ArchiveOptions,
  anArchive,
  anInput,
  archivesOf,
  files,
  MIB,
  NOW_MS,
  told,
  watermarkBytes,
} from "./builders.ts";

/** An archive that is told apart by its file name. */
const named = (file: string, options: ArchiveOptions = {}) => anArchive({ file, ...options });
const container = { namespace: "team", pod: "web", container: "main" };
const containerPolicy = (limits: object) => ({ containerPolicies: [{ ...container, ...limits }] });
const gib = (value: number) => value * 1024 * MIB;

describe("orphan deletion", () => {
  const gone = { namespace: "team", pod: "web", listedUpTo: 5 };
  const release = { globalPolicy: { retainOrphan: false } };
  const releasing = (list: string, names: object) => ({ [list]: [{ ...names, retainOrphan: false }] });

  it.each([
    ["the global policy", release],
    ["a container policy", releasing("containerPolicies", container)],
    ["a pod policy", releasing("podPolicies", { namespace: "team", pod: "web" })],
    ["a namespace policy", releasing("namespacePolicies", { namespace: "team" })],
  ])("takes the archives of a pod that is gone under %s", (_, spec) => {
    const plan = planRetention(anInput([named("a", { listed: 5 })], spec, { orphans: [gone] }));
    expect(told(plan)).toEqual(["orphan a"]);
  });

  it.each([
    ["the global policy", release, ["orphan a"]],
    ["a container policy", releasing("containerPolicies", container), ["orphan a"]],
    ["a pod policy", releasing("podPolicies", { namespace: "team", pod: "web" }), []],
    ["a namespace policy", releasing("namespacePolicies", { namespace: "team" }), []],
  ])("asks under %s whether only a container is gone, and tells it from its siblings", (_, spec, expected) => {
    const archives = [named("a"), named("b", { container: "side" })];
    const plan = planRetention(anInput(archives, spec, { orphans: [{ ...gone, container: "main" }] }));
    expect(told(plan)).toEqual(expected);
  });

  it("keeps what was listed after the question was asked, and believes the later of two answers", () => {
    const archives = [named("a", { listed: 5 }), named("b", { listed: 6 }), named("c", { listed: 7 })];
    expect(told(planRetention(anInput(archives, release, { orphans: [gone] })))).toEqual(["orphan a"]);
    const both = [{ ...gone, listedUpTo: 6 }, gone];
    expect(files(planRetention(anInput(archives, release, { orphans: both })).deletions)).toEqual(["a", "b"]);
    const split = [gone, { ...gone, container: "main", listedUpTo: 6 }];
    expect(files(planRetention(anInput(archives, release, { orphans: split })).deletions)).toEqual(["a", "b"]);
  });

  it("goes by the UID where the policy says so: a pod of the same name saves no archive of the one before it", () => {
    const archives = [
      named("before", { age: 9, podUID: "before" }),
      named("now", { age: 8, podUID: "now" }),
      named("unknown", { age: 7 }),
      named("late", { age: 6, podUID: "before", listed: 6 }),
    ];
    const proved = [{ ...gone, uid: "before" }];
    const byUid = { ...release, orphanMatch: "UID" };
    expect(told(planRetention(anInput(archives, byUid, { orphans: proved })))).toEqual(["orphan before"]);
    expect(planRetention(anInput(archives, release, { orphans: proved })).deletions).toEqual([]);
    const all = files(planRetention(anInput(archives, byUid, { orphans: [gone] })).deletions);
    expect(all).toEqual(["before", "now", "unknown"]);
    const first = { ...gone, uid: "before", listedUpTo: 0 };
    expect(told(planRetention(anInput(archives, byUid, { orphans: [first] })))).toEqual(["orphan before"]);
    expect(planRetention(anInput(archives, { orphanMatch: "UID" }, { orphans: proved })).deletions).toEqual([]);
  });

  it("never takes archives of a static pod, and those of another pod of that name all the same", () => {
    const archives = [
      named("static", { isStaticPod: true }),
      named("half", { isStaticPod: true, state: "incomplete" }),
      named("other", { age: 9 }),
    ];
    expect(told(planRetention(anInput(archives, release, { orphans: [gone] })))).toEqual(["orphan other"]);
    const limited = { globalPolicy: { retainOrphan: false, maxCheckpointsPerContainer: 1 } };
    expect(told(planRetention(anInput(archives, limited, { orphans: [gone] })))).toEqual([
      "orphan other",
      "max_checkpoints half",
    ]);
  });

  it("keeps orphans where the policy does not release them, and pods of the same name elsewhere", () => {
    expect(planRetention(anInput([named("a")], {}, { orphans: [gone] })).deletions).toEqual([]);
    const archives = [named("a", { namespace: "team-prod" }), named("b", { pod: "web-1" })];
    expect(planRetention(anInput(archives, release, { orphans: [gone] })).deletions).toEqual([]);
  });

  it("breaks the floor and goes by order of age, incomplete ones first, but never takes a pinned one", () => {
    const archives = [
      named("new", { age: 1 }),
      named("old", { age: 9 }),
      named("half", { age: 5, state: "incomplete" }),
      named("pinned", { age: 3, pinned: true }),
    ];
    const spec = { globalPolicy: { retainOrphan: false, minCheckpointsPerContainer: 3 } };
    const plan = planRetention(anInput(archives, spec, { orphans: [gone] }));
    expect(told(plan)).toEqual(["orphan half", "orphan old", "orphan new"]);
    expect(plan.unreachable).toEqual([]);
  });
});

describe("maxCheckpointSize", () => {
  const spec = containerPolicy({ maxCheckpointSize: "4Mi" });

  it("takes what is larger, not what is as large, incomplete ones first and then the oldest", () => {
    const archives = [
      named("new", { mib: 5, age: 1 }),
      named("old", { mib: 5, age: 9 }),
      named("half", { mib: 5, age: 5, state: "incomplete" }),
      named("equal", { mib: 4 }),
      named("sparse", { size: 4 * MIB, allocated: 9 * MIB }),
    ];
    expect(told(planRetention(anInput(archives, spec)))).toEqual([
      "max_checkpoint_size half",
      "max_checkpoint_size old",
      "max_checkpoint_size new",
    ]);
  });

  it("keeps the floor and pinned ones, and tells of each scope that they break the limit", () => {
    const archives = [
      named("a", { mib: 5, age: 3 }),
      named("b", { mib: 5, age: 2, pinned: true }),
      named("c", { mib: 5, age: 1 }),
      named("growing", { mib: 5, age: 1, pinned: true, state: "unsettled" }),
      named("other", { mib: 5, age: 0, container: "side" }),
    ];
    const plan = planRetention(
      anInput(archives, { globalPolicy: { maxCheckpointSize: "4Mi", minCheckpointsPerContainer: 1 } }),
    );
    expect(told(plan)).toEqual(["max_checkpoint_size a"]);
    expect(plan.unreachable).toEqual([
      {
        limit: "max_checkpoint_size",
        ...container,
        wanted: 4,
        freed: 1,
        unit: "archives",
        obstacles: { pinned: 2, floor: 1 },
      },
      {
        limit: "max_checkpoint_size",
        ...container,
        container: "side",
        wanted: 1,
        freed: 0,
        unit: "archives",
        obstacles: { floor: 1 },
      },
    ]);
  });

  it.each([
    ["podPolicies", { namespace: "team", pod: "web" }],
    ["namespacePolicies", { namespace: "team" }],
  ])("tells of the scope that %s limit", (list, names) => {
    const archives = [named("a", { mib: 5, pinned: true }), named("b", { mib: 5, container: "side", pinned: true })];
    const plan = planRetention(anInput(archives, { [list]: [{ ...names, maxCheckpointSize: "4Mi" }] }));
    expect(plan.unreachable).toEqual([
      { limit: "max_checkpoint_size", ...names, wanted: 2, freed: 0, unit: "archives", obstacles: { pinned: 2 } },
    ]);
  });
});

describe("maxAge", () => {
  const spec = containerPolicy({ maxAge: "1h" });

  it("takes what is older by the time in its name, not what is as old, incomplete ones first and then the oldest", () => {
    const archives = [
      named("old", { age: 3601, mtimeNs: BigInt(NOW_MS) * 1_000_000n }),
      named("older", { age: 9999 }),
      named("half", { age: 3700, state: "incomplete" }),
      named("equal", { age: 3600, mtimeNs: 0n }),
    ];
    expect(told(planRetention(anInput(archives, spec)))).toEqual(["max_age half", "max_age older", "max_age old"]);
  });

  it("takes nothing, and tells of nothing, by a clock that may not be trusted", () => {
    const archives = [named("a", { age: 9999 }), named("b", { age: 9999, pinned: true })];
    const plan = planRetention(anInput(archives, spec, { nowMs: undefined }));
    expect([plan.deletions, plan.unreachable]).toEqual([[], []]);
  });

  it("keeps the floor and pinned ones and tells of them", () => {
    const archives = [named("a", { age: 9001 }), named("b", { age: 9000 }), named("c", { age: 9999, pinned: true })];
    const plan = planRetention(anInput(archives, containerPolicy({ maxAge: "1h", minCheckpoints: 1 })));
    expect(told(plan)).toEqual(["max_age a"]);
    expect(plan.unreachable).toEqual([
      { limit: "max_age", ...container, wanted: 3, freed: 1, unit: "archives", obstacles: { pinned: 1, floor: 1 } },
    ]);
  });
});

describe("counts", () => {
  it.each([
    [2, 5, 3],
    [1, 5, 4],
    [0, 5, 0],
    [5, 5, 0],
  ])("of %i keep so many of %i archives, and the newest", (maxCheckpoints, count, deleted) => {
    const archives = archivesOf(count);
    const plan = planRetention(anInput(archives.toReversed(), containerPolicy({ maxCheckpoints })));
    expect(files(plan.deletions)).toEqual(archives.slice(0, deleted).map(({ file }) => file));
  });

  it("order by the time in the name, then by mtime in nanoseconds, then by name bytewise", () => {
    const archives = [
      named("a", { age: 1, mtimeNs: 2n }),
      named("d", { age: 2, mtimeNs: 9007199254740993n }),
      named("b", { age: 2, mtimeNs: 9007199254740992n }),
      named("c", { age: 2, mtimeNs: 9007199254740992n }),
      named("B", { age: 2, mtimeNs: 9007199254740992n }),
      named("e", { age: 0, mtimeNs: 1n }),
    ];
    const plan = planRetention(anInput(archives, containerPolicy({ maxCheckpoints: 1 })));
    expect(files(plan.deletions)).toEqual(["B", "b", "c", "d", "a"]);
  });

  it.each([
    ["before 1970", [-62_000_000_000_000, -1, 0, 1]],
    ["in one second", [1000, 1001, 1500, 1999]],
    ["so far apart that their order times their number is no exact number", [0, 1, 2 ** 62, 2 ** 63]],
  ])("order archives %s, too", (_, times) => {
    const archives = times.map((timeMs, index) => ({ ...anArchive({ file: `${index}` }), timeMs }));
    const plan = planRetention(anInput(archives.toReversed(), containerPolicy({ maxCheckpoints: 1 })));
    expect(files(plan.deletions)).toEqual(["0", "1", "2"]);
  });

  it("count incomplete and pinned complete ones, take incomplete ones first, and no pinned one", () => {
    const archives = [
      named("old", { age: 9 }),
      named("pinned", { age: 10, pinned: true }),
      named("half", { age: 1, state: "incomplete" }),
      named("new", { age: 2 }),
    ];
    const take = (maxCheckpoints: number) =>
      files(planRetention(anInput(archives, containerPolicy({ maxCheckpoints }))).deletions);
    expect(take(3)).toEqual(["half"]);
    expect(take(2)).toEqual(["half", "old"]);
    expect(take(1)).toEqual(["half", "old", "new"]);
  });

  it.each([
    ["postdated", {}],
    ["unread", {}],
    ["unsettled", {}],
    ["incomplete", { pinned: true }],
    ["unsettled", { pinned: true }],
    ["unidentified", { identity: null }],
  ] as const)("do not see an archive that is %s %o", (state, options) => {
    const archives = [...archivesOf(2), named("x", { state, age: 9999, ...options })];
    const plan = planRetention(anInput(archives, containerPolicy({ maxCheckpoints: 2 })));
    expect([plan.deletions, plan.unreachable]).toEqual([[], []]);
  });

  it("keep the floor where a wider limit asks for more, and tell of it", () => {
    const archives = [...archivesOf(3), ...archivesOf(3, { container: "side", mtimeNs: 0n })];
    const plan = planRetention(
      anInput(archives, { globalPolicy: { maxCheckpointsPerPod: 3, minCheckpointsPerContainer: 2 } }),
    );
    expect(plan.deletions).toHaveLength(2);
    expect(plan.unreachable).toEqual([
      {
        limit: "max_checkpoints",
        namespace: "team",
        pod: "web",
        wanted: 3,
        freed: 2,
        unit: "archives",
        obstacles: { floor: 4 },
      },
    ]);
  });

  it("count pinned and fresh archives in the floor", () => {
    const archives = [
      named("a", { age: 9 }),
      named("b", { age: 8 }),
      named("pinned", { age: 7, pinned: true }),
      named("fresh", { age: 1, settled: false }),
    ];
    const plan = planRetention(
      anInput(archives, { globalPolicy: { maxCheckpointsPerPod: 1, minCheckpointsPerContainer: 3 } }),
    );
    expect(files(plan.deletions)).toEqual(["a"]);
    expect(plan.deferred).toEqual([]);
  });

  it("act on containers, then pods, then namespaces, each on what the narrower ones left", () => {
    const archives = [
      ...archivesOf(3).map((archive, index) => ({ ...archive, file: `main-${index}` })),
      ...archivesOf(2, { container: "side", mtimeNs: 1n }).map((archive, index) => ({
        ...archive,
        file: `side-${index}`,
      })),
      ...archivesOf(2, { pod: "web-1", mtimeNs: 2n }).map((archive, index) => ({ ...archive, file: `web-1-${index}` })),
    ];
    const globalPolicy = { maxCheckpointsPerContainer: 2, maxCheckpointsPerPod: 3, maxCheckpointsPerNamespace: 4 };
    const plan = planRetention(anInput(archives, { globalPolicy }));
    expect(told(plan)).toEqual(["max_checkpoints main-0", "max_checkpoints side-0", "max_checkpoints web-1-0"]);
  });

  it("of a pod or namespace policy span its containers, and those of a prefix each scope by itself", () => {
    const archives = ["main", "side"].flatMap((name) => archivesOf(2, { container: name, file: `web-${name}` }));
    const other = ["main", "side"].flatMap((name) => archivesOf(2, { pod: "web-1", container: name }));
    const left = (spec: object) =>
      planRetention(anInput([...archives, ...other], spec as Record<string, unknown>)).deletions.length;
    expect(left({ podPolicies: [{ namespace: "team", pod: "web", maxCheckpoints: 1 }] })).toBe(3);
    expect(left({ podPolicies: [{ namespace: "team", pod: "web*", maxCheckpoints: 1 }] })).toBe(6);
    expect(left({ namespacePolicies: [{ namespace: "t*", maxCheckpoints: 1 }] })).toBe(7);
    expect(left({ containerPolicies: [{ namespace: "*", pod: "*", container: "*", maxCheckpoints: 1 }] })).toBe(4);
  });
});

describe("pinned archives that use a count limit up", () => {
  const pinned = (count: number, options: ArchiveOptions = {}) =>
    archivesOf(count, { pinned: true, ...options }).map((archive, at) => ({ ...archive, file: `pinned-${at}` }));
  const limitsOf = (archives: Archive[], spec: Record<string, unknown>, rest: object = {}) =>
    planRetention(anInput(archives, spec, rest)).pinnedLimits;
  const main = { namespace: "team", pod: "web", container: "main" };

  it("are told of as soon as they are as many as the limit, before any archive goes for it", () => {
    const three = containerPolicy({ maxCheckpoints: 3 });
    expect(limitsOf(pinned(2), three)).toEqual([]);
    expect(limitsOf([...pinned(2), named("free")], three)).toEqual([]);
    expect(limitsOf(pinned(3), three)).toEqual([{ ...main, maxCheckpoints: 3, pinned: 3 }]);
    expect(limitsOf([...pinned(4), named("new", { age: 1 })], three)).toEqual([
      { ...main, maxCheckpoints: 3, pinned: 4 },
    ]);
    expect(told(planRetention(anInput([...pinned(3), named("new", { age: 1 })], three)))).toEqual([
      "max_checkpoints new",
    ]);
  });

  it("are told of each scope that is limited, and whether or not rules may act there now", () => {
    const spec = {
      globalPolicy: { maxCheckpointsPerContainer: 9, maxCheckpointsPerPod: 2, maxCheckpointsPerNamespace: 2 },
    };
    const expected = [
      { namespace: "team", pod: "web", maxCheckpoints: 2, pinned: 2 },
      { namespace: "team", maxCheckpoints: 2, pinned: 2 },
    ];
    expect(limitsOf(pinned(2), spec)).toEqual(expected);
    expect(limitsOf(pinned(2), spec, { isActive: () => false })).toEqual(expected);
  });

  it("count where they are complete: a torn one that is pinned counts in no number", () => {
    expect(limitsOf(pinned(3, { state: "incomplete" }), containerPolicy({ maxCheckpoints: 3 }))).toEqual([]);
  });
});

describe("one policy governs", () => {
  it("and wider ones neither count what it governs nor delete it", () => {
    const archives = [...archivesOf(3), ...archivesOf(3, { container: "side" })];
    const plan = planRetention(
      anInput(archives, {
        ...containerPolicy({ maxCheckpoints: 3 }),
        namespacePolicies: [{ namespace: "team", maxCheckpoints: 2 }],
        globalPolicy: { maxCheckpointsPerContainer: 1 },
      }),
    );
    expect(plan.deletions.map(({ archive }) => archive.identity?.container)).toEqual(["side"]);
  });

  it("with the limits that it names: none are inherited", () => {
    const spec = { ...containerPolicy({ maxAge: "30d" }), globalPolicy: { maxCheckpointsPerContainer: 1 } };
    expect(planRetention(anInput(archivesOf(5), spec)).deletions).toEqual([]);
  });

  it("and a lookup that the caller brings is the one that is asked, once for each container", () => {
    const asked: string[] = [];
    const input = anInput([...archivesOf(3), ...archivesOf(2, { container: "side" })], {});
    const plan = planRetention({
      ...input,
      govern: (identity) => {
        asked.push(identity.container);
        return { level: "container", retainOrphan: true, perContainer: { maxCheckpoints: 1 } };
      },
    });
    expect(asked.toSorted()).toEqual(["main", "side"]);
    expect(plan.deletions).toHaveLength(3);
  });
});

describe("a workload policy", () => {
  const workload = (limits: object) => ({
    workloadPolicies: [{ namespace: "team", kind: "Deployment", name: "web", ...limits }],
  });
  const before = "web-6f9f8977b7-w28kl";
  const after = "web-5d4b8c7f9d-x7k2p";
  const of = (pod: string, age: number, rest: ArchiveOptions = {}) => anArchive({ pod, age, ...rest });

  it("counts the archives of all pods of a Deployment together, across a rollout", () => {
    const archives = [of(before, 50), of(before, 40), of(after, 30), of(after, 20), of("web-5d4b8c7f9d-zzzzz", 10)];
    const plan = planRetention(anInput(archives, workload({ maxCheckpoints: 2 })));
    expect(files(plan.deletions)).toEqual(archives.slice(0, 3).map(({ file }) => file));
  });

  it("neither counts nor takes those of pods that are not of that workload", () => {
    const others = [
      "web-admin-w28kl",
      "web-grpc-w28kl",
      "web-0",
      "web",
      "web-admin-6f9f8977b7-w28kl",
      "webs-6f9f8977b7-w28kl",
    ];
    const archives = [
      ...others.map((pod, at) => of(pod, 100 + at)),
      of(before, 9),
      of(before, 8, { namespace: "ops" }),
    ];
    expect(planRetention(anInput(archives, workload({ maxCheckpoints: 1, maxTotalSize: "1Mi" }))).deletions).toEqual(
      [],
    );
  });

  it("keeps the newest of each container's name over all its pods, and not of each pod", () => {
    const archives = [
      of(before, 60),
      of(before, 50, { container: "side" }),
      of(before, 40),
      of(after, 30),
      of(after, 20),
    ];
    const plan = planRetention(anInput(archives, workload({ maxAge: "1s", minCheckpoints: 1 })));
    expect(files(plan.deletions)).toEqual([archives[0], archives[2], archives[3]].map((archive) => archive?.file));
    expect(plan.unreachable).toMatchObject([
      { limit: "max_age", namespace: "team", workload: "Deployment/web", wanted: 5, freed: 3, obstacles: { floor: 2 } },
    ]);
  });

  it("leaves to the node's rules no container's newest archive, though the workload's floor is met elsewhere", () => {
    const archives = [of(before, 60), of(before, 50), of(after, 30), of(after, 20)];
    const spec = { ...workload({ maxCheckpoints: 9, minCheckpoints: 1 }), nodePolicy: { maxTotalSize: "1Mi" } };
    const plan = planRetention(anInput(archives, spec));
    expect(files(plan.deletions)).toEqual([archives[0], archives[2]].map((archive) => archive?.file));
  });

  it("is for the containers it names alone, all that a prefix fits together", () => {
    const archives = [of(before, 50, { container: "main-a" }), of(after, 40, { container: "main-b" }), of(after, 30)];
    const plan = planRetention(anInput(archives, workload({ container: "main-*", maxCheckpoints: 1 })));
    expect(files(plan.deletions)).toEqual([archives[0]?.file]);
  });

  it("takes no archive for an orphan because its pod lives on without that container", () => {
    const orphans = [{ namespace: "team", pod: before, container: "main", listedUpTo: 9 }];
    const archives = [of(before, 50)];
    expect(planRetention(anInput(archives, workload({ retainOrphan: false }), { orphans })).deletions).toEqual([]);
    const gone = [{ namespace: "team", pod: before, listedUpTo: 9 }];
    expect(told(planRetention(anInput(archives, workload({ retainOrphan: false }), { orphans: gone })))).toEqual([
      `orphan ${archives[0]?.file}`,
    ]);
  });

  it("waits while any archive of its namespace has not been walked: it may turn out to be the workload's", () => {
    const archives = [of(before, 50), of(before, 40), of("other", 30, { walked: false, state: "unread" })];
    const spec = workload({ maxCheckpoints: 1 });
    expect(planRetention(anInput(archives, spec)).deletions).toEqual([]);
    const elsewhere = archives.map((archive) => ({
      ...archive,
      candidates: [],
      ...(archive.walked ? {} : { identity: undefined }),
    }));
    expect(planRetention(anInput(elsewhere, spec)).deletions).toHaveLength(1);
  });
});

describe("total sizes", () => {
  it("keep two of five archives of 5 MiB within 12 MiB, and hold exactly at the limit", () => {
    const archives = archivesOf(5, { mib: 5 });
    const take = (maxTotalSize: string) =>
      files(planRetention(anInput(archives, containerPolicy({ maxTotalSize }))).deletions);
    expect(take("12Mi")).toEqual(archives.slice(0, 3).map(({ file }) => file));
    expect(take("15Mi")).toEqual(archives.slice(0, 2).map(({ file }) => file));
  });

  it("begin with those that alone exceed the limit, then incomplete ones, then the oldest", () => {
    const archives = [
      named("oldest", { age: 9, mib: 4 }),
      named("old", { age: 8, mib: 4 }),
      named("half-new", { age: 1, mib: 4, state: "incomplete" }),
      named("half-old", { age: 7, mib: 4, state: "incomplete" }),
      named("huge-new", { age: 2, mib: 11 }),
      named("huge-old", { age: 3, mib: 11 }),
      named("huge-half", { age: 0, mib: 11, state: "incomplete" }),
      named("newest", { age: 1, mib: 8 }),
    ];
    const plan = planRetention(anInput(archives, containerPolicy({ maxTotalSize: "10Mi" })));
    expect(files(plan.deletions)).toEqual([
      "huge-half",
      "huge-old",
      "huge-new",
      "half-old",
      "half-new",
      "oldest",
      "old",
    ]);
  });

  it("count st_size, and pinned archives of any state that somebody owns", () => {
    const archives = (state: ArchiveOptions["state"]) => [
      named("a", { mib: 3, allocated: 99 * MIB }),
      named("pinned", { mib: 8, pinned: true, ...(state && { state }) }),
    ];
    const spec = containerPolicy({ maxTotalSize: "10Mi" });
    for (const state of ["complete", "incomplete", "unsettled", "unread", "postdated"] as const) {
      expect(files(planRetention(anInput(archives(state), spec)).deletions)).toEqual(["a"]);
    }
    const unowned = [
      named("a", { mib: 3 }),
      named("b", { mib: 8, pinned: true, identity: null, state: "unidentified" }),
    ];
    expect(planRetention(anInput(unowned, spec)).deletions).toEqual([]);
    const growing = [named("a", { mib: 3 }), named("b", { mib: 8, state: "unsettled" })];
    expect(planRetention(anInput(growing, spec)).deletions).toEqual([]);
  });

  it("tell in bytes when all that may go has gone and the limit still does not hold", () => {
    const archives = [
      named("a", { mib: 3, age: 9 }),
      named("pinned", { mib: 12, pinned: true }),
      named("b", { age: 1 }),
    ];
    const plan = planRetention(anInput(archives, containerPolicy({ maxTotalSize: "10Mi", minCheckpoints: 1 })));
    expect(files(plan.deletions)).toEqual(["a"]);
    expect(plan.unreachable).toEqual([
      {
        limit: "max_total_size",
        ...container,
        wanted: 6 * MIB,
        freed: 3 * MIB,
        unit: "bytes",
        obstacles: { pinned: 1, floor: 1 },
      },
    ]);
  });

  it("act on containers, then pods, then namespaces, each on what the narrower ones left", () => {
    const archives = [
      ...archivesOf(3, { mib: 2 }).map((archive, index) => ({ ...archive, file: `main-${index}` })),
      ...archivesOf(2, { mib: 2, container: "side", mtimeNs: 1n }).map((one, index) => ({
        ...one,
        file: `side-${index}`,
      })),
      ...archivesOf(2, { mib: 2, pod: "web-1", mtimeNs: 2n }).map((one, index) => ({ ...one, file: `web-1-${index}` })),
    ];
    const globalPolicy = {
      maxTotalSizePerContainer: "4Mi",
      maxTotalSizePerPod: "6Mi",
      maxTotalSizePerNamespace: "8Mi",
    };
    const plan = planRetention(anInput(archives, { globalPolicy }));
    expect(told(plan)).toEqual(["max_total_size main-0", "max_total_size side-0", "max_total_size web-1-0"]);
  });
});

describe("the order of the rules", () => {
  it("is orphan, size, age, counts, total sizes, node; each sees what earlier ones took", () => {
    const archives = [
      named("orphan", { pod: "gone", mib: 50, age: 99_999 }),
      named("large", { mib: 50, age: 99_998 }),
      named("aged", { mib: 1, age: 99_997 }),
      named("surplus", { mib: 1, age: 3000, container: "side" }),
      named("heavy", { mib: 8, age: 2000 }),
      named("node", { mib: 8, age: 1900 }),
      named("watermark", { mib: 5, age: 1800 }),
      named("newest", { mib: 1, age: 1 }),
      named("side", { mib: 1, age: 1, container: "side" }),
    ];
    const spec = {
      globalPolicy: {
        retainOrphan: false,
        maxCheckpointSize: "40Mi",
        maxAge: "1d",
        maxCheckpointsPerPod: 5,
        maxTotalSizePerContainer: "15Mi",
      },
      nodePolicy: { maxTotalSize: "10Mi", minFree: "100Mi" },
    };
    const disk = { usedBytes: 500 * MIB, availableBytes: 0 };
    // What earlier rules take is 118 MiB: minFree would hold. Their allocated bytes decide.
    const input = anInput(
      archives.map((archive) => ({ ...archive, allocated: archive.file === "watermark" ? 5 * MIB : 10 * MIB })),
      spec,
      { orphans: [{ namespace: "team", pod: "gone", listedUpTo: 9 }], node: { disk } },
    );
    expect(told(planRetention(input))).toEqual([
      "orphan orphan",
      "max_checkpoint_size large",
      "max_age aged",
      "max_checkpoints surplus",
      "max_total_size heavy",
      "node_max_total_size node",
      "node_watermark watermark",
    ]);
  });
});

describe("the node's maxTotalSize", () => {
  const spec = { nodePolicy: { maxTotalSize: "10Mi" } };

  it("begins with none that is as large as it and no larger", () => {
    const archives = [
      named("a-equal", { age: 1, mib: 10 }),
      named("a-newest", { age: 0, mib: 1 }),
      named("b-old", { age: 9, mib: 12, namespace: "ops" }),
      named("b-new", { age: 1, mib: 1, namespace: "ops" }),
      named("c-half", { age: 3, mib: 2, state: "incomplete" }),
    ];
    expect(files(planRetention(anInput(archives, spec)).deletions)).toEqual(["b-old", "c-half", "a-equal"]);
  });

  it("begins with those that alone exceed it, then incomplete ones of any namespace, the oldest first", () => {
    const archives = [
      named("a-new", { age: 1 }),
      named("a-half", { age: 5, mib: 2, state: "incomplete" }),
      named("a-huge", { age: 6, mib: 11 }),
      named("b-half", { age: 6, mib: 2, state: "incomplete", namespace: "ops" }),
      named("b-huge", { age: 3, mib: 11, state: "incomplete", namespace: "ops" }),
      named("b-old", { age: 9, mib: 9, namespace: "ops" }),
      named("b-new", { age: 1, mib: 1, namespace: "ops" }),
    ];
    expect(told(planRetention(anInput(archives, spec)))).toEqual([
      "node_max_total_size b-huge",
      "node_max_total_size a-huge",
      "node_max_total_size b-half",
      "node_max_total_size a-half",
      "node_max_total_size b-old",
    ]);
  });

  it("takes torn ones without an owner among the other incomplete ones, and before any whole one, whoever has most", () => {
    const archives = [
      named("half", { age: 5, mib: 2, state: "incomplete" }),
      named("nobody-old", { age: 6, mib: 2, state: "incomplete", identity: null }),
      named("nobody-new", { age: 4, mib: 2, state: "incomplete", identity: null }),
      named("nobody-pinned", { age: 9, mib: 50, state: "incomplete", identity: null, pinned: true }),
      named("old", { age: 9, mib: 5 }),
      named("new", { age: 1, mib: 5 }),
    ];
    const takenUnder = (maxTotalSize: string) =>
      told(planRetention(anInput(archives, { nodePolicy: { maxTotalSize } })));
    const torn = ["nobody-old", "half", "nobody-new"].map((file) => `node_max_total_size ${file}`);
    expect(takenUnder("16Mi")).toEqual([]);
    expect(takenUnder("15Mi")).toEqual(torn.slice(0, 1));
    expect(takenUnder("10Mi")).toEqual(torn);
    expect(takenUnder("9Mi")).toEqual([...torn, "node_max_total_size old"]);
  });

  it("then takes the oldest of the namespace that has most just then, the smaller name where they tie", () => {
    const of = (namespace: string, mib: number) =>
      archivesOf(4, { namespace, mib }).map((archive, index) => ({ ...archive, file: `${namespace}-${index}` }));
    const archives = [...of("b", 2), ...of("a", 2), ...of("c", 3)];
    const plan = planRetention(anInput(archives, { nodePolicy: { maxTotalSize: "13Mi" } }));
    // c 12, a 8, b 8 → c 9 → c 6 → a 6 → b 6 → a 4 → b 4 → 14 → c 3
    expect(files(plan.deletions)).toEqual(["c-0", "c-1", "a-0", "b-0", "a-1", "b-1", "c-2"]);
  });

  it("weighs what a namespace cannot give, and passes over one that has nothing left to give", () => {
    const archives = [
      named("a-pinned", { mib: 20, age: 1, pinned: true, namespace: "a" }),
      named("a-old", { mib: 1, age: 9, namespace: "a" }),
      named("b-old", { mib: 2, age: 9, namespace: "b" }),
      named("b-new", { mib: 2, age: 1, namespace: "b" }),
    ];
    const plan = planRetention(anInput(archives, spec));
    expect(files(plan.deletions)).toEqual(["a-old", "b-old"]);
    expect(plan.unreachable).toEqual([
      {
        limit: "node_max_total_size",
        wanted: 15 * MIB,
        freed: 3 * MIB,
        unit: "bytes",
        obstacles: { pinned: 1, floor: 1 },
      },
    ]);
  });

  it("keeps the newest complete archive that a container still has; where that is pinned, the others may go", () => {
    const archives = [
      named("a", { mib: 8, age: 3 }),
      named("b", { mib: 8, age: 2 }),
      named("half", { mib: 8, age: 1, state: "incomplete" }),
      named("side", { mib: 8, age: 9, container: "side" }),
      named("side-pinned", { mib: 1, age: 1, container: "side", pinned: true }),
    ];
    expect(files(planRetention(anInput(archives, spec)).deletions)).toEqual(["half", "side", "a"]);
  });

  it("computes that newest one from what earlier rules left", () => {
    const archives = [
      named("old", { mib: 8, age: 9 }),
      named("new", { mib: 30, age: 1 }),
      named("x", { pod: "x", mib: 9 }),
    ];
    const both = { ...spec, globalPolicy: { maxCheckpointSize: "20Mi" } };
    const plan = planRetention(anInput(archives, both));
    expect(files(plan.deletions)).toEqual(["new"]);
    expect(plan.unreachable).toHaveLength(1);
  });

  it("keeps the newest that is left where orphan deletion broke the floor", () => {
    const archives = [
      named("new", { mib: 20, age: 1, listed: 1 }),
      named("older", { mib: 20, age: 2, listed: 9 }),
      named("oldest", { mib: 20, age: 3, listed: 9 }),
    ];
    const globalPolicy = { retainOrphan: false, minCheckpointsPerContainer: 1 };
    const orphans = [{ namespace: "team", pod: "web", listedUpTo: 5 }];
    const plan = planRetention(anInput(archives, { ...spec, globalPolicy }, { orphans }));
    expect(told(plan)).toEqual(["orphan new", "node_max_total_size oldest"]);
  });

  it("weighs only what earlier rules left", () => {
    const archives = [
      ...archivesOf(3, { namespace: "a", mib: 4 }).map((one, index) => ({ ...one, file: `a-${index}` })),
      ...archivesOf(3, { namespace: "b", mib: 3 }).map((one, index) => ({ ...one, file: `b-${index}` })),
      named("a-aged", { namespace: "a", mib: 4, age: 9999 }),
      named("b-aged", { namespace: "b", mib: 9, age: 9999 }),
    ];
    const plan = planRetention(
      anInput(archives, { nodePolicy: { maxTotalSize: "20Mi" }, globalPolicy: { maxAge: "1h" } }),
    );
    expect(files(plan.deletions)).toEqual(["a-aged", "b-aged", "a-0"]);
  });

  it("keeps the floor", () => {
    const archives = archivesOf(4, { mib: 8 });
    const plan = planRetention(anInput(archives, { ...spec, globalPolicy: { minCheckpointsPerContainer: 2 } }));
    expect(files(plan.deletions)).toEqual(archives.slice(0, 2).map(({ file }) => file));
  });

  it("counts archives under every policy and acts on scopes that no event has touched", () => {
    const archives = [...archivesOf(3, { mib: 4 }), ...archivesOf(3, { mib: 4, pod: "db" })];
    const plan = planRetention(anInput(archives, { ...spec, ...containerPolicy({}) }, { isActive: () => false }));
    expect(plan.deletions).toHaveLength(4);
  });

  it("does not act where the archives are only a part of the node's", () => {
    expect(planRetention(anInput(archivesOf(9, { mib: 8 }), spec, { node: undefined })).deletions).toEqual([]);
  });
});

describe("the watermark and minFree", () => {
  const archives = archivesOf(6, { size: 1, allocated: gib(1) });
  const plan = (nodePolicy: object, usedGib: number, availableGib: number) =>
    planRetention(
      anInput(
        archives,
        { nodePolicy },
        {
          node: { disk: { usedBytes: gib(usedGib), availableBytes: gib(availableGib) } },
        },
      ),
    );

  it.each([
    ["at the high watermark: nothing", { highWatermarkPercent: 85 }, 85, 15, 0],
    [
      "over it: until usage is below the low one, not at it",
      { highWatermarkPercent: 85, lowWatermarkPercent: 83 },
      86,
      14,
      4,
    ],
    ["over it: down to 5 percent under it where no low one is named", { highWatermarkPercent: 90 }, 46, 4, 4],
    ["between the two: nothing", { highWatermarkPercent: 85, lowWatermarkPercent: 80 }, 84, 16, 0],
    ["minFree holds exactly: nothing", { minFree: "15Gi" }, 85, 15, 0],
    ["minFree does not hold: until it holds exactly", { minFree: "15Gi" }, 87, 13, 2],
    [
      "both: whichever asks for more",
      { highWatermarkPercent: 85, lowWatermarkPercent: 84, minFree: "18Gi" },
      86,
      14,
      4,
    ],
    ["both, the other way", { highWatermarkPercent: 85, lowWatermarkPercent: 82, minFree: "15Gi" }, 86, 14, 5],
  ])("%s", (_, nodePolicy, used, available, deleted) => {
    const { deletions, unreachable } = plan(nodePolicy, used, available);
    expect(files(deletions)).toEqual(archives.slice(0, deleted).map(({ file }) => file));
    expect(deletions.every(({ reason }) => reason === "node_watermark")).toBe(true);
    expect(watermarkBytes({ deletions })).toBe(gib(deleted));
    expect(unreachable).toEqual([]);
  });

  it("tell what is missing when all that may go has gone, and keep each container's newest", () => {
    const { deletions, unreachable } = plan({ minFree: "20Gi" }, 90, 10);
    expect(deletions).toHaveLength(5);
    expect(unreachable).toEqual([
      { limit: "node_watermark", wanted: gib(10), freed: gib(5), unit: "bytes", obstacles: { floor: 1 } },
    ]);
  });

  it("tell of archives that may still be written as what stands in the way, if they take up disk space", () => {
    const unsettled = [
      anArchive({ state: "unsettled" }),
      anArchive({ state: "unsettled", identity: null }),
      anArchive({ state: "unsettled", identity: null, pinned: true }),
      anArchive({ state: "unsettled", allocated: 0 }),
    ];
    const disk = { usedBytes: gib(90), availableBytes: gib(10) };
    const spec = { nodePolicy: { minFree: "20Gi" } };
    const { unreachable } = planRetention(anInput(unsettled, spec, { node: { disk } }));
    expect(unreachable).toMatchObject([{ limit: "node_watermark", freed: 0, obstacles: { unsettled: 2 } }]);
  });

  it("do nothing on a disk whose usage is unknown", () => {
    const nodePolicy = { highWatermarkPercent: 1, minFree: "1Ti" };
    expect(planRetention(anInput(archives, { nodePolicy }, { node: { disk: undefined } })).deletions).toEqual([]);
    expect(plan(nodePolicy, 0, 0).deletions).toEqual([]);
  });

  it("take from the namespace whose name comes first, where several have the same bytes", () => {
    const later = archivesOf(2, { namespace: "a" });
    const earlier = archivesOf(2, { namespace: "b" }).map((archive) => ({
      ...archive,
      timeMs: archive.timeMs - 9_000_000,
    }));
    const middle = archivesOf(2, { namespace: "a-b" }).map((archive) => ({
      ...archive,
      timeMs: archive.timeMs - 5_000_000,
    }));
    for (const archives of [
      [...later, ...earlier, ...middle],
      [...earlier, ...middle, ...later],
    ]) {
      const plan = planRetention(anInput(archives, { nodePolicy: { maxTotalSize: "4Mi" } }));
      expect(plan.deletions.map(({ archive }) => archive)).toEqual([later[0], middle[0]]);
    }
  });

  it("compute without rounding on the largest file systems", () => {
    // One byte over 80 percent, which products of doubles do not tell.
    const size = Number.MAX_SAFE_INTEGER - 3;
    const atMark = Number((BigInt(size) * 80n) / 100n);
    const take = (usedBytes: number) =>
      planRetention(
        anInput(
          archives,
          { nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 79 } },
          {
            node: { disk: { usedBytes, availableBytes: size - usedBytes } },
          },
        ),
      ).deletions.length;
    expect(take(atMark)).toBe(0);
    expect(take(atMark + 1)).toBe(5);
  });

  it("count as freed what earlier rules take, in allocated bytes, and what is only deferred", () => {
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 5 }, nodePolicy: { minFree: "15Gi" } };
    const disk = { usedBytes: gib(86), availableBytes: gib(14) };
    const settled = planRetention(anInput(archives, spec, { node: { disk } }));
    expect(settled.deletions.map(({ reason }) => reason)).toEqual(["max_checkpoints"]);
    expect(watermarkBytes(settled)).toBe(0);
    const fresh = archives.map((archive, index) => ({ ...archive, settled: index !== 0 }));
    const deferred = planRetention(anInput(fresh, spec, { node: { disk } }));
    expect(deferred.deferred.map(({ reason }) => reason)).toEqual(["max_checkpoints"]);
    expect(deferred.deletions).toEqual([]);
    expect(watermarkBytes(deferred)).toBe(0);
  });

  it("take incomplete ones first, then from the namespace that takes up most of the disk", () => {
    const mixed = [
      ...archivesOf(3, { namespace: "a", size: gib(9), allocated: gib(1) }).map((one, index) => ({
        ...one,
        file: `a-${index}`,
      })),
      ...archivesOf(3, { namespace: "b", size: 1, allocated: gib(2) }).map((one, index) => ({
        ...one,
        file: `b-${index}`,
      })),
      named("a-half", { namespace: "a", state: "incomplete", age: 1, allocated: gib(1) }),
      named("b-half", { namespace: "b", state: "incomplete", age: 2, allocated: gib(1) }),
    ];
    const disk = { usedBytes: gib(90), availableBytes: gib(10) };
    const { deletions } = planRetention(anInput(mixed, { nodePolicy: { minFree: "16Gi" } }, { node: { disk } }));
    expect(files(deletions)).toEqual(["b-half", "a-half", "b-0", "b-1"]);
  });
});

describe("what has not been unchanged for long enough", () => {
  it("is deferred, and nothing newer goes in its stead", () => {
    const archives = [
      named("a", { age: 4, settled: false }),
      named("b", { age: 3 }),
      named("c", { age: 2 }),
      named("d", { age: 1 }),
    ];
    const plan = planRetention(anInput(archives, containerPolicy({ maxCheckpoints: 2 })));
    expect(files(plan.deletions)).toEqual(["b"]);
    expect(plan.deferred.map(({ archive, reason }) => `${reason} ${archive.file}`)).toEqual(["max_checkpoints a"]);
  });

  it("is not in the bytes that the watermark waits for", () => {
    const archives = archivesOf(3, { allocated: gib(1), settled: false });
    const disk = { usedBytes: gib(90), availableBytes: gib(10) };
    const plan = planRetention(anInput(archives, { nodePolicy: { minFree: "12Gi" } }, { node: { disk } }));
    expect(plan.deferred).toHaveLength(2);
    expect(watermarkBytes(plan)).toBe(0);
  });
});

describe("the node's rules, beside an archive that cannot be deleted just now", () => {
  const stuckOn = (...names: string[]) => ({ stuck: new Set(names) });

  it("keep the newest archive that its container will have once an earlier rule has its way", () => {
    const archives = [named("left", { mib: 3, age: 9 }), named("wanted gone", { mib: 20, age: 1 })];
    const spec = { globalPolicy: { maxCheckpointSize: "10Mi" }, nodePolicy: { maxTotalSize: "1Mi" } };
    const plan = planRetention(anInput(archives, spec, stuckOn("wanted gone")));
    expect(told(plan)).toEqual([]);
    expect(files(plan.stuck)).toEqual(["wanted gone"]);
  });

  it("let no complete archive go for the bytes of an incomplete one, and say that the limit is exceeded", () => {
    const archives = [
      named("torn", { mib: 8, age: 9, state: "incomplete" }),
      named("old", { mib: 3, age: 8 }),
      named("new", { mib: 3, age: 7 }),
    ];
    const planFor = (maxTotalSize: string) =>
      planRetention(anInput(archives, { nodePolicy: { maxTotalSize } }, stuckOn("torn")));
    const inTheWay = { obstacles: { failing: 1, floor: 1 }, codes: ["UNKNOWN"] };
    const exceeded = { limit: "node_max_total_size", wanted: 4 * MIB, freed: 0, unit: "bytes", ...inTheWay };
    expect(told(planFor("10Mi"))).toEqual([]);
    expect(planFor("10Mi").unreachable).toEqual([exceeded]);
    expect(told(planFor("5Mi"))).toEqual(["node_max_total_size old"]);
    expect(planFor("5Mi").unreachable).toEqual([{ ...exceeded, wanted: 9 * MIB, freed: 3 * MIB }]);
  });
});

describe("a limit for which an archive must go whose last deletion failed", () => {
  const archives = [
    named("old", { mib: 3, age: 9 }),
    named("middle", { mib: 2, age: 8 }),
    named("new", { mib: 2, age: 7 }),
  ];
  const failing = new Map([["old", "EPERM"]]);

  it.each([
    ["maxCheckpoints", { maxCheckpoints: 1 }, { limit: "max_checkpoints", wanted: 2, freed: 1, unit: "archives" }],
    [
      "maxTotalSize",
      { maxTotalSize: "3Mi" },
      { limit: "max_total_size", wanted: 4 * MIB, freed: 2 * MIB, unit: "bytes" },
    ],
    ["maxAge", { maxAge: "1s" }, { limit: "max_age", wanted: 3, freed: 2, unit: "archives" }],
  ])("is told as one that does not hold, with the code: %s", (_, limits, told) => {
    for (const input of [{ failing }, { failing, stuck: new Set(["old"]) }]) {
      const nowMs = NOW_MS + 86_400_000;
      const plan = planRetention(anInput(archives, containerPolicy(limits), { ...input, nowMs }));
      expect(plan.unreachable).toEqual([{ ...container, ...told, obstacles: { failing: 1 }, codes: ["EPERM"] }]);
    }
  });

  it("is told with at most five codes, in order", () => {
    const many = archivesOf(8);
    const codes = new Map(many.map(({ file }, at) => [file, `E${8 - at}`]));
    const spec = containerPolicy({ maxCheckpoints: 1 });
    const [limit] = planRetention(anInput(many, spec, { failing: codes })).unreachable;
    expect(limit?.obstacles).toEqual({ failing: 8 });
    expect(limit?.codes).toEqual(["E1", "E2", "E3", "E4", "E5"]);
  });

  it("does not keep the rule from taking that archive first, and no other in its stead", () => {
    const plan = planRetention(anInput(archives, containerPolicy({ maxCheckpoints: 2 }), { failing }));
    expect(told(plan)).toEqual(["max_checkpoints old"]);
  });
});

describe("an archive that has not been walked", () => {
  const unwalked = (options: ArchiveOptions) => named("unwalked", { walked: false, state: "unread", ...options });
  const globalPolicy = {
    maxCheckpointSize: "1Mi",
    maxAge: "1h",
    maxCheckpointsPerContainer: 1,
    maxCheckpointsPerPod: 1,
    maxCheckpointsPerNamespace: 1,
    maxTotalSizePerContainer: "1Mi",
    retainOrphan: false,
  };
  const orphans = [{ namespace: "team", pod: "web", listedUpTo: 9 }];

  it("stops every rule on each scope that it may lie in", () => {
    const archives = archivesOf(3, { mib: 2, age: 9999 });
    const one = unwalked({ container: "other" });
    const readings = [{ namespace: "ops", pod: "x", container: "y" }, container];
    const spec = { globalPolicy, nodePolicy: { maxTotalSize: "1Mi", minFree: "1Ti" } };
    const plan = planRetention(
      anInput([...archives, { ...one, identity: undefined, candidates: readings }], spec, {
        orphans,
        node: { disk: { usedBytes: gib(1), availableBytes: 1 } },
      }),
    );
    expect([plan.deletions, plan.deferred, plan.unreachable]).toEqual([[], [], []]);
  });

  it("stops none on scopes that it cannot lie in", () => {
    const archives = [...archivesOf(3), ...archivesOf(2, { namespace: "ops" })];
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 1 }, podPolicies: [{ namespace: "x", pod: "x" }] };
    const plan = planRetention(anInput([...archives, unwalked({ container: "side" })], spec));
    expect(plan.deletions).toHaveLength(3);
    const wide = planRetention(
      anInput([...archives, unwalked({ container: "side" })], { globalPolicy: { maxCheckpointsPerNamespace: 1 } }),
    );
    expect(wide.deletions.map(({ archive }) => archive.identity?.namespace)).toEqual(["ops"]);
  });

  it("stops rules on its owner's scopes even where its name reads otherwise", () => {
    const one = { ...unwalked({}), candidates: [] };
    expect(planRetention(anInput([...archivesOf(3), one], { globalPolicy })).deletions).toEqual([]);
  });
});

describe("scopes that wait for their next event", () => {
  const archives = archivesOf(2, { mib: 2 });
  const orphans = [{ namespace: "team", pod: "web", listedUpTo: 9 }];
  const all = { maxCheckpointSize: "1Mi", maxAge: "30s", retainOrphan: false };

  it.each([
    ["team/web/main", { globalPolicy: { ...all } }],
    ["team/web/main", { globalPolicy: { maxCheckpointsPerContainer: 1 } }],
    ["team/web", { globalPolicy: { maxCheckpointsPerPod: 1 } }],
    ["team", { globalPolicy: { maxCheckpointsPerNamespace: 1 } }],
    ["team/web/main", { globalPolicy: { maxTotalSizePerContainer: "2Mi" } }],
    ["team/web", { globalPolicy: { maxTotalSizePerPod: "2Mi" } }],
    ["team", { globalPolicy: { maxTotalSizePerNamespace: "2Mi" } }],
    ["team/web/main", containerPolicy({ maxCheckpoints: 1, ...all })],
    ["team/web", { podPolicies: [{ namespace: "team", pod: "web", maxCheckpoints: 1, ...all }] }],
    ["team", { namespacePolicies: [{ namespace: "team", maxCheckpoints: 1, ...all }] }],
  ])("act only when %s is active: %j", (active, spec) => {
    const planWith = (isActive: (scope: string) => boolean) =>
      planRetention(anInput(archives, spec, { isActive, orphans }));
    expect(planWith((scope) => scope === active).deletions).not.toEqual([]);
    const waiting = planWith((scope) => scope !== active);
    expect(waiting.deletions).toEqual([]);
    expect(waiting.waits).toBe(true);
    expect(planWith(() => true).waits).toBe(false);
  });

  it("are not told of as unreachable before", () => {
    const pinned = archivesOf(2, { mib: 2, pinned: true });
    const spec = containerPolicy({ maxCheckpoints: 1, maxTotalSize: "1Mi", ...all });
    expect(planRetention(anInput(pinned, spec, { isActive: () => false })).unreachable).toEqual([]);
    expect(planRetention(anInput(pinned, spec)).unreachable.map(({ limit }) => limit)).toEqual([
      "max_checkpoint_size",
      "max_age",
      "max_checkpoints",
      "max_total_size",
    ]);
  });
});

describe("maxAgeUnmanaged", () => {
  const HOUR_MS = 3_600_000;
  const nodePolicy = { maxAgeUnmanaged: "1h" };
  const seen = (file: string, hours: number, options: ArchiveOptions = {}) =>
    named(file, { state: "unread", unmanagedSinceMs: NOW_MS - hours * HOUR_MS, ...options });

  it("takes what is unread or unidentified and was seen unchanged for longer, the oldest first, whatever its own times say", () => {
    const archives = [
      seen("unread", 2, { age: 5 }),
      seen("nobody", 2, { age: 6, state: "unidentified", identity: null }),
      seen("one-more-ms", 1, { age: -9, unmanagedSinceMs: NOW_MS - HOUR_MS - 1 }),
      seen("not-yet", 1, { age: 9_999_999 }),
      seen("seen-later-than-now", -400 * 24),
      seen("not-known-since-when", 0, { unmanagedSinceMs: undefined }),
    ];
    const expected = ["nobody", "unread", "one-more-ms"].map((file) => `max_age_unmanaged ${file}`);
    expect(told(planRetention(anInput(archives, { nodePolicy })))).toEqual(expected);
    // It is a rule of the node: it asks for no event.
    expect(told(planRetention(anInput(archives, { nodePolicy }, { isActive: () => false })))).toEqual(expected);
  });

  it.each<[string, ArchiveOptions, Parameters<typeof anInput>[2]?]>([
    ["is pinned", { pinned: true }],
    ["was not looked into", { walked: false }],
    ["is postdated", { state: "postdated" }],
    ["is unsettled", { state: "unsettled" }],
    ["is torn", { state: "incomplete" }],
    ["is torn and nobody's", { state: "incomplete", identity: null }],
    ["is an archive", { state: "complete" }],
    ["has no age, for no time is trusted", {}, { nowMs: undefined }],
    ["may not be all there is", {}, { node: undefined }],
  ])("never takes what %s", (_, options, rest = {}) => {
    const { deletions, deferred, stuck } = planRetention(anInput([seen("a", 400 * 24, options)], { nodePolicy }, rest));
    expect([deletions, deferred, stuck]).toEqual([[], [], []]);
  });

  it("takes nothing unless it is asked for, and nothing while any archive has not been looked into", () => {
    const old = seen("a", 400 * 24);
    expect(planRetention(anInput([old], { nodePolicy: { maxTotalSize: "1Mi" } })).deletions).toEqual([]);
    expect(planRetention(anInput([old, named("b", { walked: false })], { nodePolicy })).deletions).toEqual([]);
  });

  it("frees what no archive then has to go for", () => {
    const archives = [...archivesOf(3), seen("garbage", 2)];
    const disk = { usedBytes: 90 * MIB, availableBytes: 10 * MIB };
    const planFor = (spec: object) => told(planRetention(anInput(archives, { nodePolicy: spec }, { node: { disk } })));
    expect(planFor({ ...nodePolicy, minFree: "11Mi" })).toEqual(["max_age_unmanaged garbage"]);
    expect(planFor({ minFree: "11Mi" })).toEqual([expect.stringMatching(/^node_watermark checkpoint/)]);
  });

  it("waits for what is not settled or cannot be deleted", () => {
    const archives = [seen("fresh", 2, { settled: false }), seen("stuck", 2)];
    const plan = planRetention(anInput(archives, { nodePolicy }, { stuck: new Set(["stuck"]) }));
    expect([files(plan.deletions), files(plan.deferred), files(plan.stuck)]).toEqual([[], ["fresh"], ["stuck"]]);
  });
});

describe("minFreeInodes", () => {
  const planOf = (archives: Archive[], nodePolicy: object, { free = 10, spec = {}, used = 0 } = {}) => {
    const disk = { usedBytes: used * MIB, availableBytes: (100 - used) * MIB, inodes: { total: 100, free } };
    return planRetention(anInput(archives, { ...spec, nodePolicy }, { node: { disk } }));
  };

  it("takes incomplete archives first, then the oldest of the namespace that has the most of them", () => {
    const archives = [
      ...["a1", "a2", "a3"].map((file, at) => named(file, { namespace: "a", age: 60 - at, mib: 1 })),
      ...["b1", "b2"].map((file, at) => named(file, { namespace: "b", age: 90 - at, mib: 30 })),
      named("torn", { namespace: "b", age: 1, state: "incomplete" }),
    ];
    expect(told(planOf(archives, { minFreeInodes: 13 }))).toEqual(
      ["torn", "a1", "a2"].map((file) => `node_inodes ${file}`),
    );
  });

  it("counts what goes for bytes, by other rules or as soon as it has settled, and takes only what is wanted beside", () => {
    const archives = archivesOf(6, { mib: 10 });
    const names = archives.map(({ file }) => file);
    const reasons = (plan: Plan) => plan.deletions.map(({ reason }) => reason);
    const both = planOf(archives, { minFree: "60Mi", minFreeInodes: 13 }, { used: 60 });
    expect([reasons(both), files(both.deletions)]).toEqual([
      ["node_watermark", "node_watermark", "node_inodes"],
      names.slice(0, 3),
    ]);
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 4 } };
    expect(reasons(planOf(archives, { minFreeInodes: 13 }, { spec }))).toEqual([
      ...["max_checkpoints", "max_checkpoints", "node_inodes"],
    ]);
    const fresh = archives.map((archive, at) => ({ ...archive, settled: at > 0 }));
    const waiting = planOf(fresh, { minFreeInodes: 11 });
    expect([files(waiting.deletions), files(waiting.deferred)]).toEqual([[], names.slice(0, 1)]);
  });

  it("takes nothing for what other names of a file may give back that go by other rules", () => {
    const archives = archivesOf(4).map((archive, at) => ({ ...archive, hasOtherNames: at < 2 }));
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 2 } };
    const plan = planOf(archives, { minFreeInodes: 12 }, { spec });
    expect(plan.deletions.map(({ reason }) => reason)).toEqual(["max_checkpoints", "max_checkpoints"]);
    expect(plan.unreachable).toEqual([]);
  });

  it("tells what stands in its way: pins, or files that give nothing back", () => {
    const amounts = { limit: "node_inodes", wanted: 40, freed: 0, unit: "archives" };
    const pinned = planOf(archivesOf(3, { pinned: true }), { minFreeInodes: "50%", minFree: 0 });
    // A share is of no use to the planner: who knows the file system makes a number of it.
    expect([pinned.deletions, pinned.unreachable]).toEqual([[], []]);
    const counted = planOf(archivesOf(3, { pinned: true }), { minFreeInodes: 50 });
    expect([counted.deletions, counted.unreachable]).toEqual([[], [{ ...amounts, obstacles: { pinned: 3 } }]]);
    const linked = planOf(archivesOf(3, { hasOtherNames: true }), { minFreeInodes: 50 });
    expect([linked.deletions, linked.unreachable]).toEqual([[], [amounts]]);
  });
});
