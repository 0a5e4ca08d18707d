import { getOrMake } from "@cro/shared/get-or-make";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { OwnerName } from "../archive/name.ts";
import type { Walk } from "../archive/walk.ts";

/** How many containers' names are held at most; beyond that sharing begins anew. */
const MAX_CONTAINERS = 50_000;

/**
 * Lets all archives of a container share what is the same of them, for else it would be most of what the index of a full
 * directory takes.
 */
export interface Sharing {
  /** The same of the owner's name for every archive that is named after the same pod and container. */
  name(name: OwnerName): OwnerName;
  /**
   * The same walk for good: one that has ended is not touched any more, so that those of a container which found the same
   * can be one. Any other walk is returned as it is.
   */
  walk(identity: ContainerIdentity | undefined, walk: Walk): Walk;
}

export function createSharing(): Sharing {
  const names = new Map<string, OwnerName>();
  const walks = new WeakMap<ContainerIdentity, Walk>();

  return {
    name({ pod, candidates, isAmbiguous }) {
      const [first] = candidates;
      return getOrMake(names, `${pod}_${first?.namespace}-${first?.container}`, () => {
        if (names.size >= MAX_CONTAINERS) names.clear();
        return { pod, candidates, isAmbiguous };
      });
    },
    walk(identity, walk) {
      if (identity === undefined || walk.verdict?.kind !== "ended") return walk;
      const shared = walks.get(identity);
      if (shared !== undefined && isSameVerdict(shared.verdict, walk.verdict)) return shared;
      walks.set(identity, walk);
      return walk;
    },
  };
}

function isSameVerdict(a: Walk["verdict"], b: Walk["verdict"]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
