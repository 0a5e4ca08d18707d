import { beforeAll, expect, it } from "vitest";
import { installRelease } from "../support/cluster.ts";
import { type AnyObject, describeWithKube, installPolicyDefinition, unwrap } from "../support/kube.ts";
import { type Running, read, until } from "../support/processes.ts";

describeWithKube("a coordinator's probes", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  async function urlOf({ log }: Running): Promise<string> {
    return until(() => {
      const url = log().find(({ msg }) => msg === "coordinator started")?.metricsUrl;
      expect(url).toBeDefined();
      return String(url);
    }, 30_000);
  }

  it("say that it is not ready while it cannot read its Lease, and ready once it can, standing by too", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    release.proxy.fault = ({ url }) =>
      url.includes("/leases/") ? { do: "answer", status: 403, body: "no entry" } : undefined;
    const coordinators = [release.startCoordinator(), release.startCoordinator()];
    const urls = await Promise.all(coordinators.map(urlOf));
    for (const url of urls) {
      await until(async () => expect(await read(`${url}/readyz`)).toMatchObject({ status: 503 }));
      await until(async () => expect((await read(`${url}/readyz`)).body).toMatch(/leases.*: 403.*no entry/));
      // A restart would not help.
      expect((await read(`${url}/healthz`)).status).toBe(200);
    }
    release.proxy.fault = () => undefined;
    for (const url of urls) {
      await until(async () => expect(await read(`${url}/readyz`)).toEqual({ status: 200, body: "ok\n" }), 30_000);
    }
    expect(coordinators.filter(({ log }) => log().some(({ msg }) => msg === "leading"))).toHaveLength(1);
  }, 90_000);

  it("say that a leader is not ready while it does not know everything", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    release.proxy.fault = ({ url }) =>
      url.startsWith("/api/v1/pods") ? { do: "answer", status: 500, body: "broken" } : undefined;
    const url = await urlOf(release.startCoordinator());
    const unready = { status: 503, body: "the leader does not know all pods\n" };
    await until(async () => expect(await read(`${url}/readyz`)).toEqual(unready), 30_000);
    release.proxy.fault = () => undefined;
    await until(async () => expect((await read(`${url}/readyz`)).status).toBe(200), 40_000);
  }, 90_000);

  it("say, all the time, that nobody can lead by a Lease that can be read and not written, and it is an error each minute", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    release.proxy.fault = ({ method, url }) =>
      method !== "GET" && url.includes("/leases/") ? { do: "answer", status: 403, body: "no entry" } : undefined;
    const coordinator = release.startCoordinator();
    const url = await urlOf(coordinator);
    await until(async () => expect((await read(`${url}/readyz`)).status).toBe(503));
    const answers = new Set<number>();
    await until(async () => {
      answers.add((await read(`${url}/readyz`)).status);
      const errors = coordinator.log().filter(({ level }) => level === "error");
      expect(errors.map(({ problem }) => problem)).toContainEqual(
        expect.stringMatching(/^no coordinator has been seen to lead for 6\d s: .*leases.*: 403.*no entry/),
      );
    }, 90_000);
    expect([...answers]).toEqual([503]);
    expect(coordinator.log().filter(({ msg }) => msg === "The Lease cannot be used")).toHaveLength(1);
    release.proxy.fault = () => undefined;
    await until(async () => expect((await read(`${url}/readyz`)).status).toBe(200), 40_000);
  }, 180_000);

  it("need not be asked where it cannot go on: it lets the Lease go, says why and ends with 1", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    // What no API server answers: an address that is none.
    const pod = {
      metadata: { name: "agent", namespace: release.namespace, uid: "u", resourceVersion: "1" },
      spec: { nodeName: "n" },
      status: { podIP: 7 },
    };
    const list = { kind: "PodList", apiVersion: "v1", metadata: { resourceVersion: "1" }, items: [pod] };
    release.proxy.fault = ({ method, url }) =>
      method === "GET" && url.includes(`/namespaces/${release.namespace}/pods`)
        ? { do: "answer", status: 200, headers: { "content-type": "application/json" }, body: JSON.stringify(list) }
        : undefined;
    const failing = release.startCoordinator();
    expect(await failing.exited).toBe(1);
    expect(failing.log().at(-1)).toMatchObject({ level: "fatal", msg: "coordinator cannot go on" });
    const leases = `/apis/coordination.k8s.io/v1/namespaces/${release.namespace}/leases`;
    const { items } = unwrap(await kube.client.request<AnyObject>({ path: leases }));
    expect(items.map(({ spec }: AnyObject) => [spec.leaseTransitions, spec.holderIdentity])).toEqual([[1, undefined]]);
  }, 90_000);
});
