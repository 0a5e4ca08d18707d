import { getOrMake } from "@cro/shared/get-or-make";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Archive } from "../archive/archive.ts";

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
  /** Adds an archive, or files it anew after its identity changed. */
  put(archive: A): void;
  remove(file: string): void;
  /** Archives of a namespace, of one of its pods, or of one container of that. */
  inScope(scope: { namespace: string; pod?: string | undefined; container?: string | undefined }): Iterable<Owned<A>>;
  /** Archives whose owner is not known and that may turn out to be of this namespace, or of this pod of it. */
  undecidedIn(scope: { namespace: string; pod?: string | undefined }): Iterable<A>;
}

/** Filed under an identity, and so known to have one. */
type Owned<A> = A & { identity: ContainerIdentity };

type Containers<A> = Map<string, Set<Owned<A>>>;

export function createArchiveIndex<A extends Archive>(): ArchiveIndex<A> {
  const byFile = new Map<string, { archive: A; identity: ContainerIdentity | undefined }>();
  const namespaces = new Map<string, Map<string, Containers<A>>>();
  const undecided = new Map<string, Map<string, Set<A>>>();

  function file(archive: A): void {
    const { identity, candidates } = archive;
    byFile.set(archive.file, { archive, identity });
    if (identity === undefined) {
      for (const { namespace, pod } of candidates) {
        const pods = getOrMake(undecided, namespace, () => new Map());
        getOrMake(pods, pod, () => new Set()).add(archive);
      }
      return;
    }
    const pods = getOrMake(namespaces, identity.namespace, () => new Map());
    const containers = getOrMake(pods, identity.pod, () => new Map());
    getOrMake(containers, identity.container, () => new Set()).add(archive as Owned<A>);
  }

  function unfile(archive: A, identity: ContainerIdentity | undefined): void {
    if (identity === undefined) {
      for (const { namespace, pod } of archive.candidates) {
        const pods = undecided.get(namespace);
        const set = pods?.get(pod);
        set?.delete(archive);
        if (set?.size === 0) pods?.delete(pod);
        if (pods?.size === 0) undecided.delete(namespace);
      }
      return;
    }
    const pods = namespaces.get(identity.namespace);
    const containers = pods?.get(identity.pod);
    const set = containers?.get(identity.container);
    set?.delete(archive as Owned<A>);
    if (set?.size === 0) containers?.delete(identity.container);
    if (containers?.size === 0) pods?.delete(identity.pod);
    if (pods?.size === 0) namespaces.delete(identity.namespace);
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
      const filed = byFile.get(archive.file);
      if (filed?.archive === archive && filed.identity === archive.identity) return;
      if (filed !== undefined) unfile(filed.archive, filed.identity);
      file(archive);
    },
    remove(name) {
      const filed = byFile.get(name);
      if (filed === undefined) return;
      byFile.delete(name);
      unfile(filed.archive, filed.identity);
    },
    *inScope({ namespace, pod, container }) {
      for (const [, containers] of pick(namespaces.get(namespace), pod)) {
        for (const [, archives] of pick(containers, container)) yield* archives;
      }
    },
    *undecidedIn({ namespace, pod }) {
      for (const [, archives] of pick(undecided.get(namespace), pod)) yield* archives;
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
