import fc from "fast-check";
import { expect, it } from "vitest";
import { backoffMs } from "../../src/kube/watch.ts";

it("waits twice as long after each failure, half to all of it, and never over half a minute", () => {
  expect([0, 1, 2, 5].map((failures) => backoffMs(failures, { random: () => 1 }))).toEqual([500, 1000, 2000, 16_000]);
  fc.assert(
    fc.property(fc.nat(), fc.double({ min: 0, max: 1, noNaN: true }), (failures, random) => {
      const delayMs = backoffMs(failures, { random: () => random });
      expect(delayMs).toBeGreaterThanOrEqual(250);
      expect(delayMs).toBeLessThanOrEqual(30_000);
    }),
  );
});

it("waits as long as the server asks for, up to a minute", () => {
  expect(backoffMs(0, { random: () => 0, retryAfterMs: 7000 })).toBe(7000);
  expect(backoffMs(0, { random: () => 0, retryAfterMs: 86_400_000 })).toBe(60_000);
  expect(backoffMs(6, { random: () => 1, retryAfterMs: 1000 })).toBe(30_000);
});
