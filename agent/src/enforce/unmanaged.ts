import type { NodePolicy } from "@cro/shared/policy/document";
import { isOldUnmanaged } from "../archive/archive.ts";
import type { TrustedTime } from "../clock.ts";
import type { Entry } from "../inventory/entry.ts";

/** Knows what maxAgeUnmanaged takes. */
export interface OldUnmanaged {
  /** Those that may go now. */
  due(): Set<Entry>;
  /** Whether one of them was not due yet at the last call. */
  isNews(): boolean;
}

export function createOldUnmanaged(options: {
  /** All archives of which it is known since when nothing manages them. */
  unmanaged: () => Iterable<Entry>;
  time: Pick<TrustedTime, "nowMs">;
  /** Undefined while there is no policy. */
  nodePolicy: () => NodePolicy | undefined;
}): OldUnmanaged {
  const { unmanaged, time, nodePolicy } = options;
  let told = new Set<Entry>();

  function due(): Set<Entry> {
    const node = nodePolicy();
    const nowMs = time.nowMs();
    const old = new Set<Entry>();
    if (node?.maxAgeUnmanagedMs === undefined) return old;
    for (const entry of unmanaged()) if (isOldUnmanaged(entry, node, nowMs)) old.add(entry);
    return old;
  }

  return {
    due,
    isNews() {
      const before = told;
      told = due();
      return [...told].some((entry) => !before.has(entry));
    },
  };
}
