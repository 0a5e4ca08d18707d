import { getOrMake } from "@cro/shared/get-or-make";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { type Archive, countsForNode } from "../archive/archive.ts";
import { scopesAround } from "../retention/scope.ts";

/**
 * Archives by file name and by scope, so that what happens to one container costs what that container has, however many
 * archives lie around it.
 */
export interface ArchiveIndex<A extends Archive> {
  get(file: string): A | undefined;
  readonly size: number;
  all(): Iterable<A>;
  /** Those that have archives whose owner is known. */
  namespaces(): Iterable<string>;
  /** Adds an archive, or files it anew after its identity changed or it was walked. */
  put(archive: A): void;
  remove(file: string): void;
  /** Archives of a namespace, of one of its pods, or of one container of that; only of containers that `isWanted`, if given. */
  inScope(
    scope: { namespace: string; pod?: string | undefined; container?: string | undefined },
    isWanted?: (identity: ContainerIdentity) => boolean,
  ): Iterable<Owned<A>>;
  /**
   * Whether a scope, by its key, may hold an archive that has not been walked: whatever its name allows counts. No rule
   * may act on such a scope, so there is no use in planning for it.
   */
  isBlocked(scope: string): boolean;
  /** Calls the listener with the key of each scope that ceases to be blocked. */
  onUnblocked(listener: (scope: string) => void): void;
  /** Calls the listener with each archive that is put, or is no longer there. */
  onFiled(listener: (archive: A, isThere: boolean) => void): void;
  /** What the node as a whole counts of all archives, in bytes. */
  readonly countedBytes: number;
  /** How many archives have not been walked. */
  readonly unwalked: number;
}

/** Filed under an identity, and so known to have one. */
type Owned<A> = A & { identity: ContainerIdentity };

/** An archive as it was when it was filed. */
interface Filed<A> {
  archive: A;
  identity: ContainerIdentity | undefined;
  walked: boolean;
  countedBytes: number;
}

type Containers<A> = Map<string, Set<Owned<A>>>;

export function createArchiveIndex<A extends Archive>(): ArchiveIndex<A> {
  const byFile = new Map<string, Filed<A>>();
  const namespaces = new Map<string, Map<string, Containers<A>>>();
  /** How many archives that have not been walked may lie in each scope. */
  const unwalkedIn = new Map<string, number>();
  let unwalked = 0;
  let countedBytes = 0;
  let unblocked: (scope: string) => void = () => {};
  let onFiled: (archive: A, isThere: boolean) => void = () => {};

  function file(archive: A): void {
    const { identity, walked } = archive;
    byFile.set(archive.file, { archive, identity, walked, countedBytes: 0 });
    if (!walked) countUnwalked(archive, identity, 1);
    if (identity === undefined) return;
    const pods = getOrMake(namespaces, identity.namespace, () => new Map());
    const containers = getOrMake(pods, identity.pod, () => new Map());
    getOrMake(containers, identity.container, () => new Set()).add(archive as Owned<A>);
  }

  function unfile({ archive, identity, walked, countedBytes: bytes }: Filed<A>): void {
    countedBytes -= bytes;
    if (!walked) countUnwalked(archive, identity, -1);
    if (identity === undefined) return;
    const pods = namespaces.get(identity.namespace);
    const containers = pods?.get(identity.pod);
    const set = containers?.get(identity.container);
    set?.delete(archive as Owned<A>);
    if (set?.size === 0) containers?.delete(identity.container);
    if (containers?.size === 0) pods?.delete(identity.pod);
    if (pods?.size === 0) namespaces.delete(identity.namespace);
  }

  function countUnwalked(archive: A, identity: ContainerIdentity | undefined, by: 1 | -1): void {
    unwalked += by;
    for (const key of scopesAround(identity === undefined ? archive.candidates : [...archive.candidates, identity])) {
      const count = (unwalkedIn.get(key) ?? 0) + by;
      if (count > 0) unwalkedIn.set(key, count);
      else {
        unwalkedIn.delete(key);
        unblocked(key);
      }
    }
  }

  return {
    get: (name) => byFile.get(name)?.archive,
    get size() {
      return byFile.size;
    },
    *all() {
      for (const { archive } of byFile.values()) yield archive;
    },
    namespaces: () => namespaces.keys(),
    put(archive) {
      const before = byFile.get(archive.file);
      const { identity, walked } = archive;
      if (before?.archive === archive && before.identity === identity) {
        if (before.walked !== walked) countUnwalked(archive, identity, walked ? -1 : 1);
        before.walked = walked;
      } else {
        if (before !== undefined) unfile(before);
        if (before !== undefined && before.archive !== archive) onFiled(before.archive, false);
        file(archive);
      }
      const now = byFile.get(archive.file) as Filed<A>;
      countedBytes -= now.countedBytes;
      now.countedBytes = countsForNode(archive) ? archive.size : 0;
      countedBytes += now.countedBytes;
      onFiled(archive, true);
    },
    remove(name) {
      const before = byFile.get(name);
      if (before === undefined) return;
      byFile.delete(name);
      unfile(before);
      onFiled(before.archive, false);
    },
    *inScope({ namespace, pod, container }, isWanted = () => true) {
      for (const [podName, containers] of pick(namespaces.get(namespace), pod)) {
        for (const [name, archives] of pick(containers, container)) {
          if (isWanted({ namespace, pod: podName, container: name })) yield* archives;
        }
      }
    },
    isBlocked: (scope) => unwalkedIn.has(scope),
    onUnblocked(listener) {
      unblocked = listener;
    },
    onFiled(listener) {
      onFiled = listener;
    },
    get countedBytes() {
      return countedBytes;
    },
    get unwalked() {
      return unwalked;
    },
  };
}

/** The entry of that key, or all of them where no key is given. */
function pick<V>(map: Map<string, V> | undefined, key: string | undefined): Iterable<[string, V]> {
  if (map === undefined) return [];
  if (key === undefined) return map;
  const value = map.get(key);
  return value === undefined ? [] : [[key, value]];
}
