import { show } from "./show.ts";

/** What a duration in a policy was understood to be. */
export type ParsedDuration = { ok: true; milliseconds: number } | { ok: false; problem: string };

const NANOSECONDS: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1000n,
  µs: 1000n, // U+00B5, the micro sign
  μs: 1000n, // U+03BC, the Greek letter
  ms: 1_000_000n,
  s: 1_000_000_000n,
  m: 60_000_000_000n,
  h: 3_600_000_000_000n,
  d: 86_400_000_000_000n,
  w: 604_800_000_000_000n,
};
const NANOSECONDS_PER_MILLISECOND = 1_000_000n;
const MAX_MILLISECONDS = BigInt(Number.MAX_SAFE_INTEGER);

const TERM = /(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h|d|w)/y;
const EXAMPLE = "write e.g. 30s, 12h or 7d";

/**
 * Reads a duration as Go writes it (`1h30m`, `1.5h`; https://pkg.go.dev/time#ParseDuration), and `d` of 24 hours and `w`
 * of 7 days. The result is whole milliseconds, rounded up, so that nothing but zero becomes 0. Negative ones are refused.
 */
export function parseDuration(value: unknown): ParsedDuration {
  const refuse = (why: string): ParsedDuration => ({ ok: false, problem: `${show(value)} ${why}` });
  if (typeof value === "number" && value !== 0) return refuse(`has no unit; ${EXAMPLE}`);
  if (typeof value !== "string" && value !== 0) return refuse(`is not a duration; ${EXAMPLE}`);
  const text = String(value);
  if (text.startsWith("-")) return refuse(`is negative; ${EXAMPLE}`);
  const body = text.startsWith("+") ? text.slice(1) : text;
  if (body === "0") return { ok: true, milliseconds: 0 };
  if (/^[\d.]+$/.test(body)) return refuse(`has no unit; ${EXAMPLE}`);
  let nanoseconds = 0n;
  TERM.lastIndex = 0;
  do {
    const term = TERM.exec(body);
    if (term === null) return refuse(`is not a duration; ${EXAMPLE}`);
    const [, digits = "", unit = ""] = term;
    nanoseconds += scale(digits, NANOSECONDS[unit] ?? 0n);
  } while (TERM.lastIndex < body.length);
  const milliseconds = divideUp(nanoseconds, NANOSECONDS_PER_MILLISECOND);
  return { ok: true, milliseconds: Number(milliseconds > MAX_MILLISECONDS ? MAX_MILLISECONDS : milliseconds) };
}

/** digits × unit, rounded up. Exact, for sums of doubles would make a millisecond out of an error. */
function scale(digits: string, unit: bigint): bigint {
  const [whole = "", fraction = ""] = digits.split(".");
  return divideUp(BigInt(`0${whole}${fraction}`) * unit, 10n ** BigInt(fraction.length));
}

function divideUp(dividend: bigint, divisor: bigint): bigint {
  return (dividend + divisor - 1n) / divisor;
}
