import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseDuration } from "../src/duration.ts";
import { soak } from "./support/soak.ts";

const NANOSECONDS = {
  ns: 1n,
  us: 1000n,
  µs: 1000n,
  μs: 1000n,
  ms: 10n ** 6n,
  s: 10n ** 9n,
  m: 60n * 10n ** 9n,
  h: 3600n * 10n ** 9n,
  d: 24n * 3600n * 10n ** 9n,
  w: 7n * 24n * 3600n * 10n ** 9n,
};

describe("parseDuration", () => {
  it.each([
    ["30s", 30_000],
    ["1h30m", 5_400_000],
    ["1.5h", 5_400_000],
    [".25s", 250],
    ["1.s", 1000],
    ["+5m", 300_000],
    ["100ms", 100],
    ["30d", 30 * 86_400_000],
    ["2w", 14 * 86_400_000],
    ["1w2d3h4m5s6ms", 788_645_006],
    ["1s1s", 2000],
    ["1ns", 1],
    ["1000001ns", 2],
    ["999us", 1],
    ["1µs", 1],
    ["1μs", 1],
    ["0.1s0.2s", 300],
    ["0", 0],
    ["+0", 0],
    [0, 0],
    ["0s", 0],
    ["0h0m", 0],
    ["99999999999999w", Number.MAX_SAFE_INTEGER],
  ])("reads %j as %i ms", (value, milliseconds) => {
    expect(parseDuration(value)).toEqual({ ok: true, milliseconds });
  });

  it.each([
    ["", '"" is not a duration; write e.g. 30s, 12h or 7d'],
    ["soon", '"soon" is not a duration; write e.g. 30s, 12h or 7d'],
    ["30", '"30" has no unit; write e.g. 30s, 12h or 7d'],
    [30, "30 has no unit; write e.g. 30s, 12h or 7d"],
    ["1h30", '"1h30" is not a duration; write e.g. 30s, 12h or 7d'],
    ["-5m", '"-5m" is negative; write e.g. 30s, 12h or 7d'],
    [".s", '".s" is not a duration; write e.g. 30s, 12h or 7d'],
    ["5 m", '"5 m" is not a duration; write e.g. 30s, 12h or 7d'],
    ["5m ", '"5m " is not a duration; write e.g. 30s, 12h or 7d'],
    ["5y", '"5y" is not a duration; write e.g. 30s, 12h or 7d'],
    ["5M", '"5M" is not a duration; write e.g. 30s, 12h or 7d'],
    ["1e3s", '"1e3s" is not a duration; write e.g. 30s, 12h or 7d'],
    ["++5m", '"++5m" is not a duration; write e.g. 30s, 12h or 7d'],
    ["+", '"+" is not a duration; write e.g. 30s, 12h or 7d'],
    [null, "null is not a duration; write e.g. 30s, 12h or 7d"],
    [true, "true is not a duration; write e.g. 30s, 12h or 7d"],
    [["5m"], '["5m"] is not a duration; write e.g. 30s, 12h or 7d'],
  ])("refuses %j", (value, problem) => {
    expect(parseDuration(value)).toEqual({ ok: false, problem });
  });

  it("adds its terms exactly and rounds up to whole milliseconds", () => {
    const term = fc.record({
      whole: fc.integer({ min: 0, max: 9999 }),
      fraction: fc.stringMatching(/^\d{0,9}$/),
      unit: fc.constantFrom(...(Object.keys(NANOSECONDS) as Array<keyof typeof NANOSECONDS>)),
    });
    fc.assert(
      fc.property(fc.array(term, { minLength: 1, maxLength: 4 }), (terms) => {
        const text = terms.map(({ whole, fraction, unit }) => `${whole}${fraction && `.${fraction}`}${unit}`).join("");
        // Whole nanoseconds, as in Go; parts of one count as one, so that only zero is zero.
        const nanoseconds = terms.reduce((sum, { whole, fraction, unit }) => {
          const divisor = 10n ** BigInt(fraction.length);
          return sum + (BigInt(`${whole}${fraction}`) * NANOSECONDS[unit] + divisor - 1n) / divisor;
        }, 0n);
        expect(parseDuration(text)).toEqual({ ok: true, milliseconds: Number((nanoseconds + 999_999n) / 1_000_000n) });
      }),
      { numRuns: soak(1000) },
    );
  });
});
