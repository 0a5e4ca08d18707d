import { existsSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { archiveBytes, archivesIn, archiveTime, writeArchive } from "../support/archives.ts";
import { aClock, aSeries, driveEnforcer, keepOne } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

const keepTwo = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } };

describe("while a plan is carried out", () => {
  it("what is overwritten in place, and seen so, is not what the plan was made for", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const second = files[1] ?? "";
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: (file) => {
        if (file !== files[0]) return;
        writeFileSync(join(folder, second), archiveBytes({ container: "main", pagesBytes: 64 * 1024 }), { flag: "r+" });
        driven.see(second, { isWalked: false });
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([files[0]]);
    expect(archivesIn(folder)).toEqual(files.slice(1));
    expect(driven.stale).toEqual([]);
    // Once it is known what it is, the next plan decides.
    driven.see(second);
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(2));
  });

  it("what is overwritten in place before anybody saw it is kept too, and looked at", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const second = files[1] ?? "";
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => writeFileSync(join(folder, second), archiveBytes({ container: "main" }), { flag: "r+" }),
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(1));
    expect(driven.stale).toEqual([second, files[2]]);
    expect(driven.logged).toMatchObject([
      { archive: second, why: expect.any(String), msg: "archive kept: it changed since the plan" },
    ]);
  });

  it("what goes away and comes back is another to a proof that its pod is gone, though it is the same file", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const second = files[1] ?? "";
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
      onDeleted: (file) => {
        if (file !== files[0]) return;
        renameSync(join(folder, second), join(folder, "aside"));
        driven.see(second);
        renameSync(join(folder, "aside"), join(folder, second));
        driven.see(second, { isEvent: true });
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0" };
    driven.enforcer.proved(driven.proofs.receive([fact], driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.files()).toEqual([files[0], files[2]]);
    expect(archivesIn(folder)).toEqual([second]);
  });

  it("what another hand takes away of the scope is not deleted for once more, though the plan did not know it by name", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const [first = "", second = "", , fourth = ""] = files;
    const keepFive = { ...keepOne, globalPolicy: { maxCheckpointsPerContainer: 5 } };
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepFive, folder),
      onDeleted: (file) => {
        if (file !== first) return;
        unlinkSync(join(folder, fourth));
        driven.see(fourth);
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    const later = aSeries(folder, 2, { startMs: Date.now() - 60_000 });
    for (const file of later) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([first]);
    expect(archivesIn(folder)).toEqual([second, ...files.slice(2, 3), ...files.slice(4), ...later]);
  });

  it("what turns out to be pinned or dated in the future is left alone", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => {
        const [, pinned, postdated] = files.map((file) => driven.index.get(file));
        if (pinned === undefined || postdated === undefined) throw new Error("no entries");
        pinned.pinned = true;
        postdated.state = "postdated";
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files.slice(1));
  });

  it("an archive that takes the name of one just deleted stays known", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const first = files[0] ?? "";
    let isReplaced = false;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      readDisk: () => {
        // Asked right before the deletions; what is queued here runs while the first is under way.
        queueMicrotask(() => {
          if (isReplaced || driven.index.get(first)?.walked !== true) return;
          isReplaced = true;
          while (existsSync(join(folder, first)));
          writeFileSync(join(folder, first), archiveBytes({ container: "main" }));
          driven.see(first, { isTold: false });
        });
        return undefined;
      },
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(isReplaced).toBe(true);
    expect(archivesIn(folder)).toEqual(files);
    expect(driven.index.get(first)?.size).toBe(archiveBytes({ container: "main" }).length);
  });

  it("a new policy ends it at once", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 0 } }),
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([files[0]]);
  });

  it("a new directive with the same policy does not end it", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const policy = anAcceptedPolicy(keepOne, folder);
    const driven = driveEnforcer(folder, {
      policy,
      onDeleted: () => driven.enforcer.setPolicy({ ...policy, fence: { term: 1, revision: 2 } }),
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 4));
  });

  it("a directory that goes away ends it, and is let go of only when nothing is done in it any more", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    let isLetGo = false;
    let letGo: Promise<void> | undefined;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => {
        letGo = driven.enforcer.setDirectory(undefined).then(() => {
          isLetGo = true;
        });
        expect(isLetGo).toBe(false);
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await expect.poll(() => isLetGo).toBe(true);
    await letGo;
    driven.enforcer.tick();
    expect(driven.files()).toEqual([files[0]]);
  });

  it("a .pause ends it, and when the .pause goes, however soon, the rest follows", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 5);
    const pause = join(folder, ".pause");
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: (file) => {
        if (file === files[1]) writeFileSync(pause, "");
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
    expect(driven.enforcer.status().isPaused).toBe(true);
    expect([...driven.enforcer.status().planned.keys()]).toEqual(files.slice(2, 4));
    unlinkSync(pause);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 4));
    expect(driven.enforcer.status().isPaused).toBe(false);
  });

  it("a .pause that lies there keeps it from beginning, and what it would do is told", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    writeFileSync(join(folder, ".pause"), "");
    const asked: string[] = [];
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      // Nobody would ask how full the disk is for the sake of deletions that are not to be.
      readDisk: () => void asked.push(""),
    });
    for (const file of files) driven.see(file);
    const before = asked.length;
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.enforcer.status()).toMatchObject({ isPaused: true, isIdle: true });
    expect([...driven.enforcer.status().planned.keys()]).toEqual(files.slice(0, 2));
    expect([asked.length, driven.stale, archivesIn(folder)]).toEqual([before, [], files]);
    unlinkSync(join(folder, ".pause"));
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
    writeFileSync(join(folder, ".pause"), "");
    for (let seconds = 0; seconds < 3; seconds += 1) driven.enforcer.tick();
    const told = driven.logged.map(({ msg }) => msg).filter((msg) => String(msg).startsWith("deletion"));
    expect(told).toEqual(["deletion goes on", "deletion is paused"]);
  });

  it("what somebody else deletes meanwhile is not counted as deleted here, and nothing goes in its stead", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepTwo, folder),
      onDeleted: () => unlinkSync(join(folder, files[1] ?? "")),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([files[0]]);
    expect([driven.failed, driven.stale, archivesIn(folder)]).toEqual([[], [], files.slice(2)]);
    expect([...driven.index.all()].map(({ file }) => file)).toEqual(files.slice(2));
  });

  it("events wait for it: the next plan is made when it is done, and one at a time", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const later = aSeries(folder, 3, { startMs: Date.now() - 60_000 });
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepTwo, folder),
      onDeleted: (file) => {
        if (file === files[0]) for (const arrived of later) driven.see(arrived, { isEvent: true });
      },
    });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    // All three came during the first run, and are one plan of the second.
    expect(driven.runs()).toBe(2);
    expect(driven.files()).toEqual([...files, later[0]]);
    expect(archivesIn(folder)).toEqual(later.slice(1));
  });

  it("tells of the bytes that went, and not of those that came", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const size = archiveBytes({ container: "main" }).length;
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.deleted).toEqual([{ file: files[0], reason: "max_checkpoints", bytes: size }]);
    expect([...driven.index.all()].map(({ file }) => file)).toEqual(files.slice(1));
  });
});

describe("an event", () => {
  it.each([
    ["a pod policy", { podPolicies: [{ namespace: "shop", pod: "web-0", maxCheckpoints: 2 }] }],
    ["a namespace policy", { namespacePolicies: [{ namespace: "shop", maxCheckpoints: 2 }] }],
    ["the global policy's limit for pods", { globalPolicy: { maxCheckpointsPerPod: 2 } }],
    ["the global policy's limit for namespaces", { globalPolicy: { maxCheckpointsPerNamespace: 2 } }],
  ])("makes %s act on all that it limits, and not on the container alone", async (_, spec) => {
    const folder = aFolder();
    const oldest = aSeries(folder, 1, { container: "one", startMs: Date.now() - 7_200_000 });
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(spec, folder) });
    for (const file of [...oldest, ...aSeries(folder, 1)]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.see(writeArchive(folder, { container: "main", time: archiveTime(Date.now()) }), { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual(oldest);
  });

  it("that brings the node over its total size acts there too; what is nobody's does not count", async () => {
    const folder = aFolder();
    const large = (namespace: string, minute: number) =>
      writeArchive(folder, {
        ...{ namespace, container: "main", pagesBytes: 300 * 1024, runtime: "none" as const },
        ...{ time: archiveTime(Date.now() - minute * 60_000), mtimeMs: Date.now() - minute * 60_000 },
      });
    const files = [large("shop", 9), large("shop", 8), large("shop", 7)];
    const nobodys = large("a-b", 6);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { maxTotalSize: "1Mi" } }, folder),
    });
    for (const file of [...files, nobodys]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.see(large("shop", 5), { isEvent: true });
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file: files[0], reason: "node_max_total_size" }]);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });
});

describe("before the directory is listed", () => {
  it("nothing is deleted, whatever is seen of it", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    for (const file of files) driven.see(file, { isEvent: true });
    driven.enforcer.tick();
    // A run begins with the next turn of the loop, and what it deletes is deleted by the same threads that list here.
    for (let turn = 0; turn < 20; turn += 1) expect(await readdir(folder)).toHaveLength(3);
    expect(driven.runs()).toBe(0);
    expect(driven.enforcer.status().isIdle).toBe(false);
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
  });
});

describe("before there is a policy", () => {
  it("nothing is deleted, and all that was seen counts once there is one", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, {});
    for (const file of files) driven.see(file, { isEvent: true });
    driven.enforcer.listed();
    driven.enforcer.tick();
    for (let turn = 0; turn < 20; turn += 1) expect(await readdir(folder)).toHaveLength(3);
    expect(driven.runs()).toBe(0);
    driven.apply(keepOne);
    await driven.calm();
    expect(driven.files()).toEqual(files.slice(0, 2));
  });
});

describe("an archive that has not been walked", () => {
  it("stops every scope that it may turn out to be of, and no other", async () => {
    const folder = aFolder();
    const mine = aSeries(folder, 2, { namespace: "team", container: "prod" });
    const others = aSeries(folder, 2, { namespace: "shop", container: "main" });
    const unclear = writeArchive(folder, { namespace: "team", container: "prod-x", time: archiveTime(Date.now()) });
    const policy = anAcceptedPolicy(
      { ...keepOne, namespacePolicies: [{ namespace: "team", maxCheckpoints: 1 }] },
      folder,
    );
    const driven = driveEnforcer(folder, { policy });
    for (const file of [...mine, ...others]) driven.see(file);
    driven.see(unclear, { isWalked: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([others[0]]);
    // It is team's: with it the namespace has three.
    driven.see(unclear);
    await driven.calm();
    expect(driven.files()).toEqual([others[0], ...mine]);
  });
});

describe("an archive that has not been walked, when something happens in a scope that it may be of", () => {
  it("stops that scope, although the event looks at no other archives", async () => {
    const folder = aFolder();
    const mine = aSeries(folder, 2, { namespace: "team", container: "prod" });
    const policy = anAcceptedPolicy({ namespacePolicies: [{ namespace: "team", maxCheckpoints: 2 }] }, folder);
    const driven = driveEnforcer(folder, { policy });
    for (const file of mine) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    const unclear = writeArchive(folder, { namespace: "team", container: "prod-x", time: archiveTime(Date.now()) });
    driven.see(unclear, { isWalked: false });
    const next = writeArchive(folder, { namespace: "team", container: "prod", time: archiveTime(Date.now()) });
    driven.see(next, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([]);
    // It is team's: with it the namespace has four.
    driven.see(unclear);
    await driven.calm();
    expect(driven.files()).toEqual(mine);
  });
});

describe("the books", () => {
  it("forget what DryRun planned and somebody removed", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy({ ...keepOne, mode: "DryRun" }, folder) });
    for (const file of files) driven.see(file);
    driven.enforcer.listed();
    await driven.calm();
    expect([...driven.enforcer.status().planned.keys()]).toEqual(files.slice(0, 2));
    for (const file of files.slice(0, 2)) {
      unlinkSync(join(folder, file));
      driven.see(file);
    }
    await driven.calm();
    expect([...driven.enforcer.status().planned.keys()]).toEqual([]);
  });

  it("do not wait for ever for an archive that was to settle and is gone", async () => {
    const folder = aFolder();
    const [file = ""] = aSeries(folder, 1);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ applyPoliciesImmediately: true, globalPolicy: { maxAge: "1m" } }, folder),
    });
    driven.see(file, { isSettled: false });
    driven.enforcer.listed();
    await expect.poll(driven.runs).toBe(1);
    expect(driven.enforcer.status().isIdle).toBe(false);
    unlinkSync(join(folder, file));
    driven.see(file);
    await driven.calm();
    expect(driven.deleted).toEqual([]);
  });

  it("tell of a limit that cannot be reached only as long as that is so, and log it once", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const driven = driveEnforcer(folder, { policy: anAcceptedPolicy(keepOne, folder) });
    for (const file of files) driven.see(file, { isTold: false }).pinned = true;
    driven.enforcer.listed();
    await driven.calm();
    const [first] = driven.index.all();
    if (first !== undefined) driven.enforcer.changed(first, true);
    await driven.calm();
    expect(driven.runs()).toBe(2);
    expect(driven.logged.filter(({ msg }) => msg === "limit cannot be reached")).toMatchObject([
      { limit: "max_checkpoints", container: "main", wanted: 1, freed: 0, unit: "archives" },
    ]);
    expect(driven.enforcer.status().unreachable).toEqual([
      {
        ...{ limit: "max_checkpoints", namespace: "shop", pod: "web-0", container: "main" },
        ...{ wanted: 1, freed: 0, unit: "archives", obstacles: { pinned: 2 } },
      },
    ]);
    unlinkSync(join(folder, files[0] ?? ""));
    driven.see(files[0] ?? "");
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("tell how long each of them took, deletions included", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 3);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => driven.clock.pass(40),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.durationsMs).toEqual([80]);
  });
});

describe("a policy that does not act at once", () => {
  const later = (spec: unknown, folder: string, acceptedAtTrustedMs = Date.now()) => ({
    ...anAcceptedPolicy(spec, folder),
    acceptedAtTrustedMs,
  });

  it("goes on acting on a namespace of which one container has lost its last archive", async () => {
    const folder = aFolder();
    const [only = ""] = aSeries(folder, 1, { container: "gone" });
    const others = aSeries(folder, 2, { container: "stays" });
    const spec = { namespacePolicies: [{ namespace: "shop", maxCheckpoints: 2 }] };
    const driven = driveEnforcer(folder, { policy: later(spec, folder) });
    driven.enforcer.listed();
    driven.see(only, { isEvent: true });
    await driven.calm();
    unlinkSync(join(folder, only));
    driven.see(only);
    for (const file of others) driven.see(file, { isEvent: true });
    const found = writeArchive(folder, { container: "found", time: archiveTime(Date.now() - 7_200_000) });
    driven.see(found);
    await driven.calm();
    expect(driven.files()).toEqual([found]);
  });

  it.each([
    ["container", { containerPolicies: [{ namespace: "shop", pod: "web-0", container: "main", maxCheckpoints: 1 }] }],
    ["pod", { podPolicies: [{ namespace: "shop", pod: "web-0", maxCheckpoints: 1 }] }],
    ["namespace", { namespacePolicies: [{ namespace: "shop", maxCheckpoints: 1 }] }],
  ])("acts on a %s for as long as that has archives, and then waits for the next event", async (_, spec) => {
    const folder = aFolder();
    const [first = "", second = ""] = aSeries(folder, 2);
    const driven = driveEnforcer(folder, { policy: later(spec, folder) });
    driven.enforcer.listed();
    driven.see(first, { isEvent: true });
    await driven.calm();
    // With one left it goes on.
    driven.see(second);
    await driven.calm();
    expect(driven.files()).toEqual([first]);
    const [third = ""] = aSeries(folder, 1, { startMs: Date.now() - 60_000 });
    driven.see(third);
    await driven.calm();
    expect(driven.files()).toEqual([first, second]);
    unlinkSync(join(folder, third));
    driven.see(third);
    await driven.calm();
    const found = aSeries(folder, 2, { startMs: Date.now() - 30_000 });
    for (const file of found) driven.see(file);
    await driven.calm();
    expect(archivesIn(folder)).toEqual(found);
    driven.see(writeArchive(folder, { container: "main", time: archiveTime(Date.now()) }), { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([first, second, ...found]);
  });

  it("acts on ages that were reached since it came, also where the agent was not there, and not before all is listed", async () => {
    const folder = aFolder();
    const clock = aClock();
    const dayMs = 86_400_000;
    const [before = ""] = aSeries(folder, 1, { container: "before", startMs: clock.wallMs() - 3 * dayMs });
    const [since = ""] = aSeries(folder, 1, { container: "since", startMs: clock.wallMs() - dayMs - 60_000 });
    const policy = later({ globalPolicy: { maxAge: "1d" } }, folder, clock.wallMs() - 3_600_000);
    const driven = driveEnforcer(folder, { policy, clock });
    driven.enforcer.tick();
    for (const file of [before, since]) driven.see(file);
    driven.enforcer.tick();
    driven.enforcer.listed();
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file: since, reason: "max_age" }]);
  });

  it("acts on the age of an archive whose owner is found out late", async () => {
    const folder = aFolder();
    const clock = aClock();
    const timeMs = clock.wallMs() - 86_400_000 - 60_000;
    const file = writeArchive(folder, { namespace: "team-prod", time: archiveTime(timeMs), mtimeMs: timeMs });
    const policy = later({ globalPolicy: { maxAge: "1d" } }, folder, clock.wallMs() - 3_600_000);
    const driven = driveEnforcer(folder, { policy, clock });
    driven.see(file, { isWalked: false });
    driven.enforcer.listed();
    driven.enforcer.tick();
    await driven.calm();
    clock.pass(1000);
    driven.enforcer.tick();
    driven.see(file);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual([file]);
  });

  it("acts on no age where the policy that governs has none, whatever the others have", async () => {
    const folder = aFolder();
    const clock = aClock();
    const startMs = clock.wallMs() - 86_400_000 - 60_000;
    const [file = ""] = aSeries(folder, 1, { container: "ageless", startMs });
    const [other = ""] = aSeries(folder, 1, { startMs });
    const spec = {
      globalPolicy: { maxAge: "1d" },
      containerPolicies: [{ namespace: "shop", pod: "web-0", container: "ageless", maxCheckpoints: 5 }],
    };
    const driven = driveEnforcer(folder, { policy: later(spec, folder, clock.wallMs() - 3_600_000), clock });
    for (const seen of [file, other]) driven.see(seen);
    driven.enforcer.listed();
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual([other]);
  });

  it("acts on an age as soon as the clock passes it, and not while the clock is not to be trusted", async () => {
    const folder = aFolder();
    const clock = aClock();
    const [file = ""] = aSeries(folder, 1, { startMs: clock.wallMs() - 86_400_000 + 60_000 });
    let isTrusted = true;
    const driven = driveEnforcer(folder, {
      policy: later({ globalPolicy: { maxAge: "1d" } }, folder, clock.wallMs()),
      clock,
      trustedMs: () => (isTrusted ? clock.wallMs() : undefined),
    });
    driven.see(file);
    driven.enforcer.listed();
    driven.enforcer.tick();
    await driven.calm();
    clock.jump(10 * 86_400_000);
    isTrusted = false;
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    clock.jump(-10 * 86_400_000);
    isTrusted = true;
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    clock.pass(62_000);
    driven.enforcer.tick();
    await driven.calm();
    expect(driven.files()).toEqual([file]);
  });
});

describe("free space", () => {
  const node = { highWatermarkPercent: 80, lowWatermarkPercent: 60 };

  /** A disk of 20 archives' size on which nothing that is deleted ever shows. */
  function onAStubbornDisk({ onDeleted }: { onDeleted?: () => void } = {}) {
    const folder = aFolder();
    const clock = aClock();
    const files = aSeries(folder, 18, { container: "large" });
    const policy = anAcceptedPolicy(
      { nodePolicy: node, containerPolicies: [{ namespace: "shop", pod: "*", container: "small", maxCheckpoints: 1 }] },
      folder,
    );
    const unit = () => driven.index.get(files.at(-1) ?? "")?.allocated ?? 0;
    let used: number | undefined = 18;
    const driven = driveEnforcer(folder, {
      ...{ policy, clock, ...(onDeleted && { onDeleted }) },
      readDisk: () =>
        used === undefined
          ? undefined
          : { sizeBytes: 20 * unit(), usedBytes: used * unit(), availableBytes: (20 - used) * unit() },
    });
    for (const file of files) driven.see(file);
    return {
      ...{ folder, clock, files, driven },
      setUsed: (units: number | undefined) => {
        used = units;
      },
      tick: async () => {
        driven.enforcer.tick();
        await driven.calm();
      },
      passed: () => driven.deleted.filter(({ reason }) => reason === "node_watermark").length,
    };
  }

  it("is made once, and what does not show within a minute is told and not made up for until five minutes later", async () => {
    const { clock, files, driven, tick } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.deleted.map(({ reason }) => reason)).toEqual(Array(7).fill("node_watermark"));
    expect(driven.files()).toEqual(files.slice(0, 7));
    for (let second = 0; second < 59; second += 1) {
      clock.pass(1000);
      await tick();
    }
    expect(driven.deleted).toHaveLength(7);
    expect(driven.enforcer.status().unreachable).toEqual([]);
    clock.pass(1000);
    await tick();
    const [limit] = driven.enforcer.status().unreachable;
    expect(limit).toMatchObject({ limit: "node_watermark", unit: "bytes", freed: 0 });
    expect(limit?.wanted).toBeGreaterThan(0);
    for (let minute = 1; minute < 5; minute += 1) {
      clock.pass(60_000);
      await tick();
    }
    expect(driven.deleted).toHaveLength(7);
    clock.pass(60_000);
    await tick();
    expect(driven.deleted).toHaveLength(14);
  });

  it("is not made again because another rule deleted something meanwhile, or the policy changed elsewhere", async () => {
    const { folder, clock, driven, tick } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    for (const file of aSeries(folder, 2, { container: "small" })) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.deleted).toHaveLength(8);
    clock.pass(1000);
    await tick();
    driven.apply({ nodePolicy: node, globalPolicy: { maxCheckpointsPerContainer: 0 } });
    clock.pass(1000);
    await tick();
    expect(driven.deleted.filter(({ reason }) => reason === "node_watermark")).toHaveLength(7);
  });

  it("is made again where the space has shown and the disk fills anew, and the report is taken back", async () => {
    const { clock, driven, tick, setUsed } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    clock.pass(61_000);
    await tick();
    expect(driven.enforcer.status().unreachable).toHaveLength(1);
    setUsed(11);
    clock.pass(10_000);
    await tick();
    setUsed(17);
    clock.pass(10_000);
    await tick();
    expect(driven.enforcer.status().unreachable).toEqual([]);
    expect(driven.deleted).toHaveLength(7 + 6);
  });

  it("is made by one run, and no other begins meanwhile", async () => {
    let hasCome = false;
    const { folder, driven } = onAStubbornDisk({
      onDeleted: () => {
        if (hasCome) return;
        hasCome = true;
        driven.see(writeArchive(folder, { time: archiveTime(Date.now()) }), { isEvent: true });
      },
    });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.runs()).toBe(2);
    expect(driven.deleted.length).toBeLessThanOrEqual(7);
  });

  it("is believed to be there as soon as it shows, within a second", async () => {
    const { clock, driven, tick, setUsed, passed } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    const first = passed();
    expect(first).toBeGreaterThan(0);
    setUsed(18 - first);
    clock.pass(1000);
    await tick();
    setUsed(18);
    clock.pass(10_000);
    await tick();
    expect(passed()).toBeGreaterThan(first);
  });

  it("is made after a minute where what another rule freed does not show", async () => {
    const { folder, clock, driven, tick, passed } = onAStubbornDisk();
    for (const file of aSeries(folder, 2, { container: "small" })) driven.see(file, { isEvent: true });
    driven.enforcer.listed();
    await driven.calm();
    expect([driven.deleted.length, passed()]).toEqual([1, 0]);
    clock.pass(61_000);
    await tick();
    clock.pass(1000);
    await tick();
    expect(passed()).toBeGreaterThan(0);
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });

  it("that another directory owes is not waited for", async () => {
    const { driven, passed } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    const first = passed();
    await driven.enforcer.setDirectory(driven.directory);
    driven.enforcer.listed();
    await driven.calm();
    expect(passed()).toBeGreaterThan(first);
  });

  it("is reported as lacking once, by what it lacks just now, also while the file system does not tell how full it is", async () => {
    const { clock, driven, tick, setUsed } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    clock.pass(61_000);
    await tick();
    const wanted = () => driven.enforcer.status().unreachable.map((limit) => limit.wanted);
    const unit = [...driven.index.all()][0]?.allocated ?? 0;
    expect(wanted()).toEqual([7 * unit]);
    const told = () => driven.logged.filter(({ msg }) => String(msg).includes("did not free the disk"));
    expect(told()).toMatchObject([{ wanted: 7 * unit }]);
    const event = () => {
      const [first] = driven.index.all();
      if (first !== undefined) driven.enforcer.changed(first, false);
      return driven.calm();
    };
    setUsed(17);
    await event();
    expect(wanted()).toEqual([6 * unit]);
    setUsed(undefined);
    await event();
    expect(wanted()).toEqual([6 * unit]);
    expect(driven.enforcer.status().disk).toBeUndefined();
    expect(told()).toHaveLength(1);
  });

  it("below minFree is made, the oldest first, and no more than that asks for", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 4);
    const MIB = 1024 * 1024;
    let freed = 0;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ nodePolicy: { minFree: "10Mi" } }, folder),
      onDeleted: (file) => {
        freed += allocated.get(file) ?? 0;
      },
      readDisk: () => ({ sizeBytes: 100 * MIB, usedBytes: 90 * MIB + 1 - freed, availableBytes: 10 * MIB - 1 + freed }),
    });
    const allocated = new Map(files.map((file) => [file, driven.see(file, { isTold: false }).allocated]));
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file: files[0], reason: "node_watermark" }]);
  });

  it("that no policy asks for any more is not reported as lacking", async () => {
    const { clock, driven, tick } = onAStubbornDisk();
    driven.enforcer.listed();
    await driven.calm();
    clock.pass(61_000);
    await tick();
    driven.apply({ globalPolicy: { maxCheckpointsPerContainer: 0 } });
    await driven.calm();
    expect(driven.enforcer.status().unreachable).toEqual([]);
  });
});

describe("a proof that a pod is gone", () => {
  it("is no reason for what came after the report that asked, nor for another pod", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 2);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
    });
    for (const file of files) driven.see(file);
    const other = writeArchive(folder, { pod: "web-1", time: archiveTime(Date.now() - 60_000) });
    driven.see(other);
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const later = writeArchive(folder, { container: "main", time: archiveTime(Date.now() - 50_000) });
    driven.see(later, { isEvent: true });
    await driven.calm();
    const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0" };
    driven.enforcer.proved(driven.proofs.receive([fact], driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.deleted).toMatchObject(files.map((file) => ({ file, reason: "orphan" })));
    driven.proofs.receive([fact], driven.clock.monotonicMs());
    driven.see(later, { isEvent: true });
    await driven.calm();
    expect(archivesIn(folder)).toEqual([later, other].sort());
  });

  it("of one container alone is none for another of that pod", async () => {
    const folder = aFolder();
    const [gone = ""] = aSeries(folder, 1, { container: "gone" });
    const [stays = ""] = aSeries(folder, 1, { container: "stays" });
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
    });
    for (const file of [gone, stays]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0", container: "gone" };
    const covers = driven.proofs.receive([fact], driven.clock.monotonicMs());
    // What else happens meanwhile in that pod is looked at with the proof at hand, and does not use it up.
    driven.see(stays, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([]);
    driven.enforcer.proved(covers);
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file: gone, reason: "orphan" }]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toEqual([]);
  });

  it.each([
    { orphanMatch: "UID", isGone: true },
    { orphanMatch: "Name", isGone: false },
  ])("of one UID takes what has it, where the policy asks by UID: $orphanMatch", async ({ orphanMatch, isGone }) => {
    const folder = aFolder();
    const uids = ["5b7e3a1c-0000-4000-8000-000000000001", "5b7e3a1c-0000-4000-8000-000000000002", null];
    const files = uids.map((podUID, index) =>
      writeArchive(folder, { podUID, time: archiveTime(Date.now() - (60 - index) * 1_000) }),
    );
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false }, orphanMatch }, folder),
    });
    for (const file of files) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0", uid: uids[0] as string };
    driven.enforcer.proved(driven.proofs.receive([fact], driven.clock.monotonicMs()));
    await driven.calm();
    expect(driven.deleted).toMatchObject(isGone ? [{ file: files[0], reason: "orphan" }] : []);
    expect(archivesIn(folder)).toEqual(isGone ? files.slice(1) : files);
  });

  it("is not used up by what happens to a pod of that name elsewhere, or to another pod", async () => {
    const folder = aFolder();
    const elsewhere = aSeries(folder, 1, { namespace: "team" });
    const another = writeArchive(folder, { pod: "web-1", time: archiveTime(Date.now() - 60_000) });
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
    });
    for (const file of [...elsewhere, another]) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo() + 10);
    const fact = { bootId: "boot", report: 1, namespace: "shop", pod: "web-0" };
    driven.proofs.receive([fact], driven.clock.monotonicMs());
    for (const file of [...elsewhere, another]) driven.see(file, { isEvent: true });
    await driven.calm();
    expect(driven.files()).toEqual([]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toHaveLength(1);
    const [gone = ""] = aSeries(folder, 1);
    driven.see(gone, { isEvent: true });
    await driven.calm();
    expect(driven.deleted).toMatchObject([{ file: gone, reason: "orphan" }]);
    expect(driven.proofs.current(driven.clock.monotonicMs())).toEqual([]);
  });

  it("lapses after a minute", async () => {
    const folder = aFolder();
    const files = aSeries(folder, 1);
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, folder),
    });
    const unsettled = driven.see(files[0] ?? "", { isSettled: false });
    driven.enforcer.listed();
    await driven.calm();
    driven.proofs.reported(1, driven.listedUpTo());
    const facts = [{ bootId: "boot", report: 1, namespace: "shop", pod: "web-0" }];
    driven.enforcer.proved(driven.proofs.receive(facts, driven.clock.monotonicMs()));
    await expect.poll(() => driven.runs()).toBe(2);
    driven.clock.pass(60_000);
    unsettled.settled = true;
    driven.enforcer.changed(unsettled, true);
    await driven.calm();
    expect(archivesIn(folder)).toEqual(files);
  });
});
