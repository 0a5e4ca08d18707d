import { ARCHIVE_STATES, type ArchiveState } from "@cro/shared/wire/report";
import { describe, expect, it } from "vitest";
import { type Archive, compareAge, countsInBytes, countsInNumber, isDeletable } from "../../src/archive/archive.ts";
import { anArchive } from "../retention/builders.ts";

const told = (archive: Archive) =>
  [
    countsInNumber(archive) && "in numbers",
    countsInBytes(archive) && "in bytes",
    isDeletable(archive) && "deletable",
  ].filter((one) => one !== false);

const unpinned: Record<ArchiveState, string[]> = {
  unidentified: [],
  postdated: [],
  unread: [],
  unsettled: [],
  incomplete: ["in numbers", "in bytes", "deletable"],
  complete: ["in numbers", "in bytes", "deletable"],
};
const pinned: Record<ArchiveState, string[]> = {
  unidentified: [],
  postdated: ["in bytes"],
  unread: ["in bytes"],
  unsettled: ["in bytes"],
  incomplete: ["in bytes"],
  complete: ["in numbers", "in bytes"],
};

describe("what an archive counts in, and whether a rule may take it,", () => {
  const aStateOf = (state: ArchiveState, isPinned: boolean) =>
    anArchive({ state, pinned: isPinned, ...(state === "unidentified" ? { identity: null } : {}) });

  it.each(ARCHIVE_STATES)("follows from its state, %s, and from its pin", (state) => {
    expect(told(aStateOf(state, false))).toEqual(unpinned[state]);
    expect(told(aStateOf(state, true))).toEqual(pinned[state]);
  });

  it.each(ARCHIVE_STATES)("is nothing and no while nobody is known to own it, whatever its state (%s)", (state) => {
    for (const isPinned of [false, true])
      expect(told(anArchive({ state, pinned: isPinned, identity: null }))).toEqual([]);
  });
});

describe("the age of archives", () => {
  it("goes by the time in the name, then by mtime, then by the name bytewise", () => {
    const oldestFirst = [
      anArchive({ file: "z", timeMs: 1000, mtimeNs: 9n }),
      anArchive({ file: "z", timeMs: 2000, mtimeNs: 7n }),
      anArchive({ file: "B", timeMs: 2000, mtimeNs: 8n }),
      anArchive({ file: "a", timeMs: 2000, mtimeNs: 8n }),
      anArchive({ file: "a-", timeMs: 2000, mtimeNs: 8n }),
      anArchive({ file: "a", timeMs: 3000, mtimeNs: 0n }),
    ];
    for (const [at, a] of oldestFirst.entries())
      for (const [other, b] of oldestFirst.entries())
        expect([at, other, Math.sign(compareAge(a, b))]).toEqual([at, other, Math.sign(at - other)]);
  });
});
