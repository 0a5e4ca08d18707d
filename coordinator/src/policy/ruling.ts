import { type CompiledPolicy, compilePolicy, type FieldProblem } from "@cro/shared/policy/compile";
import { type SerializedPolicy, serializePolicy } from "../agents/directive.ts";

/** A policy resource as the API server has it. */
export interface PolicyResource {
  namespace: string;
  name: string;
  uid: string;
  generation: number;
  /** creationTimestamp, RFC 3339. */
  createdAt: string;
  spec: unknown;
}

/** A node by its name and labels. */
export interface NodeFacts {
  name: string;
  labels: Readonly<Record<string, string>>;
}

/** A policy ready to be pushed, and what only the coordinator needs of it. */
export interface ReadyPolicy extends SerializedPolicy {
  compiled: CompiledPolicy;
}

/**
 * What rules a node: a resource; the default, where there is none; the policy of one that went away, during its grace;
 * or nothing that is known well enough to be pushed.
 */
export type NodeRuling =
  | { source: "resource"; resource: string; policy: ReadyPolicy | undefined }
  | { source: "default"; policy: ReadyPolicy }
  | { source: "grace"; policy: ReadyPolicy }
  | { source: "none"; policy: undefined };

/** What became of a resource. */
export interface ResourceRuling {
  key: string;
  resource: PolicyResource;
  /** Why its present version does not act; none where it does. */
  problems: FieldProblem[];
  isNamespaceAllowed: boolean;
  /** What is in force of it: its present version, or else the last good one. */
  policy: ReadyPolicy | undefined;
  /** Nodes that it matches, and those of them that an older resource rules, with that resource's key. */
  matched: string[];
  conflicts: Map<string, string>;
}

/** What a leader remembers of a node. */
export interface NodeMemory {
  /** What a resource last put in force, and its key; undefined where this leader has seen none rule. */
  policy: ReadyPolicy | undefined;
  resource: string | undefined;
  /** When it was first seen that no resource rules, though one did; undefined while one does. */
  orphanedAtMs: number | undefined;
  /** Whether the default has been put in force. It then stays so until a resource rules. */
  isDefault: boolean;
}

/** What a leader remembers between two looks. */
export interface RulingMemory {
  /** The last version of each resource that compiled, by UID. */
  good: ReadonlyMap<string, { generation: number; policy: ReadyPolicy }>;
  nodes: ReadonlyMap<string, NodeMemory>;
}

export const EMPTY_MEMORY: RulingMemory = { good: new Map(), nodes: new Map() };

export interface RulingInput {
  resources: readonly PolicyResource[];
  nodes: readonly NodeFacts[];
  /** Namespaces whose resources count; undefined is all. */
  policyNamespaces: readonly string[] | undefined;
  defaultPolicy: ReadyPolicy;
  /** How long a node keeps the policy of a resource that went away, in milliseconds. */
  graceMs: number;
  /** Monotonic clock. */
  nowMs: number;
  /** The policy that each node's agent has accepted, by digest; null for none. Absent while no agent has told. */
  accepted: ReadonlyMap<string, string | null>;
}

export interface Ruling {
  nodes: Map<string, NodeRuling>;
  resources: ResourceRuling[];
  /** Nodes that are ruled by another resource than before. */
  changes: Array<{ node: string; from: string; to: string }>;
  memory: RulingMemory;
  /** When a grace period ends, and the next look is due; undefined where none runs. */
  nextMs: number | undefined;
}

export function readyPolicy(compiled: CompiledPolicy): ReadyPolicy {
  return { ...serializePolicy(compiled.document), compiled };
}

/**
 * Decides what rules each node, from complete lists of resources and nodes. The oldest resource that matches a node rules
 * it, valid or not; of one that is not valid the last good version goes on, and where none was ever seen, nothing is
 * pushed. A node whose policy went away keeps it for the grace period before the default acts; a leader that has no
 * memory of it sees from what the agent has accepted that there was one.
 */
export function ruleNodes(input: RulingInput, memory: RulingMemory): Ruling {
  const good = new Map<string, { generation: number; policy: ReadyPolicy }>();
  const resources = [...input.resources].sort(compareAge).map((resource) => judge(resource, input, { memory, good }));
  const candidates = resources
    .filter(({ isNamespaceAllowed }) => isNamespaceAllowed)
    .map((resource) => ({ resource, selector: selectorOf(resource) }));
  const ruling: Ruling = { nodes: new Map(), resources, changes: [], memory: EMPTY_MEMORY, nextMs: undefined };
  const remembered = new Map<string, NodeMemory>();

  for (const { name, labels } of input.nodes) {
    const matching = candidates.filter(({ selector }) => selects(selector, labels)).map(({ resource }) => resource);
    const [ruler, ...others] = matching;
    for (const candidate of matching) candidate.matched.push(name);
    for (const other of others) if (ruler !== undefined) other.conflicts.set(name, ruler.key);
    const before = memory.nodes.get(name);
    if (ruler === undefined) {
      const { rules, memory: now, nextMs } = ruleWithoutResource(name, input, before);
      ruling.nodes.set(name, rules);
      remembered.set(name, now);
      if (nextMs !== undefined) ruling.nextMs = Math.min(ruling.nextMs ?? Number.POSITIVE_INFINITY, nextMs);
      continue;
    }
    ruling.nodes.set(name, { source: "resource", resource: ruler.key, policy: ruler.policy });
    // A resource that says nothing yet leaves in force what was, so that is what a grace period would keep.
    const policy = ruler.policy ?? before?.policy;
    remembered.set(name, { policy, resource: ruler.key, orphanedAtMs: undefined, isDefault: false });
    if (before?.resource !== undefined && before.resource !== ruler.key) {
      ruling.changes.push({ node: name, from: before.resource, to: ruler.key });
    }
  }
  ruling.memory = { good, nodes: remembered };
  return ruling;
}

/** What is in force on a node that no resource rules, and when that may change by itself. */
function ruleWithoutResource(
  node: string,
  { defaultPolicy, graceMs, nowMs, accepted }: RulingInput,
  before: NodeMemory | undefined,
): { rules: NodeRuling; memory: NodeMemory; nextMs?: number } {
  const nothing: NodeMemory = { policy: undefined, resource: undefined, orphanedAtMs: undefined, isDefault: false };
  const rules: NodeRuling = { source: "none", policy: undefined };
  const byDefault = {
    rules: { source: "default" as const, policy: defaultPolicy },
    memory: { ...nothing, isDefault: true },
  };
  if (before?.isDefault) return byDefault;
  if (before?.resource === undefined) {
    // Without memory only the agent can tell whether a policy went away; until it has, nothing is pushed.
    const digest = accepted.get(node);
    if (digest === undefined) return { rules, memory: before ?? nothing };
    if (digest === null || digest === defaultPolicy.digest) return byDefault;
  }
  const { policy, resource, orphanedAtMs = nowMs } = before ?? nothing;
  const nextMs = orphanedAtMs + graceMs;
  if (nowMs >= nextMs) return byDefault;
  const memory = { policy, resource, orphanedAtMs, isDefault: false };
  return { rules: policy === undefined ? rules : { source: "grace", policy }, memory, nextMs };
}

/** `namespace/name`, as kubectl writes it. */
export function resourceKey({ namespace, name }: Pick<PolicyResource, "namespace" | "name">): string {
  return `${namespace}/${name}`;
}

function compareAge(a: PolicyResource, b: PolicyResource): number {
  const ages = Date.parse(a.createdAt) - Date.parse(b.createdAt);
  if (ages !== 0) return ages;
  return resourceKey(a) < resourceKey(b) ? -1 : 1;
}

function judge(
  resource: PolicyResource,
  { policyNamespaces }: RulingInput,
  { memory, good }: { memory: RulingMemory; good: Map<string, { generation: number; policy: ReadyPolicy }> },
): ResourceRuling {
  const known = memory.good.get(resource.uid);
  const isKnown = known?.generation === resource.generation;
  const compiled = isKnown ? undefined : compilePolicy(resource.spec ?? {});
  const policy = compiled?.ok ? readyPolicy(compiled.policy) : known?.policy;
  const isGood = isKnown || compiled?.ok === true;
  if (policy !== undefined) {
    good.set(resource.uid, { generation: isGood ? resource.generation : (known?.generation ?? -1), policy });
  }
  return {
    key: resourceKey(resource),
    resource,
    problems: compiled !== undefined && !compiled.ok ? compiled.problems : [],
    isNamespaceAllowed: policyNamespaces === undefined || policyNamespaces.includes(resource.namespace),
    policy,
    matched: [],
    conflicts: new Map(),
  };
}

/** The labels of the nodes that a resource is for; undefined is every node. */
function selectorOf({ policy, resource }: ResourceRuling): Readonly<Record<string, string>> | undefined {
  if (policy !== undefined) return policy.compiled.nodeSelector;
  // No version of it ever compiled, but this part may. Where it does not, the resource may be meant for any node, and
  // none must fall to a younger one or to the default for a slip of the pen.
  const nodeSelector = (resource.spec as { nodeSelector?: unknown } | null | undefined)?.nodeSelector;
  const compiled = compilePolicy(nodeSelector === undefined ? {} : { nodeSelector });
  return compiled.ok ? compiled.policy.nodeSelector : undefined;
}

function selects(selector: Readonly<Record<string, string>> | undefined, labels: NodeFacts["labels"]): boolean {
  return selector === undefined || Object.entries(selector).every(([key, value]) => labels[key] === value);
}
