import { defaultPolicy } from "@cro/shared/policy/compile";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  EMPTY_MEMORY,
  isSameMemory,
  isSameRecord,
  type NodeMemory,
  type RulingMemory,
  readRecord,
  writeRecord,
} from "../../src/policy/record.ts";
import { emptyRestPolicy, restPolicy } from "../../src/policy/rest.ts";

const document = restPolicy(defaultPolicy().document);
const rests = [undefined, JSON.stringify(document), JSON.stringify({ ...document, node: { maxTotalBytes: 7 } })];
const ruled = (ruler: string): NodeMemory => ({ state: "ruled", ruler, rest: rests[1] });

/** Absent where it is 0. */
const arbPriority = { priority: fc.constantFrom(-1, 7) };
const withoutPriority = <K extends string>(...requiredKeys: K[]) => ({ requiredKeys });

const arbNodeMemory: fc.Arbitrary<NodeMemory> = fc.oneof(
  fc.constant<NodeMemory>({ state: "default" }),
  fc.record(
    {
      state: fc.constant("ruled" as const),
      ruler: fc.constantFrom("p/x", "p/y"),
      rest: fc.constantFrom(...rests),
      ...arbPriority,
    },
    withoutPriority("state", "ruler", "rest"),
  ),
  fc.record(
    {
      state: fc.constant("resting" as const),
      ruler: fc.constantFrom(undefined, "p/x", "p/y"),
      rest: fc.constantFrom(...rests),
      restedMs: fc.nat(3).map((steps) => steps * 20_000),
      ...arbPriority,
    },
    withoutPriority("state", "ruler", "rest", "restedMs"),
  ),
);
const arbMemory: fc.Arbitrary<RulingMemory> = fc.record({
  atMs: fc.constant(undefined),
  nodes: fc.dictionary(fc.constantFrom("a", "b", "c", "d"), arbNodeMemory).map((all) => new Map(Object.entries(all))),
  gone: fc.dictionary(fc.constantFrom("e", "f"), arbNodeMemory).map((all) => new Map(Object.entries(all))),
  ranks: fc
    .dictionary(
      fc.constantFrom("p/x", "p/y"),
      fc.record({
        createdAt: fc.constantFrom("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
        goneMs: fc.option(fc.nat(9), { nil: undefined }),
      }),
    )
    .map((all) => new Map(Object.entries(all))),
  isCut: fc.boolean(),
  isGoneCut: fc.boolean(),
});

describe("the record that outlives a leader", () => {
  it("is read back as it was written", () => {
    fc.assert(
      fc.property(arbMemory, (memory) => {
        expect(readRecord(writeRecord(memory))).toEqual(memory);
      }),
    );
  });

  it("is the same as another exactly if it differs in nothing but times", () => {
    const withoutTimes = ({ nodes, gone, ranks, isCut, isGoneCut }: RulingMemory) => {
      const plain = (of: ReadonlyMap<string, NodeMemory>) =>
        [...of].map(([node, memory]) => [node, { ...memory, restedMs: 0 }]).sort();
      const ages = [...ranks].map(([key, { createdAt, goneMs }]) => [key, createdAt, goneMs === undefined]).sort();
      return JSON.stringify([plain(nodes), plain(gone), ages, isCut, isGoneCut]);
    };
    const parts = ["nodes", "gone", "ranks", "isCut", "isGoneCut"] as const;
    fc.assert(
      fc.property(arbMemory, arbMemory, fc.constantFrom(...parts), (a, other, part) => {
        // Most pairs differ in everything. What differs in one part alone shows whether that part is looked at.
        for (const b of [other, { ...a, [part]: other[part] }]) {
          expect(isSameRecord(a, b)).toBe(withoutTimes(a) === withoutTimes(b));
          expect(isSameRecord(b, a)).toBe(isSameRecord(a, b));
        }
        expect(isSameRecord(a, { ...a, nodes: new Map([...a.nodes].reverse()) })).toBe(true);
      }),
    );
  });

  it("is another one if a single fact of a single node is", () => {
    const nodes: NodeMemory[] = [
      { state: "default" },
      ...["p/x", "p/y"].flatMap((ruler) => rests.map((rest): NodeMemory => ({ state: "ruled", ruler, rest }))),
      ...["p/x", "p/y", undefined].flatMap((ruler) =>
        rests.map((rest): NodeMemory => ({ state: "resting", ruler, rest, restedMs: 0 })),
      ),
    ];
    const recordOf = (node: NodeMemory) => ({ ...EMPTY_MEMORY, nodes: new Map([["a", node]]) });
    for (const [at, one] of nodes.entries()) {
      for (const [of, other] of nodes.entries()) {
        expect([at, of, isSameRecord(recordOf(one), recordOf({ ...other }))]).toEqual([at, of, at === of]);
      }
    }
  });

  it("is another one if a priority, a rank or what it lacks is, and the same if only an age is", () => {
    const rank = { createdAt: "2026-01-01T00:00:00Z", goneMs: undefined };
    const withRank = (key: string, changes: { createdAt?: string; goneMs?: number } = {}): RulingMemory => ({
      ...EMPTY_MEMORY,
      ranks: new Map([[key, { ...rank, ...changes }]]),
    });
    const withNode = (priority?: number): RulingMemory => ({
      ...EMPTY_MEMORY,
      nodes: new Map([["a", { ...ruled("p/x"), ...(priority !== undefined && { priority }) }]]),
    });
    const records = [
      EMPTY_MEMORY,
      { ...EMPTY_MEMORY, isCut: true },
      { ...EMPTY_MEMORY, isGoneCut: true },
      withNode(),
      withNode(7),
      withRank("p/x"),
      withRank("p/y"),
      withRank("p/x", { createdAt: "2026-01-02T00:00:00Z" }),
      withRank("p/x", { goneMs: 1 }),
    ];
    for (const [at, one] of records.entries()) {
      for (const [of, other] of records.entries()) {
        expect([at, of, isSameRecord(one, other)]).toEqual([at, of, at === of]);
      }
    }
    expect(isSameRecord(withRank("p/x", { goneMs: 1 }), withRank("p/x", { goneMs: 2 }))).toBe(true);
    expect(isSameRecord(withNode(0), withNode())).toBe(true);
    expect([isSameMemory(ruled("p/x"), undefined), isSameMemory(undefined, ruled("p/x"))]).toEqual([false, false]);
  });

  it("can be read by a leader that knows no priorities, if there are none", () => {
    const nodes = new Map<string, NodeMemory>([["a", { ...ruled("p/x"), priority: 0 } as NodeMemory]]);
    expect(writeRecord({ ...EMPTY_MEMORY, nodes })).not.toContain("priority");
  });

  it("says that nothing ruled only if there is none", () => {
    expect(readRecord(undefined)).toEqual(EMPTY_MEMORY);
  });

  it("says that nodes are missing if it is empty, broken, of another version, or holds what this version does not know", () => {
    const record = JSON.parse(writeRecord({ ...EMPTY_MEMORY, nodes: new Map([["a", ruled("p/x")]]) }));
    const [group] = record.groups;
    const texts = [
      "",
      "{",
      "null",
      JSON.stringify({ ...record, version: 2 }),
      JSON.stringify({ ...record, more: 1 }),
      JSON.stringify({ ...record, groups: [{ ...group, more: 1 }] }),
      JSON.stringify({ ...record, groups: [{ ...group, rest: 1 }] }),
      JSON.stringify({ ...record, groups: [{ ...group, rest: -1 }] }),
      JSON.stringify({ ...record, groups: [{ ...group, ruler: undefined }] }),
      JSON.stringify({ ...record, groups: [{ ...group, state: "resting" }] }),
      JSON.stringify({ ...record, groups: [{ ...group, state: "resting", restedMs: -1 }] }),
    ];
    for (const text of texts) expect(readRecord(text)).toEqual({ ...EMPTY_MEMORY, isCut: true });
    expect(readRecord(JSON.stringify(record)).nodes.size).toBe(1);
  });

  it("has a node delete nothing while it rests by a document that this version does not understand", () => {
    const record = JSON.parse(writeRecord({ ...EMPTY_MEMORY, nodes: new Map([["a", ruled("p/x")]]) }));
    const restOf = (rest: unknown) => {
      const memory = readRecord(JSON.stringify({ ...record, documents: [rest] })).nodes.get("a");
      return memory?.state === "ruled" ? [memory.ruler, memory.rest && JSON.parse(memory.rest)] : undefined;
    };
    const { directory } = document;
    expect(restOf({ ...document, node: { maxTotalBytes: 7, more: 1 } })).toEqual(["p/x", emptyRestPolicy(directory)]);
    for (const broken of [{}, null, 7, { directory: "x" }]) expect(restOf(broken)).toEqual(["p/x", undefined]);
  });

  it("is read as if nodes were missing, whatever text somebody puts in its place", () => {
    fc.assert(
      fc.property(arbMemory, fc.nat(), fc.string({ maxLength: 3 }), (memory, at, text) => {
        const record = writeRecord(memory);
        const place = at % record.length;
        const changed = readRecord(record.slice(0, place) + text);
        expect(changed.isCut).toBe(true);
      }),
    );
  });

  it("is far from its limit while a large cluster's nodes begin to rest one after the other", () => {
    const nodes = new Map(
      Array.from({ length: 2000 }, (_, index): [string, NodeMemory] => [
        `ip-10-0-${index}.compute.internal`,
        { state: "resting", ruler: "p/x", rest: rests[2], restedMs: index * 299 },
      ]),
    );
    const text = writeRecord({ ...EMPTY_MEMORY, nodes });
    expect(Buffer.byteLength(text)).toBeLessThan(100 * 1024);
    for (const [node, memory] of readRecord(text).nodes) {
      const before = nodes.get(node);
      const [told = 0, rested = 0] = [memory, before].map((one) =>
        one?.state === "resting" ? one.restedMs : undefined,
      );
      // What is left out makes a rest longer, and by little.
      expect(told <= rested && told > rested - 20_000).toBe(true);
    }
  });

  it("forgets the nodes that went first if it would be too long, and says so", () => {
    const nodes = new Map([["here", ruled("p/x")]]);
    const names = Array.from({ length: 100 }, (_, index) => `gone-${index}`);
    const memory = { ...EMPTY_MEMORY, nodes, gone: new Map(names.map((name) => [name, ruled("p/x")])) };
    const { gone, ...rest } = readRecord(writeRecord(memory, { maxBytes: 1200 }));
    expect(rest).toEqual({ atMs: undefined, nodes, ranks: new Map(), isCut: false, isGoneCut: true });
    expect(gone.size).toBeGreaterThan(20);
    expect([...gone.keys()]).toEqual(names.slice(-gone.size));
    expect(readRecord(writeRecord(memory)).isGoneCut).toBe(false);
  });

  it("names the nodes of a large cluster, and says so if it cannot", () => {
    const nodes = new Map(
      Array.from({ length: 5000 }, (_, index) => [`ip-10-0-${index}.compute.internal`, ruled(`p/${index % 3}`)]),
    );
    const ranks = new Map([["p/1", { createdAt: "2026-01-01T00:00:00Z", goneMs: undefined }]]);
    const memory = { ...EMPTY_MEMORY, nodes, ranks };
    expect(readRecord(writeRecord(memory))).toEqual(memory);
    const few = writeRecord(memory, { maxBytes: 1000 });
    expect(Buffer.byteLength(few)).toBeLessThanOrEqual(1000);
    expect(readRecord(few)).toEqual({ ...EMPTY_MEMORY, ranks, isCut: true });
    expect(readRecord(writeRecord(memory, { maxBytes: 90 }))).toEqual({ ...EMPTY_MEMORY, isCut: true });
  });

  it("is as long as it may be, and not a byte longer", () => {
    const nodes = new Map([["a", ruled("p/x")]]);
    const ranks = new Map([["p/x", { createdAt: "2026-01-01T00:00:00Z", goneMs: undefined }]]);
    const memory = { ...EMPTY_MEMORY, nodes, ranks };
    const maxBytes = Buffer.byteLength(writeRecord(memory));
    expect(readRecord(writeRecord(memory, { maxBytes }))).toEqual(memory);
    expect(readRecord(writeRecord(memory, { maxBytes: maxBytes - 1 })).nodes.size).toBe(0);
    const ranksAlone = { ...EMPTY_MEMORY, ranks, isCut: true };
    const shortest = Buffer.byteLength(writeRecord(ranksAlone));
    expect(readRecord(writeRecord(memory, { maxBytes: shortest }))).toEqual(ranksAlone);
    expect(readRecord(writeRecord(memory, { maxBytes: shortest - 1 })).ranks.size).toBe(0);
  });

  it("still says that gone nodes are forgotten if it forgets everything else too", () => {
    const gone = new Map([["gone", ruled("p/x")]]);
    const nodes = new Map([["here".repeat(50), ruled("p/x")]]);
    for (const memory of [
      { ...EMPTY_MEMORY, nodes, gone },
      { ...EMPTY_MEMORY, nodes, isGoneCut: true },
    ]) {
      expect(readRecord(writeRecord(memory, { maxBytes: 90 }))).toMatchObject({ isCut: true, isGoneCut: true });
    }
  });

  it("counts bytes and not characters", () => {
    const memory = { ...EMPTY_MEMORY, nodes: new Map([["ä".repeat(100), { state: "default" } as const]]) };
    expect(readRecord(writeRecord(memory, { maxBytes: 200 })).isCut).toBe(true);
  });
});
