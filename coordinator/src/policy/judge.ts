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
  /** Labels of the nodes that it is for; undefined is every node. */
  nodeSelector: Readonly<Record<string, string>> | undefined;
}

type Verdict = Pick<JudgedResource, "problems" | "policy" | "nodeSelector"> & { generation: number };

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

export function readyPolicy(compiled: CompiledPolicy): ReadyPolicy {
  return { ...serializePolicy(compiled.document), compiled };
}

/** `namespace/name`, as kubectl writes it. */
export function resourceKey({ namespace, name }: Pick<PolicyResource, "namespace" | "name">): string {
  return `${namespace}/${name}`;
}

/** @param policyNamespaces namespaces whose resources count; undefined is all */
export function createJudge({ policyNamespaces }: { policyNamespaces: readonly string[] | undefined }): Judge {
  const verdicts = new Map<string, Verdict>();
  const isAllowed = ({ namespace }: PolicyResource) => policyNamespaces?.includes(namespace) ?? true;
  const isNew = (resource: PolicyResource) =>
    isAllowed(resource) && verdicts.get(resource.uid)?.generation !== resource.generation;

  function compile(resource: PolicyResource): void {
    verdicts.set(resource.uid, compileResource(resource, verdicts.get(resource.uid)?.policy));
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
        const { problems = [], policy, nodeSelector } = verdicts.get(resource.uid) ?? {};
        const isNamespaceAllowed = isAllowed(resource);
        return { key: resourceKey(resource), resource, isNamespaceAllowed, problems, policy, nodeSelector };
      });
    },
  };
}

function compileResource({ spec, generation }: PolicyResource, lastGood: ReadyPolicy | undefined): Verdict {
  const compiled = compilePolicy(spec ?? {});
  if (compiled.ok) {
    const policy = readyPolicy(compiled.policy);
    return { generation, problems: [], policy, nodeSelector: compiled.policy.nodeSelector };
  }
  const nodeSelector = lastGood === undefined ? readSelector(spec) : lastGood.compiled.nodeSelector;
  return { generation, problems: compiled.problems, policy: lastGood, nodeSelector };
}

/**
 * The selector of a spec of which no version ever compiled. If the selector itself is wrong, the resource may be meant
 * for any node: no node may fall to a younger resource or to the default because of a typing error.
 */
function readSelector(spec: unknown): JudgedResource["nodeSelector"] {
  const nodeSelector = (spec as { nodeSelector?: unknown } | null | undefined)?.nodeSelector;
  const compiled = compilePolicy(nodeSelector === undefined ? {} : { nodeSelector });
  return compiled.ok ? compiled.policy.nodeSelector : undefined;
}
