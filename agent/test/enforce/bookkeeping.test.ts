import { unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { archiveBytes, archiveName, archiveTime, writeArchive } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer, keepOne } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const DAY_MS = 86_400_000;

type Driven = ReturnType<typeof driveEnforcer>;

/** So many archives of a container, which a .keep beside each protects; nothing is told of them. */
function seePinned(driven: Driven, folder: string, count: number, parts: Parameters<typeof writeArchive>[1] = {}) {
  return Array.from({ length: count }, (_, at) => {
    const file = writeArchive(folder, { ...parts, time: archiveTime(Date.now() - 7_200_000 + at * 1000) });
    driven.see(file, { isTold: false }).pinned = true;
    return file;
  });
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await nextTurn();
}

/** Lets so much time pass, and the enforcer take notice of it. */
async function tickAfter(driven: Driven, ms: number): Promise<void> {
  driven.clock.pass(ms);
  driven.enforcer.tick();
  await driven.calm();
}

describe("limits that cannot be reached", () => {
  const inOrder = (driven: Driven) => {
    const { unreachable } = driven.enforcer.status();
    return unreachable.map(({ namespace, pod, container }) => [namespace, pod, container].join(" ")).sort();
  };

  it.each([
    [
      "container",
      { maxCheckpointsPerContainer: 1 },
      ["shop web-0 app", "shop web-0 side", "shop web-1 app", "team web-0 app"],
    ],
    ["pod", { maxCheckpointsPerPod: 1 }, ["shop web-0 ", "shop web-1 ", "team web-0 "]],
    ["namespace", { maxCheckpointsPerNamespace: 1 }, ["shop  ", "team  "]],
  ])("are told for each %s, whatever happens in another, until they can be", async (_, globalPolicy, told) => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ applyPoliciesImmediately: true, globalPolicy }, folder),
    });
    const [file = ""] = seePinned(driven, folder, 2);
    seePinned(driven, folder, 2, { container: "side" });
    seePinned(driven, folder, 2, { pod: "web-1" });
    const [elsewhere = ""] = seePinned(driven, folder, 2, { namespace: "team" });
    driven.enforcer.listed();
    await driven.calm();
    expect(inOrder(driven)).toEqual(told);
    expect(driven.logged.filter(({ msg }) => msg === "limit cannot be reached")).toHaveLength(told.length);
    for (const changed of [file, elsewhere]) {
      driven.see(changed, { isEvent: true });
      await driven.calm();
      expect(inOrder(driven)).toEqual(told);
    }
    unlinkSync(join(folder, elsewhere));
    driven.see(elsewhere);
    await driven.calm();
    expect(inOrder(driven)).toEqual(told.slice(0, -1));
  });

  it("are logged no second time where everything is planned anew, and are taken back with their namespace", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    const files = seePinned(driven, folder, 2);
    driven.enforcer.listed();
    await driven.calm();
    driven.apply({ ...keepOne, nodePolicy: { maxTotalSize: "1Ti" } });
    await driven.calm();
    expect(driven.runs()).toBe(2);
    expect(driven.enforcer.status().unreachable).toHaveLength(1);
    expect(driven.logged.filter(({ msg }) => msg === "limit cannot be reached")).toHaveLength(1);
    for (const file of files) driven.index.remove(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it.each([
    ["pod", { podPolicies: [{ namespace: "shop", pod: "web-0", maxAge: "1m" }] }],
    ["namespace", { namespacePolicies: [{ namespace: "shop", maxAge: "1m" }] }],
  ])("in age count all of the %s that the policy is for, also when one container has news", async (_, spec) => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ ...spec, applyPoliciesImmediately: true }, folder),
    });
    const [file = ""] = seePinned(driven, folder, 1);
    seePinned(driven, folder, 1, { container: "side" });
    driven.enforcer.listed();
    await driven.calm();
    driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toMatchObject([{ limit: "max_age", wanted: 2, freed: 0 }]);
  });

  it("of the node's total size is taken back once the rest is small enough", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { maxTotalSize: "1Mi" } }, folder),
    });
    const [first = ""] = seePinned(driven, folder, 4, { pagesBytes: 300 * 1024 });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toMatchObject([{ limit: "node_max_total_size" }]);
    unlinkSync(join(folder, first));
    driven.see(first);
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("in disk space are not told while that may still come", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 10);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 60 } }, folder),
      readDisk: () => ({ sizeBytes: 100_000, usedBytes: 90_000, availableBytes: 10_000 }),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.deleted.length).toBeGreaterThan(0);
    driven.see(files.at(-1) ?? "", { isEvent: true });
    await driven.calm();
    await tickAfter(driven, 0);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });
});

describe("a run", () => {
  it("waits for a policy, and for a directory", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      readDisk: () => ({ sizeBytes: 100, usedBytes: 99, availableBytes: 1 }),
    });
    for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    driven.enforcer.tick();
    await turns(20);
    expect(driven.enforcer.status().planned.size).toBe(0);
    await driven.enforcer.setDirectory(undefined);
    driven.apply(keepOne);
    driven.enforcer.tick();
    await turns(20);
    expect(driven.runs()).toBe(0);
    expect(driven.logged).toEqual([]);
  });

  it("lets all else have its turn before each namespace", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    const namespaces = Array.from({ length: 10 }, (_, at) => `team-${at}`);
    for (const namespace of namespaces) driven.see(writeArchive(folder, { namespace }), { isTold: false });
    driven.enforcer.listed();
    let passed = 0;
    while (!driven.enforcer.status().isIdle) {
      await nextTurn();
      passed += 1;
    }
    expect(driven.runs()).toBe(1);
    expect(passed).toBeGreaterThanOrEqual(namespaces.length);
  });

  it("is made once for a policy, however often that comes", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    driven.enforcer.listed();
    await driven.calm();
    driven.apply(keepOne);
    await driven.calm();
    expect(driven.runs()).toBe(1);
  });

  it("is not made any more once it was stopped", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    driven.enforcer.listed();
    await driven.calm();
    await driven.enforcer.stop();
    for (const file of files) driven.see(file, { isEvent: true });
    await turns(50);
    expect([driven.runs(), driven.files()]).toEqual([1, []]);
  });

  it("that a .pause keeps from deleting tells what it would delete in every namespace", async () => {
    const folder = aFolder();
    const files = [...aSeries(folder, 2), ...aSeries(folder, 2, { namespace: "team" })];
    writeFileSync(join(folder, ".pause"), "");
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect([...driven.enforcer.status().planned.keys()].sort()).toEqual([files[0], files[2]].sort());
    unlinkSync(join(folder, ".pause"));
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.logged).toMatchObject([{ paused: false, msg: "deletion goes on" }]);
    expect(driven.files().sort()).toEqual([files[0], files[2]].sort());
  });

  it("tells how long after the event each archive went", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => driven.clock.pass(30),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    driven.clock.pass(5);
    await driven.calm();
    expect(driven.latenciesMs).toEqual([5, 35]);
  });
});

describe("an archive that is nobody's", () => {
  it("because spec.dump and name contradict each other is taken in like any other", async () => {
    const folder = aFolder();
    const file = archiveName({ container: "main" });
    writeFileSync(join(folder, file), archiveBytes({ namespace: "other", container: "main" }));
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    driven.enforcer.listed();
    expect(driven.see(file, { isEvent: true }).identity).toBeUndefined();
    await driven.calm();
  });

  it("as yet may go while a policy waits for events", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 1 } }, folder),
    });
    driven.enforcer.listed();
    for (const file of aSeries(folder, 2)) driven.see(file, { isEvent: true });
    const undecided = writeArchive(folder, { namespace: "team-prod" });
    driven.see(undecided, { isWalked: false });
    unlinkSync(join(folder, undecided));
    driven.see(undecided);
    await driven.calm();
    expect(driven.files()).toHaveLength(1);
  });
});

describe("an age", () => {
  const spec = { applyPoliciesImmediately: true, globalPolicy: { maxAge: "1d" } };

  /** An enforcer with one archive that reaches its age in so many milliseconds. */
  function withOneReachingIn(ms: number, isTrusted = () => true) {
    const folder = aFolder();
    const timeMs = Math.floor(Date.now() / 1000) * 1000 - 10 * DAY_MS;
    const clock = aClock({ wallMs: timeMs + DAY_MS - ms });
    const policy = { ...anAcceptedPolicy(spec, folder), acceptedAtTrustedMs: clock.wallMs() };
    const driven = driveEnforcer(folder, {
      policy,
      clock,
      trustedMs: () => (isTrusted() ? clock.wallMs() : undefined),
    });
    const [file = ""] = aSeries(folder, 1, { startMs: timeMs });
    const entry = driven.see(file, { isTold: false });
    driven.enforcer.listed();
    return { folder, clock, driven, file, entry };
  }

  it("is kept to the millisecond", async () => {
    const { driven, file } = withOneReachingIn(1000);
    await tickAfter(driven, 0);
    await tickAfter(driven, 1000);
    expect(driven.files()).toEqual([]);
    await tickAfter(driven, 1);
    expect(driven.deleted).toMatchObject([{ file, reason: "max_age" }]);
  });

  it("of an archive that came since is known at once", async () => {
    const { clock, driven, folder } = withOneReachingIn(3_600_000);
    await tickAfter(driven, 0);
    const [older = ""] = aSeries(folder, 1, { container: "other", startMs: clock.wallMs() - DAY_MS + 5000 });
    driven.see(older, { isEvent: true });
    await tickAfter(driven, 0);
    await tickAfter(driven, 6000);
    expect(driven.files()).toEqual([older]);
  });

  it("of what is pinned is looked at once", async () => {
    const { driven, entry } = withOneReachingIn(1000);
    entry.pinned = true;
    await tickAfter(driven, 0);
    await tickAfter(driven, 2000);
    const runs = driven.runs();
    expect(driven.enforcer.status().unreachable).toMatchObject([{ limit: "max_age", wanted: 1 }]);
    for (let second = 0; second < 3; second += 1) await tickAfter(driven, 1000);
    expect(driven.runs()).toBe(runs);
  });

  it("that was reached before the policy came waits for a time that can be trusted; losing it is told once", async () => {
    let isTrusted = false;
    const { driven, file } = withOneReachingIn(-5000, () => isTrusted);
    await tickAfter(driven, 0);
    await tickAfter(driven, 0);
    expect(driven.files()).toEqual([]);
    expect(driven.logged).toEqual([]);
    isTrusted = true;
    await tickAfter(driven, 0);
    expect(driven.files()).toEqual([file]);
    isTrusted = false;
    for (let second = 0; second < 3; second += 1) await tickAfter(driven, 1000);
    expect(driven.logged).toMatchObject([{ msg: "the clock jumped; ages wait for the next directive" }]);
  });
});

describe("a trusted time that jumps, because every clock was set right", () => {
  it("makes no age reached that it jumped over, and goes on with those that come after", async () => {
    const folder = aFolder();
    const startMs = Math.floor(Date.now() / 1000) * 1000 - 400 * DAY_MS;
    const clock = aClock({ wallMs: startMs });
    const policy = { ...anAcceptedPolicy({ globalPolicy: { maxAge: "1d" } }, folder), acceptedAtTrustedMs: startMs };
    const driven = driveEnforcer(folder, { policy, clock });
    // By the right time one is two days old, the other a day but for an hour.
    const rightMs = startMs + 300 * DAY_MS;
    const [over = ""] = aSeries(folder, 1, { container: "over", startMs: rightMs - 2 * DAY_MS });
    const [next = ""] = aSeries(folder, 1, { container: "next", startMs: rightMs - DAY_MS + 3_600_000 });
    for (const file of [over, next]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await tickAfter(driven, 0);
    clock.jump(300 * DAY_MS);
    for (const file of [over, next]) driven.see(file);
    await tickAfter(driven, 1000);
    expect(driven.files()).toEqual([]);
    await tickAfter(driven, 3_600_000);
    expect(driven.files()).toEqual([next]);
  });

  it("counts as the moment of acceptance, if none was trusted when the policy came", async () => {
    const folder = aFolder();
    const clock = aClock();
    const { acceptedAtTrustedMs: _, ...policy } = anAcceptedPolicy({ globalPolicy: { maxAge: "1d" } }, folder);
    let isTrusted = false;
    const trustedMs = () => (isTrusted ? clock.wallMs() : undefined);
    const driven = driveEnforcer(folder, { policy, clock, trustedMs });
    const [old = ""] = aSeries(folder, 1, { startMs: clock.wallMs() - 2 * DAY_MS });
    const [next = ""] = aSeries(folder, 1, { container: "next", startMs: clock.wallMs() - DAY_MS + 60_000 });
    for (const file of [old, next]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await tickAfter(driven, 30_000);
    isTrusted = true;
    await tickAfter(driven, 0);
    await tickAfter(driven, 62_000);
    expect(driven.files()).toEqual([next]);
  });
});

describe("what a deletion rests on, when its turn comes late in a plan", () => {
  it("is the trusted time: archives that are too old go only while there is one by which they are", async () => {
    const folder = aFolder();
    const clock = aClock();
    const files = aSeries(folder, 5, { startMs: clock.wallMs() - 2 * DAY_MS });
    let trustedMs: number | undefined = clock.wallMs();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ applyPoliciesImmediately: true, globalPolicy: { maxAge: "1d" } }, folder),
      clock,
      trustedMs: () => trustedMs,
      onDeleted: (file) => {
        if (file === files[0]) trustedMs = clock.wallMs() - 10 * DAY_MS;
        if (file === files[1]) trustedMs = undefined;
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
    trustedMs = clock.wallMs();
    driven.enforcer.changed(driven.see(files[4] ?? "", { isTold: false }), true);
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
  });

  it("is the disk: a pass ends when enough is free, whoever freed it", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 8);
    const MIB = 1024 * 1024;
    let freeMib = 1;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { minFree: "10Mi" } }, folder),
      onDeleted: (file) => {
        freeMib = file === files[1] ? 50 : freeMib;
      },
      readDisk: () => ({ sizeBytes: 100 * MIB, usedBytes: (100 - freeMib) * MIB, availableBytes: freeMib * MIB }),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
  });

  it("is a disk that tells how full it is", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    let isTelling = true;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { minFree: "10Mi" } }, folder),
      onDeleted: () => {
        isTelling = false;
      },
      readDisk: () => (isTelling ? { sizeBytes: 100, usedBytes: 99, availableBytes: 1 } : undefined),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
  });
});

describe("a proof of a pod whose archives stay", () => {
  it.each([
    ["because the policy retains them", { maxCheckpointsPerContainer: 1 }, false],
    ["because it is a static pod's", { maxCheckpointsPerContainer: 1, retainOrphan: false }, true],
  ])("is no event: %s", async (_, globalPolicy, isStaticPod) => {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy({ globalPolicy }, folder) });
    for (const file of files) driven.see(file, { isTold: false }).isStaticPod = isStaticPod;
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const facts = [{ bootId: "boot", report: 1, namespace: "shop", pod: "web-0" }];
    driven.enforcer.proved(driven.proofs.receive(facts, driven.clock.monotonicMs()));
    await driven.calm();
    const [first] = driven.index.all();
    if (first !== undefined) driven.enforcer.changed(first, false);
    await driven.calm();
    expect(driven.files()).toEqual([]);
  });
});

describe("a scope that waits for walks", () => {
  it("is planned for as soon as the last of them is done, whichever policy governs that archive", async () => {
    const folder = aFolder();
    const spec = {
      applyPoliciesImmediately: true,
      namespacePolicies: [{ namespace: "shop", maxCheckpoints: 2 }],
      containerPolicies: [{ namespace: "shop", pod: "web-0", container: "own", maxCheckpoints: 5 }],
    };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    const files = aSeries(folder, 3, { container: "crowd" });
    const [own = ""] = aSeries(folder, 1, { container: "own" });
    for (const file of files.slice(0, 2)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    for (const file of [own, files[2] ?? ""]) driven.see(file, { isWalked: false });
    driven.see(files[2] ?? "", { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.see(own, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
  });

  it("is planned for after a policy that came meanwhile, too", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy({}, folder) });
    const files = aSeries(folder, 3, { container: "crowd" });
    const [own = ""] = aSeries(folder, 1, { container: "own" });
    for (const file of files) driven.see(file, { isTold: false });
    driven.see(own, { isTold: false, isWalked: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.apply({
      applyPoliciesImmediately: true,
      namespacePolicies: [{ namespace: "shop", maxCheckpoints: 2 }],
      containerPolicies: [{ namespace: "shop", pod: "web-0", container: "own", maxCheckpoints: 5 }],
    });
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.see(own);
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 1));
  });
});

describe("while archives of a namespace with a limit are walked", () => {
  it("nothing is planned before the last of them, but for scopes that are known whole", async () => {
    const folder = aFolder();
    const spec = {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerContainer: 2, maxCheckpointsPerNamespace: 3 },
    };
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    const [first, second] = [aSeries(folder, 3, { container: "one" }), aSeries(folder, 3, { container: "two" })];
    for (const file of [...first, ...second]) driven.see(file, { isTold: false, isWalked: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.runs()).toBe(1);
    for (const file of first.slice(0, 2)) driven.see(file);
    await driven.calm();
    expect(driven.runs()).toBe(1);
    // The container is known whole, the namespace is not.
    driven.see(first[2] ?? "");
    await driven.calm();
    expect([driven.runs(), driven.files()]).toEqual([2, first.slice(0, 1)]);
    for (const file of second) driven.see(file);
    await driven.calm();
    expect(driven.files()).toEqual([...first.slice(0, 1), ...second.slice(0, 1), first[1]]);
  });
});

describe("the disk", () => {
  const MIB = 1024 * 1024;
  const node = { highWatermarkPercent: 80, lowWatermarkPercent: 60 };

  /** An enforcer on a disk of 100 MiB with two archives, and how often it is looked at. */
  function onADisk(nodePolicy: Record<string, unknown>, usedMib: number | undefined) {
    const folder = aFolder();
    const disk = { usedMib, reads: 0 };
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy }, folder),
      readDisk: () => {
        disk.reads += 1;
        if (disk.usedMib === undefined) return undefined;
        const usedBytes = disk.usedMib * MIB;
        return { sizeBytes: 100 * MIB, usedBytes, availableBytes: 100 * MIB - usedBytes };
      },
    });
    for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    return { driven, disk };
  }

  it.each([
    ["has room enough", { ...node, minFree: "10Mi" }, 50],
    ["is as full as it may be", { ...node, minFree: "20Mi" }, 80],
    ["is as full as it may be, by what must stay free alone", { minFree: "20Mi" }, 80],
    ["does not tell how full it is", node, undefined],
  ])("is looked at every 10 s and makes no work where it %s", async (_, nodePolicy, usedMib) => {
    const { driven, disk } = onADisk(nodePolicy, usedMib);
    await driven.calm();
    await tickAfter(driven, 10_000);
    const before = { runs: driven.runs(), reads: disk.reads };
    for (let second = 1; second < 10; second += 1) await tickAfter(driven, 1000);
    expect({ runs: driven.runs(), reads: disk.reads }).toEqual(before);
    await tickAfter(driven, 1000);
    expect({ runs: driven.runs(), reads: disk.reads }).toEqual({ ...before, reads: before.reads + 1 });
  });

  it("that has room again after all is not told to lack it any more, within a second", async () => {
    const { driven, disk } = onADisk(node, 90);
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ reason: "node_watermark" }]);
    expect(driven.enforcer.status().unreachable).toMatchObject([{ limit: "node_watermark" }]);
    disk.usedMib = 50;
    await tickAfter(driven, 1000);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("of which nothing may go is not told to lack room any more at the look that finds some", async () => {
    const { driven, disk } = onADisk(node, 90);
    for (const entry of driven.index.all()) {
      entry.pinned = true;
      driven.enforcer.changed(entry, false);
    }
    await driven.calm();
    await tickAfter(driven, 10_000);
    expect(driven.deleted).toEqual([]);
    expect(driven.enforcer.status().unreachable).toMatchObject([{ limit: "node_watermark" }]);
    disk.usedMib = 50;
    await tickAfter(driven, 10_000);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("is looked at after a deletion, so that what is told of it is true", async () => {
    const folder = aFolder();
    let freed = 0;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      readDisk: () => ({ sizeBytes: 100, usedBytes: 50 - freed, availableBytes: 50 + freed }),
      onDeleted: () => {
        freed += 10;
      },
    });
    for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.enforcer.status().disk?.availableBytes).toBe(60);
  });
});

describe("a directory that is gone", () => {
  it("leaves nothing to be told of, and nothing to be waited for", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ ...keepOne, mode: "DryRun" }, folder),
    });
    for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false });
    for (const file of aSeries(folder, 2, { namespace: "ops" })) driven.see(file, { isTold: false, isSettled: false });
    seePinned(driven, folder, 2, { namespace: "team" });
    driven.enforcer.listed();
    await expect.poll(driven.runs).toBe(1);
    const before = driven.enforcer.status();
    expect([before.planned.size, before.unreachable.length, before.isIdle]).toEqual([1, 1, false]);
    await driven.enforcer.setDirectory(undefined);
    const after = driven.enforcer.status();
    expect([after.planned.size, after.unreachable.length, after.isIdle]).toEqual([0, 0, true]);
  });
});

describe("a proof", () => {
  it("waits for archives of its pod that have not been walked", async () => {
    const folder = aFolder();
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
    });
    const [walked = ""] = aSeries(folder, 1);
    const [unwalked = ""] = aSeries(folder, 1, { container: "other" });
    const undecided = writeArchive(folder, { container: "a-b", time: archiveTime(Date.now() - 60_000) });
    driven.see(walked, { isTold: false });
    for (const file of [unwalked, undecided]) driven.see(file, { isTold: false, isWalked: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const facts = [{ bootId: "boot", report: 1, namespace: "shop", pod: "web-0" }];
    driven.enforcer.proved(driven.proofs.receive(facts, driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.files()).toEqual([walked]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toHaveLength(1);
    driven.see(unwalked);
    await driven.calm();
    expect(driven.files()).toEqual([walked, unwalked]);
    // The last one may be of that pod, too.
    expect(driven.proofs.current(driven.clock.monotonicMs())).toHaveLength(1);
    driven.see(undecided);
    await driven.calm();
    expect(driven.files()).toEqual([walked, unwalked, undecided]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toEqual([]);
  });
});
