import { describe, expect, it } from "vitest";
import { readPolicy } from "../../src/crd/read-policy.ts";
import { defaultPolicy, formatProblem } from "../../src/policy/compile.ts";

const HEAD = "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\n";

function told(text: string): string[] {
  const result = readPolicy(text);
  return result.ok ? [] : result.problems.map(formatProblem);
}

describe("readPolicy", () => {
  it("reads a resource as kubectl takes it, status and metadata included", () => {
    const text = `${HEAD}metadata: {name: x, labels: {a: b}}\nspec:\n  mode: DryRun\n  globalPolicy: {maxAge: 7d}\nstatus: {}\n`;
    const result = readPolicy(text);
    expect(result).toMatchObject({
      ok: true,
      policy: { document: { mode: "DryRun", global: { maxAgeMs: 7 * 86_400_000 } } },
    });
  });

  it.each([
    ["v1", "List"],
    ["criu.org/v1", "CheckpointRestoreOperatorList"],
  ])("reads the one resource of a %s %s", (apiVersion, kind) => {
    const item = { apiVersion: "criu.org/v1", kind: "CheckpointRestoreOperator", spec: { mode: "DryRun" }, status: {} };
    const listOf = (...items: unknown[]) =>
      JSON.stringify({ apiVersion, kind, metadata: { resourceVersion: "" }, items });
    expect(readPolicy(listOf(item))).toMatchObject({ ok: true, policy: { document: { mode: "DryRun" } } });
    expect(told(listOf())).toEqual([": holds 0 resources; exactly one CheckpointRestoreOperator is wanted"]);
    expect(told(listOf(item, item))).toEqual([": holds 2 resources; exactly one CheckpointRestoreOperator is wanted"]);
    expect(told(`${listOf(item)}\n---\n${HEAD}`)[0]).toContain("holds 2 resources");
    expect(told(listOf({ ...item, kind: "Pod" }))).toEqual(['kind: "Pod" is not CheckpointRestoreOperator']);
    expect(told(listOf(listOf(item)))[0]).toContain("holds no Kubernetes resource");
  });

  it("takes nothing for a list that is none", () => {
    expect(told(`${HEAD}items: [{}]`)).toEqual(["items: does not exist; policy fields stand under spec"]);
    expect(told('{"apiVersion":"v2","kind":"List","items":[{}]}')[0]).toContain("apiVersion");
    expect(told("apiVersion: v1\nkind: List\nitems: {}")[0]).toContain("apiVersion");
  });

  it("reads JSON", () => {
    const resource = { apiVersion: "criu.org/v1", kind: "CheckpointRestoreOperator", spec: { mode: "DryRun" } };
    expect(readPolicy(JSON.stringify(resource))).toMatchObject({ ok: true, policy: { document: { mode: "DryRun" } } });
  });

  it.each(["", "spec:\n", "spec: {}\n", "---\n"])("takes a resource with %j after its head as the defaults", (rest) => {
    expect(readPolicy(`${HEAD}${rest}`)).toEqual({ ok: true, policy: defaultPolicy() });
    expect(readPolicy(`# a comment\n---\n${HEAD}${rest}`)).toEqual({ ok: true, policy: defaultPolicy() });
  });

  it("reads numbers and quoted numbers alike", () => {
    const sizeOf = (value: string) => {
      const result = readPolicy(`${HEAD}spec: {globalPolicy: {maxCheckpointSize: ${value}}}`);
      return result.ok && result.policy.document.global.maxCheckpointBytes;
    };
    expect([sizeOf("10"), sizeOf('"10"'), sizeOf("1e1"), sizeOf("10Mi")]).toEqual(Array(4).fill(10 * 2 ** 20));
  });

  it("reads the numbers, words and empty fields of a policy as kubectl does", () => {
    const read = (spec: string) => readPolicy(`${HEAD}spec: ${spec}`);
    expect(read("{globalPolicy: {maxCheckpointsPerPod: 010, retainOrphan: no}}")).toMatchObject({
      ok: true,
      policy: { document: { global: { perPod: { maxCheckpoints: 8 }, retainOrphan: false } } },
    });
    expect(read("{globalPolicy: {maxAge: 0}, orphanGracePeriod: 0}")).toMatchObject({
      ok: true,
      policy: { orphanGraceMs: 0 },
    });
    expect(read("{mode: , nodeSelector: ~, globalPolicy: {maxAge: null}, podPolicies: }")).toEqual({
      ok: true,
      policy: defaultPolicy(),
    });
  });

  it("follows aliases, but not to the end of memory", () => {
    const shared = `${HEAD}spec:\n  podPolicies:\n  - &one {namespace: a, pod: b}\n  - {<<: *one, pod: c}\n`;
    expect(told(shared.replace("{<<: *one, pod: c}", "{namespace: a, pod: c}"))).toEqual([]);
    const nine = (name: string, of: string) => `${name}: &${name} [${Array(9).fill(of).join(", ")}]\n`;
    const levels = ["b", "c", "d", "e", "f", "g", "h", "i"].map((name, index) =>
      nine(name, `*${"abcdefgh"[index] ?? ""}`),
    );
    expect(told(`${HEAD}${nine("a", "x")}${levels.join("")}`)).toEqual([expect.stringContaining("is not YAML: ")]);
  });

  it.each([
    ["", ": holds 0 resources; exactly one CheckpointRestoreOperator is wanted"],
    ["# nothing", ": holds 0 resources; exactly one CheckpointRestoreOperator is wanted"],
    [`${HEAD}---\n${HEAD}`, ": holds 2 resources; exactly one CheckpointRestoreOperator is wanted"],
    ["text", ": holds no Kubernetes resource; it begins with apiVersion: criu.org/v1"],
    ["- 1", ": holds no Kubernetes resource; it begins with apiVersion: criu.org/v1"],
    ["kind: CheckpointRestoreOperator", "apiVersion: missing is not criu.org/v1"],
    ["apiVersion: criu.org/v2\nkind: CheckpointRestoreOperator", 'apiVersion: "criu.org/v2" is not criu.org/v1'],
    ["apiVersion: criu.org/v1\nkind: Pod", 'kind: "Pod" is not CheckpointRestoreOperator'],
    ["apiVersion: criu.org/v1", "kind: missing is not CheckpointRestoreOperator"],
    [`${HEAD}mode: DryRun`, "mode: does not exist; policy fields stand under spec"],
    [
      `${HEAD}spec: {globalPolicy: {maxAge: soon}}`,
      'spec.globalPolicy.maxAge: "soon" is not a duration; write e.g. 30s, 12h or 7d',
    ],
    [
      `${HEAD}spec: {globalPolicy: {maxAge: 30}}`,
      "spec.globalPolicy.maxAge: 30 has no unit; write e.g. 30s, 12h or 7d",
    ],
    [`${HEAD}spec: {modes: null}`, "spec.modes: does not exist; see the policy fields in README.md"],
    [`${HEAD}spec: {podPolicies: [~]}`, "spec.podPolicies[0]: null must be object"],
    [`${HEAD}spec: {modes: x}`, "spec.modes: does not exist; see the policy fields in README.md"],
    [`${HEAD}spec: []`, "spec: [] must be object"],
  ])("refuses %j", (text, problem) => {
    expect(told(text)).toEqual([problem]);
  });

  it.each([
    ["bad syntax", `${HEAD}spec: {`],
    ["a tab as indent", `${HEAD}spec:\n\tmode: DryRun`],
    ["a key given twice", `${HEAD}spec:\n  mode: DryRun\n  mode: Enforce`],
    ["an alias of nothing", `${HEAD}spec: *nothing`],
    ["bad syntax in a second document", `${HEAD}---\n}`],
  ])("refuses %s in one line", (_, text) => {
    expect(told(text)).toEqual([expect.stringMatching(/^: is not YAML: .+[^:]$/)]);
  });
});
