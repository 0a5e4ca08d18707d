/** What a duration in a policy was understood to be. */
export type ParsedDuration = { ok: true; milliseconds: number } | { ok: false; problem: string };

const UNITS: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3, // U+00B5, the micro sign
  μs: 1e-3, // U+03BC, the Greek letter
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};

const TERM = /(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h|d|w)/y;
const EXAMPLE = "write e.g. 30s, 12h or 7d";

/**
 * Reads a duration as Go writes it (`1h30m`, `1.5h`; https://pkg.go.dev/time#ParseDuration), and `d` of 24 hours and `w`
 * of 7 days. The result is whole milliseconds, rounded up, so that nothing but zero becomes 0. Negative ones are refused.
 */
export function parseDuration(value: unknown): ParsedDuration {
  const refuse = (why: string): ParsedDuration => ({ ok: false, problem: `${JSON.stringify(value)} ${why}` });
  if (typeof value === "number" && value !== 0) return refuse(`has no unit; ${EXAMPLE}`);
  if (typeof value !== "string" && value !== 0) return refuse(`is not a duration; ${EXAMPLE}`);
  const text = String(value);
  if (text.startsWith("-")) return refuse(`is negative; ${EXAMPLE}`);
  const body = text.startsWith("+") ? text.slice(1) : text;
  if (body === "0") return { ok: true, milliseconds: 0 };
  if (/^[\d.]+$/.test(body)) return refuse(`has no unit; ${EXAMPLE}`);
  let milliseconds = 0;
  TERM.lastIndex = 0;
  do {
    const term = TERM.exec(body);
    if (term === null) return refuse(`is not a duration; ${EXAMPLE}`);
    milliseconds += Number(term[1]) * (UNITS[term[2] ?? ""] ?? Number.NaN);
  } while (TERM.lastIndex < body.length);
  return { ok: true, milliseconds: Math.min(Math.ceil(milliseconds), Number.MAX_SAFE_INTEGER) };
}
