import type { Clock } from "../clock.ts";

/** Names that are to be looked at at a given time, each once. One timer serves them all. */
export interface Agenda {
  /** Enters a name for a time of the monotonic clock, in milliseconds; an earlier entry of the same name stays. */
  enter(name: string, atMs: number): void;
  cancel(name: string): void;
  clear(): void;
}

export function createAgenda(clock: Clock, onDue: (names: string[]) => void): Agenda {
  const entries = new Map<string, number>();
  let timer: NodeJS.Timeout | undefined;
  let wakeAtMs = Number.POSITIVE_INFINITY;

  function wakeBy(atMs: number): void {
    if (atMs >= wakeAtMs) return;
    clearTimeout(timer);
    wakeAtMs = atMs;
    timer = setTimeout(wake, Math.max(1, Math.ceil(atMs - clock.monotonicMs())));
  }

  function wake(): void {
    wakeAtMs = Number.POSITIVE_INFINITY;
    const nowMs = clock.monotonicMs();
    const due: string[] = [];
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [name, atMs] of entries) {
      if (atMs <= nowMs) due.push(name);
      else nextMs = Math.min(nextMs, atMs);
    }
    for (const name of due) entries.delete(name);
    if (entries.size > 0) wakeBy(nextMs);
    if (due.length > 0) onDue(due);
  }

  return {
    enter(name, atMs) {
      const entered = entries.get(name);
      if (entered !== undefined && entered <= atMs) return;
      entries.set(name, atMs);
      wakeBy(atMs);
    },
    cancel: (name) => void entries.delete(name),
    clear() {
      entries.clear();
      clearTimeout(timer);
      wakeAtMs = Number.POSITIVE_INFINITY;
    },
  };
}
