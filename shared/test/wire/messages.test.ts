import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { describe, expect, it } from "vitest";
import { defaultPolicy } from "../../src/policy/compile.ts";
import { digestOf, PolicyDocument } from "../../src/policy/document.ts";
import { Directive, Refusal } from "../../src/wire/directive.ts";
import { Report } from "../../src/wire/report.ts";

const document = defaultPolicy().document;
const digest = digestOf(JSON.stringify(document));

const directive = {
  term: 3,
  revision: 7,
  node: "node-a",
  podUID: "5f6f1c1e-0000-4000-8000-000000000000",
  time: "2026-11-22T12:00:00.123Z",
  policy: { digest, document },
  orphans: [{ bootId: "boot", report: 4, namespace: "team", pod: "web", container: "main" }],
};

const report = {
  node: "node-a",
  podUID: "uid",
  version: "0.1.0",
  bootId: "boot",
  number: 1,
  time: "2026-11-22T12:00:00Z",
  accepted: { term: 3, revision: 7, digest },
  directory: { path: "/var/lib/kubelet/checkpoints", state: "watching" },
  disk: { sizeBytes: 100, freeBytes: 50 },
  paused: false,
  archives: 1,
  bytes: 1,
  pinned: 0,
  states: { complete: 1 },
  namespaces: [{ namespace: "team", archives: 1, bytes: 1 }],
  namespacesOmitted: 0,
  orphanScopes: [{ namespace: "team", pod: "web", containers: ["main"] }],
  orphanScopesOmitted: 0,
  unreachable: [{ limit: "max_age", namespace: "team", wanted: 2, freed: 1, unit: "archives" }],
  unreachableOmitted: 0,
  planned: 0,
  deletions: [
    {
      number: 1,
      time: "2026-11-22T12:00:00Z",
      file: "checkpoint-web_team-main-2026-11-22T11:00:00Z.tar",
      namespace: "team",
      pod: "web",
      container: "main",
      bytes: 1,
      reason: "orphan",
    },
  ],
  deletionsOmitted: 0,
  deleteErrors: 0,
  certificates: { authorities: [] },
};

const accepts = (schema: TSchema, value: unknown) => Compile(schema).Check(value);

describe("a directive", () => {
  it("travels with or without the policy's body, as JSON", () => {
    expect(accepts(Directive, JSON.parse(JSON.stringify(directive)))).toBe(true);
    expect(accepts(Directive, { ...directive, policy: { digest }, orphans: [] })).toBe(true);
  });

  it.each([
    ["a field that nobody knows", { extra: 1 }],
    ["a negative term", { term: -1 }],
    ["a term beyond exact integers", { term: 2 ** 53 }],
    ["a fraction as revision", { revision: 1.5 }],
    ["no node", { node: undefined }],
    ["an empty node", { node: "" }],
    ["a time with an offset", { time: "2026-11-22T12:00:00+01:00" }],
    ["a digest that is none", { policy: { digest: "abc" } }],
    ["a policy with an unknown field", { policy: { digest, document: { ...document, extra: 1 } } }],
    ["an age under an hour", { policy: { digest, document: { ...document, node: { maxAgeUnmanagedMs: 3_599_999 } } } }],
    ["a limit of 0", { policy: { digest, document: { ...document, node: { minFreeBytes: 0 } } } }],
    ["an orphan that names no report", { orphans: [{ bootId: "b", namespace: "a", pod: "b" }] }],
    ["an orphan that names no pod", { orphans: [{ bootId: "b", report: 1, namespace: "a" }] }],
    ["more than 1000 orphans", { orphans: Array(1001).fill(directive.orphans[0]) }],
  ])("is refused with %s", (_, change) => {
    expect(accepts(Directive, JSON.parse(JSON.stringify({ ...directive, ...change })))).toBe(false);
  });
});

describe("a report", () => {
  it("needs neither a policy nor a disk, and tolerates what a newer agent adds", () => {
    expect(accepts(Report, report)).toBe(true);
    const { accepted, disk, ...rest } = report;
    expect([accepted, disk, accepts(Report, rest)]).toEqual([report.accepted, report.disk, true]);
    expect(accepts(Report, { ...report, newer: 1 })).toBe(true);
  });

  it("may have words that only a later version knows", () => {
    expect(accepts(Report, { ...report, directory: { path: "/", state: "thawing" } })).toBe(true);
    expect(accepts(Report, { ...report, states: { trashed: 1 } })).toBe(true);
    const limit = { limit: "max_inodes", wanted: 1, freed: 0, unit: "inodes" };
    expect(accepts(Report, { ...report, unreachable: [limit] })).toBe(true);
    const deletion = { number: 1, bytes: 1, reason: "max_age_unmanaged" };
    expect(accepts(Report, { ...report, deletions: [deletion] })).toBe(true);
    expect(accepts(Report, { ...report, protocol: 3, documentFields: ["node.trash.keepFor", "mode.Preview"] })).toBe(
      true,
    );
  });

  it.each([
    ["number 0", { number: 0 }],
    ["no start of the agent", { bootId: "" }],
    ["a number beyond exact integers", { bytes: 2 ** 53 }],
    ["negative bytes", { bytes: -1 }],
  ])("is refused with %s", (_, change) => {
    expect(accepts(Report, { ...report, ...change })).toBe(false);
  });
});

describe("a refusal", () => {
  it("names an error, and a field or a fence where there is one", () => {
    expect(accepts(Refusal, { error: "older", term: 3, revision: 7 })).toBe(true);
    expect(accepts(Refusal, { error: "invalid", field: "policy.digest" })).toBe(true);
    expect(accepts(Refusal, { term: 3 })).toBe(false);
  });
});

describe("a policy document", () => {
  it.each([
    ["a relative directory", { directory: "checkpoints" }],
    ["an unknown mode", { mode: "Maybe" }],
    ["a watermark without its low mark", { node: { watermark: { high: 85 } } }],
    ["a rule of no level", { rules: [{ retainOrphan: true }] }],
    ["no global policy", { global: undefined }],
  ])("is refused with %s", (_, change) => {
    expect(accepts(PolicyDocument, document)).toBe(true);
    expect(accepts(PolicyDocument, JSON.parse(JSON.stringify({ ...document, ...change })))).toBe(false);
  });

  it("is named by the SHA-256 of its JSON", () => {
    expect(digestOf("")).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect(digestOf(`${JSON.stringify(document)} `)).not.toBe(digest);
  });
});
