import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  createKubeClient,
  type KubeClient,
  type KubeFailure,
  type KubeObject,
  loadKubeAccess,
  provesAbsence,
} from "@cro/coordinator/kube/client";
import { type Collection, listObjects } from "@cro/coordinator/kube/list";
import { type WatchEvent, watchObjects } from "@cro/coordinator/kube/watch";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type Fault, type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import {
  type AnyObject,
  create,
  createNamespace,
  createPod,
  createServiceAccount,
  createToken,
  describeWithKube,
  remove,
  unwrap,
} from "../support/kube.ts";

const nowMs = () => performance.now();

describeWithKube("the Kubernetes client on a real API server", (kube) => {
  let namespace: string;
  let proxy: FaultProxy;
  /** Reaches the API server by way of the proxy, with a token that may do anything. */
  let client: KubeClient;
  let pods: string;

  beforeAll(async () => {
    proxy = await startFaultProxy(kube);
    const token = await createServiceAccount(kube.client, {
      namespace: "default",
      name: "everything",
      rules: [{ apiGroups: ["*"], resources: ["*"], verbs: ["*"] }],
    });
    const kubeconfig = await kube.writeKubeconfig({ credential: { token }, ...proxy });
    client = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs }), { userAgent: "test" });
    return async () => {
      await client.close();
      await proxy.close();
    };
  });

  beforeEach(async () => {
    namespace = await createNamespace(kube.client, "kube");
    pods = `/api/v1/namespaces/${namespace}/pods`;
    proxy.fault = () => undefined;
    proxy.requests.length = 0;
  });

  async function failureOf(path: string, { timeoutMs = 5000, kind = "Pod" } = {}): Promise<KubeFailure> {
    const answer = await client.request({ path, timeoutMs, kind });
    if (answer.ok) throw new Error(`${path} was answered`);
    return answer;
  }

  describe("a request", () => {
    it("reads an object, and patches it as a merge", async () => {
      await createPod(kube.client, { namespace, name: "web" });
      const patched = unwrap(
        await client.request<KubeObject>({
          method: "PATCH",
          path: `${pods}/web`,
          body: { metadata: { labels: { a: "b" } } },
          kind: "Pod",
        }),
      );
      expect(patched.metadata.labels).toEqual({ a: "b" });
      const read = unwrap(await client.request<KubeObject>({ path: `${pods}/web`, kind: "Pod" }));
      expect(read.metadata.uid).toBe(patched.metadata.uid);
    });

    it("that finds no pod proves that there is none", async () => {
      const failure = await failureOf(`${pods}/web`);
      expect(failure).toMatchObject({ reason: "NotFound", status: 404 });
      expect(provesAbsence(failure, { kind: "pods", name: "web" })).toBe(true);
      expect(provesAbsence(failure, { kind: "pods", name: "other" })).toBe(false);
    });

    it.each<[string, Fault]>([
      ["a proxy's 404 in plain text", { do: "answer", status: 404, body: "404 page not found" }],
      [
        "a Status without details",
        { do: "answer", status: 404, body: JSON.stringify({ kind: "Status", apiVersion: "v1", reason: "NotFound" }) },
      ],
      [
        "a Status about the resource as a whole",
        {
          do: "answer",
          status: 404,
          body: JSON.stringify({ kind: "Status", apiVersion: "v1", reason: "NotFound", details: { kind: "pods" } }),
        },
      ],
      [
        "JSON that is no Status",
        {
          do: "answer",
          status: 404,
          body: JSON.stringify({ reason: "NotFound", details: { kind: "pods", name: "web" } }),
        },
      ],
      [
        "another status with the words of a 404",
        {
          do: "answer",
          status: 503,
          body: JSON.stringify({
            kind: "Status",
            apiVersion: "v1",
            reason: "NotFound",
            details: { kind: "pods", name: "web" },
          }),
        },
      ],
    ])("that is answered by %s proves nothing", async (_, fault) => {
      proxy.fault = () => fault;
      expect(provesAbsence(await failureOf(`${pods}/web`), { kind: "pods", name: "web" })).toBe(false);
    });

    it("for a resource that does not exist proves nothing about an object", async () => {
      expect(provesAbsence(await failureOf("/apis/none.io/v1/pods/web"), { kind: "pods", name: "web" })).toBe(false);
    });

    it.each<[string, string]>([
      ["a page of HTML", "<html>Sign in</html>"],
      ["another kind", JSON.stringify({ kind: "Node", apiVersion: "v1" })],
      ["an array", "[]"],
      ["nothing", ""],
    ])("that is answered 200 with %s is a failure", async (_, body) => {
      proxy.fault = () => ({ do: "answer", status: 200, body });
      expect(await failureOf(`${pods}/web`)).toMatchObject({ reason: "Malformed" });
    });

    it("tells a conflict by its reason", async () => {
      const pod = await createPod(kube.client, { namespace, name: "web" });
      await kube.client.request({ method: "PATCH", path: `${pods}/web`, body: { metadata: { labels: { a: "b" } } } });
      const { resourceVersion } = pod.metadata;
      const stale = { metadata: { resourceVersion, labels: { a: "c" } } };
      expect(await client.request({ method: "PATCH", path: `${pods}/web`, body: stale })).toMatchObject({
        reason: "Conflict",
        status: 409,
      });
    });

    it("tells when to come back", async () => {
      proxy.fault = () => ({ do: "answer", status: 429, headers: { "retry-after": "7" }, body: "slow down" });
      expect(await failureOf(pods)).toMatchObject({ reason: "HTTP", status: 429, retryAfterMs: 7000 });
    });

    it("is over in time where no answer comes, and says so; a cut connection is another thing", async () => {
      proxy.fault = () => ({ do: "hang" });
      const startMs = nowMs();
      expect(await failureOf(pods, { timeoutMs: 300 })).toMatchObject({ reason: "Timeout" });
      expect(nowMs() - startMs).toBeLessThan(2000);
      proxy.fault = () => ({ do: "drop" });
      expect(await failureOf(pods)).toMatchObject({ reason: "Unreachable" });
      proxy.fault = () => ({ do: "hang" });
      const aborted = AbortSignal.timeout(100);
      expect(await client.request({ path: pods, signal: aborted })).toMatchObject({ reason: "Aborted" });
    });

    it("trusts only the authority that the kubeconfig names", async () => {
      const kubeconfig = await kube.writeKubeconfig({ server: proxy.server });
      const mistaken = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs }), { userAgent: "test" });
      expect(await mistaken.request({ path: "/version" })).toMatchObject({ ok: false, reason: "Unreachable" });
      await mistaken.close();
      expect(proxy.requests).toEqual([]);
    });
  });

  it("reads the token of its pod's service account again when it was replaced", async () => {
    await createServiceAccount(kube.client, {
      namespace,
      name: "pod",
      rules: [{ apiGroups: [""], resources: ["pods"], verbs: ["list"] }],
    });
    const serviceAccountRoot = join(kube.folder, namespace);
    const folder = join(serviceAccountRoot, "var/run/secrets/kubernetes.io/serviceaccount");
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, "ca.crt"), kube.caPem);
    await writeFile(join(folder, "namespace"), namespace);
    await writeFile(join(folder, "token"), "expired\n");
    const { hostname, port } = new URL(kube.server);
    vi.stubEnv("KUBERNETES_SERVICE_HOST", hostname);
    vi.stubEnv("KUBERNETES_SERVICE_PORT", port);
    let time = 0;
    const access = await loadKubeAccess({ serviceAccountRoot, nowMs: () => time });
    vi.unstubAllEnvs();
    expect(access).toMatchObject({ server: kube.server, namespace });
    const inPod = createKubeClient(access, { userAgent: "test" });
    expect(await inPod.request({ path: pods })).toMatchObject({ ok: false, reason: "Unauthorized" });
    await writeFile(join(folder, "token"), `${await createToken(kube.client, { namespace, name: "pod" })}\n`);
    time += 10_000;
    expect(await inPod.request({ path: pods })).toMatchObject({ ok: true });
    expect(await inPod.request({ path: `/api/v1/namespaces/${namespace}/secrets` })).toMatchObject({
      ok: false,
      reason: "Forbidden",
      status: 403,
    });
    await inPod.close();
  });

  describe("a list and a watch", () => {
    /** What a listener has been told, and what it therefore knows: names, or nothing. */
    interface Listener {
      events: Array<WatchEvent<string>>;
      known: Set<string> | undefined;
      count(type: WatchEvent<string>["type"]): number;
      lost(): KubeFailure[];
    }
    const stops: Array<() => Promise<void>> = [];

    afterEach(async () => {
      await Promise.all(stops.splice(0).map((stop) => stop()));
    });

    function listen(collection: Collection, { silenceMs }: { silenceMs?: number } = {}): Listener {
      const events: Array<WatchEvent<string>> = [];
      const listener: Listener = {
        events,
        known: undefined,
        count: (wanted) => events.filter(({ type }) => type === wanted).length,
        lost: () => events.flatMap((event) => (event.type === "lost" ? [event.failure] : [])),
      };
      const stopping = new AbortController();
      const running = watchObjects<string>({
        client,
        collection,
        project: ({ metadata }) => metadata.name,
        emit(event) {
          events.push(event);
          if (event.type === "synced") listener.known = new Set(event.items);
          else if (event.type === "lost") listener.known = undefined;
          else if (event.type === "deleted") listener.known?.delete(event.item);
          else listener.known?.add(event.item);
        },
        signal: stopping.signal,
        nowMs,
        random: Math.random,
        ...(silenceMs === undefined ? {} : { silenceMs }),
      });
      stops.push(async () => {
        stopping.abort();
        await running;
      });
      return listener;
    }

    const listenToPods = (options?: { silenceMs?: number }) => listen({ path: pods, metadataOnly: true }, options);
    const untilKnown = (listener: Listener, ...names: string[]) =>
      vi.waitFor(() => expect(listener.known).toEqual(new Set(names)), { timeout: 10_000, interval: 20 });
    const isWatch = ({ url }: { url: string }) => url.includes("watch=true");
    const addPod = (name: string) => createPod(kube.client, { namespace, name });
    const removePod = (name: string) => remove(kube.client, `${pods}/${name}`);

    it("tell what there is, and then every change", async () => {
      await addPod("a");
      const listener = listenToPods();
      await untilKnown(listener, "a");
      await addPod("b");
      await untilKnown(listener, "a", "b");
      await kube.client.request({ method: "PATCH", path: `${pods}/b`, body: { metadata: { labels: { x: "y" } } } });
      await vi.waitFor(() => expect(listener.events).toContainEqual({ type: "modified", item: "b" }));
      await removePod("a");
      await untilKnown(listener, "b");
      expect(listener.lost()).toEqual([]);
    });

    it("ask for metadata alone, and get nothing else", async () => {
      await addPod("a");
      const seen: AnyObject[] = [];
      const list = await listObjects(client, { path: pods, metadataOnly: true }, { project: (pod) => seen.push(pod) });
      expect(list.ok).toBe(true);
      expect(Object.keys(seen[0])).not.toContain("spec");
      const whole = unwrap(await listObjects(client, { path: pods, metadataOnly: false }, { project: (pod) => pod }));
      expect(Object.keys(whole.items[0] ?? {})).toContain("spec");
    });

    it("keep to a selector", async () => {
      await addPod("a");
      await createPod(kube.client, { namespace, name: "b", labels: { app: "agent" } });
      await untilKnown(listen({ path: pods, metadataOnly: false, labelSelector: "app=agent" }), "b");
    });

    it("take a list for whole only when its last chunk has come", async () => {
      const path = `/api/v1/namespaces/${namespace}/configmaps`;
      const names = Array.from({ length: 510 }, (_, n) => `c${n}`);
      for (let start = 0; start < names.length; start += 30) {
        const chunk = names.slice(start, start + 30);
        await Promise.all(chunk.map((name) => create(kube.client, path, { metadata: { name } })));
      }
      let refused = 0;
      proxy.fault = ({ url }) => {
        if (!url.includes("continue=") || refused === 2) return undefined;
        refused += 1;
        const status = { kind: "Status", apiVersion: "v1", reason: "Expired", code: 410 };
        return refused === 1 ? { do: "answer", status: 410, body: JSON.stringify(status) } : { do: "drop" };
      };
      const listener = listen({ path, metadataOnly: true });
      await untilKnown(listener, ...names);
      expect(listener.events.map(({ type }) => type)).toEqual(["lost", "lost", "synced"]);
      expect(listener.lost().map(({ reason }) => reason)).toEqual(["Expired", "Unreachable"]);
    });

    it.each<[string, string]>([
      ["an empty object", "{}"],
      ["a list of another form", JSON.stringify({ kind: "PodList", items: [], metadata: { resourceVersion: "1" } })],
      ["a list without a version", JSON.stringify({ kind: "PartialObjectMetadataList", items: [], metadata: {} })],
      [
        "a list with an item without a name",
        JSON.stringify({ kind: "PartialObjectMetadataList", items: [{}], metadata: { resourceVersion: "1" } }),
      ],
    ])("do not take %s for a list", async (_, body) => {
      proxy.fault = () => ({ do: "answer", status: 200, body });
      const list = await listObjects(client, { path: pods, metadataOnly: true }, { project: () => undefined });
      expect(list).toMatchObject({ ok: false, reason: "Malformed" });
    });

    it.each<[string, Fault]>([
      ["500", { do: "answer", status: 500, body: "no" }],
      ["403", { do: "answer", status: 403, body: "no" }],
      ["410", { do: "answer", status: 410, body: "no" }],
      ["a cut connection", { do: "drop" }],
      ["one that is cut in the middle", { do: "truncate", bytes: 40, over: "cut" }],
      ["one that ends in the middle", { do: "truncate", bytes: 40, over: "end" }],
    ])("know nothing while the API server answers lists with %s, and all once it is well", async (_, fault) => {
      await addPod("a");
      proxy.fault = () => fault;
      const listener = listenToPods();
      await vi.waitFor(() => expect(listener.count("lost")).toBeGreaterThan(1), { timeout: 5000 });
      expect(listener.known).toBeUndefined();
      proxy.fault = () => undefined;
      await untilKnown(listener, "a");
    });

    it.each<[string, Fault]>([
      ["500", { do: "answer", status: 500, body: "no" }],
      ["403", { do: "answer", status: 403, body: "no" }],
      ["410", { do: "answer", status: 410, body: "gone" }],
    ])("know nothing any more where the next watch is answered with %s", async (_, fault) => {
      await addPod("a");
      const listener = listenToPods();
      await untilKnown(listener, "a");
      await vi.waitFor(() => expect(proxy.requests.filter((url) => isWatch({ url }))).toHaveLength(1));
      proxy.fault = (request) => (isWatch(request) ? fault : undefined);
      proxy.cut();
      await vi.waitFor(() => expect(listener.known).toBeUndefined(), { timeout: 5000, interval: 5 });
      await removePod("a");
      proxy.fault = () => undefined;
      await untilKnown(listener);
    });

    it("begin anew where the API server says that the version to carry on from is too old", async () => {
      await addPod("a");
      let rewritten = 0;
      const error = { type: "ERROR", object: { kind: "Status", code: 410, reason: "Expired", message: "too old" } };
      proxy.fault = (request) => {
        if (!isWatch(request) || rewritten > 0) return undefined;
        return {
          do: "rewrite",
          rewrite: (chunk) => (rewritten++ === 0 ? Buffer.from(`${JSON.stringify(error)}\n`) : chunk),
        };
      };
      const listener = listenToPods();
      await untilKnown(listener, "a");
      await addPod("b");
      await untilKnown(listener, "a", "b");
      expect(listener.lost()).toMatchObject([{ reason: "Expired", status: 410 }]);
      expect(listener.count("synced")).toBe(2);
    });

    it.each([
      ["no JSON", Buffer.from("\u0000garbage\n")],
      ["no event", Buffer.from('{"type":"ADDED","object":{}}\n')],
      ["an event of an unknown type", Buffer.from('{"type":"MOVED","object":{"metadata":{"resourceVersion":"1"}}}\n')],
      ["no UTF-8", Buffer.from([0x22, 0xff, 0x22, 0x0a])],
    ])("end the watch and know nothing after a line that is %s", async (_, line) => {
      await addPod("a");
      let isInjected = false;
      proxy.fault = (request) =>
        isWatch(request) && !isInjected
          ? {
              do: "rewrite",
              rewrite(chunk) {
                isInjected = true;
                return Buffer.concat([line, chunk]);
              },
            }
          : undefined;
      const listener = listenToPods();
      await untilKnown(listener, "a");
      await addPod("b");
      await untilKnown(listener, "a", "b");
      expect(listener.events.map(({ type }) => type)).toEqual(["synced", "lost", "synced"]);
      expect(listener.lost()).toMatchObject([{ reason: "Malformed" }]);
    });

    it("lose nothing by a connection that is cut again and again", async () => {
      await addPod("a");
      const listener = listenToPods();
      await untilKnown(listener, "a");
      // Told by the watch and not by the list: from here on there is one to cut.
      const names = ["a", "b"];
      await addPod("b");
      await untilKnown(listener, ...names);
      for (let n = 0; n < 4; n++) {
        const watches = proxy.requests.filter((url) => isWatch({ url })).length;
        proxy.cut();
        names.push(`b${n}`);
        await addPod(`b${n}`);
        // The next cut must meet a watch that is open: one that cannot even begin knows nothing, and says so.
        await untilKnown(listener, ...names);
        expect(proxy.requests.filter((url) => isWatch({ url })).length).toBe(watches + 1);
      }
      expect(listener.events).toEqual([
        { type: "synced", items: ["a"] },
        ...names.slice(1).map((item) => ({ type: "added", item })),
      ]);
    });

    it("lose nothing by a connection that is cut in the middle of a line", async () => {
      let cuts = 0;
      proxy.fault = (request) => {
        if (!isWatch(request) || cuts > 0) return undefined;
        let rest = 40;
        return {
          do: "rewrite",
          rewrite(chunk) {
            if (rest === 0) {
              cuts += 1;
              return undefined;
            }
            rest = 0;
            return chunk.subarray(0, 40);
          },
        };
      };
      const listener = listenToPods();
      await untilKnown(listener);
      await addPod("a");
      await addPod("b");
      await untilKnown(listener, "a", "b");
      expect(cuts).toBe(1);
      expect(listener.events.map(({ type }) => type)).toEqual(["synced", "added", "added"]);
    });

    it("lose nothing by a watch that ends in the middle of a line, as if that were all of it", async () => {
      let ends = 0;
      proxy.fault = (request) => {
        if (!isWatch(request) || ends > 0) return undefined;
        ends += 1;
        return { do: "truncate", bytes: 40, over: "end" };
      };
      const listener = listenToPods();
      await untilKnown(listener);
      await addPod("a");
      await addPod("b");
      await untilKnown(listener, "a", "b");
      expect(ends).toBe(1);
      expect(listener.events.map(({ type }) => type)).toEqual(["synced", "added", "added"]);
    });

    it("wait as long as the API server asks for", async () => {
      await addPod("a");
      let refusals = 0;
      const startMs = nowMs();
      proxy.fault = () => {
        refusals += 1;
        return refusals === 1 ? { do: "answer", status: 429, headers: { "retry-after": "2" }, body: "" } : undefined;
      };
      await untilKnown(listenToPods(), "a");
      expect(nowMs() - startMs).toBeGreaterThanOrEqual(2000);
    });

    it("take an API server that says nothing for dead, and know nothing until it is back", async () => {
      await addPod("a");
      const listener = listenToPods({ silenceMs: 1000 });
      await untilKnown(listener, "a");
      // What comes by the watch shows that it stands.
      await addPod("b");
      await untilKnown(listener, "a", "b");
      kube.apiServer.pause();
      try {
        await vi.waitFor(() => expect(listener.lost()).toMatchObject([{ reason: "Timeout" }]), 5000);
        expect(listener.known).toBeUndefined();
      } finally {
        kube.apiServer.resume();
      }
      await vi.waitFor(() => expect(listener.known).toEqual(new Set(["a", "b"])), { timeout: 15_000, interval: 20 });
    });

    it("know nothing while the API server is down, and then what has become of everything", async () => {
      await addPod("a");
      await addPod("b");
      const listener = listenToPods();
      await untilKnown(listener, "a", "b");
      await kube.apiServer.stop();
      await vi.waitFor(() => expect(listener.known).toBeUndefined(), { timeout: 5000 });
      await kube.apiServer.start();
      await removePod("a");
      await vi.waitFor(() => expect(listener.known).toEqual(new Set(["b"])), { timeout: 20_000 });
    }, 60_000);
  });
});
