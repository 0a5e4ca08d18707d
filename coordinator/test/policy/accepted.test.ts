import { describe, expect, it } from "vitest";
import type { AgentView } from "../../src/agents/push.ts";
import { acceptedByNode } from "../../src/policy/accepted.ts";
import { aReport } from "../support/agent-peer.ts";

const DEFAULT = "d".repeat(64);
const POLICY = "a".repeat(64);

/** An agent that has accepted this; null is nothing, and undefined that it has not told. */
function aView(
  digest: string | null | undefined,
  { state = "pending" as AgentView["state"], node = "a" } = {},
): AgentView {
  const accepted = digest ? { accepted: { term: 1, revision: 1, digest } } : {};
  return {
    address: { node, podUID: "u", url: "https://10.0.0.1:9810" },
    state,
    report: digest === undefined ? undefined : aReport({ node, accepted: undefined, ...accepted }),
    heardAtMs: undefined,
    problem: undefined,
  };
}

const digestOf = (...views: AgentView[]) => acceptedByNode(views, DEFAULT).get("a")?.digest;

describe("what a node has accepted", () => {
  it.each([[POLICY], [DEFAULT], [null], [undefined]])("is what its one agent tells: %s", (digest) => {
    expect(digestOf(aView(digest))).toBe(digest);
  });

  it.each([[null], [DEFAULT], [POLICY]])(
    "is not known while another agent of it has yet to tell, whatever the first has: %s",
    (digest) => {
      expect(digestOf(aView(digest), aView(undefined))).toBeUndefined();
      expect(digestOf(aView(undefined), aView(digest))).toBeUndefined();
      expect(digestOf(aView(digest), aView(undefined, { node: "b" }))).toBe(digest);
    },
  );

  it("does not wait for an agent that never told and does not answer", () => {
    expect(digestOf(aView(null), aView(undefined, { state: "stale" }))).toBeNull();
  });

  it("is of two agents the policy that may have gone away, in either order", () => {
    for (const other of [null, DEFAULT]) {
      expect(digestOf(aView(POLICY), aView(other))).toBe(POLICY);
      expect(digestOf(aView(other), aView(POLICY))).toBe(POLICY);
    }
    expect(digestOf(aView(DEFAULT), aView(null))).toBe(DEFAULT);
  });

  it("is what an agent told last, even if it no longer answers", () => {
    expect(digestOf(aView(POLICY, { state: "stale" }), aView(null))).toBe(POLICY);
  });
});
