import type { Policy, PolicyDocument } from "./document.ts";

/** Whose archive it is. */
export interface ContainerIdentity {
  namespace: string;
  pod: string;
  container: string;
}

/**
 * Yields the lookup of the one policy that governs a container's archives: the most specific of container, pod,
 * namespace and global. Within a level an exact name comes before a prefix and a longer prefix before a shorter one, by
 * namespace first, then pod, then container. A lookup costs the length of the names, not the number of policies.
 */
export function createGovernor(document: PolicyDocument): (identity: ContainerIdentity) => Policy {
  const root = newBranch();
  for (const rule of document.rules) {
    const names = [rule.namespace, rule.pod, rule.container].filter((name) => name !== undefined);
    names.reduce(growBranch, root).rule = rule;
  }
  return (identity) => {
    const names = [identity.namespace, identity.pod, identity.container];
    // As many names as a rule has make its level: so deep it lies.
    for (let end = names.length; end > 0; end -= 1) {
      const rule = findRule(root, names, { depth: 0, end });
      if (rule !== undefined) return rule;
    }
    return document.global;
  };
}

/** One name's choices: exact ones, and prefixes with their lengths from the longest down. */
interface Branch {
  exact: Map<string, Branch>;
  prefixes: Map<string, Branch>;
  lengths: number[];
  rule?: Policy;
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

function findRule(branch: Branch, names: string[], { depth, end }: { depth: number; end: number }): Policy | undefined {
  if (depth === end) return branch.rule;
  const name = names[depth] as string;
  const next = { depth: depth + 1, end };
  const exact = branch.exact.get(name);
  const found = exact && findRule(exact, names, next);
  if (found !== undefined) return found;
  for (const length of branch.lengths) {
    const prefix = branch.prefixes.get(name.slice(0, length));
    const rule = prefix && findRule(prefix, names, next);
    if (rule !== undefined) return rule;
  }
  return undefined;
}
