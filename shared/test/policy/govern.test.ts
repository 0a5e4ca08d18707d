import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { namesOfPolicy, type Policy, type PolicyDocument } from "../../src/policy/document.ts";
import { type ContainerIdentity, createGovernor } from "../../src/policy/govern.ts";
import { WORKLOAD_KINDS, type WorkloadKind } from "../../src/policy/workload.ts";
import { arbNameOfPodOf, isNameOfPodOf } from "../support/pod-names.ts";
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

const nameOf = (policy: Policy) => namesOfPolicy(policy) || "global";

/** Whether a name in a policy stands for this name, and how closely: exact ones before prefixes, each before none. */
const matches = (text: string | undefined, real: string) =>
  text === undefined || (text.endsWith("*") ? real.startsWith(text.slice(0, -1)) : text === real);
const closeness = (text = "") => (text === "" ? 0 : text.endsWith("*") ? text.length : 1000);

describe("createGovernor", () => {
  /** `NAMESPACE/KIND/NAME`, or `NAMESPACE/KIND/NAME/CONTAINER`. */
  function workload(scope: string): Policy {
    const [namespace = "", kind, name = "", container] = scope.split("/");
    const names = { namespace, kind: kind as WorkloadKind, workload: name };
    return { level: "workload", retainOrphan: true, ...names, ...(container === undefined ? {} : { container }) };
  }

  /** Whichever comes first of these policies: those that name a kind are of workloads. */
  function expectFound(scope: string, rules: string[], expected: string): void {
    const policies = rules.map((one) => (/\/[A-Z][a-z]+[A-Za-z]*\//.test(one) ? workload(one) : rule(one)));
    for (const order of [policies, policies.toReversed()]) {
      expect(nameOf(createGovernor(documentOf(order))(identity(scope)))).toBe(expected);
    }
  }

  const pod = "web-6f9f8977b7-w28kl";
  const long = "n".repeat(60);

  it.each([
    ["a pod policy over one of its workload", `a/${pod}/c`, [`a/${pod}`, "a/Deployment/web"], `a/${pod}`],
    ["one of its workload over a namespace policy", `a/${pod}/c`, ["a", "a/Deployment/web"], "a/Deployment/web"],
    ["none of a workload that is not its own", "a/web-admin-w28kl/c", ["a", "a/Deployment/web"], "a"],
    ["the longer name", `a/${pod}/c`, ["a/Deployment/web", "a/Job/web-6f9f8977b7"], "a/Job/web-6f9f8977b7"],
    ["the kinds in their order", "a/web-24567/c", ["a/Job/web", "a/StatefulSet/web"], "a/StatefulSet/web"],
    [
      "a closer container of one workload",
      `a/${pod}/cc`,
      ["a/Deployment/web", "a/Deployment/web/c*"],
      "a/Deployment/web/c*",
    ],
    [
      "no prefix of a container by its first letter alone",
      `a/${pod}/cache`,
      ["a/Deployment/web", "a/Deployment/web/check*"],
      "a/Deployment/web",
    ],
    [
      "an exact container over a prefix",
      `a/${pod}/cc`,
      ["a/Deployment/web/c*", "a/Deployment/web/cc"],
      "a/Deployment/web/cc",
    ],
    [
      "the shorter name where the longer is for other containers",
      `a/${pod}/c`,
      ["a/Deployment/web", "a/Job/web-6f9f8977b7/x"],
      "a/Deployment/web",
    ],
    [
      "an exact namespace before a longer name",
      `a/${pod}/c`,
      ["a/Deployment/web", "*/Job/web-6f9f8977b7"],
      "a/Deployment/web",
    ],
    [
      "a prefix of a namespace where the exact one has no such workload",
      `a/${pod}/c`,
      ["a/Deployment/x", "*/Deployment/web"],
      "*/Deployment/web",
    ],
    [
      "a workload whose name its pods' names hold in part",
      `a/${"n".repeat(58)}w28kl/c`,
      [`a/Deployment/${long}`],
      `a/Deployment/${long}`,
    ],
    [
      "the global one for a bare pod of the workload's name",
      "a/web/c",
      ["a/Deployment/web", "a/StatefulSet/web"],
      "global",
    ],
  ])("finds %s", (_, scope, rules, expected) => {
    expectFound(scope, rules, expected);
  });

  it("finds what a plain search through all policies of workloads finds", () => {
    const name = fc.constantFrom("web", "web-4", "web-4-5", "x".repeat(50), `${"x".repeat(46)}-45`, "x".repeat(60));
    const kind = fc.constantFrom(...WORKLOAD_KINDS);
    const scope = fc
      .tuple(fc.constantFrom("a", "ab", "a*", "*"), kind, name, fc.constantFrom("", "/c", "/c*"))
      .map(([namespace, ...rest]) => `${namespace}/${rest[0]}/${rest[1]}${rest[2]}`);
    const arbPod = fc.record({ kind, name }).chain(arbNameOfPodOf);
    const search = (rules: Policy[], wanted: ContainerIdentity) =>
      rules
        .filter((one) => matches(one.namespace, wanted.namespace) && matches(one.container, wanted.container))
        .filter((one) => isNameOfPodOf({ kind: one.kind as WorkloadKind, name: one.workload as string }, wanted.pod))
        .sort(
          (a, b) =>
            closeness(b.namespace) - closeness(a.namespace) ||
            (b.workload as string).length - (a.workload as string).length ||
            WORKLOAD_KINDS.indexOf(a.kind as WorkloadKind) - WORKLOAD_KINDS.indexOf(b.kind as WorkloadKind) ||
            closeness(b.container) - closeness(a.container),
        )[0] ?? GLOBAL;
    fc.assert(
      fc.property(
        fc.uniqueArray(scope, { maxLength: 15 }),
        fc.array(fc.tuple(fc.constantFrom("a", "ab", "b"), arbPod, fc.constantFrom("c", "cd")), {
          minLength: 1,
          maxLength: 8,
        }),
        (scopes, identities) => {
          const rules = scopes.map(workload);
          const govern = createGovernor(documentOf(rules));
          for (const names of identities) {
            const wanted = identity(names.join("/"));
            expect(govern(wanted)).toBe(search(rules, wanted));
          }
        },
      ),
      { numRuns: soak(1500) },
    );
  });

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
    expectFound(scope, rules, expected);
  });

  it("finds what a plain search through all rules finds", () => {
    const name = fc.constantFrom("a", "ab", "abc", "b", "a.b", "ab-c");
    const pattern = fc.oneof(
      name,
      fc.tuple(name, fc.nat(4)).map(([text, length]) => `${text.slice(0, length)}*`),
    );
    const scope = fc.array(pattern, { minLength: 1, maxLength: 3 }).map((names) => names.join("/"));
    const search = (rules: Policy[], wanted: ContainerIdentity) =>
      rules
        .filter((one) => matches(one.namespace, wanted.namespace) && matches(one.pod, wanted.pod))
        .filter((one) => matches(one.container, wanted.container))
        .sort(
          (a, b) =>
            nameOf(b).split("/").length - nameOf(a).split("/").length ||
            closeness(b.namespace) - closeness(a.namespace) ||
            closeness(b.pod) - closeness(a.pod) ||
            closeness(b.container) - closeness(a.container),
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
