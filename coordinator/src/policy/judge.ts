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
  /** The value of {@link CONFIRM_ORPHANS}; absent if the resource has none. */
  confirmOrphans?: string;
}

/**
 * An annotation by which an operator says that the pods which seem to be gone are gone: names of nodes, separated by commas,
 * or `*` for all that the resource rules. It acts once, when it is set or changed.
 */
export const CONFIRM_ORPHANS = "criu.org/confirm-orphans";

/** Which of these nodes the value of {@link CONFIRM_ORPHANS} names. */
export function confirmedNodes(value: string, nodes: readonly string[]): string[] {
  const named = value.split(",").map((name) => name.trim());
  return named.includes("*") ? [...nodes] : nodes.filter((node) => named.includes(node));
}

/** A policy ready to be pushed, and what only the coordinator needs of it. */
export interface ReadyPolicy extends SerializedPolicy {
  compiled: CompiledPolicy;
}

/** A resource, and what its spec says. */
export interface JudgedResource {
  /** `namespace/name` */
  key: string;
  resource: PolicyResource;
  /** Whether resources of its namespace count. One that does not count is never compiled. */
  isNamespaceAllowed: boolean;
  /** Why its present version does not act; empty if it does. */
  problems: FieldProblem[];
  /** What is in force of it: its present version, or else the last good one. */
  policy: ReadyPolicy | undefined;
  /** Which nodes it is for, and how it ranks among others. */
  reach: Reach;
}

/** Which nodes a resource is for, and how it ranks among others that are for the same node. */
export type Reach = Pick<CompiledPolicy, "nodeSelector" | "nodeMatchExpressions" | "priority">;

type Verdict = Pick<JudgedResource, "problems" | "policy" | "reach"> & { generation: number };

/** Of a resource that is not compiled: every node, by the default priority. */
const DEFAULT_REACH: Reach = { priority: 0 };

/** Above every priority that a resource may have. */
const HIGHEST_PRIORITY = Number.MAX_SAFE_INTEGER;

/** Compiles each version of each resource once. */
export interface Judge {
  /** Whether resources of its namespace count. */
  counts(resource: PolicyResource): boolean;
  /** What is to be kept of a resource: of one whose namespace does not count, not its spec, which may be large. */
  keep(resource: PolicyResource): PolicyResource;
  /**
   * Compiles at most one version that is new, and forgets resources that are gone. Returns whether more are to be
   * compiled: a large spec takes long, so the caller lets other work run in between.
   */
  compileNext(resources: Iterable<PolicyResource>): boolean;
  /** The resources with their verdicts. Compiles all that {@link compileNext} did not. */
  judge(resources: Iterable<PolicyResource>): JudgedResource[];
}

/** @param name of the resource that it comes from, `namespace/name` */
export function readyPolicy(compiled: CompiledPolicy, name?: string): ReadyPolicy {
  return { ...serializePolicy(compiled.document, name), compiled };
}

/** `namespace/name`, as kubectl writes it. */
export function resourceKey({ namespace, name }: Pick<PolicyResource, "namespace" | "name">): string {
  return `${namespace}/${name}`;
}

/**
 * @param options.policyNamespaces namespaces whose resources count; undefined is all
 * @param options.defaultDirectory where the archives are if a resource does not say
 */
export function createJudge({
  policyNamespaces,
  defaultDirectory,
}: {
  policyNamespaces: readonly string[] | undefined;
  defaultDirectory?: string | undefined;
}): Judge {
  const verdicts = new Map<string, Verdict>();
  const isAllowed = ({ namespace }: PolicyResource) => policyNamespaces?.includes(namespace) ?? true;
  const isNew = (resource: PolicyResource) =>
    isAllowed(resource) && verdicts.get(resource.uid)?.generation !== resource.generation;

  function compile(resource: PolicyResource): void {
    const lastGood = verdicts.get(resource.uid)?.policy;
    verdicts.set(resource.uid, compileResource(resource, { lastGood, defaultDirectory }));
  }

  return {
    counts: isAllowed,
    keep: (resource) => (isAllowed(resource) ? resource : { ...resource, spec: undefined }),
    compileNext(resources) {
      const uids = new Set<string>();
      const fresh: PolicyResource[] = [];
      for (const resource of resources) {
        uids.add(resource.uid);
        if (isNew(resource)) fresh.push(resource);
      }
      for (const uid of verdicts.keys()) if (!uids.has(uid)) verdicts.delete(uid);
      if (fresh[0] !== undefined) compile(fresh[0]);
      return fresh.length > 1;
    },
    judge(resources) {
      return Array.from(resources, (resource) => {
        if (isNew(resource)) compile(resource);
        const { problems = [], policy, reach = DEFAULT_REACH } = verdicts.get(resource.uid) ?? {};
        const isNamespaceAllowed = isAllowed(resource);
        return { key: resourceKey(resource), resource, isNamespaceAllowed, problems, policy, reach };
      });
    },
  };
}

function compileResource(
  { spec, generation, ...names }: PolicyResource,
  { lastGood, defaultDirectory }: { lastGood: ReadyPolicy | undefined; defaultDirectory: string | undefined },
): Verdict {
  const compiled = compilePolicy(spec ?? {}, { defaultDirectory });
  if (compiled.ok) {
    const policy = readyPolicy(compiled.policy, resourceKey(names));
    return { generation, problems: [], policy, reach: compiled.policy };
  }
  const reach = lastGood === undefined ? readReach(spec) : lastGood.compiled;
  return { generation, problems: compiled.problems, policy: lastGood, reach };
}

/**
 * The reach of a spec of which no version ever compiled. If its selector is wrong, the resource may be meant for any
 * node; if its priority is, it may be meant to rank before any other: no node may fall to another resource or to the
 * default because of a typing error.
 */
function readReach(spec: unknown): Reach {
  const given = (spec ?? {}) as Record<string, unknown>;
  const read = (field: keyof Reach): Reach | undefined => {
    const compiled = compilePolicy(given[field] === undefined ? {} : { [field]: given[field] });
    return compiled.ok ? compiled.policy : undefined;
  };
  const nodeSelector = read("nodeSelector")?.nodeSelector;
  const nodeMatchExpressions = read("nodeMatchExpressions")?.nodeMatchExpressions;
  return {
    ...(nodeSelector && { nodeSelector }),
    ...(nodeMatchExpressions && { nodeMatchExpressions }),
    priority: read("priority")?.priority ?? HIGHEST_PRIORITY,
  };
}
