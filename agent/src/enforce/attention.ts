import { getOrMake } from "@cro/shared/get-or-make";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Clock } from "../clock.ts";
import type { ArchiveIndex } from "../inventory/archive-index.ts";
import type { Entry } from "../inventory/entry.ts";
import {
  blockingScope,
  containerScope,
  namespaceScope,
  podScope,
  scopesOf,
  workloadOf,
  workloadScope,
} from "../retention/scope.ts";
import type { InForce } from "./in-force.ts";

/** A namespace, one of its pods, one container of that pod, or one of its workloads. */
export interface Scope {
  namespace: string;
  pod?: string;
  container?: string;
  /** As `workloadOf` names it. */
  workload?: string;
}

/** What the next run plans for. */
export interface Batch {
  scopes: Map<string, Scope>;
  /** Whether all scopes that hold archives and may be acted on are among them. */
  everything: boolean;
  /** When the first change of the batch happened, on the monotonic clock, in milliseconds. */
  sinceMs: number;
}

/** Containers on which an event was not acted upon to the end, under the policy of that digest. */
export interface Due {
  digest: string;
  /** Each as `namespace/pod/container`. */
  containers: string[];
}

/** Knows which scopes to plan for next, on which scopes the policy acts, and which events are not acted upon to the end. */
export interface Attention {
  /** Forgets what was due under another policy. */
  setPolicy(inForce: InForce): void;
  /** Forgets on which scopes the policy acts and what is due, but for `resumed`: what is due in this very directory. */
  setDirectory(resumed: Due | undefined): void;
  /** The node's own rules are to be checked. */
  markNode(): void;
  /**
   * Something happened to an archive of this container. Marks the widest scope that its policy limits and that may be
   * acted on: all of whose archives were walked. A wider one is marked as soon as the last of its archives was walked.
   */
  mark(identity: ContainerIdentity): void;
  markEverything(): void;
  /** These scopes are to be planned for once more. */
  markAgain(scopes: Iterable<Scope>): void;
  /** An event of this container: the policy acts on its scopes from now on. */
  activate(identity: ContainerIdentity): void;
  /** Whether rules may act on a scope, by its key. */
  isActive(scope: string): boolean;
  /** Forgets that the policy acts on scopes that hold no archive any more: the next archive in them is an event anyway. */
  deactivateEmpty(entry: Entry): void;
  /** Takes what the next run plans for; undefined if nothing is to be planned. */
  take(): Batch | undefined;
  isPending(): boolean;
  /**
   * All that these scopes' events asked for has been done. A short plan (`isShort`) did nothing for the scopes within them that
   * are planned for by themselves.
   */
  finish(scopes: Iterable<Scope>, how: { isShort: boolean }): void;
  /** What an agent that starts again has to act on; undefined if nothing is due, or the policy acts everywhere anyway. */
  due(): Due | undefined;
}

export function createAttention({ index, clock }: { index: ArchiveIndex<Entry>; clock: Clock }): Attention {
  /** Scopes in which something happened and that wait for walks: by the key of what blocks them, and by their own. */
  const wanted = new Map<string, Map<string, Scope>>();
  index.onUnblocked((key) => {
    for (const [scopeKey, scope] of wanted.get(key) ?? []) open().scopes.set(scopeKey, scope);
    wanted.delete(key);
  });
  let policy: InForce | undefined;
  let batch: Batch | undefined;
  /** Scopes on which the policy acts, if it does not act everywhere at once. */
  let active = new Set<string>();
  /** By container, the scopes one of which must be acted on before its event is done. */
  const due = new Map<string, string[]>();
  let resumed: Due | undefined;

  function open(): Batch {
    batch ??= { scopes: new Map(), everything: false, sinceMs: clock.monotonicMs() };
    return batch;
  }

  function activate(identity: ContainerIdentity): void {
    if (policy === undefined || policy.document.applyImmediately) return;
    for (const key of scopesOf(policy.govern(identity), identity)) active.add(key);
    // Every policy limits at least its own scope. To act on a narrower one, because the widest is blocked, is not enough.
    const widest = limitedScopes(policy, identity)[0] as Scope;
    due.set(containerScope(identity), scopesDownTo(widest));
  }

  /** Every scope that may be acted on: a whole namespace, or of one that waits for walks whatever does not. */
  function everyScope(): Map<string, Scope> {
    const scopes = new Map<string, Scope>();
    for (const namespace of index.namespaces()) {
      if (!index.isBlocked(namespace)) {
        scopes.set(namespace, { namespace });
        continue;
      }
      // Archives of one container mostly share what names it, so each of very many costs one look.
      const seen = new Set<ContainerIdentity>();
      for (const { identity } of index.inScope({ namespace })) {
        if (seen.has(identity)) continue;
        seen.add(identity);
        place(identity, () => scopes);
      }
    }
    return scopes;
  }

  /** Puts the widest scope of a container that may be acted on among those to plan for; wider ones wait for their walks. */
  function place(identity: ContainerIdentity, scopes: () => Map<string, Scope>): void {
    if (policy === undefined) return;
    for (const scope of limitedScopes(policy, identity)) {
      const key = keyOf(scope);
      const blocking = blockingScope(key);
      if (!index.isBlocked(blocking)) {
        scopes().set(key, scope);
        return;
      }
      getOrMake(wanted, blocking, () => new Map()).set(key, scope);
    }
  }

  const mark = (identity: ContainerIdentity) => place(identity, () => open().scopes);

  function resume(): void {
    if (policy === undefined || resumed === undefined) return;
    if (resumed.digest === policy.digest) {
      for (const identity of resumed.containers.map(parseContainer)) {
        activate(identity);
        // Even if none of its archives is left: then nothing is due any more.
        mark(identity);
      }
    }
    resumed = undefined;
  }

  return {
    setPolicy(next) {
      policy = next;
      active = new Set();
      due.clear();
      wanted.clear();
      resume();
    },
    setDirectory(next) {
      active = new Set();
      due.clear();
      wanted.clear();
      resumed = next;
      resume();
    },
    markNode: () => void open(),
    mark,
    markEverything() {
      open().everything = true;
    },
    markAgain(scopes) {
      for (const scope of scopes) open().scopes.set(keyOf(scope), scope);
    },
    activate,
    isActive: (key) => (policy?.document.applyImmediately || active.has(key)) && !index.isBlocked(blockingScope(key)),
    deactivateEmpty({ identity }) {
      if (policy === undefined || active.size === 0 || identity === undefined) return;
      const { namespace, pod } = identity;
      if (isEmpty(index.inScope(identity))) active.delete(containerScope(identity));
      if (isEmpty(index.inScope({ namespace, pod }))) active.delete(podScope(identity));
      if (isEmpty(index.inScope({ namespace }))) active.delete(namespaceScope(identity));
      const governing = policy.govern(identity);
      if (governing.level !== "workload") return;
      const scope = { namespace, workload: workloadOf(governing) };
      if (isEmpty(archivesOf(scope, { index, govern: policy.govern }))) active.delete(keyOf(scope));
    },
    take() {
      const taken = batch;
      batch = undefined;
      if (taken?.everything) taken.scopes = new Map([...taken.scopes, ...everyScope()]);
      return taken;
    },
    isPending: () => batch !== undefined,
    finish(scopes, { isShort }) {
      if (due.size === 0) return;
      const done = new Set([...scopes].map(keyOf));
      for (const [container, enough] of due) {
        if ((isShort ? enough.slice(-1) : enough).some((scope) => done.has(scope))) due.delete(container);
      }
    },
    due: () => {
      if (resumed !== undefined) return resumed;
      return policy === undefined || due.size === 0
        ? undefined
        : { digest: policy.digest, containers: [...due.keys()] };
    },
  };
}

/** Key of a scope, as the planner writes it. */
export function keyOf({ namespace, pod, container, workload }: Partial<Scope>): string {
  if (namespace !== undefined && workload !== undefined) return workloadScope({ namespace }, workload);
  return [namespace, pod, container].filter((name) => name !== undefined).join("/");
}

/** The scopes of a container on which its policy's rules act, the widest first. */
export function limitedScopes({ govern }: Pick<InForce, "govern">, identity: ContainerIdentity): Scope[] {
  const { namespace, pod, container } = identity;
  const governing = govern(identity);
  const { level, perPod, perNamespace } = governing;
  const scopes: Scope[] = [];
  if (level === "workload") scopes.push({ namespace, workload: workloadOf(governing) });
  if (level === "namespace" || perNamespace !== undefined) scopes.push({ namespace });
  if (level === "pod" || perPod !== undefined) scopes.push({ namespace, pod });
  if (level === "container" || level === "global") scopes.push({ namespace, pod, container });
  return scopes;
}

/** Keys of the scopes around a scope, from its namespace to itself. */
export function scopesDownTo(scope: Partial<Scope>): string[] {
  const key = keyOf(scope);
  if (scope.workload !== undefined) return [blockingScope(key), key];
  const names = key.split("/");
  return names.map((_, at) => names.slice(0, at + 1).join("/"));
}

/**
 * The archives that are planned for with a scope: all of a namespace. What a workload policy governs is planned for with its
 * workload or its namespace, and never with a pod, which holds but a part of the workload.
 */
export function archivesOf(
  { workload, ...names }: Scope,
  { index, govern }: { index: ArchiveIndex<Entry>; govern: InForce["govern"] },
): Iterable<Entry & { identity: ContainerIdentity }> {
  if (workload === undefined && names.pod === undefined) return index.inScope(names);
  return index.inScope(names, (identity) => {
    const governing = govern(identity);
    return (governing.level === "workload" ? workloadOf(governing) : undefined) === workload;
  });
}

function parseContainer(key: string): ContainerIdentity {
  const [namespace = "", pod = "", container = ""] = key.split("/");
  return { namespace, pod, container };
}

function isEmpty(items: Iterable<unknown>): boolean {
  for (const _ of items) return false;
  return true;
}
