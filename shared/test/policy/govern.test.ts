import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Policy, PolicyDocument } from "../../src/policy/document.ts";
import { type ContainerIdentity, createGovernor } from "../../src/policy/govern.ts";
import { soak } from "../support/soak.ts";

const GLOBAL: Policy = { level: "global", retainOrphan: true };

const documentOf = (rules: Policy[]): PolicyDocument => ({
  directory: "/checkpoints",
  mode: "Enforce",
  applyImmediately: false,
  global: GLOBAL,
  rules,
  node: {},
});

/** `namespace/pod/container` as a rule: how many names there are makes its level. */
function rule(scope: string): Policy {
  const [namespace = "", pod, container] = scope.split("/");
  const level = container !== undefined ? "container" : pod !== undefined ? "pod" : "namespace";
  return {
    level,
    retainOrphan: true,
    namespace,
    ...(pod === undefined ? {} : { pod }),
    ...(container === undefined ? {} : { container }),
  };
}

function identity(scope: string): ContainerIdentity {
  const [namespace = "", pod = "", container = ""] = scope.split("/");
  return { namespace, pod, container };
}

const nameOf = ({ namespace, pod, container }: Policy) =>
  [namespace, pod, container].filter((name) => name !== undefined).join("/") || "global";

describe("createGovernor", () => {
  it.each([
    ["a container policy over all others", "a/p/c", ["a", "a/p", "a/p/c"], "a/p/c"],
    ["a pod policy over a namespace policy", "a/p/c", ["a", "a/p", "a/p/x"], "a/p"],
    ["a namespace policy over the global one", "a/p/c", ["a", "b/p", "a/x/c"], "a"],
    ["the global one where nothing matches", "a/p/c", ["b", "ab", "a/pp", "A/p/c"], "global"],
    ["an exact name over a prefix", "team/p/c", ["team*", "team", "*"], "team"],
    ["the longer prefix", "team-prod/p/c", ["*", "team*", "team-*", "t*"], "team-*"],
    ["the level before exactness", "a/p/c", ["a/p", "*/*/*"], "*/*/*"],
    ["the namespace first", "a/p/c", ["*/p/c", "a/*/*"], "a/*/*"],
    ["then the pod", "a/p/c", ["a/*/c", "a/p/*"], "a/p/*"],
    ["then the container", "a/p/cc", ["a/p/*", "a/p/c*", "a/p/cc"], "a/p/cc"],
    ["a wider name where the narrower has no such pod", "team/p/c", ["team/x", "team*/p"], "team*/p"],
    ["a shorter prefix where the longer has no such container", "a/pod/c", ["a/po*/x", "a/p*/c"], "a/p*/c"],
    ["a name that is its own prefix", "team/p/c", ["team*"], "team*"],
    ["no namespace that merely begins alike", "team-prod/p/c", ["team"], "global"],
    ["no name longer than the real one", "tea/p/c", ["team*"], "global"],
  ])("finds %s", (_, scope, rules, expected) => {
    for (const order of [rules, rules.toReversed()]) {
      expect(nameOf(createGovernor(documentOf(order.map(rule)))(identity(scope)))).toBe(expected);
    }
  });

  it("finds what a plain search through all rules finds", () => {
    const name = fc.constantFrom("a", "ab", "abc", "b", "a.b", "ab-c");
    const pattern = fc.oneof(
      name,
      fc.tuple(name, fc.nat(4)).map(([text, length]) => `${text.slice(0, length)}*`),
    );
    const scope = fc.array(pattern, { minLength: 1, maxLength: 3 }).map((names) => names.join("/"));
    const rank = (text = "") => (text.endsWith("*") ? text.length : 1000);
    const matches = (text: string | undefined, real: string) =>
      text === undefined || (text.endsWith("*") ? real.startsWith(text.slice(0, -1)) : text === real);
    const search = (rules: Policy[], wanted: ContainerIdentity) =>
      rules
        .filter((one) => matches(one.namespace, wanted.namespace) && matches(one.pod, wanted.pod))
        .filter((one) => matches(one.container, wanted.container))
        .sort(
          (a, b) =>
            nameOf(b).split("/").length - nameOf(a).split("/").length ||
            rank(b.namespace) - rank(a.namespace) ||
            rank(b.pod) - rank(a.pod) ||
            rank(b.container) - rank(a.container),
        )[0] ?? GLOBAL;
    fc.assert(
      fc.property(
        fc.uniqueArray(scope, { maxLength: 15 }),
        fc.array(fc.tuple(name, name, name), { minLength: 1, maxLength: 8 }),
        (scopes, identities) => {
          const rules = scopes.map(rule);
          const govern = createGovernor(documentOf(rules));
          for (const names of identities) {
            const wanted = identity(names.join("/"));
            expect(govern(wanted)).toBe(search(rules, wanted));
          }
        },
      ),
      { numRuns: soak(2000) },
    );
  });
});
