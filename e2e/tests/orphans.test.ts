import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createKubeClient, type KubeObject, loadKubeAccess } from "@cro/coordinator/kube/client";
import { watchObjects } from "@cro/coordinator/kube/watch";
import { createOrphanProver, type PodName } from "@cro/coordinator/liveness/prover";
import type { OrphanFact } from "@cro/shared/wire/directive";
import { beforeAll, beforeEach, expect, it, onTestFinished } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aReport } from "../../coordinator/test/support/agent-peer.ts";
import { installRelease } from "../support/cluster.ts";
import { type Fault, startFaultProxy } from "../support/fault-proxy.ts";
import {
  aPolicy,
  createNamespace,
  createPod,
  createServiceAccount,
  describeWithKube,
  installPolicyDefinition,
  remove,
  unwrap,
} from "../support/kube.ts";
import { until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const GRACE_MS = 300;
/** No test waits for that: those that need it over set the clock forward. */
const RESYNC_MS = 3_600_000;

describeWithKube("proof of orphans", (kube) => {
  let token: string;
  let namespace: string;
  beforeAll(async () => {
    const rules = [{ apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch"] }];
    await installPolicyDefinition(kube.client);
    token = await createServiceAccount(kube.client, { namespace: "default", name: "prover", rules });
  });
  beforeEach(async () => {
    namespace = await createNamespace(kube.client, "orphans");
  });

  /** A prover behind a proxy, watching all pods, and one agent that asks about these pods. */
  async function startProver() {
    const proxy = await startFaultProxy(kube);
    const kubeconfig = await kube.writeKubeconfig({ credential: { token }, server: proxy.server, caPem: proxy.caPem });
    let skippedMs = 0;
    const nowMs = () => performance.now() + skippedMs;
    const client = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs }), { userAgent: "test" });
    const ending = new AbortController();
    const facts = new Map<string, OrphanFact[]>();
    const everProved = new Set<string>();
    const held = new Map<string, number>();
    let isLeading = true;
    let graceMs: number | undefined = GRACE_MS;
    let isSynced = false;
    const prover = createOrphanProver({
      client,
      nowMs,
      wallMs: Date.now,
      signal: ending.signal,
      mayAct: () => isLeading,
      resyncMs: RESYNC_MS,
      graceOf: () => graceMs,
      log: { info: () => {}, warn: () => {} },
      emit: {
        facts: (podUID, now) => {
          facts.set(podUID, now);
          for (const { pod, container } of now) everProved.add(container === undefined ? pod : `${pod}/${container}`);
        },
        held: (node, { count }) => held.set(node, count),
      },
    });
    const watching = watchObjects<PodName>({
      client,
      collection: { path: "/api/v1/pods", metadataOnly: true },
      project: ({ metadata }: KubeObject) => ({
        namespace: metadata.namespace ?? "",
        name: metadata.name,
        uid: metadata.uid,
      }),
      emit: (event) => {
        isSynced = event.type !== "lost";
        prover.podsEvent(event);
      },
      signal: ending.signal,
      nowMs,
      random: Math.random,
    });
    onTestFinished(async () => {
      ending.abort();
      await prover.stop();
      await watching;
      await client.close();
      await proxy.close();
    });
    await until(() => expect(isSynced).toBe(true));
    let number = 0;
    return {
      proxy,
      prover,
      held,
      isSynced: () => isSynced,
      everProved,
      facts: () => (facts.get("agent") ?? []).map(({ pod }) => pod).sort(),
      all: () => facts.get("agent") ?? [],
      depose: () => {
        isLeading = false;
      },
      rule(nextGraceMs: number | undefined) {
        graceMs = nextGraceMs;
        prover.ruled();
      },
      skip: (ms: number) => {
        skippedMs += ms;
      },
      ask(pods: string[], { containers = [] as string[], bootId = "boot" } = {}) {
        number += 1;
        const orphanScopes = pods.map((pod) => ({ namespace, pod, containers }));
        prover.reported({ podUID: "agent", node: "node" }, aReport({ bootId, number, orphanScopes }));
        return number;
      },
      /** Deletes a pod, asks about it and these others, and waits until it is proved: what was due before it has been read. */
      async askBeyond(pods: string[]) {
        const witness = `witness-${number}`;
        await createPod(kube.client, { namespace, name: witness });
        await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/${witness}`);
        this.ask([...pods, witness]);
        await until(() => expect(everProved.has(witness)).toBe(true));
        everProved.delete(witness);
      },
      requests: (pattern: RegExp) => proxy.requests.filter((request) => pattern.test(request)),
    };
  }

  it("tells of an absent pod after its grace, naming the report that asked, and of no living one", async () => {
    await createPod(kube.client, { namespace, name: "lives" });
    const prover = await startProver();
    const report = prover.ask(["lives", "never"]);
    await until(() => expect(prover.all()).toMatchObject([{ bootId: "boot", report, namespace, pod: "never" }]));
    await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/lives`);
    await until(() => expect(prover.facts()).toEqual(["lives", "never"]));
  });

  it("tells of a container that a living pod does not have, counting init containers", async () => {
    unwrap(
      await kube.client.request({
        method: "POST",
        path: `/api/v1/namespaces/${namespace}/pods`,
        body: {
          metadata: { name: "web" },
          spec: {
            containers: [{ name: "main", image: "none" }],
            initContainers: [{ name: "setup", image: "none" }],
          },
        },
      }),
    );
    const prover = await startProver();
    prover.ask(["web"], { containers: ["main", "setup", "removed"] });
    await until(() => expect([...prover.everProved]).toEqual(["web/removed"]), 10_000);
    expect(prover.all()).toHaveLength(1);
  });

  it("proves for the report that asked, not for one that comes while the proof is on its way", async () => {
    const prover = await startProver();
    let answers = 0;
    const askMeanwhile = (bootId: string) => {
      answers = 0;
      prover.proxy.fault = ({ url }) =>
        /\/pods\/gone/.test(url)
          ? {
              do: "rewrite",
              rewrite: (chunk) => {
                answers += 1;
                if (answers === 1) prover.ask(["gone"], { bootId });
                return chunk;
              },
            }
          : undefined;
    };
    askMeanwhile("boot");
    const report = prover.ask(["gone"]);
    await until(() => expect(prover.all()).toMatchObject([{ bootId: "boot", report, namespace, pod: "gone" }]));
    expect(answers).toBe(1);
    // Another start of the agent may have listed anything.
    askMeanwhile("third");
    const next = prover.ask(["gone"], { bootId: "second" });
    await until(() =>
      expect(prover.all()).toMatchObject([{ bootId: "third", report: next + 1, namespace, pod: "gone" }]),
    );
    expect(answers).toBeGreaterThan(1);
  });

  it("does not keep pods that are gone waiting until all the living are read", async () => {
    const names = Array.from({ length: 100 }, (_, index) => `lives-${index}`);
    await Promise.all(names.map((name) => createPod(kube.client, { namespace, name })));
    const prover = await startProver();
    prover.ask([...names, "gone"], { containers: ["main"] });
    await until(() => expect(prover.facts()).toEqual(["gone"]), 30_000);
    expect(prover.requests(/GET .*\/pods\/lives/).length).toBeLessThan(names.length);
    await until(() => expect(prover.requests(/GET .*\/pods\/lives/)).toHaveLength(names.length), 60_000);
    expect(prover.facts()).toEqual(["gone"]);
  }, 120_000);

  const status = (code: number, body: object) =>
    JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Failure", code, ...body });
  const faults: Array<[string, Fault]> = [
    ["500", { do: "answer", status: 500, body: status(500, { reason: "InternalError" }) }],
    ["403", { do: "answer", status: 403, body: status(403, { reason: "Forbidden" }) }],
    ["410", { do: "answer", status: 410, body: status(410, { reason: "Expired" }) }],
    ["429 with Retry-After", { do: "answer", status: 429, headers: { "retry-after": "1" }, body: "slow down" }],
    ["a proxy's 404 with text", { do: "answer", status: 404, body: "404 page not found" }],
    ["a 404 Status without details", { do: "answer", status: 404, body: status(404, { reason: "NotFound" }) }],
    [
      "a 404 Status about something else",
      {
        do: "answer",
        status: 404,
        body: status(404, { reason: "NotFound", details: { kind: "nodes", name: "gone" } }),
      },
    ],
    ["garbage", { do: "answer", status: 200, body: "{" }],
    ["another kind", { do: "answer", status: 200, body: JSON.stringify({ kind: "Node", metadata: { name: "gone" } }) }],
    ["a cut connection", { do: "drop" }],
    ["an answer that is cut in the middle", { do: "truncate", bytes: 40, over: "cut" }],
    ["an answer that ends in the middle", { do: "truncate", bytes: 40, over: "end" }],
  ];
  it.each(faults)("takes %s for unknown, and keeps", async (_what, fault) => {
    const prover = await startProver();
    prover.proxy.fault = ({ url }) => (/\/pods\/gone/.test(url) ? fault : undefined);
    prover.ask(["gone"], { containers: ["main"] });
    // It is asked again: so the first answer was none.
    await until(() => expect(prover.requests(/GET .*\/pods\/gone/).length).toBeGreaterThanOrEqual(2));
    expect([...prover.everProved]).toEqual([]);
    prover.proxy.fault = () => undefined;
    await until(() => expect(prover.facts()).toEqual(["gone"]));
  });

  const ownNotFound = status(404, { reason: "NotFound", details: { kind: "pods", name: "web" } });
  it.each<[string, Fault]>([...faults, ["a 404 about itself", { do: "answer", status: 404, body: ownNotFound }]])(
    "takes %s about a living pod for unknown, and keeps what its new ephemeral container left",
    async (_what, fault) => {
      const prover = await startProver();
      await createPod(kube.client, { namespace, name: "web" });
      const reads = () => prover.requests(/GET .*\/pods\/web/).length;
      // The first read sees the pod without the container; those that should prove it missing fail.
      let isFailing = true;
      prover.proxy.fault = ({ url }) => (/\/pods\/web/.test(url) && isFailing && reads() > 1 ? fault : undefined);
      prover.ask(["web"], { containers: ["main", "debug", "removed"] });
      await until(() => expect(reads()).toBeGreaterThanOrEqual(2));
      const path = `/api/v1/namespaces/${namespace}/pods/web/ephemeralcontainers`;
      const body = { spec: { ephemeralContainers: [{ name: "debug", image: "none" }] } };
      const contentType = "application/strategic-merge-patch+json";
      unwrap(await kube.client.request({ method: "PATCH", path, body, contentType }));
      await until(() => expect(reads()).toBeGreaterThanOrEqual(3));
      expect([...prover.everProved]).toEqual([]);
      isFailing = false;
      await until(() => expect(prover.everProved.has("web/removed")).toBe(true));
      expect([...prover.everProved]).toEqual(["web/removed"]);
    },
  );

  it("proves nothing while it is not known what rules the node, and withdraws what was proved for a shorter grace", async () => {
    const prover = await startProver();
    prover.ask(["gone"]);
    await until(() => expect(prover.facts()).toEqual(["gone"]));
    prover.rule(undefined);
    expect(prover.facts()).toEqual([]);
    const reads = prover.requests(/GET .*\/pods\/gone/).length;
    prover.ask(["gone"]);
    prover.rule(3_600_000);
    expect(prover.facts()).toEqual([]);
    prover.skip(3_600_000);
    expect(prover.requests(/GET .*\/pods\/gone/)).toHaveLength(reads);
    prover.ask(["gone"]);
    await until(() => expect(prover.facts()).toEqual(["gone"]));
  });

  it("knows nothing while its watch is lost, and begins the grace anew", async () => {
    const prover = await startProver();
    await createPod(kube.client, { namespace, name: "web" });
    prover.proxy.fault = ({ url }) =>
      /\/api\/v1\/pods\?/.test(url) ? { do: "answer", status: 500, body: "" } : undefined;
    prover.proxy.cut();
    await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/web`);
    await until(() => expect(prover.isSynced()).toBe(false));
    prover.ask(["web"]);
    const lists = prover.requests(/\/api\/v1\/pods\?/).length;
    await until(() => expect(prover.requests(/\/api\/v1\/pods\?/).length).toBeGreaterThan(lists + 1), 30_000);
    expect(prover.facts()).toEqual([]);
    expect(prover.requests(/GET .*\/pods\/web/)).toEqual([]);
    prover.proxy.fault = () => undefined;
    await until(() => expect(prover.facts()).toEqual(["web"]), 30_000);
  });

  it("survives a watch that is closed again and again", async () => {
    const prover = await startProver();
    await createPod(kube.client, { namespace, name: "web" });
    for (let round = 0; round < 3; round += 1) {
      prover.ask(["web"]);
      const watches = prover.requests(/watch=true/).length;
      prover.proxy.cut();
      await until(() => expect(prover.requests(/watch=true/).length).toBeGreaterThan(watches), 30_000);
      expect(prover.everProved.size).toBe(0);
    }
    await prover.askBeyond(["web"]);
    expect(prover.everProved.size).toBe(0);
  });

  it("keeps a pod that was created again before its proof, and one that a StatefulSet replaced under its name", async () => {
    await createPod(kube.client, { namespace, name: "db-0" });
    const prover = await startProver();
    prover.ask(["db-0"]);
    for (let round = 0; round < 3; round += 1) {
      await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/db-0`);
      await createPod(kube.client, { namespace, name: "db-0" });
      await prover.askBeyond(["db-0"]);
    }
    // It comes back between the watch's word and the proof: the proof sees it.
    prover.proxy.fault = ({ url }) => (/\/pods\/db-0/.test(url) ? { do: "delay", delayMs: 300 } : undefined);
    await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/db-0`);
    await until(() => expect(prover.requests(/GET .*\/pods\/db-0/).length).toBeGreaterThan(0));
    await createPod(kube.client, { namespace, name: "db-0" });
    await prover.askBeyond(["db-0"]);
    expect([...prover.everProved]).toEqual([]);
  });

  it("withdraws what it told when the pod is back, the leadership over, or another start of the agent asks", async () => {
    const prover = await startProver();
    prover.ask(["a", "b"]);
    await until(() => expect(prover.facts()).toEqual(["a", "b"]));
    await createPod(kube.client, { namespace, name: "a" });
    await until(() => expect(prover.facts()).toEqual(["b"]));
    prover.depose();
    prover.ask(["b", "c"], { bootId: "another" });
    expect(prover.facts()).toEqual([]);
  });

  it("proves a namespace of a thousand by a list, and holds back what is most of a node until it is proved again", async () => {
    await createPod(kube.client, { namespace, name: "lives" });
    const prover = await startProver();
    const names = Array.from({ length: 1000 }, (_, index) => `gone-${index}`);
    prover.ask([...names.slice(0, 999), "lives"]);
    await until(() => expect(prover.held.get("node")).toBe(999), 20_000);
    expect(prover.facts()).toEqual([]);
    expect(prover.requests(/GET .*\/pods\/gone/)).toEqual([]);
    expect(prover.requests(new RegExp(`GET /api/v1/namespaces/${namespace}/pods\\?`)).length).toBeLessThanOrEqual(3);
    // One of them comes back, as after a restore: it must not be among those that go.
    await createPod(kube.client, { namespace, name: "gone-7" });
    await until(() => expect(prover.held.get("node")).toBe(998));
    expect(prover.facts()).toEqual([]);
    prover.skip(RESYNC_MS);
    prover.ask([...names.slice(0, 999), "lives"]);
    await until(() => expect(prover.facts()).toHaveLength(998), 20_000);
    expect(prover.facts()).not.toContain("gone-7");
    expect(prover.facts()).not.toContain("lives");
  }, 60_000);

  it("takes a list that is cut short for no list", async () => {
    const prover = await startProver();
    const names = Array.from({ length: 30 }, (_, index) => `gone-${index}`);
    await createPod(kube.client, { namespace, name: "a" });
    prover.proxy.fault = ({ url }) =>
      url.startsWith(`/api/v1/namespaces/${namespace}/pods?`)
        ? {
            do: "answer",
            status: url.includes("continue") ? 500 : 200,
            body: JSON.stringify({
              kind: "PartialObjectMetadataList",
              apiVersion: "meta.k8s.io/v1",
              metadata: { resourceVersion: "1", continue: "more" },
              items: [],
            }),
          }
        : undefined;
    prover.ask(names);
    await until(() => expect(prover.requests(/continue=more/).length).toBeGreaterThan(1));
    expect([...prover.everProved]).toEqual([]);
    expect(prover.held.get("node") ?? 0).toBe(0);
  });

  it("is not made for the default's grace period while a new leader cannot list the policies", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    if (node === undefined) throw new Error("no node");
    const rule = { applyPoliciesImmediately: true, checkpointDirectory: release.mounted };
    const globalPolicy = { retainOrphan: false, maxCheckpointsPerContainer: 3 };
    const hasty = join(release.folder, "hasty.yaml");
    writeFileSync(hasty, JSON.stringify(aPolicy({ ...rule, orphanGracePeriod: "1ms", globalPolicy })));
    const time = archiveTime(Date.now() - 3_600_000);
    const orphan = writeArchive(node.directory, { namespace, pod: "never", container: "c", time });
    const first = release.startCoordinator("--default-policy", hasty);
    await release.apply("patient", { ...rule, orphanGracePeriod: "1h", globalPolicy });
    const accepted = () =>
      node.agent
        .log()
        .filter(({ msg }) => msg === "directive accepted")
        .map(({ term }) => term);
    await until(() => expect(accepted()).toContain(1), 60_000);
    await first.kill("SIGTERM");

    const isPolicies = (url: string) => /\/checkpointrestoreoperators\?/.test(url);
    release.proxy.fault = ({ url }) => (isPolicies(url) ? { do: "answer", status: 503, body: "" } : undefined);
    const before = release.proxy.requests.length;
    const since = () => release.proxy.requests.slice(before);
    release.startCoordinator("--default-policy", hasty);
    await until(() => expect(since().filter(isPolicies).length).toBeGreaterThanOrEqual(5), 60_000);
    release.proxy.fault = () => undefined;
    await until(() => expect(accepted()).toContain(2), 60_000);
    // What comes after the directive is acted upon as it says: the orphan stays.
    const files = series(node.directory, 5);
    await until(() => expect(archivesIn(node.directory)).toEqual([orphan, ...files.slice(2)].sort()), 30_000);
    expect(since().filter((request) => /\/pods\/[a-z]/.test(request))).toEqual([]);
  }, 180_000);

  it("goes by the UID where the policy says so: the archives of the StatefulSet's pod before go, and no others", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const [node] = release.nodes;
    if (node === undefined) throw new Error("no node");
    const uidOf = async () => (await createPod(kube.client, { namespace, name: "db-0" })).metadata?.uid as string;
    const archiveOf = (podUID: string | null, minutesAgo: number) => {
      const time = archiveTime(Date.now() - minutesAgo * 60_000);
      return writeArchive(node.directory, { namespace, pod: "db-0", container: "main", time, podUID });
    };
    const before = archiveOf(await uidOf(), 60);
    const untold = archiveOf(null, 50);
    const globalPolicy = { retainOrphan: false };
    const rule = { applyPoliciesImmediately: true, checkpointDirectory: release.mounted, orphanGracePeriod: "1s" };
    release.startCoordinator();
    await release.apply("by-uid", { ...rule, orphanMatch: "UID", globalPolicy });
    await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/db-0`);
    const now = archiveOf(await uidOf(), 40);
    await until(() => expect(archivesIn(node.directory)).toEqual([untold, now].sort()), 60_000);
    // Once it is gone as a whole, its name saves nothing any more.
    await remove(kube.client, `/api/v1/namespaces/${namespace}/pods/db-0`);
    await until(() => expect(archivesIn(node.directory)).toEqual([]), 60_000);
    const deleted = node.agent.log().filter(({ msg }) => msg === "archive deleted");
    expect(deleted.map(({ archive, reason }) => [archive, reason])[0]).toEqual([before, "orphan"]);
  }, 180_000);

  it.each(["cut", "end"] as const)("takes a list that is over in the middle (%s) for no list", async (over) => {
    const prover = await startProver();
    await createPod(kube.client, { namespace, name: "lives" });
    const isList = (url: string) => url.startsWith(`/api/v1/namespaces/${namespace}/pods?`);
    prover.proxy.fault = ({ url }) => (isList(url) ? { do: "truncate", bytes: 100, over } : undefined);
    prover.ask(["lives", ...Array.from({ length: 30 }, (_, index) => `gone-${index}`)]);
    const lists = () => prover.proxy.requests.filter((request) => isList(request.slice(4))).length;
    await until(() => expect(lists()).toBeGreaterThanOrEqual(2));
    expect([...prover.everProved]).toEqual([]);
    expect(prover.held.get("node") ?? 0).toBe(0);
    prover.proxy.fault = () => undefined;
    await until(() => expect(prover.held.get("node")).toBe(30));
  });
});
