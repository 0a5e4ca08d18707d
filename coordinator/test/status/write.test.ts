import type { PolicyStatus } from "@cro/shared/crd/status";
import { describe, expect, it } from "vitest";
import type { KubeClient, KubeRequest, KubeResult } from "../../src/kube/client.ts";
import type { PolicyResource } from "../../src/policy/judge.ts";
import { createStatusWriter } from "../../src/status/write.ts";

const NOW_MS = Date.parse("2026-05-01T12:00:00Z");

const aResource = (name: string): PolicyResource => ({
  ...{ namespace: "p", name, uid: `uid-${name}`, generation: 1, createdAt: "2026-01-01T00:00:00Z", spec: {} },
});

/** A writer with a clock of its own, whose resources hold `stored` at first; what it asks for is kept by second. */
function aWriter(stored: PolicyStatus = {}) {
  const clock = { nowMs: 0 };
  const requests: Array<{ second: number; path: string; status: PolicyStatus | undefined }> = [];
  const client: KubeClient = {
    async request<T>({ path, body }: KubeRequest) {
      const operations = body as Array<{ path: string; value: PolicyStatus }>;
      const status = operations.find((operation) => operation.path === "/status")?.value;
      requests.push({ second: Math.floor(clock.nowMs / 1000), path, status });
      return { ok: true, value: { status: stored } } as KubeResult<T>;
    },
    stream: () => Promise.reject(new Error("nothing is watched here")),
    close: async () => {},
  };
  const writer = createStatusWriter({
    client,
    path: ({ namespace, name }) => `/${namespace}/${name}`,
    nowMs: () => clock.nowMs,
    wallMs: () => NOW_MS + clock.nowMs,
    signal: new AbortController().signal,
    mayAct: () => true,
    log: { warn: () => {} },
  });
  return { clock, requests, writer };
}

describe("statuses", () => {
  it("of very many policies cost few requests a second, and each has its turn though all change all the time", async () => {
    const { clock, requests, writer } = aWriter();
    const resources = Array.from({ length: 200 }, (_, index) => aResource(`policy-${index}`));
    for (let tick = 0; tick < 120; tick++) {
      clock.nowMs = tick * 500;
      const nodes = { desired: tick, ready: 0, applied: 0, stale: 0, summary: `${tick}` };
      await writer.write(
        resources.map((resource) => ({ resource })),
        () => ({ observedGeneration: 1, nodes }),
      );
    }
    const bySecond = Map.groupBy(requests, ({ second }) => second);
    expect(Math.max(...[...bySecond.values()].map(({ length }) => length))).toBeLessThanOrEqual(20);
    const written = Map.groupBy(
      requests.filter(({ status }) => status !== undefined),
      ({ path }) => path,
    );
    expect(written.size).toBe(200);
    expect(Math.min(...[...written.values()].map(({ length }) => length))).toBeGreaterThanOrEqual(3);
  });

  it("are not made again while nothing has changed, but for the one that has, until the last report is to be told", async () => {
    const { clock, requests, writer } = aWriter();
    const resources = Array.from({ length: 30 }, (_, index) => ({ resource: aResource(`policy-${index}`) }));
    const changed = { name: "policy-7", version: 1 };
    let made: string[] = [];
    const tickUntil = async (endMs: number) => {
      made = [];
      for (; clock.nowMs < endMs; clock.nowMs += 500) {
        await writer.write(
          resources,
          ({ resource: { name } }) => {
            made.push(name);
            const lastReportTime = new Date(NOW_MS + clock.nowMs).toISOString();
            const archives = name === changed.name ? changed.version : 1;
            return { observedGeneration: 1, archives, lastReportTime };
          },
          ({ resource: { name } }) => (name === changed.name ? changed.version : 1),
        );
      }
    };
    await tickUntil(20_000);
    expect(new Set(made).size).toBe(30);
    await tickUntil(60_000);
    expect(made).toEqual([]);
    changed.version = 2;
    await tickUntil(100_000);
    expect(made).toEqual(["policy-7"]);
    expect(requests.at(-1)?.status?.archives).toBe(2);
    await tickUntil(150_000);
    expect(made.toSorted()).toEqual(
      resources
        .map(({ resource }) => resource.name)
        .filter((name) => name !== "policy-7")
        .toSorted(),
    );
    expect(requests.slice(-29).every(({ status }) => status !== undefined)).toBe(true);
  });

  it("are not made while they cannot be written, and only few at a time, in turn, though nothing changes", async () => {
    const { clock, writer } = aWriter({ observedGeneration: 1 });
    const resources = Array.from({ length: 60 }, (_, index) => ({ resource: aResource(`policy-${index}`) }));
    const made = new Map<string, number>();
    const tick = async () => {
      let count = 0;
      await writer.write(resources, ({ resource }) => {
        count += 1;
        clock.nowMs += 3;
        made.set(resource.name, (made.get(resource.name) ?? 0) + 1);
        return { observedGeneration: 1 };
      });
      clock.nowMs += 500;
      return count;
    };
    const first = [];
    while (clock.nowMs < 5000) first.push(await tick());
    // Until then nothing but reading what another leader left.
    expect(first).toEqual(first.map(() => 0));
    const counts = [];
    for (let round = 0; round < 60; round++) counts.push(await tick());
    expect(Math.max(...counts)).toBe(7);
    const times = [...made.values()];
    expect(times.length).toBe(60);
    expect(Math.max(...times) - Math.min(...times)).toBeLessThanOrEqual(2);
  });

  it("tell what changed right after they were written two seconds later, and nothing where nothing changed", async () => {
    const { clock, requests, writer } = aWriter();
    const resource = aResource("policy");
    for (; clock.nowMs < 10_000; clock.nowMs += 500) {
      const archives = clock.nowMs < 3000 ? 1 : 2;
      await writer.write([{ resource }], () => ({ observedGeneration: 1, archives }));
    }
    const written = requests.filter(({ status }) => status !== undefined);
    expect(written.map(({ second, status }) => [second, status?.archives])).toEqual([
      [0, 1],
      [3, 2],
    ]);
    clock.nowMs = 10_000;
    await writer.write([{ resource }], () => ({ observedGeneration: 1, archives: 3 }));
    for (; clock.nowMs < 14_000; clock.nowMs += 500) {
      await writer.write([{ resource }], () => ({ observedGeneration: 1, archives: 4 }));
    }
    expect(requests.slice(-2).map(({ second, status }) => [second, status?.archives])).toEqual([
      [10, 3],
      [12, 4],
    ]);
  });

  it("get rid of a time that is still to come, whoever wrote it", async () => {
    for (const [found, kept] of [
      ["2999-01-01T00:00:00Z", undefined],
      ["2026-05-01T12:05:00.001Z", undefined],
      ["2026-05-01T12:05:00.000Z", "2026-05-01T12:05:00.000Z"],
    ]) {
      const { clock, requests, writer } = aWriter({ observedGeneration: 1, lastEnforcementTime: found as string });
      const resource = aResource("policy");
      await writer.write([{ resource }], () => ({ observedGeneration: 1, archives: 1 }));
      clock.nowMs += 60_000;
      await writer.write([{ resource }], () => ({ observedGeneration: 1, archives: 2 }));
      expect(requests.at(-1)?.status).toEqual({
        observedGeneration: 1,
        archives: 2,
        ...(kept !== undefined && { lastEnforcementTime: kept }),
      });
    }
  });
});
