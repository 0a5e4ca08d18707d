import { afterEach, describe, expect, it, vi } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { createAgenda } from "../../src/inventory/agenda.ts";

const until = (condition: () => void) => vi.waitFor(condition, { timeout: 5000, interval: 5 });

function anAgenda() {
  const due: Array<{ name: string; atMs: number }> = [];
  const agenda = createAgenda(systemClock, (names) => {
    for (const name of names) due.push({ name, atMs: systemClock.monotonicMs() });
  });
  return { agenda, due, names: () => due.map(({ name }) => name) };
}

it("tells each name once, in its time and not before", async () => {
  const { agenda, due, names } = anAgenda();
  const nowMs = systemClock.monotonicMs();
  const times = { c: nowMs + 90, a: nowMs + 30, b: nowMs + 60 };
  for (const [name, atMs] of Object.entries(times)) agenda.enter(name, atMs);
  // On a machine that is slower than that they come together, in any order.
  await until(() => expect(names().sort()).toEqual(["a", "b", "c"]));
  for (const { name, atMs } of due) expect(atMs).toBeGreaterThanOrEqual(times[name as "a"]);
});

it("keeps the earlier of two entries of a name, whichever came first", async () => {
  const { agenda, due, names } = anAgenda();
  const nowMs = systemClock.monotonicMs();
  agenda.enter("a", nowMs + 20);
  agenda.enter("a", nowMs + 60_000);
  agenda.enter("b", nowMs + 60_000);
  agenda.enter("b", nowMs + 40);
  await until(() => expect(names()).toEqual(["a", "b"]));
  agenda.enter("end", systemClock.monotonicMs() + 20);
  await until(() => expect(names()).toEqual(["a", "b", "end"]));
  expect(due.at(-1)?.atMs).toBeLessThan(nowMs + 60_000);
  agenda.clear();
});

it("tells no name that was taken out, and all of those again that are entered anew", async () => {
  const { agenda, names } = anAgenda();
  const soonMs = systemClock.monotonicMs() + 20;
  for (const name of ["a", "b"]) agenda.enter(name, soonMs);
  agenda.cancel("a");
  await until(() => expect(names()).toEqual(["b"]));
  agenda.enter("c", soonMs);
  agenda.clear();
  agenda.enter("a", systemClock.monotonicMs() + 20);
  await until(() => expect(names()).toEqual(["b", "a"]));
});

describe("the one timer", () => {
  afterEach(() => void vi.useRealTimers());

  /** An agenda whose clock goes with the timers, and nothing else. */
  function aTimedAgenda() {
    vi.useFakeTimers();
    const startMs = Date.now();
    let reads = 0;
    const told: Array<[number, string[]]> = [];
    const clock = {
      wallMs: () => Date.now(),
      monotonicMs: () => {
        reads += 1;
        return Date.now() - startMs;
      },
    };
    const agenda = createAgenda(clock, (names) => told.push([Date.now() - startMs, names]));
    return { agenda, told, reads: () => reads };
  }

  it("ends at the earliest entry, in whichever order they come, and sleeps until then", () => {
    const { agenda, told, reads } = aTimedAgenda();
    agenda.enter("late", 90);
    agenda.enter("early", 30);
    agenda.enter("too", 30);
    agenda.enter("middle", 60);
    expect(vi.getTimerCount()).toBe(1);
    vi.advanceTimersByTime(29);
    expect([told, reads() < 8]).toEqual([[], true]);
    vi.advanceTimersByTime(100);
    expect(told).toEqual([
      [30, ["early", "too"]],
      [60, ["middle"]],
      [90, ["late"]],
    ]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("tells nothing of a name that was taken out, and is off once all are", () => {
    const { agenda, told } = aTimedAgenda();
    agenda.enter("a", 30);
    agenda.cancel("a");
    vi.advanceTimersByTime(100);
    expect(told).toEqual([]);
    agenda.enter("b", 200);
    agenda.clear();
    expect(vi.getTimerCount()).toBe(0);
  });
});
