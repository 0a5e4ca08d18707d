import type { Entry } from "./entry.ts";

/**
 * The order in which archives are walked that a listing found: those of the fullest namespace first, and within it of its
 * fullest container. What holds the most is the nearest to a limit, and rules act on a scope once its last archive was walked.
 */
export function fullestFirst(entries: Iterable<Entry>): Entry[] {
  const namespaces = Map.groupBy(entries, ({ candidates }) => candidates[0]?.namespace);
  return inFullestGroups(namespaces).flatMap((ofNamespace) =>
    // Archives of one container share what names it.
    inFullestGroups(Map.groupBy(ofNamespace, ({ name }) => name)).flat(),
  );
}

function inFullestGroups(groups: ReadonlyMap<unknown, Entry[]>): Entry[][] {
  return [...groups.values()].sort((a, b) => b.length - a.length);
}
