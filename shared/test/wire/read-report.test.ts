import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createReportReader, plain } from "../../src/wire/read-report.ts";
import { REPORT_LIMITS, type Report } from "../../src/wire/report.ts";
import { soak } from "../support/soak.ts";

const NOW_MS = Date.parse("2026-11-22T12:00:00Z");
const readReport = createReportReader();

const deletion = {
  number: 1,
  time: "2026-11-22T11:59:00Z",
  file: "checkpoint-web_team-main-2026-11-22T11:00:00Z.tar",
  namespace: "team",
  pod: "web.1",
  container: "main",
  bytes: 1,
  reason: "orphan",
};
const limit = { limit: "max_age", namespace: "team", wanted: 2, freed: 1, unit: "archives" };
const scope = { namespace: "team", pod: "web.1", containers: ["main"] };

const report = {
  node: "node-a",
  podUID: "uid",
  version: "0.2.0",
  protocol: 2,
  documentFields: ["directory", "node.minFreeBytes"],
  bootId: "boot",
  number: 1,
  time: "2026-11-22T12:00:00.000Z",
  accepted: { term: 3, revision: 7, digest: "d" },
  directory: { path: "/var/lib/kubelet/checkpoints", state: "watching" },
  disk: { sizeBytes: 100, freeBytes: 50 },
  paused: false,
  archives: 1,
  bytes: 1,
  pinned: 0,
  states: { complete: 1 },
  namespaces: [{ namespace: "team", archives: 1, bytes: 1 }],
  namespacesOmitted: 0,
  orphanScopes: [scope],
  orphanScopesOmitted: 0,
  unreachable: [limit],
  unreachableOmitted: 0,
  planned: 0,
  deletions: [{ ...deletion, time: "2026-11-22T11:59:00.000Z" }],
  deletionsOmitted: 0,
  deleteErrors: 0,
  certificates: { authorities: ["ab".repeat(32)], notAfter: "2027-01-01T00:00:00.000Z" },
};

function read(changes: object): { report: Report; dropped: string[] } {
  const result = readReport(JSON.parse(JSON.stringify({ ...report, ...changes })), NOW_MS);
  if (!result.ok) throw new Error(result.problem);
  return result;
}

const NAMES = [
  "../pods?watch=true&x=",
  "..",
  ".",
  "",
  "a/b",
  "a%2fb",
  "A",
  "a_b",
  "-a",
  "a-",
  "a".repeat(300),
  "\u0000",
];

describe("a report that is read", () => {
  it("is taken whole if nothing is wrong with it", () => {
    expect(read({})).toEqual({ ok: true, report, dropped: [] });
  });

  it("is taken with members and words of later versions", () => {
    const later = {
      mood: "fine",
      protocol: 7,
      directory: { path: "/a", state: "thawing", since: 1 },
      states: { complete: 1, trashed: 2 },
      unreachable: [{ limit: "min_free_inodes", wanted: 1, freed: 0, unit: "inodes", why: "x" }],
      deletions: [{ number: 4, time: "2026-11-22T11:59:00Z", bytes: 3, reason: "max_age_unmanaged", journal: 1 }],
    };
    const { report: taken, dropped } = read(later);
    expect(dropped).toEqual([]);
    expect(taken).toMatchObject({
      protocol: 7,
      directory: { path: "/a", state: "thawing" },
      states: { complete: 1, trashed: 2 },
      unreachable: [{ limit: "min_free_inodes", unit: "inodes" }],
      deletions: [{ number: 4, reason: "max_age_unmanaged" }],
    });
  });

  it("keeps no member that is not known, wherever it stands: a report is kept, and it may be of any size", () => {
    const more = { mood: ["x".repeat(1000)] };
    const { report: taken, dropped } = read({
      ...more,
      accepted: { ...report.accepted, ...more },
      directory: { ...report.directory, ...more },
      disk: { ...report.disk, ...more },
      namespaces: [{ ...report.namespaces[0], ...more }],
      orphanScopes: [{ ...scope, ...more }],
      unreachable: [{ ...limit, ...more }],
      deletions: [{ ...report.deletions[0], ...more }],
      certificates: { ...report.certificates, ...more },
    });
    expect([taken, dropped]).toEqual([report, []]);
  });

  it("asks about a hundred containers of a pod and five thousand in sum, and the rest counts as left out", () => {
    const containers = (count: number) => Array.from({ length: count }, (_, index) => `c-${index}`);
    const orphanScopes = [
      { ...scope, containers: containers(1001) },
      ...Array.from({ length: 50 }, (_, index) => ({ ...scope, pod: `p-${index}`, containers: containers(100) })),
    ];
    const { report: taken, dropped } = read({ orphanScopes, orphanScopesOmitted: 3 });
    expect(taken.orphanScopes.map((one) => one.containers.length)).toEqual([...Array(50).fill(100), 0]);
    expect([taken.orphanScopesOmitted, dropped]).toEqual([5, []]);
  });

  it("asks about UIDs within the same bounds, whoever sends them", () => {
    const uids = (count: number) => Array.from({ length: count }, (_, index) => `uid-${index}`);
    const orphanScopes = Array.from({ length: 60 }, (_, index) => ({
      ...scope,
      pod: `p-${index}`,
      containers: [],
      uids: uids(101),
    }));
    const { report: taken, dropped } = read({ orphanScopes, orphanScopesOmitted: 0 });
    expect(taken.orphanScopes.map((one) => one.uids?.length)).toEqual([...Array(50).fill(100), ...Array(10).fill(0)]);
    expect([taken.orphanScopesOmitted, dropped]).toEqual([60, []]);
    expect(read({ orphanScopes: [{ ...scope, uids: ["a b"] }] }).report.orphanScopes).toEqual([]);
  });

  it.each([
    ["no object", [1]],
    ["nothing", undefined],
    ["no start", { ...report, bootId: "" }],
    ["a number beyond exact integers", { ...report, archives: 1e300 }],
    ["a list that is none", { ...report, orphanScopes: {} }],
    ["a fence that is none", { ...report, accepted: { term: 2 ** 53, revision: 0, digest: "d" } }],
    ["a state that steers a terminal", { ...report, directory: { path: "/", state: "\u001b[2J" } }],
  ])("is none if it has %s", (_, value) => {
    const result = readReport(value, NOW_MS);
    expect(result).toMatchObject({ ok: false, problem: expect.any(String) });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not be there
    expect(result.ok ? "" : result.problem).not.toMatch(/[\u0000-\u001f]/);
  });

  it("loses scopes, deletions and limits of names that Kubernetes does not have, and nothing else", () => {
    for (const name of NAMES) {
      for (const bad of [{ namespace: name }, { pod: name }, { container: name }]) {
        const names = { namespace: "n", pod: "p", container: "c", ...bad };
        const { report: taken, dropped } = read({
          orphanScopes: [{ ...names, containers: [names.container] }, scope],
          deletions: [
            { ...deletion, ...names },
            { ...deletion, number: 2 },
          ],
          unreachable: [{ ...limit, ...names }, limit],
          namespaces: [{ namespace: name, archives: 1, bytes: 1 }],
        });
        expect(taken.orphanScopes).toEqual([scope]);
        expect(taken.deletions.map(({ number }) => number)).toEqual([2]);
        expect(taken.unreachable).toEqual([limit]);
        expect(taken.namespaces).toEqual([]);
        expect([taken.orphanScopesOmitted, taken.deletionsOmitted, taken.unreachableOmitted]).toEqual([1, 1, 1]);
        expect(dropped).toHaveLength(4);
      }
    }
  });

  it("takes every name that Kubernetes has, such as a pod's of 253 characters without a dot", () => {
    const names = { namespace: "n".repeat(63), pod: "p".repeat(253), containers: ["c".repeat(63)] };
    expect(read({ orphanScopes: [names, { ...names, pod: "a-1.b.c-2" }] }).dropped).toEqual([]);
    for (const bad of [{ namespace: "n".repeat(64) }, { pod: "p".repeat(254) }, { containers: ["c".repeat(64)] }]) {
      expect(read({ orphanScopes: [{ ...names, ...bad }] }).report.orphanScopes).toEqual([]);
    }
  });

  it("loses times that are none or still to come, and keeps what they date", () => {
    const times = ["2999", "2999-01-01T00:00:00Z", "2026-11-22T12:05:00.001Z", "yesterday", 7, "2026-13-01T00:00:00Z"];
    for (const time of times) {
      const { report: taken, dropped } = read({ time, deletions: [{ ...deletion, time }] });
      expect(taken.time).toBeUndefined();
      expect(taken.deletions).toEqual([{ ...deletion, time: undefined }]);
      expect(dropped).toHaveLength(2);
    }
    const ahead = read({ deletions: [{ ...deletion, time: "2026-11-22T17:35:00+05:30" }] });
    expect(ahead.report.deletions[0]?.time).toBe("2026-11-22T12:05:00.000Z");
    expect(ahead.dropped).toEqual([]);
  });

  it("keeps of long lists what it says at most, the last of the deletions and the first of all else", () => {
    const deletions = Array.from({ length: 500 }, (_, index) => ({ ...deletion, number: index + 1 }));
    const orphanScopes = Array.from({ length: 5000 }, (_, index) => ({ ...scope, pod: `p${index}` }));
    const { report: taken } = read({ deletions, deletionsOmitted: 5, orphanScopes });
    expect(taken.deletions.map(({ number }) => number)).toEqual(Array.from({ length: 200 }, (_, n) => n + 301));
    expect(taken.deletionsOmitted).toBe(305);
    expect(taken.orphanScopes).toHaveLength(REPORT_LIMITS.orphanScopes);
    expect(taken.orphanScopes[0]?.pod).toBe("p0");
    expect(taken.orphanScopesOmitted).toBe(4000);
    const omitted = read({ orphanScopes, orphanScopesOmitted: Number.MAX_SAFE_INTEGER }).report.orphanScopesOmitted;
    expect(omitted).toBe(Number.MAX_SAFE_INTEGER);
  });

  it("tells of ten parts that it does not believe, and how many more there are", () => {
    const { dropped } = read({ orphanScopes: Array(30).fill({ ...scope, pod: "?" }) });
    expect(dropped).toHaveLength(11);
    expect(dropped[0]).toMatch(/^orphanScopes\[0\]: \/pod must match pattern/);
    expect(dropped[10]).toBe("and 20 more");
  });

  it("tells no fields rather than wrong ones, and no authority that is none", () => {
    for (const documentFields of [["a.b", ""], ["a..b"], [7], "a", Array(1001).fill("a")]) {
      expect(read({ documentFields }).report.documentFields).toBeUndefined();
    }
    for (const failing of [7, {}, { archives: -1, codes: [] }, { archives: 1, codes: ["a b"] }]) {
      expect(read({ failing }).report.failing).toBeUndefined();
    }
    const failing = { archives: 2, codes: ["EPERM"] };
    expect(read({ failing: { ...failing, more: 1 } }).report.failing).toEqual(failing);
    const codes = ["E1", "E2", "E3", "E4", "E5", "E6"];
    expect(read({ failing: { archives: 2, codes } }).report.failing).toEqual({
      archives: 2,
      codes: codes.slice(0, 5),
    });
    const certificates = { authorities: [`${"AB:".repeat(31)}AB`, "nonsense", 7], notAfter: "never" };
    expect(read({ certificates }).report.certificates).toEqual({ authorities: [`${"AB:".repeat(31)}AB`] });
    expect(read({ certificates }).dropped).toHaveLength(2);
  });

  it("has sums by reason, of words and numbers alone", () => {
    const sum = { archives: 2, bytes: 10 };
    const odd = { orphan: { ...sum, more: "x" }, "a b": sum, torn: { archives: -1, bytes: 1 }, none: 3 };
    expect(read({ deleted: odd }).report.deleted).toEqual({ orphan: sum });
    expect(read({ plan: { bytes: 10, byReason: odd, more: 1 } }).report.plan).toEqual({
      bytes: 10,
      byReason: { orphan: sum },
    });
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`r${index}`, sum]));
    expect(Object.keys(read({ deleted: many }).report.deleted ?? {})).toHaveLength(64);
  });

  it.each([null, 3, [], { bytes: -1, byReason: {} }, { bytes: 1, byReason: null }, { bytes: 1 }])(
    "does not know what would go where that is told as %j",
    (plan) => {
      const { report, dropped } = read({ plan });
      expect(report.plan).toBeUndefined();
      expect(dropped.join()).toContain("plan");
    },
  );

  it("knows what stands in a limit's way by the names it has for it, and no others", () => {
    const limit = { limit: "max_checkpoints", namespace: "a", wanted: 2, freed: 1, unit: "archives" };
    const obstacles = { pinned: 1, failing: 2, odd: 3 };
    expect(read({ unreachable: [{ ...limit, obstacles, codes: ["EPERM"] }] }).report.unreachable).toEqual([
      { ...limit, obstacles: { pinned: 1, failing: 2 }, codes: ["EPERM"] },
    ]);
    expect(read({ unreachable: [{ ...limit, codes: ["E P"] }] }).report.unreachable).toEqual([]);
    const codes = ["E1", "E2", "E3", "E4", "E5"];
    const more = { ...limit, codes: [...codes, "E6"] };
    expect(read({ unreachable: [more] }).report.unreachable).toEqual([{ ...limit, codes }]);
  });

  it("has states that are words, of which there are few", () => {
    const states = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`s${index}`, index]));
    expect(Object.keys(read({ states }).report.states)).toHaveLength(64);
    expect(read({ states: { complete: 1, "a b": 2, torn: -1, odd: "x" } }).report.states).toEqual({ complete: 1 });
  });

  it("names no directory rather than one that is no plain absolute path, or longer than a KiB", () => {
    for (const path of ["archives", "/a/../b", "/a//b", "/./a", "/a\nb", "/a\u0000b", `/${"x".repeat(1024)}`]) {
      const { report: taken, dropped } = read({ directory: { path, state: "watching" } });
      expect([path, taken.directory, dropped.length]).toEqual([path, { path: "", state: "watching" }, 1]);
    }
    for (const path of ["", "/", "/a/..b/.c", `/${"x".repeat(1023)}`]) {
      const { report: taken, dropped } = read({ directory: { path, state: "watching" } });
      expect([taken.directory.path, dropped]).toEqual([path, []]);
    }
  });

  it("has texts of bounded length that steer no terminal", () => {
    const { message } = read({
      directory: { path: "/", state: "missing", message: `\u001b[2J${"x".repeat(9999)}` },
    }).report.directory;
    expect(message?.length).toBe(1000);
    expect(message?.slice(0, 5)).toBe(" [2Jx");
    expect(plain("a\nb\u009bc")).toBe("a b c");
  });

  it("never throws, and what is taken names only what Kubernetes can have and what has been", () => {
    const anything = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom<unknown>(...NAMES, "2999-01-01T00:00:00Z", -1, 1e300, null) },
      fc.anything(),
    );
    const arbNames = fc.record({ namespace: anything, pod: anything, container: anything }, { requiredKeys: [] });
    const arbEntry = fc.tuple(arbNames, anything).map(([{ container, ...names }, other]) => ({
      ...{ orphanScopes: { ...names, containers: [container] } },
      ...{ deletions: { ...deletion, ...names, container, time: other } },
      ...{ unreachable: { ...limit, ...names, limit: other } },
    }));
    const arbReport = fc
      .tuple(fc.array(arbEntry, { maxLength: 4 }), fc.dictionary(fc.constantFrom(...Object.keys(report)), anything))
      .map(([entries, changes]) => ({
        ...report,
        orphanScopes: entries.map((entry) => entry.orphanScopes),
        deletions: entries.map((entry) => entry.deletions),
        unreachable: entries.map((entry) => entry.unreachable),
        ...changes,
      }));
    const label = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
    const subdomain = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
    let taken = 0;
    fc.assert(
      fc.property(arbReport, (value) => {
        const result = readReport(value, NOW_MS);
        if (!result.ok) return;
        taken += 1;
        const { orphanScopes, deletions, unreachable } = result.report;
        for (const { namespace, pod, containers } of orphanScopes) {
          expect([namespace, ...containers].filter((name) => !label.test(name))).toEqual([]);
          expect(pod).toMatch(subdomain);
        }
        for (const { time } of deletions) {
          if (time !== undefined) expect(Date.parse(time)).toBeLessThanOrEqual(NOW_MS + 300_000);
        }
        for (const { namespace, pod } of [...deletions, ...unreachable]) {
          expect(namespace ?? "n").toMatch(label);
          expect(pod ?? "p").toMatch(subdomain);
        }
      }),
      { numRuns: soak(2000) },
    );
    expect(taken).toBeGreaterThan(soak(200));
  });
});
