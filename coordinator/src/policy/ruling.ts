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

/** What a leader remembers between two looks. */
export interface RulingMemory {
  /** The last version of each resource that compiled, by UID. */
  good: ReadonlyMap<string, { generation: number; policy: ReadyPolicy }>;
  /** What ruled each node last, and since when no resource does. */
  nodes: ReadonlyMap<string, { policy: ReadyPolicy | undefined; resource: string | undefined; orphanedAtMs?: number }>;
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
  const { nodes, defaultPolicy, graceMs, nowMs, accepted } = input;
  const good = new Map<string, { generation: number; policy: ReadyPolicy }>();
  const resources = [...input.resources].sort(compareAge).map((resource) => judge(resource, input, { memory, good }));
  const ruling: Ruling = { nodes: new Map(), resources, changes: [], memory: EMPTY_MEMORY, nextMs: undefined };
  const remembered = new Map<
    string,
    { policy: ReadyPolicy | undefined; resource: string | undefined; orphanedAtMs?: number }
  >();

  for (const node of nodes) {
    const matching = resources.filter((candidate) => candidate.isNamespaceAllowed && selects(candidate, node));
    const [ruler, ...others] = matching;
    for (const candidate of matching) candidate.matched.push(node.name);
    for (const other of others) if (ruler !== undefined) other.conflicts.set(node.name, ruler.key);
    const before = memory.nodes.get(node.name);
    if (ruler !== undefined) {
      ruling.nodes.set(node.name, { source: "resource", resource: ruler.key, policy: ruler.policy });
      // A resource that says nothing yet leaves in force what was, so that is what a grace period would keep.
      remembered.set(node.name, { policy: ruler.policy ?? before?.policy, resource: ruler.key });
      if (before?.resource !== undefined && before.resource !== ruler.key) {
        ruling.changes.push({ node: node.name, from: before.resource, to: ruler.key });
      }
      continue;
    }
    const orphanedAtMs = before?.orphanedAtMs ?? nowMs;
    const endsAtMs = orphanedAtMs + graceMs;
    const hadResource = before?.resource !== undefined;
    const digest = accepted.get(node.name);
    const isInGrace = nowMs < endsAtMs;
    // Without memory only the agent can tell whether a policy went away; while it does not, nothing is pushed.
    const mayHaveHadPolicy = hadResource || (digest !== null && digest !== defaultPolicy.digest);
    if (isInGrace && mayHaveHadPolicy) {
      remembered.set(node.name, { policy: before?.policy, resource: before?.resource, orphanedAtMs });
      ruling.nextMs = Math.min(ruling.nextMs ?? Number.POSITIVE_INFINITY, endsAtMs);
      const kept = before?.policy;
      ruling.nodes.set(node.name, kept ? { source: "grace", policy: kept } : { source: "none", policy: undefined });
      continue;
    }
    remembered.set(node.name, { policy: undefined, resource: undefined, orphanedAtMs });
    ruling.nodes.set(node.name, { source: "default", policy: defaultPolicy });
  }
  ruling.memory = { good, nodes: remembered };
  return ruling;
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

/** Whether a resource is for a node; where no version of it ever compiled, by its selector as it stands. */
function selects({ policy, resource }: ResourceRuling, { labels }: NodeFacts): boolean {
  const selector = policy === undefined ? rawSelector(resource.spec) : policy.compiled.nodeSelector;
  return selector === undefined || Object.entries(selector).every(([key, value]) => labels[key] === value);
}

/** The selector of a spec that is wrong somewhere; undefined, every node, where it is the selector that is wrong. */
function rawSelector(spec: unknown): Record<string, string> | undefined {
  const selector = (spec as { nodeSelector?: unknown } | null | undefined)?.nodeSelector;
  if (typeof selector !== "object" || selector === null || Array.isArray(selector)) return undefined;
  const entries = Object.entries(selector);
  const isWellFormed = entries.length > 0 && entries.every(([, value]) => typeof value === "string");
  return isWellFormed ? (selector as Record<string, string>) : undefined;
}
