import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, expect, it } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { anAuthority } from "../../coordinator/test/support/certificates.ts";
import { installRelease } from "../support/cluster.ts";
import { type AnyObject, create, describeWithKube, installPolicyDefinition, remove, unwrap } from "../support/kube.ts";
import { until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const now = { applyPoliciesImmediately: true };

describeWithKube("faults of a cluster", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  it("a deleted Lease: the term goes on above what the agents obey", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    const terms = () =>
      (node?.agent.log() ?? []).filter(({ msg }) => msg === "directive accepted").map(({ term }) => Number(term));
    const coordinator = release.startCoordinator();
    await release.apply("policy", { globalPolicy: { maxCheckpointsPerContainer: 5 } });
    await until(() => expect(terms().length).toBeGreaterThan(0), 30_000);
    await coordinator.kill("SIGTERM");
    const second = release.startCoordinator();
    await until(() => expect(terms().at(-1)).toBe(2), 30_000);
    await second.kill("SIGTERM");
    const leases = `/apis/coordination.k8s.io/v1/namespaces/${release.namespace}/leases`;
    await remove(kube.client, `${leases}/checkpoint-restore-operator`);
    await create(kube.client, leases, { metadata: { name: "checkpoint-restore-operator" } });
    release.startCoordinator();
    await until(() => expect(terms().at(-1)).toBeGreaterThan(2), 60_000);
    expect(terms()).toEqual([...terms()].sort((a, b) => a - b));
  }, 150_000);

  it("an address that another agent took over: nothing is applied, and the right one is found", async () => {
    const release = await installRelease(kube, { nodes: 2 });
    const [a, b] = release.nodes;
    const pods = `/api/v1/namespaces/${release.namespace}/pods`;
    const setAddress = async (pod: string, ip: string) =>
      unwrap(
        await kube.client.request({
          method: "PATCH",
          path: `${pods}/${pod}/status`,
          body: { status: { podIP: ip, podIPs: [{ ip }] } },
        }),
      );
    const accepted = () =>
      [a, b].map((node) => node?.agent.log().filter(({ msg }) => msg === "directive accepted").length);
    const coordinator = release.startCoordinator();
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 5 } });
    await until(async () => expect((await release.status("policy")).nodes?.summary).toBe("2/2"), 60_000);
    const before = accepted();
    await setAddress(a?.podName ?? "", b?.ip ?? "");
    await setAddress(b?.podName ?? "", a?.ip ?? "");
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await until(() => {
      for (const node of [a, b]) expect(node?.agent.log().some(({ status }) => status === 421)).toBe(true);
    }, 60_000);
    await until(async () => {
      const conditions = (await release.status("policy")).conditions ?? [];
      expect(conditions.find(({ type }) => type === "Enforcing")).toMatchObject({ status: "False", reason: "Pending" });
    }, 30_000);
    expect(accepted()).toEqual(before);
    expect(coordinator.log().some(({ problem }) => String(problem).startsWith("is another agent"))).toBe(true);
    await setAddress(a?.podName ?? "", a?.ip ?? "");
    await setAddress(b?.podName ?? "", b?.ip ?? "");
    const files = [a, b].map((node) => series(node?.directory ?? "", 3));
    await until(() => {
      for (const [index, node] of [a, b].entries())
        expect(archivesIn(node?.directory ?? "")).toEqual(files[index]?.slice(1));
    }, 60_000);
  }, 180_000);

  it("an API server that fails, and watches that are cut each second: policies stay, and changes come through", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const directory = release.nodes[0]?.directory ?? "";
    const coordinator = release.startCoordinator();
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 4 } });
    const files = series(directory, 6);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)), 30_000);
    const answers = [500, 403, 410, 429].map((status) => ({
      do: "answer" as const,
      status,
      headers: { "retry-after": "1" },
      body: "",
    }));
    for (const answer of answers) {
      release.proxy.fault = ({ url }) => (url.includes("/leases/") ? undefined : answer);
      release.proxy.cut();
      await sleep(1500);
      expect(archivesIn(directory)).toEqual(files.slice(2));
    }
    release.proxy.fault = () => undefined;
    const cutting = setInterval(release.proxy.cut, 1000);
    try {
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 2 } });
      await until(() => expect(archivesIn(directory)).toEqual(files.slice(4)), 60_000);
    } finally {
      clearInterval(cutting);
    }
    expect(coordinator.err).toEqual([]);
  }, 120_000);

  it("a thousand container policies in one resource reach the agent and act", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const directory = release.nodes[0]?.directory ?? "";
    release.startCoordinator();
    const containerPolicies = Array.from({ length: 1000 }, (_, index) => ({
      namespace: "shop",
      pod: "web-0",
      container: `c${index}`,
      maxCheckpoints: 1 + (index % 3),
    }));
    const files = ["c0", "c1", "c999"].map((container) => series(directory, 4, { container }));
    await release.apply("thousand", { ...now, containerPolicies });
    const expected = [
      ...(files[0]?.slice(3) ?? []),
      ...(files[1]?.slice(2) ?? []),
      ...(files[2]?.slice(3) ?? []),
    ].sort();
    await until(() => expect(archivesIn(directory)).toEqual(expected), 60_000);
  }, 90_000);

  it("an agent that is replaced under way, as in a rolling update: the new one gets the policy at once", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    if (node === undefined) throw new Error("no node");
    release.startCoordinator();
    await release.apply("policy", { globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await until(() => expect(node.agent.log().some(({ msg }) => msg === "directive accepted")).toBe(true), 30_000);
    await node.agent.kill("SIGTERM");
    await remove(kube.client, `/api/v1/namespaces/${release.namespace}/pods/${node.podName}`);
    const { agent } = await release.startAgent({ ...node, podName: "agent-again" });
    await until(() => expect(agent.log().some(({ msg }) => msg === "directive accepted")).toBe(true));
    await until(() => expect(agent.log().some(({ msg }) => msg === "directory listed")).toBe(true));
    const files = series(node.directory, 3);
    const next = writeArchive(node.directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(node.directory)).toEqual([files[2], next]));
    await agent.kill("SIGKILL");
    await until(
      async () => expect((await release.status("policy")).nodes).toMatchObject({ desired: 1, applied: 0 }),
      60_000,
    );
  }, 120_000);

  it("the ruling policy made invalid, then its leader killed: agents keep what they have, and no default acts", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const directory = release.nodes[0]?.directory ?? "";
    const first = release.startCoordinator("--policy-grace-period", "1s");
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 12 } });
    const files = series(directory, 14);
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)), 30_000);
    await release.apply("policy", { ...now, globalPolicy: { maxChekpointSize: "1Gi" } });
    await until(async () => {
      const conditions = (await release.status("policy")).conditions ?? [];
      expect(conditions.find(({ type }) => type === "Accepted")?.status).toBe("False");
    }, 20_000);
    await first.kill("SIGKILL");
    const second = release.startCoordinator("--policy-grace-period", "1s");
    await until(() => expect(second.log().some(({ msg }) => msg === "leading")).toBe(true), 40_000);
    await until(async () => {
      const conditions = (await release.status("policy")).conditions ?? [];
      expect(conditions.find(({ type }) => type === "Enforcing")).toMatchObject({
        status: "False",
        reason: "NotAccepted",
      });
    }, 20_000);
    const next = writeArchive(directory, { container: "main", time: archiveTime(Date.now()) });
    await until(() => expect(archivesIn(directory)).toEqual([...files.slice(3), next]));
  }, 120_000);

  it("certificates that live for seconds: both sides reload them, and directives and reports go on", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const agent = release.nodes[0]?.agent;
    const coordinator = release.startCoordinator("--ca-lifetime", "40s", "--certificate-lifetime", "10s");
    await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 9 } });
    const applied = () => coordinator.log().filter(({ msg }) => msg === "agent applied policy").length;
    await until(() => expect(applied()).toBeGreaterThan(0), 30_000);
    const failuresAtFirst = coordinator.log().filter(({ msg }) => msg === "agent does not follow").length;
    for (let round = 0; round < 5; round += 1) {
      await sleep(4000);
      await release.apply("policy", { ...now, globalPolicy: { maxCheckpointsPerContainer: 8 - round } });
      await until(() => expect(applied()).toBeGreaterThan(round + 1));
    }
    expect(agent?.log().filter(({ msg }) => msg === "certificates loaded").length).toBeGreaterThanOrEqual(3);
    expect(coordinator.log().filter(({ msg }) => msg === "agent does not follow")).toHaveLength(failuresAtFirst);
  }, 120_000);

  it("an authority that agents may still use is trusted while nobody knows which agents there are", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const applied = (coordinator: ReturnType<typeof release.startCoordinator>) =>
      coordinator.log().some(({ msg }) => msg === "agent applied policy");
    const first = release.startCoordinator();
    await until(() => expect(applied(first)).toBe(true), 30_000);
    await first.kill("SIGTERM");

    // As in the middle of a rotation: another authority is trusted beside the one that signs.
    const secret = (name: string) =>
      `/api/v1/namespaces/${release.namespace}/secrets/checkpoint-restore-operator-${name}`;
    const trusted = async (name: string) => {
      const { data } = unwrap(await kube.client.request<AnyObject>({ path: secret(name) }));
      return Buffer.from(data["ca.crt"], "base64").toString();
    };
    const old = (await anAuthority()).certificate;
    const both = Buffer.from((await trusted("ca")) + old).toString("base64");
    const body = { data: { "ca.crt": both } };
    unwrap(await kube.client.request({ method: "PATCH", path: secret("ca"), body }));

    release.proxy.fault = ({ url }) =>
      url.includes("/pods?") && url.includes("component") ? { do: "hang" } : undefined;
    const reads = () => release.proxy.requests.filter((request) => request === `GET ${secret("ca")}`).length;
    const second = release.startCoordinator("--certificate-lifetime", "60s");
    await until(async () => expect(await trusted("agent")).toContain(old), 60_000);
    const before = reads();
    await until(() => expect(reads()).toBeGreaterThanOrEqual(before + 3), 60_000);
    for (const name of ["ca", "agent", "coordinator"])
      expect([name, await trusted(name)]).toEqual([name, expect.stringContaining(old)]);

    release.proxy.fault = () => undefined;
    release.proxy.cut();
    await until(() => expect(applied(second)).toBe(true), 60_000);
    await until(async () => expect(await trusted("ca")).not.toContain(old), 60_000);
  }, 240_000);

  it("certificates of somebody else are used and never written", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const maker = release.startCoordinator();
    await until(() => expect(maker.log().some(({ msg }) => msg === "agent applied policy")).toBe(true), 30_000);
    await maker.kill("SIGTERM");
    const before = release.proxy.requests.length;
    const user = release.startCoordinator("--existing-certificates", "--certificate-lifetime", "3s");
    await until(() => expect(user.log().some(({ msg }) => msg === "agent applied policy")).toBe(true), 30_000);
    await sleep(3000);
    const requests = release.proxy.requests.slice(before);
    expect(requests.filter((request) => request.startsWith("PATCH") && request.includes("/secrets/"))).toEqual([]);
    expect(requests.some((request) => request.startsWith("GET") && request.includes("/secrets/"))).toBe(true);
  }, 90_000);
});
