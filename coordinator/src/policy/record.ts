import { getOrMake } from "@cro/shared/get-or-make";
import { PolicyDocument } from "@cro/shared/policy/document";
import * as Type from "typebox";
import { Check } from "typebox/value";
import { emptyRestPolicy } from "./rest.ts";

/** What is remembered of a node. */
export type NodeMemory =
  /** The default rules it. */
  | { state: "default"; ruler?: undefined; rest?: undefined }
  /**
   * A resource rules it, by that priority, 0 if it is absent. `rest` is the JSON of the document that acts while the node
   * rests after that resource.
   */
  | { state: "ruled"; ruler: string; priority?: number; rest: string | undefined }
  /** What ruled it went away; an unknown ruler is undefined. It has rested for `restedMs` so far. */
  | {
      state: "resting";
      ruler: string | undefined;
      priority?: number;
      rest: string | undefined;
      restedMs: number;
    };

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
  /**
   * Whether nodes that a resource rules or ruled may be missing in here. It stands until something is known of every node
   * that there is.
   */
  isCut: boolean;
  /** Whether nodes that no longer exist are missing in here. It stands for good: any of them may be made anew. */
  isGoneCut: boolean;
}

/** No coordinator has led yet: what rules a node is what its agent has accepted. */
export const EMPTY_MEMORY: RulingMemory = {
  atMs: undefined,
  nodes: new Map(),
  gone: new Map(),
  ranks: new Map(),
  isCut: false,
  isGoneCut: false,
};

/** All annotations of an object together may have 256 KiB (k8s.io/apimachinery: TotalAnnotationSizeLimitB). */
const MAX_RECORD_BYTES = 200 * 1024;
/** Resting times are recorded in steps of this, in milliseconds: nodes that begin to rest one by one share few groups. */
const REST_STEP_MS = 20_000;

const closed = { additionalProperties: false } as const;
const milliseconds = () => Type.Number({ minimum: 0 });

const RulingRecord = Type.Object(
  {
    version: Type.Literal(1),
    ranks: Type.Record(
      Type.String(),
      Type.Object({ createdAt: Type.String(), goneMs: Type.Optional(milliseconds()) }, closed),
    ),
    /** The documents that nodes rest by. */
    documents: Type.Array(Type.Unknown()),
    groups: Type.Array(
      Type.Object(
        {
          state: Type.Enum(["default", "ruled", "resting"]),
          ruler: Type.Optional(Type.String()),
          /** Of the ruler. Left out where it is 0, so that an older leader can read the record. */
          priority: Type.Optional(Type.Integer()),
          /** Its place in `documents`. */
          rest: Type.Optional(Type.Integer({ minimum: 0 })),
          restedMs: Type.Optional(milliseconds()),
          isGone: Type.Optional(Type.Literal(true)),
          nodes: Type.Array(Type.String()),
        },
        closed,
      ),
    ),
    isCut: Type.Boolean(),
    isGoneCut: Type.Boolean(),
  },
  closed,
);
type RulingRecord = Type.Static<typeof RulingRecord>;
type Group = RulingRecord["groups"][number];

/**
 * The text that outlives a leader. If it would be too long, it forgets nodes that no longer exist, those that went first
 * before the others, then all nodes, and says so: the next leader then lets every node rest that it does not know and
 * whose agent has not accepted what would rule it.
 */
export function writeRecord(memory: RulingMemory, { maxBytes = MAX_RECORD_BYTES } = {}): string {
  for (let kept = memory.gone.size; ; kept = Math.floor(kept / 2)) {
    const gone = new Map([...memory.gone].slice(memory.gone.size - kept));
    const text = formatRecord({ ...memory, gone, isGoneCut: memory.isGoneCut || kept < memory.gone.size });
    if (Buffer.byteLength(text) <= maxBytes) return text;
    if (kept === 0) break;
  }
  const isGoneCut = memory.isGoneCut || memory.gone.size > 0;
  const cut = { ...EMPTY_MEMORY, isCut: true, isGoneCut };
  const text = formatRecord({ ...cut, ranks: memory.ranks });
  return Buffer.byteLength(text) <= maxBytes ? text : formatRecord(cut);
}

/**
 * What another leader left: undefined if there was none. If a text is there that this version cannot read, something
 * ruled, and it is not known what.
 */
export function readRecord(text: string | undefined): RulingMemory {
  if (text === undefined) return EMPTY_MEMORY;
  const unreadable = { ...EMPTY_MEMORY, isCut: true };
  const record = parseRecord(text);
  if (record === undefined) return unreadable;
  const documents = record.documents.map(toRest);
  const nodes = new Map<string, NodeMemory>();
  const gone = new Map<string, NodeMemory>();
  for (const group of record.groups) {
    const memory = toMemory(group, documents);
    if (memory === undefined) return unreadable;
    for (const node of group.nodes) (group.isGone ? gone : nodes).set(node, memory);
  }
  const ranks = new Map(
    Object.entries(record.ranks).map(([key, { createdAt, goneMs }]) => [key, { createdAt, goneMs }]),
  );
  return { atMs: undefined, nodes, gone, ranks, isCut: record.isCut, isGoneCut: record.isGoneCut };
}

/** Whether two memories of a node differ in nothing but the time that it has rested. */
export function isSameMemory(a: NodeMemory | undefined, b: NodeMemory | undefined): boolean {
  if (a === b) return true;
  if (a === undefined || b === undefined || a.state !== b.state) return false;
  return a.ruler === b.ruler && priorityOf(a) === priorityOf(b) && a.rest === b.rest;
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
    a.isCut === b.isCut &&
    a.isGoneCut === b.isGoneCut
  );
}

/** The priority of what rules or ruled a node. */
export function priorityOf(memory: NodeMemory): number {
  return memory.state === "default" ? 0 : (memory.priority ?? 0);
}

function factsOf(memory: NodeMemory): string {
  return JSON.stringify([memory.state, memory.ruler ?? null, priorityOf(memory), memory.rest ?? null]);
}

function formatRecord({ nodes, gone, ranks, isCut, isGoneCut }: RulingMemory): string {
  const documents = new Map<string, number>();
  const groups = [
    ...groupNodes(nodes, documents),
    ...groupNodes(gone, documents).map((group) => ({ ...group, isGone: true })),
  ];
  return JSON.stringify({
    version: 1,
    ranks: Object.fromEntries(
      [...ranks].map(([key, { createdAt, goneMs }]) => [
        key,
        { createdAt, ...(goneMs !== undefined && { goneMs: Math.floor(goneMs) }) },
      ]),
    ),
    documents: [...documents.keys()].map((document) => JSON.parse(document)),
    groups,
    isCut,
    isGoneCut,
  });
}

/** Nodes of which the same is remembered, together; `documents` gets the place of each document that they rest by. */
function groupNodes(nodes: ReadonlyMap<string, NodeMemory>, documents: Map<string, number>): object[] {
  const groups = new Map<string, { memory: NodeMemory; restedMs: number; nodes: string[] }>();
  for (const [node, memory] of nodes) {
    const restedMs = memory.state === "resting" ? Math.floor(memory.restedMs / REST_STEP_MS) * REST_STEP_MS : 0;
    const key = `${restedMs} ${factsOf(memory)}`;
    getOrMake(groups, key, () => ({ memory, restedMs, nodes: [] as string[] })).nodes.push(node);
  }
  return [...groups.values()].map(({ memory, restedMs, nodes: names }) => {
    if (memory.state === "default") return { state: memory.state, nodes: names };
    const { state, ruler, priority = 0, rest } = memory;
    return {
      state,
      ...(ruler !== undefined && { ruler }),
      ...(priority !== 0 && { priority }),
      ...(rest !== undefined && { rest: getOrMake(documents, rest, () => documents.size) }),
      ...(state === "resting" && { restedMs }),
      nodes: names,
    };
  });
}

function toMemory(
  { state, ruler, priority = 0, rest: place, restedMs }: Group,
  documents: ReadonlyArray<string | undefined>,
): NodeMemory | undefined {
  if (place !== undefined && place >= documents.length) return undefined;
  const rest = place === undefined ? undefined : documents[place];
  if (state === "default") return { state };
  const rank = priority === 0 ? {} : { priority };
  if (state === "ruled") return ruler === undefined ? undefined : { state, ruler, ...rank, rest };
  return restedMs === undefined ? undefined : { state, ruler, ...rank, rest, restedMs };
}

/** The JSON of a document; of one that this version does not understand, the document that deletes nothing. */
function toRest(document: unknown): string | undefined {
  if (Check(PolicyDocument, document)) return JSON.stringify(document);
  const { directory } = (document ?? {}) as { directory?: unknown };
  const empty = typeof directory === "string" ? emptyRestPolicy(directory) : undefined;
  return empty && JSON.stringify(empty);
}

function parseRecord(text: string): RulingRecord | undefined {
  try {
    const record: unknown = JSON.parse(text);
    return Check(RulingRecord, record) ? record : undefined;
  } catch {
    return undefined;
  }
}
