import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createKubeClient, type KubeClient, loadKubeAccess } from "@cro/coordinator/kube/client";
import { type Leadership, runElection } from "@cro/coordinator/leader/election";
import { MEMO_ANNOTATION, MEMO_TERM_ANNOTATION, TERM_ANNOTATION } from "@cro/coordinator/leader/lease";
import type { ElectionTiming } from "@cro/coordinator/leader/step";
import { afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { type FaultProxy, startFaultProxy } from "../support/fault-proxy.ts";
import {
  type AnyObject,
  create,
  createNamespace,
  createServiceAccount,
  describeWithKube,
  remove,
  unwrap,
} from "../support/kube.ts";

/** A fifth of the real times, for tests in which a Lease has to run out. */
const QUICK: ElectionTiming = { leaseDurationMs: 3000, renewDeadlineMs: 2000, retryPeriodMs: 400 };

/** A candidate in this process, and everything that happened to it. */
interface Candidate {
  leaderships: Array<Leadership & { startedAtMs: number; endedAtMs?: number; reason?: unknown }>;
  warnings: string[];
  /** The higher terms of its leaderships. */
  terms: number[];
  /** Ends it gracefully. */
  stop(): Promise<void>;
}

const nowMs = () => performance.now();

describeWithKube("an election on a real API server", (kube) => {
  let namespace: string;
  let leasePath: string;
  let token: string;
  let proxy: FaultProxy;
  const clients: KubeClient[] = [];
  const candidates: Candidate[] = [];
  const candidateScript = fileURLToPath(new URL("../support/candidate.ts", import.meta.url));

  beforeAll(async () => {
    proxy = await startFaultProxy(kube);
    // Exactly what the coordinator may do with Leases; above all it may not create one.
    token = await createServiceAccount(kube.client, {
      namespace: "default",
      name: "candidate",
      rules: [
        {
          apiGroups: ["coordination.k8s.io"],
          resources: ["leases"],
          resourceNames: ["leader"],
          verbs: ["get", "patch"],
        },
      ],
    });
    return () => proxy.close();
  });

  beforeEach(async () => {
    namespace = await createNamespace(kube.client, "election");
    leasePath = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`;
    await createLease();
    proxy.fault = () => undefined;
  });

  afterEach(async () => {
    await Promise.all(candidates.splice(0).map((candidate) => candidate.stop()));
    await Promise.all(clients.splice(0).map((client) => client.close()));
  });

  /** As the chart creates it: empty. */
  const createLease = (spec: object = {}) => create(kube.client, leasePath, { metadata: { name: "leader" }, spec });
  const readLease = async () => unwrap(await kube.client.request<AnyObject>({ path: `${leasePath}/leader` }));
  const patchLease = async (body: object) =>
    unwrap(await kube.client.request<AnyObject>({ method: "PATCH", path: `${leasePath}/leader`, body }));

  async function aCandidate({
    identity,
    timing,
    through = kube,
    now = () => new Date(),
  }: {
    identity: string;
    timing?: ElectionTiming;
    through?: { server: string; caPem: string };
    now?: () => Date;
  }): Promise<Candidate> {
    const kubeconfig = await kube.writeKubeconfig({
      credential: { token },
      server: through.server,
      caPem: through.caPem,
    });
    const client = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs }), { userAgent: identity });
    clients.push(client);
    const shutdown = new AbortController();
    const candidate: Candidate = {
      leaderships: [],
      warnings: [],
      terms: [],
      async stop() {
        shutdown.abort();
        await running;
      },
    };
    const running = runElection({
      client,
      lease: { namespace, name: "leader" },
      identity,
      signal: shutdown.signal,
      nowMs,
      now,
      random: Math.random,
      log: { info: () => {}, warn: (_: unknown, message?: string) => candidate.warnings.push(message ?? "") },
      ...(timing === undefined ? {} : { timing }),
      async lead(leadership) {
        const record: Candidate["leaderships"][number] = { ...leadership, startedAtMs: nowMs() };
        candidate.leaderships.push(record);
        leadership.onTermRaised((term) => candidate.terms.push(term));
        await new Promise((resolve) => leadership.signal.addEventListener("abort", resolve));
        Object.assign(record, { endedAtMs: nowMs(), reason: leadership.signal.reason });
      },
    });
    candidates.push(candidate);
    return candidate;
  }

  const isLeading = ({ leaderships }: Candidate) => leaderships.at(-1)?.holds() === true;
  const untilLeading = (candidate: Candidate, timeout = 8000) =>
    vi.waitFor(() => expect(isLeading(candidate)).toBe(true), { timeout, interval: 20 });

  it("is won on an empty Lease at once, with the first term, and the Lease renewed from then on", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate, 1000);
    expect(candidate.leaderships[0]?.term).toBe(1);
    const lease = await readLease();
    expect(lease.metadata.annotations).toEqual({
      [TERM_ANNOTATION]: "1",
      [MEMO_TERM_ANNOTATION]: "1",
      [MEMO_ANNOTATION]: "none",
    });
    expect(lease.spec).toMatchObject({ holderIdentity: "one", leaseDurationSeconds: 3, leaseTransitions: 1 });
    await vi.waitFor(async () => expect((await readLease()).spec.renewTime > lease.spec.renewTime).toBe(true), 2000);
    expect((await readLease()).spec).toMatchObject({
      acquireTime: lease.spec.acquireTime,
      leaseTransitions: 1,
    });
  });

  it("is won by one of two, and handed over in under 3 seconds when that one stops, at the real times", async () => {
    const [one, two] = [await aCandidate({ identity: "one" }), await aCandidate({ identity: "two" })];
    await vi.waitFor(() => expect([one, two].filter(isLeading)).toHaveLength(1), 5000);
    const [leader, other] = isLeading(one) ? [one, two] : [two, one];
    const stoppedAtMs = nowMs();
    await leader.stop();
    expect((await readLease()).spec.holderIdentity).not.toBe(leader === one ? "one" : "two");
    await untilLeading(other);
    expect(other.leaderships[0]?.startedAtMs).toBeLessThan(stoppedAtMs + 3000);
    expect(leader.leaderships).toMatchObject([{ term: 1, reason: "shutdown" }]);
    expect(other.leaderships).toMatchObject([{ term: 2 }]);
  });

  it("has a leader leave a text for the next one, which comes through failures, and the latest of several", async () => {
    const one = await aCandidate({ identity: "one", timing: QUICK, through: proxy });
    await untilLeading(one);
    const [first] = one.leaderships;
    expect(first?.memo).toBeUndefined();
    expect(await first?.leaveMemo("a")).toBe(true);
    expect((await readLease()).metadata.annotations).toEqual({
      [TERM_ANNOTATION]: "1",
      [MEMO_TERM_ANNOTATION]: "1",
      [MEMO_ANNOTATION]: "a",
    });
    // Renewals go on and leave it where it is.
    const { renewTime } = (await readLease()).spec;
    await vi.waitFor(async () => expect((await readLease()).spec.renewTime > renewTime).toBe(true), 5000);
    expect((await readLease()).metadata.annotations[MEMO_ANNOTATION]).toBe("a");

    // Somebody who removes it, or the term that it goes with, does not have it forgotten.
    for (const annotation of [MEMO_ANNOTATION, TERM_ANNOTATION]) {
      await patchLease({ metadata: { annotations: { [annotation]: null } } });
      await vi.waitFor(async () => {
        expect((await readLease()).metadata.annotations).toEqual({
          [TERM_ANNOTATION]: "1",
          [MEMO_TERM_ANNOTATION]: "1",
          [MEMO_ANNOTATION]: "a",
        });
      }, 5000);
    }

    let failures = 0;
    proxy.fault = ({ method }) => {
      if (method !== "PATCH" || failures === 2) return undefined;
      failures += 1;
      return { do: "answer", status: 500, body: "no" };
    };
    const left = [first?.leaveMemo("b"), first?.leaveMemo("c")];
    expect(await Promise.all(left)).toEqual([false, true]);
    expect(failures).toBe(2);
    expect((await readLease()).metadata.annotations[MEMO_ANNOTATION]).toBe("c");

    proxy.fault = ({ method }) => (method === "PATCH" ? { do: "hang" } : undefined);
    const lost = first?.leaveMemo("never");
    const two = await aCandidate({ identity: "two", timing: QUICK });
    await untilLeading(two);
    expect(await lost).toBe(false);
    expect(await first?.leaveMemo("too late")).toBe(false);
    expect(two.leaderships[0]?.memo).toBe("c");
    await two.stop();

    // A leader of an older version raises the term, and leaves the text as it is: what it says may be so no more.
    await patchLease({ metadata: { annotations: { [TERM_ANNOTATION]: "7" } } });
    const three = await aCandidate({ identity: "three", timing: QUICK });
    await untilLeading(three);
    expect(three.leaderships).toMatchObject([{ term: 8, memo: "" }]);
    expect((await readLease()).metadata.annotations[MEMO_ANNOTATION]).toBe("");
  });

  it("comes early for a text that is left, and not in a storm", async () => {
    const candidate = await aCandidate({
      identity: "one",
      timing: { leaseDurationMs: 120_000, renewDeadlineMs: 100_000, retryPeriodMs: 20_000 },
      through: proxy,
    });
    await untilLeading(candidate, 30_000);
    const [leadership] = candidate.leaderships;
    const startMs = nowMs();
    for (const text of ["a", "b", "c"]) expect(await leadership?.leaveMemo(text)).toBe(true);
    // Three pauses of a tenth of the usual one.
    expect(nowMs() - startMs).toBeGreaterThan(4000);
    expect(nowMs() - startMs).toBeLessThan(3 * 0.8 * 20_000);
  }, 60_000);

  it("is lost by a leader that cannot reach the API server, before another can win it", async () => {
    const cutOff = await aCandidate({ identity: "cut-off", timing: QUICK, through: proxy });
    await untilLeading(cutOff);
    const other = await aCandidate({ identity: "other", timing: QUICK });
    proxy.fault = () => ({ do: "hang" });
    await untilLeading(other);
    expect(cutOff.leaderships).toMatchObject([{ reason: "renew_deadline" }]);
    expect(cutOff.leaderships[0]?.endedAtMs).toBeLessThan(other.leaderships[0]?.startedAtMs ?? 0);
    expect(other.leaderships[0]?.term).toBe(2);
    proxy.fault = () => undefined;
    await other.stop();
    await untilLeading(cutOff);
    expect(cutOff.leaderships[1]?.term).toBe(3);
  });

  it("outlives an API server that fails half of the renewals, one way or another", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK, through: proxy });
    await untilLeading(candidate);
    const startMs = nowMs();
    const requests = { GET: 0, PATCH: 0 };
    proxy.fault = ({ method }) => {
      requests[method as keyof typeof requests] += 1;
      if (requests[method as keyof typeof requests] % 2 === 0) return undefined;
      return requests.PATCH % 4 === 1 ? { do: "answer", status: 500, body: "no" } : { do: "drop" };
    };
    await vi.waitFor(() => expect(requests.PATCH).toBeGreaterThan(10), { timeout: 20_000 });
    // And it does not answer failures with a storm.
    expect(nowMs() - startMs).toBeGreaterThan(10 * 0.8 * QUICK.retryPeriodMs);
    expect(candidate.leaderships).toHaveLength(1);
    expect(isLeading(candidate)).toBe(true);
  });

  it("goes on where the answer to a renewal got lost", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK, through: proxy });
    await untilLeading(candidate);
    let lost = 0;
    proxy.fault = ({ method }) => {
      if (method !== "PATCH" || lost === 2) return undefined;
      lost += 1;
      return { do: "rewrite", rewrite: () => undefined };
    };
    await vi.waitFor(() => expect(lost).toBe(2), 5000);
    const { renewTime } = (await readLease()).spec;
    await vi.waitFor(async () => expect((await readLease()).spec.renewTime > renewTime).toBe(true), 2000);
    expect(candidate.leaderships).toHaveLength(1);
  });

  it("is won from a holder that never renews, although the holder's clock says that it just did", async () => {
    await remove(kube.client, `${leasePath}/leader`);
    await createLease({
      holderIdentity: "ghost",
      leaseDurationSeconds: 3,
      renewTime: new Date(Date.now() + 3_600_000).toISOString().replace("Z", "000Z"),
    });
    const startMs = nowMs();
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    const waitedMs = (candidate.leaderships[0]?.startedAtMs ?? 0) - startMs;
    expect(waitedMs).toBeGreaterThanOrEqual(3000);
    expect(waitedMs).toBeLessThan(4500);
    expect((await readLease()).spec.leaseTransitions).toBe(1);
  });

  it("does not care what the clock on the wall says", async () => {
    let offsetMs = 0;
    const one = await aCandidate({ identity: "one", timing: QUICK, now: () => new Date(Date.now() + offsetMs) });
    await untilLeading(one);
    const two = await aCandidate({ identity: "two", timing: QUICK });
    for (const jumpMs of [3_600_000, -3_600_000]) {
      offsetMs = jumpMs;
      const { resourceVersion } = (await readLease()).metadata;
      // Longer than the Lease lasts: eight renewals or more.
      await vi.waitFor(
        async () =>
          expect(Number((await readLease()).metadata.resourceVersion)).toBeGreaterThan(Number(resourceVersion) + 8),
        { timeout: 10_000, interval: 100 },
      );
    }
    expect(one.leaderships).toHaveLength(1);
    expect(isLeading(one)).toBe(true);
    expect(two.leaderships).toEqual([]);
  });

  it("is not disturbed by whoever else writes into the Lease, and leaves that in place", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    const startMs = nowMs();
    let writes = 0;
    while (nowMs() < startMs + 4000) {
      writes += 1;
      await patchLease({ metadata: { labels: { written: `${writes}` } } });
      // About as often as the API server answers a read and a write, so that conflicts abound and do not rule.
      await sleep(25);
    }
    expect(writes).toBeGreaterThan(20);
    expect(candidate.leaderships).toHaveLength(1);
    expect(isLeading(candidate)).toBe(true);
    expect((await readLease()).metadata.labels.written).toBe(`${writes}`);
  });

  it("is lost at once where somebody else is written into the Lease", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    await patchLease({ spec: { holderIdentity: "usurper" } });
    await vi.waitFor(() => expect(candidate.leaderships[0]?.reason).toBe("lease_taken"), 1500);
    expect((await readLease()).spec.holderIdentity).toBe("usurper");
  });

  it("is lost with a Lease that is deleted, said so, and won again with a higher term once it is back", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    await remove(kube.client, `${leasePath}/leader`);
    await vi.waitFor(() => expect(candidate.leaderships[0]?.reason).toBe("lease_gone"), 1500);
    await vi.waitFor(() => expect(candidate.warnings).toEqual([expect.stringContaining("does not exist")]), 1500);
    expect((await kube.client.request({ path: `${leasePath}/leader` })).ok).toBe(false);
    await createLease();
    await untilLeading(candidate, 1500);
    expect(candidate.leaderships[1]?.term).toBe(2);
    expect((await readLease()).metadata.annotations[TERM_ANNOTATION]).toBe("2");
  });

  it("goes on above a term that a node obeys already, and not above one that cannot be", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    const [first] = candidate.leaderships;
    expect(first?.raiseTerm("a", Number.MAX_SAFE_INTEGER)).toBe(false);
    expect(first?.raiseTerm("a", 0)).toBe(false);
    expect(first?.raiseTerm("a", 41)).toBe(true);
    expect(first?.holds()).toBe(true);
    await vi.waitFor(() => expect(candidate.terms).toEqual([42]), 2000);
    expect((await readLease()).metadata.annotations[TERM_ANNOTATION]).toBe("42");
    expect(isLeading(candidate)).toBe(true);
    expect(candidate.leaderships).toHaveLength(1);
    await candidate.stop();
    const next = await aCandidate({ identity: "two", timing: QUICK });
    await untilLeading(next);
    expect(next.leaderships).toMatchObject([{ term: 43 }]);
  });

  it("is deposed by no node that names ever higher terms, and its term is raised once for it", async () => {
    const candidate = await aCandidate({ identity: "one", timing: QUICK });
    await untilLeading(candidate);
    const [first] = candidate.leaderships;
    const believed: boolean[] = [];
    for (let named = 100; named < 400; named += 100) {
      believed.push(first?.raiseTerm("liar", named) ?? false);
      const { resourceVersion } = (await readLease()).metadata;
      // Two renewals.
      await vi.waitFor(
        async () =>
          expect(Number((await readLease()).metadata.resourceVersion)).toBeGreaterThan(Number(resourceVersion) + 1),
        5000,
      );
    }
    expect(believed).toEqual([true, false, false]);
    expect(candidate.terms).toEqual([101]);
    expect(candidate.leaderships).toHaveLength(1);
    expect(isLeading(candidate)).toBe(true);
  });

  it("is over for a leader that was frozen, from the very moment that it wakes up", async () => {
    const kubeconfig = await kube.writeKubeconfig({ credential: { token } });
    const frozen = spawn(process.execPath, [candidateScript, kubeconfig, namespace, "leader", "frozen"], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines: Array<{ atMs: number; event: string; term: number; reason?: string }> = [];
    createInterface({ input: frozen.stdout }).on("line", (line) => lines.push(JSON.parse(line)));
    const ended = new Promise((resolve) => frozen.once("close", resolve));
    try {
      await vi.waitFor(() => expect(lines.filter(({ event }) => event === "acting").length).toBeGreaterThan(2), 10_000);
      const other = await aCandidate({ identity: "other" });
      frozen.kill("SIGSTOP");
      const frozenAtMs = nowMs();
      await untilLeading(other, 20_000);
      expect(nowMs() - frozenAtMs).toBeLessThan(20_000);
      expect(other.leaderships[0]?.term).toBe(2);
      const wokenAtMs = Date.now();
      frozen.kill("SIGCONT");
      await vi.waitFor(() => expect(lines.at(-1)).toMatchObject({ event: "stopped", term: 1 }), 5000);
      expect(lines.filter(({ event, atMs }) => event === "acting" && atMs >= wokenAtMs)).toEqual([]);
      expect(isLeading(other)).toBe(true);
    } finally {
      frozen.kill("SIGCONT");
      frozen.kill("SIGTERM");
      await ended;
    }
  }, 60_000);
});
