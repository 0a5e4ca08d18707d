import { namesOfPolicy, type Policy } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Archive } from "../archive/archive.ts";

/** Key of a namespace as a scope: `namespace`. */
export function namespaceScope({ namespace }: Pick<ContainerIdentity, "namespace">): string {
  return namespace;
}

/** Key of a pod as a scope: `namespace/pod`. No Kubernetes name holds a slash, so keys of two scopes never meet. */
export function podScope({ namespace, pod }: Pick<ContainerIdentity, "namespace" | "pod">): string {
  return `${namespace}/${pod}`;
}

/** Key of a container as a scope: `namespace/pod/container`. */
export function containerScope({ namespace, pod, container }: ContainerIdentity): string {
  return `${namespace}/${pod}/${container}`;
}

/** Names a workload policy's scope within a namespace: `Deployment/web`, or `Deployment/web/main*` for some containers. */
export function workloadOf({ kind, workload, container }: Policy): string {
  return namesOfPolicy({ kind, workload, container });
}

/**
 * Key of what a workload policy governs of a namespace: `namespace//Deployment/web`. No other key has an empty part, so it never
 * meets one.
 */
export function workloadScope({ namespace }: Pick<ContainerIdentity, "namespace">, workload: string): string {
  return `${namespace}//${workload}`;
}

/**
 * Key of the scope whose unwalked archives keep rules from acting on a scope, by its key: it itself; of a workload it is the
 * namespace, for an archive of any pod there may turn out to be one of the workload's.
 */
export function blockingScope(key: string): string {
  const end = key.indexOf("//");
  return end < 0 ? key : key.slice(0, end);
}

/** Keys of the scopes in which a container's archives count under the policy that governs them, the narrowest first. */
export function scopesOf(policy: Policy, identity: ContainerIdentity): string[] {
  switch (policy.level) {
    case "container":
      return [containerScope(identity)];
    case "pod":
      return [podScope(identity)];
    case "workload":
      return [workloadScope(identity, workloadOf(policy))];
    case "namespace":
      return [namespaceScope(identity)];
    case "global":
      return [containerScope(identity), podScope(identity), namespaceScope(identity)];
  }
}

/** Whether an archive is an orphan, too, where its pod lives on without its container: under these policies alone. */
export function isContainerAsked(level: Policy["level"]): boolean {
  return level === "container" || level === "global";
}

/**
 * Keys of every scope that may hold an archive which has not been walked: all of its readings count, for it may turn
 * out to be any of them, under whichever policy.
 */
export function unwalkedScopes(archives: Iterable<Archive>): Set<string> {
  const keys = new Set<string>();
  for (const archive of archives) {
    if (archive.walked) continue;
    const readings = archive.identity === undefined ? archive.candidates : [...archive.candidates, archive.identity];
    for (const key of scopesAround(readings)) keys.add(key);
  }
  return keys;
}

/** Keys of every scope around these containers, each once. */
export function scopesAround(containers: Iterable<ContainerIdentity>): Set<string> {
  const keys = new Set<string>();
  for (const one of containers) keys.add(namespaceScope(one)).add(podScope(one)).add(containerScope(one));
  return keys;
}
