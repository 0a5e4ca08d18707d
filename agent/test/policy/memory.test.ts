import { mkdirSync, readdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { createOrphanProofs } from "../../src/policy/orphan-proofs.ts";
import { createStateFolder } from "../../src/policy/state-folder.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

describe("proofs of orphans", () => {
  const fact = { bootId: "boot", report: 7, namespace: "n", pod: "p" };

  it("cover what had been listed by the report that asked, for a minute", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    const [cover] = proofs.receive([fact], 0);
    expect(cover).toMatchObject({ namespace: "n", pod: "p", listedUpTo: 42 });
    expect(proofs.current(59_999)).toHaveLength(1);
    expect(proofs.current(60_000)).toEqual([]);
  });

  it("cover what the report that asked had listed, and not what a later one had", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    proofs.reported(8, 50);
    expect(proofs.receive([fact], 0)).toMatchObject([{ listedUpTo: 42 }]);
  });

  it("lapse a minute after the report that asked, however late the directive is read", () => {
    let nowMs = 0;
    const proofs = createOrphanProofs("boot", () => nowMs);
    proofs.reported(7, 42);
    nowMs = 59_999;
    expect(proofs.receive([fact], nowMs)).toMatchObject([{ untilMs: 60_000 }]);
    nowMs = 60_000;
    expect(proofs.receive([{ ...fact, pod: "frozen" }], nowMs)).toEqual([]);
    expect(proofs.current(nowMs)).toEqual([]);
  });

  it("lapse a minute after the read that made them, by the coordinator's clock, and no later if that was set back", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    const provedAt = "2026-01-01T00:00:10.000Z";
    const receive = (pod: string, time: string) => proofs.receive([{ ...fact, pod, provedAt }], 20_000, time);
    expect(receive("old", "2026-01-01T00:00:50.000Z")).toMatchObject([{ untilMs: 40_000 }]);
    expect(receive("lapsed", "2026-01-01T00:01:10.000Z")).toEqual([]);
    expect(receive("fresh", "2026-01-01T00:00:10.000Z")).toMatchObject([{ untilMs: 60_000 }]);
    expect(receive("set-back", "2026-01-01T00:00:00.000Z")).toMatchObject([{ untilMs: 60_000 }]);
    expect(receive("no-time", "2026-99-01T00:00:00Z")).toEqual([]);
    // A coordinator of before does not tell when it read.
    expect(proofs.receive([{ ...fact, pod: "untold" }], 20_000, "2026-01-01T00:00:50.000Z")).toMatchObject([
      { untilMs: 60_000 },
    ]);
    expect(proofs.receive([{ ...fact, pod: "unsaid", provedAt }], 20_000)).toMatchObject([{ untilMs: 60_000 }]);
  });

  it("are withdrawn when a later directive does not name them any more, or only for another report or start", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    for (const report of [7, 8]) proofs.reported(report, 42);
    const facts = ["a", "b"].map((pod) => ({ ...fact, pod }));
    proofs.receive(facts, 0);
    proofs.withdraw(facts);
    expect(proofs.receive(facts, 1)).toEqual([]);
    expect(proofs.current(1)).toHaveLength(2);
    proofs.withdraw(facts.slice(1));
    expect(proofs.current(2)).toMatchObject([{ pod: "b" }]);
    const again = [{ ...fact, pod: "b", report: 8 }];
    proofs.withdraw(again);
    expect(proofs.current(3)).toEqual([]);
    proofs.receive(again, 3);
    expect(proofs.current(3)).toMatchObject([{ pod: "b", report: 8 }]);
    proofs.withdraw([{ ...fact, pod: "b", report: 8, bootId: "another" }]);
    expect(proofs.current(4)).toEqual([]);
  });

  it("cover an archive until they lapse, and only what had been listed, of the pod or the container proved", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    proofs.receive([fact, { ...fact, pod: "lives", container: "gone" }], 0);
    const archive = { namespace: "n", pod: "p", container: "c", uid: undefined, listed: 42 };
    expect(proofs.covers(archive, 59_999)).toBe(true);
    expect(proofs.covers({ ...archive, uid: "any" }, 59_999)).toBe(true);
    expect(proofs.covers(archive, 60_000)).toBe(false);
    expect(proofs.covers({ ...archive, listed: 43 }, 0)).toBe(false);
    expect(proofs.covers({ ...archive, namespace: "other" }, 0)).toBe(false);
    expect(proofs.covers({ ...archive, pod: "lives" }, 0)).toBe(false);
    expect(proofs.covers({ ...archive, pod: "lives", container: "gone" }, 0)).toBe(true);
  });

  it("of a UID cover archives of that very pod alone, beside one of another UID, and are withdrawn one by one", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    const facts = ["first", "second"].map((uid) => ({ ...fact, uid }));
    expect(proofs.receive(facts, 0)).toHaveLength(2);
    const archive = { namespace: "n", pod: "p", container: "c", listed: 42 };
    const covered = () =>
      ["first", "second", "third", undefined].filter((uid) => proofs.covers({ ...archive, uid }, 0));
    expect(covered()).toEqual(["first", "second"]);
    proofs.withdraw(facts.slice(1));
    expect(covered()).toEqual(["second"]);
  });

  it("are good once: used or repeated they count for nothing, a new question may be answered again", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    proofs.use(proofs.receive([fact], 0));
    expect(proofs.current(1)).toEqual([]);
    expect(proofs.receive([fact], 2)).toEqual([]);
    expect(proofs.receive([{ ...fact, container: "c" }], 3)).toHaveLength(1);
    proofs.reported(8, 50);
    expect(proofs.receive([{ ...fact, report: 8 }], 4)).toHaveLength(1);
  });

  it("are told apart by their names, and one that is used leaves the others", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    const asked = [
      { ...fact, namespace: "a", pod: "bc" },
      { ...fact, namespace: "ab", pod: "c" },
      { ...fact, namespace: "a", pod: "b", container: "c" },
    ];
    const covers = proofs.receive(asked, 0);
    expect(covers).toHaveLength(3);
    proofs.use(covers.slice(0, 1));
    expect(proofs.current(1)).toEqual(covers.slice(1));
    proofs.withdraw(asked.slice(0, 1));
    expect(proofs.current(1)).toEqual([]);
  });

  it("count for nothing from another start of the agent, or for a report it never made or no longer knows", () => {
    const proofs = createOrphanProofs("boot", () => 0);
    proofs.reported(7, 42);
    expect(proofs.receive([{ ...fact, bootId: "before" }], 0)).toEqual([]);
    expect(proofs.receive([{ ...fact, report: 8 }], 0)).toEqual([]);
    for (let report = 8; report <= 7 + 256; report += 1) proofs.reported(report, 50);
    expect(proofs.receive([fact], 0)).toEqual([]);
  });
});

describe("the state folder", () => {
  it("gives back what was written, and replaces it as a whole", async () => {
    const folder = aFolder();
    const problems: string[] = [];
    const state = createStateFolder(folder, (message) => problems.push(message));
    const accepted = anAcceptedPolicy({ globalPolicy: { maxAge: "1d" } }, "/archives");
    const watched = { device: "1", inode: "2", seen: "" };
    const file = { file: "a.tar", inode: "3", size: 4, mtimeNs: "5", ctimeNs: "6", sinceMs: 7 };
    const sightings = { device: "1", inode: "2", sightings: [file] };
    const writes = [state.writeAccepted(accepted), state.writeWatched(watched), state.writeAccepted(accepted)];
    expect(await Promise.all([...writes, state.writeSightings(sightings)])).toEqual([true, true, true, true]);
    expect(await state.readAccepted()).toEqual(accepted);
    expect(await state.readWatched()).toEqual(watched);
    expect(await state.readSightings()).toEqual(sightings);
    expect(readdirSync(folder).sort()).toEqual(["accepted.json", "unmanaged.json", "watched.json"]);
    expect(problems).toEqual([]);
  });

  it("holds nothing at first, which is no problem", async () => {
    const problems: string[] = [];
    const state = createStateFolder(aFolder(), (message) => problems.push(message));
    expect([await state.readAccepted(), await state.readWatched()]).toEqual([undefined, undefined]);
    expect(problems).toEqual([]);
  });

  it.each(["", "{", "[]", '{"fence":{"term":1}}', "\u0000"])(
    "tells of %j in its place, and takes it for nothing",
    async (text) => {
      const folder = aFolder();
      writeFileSync(join(folder, "accepted.json"), text);
      mkdirSync(join(folder, "watched.json"));
      const problems: string[] = [];
      const state = createStateFolder(folder, (message) => problems.push(message));
      expect([await state.readAccepted(), await state.readWatched()]).toEqual([undefined, undefined]);
      expect(problems).toHaveLength(2);
    },
  );

  it.each([
    "",
    '{"device":"1","inode":"2","sightings":[{"file":"a.tar"}]}',
    '{"device":"1","inode":"2","sightings":{}}',
    `{"device":"1","inode":"2","sightings":[${Array(10_001).fill('{"file":"a","inode":"1","size":1,"mtimeNs":"1","ctimeNs":"1","sinceMs":1}').join()}]}`,
  ])("takes damaged sightings for none: every age begins anew (case %#)", async (text) => {
    const folder = aFolder();
    writeFileSync(join(folder, "unmanaged.json"), text);
    const problems: string[] = [];
    const state = createStateFolder(folder, (message) => problems.push(message));
    expect(await state.readSightings()).toBeUndefined();
    expect(problems).toHaveLength(1);
  });

  it("removes what it could not replace, for after a restart no policy is better than one that was superseded", async () => {
    const folder = aFolder();
    const problems: string[] = [];
    const state = createStateFolder(folder, (message) => problems.push(message));
    const accepted = anAcceptedPolicy({}, "/archives");
    expect(await state.writeAccepted(accepted)).toBe(true);
    // Nothing can be written where a folder lies.
    mkdirSync(join(folder, "accepted.json.new"));
    expect(await state.writeAccepted({ ...accepted, fence: { term: 9, revision: 9 } })).toBe(false);
    expect(problems).toEqual(["state cannot be written"]);
    expect(await state.readAccepted()).toBeUndefined();
    rmdirSync(join(folder, "accepted.json.new"));
    expect(await state.writeAccepted(accepted)).toBe(true);
    expect(await state.readAccepted()).toEqual(accepted);
  });

  it("that is gone is a problem told, and never an exception", async () => {
    const problems: string[] = [];
    const state = createStateFolder("/nowhere/at/all", (message) => problems.push(message));
    expect(await state.writeWatched({ device: "1", inode: "2", seen: "" })).toBe(false);
    expect(problems).toEqual(["state cannot be written"]);
  });
});
