import { describe, expect, it } from "vitest";
import { type AcceptedPolicy, acceptDirective } from "../../src/policy/accept.ts";
import { anAcceptedPolicy } from "../support/watching.ts";

const former = { ...anAcceptedPolicy({}, "/archives"), fence: { term: 5, revision: 3 }, acceptedAtTrustedMs: 1 };
const other = anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 1 } }, "/archives");

/** A directive for the agent of {@link decide} with the policy that it has not got yet, newer than what it has. */
function aDirective(changes: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    ...{ term: 5, revision: 4, node: "node-a", podUID: "pod-a", time: "2026-11-22T12:00:00Z", orphans: [] },
    policy: { digest: other.digest, document: other.document },
    ...changes,
  };
}

const decide = (body: unknown, current: AcceptedPolicy | undefined = former) =>
  acceptDirective(body, { node: "node-a", podUID: "pod-a", current });

describe("a directive", () => {
  it("that is newer and has its policy with it puts that in force", () => {
    const { digest, document } = other;
    expect(decide(aDirective())).toEqual({
      ok: true,
      directive: aDirective(),
      accepted: { digest, document, fence: { term: 5, revision: 4 } },
    });
  });

  it("may name the resource that its policy comes from, and another one, or none, later", () => {
    const { digest, document } = other;
    const named = decide(aDirective({ policy: { digest, document, name: "shop/first" } }));
    if (!named.ok) throw new Error(named.refusal.error);
    expect(named.accepted).toEqual({ digest, document, name: "shop/first", fence: { term: 5, revision: 4 } });
    const renamed = aDirective({ revision: 5, policy: { digest, name: "shop/second" } });
    expect(decide(renamed, named.accepted)).toMatchObject({ ok: true, accepted: { name: "shop/second" } });
    const verdict = decide(aDirective({ revision: 6, policy: { digest } }), named.accepted);
    expect(verdict.ok && verdict.accepted).toEqual({ digest, document, fence: { term: 5, revision: 6 } });
    expect(decide(aDirective({ policy: { digest, document, name: "x".repeat(513) } }))).toMatchObject({ status: 422 });
  });

  it("is accepted whatever its term where none was accepted before", () => {
    const verdict = acceptDirective(aDirective({ term: 0, revision: 0 }), {
      ...{ node: "node-a", podUID: "pod-a", current: undefined },
    });
    expect(verdict).toMatchObject({ ok: true, accepted: { fence: { term: 0, revision: 0 } } });
  });

  it("with the policy in force needs no document, and what was news since that policy came stays news", () => {
    for (const fence of [
      { term: 5, revision: 4 },
      { term: 6, revision: 0 },
      { term: 5, revision: 3 },
    ]) {
      const verdict = decide(aDirective({ ...fence, policy: { digest: former.digest } }));
      expect(verdict).toMatchObject({ ok: true, accepted: { ...former, fence } });
    }
  });

  it.each([
    [{ term: 5, revision: 2 }, "term 5 revision 2 is older than term 5 revision 3, accepted before"],
    [{ term: 4, revision: 9 }, "term 4 revision 9 is older than term 5 revision 3, accepted before"],
    [{ term: 5, revision: 3 }, "term 5 revision 3 was accepted before with another policy"],
  ])("of %j is refused where term 5 revision 3 was accepted with another policy", (fence, error) => {
    expect(decide(aDirective(fence))).toEqual({
      ok: false,
      status: 409,
      refusal: { error, term: 5, revision: 3 },
    });
  });

  it("that is older is refused also where it repeats the policy in force", () => {
    expect(decide(aDirective({ term: 5, revision: 2, policy: { digest: former.digest } }))).toMatchObject({
      ok: false,
      status: 409,
    });
  });

  it.each([{ node: "node-b" }, { podUID: "pod-b" }, { node: "node-b", podUID: "pod-b" }])(
    "for %j is refused by the agent pod-a of node-a, however new it is",
    (changes) => {
      const to = { node: "node-a", podUID: "pod-a", ...changes };
      const error = `this is the agent pod-a of node node-a, the directive is for ${to.podUID} of ${to.node}`;
      const misdirected = { ok: false, status: 421, refusal: { error } };
      expect(decide(aDirective({ ...changes, term: 9 }))).toEqual(misdirected);
      expect(decide(aDirective({ ...changes, policy: { digest: former.digest } }))).toEqual(misdirected);
    },
  );

  it("whose policy is neither known nor sent along asks for the document", () => {
    expect(decide(aDirective({ policy: { digest: other.digest } }))).toEqual({
      ok: false,
      status: 428,
      refusal: { error: `the policy ${other.digest} is not known here; send its document` },
    });
  });

  it("whose document is not the one that its digest names is refused", () => {
    expect(decide(aDirective({ policy: { digest: "f".repeat(64), document: other.document } }))).toEqual({
      ok: false,
      status: 422,
      refusal: { error: "policy.digest: is not that of policy.document", field: "policy.digest" },
    });
  });

  it.each<[string, unknown, field: string]>([
    ["is no object", "a directive", "body"],
    ["is nothing", null, "body"],
    ["lacks its fence", { ...aDirective(), term: undefined, revision: undefined }, "term"],
    ["lacks what it is for", (({ node: _node, podUID: _podUID, ...rest }) => rest)(aDirective()), "node, podUID"],
    ["lacks the digest", aDirective({ policy: {} }), "policy.digest"],
    ["has a negative term", aDirective({ term: -1 }), "term"],
    ["has a term that a double does not hold exactly", aDirective({ term: Number.MAX_SAFE_INTEGER + 1 }), "term"],
    ["has a field that does not exist", aDirective({ extra: 1 }), "extra"],
    [
      "has a mode that does not exist",
      aDirective({ policy: { digest: other.digest, document: { ...other.document, mode: "Off" } } }),
      "policy.document.mode",
    ],
    ["has a time that is none", aDirective({ time: "yesterday" }), "time"],
    [
      "has a proof for no report",
      aDirective({ orphans: [{ bootId: "b", report: 0, namespace: "n", pod: "p" }] }),
      "orphans.0.report",
    ],
  ])("that %s is refused and told which field", (_, body, field) => {
    const verdict = decide(body);
    expect(verdict).toMatchObject({ ok: false, status: 422, refusal: { field } });
    expect(verdict.ok || verdict.refusal.error).toMatch(new RegExp(`^${field}: \\S`));
  });
});
