import { expect, it, vi } from "vitest";
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
