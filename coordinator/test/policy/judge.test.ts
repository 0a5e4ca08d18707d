import { describe, expect, it } from "vitest";
import { CONFIRM_ORPHANS, confirmedNodes, createJudge, type PolicyResource } from "../../src/policy/judge.ts";

/** A resource whose spec counts how often it is compiled. */
function aResource(changes: Partial<PolicyResource> & { limit?: number } = {}) {
  const { limit = 2, ...rest } = changes;
  const counter = { compiled: 0 };
  const spec = {
    get mode() {
      counter.compiled += 1;
      return limit > 0 ? "Enforce" : "Nonsense";
    },
    nodeSelector: { disk: "ssd" },
    globalPolicy: { maxCheckpointsPerContainer: Math.abs(limit) },
  };
  const resource: PolicyResource = {
    namespace: "platform",
    name: "policy",
    uid: "uid",
    generation: 1,
    createdAt: "2026-01-01T00:00:00Z",
    spec,
    ...rest,
  };
  return { resource, counter };
}

const limitOf = (judged: ReturnType<ReturnType<typeof createJudge>["judge"]>) =>
  judged[0]?.policy?.compiled.document.global.perContainer?.maxCheckpoints;

it("goes by the annotation that the documents name", () => expect(CONFIRM_ORPHANS).toBe("criu.org/confirm-orphans"));

describe("the judge of resources", () => {
  it("takes the archives to be in the given directory where a resource does not say", () => {
    const directoryOf = (spec: object) => {
      const judge = createJudge({ policyNamespaces: undefined, defaultDirectory: "/var/lib/k0s/kubelet/checkpoints" });
      const resource = { namespace: "p", name: "n", uid: "u", generation: 1, createdAt: "2026-01-01T00:00:00Z", spec };
      return judge.judge([resource])[0]?.policy?.compiled.document.directory;
    };
    expect(directoryOf({})).toBe("/var/lib/k0s/kubelet/checkpoints");
    expect(directoryOf({ checkpointDirectory: "/mnt/checkpoints" })).toBe("/mnt/checkpoints");
  });

  it.each([2, -2])("compiles a version once, however often it is judged, refused ones too (%i)", (limit) => {
    const judge = createJudge({ policyNamespaces: undefined });
    const { resource, counter } = aResource({ limit });
    const first = judge.judge([resource]);
    const { compiled } = counter;
    expect(compiled).toBeGreaterThan(0);
    for (let look = 0; look < 3; look += 1) {
      expect(judge.compileNext([resource])).toBe(false);
      expect(judge.judge([{ ...resource }])).toEqual(first);
    }
    expect(counter.compiled).toBe(compiled);
    expect(first[0]?.problems.length).toBe(limit > 0 ? 0 : 1);
  });

  it("never compiles a resource of a namespace that does not count", () => {
    const judge = createJudge({ policyNamespaces: ["other"] });
    const { resource, counter } = aResource();
    expect(judge.compileNext([resource])).toBe(false);
    expect(judge.judge([resource])[0]).toMatchObject({ isNamespaceAllowed: false, problems: [], policy: undefined });
    // Its place among the others, which are ordered by this, is that of any.
    expect(judge.judge([resource])[0]?.reach).toEqual({ priority: 0 });
    expect(counter.compiled).toBe(0);
    expect(judge.keep(resource)).toEqual({ ...resource, spec: undefined });
    expect(createJudge({ policyNamespaces: ["platform"] }).keep(resource)).toBe(resource);
  });

  it("compiles one version at a time, and tells whether there are more", () => {
    const judge = createJudge({ policyNamespaces: undefined });
    const all = ["x", "y", "z"].map((uid) => aResource({ uid, name: uid }));
    const resources = all.map(({ resource }) => resource);
    const more = [1, 2, 3, 4].map(() => {
      const hasMore = judge.compileNext(resources);
      return [hasMore, all.filter(({ counter }) => counter.compiled > 0).length];
    });
    expect(more).toEqual([
      [true, 1],
      [true, 2],
      [false, 3],
      [false, 3],
    ]);
  });

  it("compiles a new version anew, and keeps the last good one if that is refused", () => {
    const judge = createJudge({ policyNamespaces: undefined });
    judge.judge([aResource({ limit: 2 }).resource]);
    expect(limitOf(judge.judge([aResource({ limit: 3, generation: 2 }).resource]))).toBe(3);
    const refused = judge.judge([aResource({ limit: -4, generation: 3 }).resource]);
    expect([limitOf(refused), refused[0]?.problems.length, refused[0]?.reach.nodeSelector]).toEqual([
      3,
      1,
      { disk: "ssd" },
    ]);
    expect(limitOf(judge.judge([aResource({ limit: -4, generation: 4 }).resource]))).toBe(3);
  });

  it("forgets a resource that is gone: one of its UID has no good version any more", () => {
    const judge = createJudge({ policyNamespaces: undefined });
    judge.judge([aResource().resource]);
    judge.compileNext([]);
    expect(judge.judge([aResource({ limit: -2, generation: 2 }).resource])[0]?.policy).toBeUndefined();
  });
});

describe("the annotation that confirms orphans", () => {
  it.each([
    ["a", ["a"]],
    [" b , a,c", ["a", "b"]],
    ["*", ["a", "b"]],
    ["", []],
    ["a b", []],
  ])("%j names of a and b: %j", (value, named) => {
    expect(confirmedNodes(value, ["a", "b"])).toEqual(named);
  });
});
