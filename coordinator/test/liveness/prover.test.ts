import { setImmediate as nextTurn } from "node:timers/promises";
import type { OrphanFact } from "@cro/shared/wire/directive";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import type { KubeClient, KubeFailure, KubeRequest, KubeResult } from "../../src/kube/client.ts";
import type { HeldProofs } from "../../src/liveness/hold.ts";
import { createOrphanProver } from "../../src/liveness/prover.ts";
import { aReport } from "../support/agent-peer.ts";

const GRACE_MS = 60_000;
const RESYNC_MS = 300_000;
const until = <T>(condition: () => T) => vi.waitFor(condition, { timeout: 30_000, interval: 5 });
const many = (count: number, prefix = "gone") => Array.from({ length: count }, (_, index) => `${prefix}-${index}`);

const notFound = (name: string, kind = "pods"): KubeFailure => ({
  ok: false,
  reason: "NotFound",
  message: "not found",
  status: 404,
  answer: { reason: "NotFound", details: { kind, name } },
});
const aPod = (name: string, spec: unknown, metadata = {}) => ({
  ok: true as const,
  value: {
    kind: "Pod",
    metadata: { namespace: "n", name, uid: `uid of ${name}`, resourceVersion: "1", ...metadata },
    spec,
  },
});

const aNamespace = (name: string, metadata = {}) => ({
  ok: true as const,
  value: { kind: "Namespace", metadata: { name, uid: `uid of ${name}`, resourceVersion: "1", ...metadata } },
});

/** A prover whose API server is a function, and whose clock goes on only when a test says so. */
function aProver(answer: (request: KubeRequest) => Promise<unknown> | unknown, pods: string[] = []) {
  let nowMs = 1_000_000;
  let isLeading = true;
  let graceMs: number | undefined = GRACE_MS;
  let number = 0;
  const ending = new AbortController();
  const requests: string[] = [];
  const emitted: OrphanFact[][] = [];
  const held: Array<HeldProofs & { node: string }> = [];
  const logged: Array<[object, string]> = [];
  const log = (fields: object, message: string) => void logged.push([fields, message]);
  const client: Pick<KubeClient, "request"> = {
    request: async <T>(request: KubeRequest) => {
      requests.push(request.path);
      return (await answer(request)) as KubeResult<T>;
    },
  };
  const prover = createOrphanProver({
    client: client as KubeClient,
    nowMs: () => nowMs,
    wallMs: () => 1_800_000_000_000 + nowMs,
    signal: ending.signal,
    mayAct: () => isLeading,
    resyncMs: RESYNC_MS,
    graceOf: () => graceMs,
    log: { info: log as never, warn: log as never },
    emit: {
      facts: (_podUID, facts) => void emitted.push(facts),
      held: (node, proofs) => void held.push({ node, ...proofs }),
    },
  });
  onTestFinished(async () => {
    ending.abort();
    await prover.stop();
  });
  const items = pods.map((name) => ({ namespace: "n", name, uid: `uid of ${name}` }));
  prover.podsEvent({ type: "synced", items });
  return {
    prover,
    requests,
    emitted,
    held,
    logged,
    told: () =>
      (emitted.at(-1) ?? []).map(({ pod, container }) => (container === undefined ? pod : `${pod}/${container}`)),
    pass: (ms: number) => {
      nowMs += ms;
    },
    depose: () => {
      isLeading = false;
    },
    rule: (next: number | undefined, isTold = true) => {
      graceMs = next;
      if (isTold) prover.ruled();
    },
    ask(names: string[], { containers = [] as string[], namespace = "n", protocol = 2 } = {}) {
      number += 1;
      const orphanScopes = names.map((pod) => ({ namespace, pod, containers }));
      prover.reported({ podUID: "agent", node: "node" }, { ...aReport({ number, orphanScopes }), protocol });
    },
  };
}

/** No pod is there, but their namespace is. */
const nothing = ({ path }: KubeRequest) => {
  const name = path.split("/").at(-1) ?? "";
  return path.includes("/pods/") ? notFound(name) : aNamespace(name);
};

describe("the prover", () => {
  it("tells when a proof was made, and under which grace", async () => {
    const prover = aProver(nothing);
    prover.pass(GRACE_MS);
    prover.ask(["gone"]);
    await until(() => expect(prover.told()).toEqual(["gone"]));
    expect(prover.emitted.at(-1)).toMatchObject([
      { report: 1, graceMs: GRACE_MS, provedAt: new Date(1_800_000_000_000 + 1_000_000 + GRACE_MS).toISOString() },
    ]);
    expect(prover.requests).toEqual(["/api/v1/namespaces/n/pods/gone"]);
  });

  it("begins twenty reads a second, and every one of more living pods is read before anything is said of it", async () => {
    const names = many(30, "lives");
    const prover = aProver(({ path }) => aPod(path.split("/").at(-1) ?? "", { containers: [{ name: "main" }] }), names);
    prover.ask(names, { containers: ["debug"] });
    await until(() => expect(prover.requests).toHaveLength(20));
    prover.pass(999);
    prover.ask(names, { containers: ["debug"] });
    await nextTurn();
    expect(prover.requests).toHaveLength(20);
    prover.pass(1);
    await until(() => expect(prover.requests).toHaveLength(30));
    prover.pass(GRACE_MS);
    prover.ask([...names, ...many(100, "others")], { containers: ["debug"] });
    await until(() => expect(prover.requests.length).toBe(50));
    expect(prover.emitted).toEqual([]);
  });

  it("has twenty reads on their way at most, and a slow one delays no other", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const prover = aProver(
      async (request) => {
        if (/slow/.test(request.path)) await promise;
        return nothing(request);
      },
      many(30, "lives"),
    );
    prover.pass(GRACE_MS);
    prover.ask([...many(19, "slow"), "gone", ...many(30, "lives")]);
    await until(() => expect(prover.told()).toEqual(["gone"]));
    prover.pass(1000);
    prover.ask([...many(19, "slow"), "gone", "next", ...many(30, "lives")]);
    await until(() => expect(prover.requests).toContain("/api/v1/namespaces/n/pods/next"));
    resolve();
  });

  it.each<[string, (prover: ReturnType<typeof aProver>) => void]>([
    ["the leadership ended", (prover) => prover.depose()],
    ["it is no longer known what rules the node, though nobody said so", (prover) => prover.rule(undefined, false)],
    ["a longer grace rules the node, though nobody said so", (prover) => prover.rule(GRACE_MS + 1, false)],
    ["the watch was lost", ({ prover }) => prover.podsEvent({ type: "lost", failure: notFound("") })],
  ])("takes an answer for none if, while it was on its way, %s", async (_what, interrupt) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const prover = aProver(async (request) => {
      await promise;
      return nothing(request);
    });
    prover.pass(GRACE_MS);
    prover.ask(["gone"]);
    await until(() => expect(prover.requests).toHaveLength(1));
    interrupt(prover);
    resolve();
    await prover.prover.stop();
    prover.prover.ruled();
    expect(prover.emitted.flat()).toEqual([]);
  });

  it("reads nothing when it does not lead", async () => {
    const prover = aProver(nothing);
    prover.pass(GRACE_MS);
    prover.depose();
    prover.ask(["gone"]);
    await nextTurn();
    await nextTurn();
    expect(prover.requests).toEqual([]);
  });

  it("gathers facts for a second, for each sending is answered by a report, and withdraws at once", async () => {
    const prover = aProver(nothing);
    prover.pass(GRACE_MS);
    prover.ask(["a"]);
    await until(() => expect(prover.told()).toEqual(["a"]));
    prover.ask(["a", "b", "c"]);
    await until(() => expect(prover.requests).toHaveLength(3));
    await nextTurn();
    expect(prover.emitted).toHaveLength(1);
    prover.pass(1000);
    await until(() => expect(prover.told()).toEqual(["a", "b", "c"]));
    prover.prover.podsEvent({ type: "added", item: { namespace: "n", name: "b", uid: "back" } });
    expect(prover.told()).toEqual(["a", "c"]);
    prover.rule(undefined);
    expect(prover.told()).toEqual([]);
  });

  it.each<[string, unknown, object?]>([
    ["no spec", undefined],
    ["no containers", {}],
    ["init containers that are no list", { containers: [{ name: "main" }], initContainers: {} }],
    ["ephemeral containers that are no list", { containers: [{ name: "main" }], ephemeralContainers: "none" }],
    ["a container without a name", { containers: [{ name: "main" }, {}] }],
    ["a container that is none", { containers: [null] }],
    ["another name", { containers: [{ name: "main" }] }, { name: "other" }],
    ["another namespace", { containers: [{ name: "main" }] }, { namespace: "other" }],
    ["no UID", { containers: [{ name: "main" }] }, { uid: undefined }],
  ])("does not believe a pod with %s to lack a container", async (_what, spec, metadata) => {
    const prover = aProver(() => aPod("lives", spec, metadata), ["lives"]);
    prover.ask(["lives"], { containers: ["debug"] });
    await until(() => expect(prover.requests).toHaveLength(1));
    prover.pass(GRACE_MS);
    prover.ask(["lives"], { containers: ["debug"] });
    await until(() => expect(prover.requests).toHaveLength(2));
    prover.pass(GRACE_MS);
    prover.ask(["lives"], { containers: ["debug"] });
    await until(() => expect(prover.requests).toHaveLength(3));
    expect(prover.emitted).toEqual([]);
  });

  it("counts init and ephemeral containers", async () => {
    const spec = {
      containers: [{ name: "main" }],
      initContainers: [{ name: "setup" }],
      ephemeralContainers: [{ name: "debug" }],
    };
    const prover = aProver(() => aPod("lives", spec), ["lives"]);
    const containers = ["main", "setup", "debug", "removed"];
    prover.ask(["lives"], { containers });
    await until(() => expect(prover.requests).toHaveLength(1));
    await nextTurn();
    prover.pass(GRACE_MS);
    prover.ask(["lives"], { containers });
    await until(() => expect(prover.told()).toEqual(["lives/removed"]));
  });

  it("does not believe a list that is of another namespace", async () => {
    const item = { metadata: { namespace: "other", name: "x", uid: "x", resourceVersion: "1" } };
    const value = { kind: "PartialObjectMetadataList", metadata: { resourceVersion: "1" }, items: [item] };
    const prover = aProver(() => ({ ok: true, value }));
    prover.pass(GRACE_MS);
    prover.ask(many(21));
    await until(() => expect(prover.requests).toEqual(["/api/v1/namespaces/n/pods"]));
    prover.pass(2000);
    prover.ask(many(21));
    await until(() => expect(prover.requests).toHaveLength(2));
    expect([prover.emitted, prover.held]).toEqual([[], []]);
  });

  it("names held pods, and says when they wait and when they are released", async () => {
    const prover = aProver(nothing);
    prover.pass(GRACE_MS);
    prover.ask(many(11));
    await until(() => expect(prover.held.at(-1)?.count).toBe(11));
    expect(prover.held.at(-1)?.node).toBe("node");
    expect(prover.held.at(-1)?.pods).toHaveLength(10);
    expect(prover.held.at(-1)?.pods).toContain("n/gone-1");
    expect(prover.held.at(-1)?.podCount).toBe(11);
    expect(prover.logged.at(-1)?.[0]).toMatchObject({ held: 11, pods: prover.held.at(-1)?.pods });
    expect(prover.logged.every(([, message]) => message.includes("suspiciously"))).toBe(true);
    prover.logged.length = 0;
    prover.pass(RESYNC_MS);
    prover.ask(many(11));
    await until(() => expect(prover.held.at(-1)).toEqual({ node: "node", count: 0, podCount: 0, pods: [] }));
    prover.pass(1000);
    prover.ask(many(11));
    await until(() => expect(prover.told()).toHaveLength(11));
    expect(prover.logged.map(([, message]) => message)).toEqual(
      prover.logged.map(() => "held proofs were proved again and are released"),
    );
    expect(prover.logged.reduce((sum, [fields]) => sum + (fields as { released: number }).released, 0)).toBe(11);
  });

  it.each([
    [0, "is not found", notFound("n", "namespaces")],
    [0, "is being deleted", aNamespace("n", { deletionTimestamp: "2026-11-01T00:00:00Z" })],
    [11, "is there", aNamespace("n")],
    [11, "is another one", aNamespace("other", { deletionTimestamp: "2026-11-01T00:00:00Z" })],
    [11, "has no UID", aNamespace("n", { deletionTimestamp: "2026-11-01T00:00:00Z", uid: undefined })],
    [11, "is not found by who does not say what", notFound("n")],
    [11, "may not be read", { ok: false, reason: "Forbidden", message: "forbidden", status: 403 }],
  ])("holds %d of 11 proofs for most of a node if their namespace %s", async (held, _, answer) => {
    const prover = aProver((request) => (request.path.includes("/pods/") ? nothing(request) : answer));
    prover.pass(GRACE_MS);
    prover.ask(many(11));
    await until(() => expect(prover.requests).toContain("/api/v1/namespaces/n"));
    prover.pass(1000);
    if (held > 0) await until(() => expect(prover.held.at(-1)?.count).toBe(held));
    else {
      await until(() => expect(prover.requests).toHaveLength(23));
      prover.pass(1000);
      prover.prover.ruled();
      await until(() => expect(prover.told()).toHaveLength(11));
      expect(prover.logged).toEqual([]);
    }
  });

  it("is told nothing more by an agent that is gone", async () => {
    const prover = aProver(nothing);
    prover.ask(["gone"]);
    prover.prover.agentGone("agent");
    prover.prover.agentGone("unknown");
    prover.pass(GRACE_MS);
    prover.prover.ruled();
    await nextTurn();
    await nextTurn();
    expect(prover.requests).toEqual([]);
  });
});
