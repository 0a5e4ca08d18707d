import { getOrMake } from "@cro/shared/get-or-make";
import type { PolicyDocument } from "@cro/shared/policy/document";
import { type SerializedPolicy, serializePolicy } from "../agents/directive.ts";
import type { JudgedResource, Reach, ReadyPolicy } from "./judge.ts";
import { type NodeMemory, priorityOf, type Rank, type RulingMemory } from "./record.ts";
import { emptyRestPolicy, restPolicy } from "./rest.ts";

/** A node by its name and labels. */
export interface NodeFacts {
  name: string;
  labels: Readonly<Record<string, string>>;
}

/** What rules a node. */
export type NodeRuling =
  | { source: "resource"; resource: string; policy: ReadyPolicy | undefined }
  /** No resource is for it. */
  | { source: "default"; policy: ReadyPolicy }
  /**
   * What ruled it, `after`, went away. Until `untilMs` of the monotonic clock only the node rules of that policy act; then
   * `next` rules, as soon as it has a valid version, or the default. If it is not known what ruled it, `after` is undefined
   * and `policy` has no rule. `policy` is undefined if none can be made; then nothing is pushed.
   */
  | {
      source: "rest";
      policy: SerializedPolicy | undefined;
      after: string | undefined;
      next: string | undefined;
      untilMs: number;
    }
  /** Its agent has yet to tell whether something else ruled it before `next`, or the default. Nothing is pushed. */
  | { source: "unknown"; policy: undefined; next: string | undefined };

/** Why a resource does not rule a node that it matches. */
export interface Conflict {
  /** The resource that ranks higher. */
  ruler: string;
  /**
   * Why that one does: it has the higher priority, it is older, it has the same age and its name comes first, or it is not
   * older itself and has its rank from the first resource of its name.
   */
  why: "priority" | "age" | "name" | "keptRank";
}

/** What became of a resource. */
export interface ResourceRuling extends JudgedResource {
  /** Nodes that it matches. */
  matched: readonly string[];
  /** Those of them for which another resource ranks higher. */
  conflicts: ReadonlyMap<string, Conflict>;
}

/** What an agent has told of the directive that it obeys. */
export interface AcceptedDirective {
  /** Of the policy; null if it has accepted none. */
  digest: string | null;
  /** The directory that it watches. */
  directory: string;
}

export interface RulingInput {
  resources: readonly JudgedResource[];
  nodes: readonly NodeFacts[];
  defaultPolicy: ReadyPolicy;
  /** How long a node rests, in milliseconds. */
  graceMs: number;
  /** Monotonic clock. */
  nowMs: number;
  /** What each node's agent has accepted. A node is absent until its agent has told. */
  accepted: ReadonlyMap<string, AcceptedDirective>;
}

export interface Ruling {
  nodes: Map<string, NodeRuling>;
  resources: ResourceRuling[];
  /** Nodes that are ruled by another resource than before. */
  changes: Array<{ node: string; from: string; to: string }>;
  /** Nodes that begin to rest: what went away, and what comes next. */
  rests: Array<{ node: string; after: string | undefined; next: string | undefined }>;
  /** Nodes whose rest is over because the resource that ruled them came back. */
  returns: Array<{ node: string; resource: string }>;
  memory: RulingMemory;
  /** When a rest ends; undefined if no node rests. */
  nextMs: number | undefined;
}

/** How many nodes are remembered that no longer exist: more than fit into a record. */
const MAX_GONE_NODES = 10_000;

/**
 * Decides what rules each node, from complete lists of resources and nodes. Of the resources that match a node, the one with
 * the highest priority rules it, then the oldest, then the one whose name comes first, valid or not; of one that is not
 * valid the last good version goes on, and if none was ever seen, nothing is pushed.
 *
 * If the resource that ruled a node no longer matches it, for whatever reason, the node rests for the grace period,
 * whatever matches it next, unless that has a higher priority: then it is surely meant, and rules at once. If a resource of the same name matches it again during that time, and ranks first, it rules at
 * once; it ranks by the age of the first of its name. What ruled a node is what was remembered; if nothing was, it is
 * what the agent has accepted.
 */
export function ruleNodes(input: RulingInput, memory: RulingMemory): Ruling {
  const elapsedMs = memory.atMs === undefined ? 0 : Math.max(0, input.nowMs - memory.atMs);
  const known = ageRanks(memory.ranks, { input, elapsedMs });
  const rankOf = (resource: JudgedResource) => earlier(known.get(resource.key)?.createdAt, resource.resource.createdAt);
  const resources = input.resources
    .map((resource) => ({ rankMs: Date.parse(rankOf(resource)), resource }))
    .sort(
      (a, b) =>
        b.resource.reach.priority - a.resource.reach.priority ||
        a.rankMs - b.rankMs ||
        (a.resource.key < b.resource.key ? -1 : 1),
    )
    .map(({ resource }): ResourceRuling => ({ ...resource, matched: [], conflicts: new Map() }));
  const candidates = resources.filter(({ isNamespaceAllowed }) => isNamespaceAllowed);
  const ruling: Ruling = {
    nodes: new Map(),
    resources,
    changes: [],
    rests: [],
    returns: [],
    memory,
    nextMs: undefined,
  };
  const nodes = new Map<string, NodeMemory>();
  const rests = new Map<string, SerializedPolicy>();
  const serializeRest = (rest: string) =>
    getOrMake(rests, rest, () => serializePolicy(JSON.parse(rest) as PolicyDocument));
  const restsAfter = new Map<ReadyPolicy, string>();
  const restAfter = (policy: ReadyPolicy) =>
    getOrMake(restsAfter, policy, () => JSON.stringify(restPolicy(policy.compiled.document)));
  const matchingOf = matchNodes(input.nodes, { candidates, rankOf });
  const isCut = memory.isCut || memory.isGoneCut;
  const hasSomeGone = [...known].some(
    ([key, { goneMs }]) => goneMs !== undefined && memory.ranks.get(key)?.goneMs === undefined,
  );
  let isAllKnown = true;

  for (const { name } of input.nodes) {
    const matching = matchingOf.get(name) ?? [];
    const present = memory.nodes.get(name);
    const before = present ?? memory.gone.get(name);
    const { rules, now } = ruleNode(name, {
      ...{ input, serializeRest, restAfter, isCut, matching, before },
      // Of what went while a node was away nothing is known.
      hasSomeGone: hasSomeGone || present === undefined,
      // What is known of a node that was away for a while does not age during that time.
      elapsedMs: present === undefined ? 0 : elapsedMs,
    });
    ruling.nodes.set(name, rules);
    if (now === undefined) isAllKnown = false;
    else nodes.set(name, now);
    noteChange(ruling, name, { rules, before, nowMs: input.nowMs });
  }

  const allGone = [...memory.gone, ...memory.nodes].filter(
    ([name, { state }]) => !ruling.nodes.has(name) && state !== "default",
  );
  const gone = new Map(allGone.slice(-MAX_GONE_NODES));
  ruling.memory = {
    ...{ atMs: input.nowMs, nodes, gone },
    ranks: keepRanks({ nodes, gone }, { known, candidates, rankOf }),
    isCut: memory.isCut && !isAllKnown,
    isGoneCut: memory.isGoneCut || allGone.length > MAX_GONE_NODES,
  };
  return ruling;
}

interface NodeContext {
  input: RulingInput;
  /** The policy of a rest document, from its JSON; the same for all nodes that rest by it. */
  serializeRest: (rest: string) => SerializedPolicy;
  /** The JSON of the rest document of a policy. */
  restAfter: (policy: ReadyPolicy) => string;
  /** The resources that match it, the one that ranks first at the front. */
  matching: readonly ResourceRuling[];
  before: NodeMemory | undefined;
  /** Whether it may have been ruled although nothing is remembered of it. */
  isCut: boolean;
  /** Whether a resource may have gone away since the node was last seen. */
  hasSomeGone: boolean;
  elapsedMs: number;
}

/** What rules a node, and what is to be remembered of it; nothing if that is not known yet. */
function ruleNode(node: string, context: NodeContext): { rules: NodeRuling; now: NodeMemory | undefined } {
  const { input, matching, before, isCut, hasSomeGone, elapsedMs } = context;
  const [first] = matching;
  if (before === undefined) {
    const told = input.accepted.get(node);
    const isFirst = told?.digest === null && !isCut;
    const expected = first === undefined ? input.defaultPolicy : first.policy;
    if (told === undefined || (!isFirst && expected === undefined)) {
      return { rules: { source: "unknown", policy: undefined, next: first?.key }, now: undefined };
    }
    if (isFirst || told.digest === expected?.digest || (told.digest === input.defaultPolicy.digest && !isCut)) {
      return rule(context);
    }
    const empty = emptyRestPolicy(told.directory);
    const rest = empty && JSON.stringify(empty);
    return restOrRule({ state: "resting", ruler: undefined, rest, restedMs: 0 }, context);
  }
  if (before.state === "default" || (before.ruler !== undefined && before.ruler === first?.key)) return rule(context);
  if (before.state === "resting") {
    // Whatever goes away may be what ruled a node of which that is not known.
    const mayBeGone = before.ruler === undefined && hasSomeGone;
    return restOrRule({ ...before, restedMs: mayBeGone ? 0 : before.restedMs + elapsedMs }, context);
  }
  // Another resource ranks higher now, but nothing went away.
  if (matching.some(({ key }) => key === before.ruler)) return rule(context);
  return restOrRule({ ...before, state: "resting", restedMs: 0 }, context);
}

function restOrRule(
  now: NodeMemory & { state: "resting" },
  context: NodeContext,
): { rules: NodeRuling; now: NodeMemory } {
  const { graceMs, nowMs } = context.input;
  const [first] = context.matching;
  // A resource that was never valid has nothing to put in the place of what went away.
  const hasNext = first === undefined || first.policy !== undefined;
  // Over what is not known nothing is surely meant to rule.
  const isMeant = first !== undefined && now.ruler !== undefined && first.reach.priority > priorityOf(now);
  if (hasNext && (isMeant || now.restedMs >= graceMs)) return rule(context);
  const policy = now.rest === undefined ? undefined : context.serializeRest(now.rest);
  const untilMs = nowMs + Math.max(0, graceMs - now.restedMs);
  return { rules: { source: "rest", policy, after: now.ruler, next: first?.key, untilMs }, now };
}

/** The resource that ranks first rules, or the default. */
function rule({ input, matching: [first], before, restAfter }: NodeContext): { rules: NodeRuling; now: NodeMemory } {
  if (first === undefined) {
    return { rules: { source: "default", policy: input.defaultPolicy }, now: { state: "default" } };
  }
  // A resource that was never valid leaves in force what was, so its node would rest by that.
  const rest = first.policy === undefined ? before?.rest : restAfter(first.policy);
  const { priority } = first.reach;
  return {
    rules: { source: "resource", resource: first.key, policy: first.policy },
    now: { state: "ruled", ruler: first.key, ...(priority !== 0 && { priority }), rest },
  };
}

function noteChange(
  ruling: Ruling,
  node: string,
  { rules, before, nowMs }: { rules: NodeRuling; before: NodeMemory | undefined; nowMs: number },
): void {
  const from = before?.ruler;
  if (rules.source === "rest") {
    // A rest that is over lasts until the next resource is valid, and no time ends it.
    if (rules.untilMs > nowMs) ruling.nextMs = Math.min(ruling.nextMs ?? Number.POSITIVE_INFINITY, rules.untilMs);
    if (before?.state !== "resting") ruling.rests.push({ node, after: rules.after, next: rules.next });
  } else if (rules.source === "resource" && from !== undefined) {
    if (from !== rules.resource) ruling.changes.push({ node, from, to: rules.resource });
    else if (before?.state === "resting") ruling.returns.push({ node, resource: from });
  }
}

/** The ranks that still count: a resource that was away for the grace period has lost its rank. */
function ageRanks(
  ranks: RulingMemory["ranks"],
  { input, elapsedMs }: { input: RulingInput; elapsedMs: number },
): Map<string, Rank> {
  const present = new Set(input.resources.filter((one) => one.isNamespaceAllowed).map(({ key }) => key));
  const known = new Map<string, Rank>();
  for (const [key, { createdAt, goneMs }] of ranks) {
    const awayMs = goneMs === undefined ? 0 : goneMs + elapsedMs;
    if (goneMs !== undefined && awayMs >= input.graceMs) continue;
    known.set(key, { createdAt, goneMs: present.has(key) ? undefined : awayMs });
  }
  return known;
}

/**
 * The ranks of all that rules or ruled a node, and of what has its rank from another resource; of all while a node rests of
 * which it is not known what ruled it.
 */
function keepRanks(
  { nodes, gone }: Pick<RulingMemory, "nodes" | "gone">,
  context: {
    known: ReadonlyMap<string, Rank>;
    candidates: readonly ResourceRuling[];
    rankOf: (resource: JudgedResource) => string;
  },
): Map<string, Rank> {
  const { known, candidates, rankOf } = context;
  const rulers = new Set([...nodes.values(), ...gone.values()].map(({ ruler }) => ruler));
  const mayAllRule = [...nodes.values()].some((memory) => memory.state === "resting" && memory.ruler === undefined);
  const ranks = new Map<string, Rank>();
  for (const candidate of candidates) {
    const createdAt = rankOf(candidate);
    if (mayAllRule || rulers.has(candidate.key) || createdAt !== candidate.resource.createdAt) {
      ranks.set(candidate.key, { createdAt, goneMs: undefined });
    }
  }
  for (const [key, rank] of known) if (rank.goneMs !== undefined) ranks.set(key, rank);
  return ranks;
}

/**
 * Finds which candidates match each node, and notes at each of them its nodes and conflicts. Nodes that no selector tells
 * apart are matched once, and candidates with the same nodes and conflicts share them: there may be thousands of both.
 *
 * @param candidates in the order of their ranks
 * @param rankOf from which time a candidate ranks, RFC 3339
 */
function matchNodes(
  nodes: readonly NodeFacts[],
  { candidates, rankOf }: { candidates: readonly ResourceRuling[]; rankOf: (resource: JudgedResource) => string },
): Map<string, readonly ResourceRuling[]> {
  const standings = new Map(
    candidates.map((candidate): [ResourceRuling, Standing] => [
      candidate,
      {
        priority: candidate.reach.priority,
        rankMs: Date.parse(rankOf(candidate)),
        createdMs: Date.parse(candidate.resource.createdAt),
      },
    ]),
  );
  const standingOf = (candidate: ResourceRuling) => standings.get(candidate) as Standing;
  const labels = [...new Set(candidates.flatMap(({ reach }) => labelsOf(reach)))];
  const groups = Map.groupBy(nodes, (node) => JSON.stringify(labels.map((label) => node.labels[label])));
  const matchingOf = new Map<string, readonly ResourceRuling[]>();
  const parts = new Map<ResourceRuling, Array<{ names: readonly string[]; conflict: Conflict | undefined }>>();
  for (const same of groups.values()) {
    const names = same.map(({ name }) => name);
    const matching = candidates.filter(({ reach }) => selects(reach, same[0]?.labels ?? {}));
    for (const name of names) matchingOf.set(name, matching);
    const [first] = matching;
    if (first === undefined) continue;
    const conflicts = new Map<Conflict["why"], Conflict>();
    for (const candidate of matching) {
      const why = whyBefore(standingOf(first), standingOf(candidate));
      const conflict = candidate === first ? undefined : getOrMake(conflicts, why, () => ({ ruler: first.key, why }));
      getOrMake(parts, candidate, () => []).push({ names, conflict });
    }
  }
  const ids = new Map<unknown, number>();
  const idOf = (value: unknown) => getOrMake(ids, value, () => ids.size);
  const shared = new Map<string, Pick<ResourceRuling, "matched" | "conflicts">>();
  for (const [candidate, of] of parts) {
    const key = of.map(({ names, conflict }) => `${idOf(names)} ${idOf(conflict)}`).join();
    const told = getOrMake(shared, key, () => ({
      matched: of.flatMap(({ names }) => names),
      conflicts: new Map(
        of.flatMap(({ names, conflict }) => (conflict === undefined ? [] : names.map((name) => [name, conflict]))),
      ),
    }));
    Object.assign(candidate, told);
  }
  return matchingOf;
}

function earlier(a: string | undefined, b: string): string {
  return a !== undefined && Date.parse(a) < Date.parse(b) ? a : b;
}

/** What a candidate ranks by. */
interface Standing {
  priority: number;
  /** The age that it ranks by: its own, or that of the first resource of its name. */
  rankMs: number;
  createdMs: number;
}

/** Why the first of two ranks before the other. */
function whyBefore(first: Standing, other: Standing): Conflict["why"] {
  if (first.priority !== other.priority) return "priority";
  if (first.rankMs === other.rankMs) return "name";
  return first.createdMs < other.createdMs ? "age" : "keptRank";
}

/** The labels that decide which nodes a resource is for. */
function labelsOf({ nodeSelector = {}, nodeMatchExpressions = [] }: Reach): string[] {
  return [...Object.keys(nodeSelector), ...nodeMatchExpressions.map(({ key }) => key)];
}

/** Whether a resource is for a node: as of a NodeSelectorTerm, NotIn and DoesNotExist hold where the label is absent. */
export function selects(
  { nodeSelector = {}, nodeMatchExpressions = [] }: Omit<Reach, "priority">,
  labels: NodeFacts["labels"],
): boolean {
  return (
    Object.entries(nodeSelector).every(([key, value]) => labels[key] === value) &&
    nodeMatchExpressions.every(({ key, operator, values = [] }) => {
      const value = Object.hasOwn(labels, key) ? labels[key] : undefined;
      const isListed = value !== undefined && values.includes(value);
      if (operator === "In") return isListed;
      if (operator === "NotIn") return !isListed;
      return (value !== undefined) === (operator === "Exists");
    })
  );
}
