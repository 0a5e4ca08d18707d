import { compilePolicy } from "@cro/shared/policy/compile";
import { describe, expect, it } from "vitest";
import { emptyRestPolicy, restPolicy } from "../../src/policy/rest.ts";

describe("the policy of a node that rests", () => {
  it("keeps directory, mode, the node's rules about bytes and the largest floor, and nothing else", () => {
    const compiled = compilePolicy({
      checkpointDirectory: "/archives",
      mode: "DryRun",
      applyPoliciesImmediately: true,
      globalPolicy: { retainOrphan: false, maxAge: "1d", minCheckpointsPerContainer: 1 },
      podPolicies: [{ namespace: "n", pod: "p", maxCheckpoints: 5, minCheckpoints: 3 }],
      nodePolicy: { minFree: "1Gi", maxAgeUnmanaged: "90d" },
    });
    if (!compiled.ok) throw new Error("must compile");
    expect(restPolicy(compiled.policy.document)).toEqual({
      directory: "/archives",
      mode: "DryRun",
      applyImmediately: false,
      global: { level: "global", retainOrphan: true, minCheckpoints: 3 },
      rules: [],
      node: { minFreeBytes: 2 ** 30 },
    });
  });

  it("has no rule if what ruled is not known, and is none for a directory that no policy can name", () => {
    const longest = `/${"a".repeat(1023)}`;
    expect(emptyRestPolicy(longest)).toEqual({
      directory: longest,
      mode: "Enforce",
      applyImmediately: false,
      global: { level: "global", retainOrphan: true },
      rules: [],
      node: {},
    });
    for (const directory of ["", "archives", "/a/../b", `${longest}a`, `/${"ä".repeat(512)}`]) {
      expect([directory, emptyRestPolicy(directory)]).toEqual([directory, undefined]);
    }
  });
});
