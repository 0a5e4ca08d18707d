import { ARCHIVE_STATES, type ArchiveState } from "@cro/shared/wire/report";
import { describe, expect, it } from "vitest";
import {
  type Archive,
  compareAge,
  countsForNode,
  countsInBytes,
  countsInNumber,
  isDeletable,
  isOldUnmanaged,
  mayBeStaticPod,
} from "../../src/archive/archive.ts";
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

  it.each(ARCHIVE_STATES)("is nothing and no while nobody is known to own it, unless it is torn (%s)", (state) => {
    for (const isPinned of [false, true]) {
      const archive = anArchive({ state, pinned: isPinned, identity: null });
      const isOwnerless = state === "incomplete" && !isPinned;
      expect(told(archive)).toEqual(isOwnerless ? ["deletable"] : []);
      expect(countsForNode(archive)).toBe(isOwnerless);
    }
  });
});

describe("what maxAgeUnmanaged takes", () => {
  const old = { state: "unread", unmanagedSinceMs: 1000 } as const;
  const isTaken = (
    options: Parameters<typeof anArchive>[0],
    { maxAgeUnmanagedMs = 5000, nowMs = 6001 }: { maxAgeUnmanagedMs?: number; nowMs?: number } = {},
  ) => isOldUnmanaged(anArchive({ ...old, ...options }), { maxAgeUnmanagedMs }, nowMs);

  it("is older than asked for, to the millisecond", () => {
    expect([isTaken({}), isTaken({}, { nowMs: 6000 }), isTaken({}, { maxAgeUnmanagedMs: 5001 })]).toEqual([
      true,
      false,
      false,
    ]);
  });

  it.each(ARCHIVE_STATES)("is unread or unidentified, and not %s", (state) => {
    expect(isTaken({ state })).toBe(state === "unread" || state === "unidentified");
  });

  it("is not pinned, was looked into, and has a known age by a trusted time and a policy", () => {
    for (const lack of [{ pinned: true }, { walked: false }, { unmanagedSinceMs: undefined }]) {
      expect(isTaken(lack)).toBe(false);
    }
    expect(isOldUnmanaged(anArchive(old), { maxAgeUnmanagedMs: 5000 }, undefined)).toBe(false);
    expect(isOldUnmanaged(anArchive(old), {}, 6001)).toBe(false);
  });
});

describe("a static pod", () => {
  const UUID = "fdf34e56-aa3b-412e-bbc9-24cb28140505";
  const HASH = "db95e7e2e0ab3b170ce0094239084f5c";
  const onNodeA = (pod: string | undefined, podUID: string | undefined) =>
    mayBeStaticPod({ pod, podUID, nodeName: "node-a" });

  it("is told by its UID, whatever its name", () => {
    for (const pod of ["web-0", "static.one-node-a", "web-node-b"]) {
      for (const uid of [HASH, HASH.toUpperCase(), "0".repeat(32)]) expect(onNodeA(pod, uid)).toBe(true);
      for (const uid of [UUID, UUID.toUpperCase()]) expect(onNodeA(pod, uid)).toBe(false);
    }
  });

  it.each([
    undefined,
    "",
    "my-static-pod",
    HASH.slice(1),
    `${HASH}0`,
    `g${HASH.slice(1)}`,
    ` ${UUID}`,
    `${UUID}0`,
    UUID.slice(1),
    UUID.replace("-", ""),
  ])("is told by the node's name at the end of its own, if its UID, %j, tells nothing", (uid) => {
    for (const pod of ["static.one-node-a", "x-node-a"]) expect(onNodeA(pod, uid)).toBe(true);
    for (const pod of ["node-a", "xnode-a", "web-node-a-0", "web-0", "web-node-b", "a-node"])
      expect(onNodeA(pod, uid)).toBe(false);
    // The kubelet writes the node's name in lower case there.
    expect(mayBeStaticPod({ pod: "one-node-a", podUID: uid, nodeName: "Node-A" })).toBe(true);
  });

  it("may be any whose UID tells nothing while the pod or the node is not known", () => {
    for (const uid of [undefined, "x"]) {
      expect(onNodeA(undefined, uid)).toBe(true);
      expect(mayBeStaticPod({ pod: "web-0", podUID: uid, nodeName: undefined })).toBe(true);
    }
    expect(mayBeStaticPod({ pod: undefined, podUID: UUID, nodeName: undefined })).toBe(false);
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
