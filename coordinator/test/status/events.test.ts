import type { Deletion } from "@cro/shared/wire/report";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import type { KubeClient, KubeRequest, KubeResult } from "../../src/kube/client.ts";
import type { PolicyResource } from "../../src/policy/judge.ts";
import { createEventWriter } from "../../src/status/events.ts";
import { aReport } from "../support/agent-peer.ts";

const MINUTE_MS = 60_000;
/** How long deletions are gathered. */
const GATHER_MS = 10_000;
const START = Date.parse("2026-05-01T12:00:00Z");

const resource: PolicyResource = {
  namespace: "p",
  name: "policy",
  uid: "u",
  generation: 1,
  createdAt: "2026-01-01T00:00:00Z",
  spec: {},
};

/** Numbered deletions, of which each took place when the leader began unless told otherwise. */
function deletions(from: number, to: number, changes: Partial<Deletion> = {}): Deletion[] {
  return Array.from({ length: to - from + 1 }, (_, index) => ({
    ...{ number: from + index, time: new Date(START).toISOString(), file: `f${from + index}` },
    ...{ namespace: "n", pod: "p", container: "c", bytes: 1024, reason: "max_checkpoints" as const, ...changes },
  }));
}

interface Event {
  metadata: { name: string; namespace: string };
  involvedObject: { name: string; uid: string };
  reason: string;
  message: string;
  count: number;
}

/** A writer with a clock of its own; what it writes is kept, and answered as told. */
function aWriter() {
  const written: Event[] = [];
  const state = { nowMs: 0, mayAct: true, answer: { ok: true, value: {} } as KubeResult<never> };
  const client: KubeClient = {
    async request<T>({ body }: KubeRequest) {
      written.push(body as Event);
      return state.answer as KubeResult<T>;
    },
    stream: () => Promise.reject(new Error("nothing is watched here")),
    close: async () => {},
  };
  const writer = createEventWriter({
    client,
    nowMs: () => state.nowMs,
    now: () => new Date(START + state.nowMs),
    signal: new AbortController().signal,
    mayAct: () => state.mayAct,
    log: { warn: () => {} },
    identity: "coordinator-7d9_0b0cf0cc-7a3c-4d0e-8f57-0123456789ab",
  });
  /** Lets time pass, and what was sent be answered. */
  const pass = async (byMs: number) => {
    state.nowMs += byMs;
    writer.tick();
    await new Promise(setImmediate);
  };
  return { writer, written, state, pass };
}

describe("Events about deletions", () => {
  it("sum up what was deleted under a resource by reason, some seconds later, and come once a minute", async () => {
    const { writer, written, pass } = aWriter();
    writer.deletions(resource, aReport({ deletions: deletions(1, 2) }));
    await pass(GATHER_MS - 1);
    expect(written).toHaveLength(0);
    await pass(1);
    writer.deletions(resource, aReport({ deletions: deletions(1, 4) }));
    writer.deletions(resource, aReport({ deletions: [...deletions(1, 4), ...deletions(5, 5, { reason: "orphan" })] }));
    await pass(MINUTE_MS - 1);
    expect(written).toHaveLength(1);
    await pass(1);
    await pass(10 * MINUTE_MS);
    expect(written.map(({ message, count }) => [message, count])).toEqual([
      ["node node-a: deleted 2 for max_checkpoints (2KiB): f1, f2", 2],
      ["node node-a: deleted 2 for max_checkpoints (2KiB), 1 for orphan (1KiB): f3, f4, f5", 3],
    ]);
    expect(written[0]).toMatchObject({ involvedObject: { name: "policy", uid: "u" }, metadata: { namespace: "p" } });
    expect(new Set(written.map(({ metadata }) => metadata.name)).size).toBe(2);
  });

  it("come once when a pass is over, and of a pass that does not end after a minute", async () => {
    const { writer, written, pass } = aWriter();
    for (let at = 1; at <= 5; at += 1) {
      writer.deletions(resource, aReport({ deletions: deletions(1, at) }));
      await pass(GATHER_MS - 1);
      expect(written).toHaveLength(0);
    }
    await pass(1);
    expect(written.map(({ count }) => count)).toEqual([5]);
    await pass(MINUTE_MS);
    for (let at = 6; written.length < 2 && at < 30; at += 1) {
      writer.deletions(resource, aReport({ deletions: deletions(1, at) }));
      await pass(GATHER_MS - 1);
    }
    expect(written[1]?.count).toBe(7);
  });

  it("count by the agent's counters what its list no longer holds, and name some that it does", async () => {
    const { writer, written, pass } = aWriter();
    const counted = (archives: number, orphans = 0) => ({
      max_checkpoints: { archives, bytes: archives * 1024 },
      ...(orphans > 0 && { orphan: { archives: orphans, bytes: orphans } }),
    });
    writer.deletions(resource, aReport({ deletions: [], deleted: counted(10) }));
    const last = { deletions: deletions(1801, 2000), deletionsOmitted: 1800 };
    writer.deletions(resource, aReport({ ...last, deleted: counted(1907, 3) }));
    await pass(GATHER_MS);
    expect(written.map(({ message, count }) => [message, count])).toEqual([
      [
        "node node-a: deleted 1897 for max_checkpoints (1.9MiB), 3 for orphan (3B): f1996, f1997, f1998, f1999, f2000 and others",
        1900,
      ],
    ]);
    // The same again is nothing new, and neither is an agent that counts backwards.
    writer.deletions(resource, aReport({ ...last, deleted: counted(1907, 3) }));
    writer.deletions(resource, aReport({ ...last, deleted: counted(5) }));
    await pass(10 * MINUTE_MS);
    expect(written).toHaveLength(1);
    // An agent that starts again counts from nothing.
    writer.deletions(resource, aReport({ bootId: "next", deletions: deletions(1, 1), deleted: counted(1) }));
    await pass(MINUTE_MS);
    expect(written[1]?.message).toBe("node node-a: deleted 1 for max_checkpoints (1KiB): f1");
  });

  it("tell of all nodes at once, by name up to ten of them", async () => {
    const { writer, written, pass } = aWriter();
    for (const node of ["b", "a"])
      writer.deletions(resource, aReport({ node, podUID: node, deletions: deletions(1, 1) }));
    await pass(GATHER_MS);
    for (let n = 0; n < 2000; n++) {
      const node = `n${String(n).padStart(4, "0")}`;
      writer.deletions(resource, aReport({ node, podUID: node, deletions: deletions(1, 3) }));
    }
    await pass(MINUTE_MS);
    const ten = Array.from({ length: 10 }, (_, n) => `n000${n}`).join(", ");
    expect(written.map(({ message }) => message)).toEqual([
      "nodes a, b: deleted 2 for max_checkpoints (2KiB): f1, f1",
      `nodes ${ten} and 1990 more nodes: deleted 6000 for max_checkpoints (5.9MiB): f1, f2, f3, f1, f2 and others`,
    ]);
  });

  it("are counted for each agent of a node by itself, for a node may have two", async () => {
    const { writer, written, pass } = aWriter();
    for (let round = 1; round <= 3; round++) {
      writer.deletions(resource, aReport({ podUID: "old", bootId: "old", deletions: deletions(1, round) }));
      writer.deletions(resource, aReport({ podUID: "new", bootId: "new", deletions: deletions(1, 2 * round) }));
    }
    await pass(GATHER_MS);
    expect(written.map(({ count }) => count)).toEqual([3 + 6]);
  });

  it("are so few in a second that no number of resources becomes a burden, and none is forgotten", async () => {
    const { writer, written, pass } = aWriter();
    for (let n = 0; n < 50; n++) {
      writer.deletions(
        { ...resource, uid: `u${n}`, name: `policy-${n}` },
        aReport({ podUID: `${n}`, deletions: deletions(1, 1) }),
      );
      writer.note({ ...resource, uid: `u${n}` }, { type: "Normal", reason: "RulingChanged", message: "m" });
    }
    await pass(GATHER_MS);
    for (let second = 1; written.length < 100; second++) {
      expect(written.length).toBeLessThanOrEqual(5 * (second + 2));
      expect(second).toBeLessThan(25);
      await pass(500);
      await pass(500);
    }
    await pass(5 * MINUTE_MS);
    expect(written).toHaveLength(100);
  });

  it("say how many fell out of the reports, also of an agent that restarted", async () => {
    const { writer, written, pass } = aWriter();
    writer.deletions(resource, aReport({ deletions: deletions(1, 1) }));
    await pass(GATHER_MS);
    writer.deletions(resource, aReport({ deletions: deletions(11, 12) }));
    writer.deletions(resource, aReport({ bootId: "boot-2", deletions: deletions(4, 4) }));
    await pass(MINUTE_MS);
    expect(written[1]).toMatchObject({
      message:
        "node node-a: deleted 3 for max_checkpoints (3KiB), and 12 more that no report held any longer: f11, f12, f4 and others",
      count: 15,
    });
  });

  it("hold a number that the API server takes, whatever number an agent names", async () => {
    const { writer, written, pass } = aWriter();
    writer.deletions(resource, aReport({ deletions: deletions(1, 1) }));
    writer.deletions(resource, aReport({ deletions: deletions(2 ** 50, 2 ** 50, { bytes: Number.MAX_SAFE_INTEGER }) }));
    await pass(GATHER_MS);
    expect(written.map(({ count }) => count)).toEqual([2 ** 31 - 1]);
  });

  it("tell twenty reasons apart, however many an agent names while Events cannot be written", async () => {
    const { writer, written, state, pass } = aWriter();
    state.answer = { ok: false, reason: "ServiceUnavailable", message: "down", status: 503 };
    for (let round = 0; round < 10; round += 1) {
      for (let number = 1; number <= 50; number += 1) {
        const reason = `word_${round * 50 + number}`;
        writer.deletions(
          resource,
          aReport({ bootId: `${round}`, deletions: deletions(number, number).map((one) => ({ ...one, reason })) }),
        );
      }
      await pass(MINUTE_MS);
    }
    state.answer = { ok: true, value: {} as never };
    await pass(MINUTE_MS);
    const last = written.at(-1);
    expect(last?.message.match(/ for /g)).toHaveLength(21);
    expect(last?.message).toContain("for other reasons");
    expect(last?.count).toBe(500);
  });

  it("leave out what happened before this leader's time, before the resource, or under none", async () => {
    const { writer, written, pass } = aWriter();
    const at = (ms: number) => ({ time: new Date(START + ms).toISOString() });
    const young = { ...resource, createdAt: new Date(START + 10 * MINUTE_MS).toISOString() };
    const longAgo = deletions(11, 13, at(-10 * MINUTE_MS));
    const untimed = deletions(1, 2).map(({ time: _, ...deletion }) => deletion);
    const of = (name: string) => ({ node: name, podUID: name });
    writer.deletions(resource, aReport({ ...of("a"), deletions: [...longAgo, ...deletions(14, 14)] }));
    writer.deletions(young, aReport({ ...of("b"), deletions: deletions(1, 3, at(5 * MINUTE_MS)) }));
    writer.deletions(undefined, aReport({ ...of("c"), deletions: deletions(1, 3) }));
    writer.deletions(resource, aReport({ ...of("c"), deletions: deletions(1, 4) }));
    writer.deletions(resource, aReport({ ...of("d"), deletions: untimed }));
    await pass(GATHER_MS);
    expect(written.map(({ message }) => message)).toEqual([
      "nodes a, c: deleted 2 for max_checkpoints (2KiB): f14, f4",
    ]);
  });

  it("wait for an API server that cannot take them, and not for one that refuses them", async () => {
    const { writer, written, state, pass } = aWriter();
    state.answer = { ok: false, reason: "Timeout", message: "timeout" };
    writer.deletions(resource, aReport({ deletions: deletions(1, 1) }));
    await pass(GATHER_MS);
    writer.deletions(resource, aReport({ deletions: deletions(1, 2) }));
    state.answer = { ok: false, reason: "Forbidden", message: "forbidden", status: 403 };
    await pass(MINUTE_MS);
    await pass(MINUTE_MS);
    expect(written.map(({ count }) => count)).toEqual([1, 2]);
  });

  it("are written by nobody who no longer leads", async () => {
    const { writer, written, state, pass } = aWriter();
    state.mayAct = false;
    writer.deletions(resource, aReport({ deletions: deletions(1, 1) }));
    writer.note(resource, { type: "Normal", reason: "RulingChanged", message: "m" });
    await pass(GATHER_MS);
    expect(written).toEqual([]);
  });

  it("are forgotten with their resource", async () => {
    const { writer, written, pass } = aWriter();
    writer.deletions(resource, aReport({ deletions: deletions(1, 1) }));
    for (let n = 0; n < 7; n++) writer.note(resource, { type: "Normal", reason: "RulingChanged", message: `${n}` });
    expect(written).toHaveLength(5);
    writer.keepOnly({ resources: new Set(), agents: new Set() });
    await pass(GATHER_MS);
    expect(written).toHaveLength(5);
    // Of an agent that is new again, what it did before the leader is none of the leader's.
    writer.deletions(resource, aReport({ deletions: deletions(1, 1, { time: "2026-04-01T00:00:00Z" }) }));
    writer.deletions(resource, aReport({ deletions: deletions(1, 2) }));
    await pass(GATHER_MS);
    expect(written.slice(5).map(({ count }) => count)).toEqual([1]);
  });

  it("account for every deletion of an agent exactly once, whatever its reports hold", async () => {
    const arbSteps = fc.array(
      fc.record({ more: fc.nat(6), held: fc.nat(8), restarts: fc.boolean(), isTick: fc.boolean() }),
      { maxLength: 20 },
    );
    await fc.assert(
      fc.asyncProperty(arbSteps, async (steps) => {
        const { writer, written, pass } = aWriter();
        writer.deletions(resource, aReport({ bootId: "0" }));
        let [boot, done, total, unheard] = [0, 0, 0, 0];
        for (const { more, held, restarts, isTick } of steps) {
          if (restarts) {
            // What a report never had a chance to tell of died with the agent.
            total -= unheard;
            [boot, done, unheard] = [boot + 1, 0, 0];
          }
          done += more;
          total += more;
          // A report without any deletion cannot tell of those that it no longer holds.
          unheard = held === 0 ? unheard + more : 0;
          writer.deletions(
            resource,
            aReport({ bootId: `${boot}`, deletions: held === 0 ? [] : deletions(Math.max(1, done - held + 1), done) }),
          );
          if (isTick) await pass(MINUTE_MS);
        }
        await pass(MINUTE_MS + GATHER_MS);
        expect(written.reduce((sum, { count }) => sum + count, 0)).toBe(total - unheard);
      }),
      { numRuns: soak(100) },
    );
  });
});

describe("a note", () => {
  const refused = { type: "Warning" as const, reason: "PolicyRefused", message: "spec.maxAge: is wrong" };

  it("is written at once, and the same again only of another version", () => {
    const { writer, written } = aWriter();
    for (const generation of [1, 1, 2]) writer.note({ ...resource, generation }, refused);
    writer.note({ ...resource, generation: 2 }, { ...refused, message: "another" });
    expect(written.map(({ message }) => message)).toEqual([refused.message, refused.message, "another"]);
  });

  it("is written again where the API server could not take it, ever more rarely, and five times at most", async () => {
    const { writer, written, state, pass } = aWriter();
    state.answer = { ok: false, reason: "InternalError", message: "500", status: 500 };
    writer.note(resource, refused);
    await pass(0);
    for (const waitMs of [2000, 4000, 8000, 16_000]) {
      const before = written.length;
      await pass(waitMs - 1);
      writer.note(resource, refused);
      expect(written).toHaveLength(before);
      await pass(1);
      expect(written).toHaveLength(before + 1);
    }
    await pass(10 * MINUTE_MS);
    expect(written).toHaveLength(5);
    state.answer = { ok: true, value: {} as never };
    writer.note({ ...resource, generation: 2 }, refused);
    await pass(10 * MINUTE_MS);
    expect(written).toHaveLength(6);
  });

  it("is one of a thousand that wait at most, of which the oldest are let go", async () => {
    const { writer, written, pass } = aWriter();
    for (let n = 0; n < 3000; n++) writer.note(resource, { ...refused, message: `${n}` });
    for (let second = 0; second < 300; second++) await pass(1000);
    expect(written).toHaveLength(1005);
    expect(written.at(-1)?.message).toBe("2999");
    expect(written[5]?.message).toBe("2000");
  });

  it("has a name that the API server takes, however long the resource's is", () => {
    const { writer, written } = aWriter();
    writer.note({ ...resource, name: `${"a".repeat(199)}-${"b".repeat(50)}` }, refused);
    const label = "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
    expect(written[0]?.metadata.name).toMatch(new RegExp(`^${label}(\\.${label})*$`));
    expect(written[0]?.metadata.name.length).toBeLessThanOrEqual(253);
  });

  it("is cut to what an Event may hold", () => {
    const { writer, written } = aWriter();
    writer.note(resource, { ...refused, message: "x".repeat(5000) });
    expect(written[0]?.message).toHaveLength(1024);
  });
});
