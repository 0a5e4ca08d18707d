import { readKubernetesYaml } from "@cro/shared/crd/kubernetes-yaml";
import { POLICY_PLURAL } from "@cro/shared/crd/manifest";
import { CONDITION_TYPES, type PolicyStatus } from "@cro/shared/crd/status";
import { compilePolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { Agent, request } from "undici";
import { beforeAll, describe, expect, it } from "vitest";
import { patience, soak } from "../../shared/test/support/soak.ts";
import {
  type AnyObject,
  aPolicy,
  create,
  createNamespace,
  describeWithKube,
  installPolicyDefinition,
  policyPath,
  unwrap,
} from "../support/kube.ts";

describeWithKube("the policy resource on a real API server", (kube) => {
  let namespace: string;
  beforeAll(async () => {
    await installPolicyDefinition(kube.client);
    namespace = await createNamespace(kube.client);
  }, 60_000);

  /** Sends a policy as kubectl does, with strict validation, and stores nothing. Undefined where it is accepted. */
  async function refusal(spec: unknown): Promise<string | undefined> {
    const answer = await kube.client.request({
      method: "POST",
      path: policyPath(namespace),
      query: { dryRun: "All", fieldValidation: "Strict" },
      body: aPolicy(spec),
    });
    return answer.ok ? undefined : (answer.answer?.message ?? answer.message);
  }

  it("is structural, and nothing about it violates a rule of the API server", async () => {
    const definition = unwrap(
      await kube.client.request<AnyObject>({
        path: `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${POLICY_PLURAL}.criu.org`,
      }),
    );
    const conditions: Array<{ type: string; status: string }> = definition.status.conditions;
    expect(Object.fromEntries(conditions.map(({ type, status }) => [type, status]))).toMatchObject({
      NamesAccepted: "True",
      Established: "True",
    });
    expect(conditions.map(({ type }) => type)).not.toContain("NonStructuralSchema");
    expect(definition.status.acceptedNames.shortNames).toEqual(["cro"]);
  });

  describe("takes what was written for the Go operator", () => {
    const goSample = {
      checkpointDirectory: "/var/lib/kubelet/checkpoints",
      applyPoliciesImmediately: false,
      globalPolicy: {
        retainOrphan: true,
        maxCheckpointsPerNamespace: 50,
        maxCheckpointsPerPod: 30,
        maxCheckpointsPerContainer: 10,
        maxCheckpointSize: 10,
        maxTotalSizePerNamespace: 1000,
        maxTotalSizePerPod: 500,
        maxTotalSizePerContainer: 100,
      },
      containerPolicies: [
        {
          namespace: "namespace",
          pod: "pod",
          container: "container",
          retainOrphan: true,
          maxCheckpoints: 5,
          maxCheckpointSize: 6,
          maxTotalSize: 100,
        },
      ],
      podPolicies: [
        { namespace: "namespace", pod: "pod", maxCheckpoints: 10, maxCheckpointSize: 10, maxTotalSize: 500 },
      ],
      namespacePolicies: [{ namespace: "namespace", maxCheckpoints: 15, maxCheckpointSize: 10, maxTotalSize: 1000 }],
    };
    it.each([
      ["its sample", goSample],
      [
        "its test by size",
        {
          checkpointDirectory: "/var/lib/kubelet/checkpoints",
          applyPoliciesImmediately: true,
          globalPolicy: {
            maxCheckpointSize: "4Mi",
            maxTotalSizePerNamespace: "1Gi",
            maxTotalSizePerPod: "500Mi",
            maxTotalSizePerContainer: "100Mi",
          },
          containerPolicies: [
            {
              namespace: "namespace",
              pod: "podname",
              container: "containername",
              maxCheckpointSize: "6Mi",
              maxTotalSize: "12Mi",
            },
          ],
        },
      ],
      ["orphans", { applyPoliciesImmediately: true, globalPolicy: { retainOrphan: false } }],
      ["an empty spec", {}],
    ])("%s, and stores it as it came", async (_, spec) => {
      expect(await refusal(spec)).toBeUndefined();
      expect(compilePolicy(spec).ok).toBe(true);
      const stored = unwrap(
        await kube.client.request<AnyObject>({
          method: "POST",
          path: policyPath(namespace),
          query: { dryRun: "All" },
          body: aPolicy(spec),
        }),
      );
      expect(stored.spec).toEqual(spec);
    });
  });

  const names = { namespace: "a", pod: "b", container: "c" };
  const deployment = { namespace: "a", kind: "Deployment", name: "web" };

  it.each<[unknown, RegExp]>([
    [
      { globalPolicy: { minCheckpointsPerContainer: 11 } },
      /minCheckpointsPerContainer: .*10 where it is not set; lower/,
    ],
    [
      { globalPolicy: { minCheckpointsPerContainer: 3, maxCheckpointsPerContainer: 2 } },
      /spec\.globalPolicy\.minCheckpointsPerContainer: .*lower the floor, raise the limit/,
    ],
    [
      { containerPolicies: [{ ...names, minCheckpoints: 3, maxCheckpoints: 2 }] },
      /spec\.containerPolicies\[0\]\.minCheckpoints: .*lower the floor, raise the limit/,
    ],
    [{ podPolicies: [{ namespace: "a", pod: "b", minCheckpoints: 3, maxCheckpoints: 2 }] }, /lower the floor/],
    [{ workloadPolicies: [{ ...deployment, minCheckpoints: 3, maxCheckpoints: 2 }] }, /lower the floor/],
    [{ namespacePolicies: [{ namespace: "a", minCheckpoints: 3, maxCheckpoints: 2 }] }, /lower the floor/],
    [
      { nodePolicy: { lowWatermarkPercent: 50 } },
      /spec\.nodePolicy\.lowWatermarkPercent: .*needs a highWatermarkPercent/,
    ],
    [{ nodePolicy: { lowWatermarkPercent: 80, highWatermarkPercent: 80 } }, /needs a highWatermarkPercent above it/],
    [{ nodePolicy: { lowWatermarkPercent: 0, highWatermarkPercent: 80 } }, /greater than or equal to 1/],
    [{ nodePolicy: { highWatermarkPercent: 101 } }, /less than or equal to 100/],
    [{ containerPolicies: [names, { ...names, maxAge: "1d" }] }, /spec\.containerPolicies\[1\]: Duplicate value/],
    [
      { workloadPolicies: [deployment, { ...deployment, container: "*", maxAge: "1d" }] },
      /spec\.workloadPolicies\[1\]: Duplicate value/,
    ],
    [
      { workloadPolicies: [{ ...deployment, kind: "deployment" }] },
      /kind: Unsupported value: "deployment": supported values: "Deployment"/,
    ],
    [
      { workloadPolicies: [{ ...deployment, name: "web-*" }] },
      /workloadPolicies\[0\]\.name: .*"web-\*" is not the name of a workload, in full; write e\.g\. web$/,
    ],
    [{ workloadPolicies: [{ namespace: "a", name: "web" }] }, /spec\.workloadPolicies\[0\]\.kind: Required value/],
    [{ podPolicies: [{ namespace: "a" }] }, /spec\.podPolicies\[0\]\.pod: Required value/],
    [{ namespacePolicies: [{ namespace: "Team" }] }, /spec\.namespacePolicies\[0\]\.namespace/],
    [
      { namespacePolicies: [{ namespace: "a*b" }] },
      /"a\*b" is neither a Kubernetes name nor the beginning of one followed by \*; write e\.g\. web-\*$/,
    ],
    [
      { checkpointDirectory: "/var/../etc" },
      /"\/var\/\.\.\/etc" is not an absolute path without \. and \.\.; write e\.g\. \/var\/lib\/kubelet\/checkpoints$/,
    ],
    [{ checkpointDirectory: "checkpoints" }, /spec\.checkpointDirectory: .*"checkpoints" is not an absolute path/],
    [{ mode: "Off" }, /spec\.mode: Unsupported value: "Off": supported values: "Enforce", "DryRun"/],
    [{ nodeSelector: {} }, /at least 1 propert/],
    [{ nodeMatchExpressions: [] }, /at least 1 item/],
    [{ nodeMatchExpressions: [{ key: "disk", operator: "In" }] }, /In and NotIn need at least one value/],
    [
      { nodeMatchExpressions: [{ key: "disk", operator: "NotIn", values: [] }] },
      /In and NotIn need at least one value/,
    ],
    [
      { nodeMatchExpressions: [{ key: "disk", operator: "Exists", values: ["x"] }] },
      /Exists and DoesNotExist have none/,
    ],
    [{ nodeMatchExpressions: [{ key: "disk", operator: "Gt", values: ["1"] }] }, /Unsupported value: "Gt"/],
    [{ nodeMatchExpressions: [{ key: "a/b/c", operator: "Exists" }] }, /nodeMatchExpressions\[0\]\.key/],
    [{ priority: 2_147_483_648 }, /less than or equal to 2147483647/],
    [{ priority: 1.5 }, /spec\.priority/],
    [
      { globalPolicy: { maxCheckpointSize: "10GB" } },
      /spec\.globalPolicy\.maxCheckpointSize: Invalid value: .*: "10GB" is not a quantity; write e\.g\. 10Gi or 10G$/,
    ],
    [{ nodePolicy: { minFree: "1Ki" } }, /spec\.nodePolicy\.minFree: .*"1Ki" is under 1Mi, .*; 0 means no limit$/],
    [{ podPolicies: [{ namespace: "a", pod: "b", maxTotalSize: "1M" }] }, /maxTotalSize: .*"1M" is under 1Mi/],
    [{ globalPolicy: { maxCheckpointSize: "0.5" } }, /"0\.5" is under 1Mi/],
    [{ globalPolicy: { maxCheckpointSize: -1 } }, /greater than or equal to 0/],
    [{ globalPolicy: { maxCheckpointsPerPod: -1 } }, /greater than or equal to 0/],
    [
      { globalPolicy: { maxAge: "soon" } },
      /spec\.globalPolicy\.maxAge: .*"soon" is not a duration; write e\.g\. 30s, 12h or 7d$/,
    ],
    [{ nodeSelector: { disk: "s s d" } }, /"s s d" is not a label value; quote it/],
    [
      { globalPolicy: { maxAge: 30 } },
      /spec\.globalPolicy\.maxAge: Invalid value: .*: 30 has no unit; write e\.g\. 30s, 12h or 7d/,
    ],
    [{ orphanGracePeriod: 30 }, /spec\.orphanGracePeriod: .*has no unit/],
    [{ podPolicies: [{ namespace: "a", pod: "b", maxAge: -1 }] }, /spec\.podPolicies\[0\]\.maxAge: /],
    [
      { podPolicies: Array.from({ length: 1001 }, (_, n) => ({ namespace: "a", pod: `p${n}` })) },
      /Too many|at most 1000/,
    ],
  ])("refuses %j, and so does the coordinator", async (spec, message) => {
    expect(await refusal(spec)).toMatch(message);
    expect(compilePolicy(spec).ok).toBe(false);
  });

  it("takes an age of 0 without quotes", async () => {
    const spec = { globalPolicy: { maxAge: 0 }, orphanGracePeriod: 0 };
    expect([await refusal(spec), compilePolicy(spec).ok]).toEqual([undefined, true]);
  });

  it("takes 1,000 policies of each kind in one resource, with names and values as long as they may be", async () => {
    const long = (text: string, length: number) => `${"0".repeat(length - text.length)}${text}`;
    const policies = Array.from({ length: 1000 }, (_, n) => ({
      namespace: long(`a${n}`, 63),
      minCheckpoints: 1,
      maxCheckpoints: 5,
      maxCheckpointSize: long("10Gi", 64),
      maxTotalSize: long("10Gi", 64),
      maxAge: long("30d", 64),
    }));
    const pod = long("p", 253);
    const spec = {
      containerPolicies: policies.map((one) => ({ ...one, pod, container: long("c", 63) })),
      podPolicies: policies.map((one) => ({ ...one, pod })),
      workloadPolicies: policies.map((one) => ({ ...one, kind: "StatefulSet", name: pod, container: long("c", 63) })),
      namespacePolicies: policies,
    };
    expect(await refusal(spec)).toBeUndefined();
    expect(compilePolicy(spec).ok).toBe(true);
  });

  it(
    "refuses and takes the same as the coordinator",
    async () => {
      const text = (...texts: string[]) => fc.constantFrom(...texts);
      const arbShare = fc.oneof(
        fc.constantFrom<unknown>(0, 1, null),
        fc
          .tuple(text("", "+", "-"), text("0", "00", "5", "99", "100", "1.5", ""), text("%", "%%", " %"))
          .map((parts) => parts.join("")),
      );
      const arbSize = fc.oneof(
        fc.constantFrom<unknown>(null, 0, 10, 1.5, -1, true, 9_007_199_254_740_991, 9_007_199_254_740_992),
        fc
          .tuple(
            text("", "+", "-"),
            text("0", "0.0", "1", "1023", "1024", "1048.575", "1048.576", "1.5", ".5", "5.", "1.", "", "."),
            text("Ki", "Mi", "Gi", "M", "k", "E", "m", "u", "n", "Zi", "e3", "E2", "e-2", ""),
          )
          .map((parts) => parts.join("")),
      );
      const arbDuration = fc.oneof(
        fc.constantFrom<unknown>(
          null,
          0,
          30,
          -1,
          1.5,
          "0",
          "+0",
          "-1h",
          "1h30m",
          "1.5h",
          "7d",
          "2w",
          "1",
          "",
          "h",
          "1 h",
          "5µs",
          "5μs",
          "1h,",
        ),
        fc.string({ maxLength: 6 }),
      );
      const arbCount = fc.constantFrom<unknown>(null, 0, 1, 2, 10, 11, 2_147_483_647, 2_147_483_648, -1, 1.5, "1");
      const arbName = fc.oneof(
        text("a", "a-b", "a.b", "a..b", "-a", "a-", "*", "a*", "a-*", "a.*", "*a", "A", "", "a b", "a_b", "é"),
        fc.integer({ min: 62, max: 66 }).map((length) => "a".repeat(length)),
        fc.integer({ min: 252, max: 255 }).map((length) => "a".repeat(length)),
      );
      const arbPath = fc.oneof(
        text(
          "/",
          "/a",
          "/a/",
          "/a//b",
          "//a",
          "/..",
          "/../a",
          "/a/..",
          "/a/./b",
          "/..a",
          "/a..",
          "/...",
          "/.a",
          "a",
          "",
          "/ä/日本",
          "/a\nb",
          "/a\0b",
        ),
        fc.array(text("/", ".", "a"), { maxLength: 8 }).map((parts) => parts.join("")),
      );
      const part = (value: Record<string, fc.Arbitrary<unknown>>, required: string[] = []) =>
        fc.record(value, { requiredKeys: required });
      const limits = {
        maxCheckpoints: arbCount,
        minCheckpoints: arbCount,
        maxTotalSize: arbSize,
        maxAge: arbDuration,
        retainOrphan: fc.constantFrom<unknown>(true, false, "true"),
      };
      const arbSpec = fc.oneof(
        part({
          checkpointDirectory: arbPath,
          mode: fc.constantFrom<unknown>("Enforce", "DryRun", "dryRun", 1),
          orphanGracePeriod: arbDuration,
        }),
        fc.record({
          globalPolicy: part({
            maxCheckpointsPerContainer: arbCount,
            minCheckpointsPerContainer: arbCount,
            maxTotalSizePerPod: arbSize,
            maxAge: arbDuration,
          }),
        }),
        fc.record({
          containerPolicies: fc.array(
            part({ namespace: arbName, pod: arbName, container: arbName, ...limits }, [
              "namespace",
              "pod",
              "container",
            ]),
            { maxLength: 2 },
          ),
        }),
        fc.record({ podPolicies: fc.array(part({ namespace: arbName, pod: arbName, ...limits }), { maxLength: 2 }) }),
        fc.record({
          workloadPolicies: fc.array(
            part(
              {
                namespace: arbName,
                kind: fc.constantFrom<unknown>("Deployment", "Job", "job", ""),
                name: arbName,
                container: fc.option(arbName, { nil: undefined }),
                ...limits,
              },
              ["namespace", "kind", "name"],
            ),
            { maxLength: 2 },
          ),
        }),
        fc.record({ namespacePolicies: fc.array(part({ namespace: arbName, ...limits }), { maxLength: 3 }) }),
        fc.record({
          nodePolicy: part({
            lowWatermarkPercent: fc.constantFrom<unknown>(0, 1, 50, 80, 100, 101),
            highWatermarkPercent: fc.constantFrom<unknown>(0, 1, 50, 80, 100, 101),
            minFree: fc.oneof(arbSize, arbShare),
            maxTotalSize: arbShare,
            minFreeInodes: fc.oneof(arbShare, fc.constantFrom<unknown>(0, 1, -1, 1.5, "0", "12", "1Gi", "x", null)),
          }),
        }),
        part({
          priority: fc.constantFrom<unknown>(null, 0, -1, 2_147_483_647, 2_147_483_648, -2_147_483_649, 1.5, "1"),
          nodeMatchExpressions: fc.array(
            part(
              {
                key: fc.oneof(arbName, text("a/b", "a.b/c_d", "/a", "a/", "a/b/c", "A", "a:b", "A/b", "é")),
                operator: text("In", "NotIn", "Exists", "DoesNotExist", "Gt"),
                values: fc.array(fc.oneof(arbName, fc.constantFrom<unknown>(1, null)), { maxLength: 2 }),
              },
              ["key", "operator"],
            ),
            { maxLength: 2 },
          ),
        }),
        fc.record({
          nodeSelector: fc.dictionary(
            text("a", "disk", "criu.org/x"),
            fc.oneof(arbName, fc.constantFrom<unknown>(1, true)),
          ),
        }),
      );
      await fc.assert(
        fc.asyncProperty(arbSpec, async (spec) => {
          const theirs = await refusal(spec);
          const ours = compilePolicy(spec);
          expect({ refused: theirs !== undefined, theirs }).toMatchObject({ refused: !ours.ok });
          // No pattern is shown to anybody.
          expect(theirs ?? "").not.toContain("[a-z0-9]");
        }),
        { numRuns: soak(600) },
      );
    },
    patience(120_000),
  );

  it("takes a field that is null for absent, as the coordinator does", async () => {
    const spec = {
      mode: null,
      nodePolicy: { minFree: null },
      globalPolicy: { maxAge: null, maxCheckpointsPerPod: null },
      nodeSelector: { disk: null, zone: "a" },
      podPolicies: [{ namespace: "a", pod: "b", maxTotalSize: null }],
      namespacePolicies: null,
    };
    const stored = unwrap(
      await kube.client.request<AnyObject>({
        method: "POST",
        path: policyPath(namespace),
        query: { dryRun: "All", fieldValidation: "Strict" },
        body: aPolicy(spec),
      }),
    );
    expect(stored.spec).toEqual({
      nodePolicy: {},
      globalPolicy: {},
      nodeSelector: { zone: "a" },
      podPolicies: [{ namespace: "a", pod: "b" }],
    });
    expect(compilePolicy(spec)).toEqual(compilePolicy(stored.spec));
  });

  describe("a field of a later version", () => {
    const later = {
      trash: { keepFor: "24h" },
      globalPolicy: { maxCheckpointsPerPod: 3, maxGoneAge: "2d" },
      containerPolicies: [{ ...names, until: "2027-01-01T00:00:00Z" }],
      podPolicies: [{ namespace: "a", pod: "b", keep: { tags: ["x"] } }],
      namespacePolicies: [{ namespace: "a", mayGrow: false }],
      nodePolicy: { minFree: "1Gi", minFreeForOthers: "5%" },
    };

    it("is stored as it came and survives every later write, and the coordinator refuses the policy by that name", async () => {
      await create(kube.client, policyPath(namespace), aPolicy(later, "later"));
      const path = policyPath(namespace, "later");
      const change = (body: unknown, query: Record<string, string> = {}) =>
        kube.client.request<AnyObject>({ method: "PATCH", path, query: { fieldValidation: "Strict", ...query }, body });
      const changed = unwrap(await change({ spec: { mode: "DryRun", globalPolicy: { maxCheckpointsPerPod: 4 } } }));
      const expected = {
        ...later,
        mode: "DryRun",
        globalPolicy: { maxCheckpointsPerPod: 4, maxGoneAge: "2d" },
      };
      expect(changed.spec).toEqual(expected);
      const status = { observedGeneration: changed.metadata.generation, mode: "DryRun" };
      unwrap(await kube.client.request<AnyObject>({ method: "PATCH", path: `${path}/status`, body: { status } }));
      const read = unwrap(await kube.client.request<AnyObject>({ path }));
      expect(read.spec).toEqual(expected);
      const result = compilePolicy(read.spec);
      // No more than eight problems are told at a time.
      expect(result.ok ? [] : result.problems.map(({ field }) => field)).toEqual(
        expect.arrayContaining(["spec.trash", "spec.globalPolicy.maxGoneAge", "spec.containerPolicies[0].until"]),
      );
    });

    it("is let in by the API server like a typing error, and only the coordinator names it", async () => {
      const spec = { globalPolicy: { maxChekpointsPerPod: 1 } };
      expect(await refusal(spec)).toBeUndefined();
      expect(compilePolicy(spec)).toMatchObject({
        ok: false,
        problems: [
          { field: "spec.globalPolicy.maxChekpointsPerPod", message: expect.stringMatching(/^does not exist/) },
        ],
      });
    });
  });

  describe("a policy file is read as the API server reads it:", () => {
    /** What the API server makes of YAML; undefined if it refuses it. It checks none of the fields. */
    async function stored(yaml: string): Promise<unknown> {
      const { certPem: cert, keyPem: key } = kube.admin as { certPem: string; keyPem: string };
      const dispatcher = new Agent({ connect: { ca: kube.caPem, cert, key } });
      try {
        const answer = await request(`${kube.server}${policyPath(namespace)}?dryRun=All&fieldValidation=Ignore`, {
          method: "POST",
          headers: { "content-type": "application/yaml", accept: "application/json" },
          body: yaml,
          dispatcher,
        });
        const object = (await answer.body.json()) as AnyObject;
        return answer.statusCode === 201 ? object.spec : undefined;
      } finally {
        await dispatcher.close();
      }
    }
    const file = (spec: string) =>
      `apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {name: yaml}\nspec:\n${spec}`;
    function ours(yaml: string): unknown {
      const read = readKubernetesYaml(yaml);
      return read.ok ? (read.documents[0] as AnyObject).spec : undefined;
    }
    /** Many scalars in one request: `x0: 010`, `x1: no`, … */
    const scalars = (values: string[]) => file(values.map((value, index) => `  x${index}: ${value}\n`).join(""));

    it("scalars of every kind", async () => {
      const values = [
        ...[
          "010",
          "-010",
          "0o17",
          "0_8",
          "09",
          "0x1F",
          "-0x10",
          "0b101",
          "0b2",
          "1_000",
          "_1",
          "+5",
          "1e3",
          "1.",
          ".5",
        ],
        ...["1:30", "190:20:30", "2026-01-01", "2026-01-01T00:00:00Z", "y", "Yes", "on", "TRUE", "N", "no", "Off"],
        ...[
          "nO",
          "",
          "~",
          "Null",
          "nULL",
          '"010"',
          "'no'",
          "|-\n    010",
          "!!str 010",
          "30d",
          "10Gi",
          "no # a comment",
        ],
        ...["[010, no, ~]", "{010: a, no: b}", "1e400", "18446744073709551615", "18446744073709551616", "a b", "-"],
      ];
      const yaml = scalars(values);
      expect(ours(yaml)).toEqual(await stored(yaml));
    });

    it(
      "any scalar",
      async () => {
        const arbScalar = fc
          .array(fc.constantFrom(..."0123456789_+-.eExXoObByYnN:afF~"), { minLength: 1, maxLength: 7 })
          .map((characters) => characters.join(""))
          // An indicator of YAML, a dash before a space for instance, ends the whole file.
          .filter((text) => readKubernetesYaml(`a: ${text}\n`).ok);
        await fc.assert(
          fc.asyncProperty(fc.array(arbScalar, { minLength: 100, maxLength: 200 }), async (values) => {
            const yaml = scalars(values);
            expect(ours(yaml)).toEqual(await stored(yaml));
          }),
          { numRuns: soak(20) },
        );
      },
      patience(60_000),
    );

    it.each([
      ["an infinite number", "  a: .inf\n"],
      ["a key that is null", "  ~: a\n"],
      ["a key that is a list", "  ? [a]\n  : b\n"],
      ["an alias of nothing", "  a: *b\n"],
      ["a tab as indent", "\ta: b\n"],
    ])("%s is refused by both", async (_, spec) => {
      expect({ ours: ours(file(spec)), stored: await stored(file(spec)) }).toEqual({});
    });
  });

  it("has a status of its own, which kubectl get shows as a table", async () => {
    const created = await create(kube.client, policyPath(namespace), aPolicy({}, "shown"));
    const status: PolicyStatus = {
      observedGeneration: created.metadata.generation,
      conditions: CONDITION_TYPES.map((type) => ({
        type,
        status: type === "Ready" ? "True" : "Unknown",
        observedGeneration: 1,
        lastTransitionTime: "2026-11-22T10:00:00Z",
        reason: "Testing",
        message: "",
      })),
      mode: "Enforce",
      nodes: { desired: 3, ready: 3, applied: 2, stale: 0, summary: "2/3" },
      archives: 12,
      bytes: 5_368_709_120,
      size: "5Gi",
      planned: { archives: 4, bytes: 4096, byReason: { max_age: { archives: 4, bytes: 4096 } } },
      fullest: { node: "node-a", usedPercent: 81, summary: "node-a 81%" },
      pinned: 1,
      incomplete: 0,
      unidentified: 0,
      effectiveGlobalPolicy: { retainOrphan: true, maxCheckpointsPerContainer: 10 },
      lastEnforcementTime: "2026-11-22T10:00:00Z",
      lastReportTime: "2026-11-22T10:00:00Z",
    };
    const path = policyPath(namespace, "shown");
    const written = unwrap(
      await kube.client.request<AnyObject>({
        method: "PATCH",
        path: `${path}/status`,
        query: { fieldValidation: "Strict" },
        body: { spec: { mode: "DryRun" }, status },
      }),
    );
    expect(written.status).toEqual(status);
    expect(written.spec).toEqual({});
    const table = unwrap(
      await kube.client.request<AnyObject>({ path, accept: "application/json;as=Table;v=v1;g=meta.k8s.io" }),
    );
    expect(table.columnDefinitions.map((column: { name: string }) => column.name)).toEqual([
      "Name",
      "Mode",
      "Nodes",
      "Archives",
      "Size",
      "Planned",
      "Ready",
      "Reason",
      "Age",
      "Pinned",
      "Unidentified",
      "Fullest",
      "Updated",
    ]);
    expect(table.rows[0].cells.slice(0, 8)).toEqual(["shown", "Enforce", "2/3", 12, "5Gi", 4, "True", "Testing"]);
  });
});
