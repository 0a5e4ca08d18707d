import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatBytes, formatQuantity, parseQuantity } from "../src/quantity.ts";
import { soak } from "./support/soak.ts";

const MIB = 2 ** 20;

const UNITS: Record<string, bigint> = {
  k: 10n ** 3n,
  M: 10n ** 6n,
  G: 10n ** 9n,
  T: 10n ** 12n,
  P: 10n ** 15n,
  E: 10n ** 18n,
  Ki: 2n ** 10n,
  Mi: 2n ** 20n,
  Gi: 2n ** 30n,
  Ti: 2n ** 40n,
  Pi: 2n ** 50n,
  Ei: 2n ** 60n,
};

describe("parseQuantity", () => {
  it.each([
    ["10Gi", 10 * 2 ** 30],
    ["1Mi", MIB],
    ["1024Ki", MIB],
    ["2Ti", 2 ** 41],
    ["1Pi", 2 ** 50],
    ["500M", 500e6],
    ["2000k", 2e6],
    ["3G", 3e9],
    ["4T", 4e12],
    ["5P", 5e15],
    ["+10Gi", 10 * 2 ** 30],
    ["1.5Gi", 1.5 * 2 ** 30],
    ["1.Gi", 2 ** 30],
    [".5Gi", 2 ** 29],
    [`0.${"0".repeat(57)}1e60`, 100 * MIB],
    ["1048576.1k", 1048576100],
    ["1.0000000001Mi", MIB + 1],
    ["007Mi", 7 * MIB],
  ])("reads %s as %i bytes", (text, bytes) => {
    expect(parseQuantity(text)).toMatchObject({ ok: true, bytes });
  });

  it.each([
    [10, 10 * MIB, "10Mi"],
    ["10", 10 * MIB, "10Mi"],
    ["1e3", 1000 * MIB, "1000Mi"],
    ["1E3", 1000 * MIB, "1000Mi"],
    [1e3, 1000 * MIB, "1000Mi"],
    ["25e-1", 2.5 * MIB, "2560Ki"],
    [`1${"0".repeat(50)}e-50`, MIB, "1Mi"],
    ["1.5", 1.5 * MIB, "1536Ki"],
    ["2048", 2 ** 31, "2Gi"],
    ["+3", 3 * MIB, "3Mi"],
  ])("takes %j, which has no unit, as MiB and tells how to write it", (value, bytes, unitless) => {
    expect(parseQuantity(value)).toEqual({ ok: true, bytes, unitless });
  });

  it.each([0, "0", "0Gi", "0.0", "0e5", "+0", ".0k"])("reads %j as 0, of which no unit need be told", (value) => {
    expect(parseQuantity(value)).toEqual({ ok: true, bytes: 0 });
  });

  it.each(["8Ei", "16E", "1e30", 1e21, `1${"0".repeat(60)}Ei`])("cuts %j to the largest safe integer", (value) => {
    expect(parseQuantity(value)).toMatchObject({ ok: true, bytes: Number.MAX_SAFE_INTEGER });
  });

  it.each([
    ["-1Gi", '"-1Gi" is negative; write e.g. 10Gi, or 0 for no limit'],
    [-5, "-5 is negative; write e.g. 10Gi, or 0 for no limit"],
    ["500m", '"500m" has the suffix m, which makes no size; write e.g. 10Gi'],
    ["5u", '"5u" has the suffix u, which makes no size; write e.g. 10Gi'],
    ["5n", '"5n" has the suffix n, which makes no size; write e.g. 10Gi'],
    ["1023Ki", '"1023Ki" is under 1Mi, the smallest limit there is; 0 means no limit'],
    ["0.5", '"0.5" is under 1Mi, the smallest limit there is; 0 means no limit'],
    ["1e-9", '"1e-9" is under 1Mi, the smallest limit there is; 0 means no limit'],
    [1.5, "1.5 is a fraction without a unit; quote it and give it one, e.g. 1.5Gi"],
    ["", '"" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["10GiB", '"10GiB" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["10K", '"10K" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["10 Gi", '"10 Gi" is not a Kubernetes quantity; write e.g. 10Gi'],
    [" 10Gi", '" 10Gi" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["1e3Gi", '"1e3Gi" is not a Kubernetes quantity; write e.g. 10Gi'],
    [".", '"." is not a Kubernetes quantity; write e.g. 10Gi'],
    ["Gi", '"Gi" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["1e", '"1e" is not a Kubernetes quantity; write e.g. 10Gi'],
    ["10Gi\n", '"10Gi\\n" is not a Kubernetes quantity; write e.g. 10Gi'],
    [true, "true is not a Kubernetes quantity; write e.g. 10Gi"],
    [null, "null is not a Kubernetes quantity; write e.g. 10Gi"],
    [["10Gi"], '["10Gi"] is not a Kubernetes quantity; write e.g. 10Gi'],
  ])("refuses %j", (value, problem) => {
    expect(parseQuantity(value)).toEqual({ ok: false, problem });
  });

  it("computes exactly, whatever the digits, exponent or unit, and rounds up", () => {
    const digits = fc.stringMatching(/^\d{0,20}$/);
    fc.assert(
      fc.property(
        fc.tuple(digits, digits).filter(([whole, fraction]) => whole + fraction !== ""),
        fc.oneof(fc.constantFrom(...Object.keys(UNITS)), fc.integer({ min: -60, max: 60 })),
        ([whole, fraction], unit) => {
          const isExponent = typeof unit === "number";
          const text = `${whole}${fraction === "" ? "" : `.${fraction}`}${isExponent ? `e${unit}` : unit}`;
          // Both sides times 10^100: nothing is lost.
          const scale = 10n ** BigInt(100 + (isExponent ? unit : 0) - fraction.length);
          const scaled = BigInt(`0${whole}${fraction}`) * scale * (isExponent ? 2n ** 20n : (UNITS[unit] ?? 0n));
          const exact = (scaled + 10n ** 100n - 1n) / 10n ** 100n;
          const parsed = parseQuantity(text);
          if (exact > 0n && exact < 2n ** 20n) expect(parsed).toMatchObject({ ok: false });
          else {
            const largest = BigInt(Number.MAX_SAFE_INTEGER);
            expect(parsed).toMatchObject({ ok: true, bytes: Number(exact > largest ? largest : exact) });
          }
        },
      ),
      { numRuns: soak(2000) },
    );
  });

  it("reads back what formatQuantity writes with a unit", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2 ** 33 }), (mebibytes) => {
        const bytes = Math.min(mebibytes * MIB, Number.MAX_SAFE_INTEGER - (Number.MAX_SAFE_INTEGER % MIB));
        expect(parseQuantity(formatQuantity(bytes))).toEqual({ ok: true, bytes });
      }),
    );
  });
});

describe("formatQuantity", () => {
  it.each([
    [0, "0"],
    [1000, "1k"],
    [1001, "1001"],
    [1024, "1Ki"],
    [10 * 2 ** 30, "10Gi"],
    [1.5 * 2 ** 30, "1536Mi"],
    [500e6, "500M"],
    [2 ** 50, "1Pi"],
    [10_112_000, "9875Ki"], // as short as 10112k
  ])("writes %i as %s", (bytes, text) => {
    expect(formatQuantity(bytes)).toBe(text);
  });

  it.each(Object.entries(UNITS))("knows the unit %s", (unit, bytes) => {
    expect(formatQuantity(3 * Number(bytes))).toBe(`3${unit}`);
  });
});

describe("formatBytes", () => {
  it.each([
    [0, "0"],
    [1023, "1023"],
    [1024, "1Ki"],
    [288768, "282Ki"],
    [1572864, "1.5Mi"],
    [10.4 * 2 ** 30, "10Gi"],
    [3 * 2 ** 40, "3Ti"],
    [2 ** 53 - 1, "8Pi"],
  ])("writes %i as %s", (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});
