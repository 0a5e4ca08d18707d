const HASH_BYTES = 4;

/** Names of archives that were in a directory when it was last seen. */
export interface SeenNames {
  has(name: string): boolean;
}

/**
 * Packs the hashes of names, sorted, into base64: 50,000 names are 267 KB of text, however long they are. Two names with the
 * same hash make an archive that arrived count as seen. That keeps archives and deletes none.
 */
export function packHashes(hashes: Iterable<number>): string {
  const sorted = Uint32Array.from(hashes).sort();
  return Buffer.from(sorted.buffer).toString("base64");
}

/** Reads what {@link packHashes} wrote; undefined for anything else, because a damaged list makes news of old archives. */
export function unpackNames(packed: string): SeenNames | undefined {
  const bytes = Buffer.from(packed, "base64");
  if (bytes.toString("base64") !== packed || bytes.length % HASH_BYTES !== 0) return undefined;
  const hashes = new Uint32Array(bytes.length / HASH_BYTES);
  new Uint8Array(hashes.buffer).set(bytes);
  if (hashes.some((hash, at) => at > 0 && hash < (hashes[at - 1] as number))) return undefined;
  return { has: (name) => includesSorted(hashes, hashName(name) >>> 0) };
}

/**
 * 32-bit FNV-1a, as a signed number, which V8 stores without an object of its own. Names of archives are ASCII, so that a
 * UTF-16 unit is a byte.
 */
export function hashName(name: string): number {
  let hash = 0x811c9dc5 | 0;
  for (let at = 0; at < name.length; at += 1) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  return hash;
}

function includesSorted(sorted: Uint32Array, wanted: number): boolean {
  let from = 0;
  let to = sorted.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    if ((sorted[middle] as number) < wanted) from = middle + 1;
    else to = middle;
  }
  return sorted[from] === wanted;
}
