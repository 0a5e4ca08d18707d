import { execFileSync } from "node:child_process";
import { existsSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, expect, it, onTestFinished } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { AGENT_LABELS, installRelease, type TestNode } from "../support/cluster.ts";
import {
  create,
  createNamespace,
  createPod,
  describeWithKube,
  installPolicyDefinition,
  policyPath,
  remove,
  unwrap,
} from "../support/kube.ts";
import { read, samples, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const now = { applyPoliciesImmediately: true };

describeWithKube("a release on a cluster", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  const condition = async (release: Awaited<ReturnType<typeof installRelease>>, name: string, type: string) =>
    (await release.status(name)).conditions?.find((one) => one.type === type);

  it("enforces an applied policy on every node, says so in status and Events, and returns to the defaults", async () => {
    const release = await installRelease(kube);
    const coordinators = [
      release.startCoordinator("--policy-grace-period", "3s"),
      release.startCoordinator("--policy-grace-period", "3s"),
    ];
    const applied = () => coordinators.flatMap(({ log }) => log().filter(({ msg }) => msg === "agent applied policy"));
    // The defaults, at first: nothing rules, and nobody had a policy.
    await until(() => expect(applied().length).toBeGreaterThanOrEqual(3), 30_000);
    const files = release.nodes.map(({ directory }) => series(directory, 6));
    await new Promise((resolve) => setTimeout(resolve, 2500)); // archives settle in two seconds

    const startedMs = performance.now();
    await release.apply("keep-two", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await until(() => {
      for (const [index, { directory }] of release.nodes.entries())
        expect(archivesIn(directory)).toEqual(files[index]?.slice(4));
    });
    expect(performance.now() - startedMs).toBeLessThan(1000);
    await until(async () => {
      const status = await release.status("keep-two");
      expect(status.nodes).toMatchObject({ desired: 3, ready: 3, applied: 3, stale: 0, summary: "3/3" });
      expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Accepted", status: "True" }));
      expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Enforcing", status: "True" }));
      expect(status.effectiveGlobalPolicy).toEqual({ retainOrphan: true, maxCheckpointsPerContainer: 2 });
    }, 20_000);
    await until(async () => {
      const told = (await release.events()).filter(({ reason }) => reason === "ArchivesDeleted");
      for (const { name } of release.nodes) {
        expect(told.some(({ message }) => /^nodes? (.*): deleted/.exec(message)?.[1]?.split(", ").includes(name))).toBe(
          true,
        );
      }
    }, 120_000);

    // Replaced as `kubectl replace --force` does it, under another UID, the defaults never act.
    const byDefault = applied()[0]?.digest;
    const before = applied().length;
    await remove(kube.client, policyPath(release.namespace, "keep-two"));
    await release.apply("keep-two", { globalPolicy: { maxCheckpointsPerContainer: 0 } });
    const [first] = release.nodes;
    await until(() => expect(applied().length).toBeGreaterThanOrEqual(before + 3));
    const many = series(first?.directory ?? "", 12, { container: "many" });
    await new Promise((resolve) => setTimeout(resolve, 4000)); // longer than the grace period
    for (const file of many) expect(archivesIn(first?.directory ?? "")).toContain(file);
    expect(
      applied()
        .slice(before)
        .map(({ digest }) => digest),
    ).not.toContain(byDefault);

    // Deleted for good, they act once its grace is over.
    await remove(kube.client, policyPath(release.namespace, "keep-two"));
    await until(() => expect(applied().at(-1)?.digest).toBe(byDefault), 20_000);
    await until(() => {
      writeArchive(first?.directory ?? "", { container: "many", time: archiveTime(Date.now()) });
      expect(archivesIn(first?.directory ?? "").filter((file) => file.includes("-many-"))).toHaveLength(10);
    }, 20_000);
    for (const coordinator of coordinators) expect(coordinator.err).toEqual([]);
  }, 240_000);

  it("rules a node as soon as its agent first tells what it has accepted, though nothing else changes then", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const { agent } = release.nodes[0] as TestNode;
    // The agent's certificates come from the coordinator, which has seen node and pod long before the first report.
    release.startCoordinator();
    await until(() => expect(agent.log().map(({ msg }) => msg)).toContain("directive accepted"), 30_000);
  }, 90_000);

  it("shows what DryRun would delete, then what waits for an event, and what is paused, by kubectl alone", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const coordinator = release.startCoordinator();
    const [node] = release.nodes;
    const directory = node?.directory ?? "";
    const files = series(directory, 6);
    const globalPolicy = { maxCheckpointsPerContainer: 2 };
    const shows = async (ready: { status: string; reason: string }, planned: number) => {
      const status = await release.status("look");
      expect(status.planned).toMatchObject({ archives: planned });
      expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Ready", ...ready }));
      return status;
    };
    await release.apply("look", { mode: "DryRun", globalPolicy });
    const patience = 60_000;
    await until(async () => {
      const { planned } = await shows({ status: "True", reason: "DryRun" }, 4);
      expect(planned?.byReason?.max_checkpoints).toMatchObject({ archives: 4 });
    }, patience);
    await until(async () => {
      expect(await release.events()).toContainEqual(expect.objectContaining({ reason: "ArchivesPlanned" }));
    }, patience);
    await release.apply("look", { mode: "Enforce", globalPolicy });
    await until(() => shows({ status: "True", reason: "Enforcing" }, 4), patience);
    writeFileSync(join(directory, ".pause"), "");
    await until(() => shows({ status: "False", reason: "Paused" }, 4), patience);
    expect(archivesIn(directory)).toEqual(files);
    unlinkSync(join(directory, ".pause"));
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => shows({ status: "True", reason: "Enforcing" }, 0), patience);
    expect(archivesIn(directory)).toEqual([...files.slice(5), next]);
    expect(coordinator.err).toEqual([]);
  }, 300_000);

  it("holds the archives of a dozen pods that are gone at once, names the pods, and lets go of them when that is confirmed", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const coordinator = release.startCoordinator();
    const [node] = release.nodes;
    const directory = node?.directory ?? "";
    const mtimeMs = Date.now() - 3_600_000;
    const namespace = await createNamespace(kube.client, "held");
    const files = Array.from({ length: 12 }, (_, at) =>
      writeArchive(directory, { namespace, pod: `gone-${at}`, container: "c", time: archiveTime(mtimeMs), mtimeMs }),
    );
    await release.apply("orphans", { ...now, orphanGracePeriod: "1s", globalPolicy: { retainOrphan: false } });
    await until(async () => {
      const held = await condition(release, "orphans", "OrphansHeld");
      expect(held).toMatchObject({ status: "True", reason: "SuspiciouslyMany" });
      expect(held?.message).toMatch(
        /12 pods seem to be gone at once \((held-\d+\/gone-\d+, ){9}held-\d+\/gone-\d+ and 2 more\)/,
      );
      expect(await condition(release, "orphans", "Ready")).toMatchObject({ status: "True", reason: "OrphansHeld" });
    }, 90_000);
    expect(archivesIn(directory).sort()).toEqual([...files].sort());
    const confirm = async (value: string) =>
      expect(
        await kube.client.request({
          method: "PATCH",
          path: policyPath(release.namespace, "orphans"),
          contentType: "application/merge-patch+json",
          body: { metadata: { annotations: { "criu.org/confirm-orphans": value } } },
        }),
      ).toMatchObject({ ok: true });
    await confirm("another-node");
    await confirm(`another-node, ${node?.name}`);
    await until(() => expect(archivesIn(directory)).toEqual([]), 90_000);
    await until(async () => {
      expect(await condition(release, "orphans", "OrphansHeld")).toMatchObject({ status: "False" });
    }, 30_000);
    expect(coordinator.err).toEqual([]);
  }, 300_000);

  it.each([
    ["gone", async () => "never-there"],
    [
      "being deleted",
      async () => {
        const namespace = await createNamespace(kube.client, "ends");
        // No controller ends it here: it stays Terminating.
        expect(await kube.client.request({ method: "DELETE", path: `/api/v1/namespaces/${namespace}` })).toMatchObject({
          ok: true,
        });
        return namespace;
      },
    ],
  ])(
    "deletes the archives of a dozen pods whose namespace is %s, and holds none of them",
    async (_, making) => {
      const release = await installRelease(kube, { nodes: 1 });
      const coordinator = release.startCoordinator();
      const directory = release.nodes[0]?.directory ?? "";
      const mtimeMs = Date.now() - 3_600_000;
      const namespace = await making();
      for (let at = 0; at < 12; at += 1) {
        writeArchive(directory, { namespace, pod: `gone-${at}`, container: "c", time: archiveTime(mtimeMs), mtimeMs });
      }
      await release.apply("orphans", { ...now, orphanGracePeriod: "1s", globalPolicy: { retainOrphan: false } });
      await until(() => expect(archivesIn(directory)).toEqual([]), 90_000);
      const rule = { policy: `${release.namespace}/orphans`, entry: "global policy", reason: "orphan" };
      // A line may take a moment from the agent to this test.
      await until(() => {
        const deleted = release.nodes[0]?.agent.log().filter(({ msg }) => msg === "archive deleted");
        expect(deleted).toEqual(Array(12).fill(expect.objectContaining(rule)));
      });
      expect(JSON.stringify([coordinator.log(), coordinator.err])).not.toContain("suspiciously");
    },
    150_000,
  );

  it("is not ready while the archive of a pod that is gone cannot be deleted, and says why", async ({ skip }) => {
    const release = await installRelease(kube, { nodes: 1 });
    const coordinator = release.startCoordinator();
    const directory = release.nodes[0]?.directory ?? "";
    const mtimeMs = Date.now() - 3_600_000;
    const file = writeArchive(directory, { pod: "gone", container: "c", time: archiveTime(mtimeMs), mtimeMs });
    const chattr = (flag: string) => execFileSync("chattr", [flag, join(directory, file)], { stdio: "ignore" });
    try {
      chattr("+i");
    } catch {
      skip("chattr +i cannot be used here");
    }
    onTestFinished(() => (existsSync(join(directory, file)) ? void chattr("-i") : undefined));
    await release.apply("orphans", { ...now, orphanGracePeriod: "1s", globalPolicy: { retainOrphan: false } });
    await until(async () => {
      expect(await condition(release, "orphans", "Ready")).toMatchObject({
        status: "False",
        reason: "DeletionsFailing",
        message: `1 archive fails to be deleted (EPERM) on ${release.nodes[0]?.name}`,
      });
    }, 90_000);
    chattr("-i");
    await until(() => expect(archivesIn(directory)).toEqual([]), 90_000);
    await until(async () => {
      expect(await condition(release, "orphans", "Ready")).toMatchObject({ status: "True", reason: "Enforcing" });
    }, 30_000);
    expect(coordinator.err).toEqual([]);
  }, 240_000);

  it("says of a node whose agent does not start that it has not started, and takes archives to be in the first root", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const name = `${release.namespace}-bare`;
    await create(kube.client, "/api/v1/nodes", { metadata: { name } });
    onTestFinished(() => remove(kube.client, `/api/v1/nodes/${name}`));
    const pods = `/api/v1/namespaces/${release.namespace}/pods`;
    await create(kube.client, pods, {
      metadata: { name: "agent-bare", labels: AGENT_LABELS },
      spec: { nodeName: name, containers: [{ name: "agent", image: "none" }] },
    });
    // What a kubelet writes while a mount fails.
    const waiting = { reason: "ContainerCreating" };
    const containerStatuses = [
      { name: "agent", image: "none", imageID: "", ready: false, restartCount: 0, state: { waiting } },
    ];
    const status = { phase: "Pending", containerStatuses };
    unwrap(await kube.client.request({ method: "PATCH", path: `${pods}/agent-bare/status`, body: { status } }));
    release.startCoordinator("--default-directory", release.mounted);
    await release.apply("retention", { ...now, checkpointDirectory: undefined, globalPolicy: { maxAge: "30d" } });
    await until(async () => {
      const enforcing = await condition(release, "retention", "Enforcing");
      expect(enforcing).toMatchObject({ status: "False", reason: "Pending" });
      expect(enforcing?.message).toMatch(
        new RegExp(
          `^not yet on ${name}: its agent has not started \\(ContainerCreating\\); kubectl describe pod agent-bare`,
        ),
      );
      // The other node has its policy, and finds the directory that it does not name.
      expect((await release.status("retention")).nodes).toMatchObject({ summary: "1/2", applied: 1 });
    }, 60_000);
    const file = writeArchive(release.nodes[0]?.directory ?? "", { time: archiveTime(Date.now() - 40 * 86_400_000) });
    await until(() => expect(archivesIn(release.nodes[0]?.directory ?? "")).not.toContain(file), 30_000);
  }, 120_000);

  it("keeps an invalid one's last good version, says what is wrong, and tells the younger of two of the conflict", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const coordinator = release.startCoordinator("--policy-grace-period", "3s");
    const [node] = release.nodes;
    const directory = node?.directory ?? "";
    await release.apply("first", { ...now, globalPolicy: { maxCheckpointsPerContainer: 3 } });
    const files = series(directory, 5);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)), 30_000);
    // What admission lets in: a typing error.
    await release.apply("first", { ...now, globalPolicy: { maxChekpointSize: "1Gi" } });
    await until(async () => {
      const accepted = await condition(release, "first", "Accepted");
      expect(accepted).toMatchObject({ status: "False", reason: "Invalid" });
      expect(accepted?.message).toMatch(/spec\.globalPolicy\.maxChekpointSize: does not exist.*last good version/);
    });
    const started = coordinator.log().find(({ msg }) => msg === "coordinator started");
    const metrics = samples((await read(`${started?.metricsUrl}/metrics`)).body);
    expect(["accepted", "refused"].map((state) => metrics.get(`checkpoint_policies{state="${state}"}`))).toEqual([
      0, 1,
    ]);
    const refused = `checkpoint_node_policy_refused{node="${node?.name}",policy="${release.namespace}/first"}`;
    expect([metrics.get(refused), metrics.get(`checkpoint_node_agent_up{node="${node?.name}"}`)]).toEqual([1, 1]);
    await release.apply("second", { ...now, globalPolicy: { maxCheckpointsPerContainer: 1 } });
    await until(async () => {
      expect(await condition(release, "second", "Conflict")).toMatchObject({
        status: "True",
        reason: "Outranked",
      });
      expect((await condition(release, "second", "Conflict"))?.message).toContain(
        `${release.namespace}/first is older`,
      );
    });
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(directory)).toEqual([...files.slice(3), next]));
    await remove(kube.client, policyPath(release.namespace, "first"));
    await until(async () => {
      const told = (await release.events()).filter(({ reason }) => reason === "RulingChanged");
      expect(told.map(({ involvedObject, message }) => [involvedObject.name, message])).toContainEqual([
        "second",
        `${release.namespace}/second rules ${node?.name} now, after ${release.namespace}/first`,
      ]);
    });
    await until(() => expect(archivesIn(directory)).toEqual([next]));
    expect(coordinator.err).toEqual([]);
  }, 90_000);

  it("deletes the archives of a pod that is proved gone, soon after its grace, and of no living one", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const tenant = await createNamespace(kube.client, "tenant");
    for (const name of ["lives", "dies"]) await createPod(kube.client, { namespace: tenant, name });
    const directory = release.nodes[0]?.directory ?? "";
    const write = (pod: string, container: string) =>
      writeArchive(directory, { namespace: tenant, pod, container, time: archiveTime(Date.now() - 3_600_000) });
    const [living, dying, never, sidecar] = [
      write("lives", "main"),
      write("dies", "main"),
      write("never", "main"),
      write("lives", "removed"),
    ];
    release.startCoordinator();
    await release.apply("orphans", { ...now, orphanGracePeriod: "2s", globalPolicy: { retainOrphan: false } });
    await until(() => expect(archivesIn(directory)).toEqual([dying, living].sort()), 60_000);
    expect([never, sidecar].every((file) => !archivesIn(directory).includes(file))).toBe(true);
    await remove(kube.client, `/api/v1/namespaces/${tenant}/pods/dies`);
    const goneMs = performance.now();
    await until(() => expect(archivesIn(directory)).toEqual([living]), 30_000);
    expect(performance.now() - goneMs).toBeLessThan(2000 + 2000);

    // Without the API server nobody can prove anything, and all else goes on.
    await remove(kube.client, `/api/v1/namespaces/${tenant}/pods/lives`);
    await kube.apiServer.stop();
    try {
      const files = series(directory, 12, { container: "busy" });
      await until(() =>
        expect(archivesIn(directory).filter((file) => file.includes("-busy-"))).toEqual(files.slice(2)),
      );
      await new Promise((resolve) => setTimeout(resolve, 5000));
      expect(archivesIn(directory)).toContain(living);
    } finally {
      await kube.apiServer.start();
    }
    await until(() => expect(archivesIn(directory)).not.toContain(living), 60_000);
  }, 180_000);

  it("hands over at once when its leader stops, and obeys no leader of the past", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    const directory = node?.directory ?? "";
    const isLeading = ({ log }: ReturnType<typeof release.startCoordinator>) =>
      log().filter(({ msg }) => msg === "leading").length > 0;
    const first = release.startCoordinator();
    await until(() => expect(isLeading(first)).toBe(true), 30_000);
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 5 } });
    const terms = () =>
      (node?.agent.log() ?? []).filter(({ msg }) => msg === "directive accepted").map(({ term }) => Number(term));
    await until(() => expect(terms().length).toBeGreaterThan(0), 30_000);

    const second = release.startCoordinator();
    await until(() => expect(second.log().length).toBeGreaterThan(0));
    const stoppedMs = performance.now();
    await first.kill("SIGTERM");
    await until(() => expect(isLeading(second)).toBe(true));
    expect(performance.now() - stoppedMs).toBeLessThan(3000);

    const third = release.startCoordinator();
    await until(() => expect(third.log().length).toBeGreaterThan(0));
    second.process.kill("SIGSTOP");
    const frozenMs = performance.now();
    await until(() => expect(isLeading(third)).toBe(true), 30_000);
    expect(performance.now() - frozenMs).toBeLessThan(20_000);
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 4 } });
    await until(() => expect(terms().at(-1)).toBe(3));
    second.process.kill("SIGCONT");
    await until(() => expect(second.log().some(({ msg }) => msg === "no longer leading")).toBe(true), 30_000);
    const files = series(directory, 6);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)));
    expect(terms()).toEqual([...terms()].sort((a, b) => a - b));
  }, 120_000);

  it("gives the results that users of the Go operator know", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    release.startCoordinator();
    const tenant = await createNamespace(kube.client, "cases");
    const directory = release.nodes[0]?.directory ?? "";
    const MIB = 1024 * 1024;
    const five = (pod: string, pagesBytes = 4096) =>
      Array.from({ length: 5 }, (_, index) =>
        writeArchive(directory, {
          namespace: tenant,
          pod,
          container: "c",
          time: archiveTime(Date.now() - 3_600_000 + index * 1000),
          pagesBytes,
        }),
      );
    const rule = (pod: string, limits: object) => ({ namespace: tenant, pod, container: "c", ...limits });
    for (const pod of ["two", "zero", "one", "total", "large"])
      await createPod(kube.client, { namespace: tenant, name: pod });
    for (const pod of ["two", "zero", "one", "orphan"]) five(pod);
    // With its headers an archive is a little larger than its pages; five MiB in all.
    for (const pod of ["total", "large"]) five(pod, 5 * MIB - 16 * 1024);
    await release.apply("cases", {
      ...now,
      orphanGracePeriod: "1s",
      containerPolicies: [
        rule("two", { maxCheckpoints: 2 }),
        rule("zero", { maxCheckpoints: 0 }),
        rule("one", { maxCheckpoints: 1 }),
        rule("total", { maxTotalSize: "12Mi" }),
        rule("large", { maxCheckpointSize: "4Mi" }),
        rule("orphan", { retainOrphan: false }),
      ],
    });
    const left = () =>
      Object.fromEntries(
        ["two", "zero", "one", "total", "large", "orphan"].map((pod) => [
          pod,
          archivesIn(directory).filter((file) => file.startsWith(`checkpoint-${pod}_`)).length,
        ]),
      );
    await until(() => expect(left()).toEqual({ two: 2, zero: 5, one: 1, total: 2, large: 0, orphan: 0 }), 60_000);
    expect(archivesIn(directory).map((file) => join(directory, file))).toHaveLength(10);
  }, 90_000);
});
