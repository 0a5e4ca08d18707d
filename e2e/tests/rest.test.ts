import { beforeAll, expect, it } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { installRelease, type TestNode } from "../support/cluster.ts";
import {
  type AnyObject,
  create,
  describeWithKube,
  installPolicyDefinition,
  policyPath,
  remove,
  unwrap,
} from "../support/kube.ts";
import { until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const now = { applyPoliciesImmediately: true };
const GRACE_MS = 8000;

describeWithKube("a node whose policy went away", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  type Release = Awaited<ReturnType<typeof installRelease>>;

  const enforcing = async (release: Release, name: string) =>
    (await release.status(name)).conditions?.find(({ type }) => type === "Enforcing");

  const createdAt = async ({ namespace }: Release, name: string): Promise<string> =>
    unwrap(await kube.client.request<AnyObject>({ path: policyPath(namespace, name) })).metadata.creationTimestamp;

  const events = async (release: Release, reason: string) =>
    (await release.events())
      .filter((event) => event.reason === reason)
      .map(({ involvedObject, message }): [string, string] => [involvedObject.name, message]);

  const setLabels = async ({ name }: TestNode, labels: Record<string, string | null>) =>
    unwrap(
      await kube.client.request<AnyObject>({
        method: "PATCH",
        path: `/api/v1/nodes/${name}`,
        body: { metadata: { labels } },
      }),
    );

  const arrive = ({ directory }: TestNode, count = 1) =>
    Array.from({ length: count }, (_, index) =>
      writeArchive(directory, { container: "main", time: archiveTime(Date.now() + index * 1000) }),
    );

  it("rests for the grace period, in whichever way the policy goes: nothing is deleted, then the next rules", async () => {
    const release = await installRelease(kube, { nodes: 4 });
    const coordinator = release.startCoordinator("--policy-grace-period", `${GRACE_MS}ms`);
    for (const { directory } of release.nodes) series(directory, 6);
    for (const index of [1, 2, 3, 4]) {
      await release.apply(`old-${index}`, {
        ...now,
        nodeSelector: { index: `${index}` },
        globalPolicy: { maxCheckpointsPerContainer: 4 },
      });
    }
    const left = () => release.nodes.map(({ directory }) => archivesIn(directory).length);
    await until(() => expect(left()).toEqual([4, 4, 4, 4]), 60_000);
    await release.apply("young", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await until(async () => {
      const conditions = (await release.status("young")).conditions ?? [];
      expect(conditions.find(({ type }) => type === "Conflict")?.message).toContain("old-1");
    }, 30_000);

    const [first, second, third, fourth] = release.nodes as [TestNode, TestNode, TestNode, TestNode];
    const accepted = () =>
      release.nodes.map(({ agent }) => agent.log().filter(({ msg }) => msg === "directive accepted").length);
    const before = accepted();
    const wentMs = performance.now();
    await remove(kube.client, policyPath(release.namespace, "old-1"));
    await setLabels(second, { index: null });
    await release.apply("old-3", {
      ...now,
      nodeSelector: { index: "none" },
      globalPolicy: { maxCheckpointsPerContainer: 4 },
    });
    await remove(kube.client, `/api/v1/nodes/${fourth.name}`);
    await create(kube.client, "/api/v1/nodes", { metadata: { name: fourth.name } });
    await until(() => {
      for (const [index, count] of accepted().entries()) expect(count).toBeGreaterThan(before[index] ?? 0);
    }, 30_000);
    // One more than the policy that went away kept, and none of them goes.
    const more = release.nodes.flatMap((node) => arrive(node));
    expect(more).toHaveLength(4);
    const fewMs = new Map<string, number>();
    await until(() => {
      for (const { name, directory } of [first, second, third, fourth]) {
        if (archivesIn(directory).length < 5 && !fewMs.has(name)) fewMs.set(name, performance.now());
      }
      expect(left()).toEqual([2, 2, 2, 2]);
    }, 90_000);
    for (const [index, { name }] of release.nodes.entries()) {
      expect([index, (fewMs.get(name) ?? 0) - wentMs >= GRACE_MS]).toEqual([index, true]);
    }
    const told = await events(release, "Resting");
    for (const index of [1, 2, 3, 4]) {
      expect(told).toContainEqual([
        "young",
        expect.stringMatching(new RegExp(`/old-${index} went away from .*until 20`)),
      ]);
    }
    expect(
      told
        .filter(([name]) => name.startsWith("old-"))
        .map(([name]) => name)
        .sort(),
    ).toEqual(["old-2", "old-3", "old-4"]);
    await until(async () => expect((await events(release, "RulingChanged")).length).toBeGreaterThanOrEqual(4), 30_000);
    expect(coordinator.err).toEqual([]);
  }, 240_000);

  it("is ruled by the highest priority, at once; each policy says the true reason, and counts only nodes that can have an agent", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes as [TestNode];
    release.startCoordinator();
    await setLabels(node, { here: release.namespace });
    const windows = { here: release.namespace, "kubernetes.io/os": "windows" };
    const name = `windows-${release.namespace}`;
    await create(kube.client, "/api/v1/nodes", { metadata: { name, labels: windows } });
    const spec = (limit: number, others: object = {}) => ({
      ...now,
      nodeMatchExpressions: [{ key: "here", operator: "In", values: [release.namespace] }],
      globalPolicy: { maxCheckpointsPerContainer: limit },
      ...others,
    });
    const condition = async (policy: string, type: string) =>
      (await release.status(policy)).conditions?.find((one) => one.type === type);
    series(node.directory, 6);
    const left = (count: number) => until(() => expect(archivesIn(node.directory)).toHaveLength(count), 60_000);
    await release.apply("a", spec(4));
    await release.apply("b", spec(2));
    await left(4);
    const [first, second] = await Promise.all(["a", "b"].map((policy) => createdAt(release, policy)));
    const why = first === second ? "has the same age, comes first by its name" : "is older";
    await until(
      async () =>
        expect(await condition("b", "Conflict")).toMatchObject({
          reason: "Outranked",
          message: `${release.namespace}/a ${why} and rules ${node.name}`,
        }),
      30_000,
    );
    await until(
      async () => expect((await release.status("a")).nodes).toMatchObject({ desired: 1, summary: "1/1" }),
      30_000,
    );
    await release.apply("b", spec(2, { priority: 1 }));
    await left(2);
    await until(async () => {
      expect(await condition("a", "Conflict")).toMatchObject({
        message: `${release.namespace}/b has a higher priority and rules ${node.name}`,
      });
      expect(await condition("a", "Enforcing")).toMatchObject({ status: "False", reason: "Outranked" });
    }, 30_000);
    await release.apply("c", spec(1, { nodeSelector: { here: "nowhere" } }));
    await until(
      async () => expect(await condition("c", "Enforcing")).toMatchObject({ reason: "NoMatchingNodes" }),
      30_000,
    );
    await remove(kube.client, `/api/v1/nodes/${name}`);
  }, 120_000);

  it("is ruled at once by the policy that comes back: replaced by force, by new labels, on a node made anew", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes as [TestNode];
    release.startCoordinator();
    const old = (limit: number) => ({
      ...now,
      nodeSelector: { index: "1" },
      globalPolicy: { maxCheckpointsPerContainer: limit },
    });
    await release.apply("old", old(8));
    const files = series(node.directory, 9);
    await until(() => expect(archivesIn(node.directory)).toEqual(files.slice(1)), 60_000);
    await release.apply("young", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    const rests = () =>
      until(
        async () => expect(await enforcing(release, "young")).toMatchObject({ status: "False", reason: "Resting" }),
        30_000,
      );

    await remove(kube.client, policyPath(release.namespace, "old"));
    await rests();
    expect((await enforcing(release, "young"))?.message).toMatch(
      new RegExp(`^${node.name} rests for (9|10) more minutes: ${release.namespace}/old ruled it and went away`),
    );
    expect((await release.status("young")).nodes).toMatchObject({ desired: 1, ready: 1, applied: 0, stale: 0 });
    const added = arrive(node, 2);
    // The agent has seen them, and has deleted nothing.
    await until(async () => expect((await release.status("young")).archives).toBe(10), 120_000);
    expect(archivesIn(node.directory)).toEqual([...files.slice(1), ...added].sort());

    await release.apply("old", old(7));
    await until(() => expect(archivesIn(node.directory)).toHaveLength(7), 30_000);
    await until(async () => {
      const conflict = (await release.status("young")).conditions?.find(({ type }) => type === "Conflict");
      expect(conflict?.message).toBe(
        `${release.namespace}/old has its rank from the first resource of its name and rules ${node.name}`,
      );
      expect(await events(release, "RulingResumed")).toHaveLength(1);
    }, 30_000);

    await setLabels(node, { index: null });
    await rests();
    await setLabels(node, { index: "1" });
    await release.apply("old", old(6));
    await until(() => expect(archivesIn(node.directory)).toHaveLength(6), 30_000);

    await remove(kube.client, `/api/v1/nodes/${node.name}`);
    await create(kube.client, "/api/v1/nodes", { metadata: { name: node.name } });
    await rests();
    await setLabels(node, { index: "1" });
    await release.apply("old", old(5));
    await until(() => expect(archivesIn(node.directory)).toHaveLength(5), 30_000);
  }, 300_000);

  it("rests on when leader and agent are replaced together, as in a helm upgrade", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes as [TestNode];
    const first = release.startCoordinator();
    await release.apply("old", { ...now, globalPolicy: { maxCheckpointsPerContainer: 8 } });
    const files = series(node.directory, 9);
    await until(() => expect(archivesIn(node.directory)).toEqual(files.slice(1)), 60_000);
    await release.apply("young", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await remove(kube.client, policyPath(release.namespace, "old"));
    await until(async () => expect(await enforcing(release, "young")).toMatchObject({ reason: "Resting" }), 30_000);

    await first.kill("SIGKILL");
    await node.agent.kill("SIGKILL");
    await remove(kube.client, `/api/v1/namespaces/${release.namespace}/pods/${node.podName}`);
    const second = release.startCoordinator();
    // Its state is a folder of its own, so that it knows nothing of what was in force.
    const { agent } = await release.startAgent({ ...node, podName: "agent-again" });
    await until(() => expect(agent.log().some(({ msg }) => msg === "directive accepted")).toBe(true), 90_000);
    const added = arrive(node, 2);
    await until(async () => expect((await release.status("young")).archives).toBe(10), 120_000);
    expect(await enforcing(release, "young")).toMatchObject({ status: "False", reason: "Resting" });
    expect(archivesIn(node.directory)).toEqual([...files.slice(1), ...added].sort());
    expect(second.err).toEqual([]);
  }, 300_000);
});
