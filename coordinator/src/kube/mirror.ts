import { isDeepStrictEqual } from "node:util";
import type { WatchEvent } from "./watch.ts";

/** The objects of a watch, as they were last known. */
export interface Mirror<T> {
  /** By key; undefined until they are known. As last known while the watch is lost. */
  readonly items: ReadonlyMap<string, T> | undefined;
  /** Whether the watch keeps them current. Until then, and while it is lost, nothing is known to be absent. */
  readonly isSynced: boolean;
  /** Takes an event in; tells whether anything is other than before. */
  take(event: WatchEvent<T>): boolean;
}

/** @param isSame whether two states of one object make no difference; by default if they are equal */
export function createMirror<T>(
  keyOf: (item: T) => string,
  isSame: (a: T, b: T) => boolean = isDeepStrictEqual,
): Mirror<T> {
  let items: Map<string, T> | undefined;
  let isSynced = false;

  function take(event: WatchEvent<T>): boolean {
    if (event.type === "lost") {
      isSynced = false;
      return false;
    }
    if (event.type === "synced") {
      items = new Map(event.items.map((item) => [keyOf(item), item]));
      isSynced = true;
      return true;
    }
    const key = keyOf(event.item);
    if (event.type === "deleted") return items?.delete(key) ?? false;
    const before = items?.get(key);
    if (before !== undefined && isSame(before, event.item)) return false;
    items?.set(key, event.item);
    return true;
  }

  return {
    get items() {
      return items;
    },
    get isSynced() {
      return isSynced;
    },
    take,
  };
}
