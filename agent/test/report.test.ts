import { createGovernor } from "@cro/shared/policy/govern";
import { REPORT_LIMITS, Report } from "@cro/shared/wire/report";
import { Check } from "typebox/value";
import { expect, it } from "vitest";
import type { Archive } from "../src/archive/archive.ts";
import { buildReport, type ReportInput } from "../src/report.ts";
import { anAcceptedPolicy } from "./support/watching.ts";

function anArchive(index: number, changes: Partial<Archive> = {}): Archive {
  const identity = { namespace: `n${index}`, pod: `p${index}`, container: "c" };
  return {
    file: `checkpoint-p${index}_n${index}-c-2026-01-02T03:04:05Z.tar`,
    identity,
    candidates: [identity],
    podUID: undefined,
    isStaticPod: false,
    timeMs: index,
    mtimeNs: BigInt(index),
    size: 1000 + index,
    allocated: 1000,
    hasOtherNames: false,
    state: "complete",
    walked: true,
    pinned: false,
    settled: true,
    listed: index,
    unmanagedSinceMs: undefined,
    ...changes,
  };
}

function input(changes: Partial<ReportInput> = {}): ReportInput {
  const head = {
    node: "node-a",
    podUID: "pod-a",
    version: "1",
    bootId: "boot",
    number: 1,
    time: "2026-01-02T03:04:05Z",
    directory: { path: "/archives", state: "watching" as const },
    paused: false,
    deleteErrors: 0,
    certificates: { authorities: [] },
  };
  const deletions = { last: [], total: 0, sums: {} };
  const rest = {
    govern: undefined,
    isByUid: false,
    unreachable: [],
    pinnedLimits: [],
    planned: {},
    deletions,
    orphanCursor: 0,
  };
  return { head, archives: [], ...rest, ...changes };
}

it("counts what limits count: pinned halves in bytes alone, torn ones without an owner in the node's, strangers nowhere", () => {
  const archives = [
    anArchive(1),
    anArchive(1, { state: "incomplete" }),
    anArchive(1, { state: "incomplete", pinned: true }),
    anArchive(2, { state: "unsettled" }),
    anArchive(3, { state: "unidentified", identity: undefined, pinned: true }),
    anArchive(4, { state: "incomplete", identity: undefined, size: 7 }),
    anArchive(5, { state: "incomplete", identity: undefined, pinned: true }),
  ];
  const { report } = buildReport(input({ archives }));
  expect(Check(Report, report)).toBe(true);
  expect(report).toMatchObject({ archives: 2, bytes: 3010, pinned: 3 });
  expect(report.namespaces).toEqual([{ namespace: "n1", archives: 2, bytes: 3003 }]);
  expect(report.states).toMatchObject({ complete: 1, incomplete: 4, unsettled: 1, unidentified: 1 });
});

it("stays bounded however much there is, tells what it left out, and gives each orphan scope its turn", () => {
  const { document } = anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, "/archives");
  const archives = Array.from({ length: 2500 }, (_, index) => anArchive(index));
  const govern = createGovernor(document);
  const asked = new Set<string>();
  let orphanCursor = 0;
  for (let turn = 0; turn < 3; turn += 1) {
    const result = buildReport(input({ archives, govern, orphanCursor }));
    orphanCursor = result.orphanCursor;
    expect(result.report.orphanScopes).toHaveLength(REPORT_LIMITS.orphanScopes);
    expect(result.report.orphanScopesOmitted).toBe(1500);
    expect(result.report.namespaces).toHaveLength(REPORT_LIMITS.namespaces);
    expect(result.report.namespacesOmitted).toBe(1500);
    for (const { pod } of result.report.orphanScopes) asked.add(pod);
  }
  expect(asked.size).toBe(2500);
});

it("asks about a hundred containers of a pod and five thousand in sum, and about the other pods in the next report", () => {
  const { document } = anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, "/archives");
  const archives = Array.from({ length: 60 * 101 }, (_, index) => {
    const identity = { namespace: "n", pod: `p${index % 60}`, container: `c${Math.floor(index / 60)}` };
    return anArchive(index, { identity });
  });
  const govern = createGovernor(document);
  const first = buildReport(input({ archives, govern, orphanCursor: 0 }));
  expect(first.report.orphanScopes.map(({ containers }) => containers.length)).toEqual(Array(50).fill(100));
  expect(first.report.orphanScopesOmitted).toBe(10);
  const next = buildReport(input({ archives, govern, orphanCursor: first.orphanCursor }));
  const asked = [...first.report.orphanScopes, ...next.report.orphanScopes].map(({ pod }) => pod);
  expect(new Set(asked).size).toBe(60);
});

it("asks about the UIDs of the pods of a name where a pod of the same name saves nothing, as many as of containers", () => {
  const { document } = anAcceptedPolicy({ globalPolicy: { retainOrphan: false }, orphanMatch: "UID" }, "/archives");
  const govern = createGovernor(document);
  const archives = [
    anArchive(0, { podUID: "first" }),
    anArchive(0, { podUID: "second" }),
    anArchive(0, { podUID: "first" }),
    anArchive(0),
    anArchive(0, { podUID: "pinned", pinned: true }),
    anArchive(0, { podUID: "static", isStaticPod: true }),
    anArchive(1),
  ];
  const asked = { namespace: "n0", pod: "p0", containers: ["c"] };
  const other = { namespace: "n1", pod: "p1", containers: ["c"] };
  const scopesOf = (isByUid: boolean) => buildReport(input({ archives, govern, isByUid })).report.orphanScopes;
  expect(scopesOf(true)).toEqual([{ ...asked, uids: ["first", "second"] }, other]);
  expect(scopesOf(false)).toEqual([asked, other]);
  const many = Array.from({ length: 101 }, (_, at) => anArchive(0, { podUID: `uid-${at}` }));
  const { report } = buildReport(input({ archives: many, govern, isByUid: true }));
  expect(Check(Report, report)).toBe(true);
  expect(report.orphanScopes[0]?.uids).toHaveLength(100);
});

it("tells of limits that pinned archives use up, the first hundred, and how many more there are", () => {
  const pinnedLimits = Array.from({ length: 101 }, (_, at) => ({ namespace: `n${at}`, maxCheckpoints: 3, pinned: 3 }));
  const { report } = buildReport(input({ pinnedLimits }));
  expect(Check(Report, report)).toBe(true);
  expect(report).toMatchObject({ pinnedLimits: pinnedLimits.slice(0, 100), pinnedLimitsOmitted: 1 });
});

it("asks about no static pod, and about others of the same name all the same", () => {
  const { document } = anAcceptedPolicy({ globalPolicy: { retainOrphan: false } }, "/archives");
  const archives = [anArchive(0, { isStaticPod: true }), anArchive(1), anArchive(1, { isStaticPod: true })];
  const side = { namespace: "n1", pod: "p1", container: "side" };
  archives.push(anArchive(1, { isStaticPod: true, identity: side }));
  const { report } = buildReport(input({ archives, govern: createGovernor(document) }));
  expect(report.orphanScopes).toEqual([{ namespace: "n1", pod: "p1", containers: ["c"] }]);
  expect(report).toMatchObject({ archives: 4, orphanScopesOmitted: 0 });
});

it("asks about pods that its policy does not retain, and about containers where their own absence counts", () => {
  const { document } = anAcceptedPolicy(
    {
      globalPolicy: { retainOrphan: false },
      podPolicies: [{ namespace: "n1", pod: "p1", retainOrphan: false }],
      namespacePolicies: [{ namespace: "n2" }],
    },
    "/archives",
  );
  const archives = [anArchive(0), anArchive(1), anArchive(2), anArchive(3, { pinned: true })];
  const { report } = buildReport(input({ archives, govern: createGovernor(document) }));
  expect(report.orphanScopes).toEqual([
    { namespace: "n0", pod: "p0", containers: ["c"] },
    { namespace: "n1", pod: "p1", containers: [] },
  ]);
});
