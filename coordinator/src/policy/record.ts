import { PolicyDocument } from "@cro/shared/policy/document";
import * as Type from "typebox";
import { Check } from "typebox/value";

/** What is remembered of a node. */
export type NodeMemory =
  /** The default rules it. */
  | { state: "default" }
  /** A resource rules it. `rest` is the JSON of the document that acts while the node rests after that resource. */
  | { state: "ruled"; ruler: string; rest: string | undefined }
  /** What ruled it went away; an unknown ruler is undefined. It has rested for `restedMs` so far. */
  | { state: "resting"; ruler: string | undefined; rest: string | undefined; restedMs: number };

/** The age of a resource of that name, by which it ranks. */
export interface Rank {
  /** creationTimestamp of the first resource of that name, RFC 3339. */
  createdAt: string;
  /** For how long there has been no such resource; undefined while there is one. */
  goneMs: number | undefined;
}

/** What a leader remembers of who rules, and leaves to the next one. */
export interface RulingMemory {
  /**
   * When the times in here were right, by the monotonic clock of this leader; undefined if they are another leader's, or if
   * a watch was lost since.
   */
  atMs: number | undefined;
  nodes: ReadonlyMap<string, NodeMemory>;
  /** Nodes that no longer exist, those that went first at the front. */
  gone: ReadonlyMap<string, NodeMemory>;
  /** Ranks of the resources that rule or ruled these nodes. */
  ranks: ReadonlyMap<string, Rank>;
  /** Whether nodes are missing in here that a resource has ruled. */
  isCut: boolean;
}

/** Nothing is known: what rules a node is what its agent has accepted. */
export const EMPTY_MEMORY: RulingMemory = {
  atMs: undefined,
  nodes: new Map(),
  gone: new Map(),
  ranks: new Map(),
  isCut: false,
};

/** All annotations of an object together may have 256 KiB (k8s.io/apimachinery: TotalAnnotationSizeLimitB). */
const MAX_RECORD_BYTES = 200 * 1024;

const closed = { additionalProperties: false } as const;
const milliseconds = () => Type.Number({ minimum: 0 });

const RulingRecord = Type.Object(
  {
    version: Type.Literal(1),
    ranks: Type.Record(
      Type.String(),
      Type.Object({ createdAt: Type.String(), goneMs: Type.Optional(milliseconds()) }, closed),
    ),
    groups: Type.Array(
      Type.Object(
        {
          state: Type.Enum(["default", "ruled", "resting"]),
          ruler: Type.Optional(Type.String()),
          rest: Type.Optional(PolicyDocument),
          restedMs: Type.Optional(milliseconds()),
          isGone: Type.Optional(Type.Literal(true)),
          nodes: Type.Array(Type.String()),
        },
        closed,
      ),
    ),
    isCut: Type.Boolean(),
  },
  closed,
);
type RulingRecord = Type.Static<typeof RulingRecord>;
type Group = RulingRecord["groups"][number];

/**
 * The text that outlives a leader. If it would be too long, it names no nodes and says so: the next leader then lets
 * every node rest whose agent has not accepted what would rule it.
 */
export function writeRecord(memory: RulingMemory, { maxBytes = MAX_RECORD_BYTES } = {}): string {
  const ranks = Object.fromEntries(
    [...memory.ranks].map(([key, { createdAt, goneMs }]) => [
      key,
      { createdAt, ...(goneMs !== undefined && { goneMs: Math.floor(goneMs) }) },
    ]),
  );
  const groups = [...groupNodes(memory.nodes), ...groupNodes(memory.gone).map((group) => ({ ...group, isGone: true }))];
  const whole = JSON.stringify({ version: 1, ranks, groups, isCut: memory.isCut });
  if (Buffer.byteLength(whole) <= maxBytes) return whole;
  const cut = JSON.stringify({ version: 1, ranks, groups: [], isCut: true });
  if (Buffer.byteLength(cut) <= maxBytes) return cut;
  return JSON.stringify({ version: 1, ranks: {}, groups: [], isCut: true });
}

/** What another leader left. A text that is missing, or that this version cannot read whole, tells nothing. */
export function readRecord(text: string | undefined): RulingMemory {
  const record = parseRecord(text);
  if (record === undefined) return EMPTY_MEMORY;
  const nodes = new Map<string, NodeMemory>();
  const gone = new Map<string, NodeMemory>();
  for (const group of record.groups) {
    const memory = toMemory(group);
    if (memory === undefined) return EMPTY_MEMORY;
    for (const node of group.nodes) (group.isGone ? gone : nodes).set(node, memory);
  }
  const ranks = new Map(
    Object.entries(record.ranks).map(([key, { createdAt, goneMs }]) => [key, { createdAt, goneMs }]),
  );
  return { atMs: undefined, nodes, gone, ranks, isCut: record.isCut };
}

/** Whether two memories of a node differ in nothing but the time that it has rested. */
export function isSameMemory(a: NodeMemory | undefined, b: NodeMemory | undefined): boolean {
  return a === b || (a !== undefined && b !== undefined && factsOf(a) === factsOf(b));
}

/** Whether two memories of the cluster differ in nothing but times. */
export function isSameRecord(a: RulingMemory, b: RulingMemory): boolean {
  const isSameMap = <T>(one: ReadonlyMap<string, T>, other: ReadonlyMap<string, T>, isSame: (a: T, b: T) => boolean) =>
    one.size === other.size &&
    [...one].every(([key, value]) => {
      const twin = other.get(key);
      return twin !== undefined && isSame(value, twin);
    });
  const isSameRank = (one: Rank, other: Rank) =>
    one.createdAt === other.createdAt && (one.goneMs === undefined) === (other.goneMs === undefined);
  return (
    isSameMap(a.nodes, b.nodes, isSameMemory) &&
    isSameMap(a.gone, b.gone, isSameMemory) &&
    isSameMap(a.ranks, b.ranks, isSameRank) &&
    a.isCut === b.isCut
  );
}

function factsOf(memory: NodeMemory): string {
  return memory.state === "default" ? "" : JSON.stringify([memory.state, memory.ruler ?? null, memory.rest ?? null]);
}

/** Nodes of which the same is remembered, together: their policy's document stands there once. */
function groupNodes(nodes: ReadonlyMap<string, NodeMemory>): object[] {
  const groups = new Map<string, { memory: NodeMemory; nodes: string[] }>();
  for (const [node, memory] of nodes) {
    const restedMs = memory.state === "resting" ? Math.floor(memory.restedMs) : 0;
    const key = `${restedMs} ${factsOf(memory)}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, { memory, nodes: [node] });
    else group.nodes.push(node);
  }
  return [...groups.values()].map(({ memory, nodes: names }) => {
    if (memory.state === "default") return { state: memory.state, nodes: names };
    const { state, ruler, rest } = memory;
    return {
      state,
      ...(ruler !== undefined && { ruler }),
      ...(rest !== undefined && { rest: JSON.parse(rest) as PolicyDocument }),
      ...(state === "resting" && { restedMs: Math.floor(memory.restedMs) }),
      nodes: names,
    };
  });
}

function toMemory({ state, ruler, rest: document, restedMs }: Group): NodeMemory | undefined {
  const rest = document === undefined ? undefined : JSON.stringify(document);
  if (state === "default") return { state };
  if (state === "ruled") return ruler === undefined ? undefined : { state, ruler, rest };
  return restedMs === undefined ? undefined : { state, ruler, rest, restedMs };
}

function parseRecord(text: string | undefined): RulingRecord | undefined {
  if (text === undefined) return undefined;
  try {
    const record: unknown = JSON.parse(text);
    return Check(RulingRecord, record) ? record : undefined;
  } catch {
    return undefined;
  }
}
