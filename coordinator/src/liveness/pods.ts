import { getOrMake } from "@cro/shared/get-or-make";
import type { WatchEvent } from "../kube/watch.ts";

/** A pod by its names; nothing else of it is kept. */
export interface PodName {
  namespace: string;
  name: string;
  uid: string;
}

/** How many moments of deletion are kept: some 60 bytes each. */
const MAX_DELETIONS = 200_000;

export type PodEvent = Exclude<WatchEvent<PodName>, { type: "synced" | "lost" }>;

/**
 * What the watch of pods says, and what reads added to it. It may end a question (the pod, or the container, is there)
 * and tells since when one has been absent; it never answers that something is absent.
 */
export interface PodView {
  /** Whether the watch knows all pods. */
  isKnown(): boolean;
  lost(): void;
  synced(items: readonly PodName[], nowMs: number): void;
  /** Takes in an event of the synced watch. Tells whether another pod, or none, bears the name now. */
  changed(event: PodEvent, nowMs: number): boolean;
  uidOf(namespace: string, pod: string): string | undefined;
  /** Since when the watch has said that the pod of this UID, which it lists, is there. */
  presentSinceMs(uid: string): number;
  /** Since when the watch has said that there is no such pod; undefined if there is one, or nothing is known. */
  absentSinceMs(namespace: string, pod: string): number | undefined;
  /** A read found a pod that the watch does not list: its absence begins anew. */
  found(namespace: string, pod: string, nowMs: number): void;
  /** Forgets older deletions. The absence of a pod whose deletion is forgotten counts from the last one forgotten. */
  forgetDeletions(beforeMs: number): void;
  hasContainer(uid: string, container: string): boolean;
  /**
   * Since when reads have not found this container in the pod of this UID; undefined before the first read, and if one
   * found it. It depends on reads alone, so nobody's questions use up the room of another's.
   */
  missingSinceMs(uid: string, container: string): number | undefined;
  /** A read of the living pod answered with these containers. */
  containersRead(uid: string, containers: readonly string[], nowMs: number): void;
}

export function createPodView(): PodView {
  /** UIDs by namespace and name; undefined while the watch knows nothing. */
  let pods: Map<string, Map<string, string>> | undefined;
  let syncedAtMs = 0;
  /** When those came that were not there when all pods were listed, by UID. */
  const appearedAtMs = new Map<string, number>();
  /** The oldest first. */
  const deletedAtMs = new Map<string, number>();
  let forgottenUpToMs = Number.NEGATIVE_INFINITY;
  /** Containers never leave a pod, so one that was seen is there for as long as the pod of this UID. */
  const present = new Map<string, readonly string[]>();
  /** The first read of each pod since the watch knows all pods. What no read has found is missing since then. */
  const firstReadMs = new Map<string, number>();

  function markAbsent(key: string, nowMs: number): void {
    deletedAtMs.delete(key);
    deletedAtMs.set(key, nowMs);
    if (deletedAtMs.size > MAX_DELETIONS) forgetFirst();
  }

  function forgetFirst(): void {
    for (const [key, atMs] of deletedAtMs) {
      deletedAtMs.delete(key);
      forgottenUpToMs = atMs;
      return;
    }
  }

  function forgetContainers(uid: string | undefined): void {
    if (uid === undefined) return;
    present.delete(uid);
    firstReadMs.delete(uid);
    appearedAtMs.delete(uid);
  }

  return {
    isKnown: () => pods !== undefined,

    lost() {
      pods = undefined;
      deletedAtMs.clear();
      firstReadMs.clear();
      appearedAtMs.clear();
    },

    synced(items, nowMs) {
      pods = new Map();
      syncedAtMs = nowMs;
      forgottenUpToMs = Number.NEGATIVE_INFINITY;
      for (const { namespace, name, uid } of items) enter(pods, namespace, name, uid);
      const living = new Set(items.map(({ uid }) => uid));
      for (const uid of present.keys()) if (!living.has(uid)) present.delete(uid);
    },

    changed({ type, item }, nowMs) {
      if (pods === undefined) return false;
      const { namespace, name, uid } = item;
      const known = pods.get(namespace)?.get(name);
      if (type === "deleted") {
        if (known !== uid) return false;
        pods.get(namespace)?.delete(name);
        if (pods.get(namespace)?.size === 0) pods.delete(namespace);
        forgetContainers(uid);
        markAbsent(`${namespace}/${name}`, nowMs);
        return true;
      }
      if (known === uid) return false;
      enter(pods, namespace, name, uid);
      forgetContainers(known);
      appearedAtMs.set(uid, nowMs);
      deletedAtMs.delete(`${namespace}/${name}`);
      return true;
    },

    uidOf: (namespace, pod) => pods?.get(namespace)?.get(pod),

    presentSinceMs: (uid) => appearedAtMs.get(uid) ?? syncedAtMs,

    absentSinceMs(namespace, pod) {
      if (pods === undefined || pods.get(namespace)?.has(pod)) return undefined;
      return deletedAtMs.get(`${namespace}/${pod}`) ?? Math.max(syncedAtMs, forgottenUpToMs);
    },

    found(namespace, pod, nowMs) {
      if (pods !== undefined && !pods.get(namespace)?.has(pod)) markAbsent(`${namespace}/${pod}`, nowMs);
    },

    forgetDeletions(beforeMs) {
      for (const atMs of deletedAtMs.values()) {
        if (atMs >= beforeMs) return;
        forgetFirst();
      }
    },

    hasContainer: (uid, container) => present.get(uid)?.includes(container) === true,

    missingSinceMs: (uid, container) => (present.get(uid)?.includes(container) ? undefined : firstReadMs.get(uid)),

    containersRead(uid, containers, nowMs) {
      present.set(uid, [...new Set([...(present.get(uid) ?? []), ...containers])]);
      if (!firstReadMs.has(uid)) firstReadMs.set(uid, nowMs);
    },
  };
}

function enter(pods: Map<string, Map<string, string>>, namespace: string, name: string, uid: string): void {
  getOrMake(pods, namespace, () => new Map<string, string>()).set(name, uid);
}
