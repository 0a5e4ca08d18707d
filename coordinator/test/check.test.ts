import { expect, it } from "vitest";
import { judgeRelease, type ReleaseFacts } from "../src/check.ts";

const agent = (node: string, changes: object = {}) => ({
  ...{ node, isReady: true, image: "registry/cro:1", isAgent: true },
  ...changes,
});
const coordinator = { node: "a", isReady: true, image: "registry/cro:1", isAgent: false };
const ready = (status: "True" | "False", reason: string) => ({
  observedGeneration: 1,
  conditions: [{ type: "Ready", status, reason, message: "why", lastTransitionTime: "2026-01-01T00:00:00Z" }],
});
const well: ReleaseFacts = {
  lease: { holder: "coordinator-0_uuid", record: "2" },
  firstRecord: "1",
  nodes: ["a", "b"].map((name) => ({ name, labels: {} })),
  pods: [agent("a"), agent("b"), coordinator],
  policies: [{ key: "p/retention", generation: 1, status: ready("True", "Enforcing") }],
};
const wrong = (facts: Partial<ReleaseFacts>) =>
  judgeRelease({ ...well, ...facts }).flatMap(({ isOk, text }) => (isOk ? [] : [text]));

it("a release is well if somebody leads, agents are ready where they can be, all run one image and policies are obeyed", () => {
  expect(judgeRelease(well).map(({ text }) => text)).toEqual([
    "coordinator-0 leads",
    "agents are ready on 2 of 2 nodes",
    "all 3 pods run registry/cro:1",
    "1 policy is obeyed",
  ]);
  expect(wrong({})).toEqual([]);
  expect(wrong({ policies: [] })).toEqual([]);
  // A node that runs no DaemonSets needs none, and a policy that others outrank is not the release's fault.
  const virtual = { name: "v", labels: { type: "virtual-kubelet" } };
  expect(wrong({ nodes: [...well.nodes, virtual] })).toEqual([]);
  expect(wrong({ policies: [{ key: "p/x", generation: 1, status: ready("False", "Outranked") }] })).toEqual([]);
});

it.each<[string, Partial<ReleaseFacts>, string]>([
  ["nobody leads", { lease: { holder: "", record: "2" } }, "no coordinator leads: nobody holds the Lease"],
  [
    "the Lease is not renewed",
    { lease: { holder: "coordinator-0_uuid", record: "1" } },
    "coordinator-0 holds the Lease and does not renew it",
  ],
  ["a node has no agent", { pods: [agent("a"), coordinator] }, "no agent is ready on b; kubectl describe its pod"],
  [
    "an agent is not ready",
    { pods: [agent("a"), agent("b", { isReady: false }), coordinator] },
    "no agent is ready on b; kubectl describe its pod",
  ],
  [
    "pods are of two versions",
    { pods: [agent("a"), agent("b", { image: "registry/cro:2" }), coordinator] },
    "pods run different images: registry/cro:1, registry/cro:2",
  ],
  [
    "a policy is not obeyed",
    { policies: [{ key: "p/x", generation: 1, status: ready("False", "DirectoryNotMounted") }] },
    "p/x: DirectoryNotMounted: why",
  ],
  ["a policy has no status", { policies: [{ key: "p/x", generation: 1, status: undefined }] }, "p/x has no status yet"],
  [
    "a policy has changed since its status was written",
    { policies: [{ key: "p/x", generation: 2, status: ready("True", "Enforcing") }] },
    "p/x has no status yet",
  ],
])("a release is not well if %s", (_, facts, text) => {
  expect(wrong(facts)).toEqual([text]);
});
