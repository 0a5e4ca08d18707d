import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createTrustedTime, TIME_TOLERANCE_MS } from "../src/clock.ts";
import { aClock } from "./support/driven.ts";

const START_MS = 1_800_000_000_000;

describe("trusted time", () => {
  it("is unknown before a directive of this start told it, whatever the clock says", () => {
    const clock = aClock({ wallMs: START_MS });
    const time = createTrustedTime(clock);
    expect(time.nowMs()).toBeUndefined();
    clock.jump(400 * 86_400_000);
    expect(time.nowMs()).toBeUndefined();
  });

  it("is what the directive said, carried on by the monotonic clock, while the machine's clock agrees within five minutes", () => {
    const clock = aClock({ wallMs: START_MS });
    const time = createTrustedTime(clock);
    time.told(START_MS + 1000, clock.monotonicMs());
    clock.pass(3_600_000);
    expect(time.nowMs()).toBe(START_MS + 1000 + 3_600_000);
    clock.jump(TIME_TOLERANCE_MS + 1000);
    expect(time.nowMs()).toBe(START_MS + 1000 + 3_600_000);
    clock.jump(1);
    expect(time.nowMs()).toBeUndefined();
    clock.jump(-2 * TIME_TOLERANCE_MS - 1);
    expect(time.nowMs()).toBe(START_MS + 1000 + 3_600_000);
    clock.jump(-1);
    expect(time.nowMs()).toBeUndefined();
  });

  it("counts from when the directive came, however long it then waited to be acted upon", () => {
    const clock = aClock({ wallMs: START_MS });
    const time = createTrustedTime(clock);
    const receivedAtMs = clock.monotonicMs();
    clock.pass(60_000);
    time.told(START_MS, receivedAtMs);
    expect(time.nowMs()).toBe(START_MS + 60_000);
  });

  it("is never further from any clock that it rests on than these are apart", () => {
    const step = fc.record({
      passMs: fc.nat(10_000_000),
      jumpMs: fc.integer({ min: -1_000_000, max: 1_000_000 }),
      told: fc.option(fc.integer({ min: -1_000_000, max: 1_000_000 }), { nil: undefined }),
    });
    fc.assert(
      fc.property(fc.array(step), (steps) => {
        const clock = aClock({ wallMs: START_MS });
        const time = createTrustedTime(clock);
        let leaderMs: number | undefined;
        for (const { passMs, jumpMs, told } of steps) {
          clock.pass(passMs);
          clock.jump(jumpMs);
          if (leaderMs !== undefined) leaderMs += passMs;
          if (told !== undefined) {
            leaderMs = clock.wallMs() + told;
            time.told(leaderMs, clock.monotonicMs());
          }
          const doAgree = leaderMs !== undefined && Math.abs(leaderMs - clock.wallMs()) <= TIME_TOLERANCE_MS;
          expect(time.nowMs()).toBe(doAgree ? leaderMs : undefined);
        }
      }),
    );
  });
});
