import fc from "fast-check";
import { Compile } from "typebox/compile";
import { describe, expect, it } from "vitest";
import { compilePolicy, defaultPolicy, formatProblem, formatProblems } from "../../src/policy/compile.ts";
import { PolicyDocument } from "../../src/policy/document.ts";
import { soak } from "../support/soak.ts";

const GIB = 2 ** 30;
const DAY_MS = 86_400_000;

function compiled(spec: unknown) {
  const result = compilePolicy(spec);
  if (!result.ok) throw new Error(result.problems.map(formatProblem).join("\n"));
  return result.policy;
}

function problems(spec: unknown): string[] {
  const result = compilePolicy(spec);
  return result.ok ? [] : result.problems.map(formatProblem);
}

const container = { namespace: "team", pod: "web", container: "main" };

describe("compilePolicy", () => {
  it("fills in the defaults: ten archives per container is the only limit", () => {
    expect(compiled({})).toEqual({
      document: {
        directory: "/var/lib/kubelet/checkpoints",
        mode: "Enforce",
        applyImmediately: false,
        global: { level: "global", retainOrphan: true, perContainer: { maxCheckpoints: 10 } },
        rules: [],
        node: {},
      },
      orphanGraceMs: 30_000,
      priority: 0,
      unitless: [],
      unlimited: [],
    });
    expect(defaultPolicy()).toEqual(compiled({}));
  });

  it("resolves every field", () => {
    const limits = {
      retainOrphan: false,
      maxCheckpoints: 3,
      maxCheckpointSize: "1Gi",
      maxTotalSize: "2Gi",
      maxAge: "30d",
      minCheckpoints: 2,
    };
    const own = { maxCheckpoints: 3, maxTotalBytes: 2 * GIB };
    const common = { retainOrphan: false, minCheckpoints: 2, maxCheckpointBytes: GIB, maxAgeMs: 30 * DAY_MS };
    const policy = compiled({
      checkpointDirectory: "/mnt/checkpoints/",
      applyPoliciesImmediately: true,
      mode: "DryRun",
      nodeSelector: { disk: "ssd" },
      nodeMatchExpressions: [{ key: "example.com/gpu", operator: "DoesNotExist" }],
      priority: -5,
      orphanGracePeriod: "1m",
      orphanMatch: "UID",
      globalPolicy: {
        retainOrphan: false,
        maxCheckpointsPerContainer: 4,
        maxCheckpointsPerPod: 5,
        maxCheckpointsPerNamespace: 6,
        maxCheckpointSize: "1Gi",
        maxTotalSizePerContainer: "2Gi",
        maxTotalSizePerPod: "3Gi",
        maxTotalSizePerNamespace: "4Gi",
        maxAge: "30d",
        minCheckpointsPerContainer: 2,
      },
      containerPolicies: [{ ...container, ...limits }],
      podPolicies: [{ namespace: "team", pod: "web-*", ...limits }],
      workloadPolicies: [
        { namespace: "team", kind: "Deployment", name: "web", ...limits },
        { namespace: "team", kind: "StatefulSet", name: "web", container: "ma*", ...limits },
      ],
      namespacePolicies: [{ namespace: "*", ...limits }],
      nodePolicy: {
        ...{ maxTotalSize: "100Gi", highWatermarkPercent: 85, lowWatermarkPercent: 70, minFree: "10Gi" },
        maxAgeUnmanaged: "90d",
      },
    });
    expect(policy).toEqual({
      document: {
        directory: "/mnt/checkpoints",
        mode: "DryRun",
        applyImmediately: true,
        orphanMatch: "UID",
        global: {
          level: "global",
          ...common,
          perContainer: { maxCheckpoints: 4, maxTotalBytes: 2 * GIB },
          perPod: { maxCheckpoints: 5, maxTotalBytes: 3 * GIB },
          perNamespace: { maxCheckpoints: 6, maxTotalBytes: 4 * GIB },
        },
        rules: [
          { level: "container", ...container, ...common, perContainer: own },
          { level: "pod", namespace: "team", pod: "web-*", ...common, perPod: own },
          { level: "workload", namespace: "team", kind: "Deployment", workload: "web", ...common, perWorkload: own },
          {
            level: "workload",
            ...{ namespace: "team", kind: "StatefulSet", workload: "web", container: "ma*" },
            ...common,
            perWorkload: own,
          },
          { level: "namespace", namespace: "*", ...common, perNamespace: own },
        ],
        node: {
          ...{ maxTotalBytes: 100 * GIB, watermark: { high: 85, low: 70 }, minFreeBytes: 10 * GIB },
          maxAgeUnmanagedMs: 90 * 86_400_000,
        },
      },
      orphanGraceMs: 60_000,
      nodeSelector: { disk: "ssd" },
      nodeMatchExpressions: [{ key: "example.com/gpu", operator: "DoesNotExist" }],
      priority: -5,
      unitless: [],
      unlimited: [],
    });
    expect(Compile(PolicyDocument).Check(policy.document)).toBe(true);
  });

  it("warns of an entry without any limit, which exempts its scope from all others; a 0 says that it is meant", () => {
    const { unlimited } = compiled({
      containerPolicies: [{ ...container, minCheckpoints: 2, retainOrphan: false }],
      podPolicies: [{ namespace: "a", pod: "b", maxAge: "1d" }],
      workloadPolicies: [{ namespace: "a", kind: "Job", name: "b", container: "c" }],
      namespacePolicies: [{ namespace: "a" }, { namespace: "b", maxCheckpoints: 0 }],
    });
    expect(unlimited.map(formatProblem)).toEqual(
      [
        ["containerPolicies[0]", Object.values(container).join("/")],
        ["workloadPolicies[0]", "a/Job/b/c"],
        ["namespacePolicies[0]", "a"],
      ].map(
        ([field, scope]) =>
          `spec.${field}: exempts ${scope} from all other limits, because it sets none; set one, or maxCheckpoints: 0 if that is meant`,
      ),
    );
  });

  it("switches each rule off by 0", () => {
    const { document, orphanGraceMs } = compiled({
      orphanGracePeriod: "0",
      globalPolicy: {
        maxCheckpointsPerContainer: 0,
        maxCheckpointsPerPod: 0,
        maxCheckpointSize: 0,
        maxTotalSizePerNamespace: "0",
        maxAge: "0s",
        minCheckpointsPerContainer: 0,
      },
      namespacePolicies: [
        { namespace: "team", maxCheckpoints: 0, maxTotalSize: "0Gi", maxAge: "0", minCheckpoints: 0 },
      ],
      nodePolicy: {
        ...{ maxTotalSize: 0, highWatermarkPercent: 0, minFree: "0%", minFreeInodes: "0", maxAgeUnmanaged: 0 },
      },
    });
    expect(document.global).toEqual({ level: "global", retainOrphan: true });
    expect(document.rules).toEqual([{ level: "namespace", namespace: "team", retainOrphan: true }]);
    expect(document.node).toEqual({});
    expect(orphanGraceMs).toBe(0);
  });

  it("takes shares of the file system of a node as they are, and numbers of inodes", () => {
    const ofNode = (nodePolicy: Record<string, unknown>) => compiled({ nodePolicy }).document.node;
    expect(ofNode({ maxTotalSize: "60%", minFree: "1%", minFreeInodes: "99%" })).toEqual({
      ...{ maxTotalPercent: 60, minFreePercent: 1, minFreeInodesPercent: 99 },
    });
    expect(ofNode({ minFreeInodes: "100000" })).toEqual({ minFreeInodes: 100_000 });
    expect(ofNode({ minFreeInodes: 5 })).toEqual({ minFreeInodes: 5 });
  });

  it("inherits nothing from the global policy in a more specific one", () => {
    const { document } = compiled({
      globalPolicy: { retainOrphan: false, maxAge: "1d", minCheckpointsPerContainer: 2 },
      containerPolicies: [container],
    });
    expect(document.rules).toEqual([{ level: "container", ...container, retainOrphan: true }]);
  });

  it.each([
    [{ highWatermarkPercent: 85 }, { high: 85, low: 80 }],
    [{ highWatermarkPercent: 3 }, { high: 3, low: 1 }],
    [
      { highWatermarkPercent: 100, lowWatermarkPercent: 99 },
      { high: 100, low: 99 },
    ],
  ])("takes %j as watermarks", (nodePolicy, watermark) => {
    expect(compiled({ nodePolicy }).document.node).toEqual({ watermark });
  });

  it("takes no maxAgeUnmanaged unless it is asked for, and an hour at the shortest", () => {
    expect(compiled({ nodePolicy: {} }).document.node).toEqual({});
    expect(compiled({ nodePolicy: { maxAgeUnmanaged: "1h" } }).document.node).toEqual({ maxAgeUnmanagedMs: 3_600_000 });
  });

  it("tells which quantities were taken as MiB, and how to write them", () => {
    const { document, unitless } = compiled({
      globalPolicy: { maxCheckpointSize: 10, maxTotalSizePerPod: "1e3" },
      podPolicies: [{ namespace: "a", pod: "b", maxTotalSize: "20" }],
      nodePolicy: { minFree: "1Gi", maxTotalSize: 2048 },
    });
    expect(document.global.maxCheckpointBytes).toBe(10 * 2 ** 20);
    expect(unitless.map(formatProblem)).toEqual([
      "spec.globalPolicy.maxCheckpointSize: 10 has no unit and is taken as MiB; write 10Mi",
      'spec.globalPolicy.maxTotalSizePerPod: "1e3" has no unit and is taken as MiB; write 1000Mi',
      'spec.podPolicies[0].maxTotalSize: "20" has no unit and is taken as MiB; write 20Mi',
      "spec.nodePolicy.maxTotalSize: 2048 has no unit and is taken as MiB; write 2Gi",
    ]);
  });

  it.each([
    ["/", "/"],
    ["/a", "/a"],
    ["/a/", "/a"],
    ["/a..b/...", "/a..b/..."],
  ])("takes %s as the directory %s", (checkpointDirectory, directory) => {
    expect(compiled({ checkpointDirectory }).document.directory).toBe(directory);
  });

  const beyond = "does not exist; see the policy fields in README.md";
  const path = (value: string) =>
    `spec.checkpointDirectory: ${JSON.stringify(value)} is not an absolute path; write e.g. /var/lib/kubelet/checkpoints`;
  const part = (value: string) =>
    `spec.checkpointDirectory: ${JSON.stringify(value)} is too long or has an empty, . or .. part; write e.g. /var/lib/kubelet/checkpoints`;
  const name = (field: string, value: string) =>
    `spec.${field}: ${JSON.stringify(value)} is neither a Kubernetes name nor the beginning of one followed by *; write e.g. web-*`;

  it.each<[Record<string, unknown>, string | string[]]>([
    [{ foo: 1 }, `spec.foo: ${beyond}`],
    [{ globalPolicy: { maxCheckpoints: 1 } }, `spec.globalPolicy.maxCheckpoints: ${beyond}`],
    [{ nodePolicy: { low: 1 } }, `spec.nodePolicy.low: ${beyond}`],
    [{ podPolicies: [{ ...container }] }, `spec.podPolicies[0].container: ${beyond}`],
    [{ "a/b~c": 1, x: 2 }, [`spec.a/b~c: ${beyond}`, `spec.x: ${beyond}`]],
    [
      { containerPolicies: [container, { namespace: "a" }] },
      ["spec.containerPolicies[1].pod: is required", "spec.containerPolicies[1].container: is required"],
    ],
    [{ namespacePolicies: [{}] }, "spec.namespacePolicies[0].namespace: is required"],
    [{ mode: "Enforced" }, 'spec.mode: "Enforced" is not one of Enforce, DryRun'],
    [{ nodeSelector: {} }, "spec.nodeSelector: needs at least one label; leave it out for every node"],
    [
      { globalPolicy: { maxAge: "soon" } },
      'spec.globalPolicy.maxAge: "soon" is not a duration; write e.g. 30s, 12h or 7d',
    ],
    [{ globalPolicy: { maxAge: 30 } }, "spec.globalPolicy.maxAge: 30 has no unit; write e.g. 30s, 12h or 7d"],
    [
      { globalPolicy: { maxAge: `${"0".repeat(64)}1h` } },
      `spec.globalPolicy.maxAge: ${JSON.stringify(`${"0".repeat(64)}1h`)} is too long for a duration`,
    ],
    [{ globalPolicy: { maxAge: 30 } }, "spec.globalPolicy.maxAge: 30 has no unit; write e.g. 30s, 12h or 7d"],
    [
      { nodePolicy: { maxAgeUnmanaged: 90 } },
      "spec.nodePolicy.maxAgeUnmanaged: 90 has no unit; write e.g. 30s, 12h or 7d",
    ],
    [
      { nodePolicy: { maxAgeUnmanaged: "59m59s" } },
      'spec.nodePolicy.maxAgeUnmanaged: "59m59s" is under 1h, the shortest there is; 0 switches the rule off',
    ],
    [{ orphanGracePeriod: "-1s" }, 'spec.orphanGracePeriod: "-1s" is negative; write e.g. 30s, 12h or 7d'],
    [
      { nodePolicy: { minFree: "100%", maxTotalSize: "1.5%", minFreeInodes: "-1%" } },
      [
        'spec.nodePolicy.maxTotalSize: "1.5%" is not a share of the file system; write whole percent from 1% to 99%, or 0',
        'spec.nodePolicy.minFree: "100%" is not a share of the file system; write whole percent from 1% to 99%, or 0',
        'spec.nodePolicy.minFreeInodes: "-1%" is not a share of the file system; write whole percent from 1% to 99%, or 0',
      ],
    ],
    [
      { nodePolicy: { minFreeInodes: "10Gi" } },
      'spec.nodePolicy.minFreeInodes: "10Gi" is neither a number of inodes nor a share of them; write e.g. 5%',
    ],
    [
      { globalPolicy: { maxTotalSizePerPod: "10%" } },
      'spec.globalPolicy.maxTotalSizePerPod: "10%" is not a Kubernetes quantity; write e.g. 10Gi',
    ],
    [
      { nodePolicy: { minFree: "10GiB", maxTotalSize: "-1" } },
      [
        'spec.nodePolicy.maxTotalSize: "-1" is negative; write e.g. 10Gi, or 0 for no limit',
        'spec.nodePolicy.minFree: "10GiB" is not a Kubernetes quantity; write e.g. 10Gi',
      ],
    ],
    [
      { globalPolicy: { maxCheckpointSize: 1.5 } },
      "spec.globalPolicy.maxCheckpointSize: 1.5 is a fraction without a unit; quote it and give it one, e.g. 1.5Gi",
    ],
    [
      { globalPolicy: { maxTotalSizePerPod: "4k" } },
      'spec.globalPolicy.maxTotalSizePerPod: "4k" is under 1Mi, the smallest limit there is; 0 means no limit',
    ],
    [
      { globalPolicy: { maxTotalSizePerPod: `${"1".repeat(70)}k` } },
      `spec.globalPolicy.maxTotalSizePerPod: "${"1".repeat(70)}k" is too long for a quantity`,
    ],
    [{ checkpointDirectory: "checkpoints" }, path("checkpoints")],
    [{ checkpointDirectory: "" }, path("")],
    [{ checkpointDirectory: "/a//b" }, part("/a//b")],
    [{ checkpointDirectory: "/a/../b" }, part("/a/../b")],
    [{ checkpointDirectory: "/a/./b" }, part("/a/./b")],
    [{ checkpointDirectory: "/a\0b" }, part("/a\0b")],
    [{ checkpointDirectory: "/.." }, part("/..")],
    [
      { nodeSelector: { namespace: "a b" } },
      'spec.nodeSelector.namespace: "a b" is not a label value; quote it, and write it as on the node',
    ],
    [{ nodeMatchExpressions: [] }, "spec.nodeMatchExpressions: needs at least one entry; leave it out for every node"],
    [
      {
        nodeMatchExpressions: [
          { key: "a", operator: "In" },
          { key: "a", operator: "Exists", values: ["x"] },
        ],
      },
      [
        "spec.nodeMatchExpressions[0].values: In needs at least one value",
        "spec.nodeMatchExpressions[1].values: Exists has no values; leave them out",
      ],
    ],
    [
      { nodeMatchExpressions: [{ key: "a/b/c", operator: "In", values: ["a b"] }] },
      [
        'spec.nodeMatchExpressions[0].key: "a/b/c" is not the name of a label; write it as on the node, e.g. kubernetes.io/os',
        'spec.nodeMatchExpressions[0].values[0]: "a b" is not a label value; quote it, and write it as on the node',
      ],
    ],
    [
      { nodeMatchExpressions: [{ key: "a", operator: "Gt" }] },
      'spec.nodeMatchExpressions[0].operator: "Gt" is not one of In, NotIn, Exists, DoesNotExist',
    ],
    [
      { nodeSelector: Object.fromEntries(Array.from({ length: 65 }, (_, index) => [`l${index}`, "x"])) },
      "spec.nodeSelector: has over 64 labels",
    ],
    [{ namespacePolicies: [{ namespace: "Team" }] }, name("namespacePolicies[0].namespace", "Team")],
    [{ namespacePolicies: [{ namespace: "te*am" }] }, name("namespacePolicies[0].namespace", "te*am")],
    [{ namespacePolicies: [{ namespace: "a.b" }] }, name("namespacePolicies[0].namespace", "a.b")],
    [{ namespacePolicies: [{ namespace: "" }] }, name("namespacePolicies[0].namespace", "")],
    [{ namespacePolicies: [{ namespace: "-a" }] }, name("namespacePolicies[0].namespace", "-a")],
    [{ podPolicies: [{ namespace: "a", pod: "web_1" }] }, name("podPolicies[0].pod", "web_1")],
    [{ podPolicies: [{ namespace: "a", pod: "web/1" }] }, name("podPolicies[0].pod", "web/1")],
    [{ containerPolicies: [{ ...container, container: "**" }] }, name("containerPolicies[0].container", "**")],
    [
      { globalPolicy: { minCheckpointsPerContainer: 11 } },
      "spec.globalPolicy.minCheckpointsPerContainer: 11 is over maxCheckpointsPerContainer, 10; lower the floor or raise the limit",
    ],
    [
      { namespacePolicies: [{ namespace: "a", minCheckpoints: 3, maxCheckpoints: 2 }] },
      "spec.namespacePolicies[0].minCheckpoints: 3 is over maxCheckpoints, 2; lower the floor or raise the limit",
    ],
    [
      { containerPolicies: [container, { ...container, pod: "x" }, container] },
      "spec.containerPolicies[2]: has the same scope as spec.containerPolicies[0], team/web/main; merge the two",
    ],
    [
      { nodePolicy: { lowWatermarkPercent: 80 } },
      "spec.nodePolicy.lowWatermarkPercent: 80 needs a highWatermarkPercent above it",
    ],
    [
      { nodePolicy: { highWatermarkPercent: 80, lowWatermarkPercent: 80 } },
      "spec.nodePolicy.lowWatermarkPercent: 80 is not under highWatermarkPercent, 80",
    ],
    [
      { namespacePolicies: Array.from({ length: 1001 }, (_, index) => ({ namespace: `n-${index}` })) },
      "spec.namespacePolicies: has over 1000 entries",
    ],
  ])("refuses %j", (spec, expected) => {
    expect(problems(spec)).toEqual([expected].flat());
  });

  it.each([
    [{ globalPolicy: { maxCheckpointsPerPod: -1 } }, "spec.globalPolicy.maxCheckpointsPerPod", "-1"],
    [{ globalPolicy: { maxCheckpointsPerPod: 1.5 } }, "spec.globalPolicy.maxCheckpointsPerPod", "1.5"],
    [{ globalPolicy: { maxCheckpointsPerPod: "3" } }, "spec.globalPolicy.maxCheckpointsPerPod", '"3"'],
    [{ globalPolicy: { maxCheckpointsPerPod: 2 ** 31 } }, "spec.globalPolicy.maxCheckpointsPerPod", "2147483648"],
    [{ globalPolicy: { retainOrphan: "yes" } }, "spec.globalPolicy.retainOrphan", '"yes"'],
    [{ podPolicies: [null] }, "spec.podPolicies[0]", "null"],
    [{ unknown: null }, "spec.unknown", "does"],
    [{ containerPolicies: {} }, "spec.containerPolicies", "{}"],
    [{ nodePolicy: { highWatermarkPercent: 101 } }, "spec.nodePolicy.highWatermarkPercent", "101"],
    [{ nodePolicy: { highWatermarkPercent: 90, lowWatermarkPercent: 0 } }, "spec.nodePolicy.lowWatermarkPercent", "0"],
    [{ applyPoliciesImmediately: "false" }, "spec.applyPoliciesImmediately", '"false"'],
    [{ nodeSelector: { "example.com/disk": 1 } }, "spec.nodeSelector.example.com/disk", "1"],
    [{ checkpointDirectory: 5 }, "spec.checkpointDirectory", "5"],
    [[], "spec", "[]"],
    [null, "spec", "null"],
    ["x", "spec", '"x"'],
  ])("names the field and the value of %j once", (spec, field, value) => {
    const result = compilePolicy(spec);
    expect(result.ok ? [] : result.problems.map((problem) => problem.field)).toEqual([field]);
    expect(result.ok ? "" : result.problems[0]?.message).toMatch(
      new RegExp(`^${value.replace(/[.*+?^$()[\]{}]/g, "\\$&")} `),
    );
  });

  it("takes a field that is null for absent, wherever a field may be", () => {
    const spec = {
      mode: null,
      nodeSelector: { disk: null, zone: "a" },
      globalPolicy: { maxAge: null, maxTotalSizePerPod: null, maxCheckpointsPerPod: 3 },
      podPolicies: null,
      namespacePolicies: [{ namespace: "a", maxAge: null }],
    };
    const absent = {
      nodeSelector: { zone: "a" },
      globalPolicy: { maxCheckpointsPerPod: 3 },
      namespacePolicies: [{ namespace: "a" }],
    };
    expect(compilePolicy(spec)).toEqual(compilePolicy(absent));
    expect(problems(spec)).toEqual([]);
  });

  it("takes 0 for an age, with and without quotes", () => {
    for (const maxAge of [0, "0"]) {
      const result = compilePolicy({ globalPolicy: { maxAge }, orphanGracePeriod: maxAge });
      expect(result).toMatchObject({ ok: true, policy: { orphanGraceMs: 0 } });
      expect(result.ok && result.policy.document.global.maxAgeMs).toBeUndefined();
    }
  });

  it("allows the floor up to the count, and any floor without one", () => {
    const floor = { namespace: "a", minCheckpoints: 3 };
    expect(problems({ namespacePolicies: [{ ...floor, maxCheckpoints: 3 }] })).toEqual([]);
    expect(problems({ namespacePolicies: [floor] })).toEqual([]);
    expect(problems({ namespacePolicies: [{ ...floor, maxCheckpoints: 0 }] })).toEqual([]);
    const globalPolicy = { minCheckpointsPerContainer: 11, maxCheckpointsPerContainer: 0, maxCheckpointsPerPod: 2 };
    expect(problems({ globalPolicy })).toEqual([]);
  });

  it("allows the same names at two levels, and a prefix beside the exact name", () => {
    const spec = {
      namespacePolicies: [{ namespace: "a" }, { namespace: "a*" }],
      podPolicies: [{ namespace: "a", pod: "a" }],
      containerPolicies: [{ namespace: "a", pod: "a", container: "a" }],
    };
    expect(problems(spec)).toEqual([]);
  });

  it.each(["web", "web-1.example", "*", "web*", "web-*", "web.*", "0", "a".repeat(253)])("allows the pod %s", (pod) => {
    expect(problems({ podPolicies: [{ namespace: "a", pod }] })).toEqual([]);
  });

  it("reports every problem of the schema at once, and then every one of the values", () => {
    expect(problems({ mode: "x", orphanGracePeriod: "0.5.5s", podPolicies: 3 })).toHaveLength(3);
    const spec = {
      globalPolicy: { maxAge: "1h", minCheckpointsPerContainer: 20, maxCheckpointSize: "1k" },
      namespacePolicies: [{ namespace: "a" }, { namespace: "a" }],
      nodePolicy: { lowWatermarkPercent: 3 },
    };
    expect(problems(spec)).toHaveLength(4);
  });

  it("names unknown fields however many there are", () => {
    const many = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`field${index}`, index]));
    const result = compilePolicy({ nodePolicy: { ...many, maxAge: false } });
    expect(result.ok ? [] : result.problems).toContainEqual({
      field: "spec.nodePolicy.field0",
      message: "does not exist; see the policy fields in README.md",
    });
  });

  it("answers anything at all with a document or with problems that name their field", () => {
    const check = Compile(PolicyDocument);
    const key = fc.constantFrom(
      "globalPolicy",
      "containerPolicies",
      "nodePolicy",
      "namespace",
      "maxAge",
      "maxCheckpointSize",
      "checkpointDirectory",
      "nodeSelector",
      "__proto__x",
      "0",
    );
    const anything = fc.anything({ key, maxDepth: 4, values: [fc.string(), fc.integer(), fc.double(), fc.boolean()] });
    fc.assert(
      fc.property(fc.oneof(anything, fc.dictionary(key, anything)), (spec) => {
        const result = compilePolicy(spec);
        if (result.ok) expect(check.Check(result.policy.document)).toBe(true);
        else {
          expect(result.problems.length).toBeGreaterThan(0);
          for (const { field, message } of result.problems) {
            expect(field).toMatch(/^spec/);
            expect(message.length).toBeGreaterThan(5);
          }
        }
      }),
      { numRuns: soak(1000) },
    );
  });

  it.each<[string, unknown]>([
    ["a number of a million digits", { globalPolicy: { maxAge: "1".repeat(1e6), maxCheckpointSize: "1".repeat(1e6) } }],
    [
      "a million digits and no unit",
      { nodePolicy: { minFree: `${"1".repeat(1e6)}x` }, orphanGracePeriod: "1".repeat(1e6) },
    ],
    ["a path of a million parts", { checkpointDirectory: `${"/a".repeat(1e6)}/..` }],
    ["a name of a million characters", { namespacePolicies: [{ namespace: `${"a-".repeat(5e5)}!` }] }],
    ["a hundred thousand lists in each other", { globalPolicy: JSON.parse("[".repeat(1e5) + "]".repeat(1e5)) }],
    [
      "a hundred thousand unknown fields",
      Object.fromEntries(Array.from({ length: 1e5 }, (_, at) => [`field${at}`, at])),
    ],
    [
      "ten thousand rules too many",
      { podPolicies: Array.from({ length: 11_000 }, () => ({ namespace: "a", pod: "b" })) },
    ],
  ])("refuses %s in time, and says why in few words", (_, spec) => {
    const result = compilePolicy(spec);
    if (result.ok) throw new Error("this is no policy");
    expect(formatProblems(result.problems).length).toBeLessThan(20_000);
    for (const { message } of result.problems) expect(message.length).toBeLessThan(1000);
  });

  it("tells the first of many problems, and how many more there are", () => {
    const rules = Array.from({ length: 500 }, (_, at) => ({ namespace: `n${at}`, maxCheckpointSize: "0.5" }));
    const result = compilePolicy({ namespacePolicies: rules });
    expect(result.ok ? "" : formatProblems(result.problems)).toMatch(
      /^spec\.namespacePolicies\[0\]\.maxCheckpointSize: .*\[19\]\.maxCheckpointSize: .*; and 480 more$/,
    );
  });
});
