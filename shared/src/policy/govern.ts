import { getOrMake } from "../get-or-make.ts";
import type { Policy, PolicyDocument } from "./document.ts";
import { isPodOf, LENGTH_THAT_MAY_BE_CUT, mayBeCut, WORKLOAD_KINDS, type WorkloadKind } from "./workload.ts";

/** Whose archive it is. */
export interface ContainerIdentity {
  namespace: string;
  pod: string;
  container: string;
}

/**
 * Yields the lookup of the one policy that governs a container's archives: the most specific of container, pod, workload,
 * namespace and global. Within a level an exact name comes before a prefix and a longer prefix before a shorter one, by
 * namespace first, then pod, then container. Of workloads whose pod it may be, by its name, the longest name comes first, and
 * then the kinds in their order. A lookup costs the length of the names, not the number of policies, but for workloads whose
 * names are so long that those of their pods are cut.
 */
export function createGovernor(document: PolicyDocument): (identity: ContainerIdentity) => Policy {
  const root = newBranch();
  for (const rule of document.rules) {
    if (rule.level === "workload") {
      addWorkload(growBranch(root, rule.namespace as string), rule);
      continue;
    }
    const names = [rule.namespace, rule.pod, rule.container].filter((name) => name !== undefined);
    names.reduce(growBranch, root).rule = rule;
  }
  return (identity) => {
    const names = [identity.namespace, identity.pod, identity.container];
    // As many names as a rule has make its level: so deep it lies. Those of workloads lie with their namespace.
    return (
      findRule(root, names, ({ rule }) => rule) ??
      findRule(root, names.slice(0, 2), ({ rule }) => rule) ??
      findRule(root, names.slice(0, 1), ({ workloads }) => workloads && findWorkload(workloads, identity)) ??
      findRule(root, names.slice(0, 1), ({ rule }) => rule) ??
      document.global
    );
  };
}

/** One name's choices: exact ones, and prefixes with their lengths from the longest down. */
interface Branch {
  exact: Map<string, Branch>;
  prefixes: Map<string, Branch>;
  lengths: number[];
  rule?: Policy;
  /** Of a namespace: the policies of its workloads. */
  workloads?: Workloads;
}

/** A namespace's policies of workloads. */
interface Workloads {
  /** By the workload's name. */
  byName: Map<string, Policy[]>;
  /** Those of which a pod's name may hold only the beginning. */
  long: Policy[];
}

function newBranch(): Branch {
  return { exact: new Map(), prefixes: new Map(), lengths: [] };
}

function growBranch(parent: Branch, name: string): Branch {
  const isPrefix = name.endsWith("*");
  const key = isPrefix ? name.slice(0, -1) : name;
  const children = isPrefix ? parent.prefixes : parent.exact;
  let child = children.get(key);
  if (child === undefined) {
    child = newBranch();
    children.set(key, child);
    if (isPrefix && !parent.lengths.includes(key.length)) {
      parent.lengths.push(key.length);
      parent.lengths.sort((a, b) => b - a);
    }
  }
  return child;
}

/** The first that `read` yields of the branches that lie under these names, the most specific one first. */
function findRule(
  branch: Branch,
  names: string[],
  read: (branch: Branch) => Policy | undefined,
  depth = 0,
): Policy | undefined {
  if (depth === names.length) return read(branch);
  const name = names[depth] as string;
  const exact = branch.exact.get(name);
  const found = exact && findRule(exact, names, read, depth + 1);
  if (found !== undefined) return found;
  for (const length of branch.lengths) {
    const prefix = branch.prefixes.get(name.slice(0, length));
    const rule = prefix && findRule(prefix, names, read, depth + 1);
    if (rule !== undefined) return rule;
  }
  return undefined;
}

function addWorkload(branch: Branch, rule: Policy): void {
  branch.workloads ??= { byName: new Map(), long: [] };
  const { byName, long } = branch.workloads;
  const name = rule.workload as string;
  getOrMake(byName, name, () => []).push(rule);
  if (name.length >= LENGTH_THAT_MAY_BE_CUT) long.push(rule);
}

function findWorkload({ byName, long }: Workloads, { pod, container }: ContainerIdentity): Policy | undefined {
  const found = mayBeCut(pod) ? [...long] : [];
  for (let end = pod.lastIndexOf("-"); end > 0; end = pod.lastIndexOf("-", end - 1)) {
    found.push(...(byName.get(pod.slice(0, end)) ?? []));
  }
  return found
    .filter(
      (rule) => isPodOf({ kind: kindOf(rule), name: rule.workload as string }, pod) && hasContainer(rule, container),
    )
    .sort(compareWorkloads)[0];
}

function kindOf({ kind }: Policy): WorkloadKind {
  return kind as WorkloadKind;
}

function hasContainer({ container: wanted }: Policy, container: string): boolean {
  if (wanted === undefined) return true;
  return wanted.endsWith("*") ? container.startsWith(wanted.slice(0, -1)) : container === wanted;
}

/** The longest name first, then the kinds in their order, then the policy that names its containers more closely. */
function compareWorkloads(a: Policy, b: Policy): number {
  return (
    (b.workload as string).length - (a.workload as string).length ||
    WORKLOAD_KINDS.indexOf(kindOf(a)) - WORKLOAD_KINDS.indexOf(kindOf(b)) ||
    closenessOf(b) - closenessOf(a)
  );
}

/** How closely a policy names its containers: exact names come before prefixes, and longer ones before shorter ones. */
function closenessOf({ container }: Policy): number {
  if (container === undefined) return 0;
  return container.endsWith("*") ? container.length : Number.MAX_SAFE_INTEGER;
}
