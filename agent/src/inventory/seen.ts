const HASH_BYTES = 4;

/** Names of archives that were in a directory when it was last seen. */
export interface SeenNames {
  has(name: string): boolean;
}

/**
 * Packs names into base64 of their sorted 32-bit hashes: 50,000 names are 267 KB of text, however long they are. Two names
 * with the same hash make an archive that arrived count as seen. That keeps archives and deletes none.
 */
export function packNames(names: Iterable<string>): string {
  const hashes = Uint32Array.from(names, hashName).sort();
  return Buffer.from(hashes.buffer).toString("base64");
}

/** Reads what {@link packNames} wrote; undefined for anything else, because a damaged list makes news of old archives. */
export function unpackNames(packed: string): SeenNames | undefined {
  const bytes = Buffer.from(packed, "base64");
  if (bytes.toString("base64") !== packed || bytes.length % HASH_BYTES !== 0) return undefined;
  const hashes = new Uint32Array(bytes.length / HASH_BYTES);
  new Uint8Array(hashes.buffer).set(bytes);
  if (hashes.some((hash, at) => at > 0 && hash < (hashes[at - 1] as number))) return undefined;
  const known = new Set(hashes);
  return { has: (name) => known.has(hashName(name)) };
}

/** 32-bit FNV-1a. Names of archives are ASCII, so that a UTF-16 unit is a byte. */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < name.length; at += 1) hash = Math.imul(hash ^ name.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}
