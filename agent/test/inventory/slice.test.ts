import { expect, it } from "vitest";
import { startSlice } from "../../src/inventory/slice.ts";
import { aClock } from "../support/driven.ts";

it("is over after 5 ms, and the next one begins when everything else has had its turn", async () => {
  const clock = aClock();
  const slice = startSlice(clock);
  clock.pass(4);
  expect(slice.isOver()).toBe(false);
  clock.pass(1);
  expect(slice.isOver()).toBe(true);
  let hadTurn = false;
  setImmediate(() => {
    hadTurn = true;
    clock.pass(100);
  });
  await slice.next();
  expect([hadTurn, slice.isOver()]).toEqual([true, false]);
  clock.pass(5);
  expect(slice.isOver()).toBe(true);
});
