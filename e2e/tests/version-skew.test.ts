import { beforeAll, expect, it } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { installRelease, type TestNode } from "../support/cluster.ts";
import { createNamespace, createPod, describeWithKube, installPolicyDefinition, remove } from "../support/kube.ts";
import { findPreviousRelease } from "../support/previous-release.ts";
import { type Running, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";
import { describeWith } from "../support/tools.ts";

const now = { applyPoliciesImmediately: true };

describeWith("this release beside the one before", await findPreviousRelease(), ({ dist }) => {
  describeWithKube("on a cluster", (kube) => {
    beforeAll(() => installPolicyDefinition(kube.client), 60_000);

    const termOf = ({ log }: Running) =>
      log()
        .filter(({ msg }) => msg === "leading")
        .map(({ term }) => Number(term))
        .at(-1);
    const refused = ({ log }: Running) => log().filter(({ msg }) => msg === "directive refused");

    it("gives a previous agent policies and no proof: its orphans wait until it is upgraded", async () => {
      const release = await installRelease(kube, { nodes: 2, agentDist: dist });
      const tenant = await createNamespace(kube.client, "skew");
      for (const name of ["lives", "dies"]) await createPod(kube.client, { namespace: tenant, name });
      const [old, upgraded] = release.nodes;
      if (old === undefined || upgraded === undefined) throw new Error("there are two nodes");
      await upgraded.agent.kill("SIGTERM");
      upgraded.upgrade();
      const write = ({ directory }: TestNode, pod: string, ageMs = 3_600_000) =>
        writeArchive(directory, { namespace: tenant, pod, container: "main", time: archiveTime(Date.now() - ageMs) });
      const [living, dying] = [write(old, "lives"), write(old, "dies")];
      const witness = write(upgraded, "dies");
      const coordinator = release.startCoordinator();
      await release.apply("skew", {
        ...now,
        orphanGracePeriod: "2s",
        globalPolicy: { retainOrphan: false, maxCheckpointsPerContainer: 2 },
      });
      await until(async () => expect((await release.status("skew")).nodes).toMatchObject({ applied: 2 }), 60_000);
      expect(archivesIn(upgraded.directory)).toEqual([witness]);
      await remove(kube.client, `/api/v1/namespaces/${tenant}/pods/dies`);
      await until(() => expect(archivesIn(upgraded.directory)).toEqual([]), 60_000);
      // What is due by a limit goes, and the orphan stays.
      const fresh = [write(old, "lives", 3000), write(old, "lives", 2000)];
      await until(() => expect(archivesIn(old.directory)).toEqual([dying, ...fresh].sort()), 60_000);
      expect(archivesIn(old.directory)).not.toContain(living);
      expect(refused(old.agent).filter(({ status }) => status !== 428)).toEqual([]);
      await old.agent.kill("SIGTERM");
      old.upgrade();
      await until(() => expect(archivesIn(old.directory)).toEqual(fresh.sort()), 90_000);
      await until(async () => {
        const status = await release.status("skew");
        expect(status).toMatchObject({ archives: 2, nodes: { desired: 2, applied: 2, stale: 0, summary: "2/2" } });
        expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Enforcing", status: "True" }));
      }, 120_000);
      expect(coordinator.err).toEqual([]);
    }, 300_000);

    it("runs under a previous coordinator: policies act, orphans go, the living stay, and status is right", async () => {
      const release = await installRelease(kube, { nodes: 2 });
      const tenant = await createNamespace(kube.client, "skew");
      for (const name of ["lives", "dies"]) await createPod(kube.client, { namespace: tenant, name });
      const [first, second] = release.nodes;
      const directory = first?.directory ?? "";
      const write = (pod: string) =>
        writeArchive(directory, {
          namespace: tenant,
          pod,
          container: "main",
          time: archiveTime(Date.now() - 3_600_000),
        });
      const [living, dying] = [write("lives"), write("dies")];
      const files = series(second?.directory ?? "", 6);
      const coordinator = release.startCoordinatorOf(dist);
      await release.apply("skew", {
        ...now,
        orphanGracePeriod: "2s",
        globalPolicy: { retainOrphan: false, maxCheckpointsPerContainer: 2 },
        podPolicies: [{ namespace: "default", pod: "web", maxCheckpoints: 3 }],
      });
      await until(() => expect(archivesIn(directory)).toContain(living), 30_000);
      await remove(kube.client, `/api/v1/namespaces/${tenant}/pods/dies`);
      await until(() => expect(archivesIn(directory)).toEqual([living]), 60_000);
      expect(archivesIn(directory)).not.toContain(dying);
      // What belongs to no pod at all is an orphan, too.
      await until(() => expect(archivesIn(second?.directory ?? "")).toEqual([]), 60_000);
      expect(files).toHaveLength(6);
      await until(async () => {
        const status = await release.status("skew");
        expect(status).toMatchObject({ archives: 1, nodes: { desired: 2, applied: 2, stale: 0, summary: "2/2" } });
        expect(status.conditions).toContainEqual(expect.objectContaining({ type: "Enforcing", status: "True" }));
      }, 120_000);
      for (const { agent } of release.nodes) expect(refused(agent).filter(({ status }) => status !== 428)).toEqual([]);
      expect(coordinator.err).toEqual([]);
    }, 240_000);

    it("hands over from the previous coordinator to this one and back, and each obeys the order of terms", async () => {
      const release = await installRelease(kube, { nodes: 1 });
      const [node] = release.nodes;
      const directory = node?.directory ?? "";
      const accepted = () =>
        (node?.agent.log() ?? []).filter(({ msg }) => msg === "directive accepted").map(({ term }) => Number(term));
      const old = release.startCoordinatorOf(dist);
      await until(() => expect(termOf(old)).toBe(1), 30_000);
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 5 } });
      const files = series(directory, 8);
      await until(() => expect(archivesIn(directory)).toEqual(files.slice(3)), 30_000);

      const present = release.startCoordinatorOf(undefined);
      await until(() => expect(present.log().length).toBeGreaterThan(0), 30_000);
      await old.kill("SIGTERM");
      await until(() => expect(termOf(present)).toBe(2), 30_000);
      // The previous release keeps no record of who rules: a policy that changes before this one has looked makes a rest.
      await until(() => expect(accepted()).toContain(2), 30_000);
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 4 } });
      await until(() => expect(archivesIn(directory)).toEqual(files.slice(4)), 30_000);

      const again = release.startCoordinatorOf(dist);
      await until(() => expect(again.log().length).toBeGreaterThan(0), 30_000);
      await present.kill("SIGTERM");
      await until(() => expect(termOf(again)).toBe(3), 30_000);
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 3 } });
      await until(() => expect(archivesIn(directory)).toEqual(files.slice(5)), 30_000);
      // The pipe of its log may be slower than the deletion.
      await until(() => expect(accepted().at(-1)).toBe(3), 30_000);
      expect(accepted()).toEqual(accepted().toSorted((a, b) => a - b));
      await until(
        async () => expect((await release.status("policy")).nodes).toMatchObject({ summary: "1/1", applied: 1 }),
        60_000,
      );
    }, 180_000);

    it("keeps calling the agent that runs beside a newer pod that cannot start", async () => {
      const release = await installRelease(kube, { nodes: 1, agentDist: dist });
      const [node] = release.nodes;
      const directory = node?.directory ?? "";
      release.startCoordinatorOf(undefined);
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 8 } });
      const files = series(directory, 8);
      await until(async () => expect((await release.status("policy")).nodes?.summary).toBe("1/1"), 60_000);
      const path = `/api/v1/namespaces/${release.namespace}/pods`;
      await kube.client.request({
        method: "POST",
        path,
        body: {
          metadata: { name: "newer", labels: { "app.kubernetes.io/component": "agent" } },
          spec: { nodeName: node?.name, containers: [{ name: "agent", image: "none" }] },
        },
      });
      // It has an address, and nobody listens there.
      const status = { phase: "Running", podIP: "127.0.0.99", podIPs: [{ ip: "127.0.0.99" }] };
      await kube.client.request({ method: "PATCH", path: `${path}/newer/status`, body: { status } });
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 6 } });
      await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)), 30_000);
      await until(async () => {
        const { nodes, conditions } = await release.status("policy");
        expect(nodes).toMatchObject({ desired: 1, applied: 1, summary: "1/1" });
        const enforcing = conditions?.find(({ type }) => type === "Enforcing");
        expect(enforcing?.message).toMatch(/^on all of 1 nodes; .*its agent .* does not answer: .*ECONNREFUSED/);
      }, 90_000);
    }, 180_000);
  });
});
