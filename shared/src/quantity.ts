import { show } from "./show.ts";

/** What a quantity of bytes in a policy was understood to be. */
export type ParsedQuantity =
  | {
      ok: true;
      /** Bytes, a safe integer. What is larger than 2^53 - 1 is cut to it: no file system holds more. */
      bytes: number;
      /** Set where the quantity has no suffix letter and was therefore taken as MiB: how to write it plainly. */
      unitless?: string;
    }
  | { ok: false; problem: string };

const MIB = 1024n * 1024n;
const MAX_BYTES = BigInt(Number.MAX_SAFE_INTEGER);
const EXAMPLE = "write e.g. 10Gi";

/**
 * A Kubernetes quantity: sign, decimal digits, then a binary suffix, a decimal suffix or a decimal exponent.
 * Grammar: k8s.io/apimachinery/pkg/api/resource/quantity.go.
 */
const QUANTITY = /^([+-]?)(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?$/;

const SUFFIXES: Readonly<Record<string, bigint>> = {
  Ki: 1n << 10n,
  Mi: 1n << 20n,
  Gi: 1n << 30n,
  Ti: 1n << 40n,
  Pi: 1n << 50n,
  Ei: 1n << 60n,
  k: 10n ** 3n,
  M: 10n ** 6n,
  G: 10n ** 9n,
  T: 10n ** 12n,
  P: 10n ** 15n,
  E: 10n ** 18n,
};

/** Exponents beyond this are far outside any size; bounding them keeps hostile input from building huge numbers. */
const MAX_EXPONENT = 40;

/**
 * Reads a size as policies write it. Every form that Kubernetes knows is understood; decimals are rounded up to bytes.
 * A number without a suffix letter (`10`, `"10"`, `1e3`) is MiB, as the field's first definition had it. Refused, with
 * a problem that names the value and the way out: milli, micro and nano, negative numbers, and sizes under 1 MiB other
 * than 0.
 */
export function parseQuantity(value: unknown): ParsedQuantity {
  if (typeof value !== "string" && typeof value !== "number") {
    return refuse(value, `is not a Kubernetes quantity; ${EXAMPLE}`);
  }
  if (typeof value === "number" && !Number.isInteger(value)) {
    return refuse(value, "is a fraction without a unit; quote it and give it one, e.g. 1.5Gi");
  }
  const match = QUANTITY.exec(String(value));
  if (match === null) return refuse(value, `is not a Kubernetes quantity; ${EXAMPLE}`);
  const [, sign, digits = "", suffix = ""] = match;
  if (sign === "-") return refuse(value, `is negative; ${EXAMPLE}, or 0 for no limit`);
  if (suffix === "n" || suffix === "u" || suffix === "m") {
    return refuse(value, `has the suffix ${suffix}, which makes no size; ${EXAMPLE}`);
  }
  const isUnitless = SUFFIXES[suffix] === undefined;
  const exponent = isUnitless ? Number(suffix.slice(1)) : 0; // no digits are 0
  const bytes = scale(digits, exponent, SUFFIXES[suffix] ?? MIB);
  if (bytes > 0n && bytes < MIB) return refuse(value, "is under 1Mi, the smallest limit there is; 0 means no limit");
  const parsed = { ok: true as const, bytes: Number(bytes > MAX_BYTES ? MAX_BYTES : bytes) };
  return isUnitless && bytes > 0n ? { ...parsed, unitless: formatQuantity(parsed.bytes) } : parsed;
}

function refuse(value: unknown, why: string): ParsedQuantity {
  return { ok: false, problem: `${show(value)} ${why}` };
}

/** digits × 10^exponent × unit, rounded up. */
function scale(digits: string, exponent: number, unit: bigint): bigint {
  const [whole = "", fraction = ""] = digits.split(".");
  const mantissa = BigInt(`0${whole}${fraction}`);
  const power =
    Math.max(-MAX_EXPONENT - digits.length, Math.min(exponent, MAX_EXPONENT + digits.length)) - fraction.length;
  if (power >= 0) return mantissa * 10n ** BigInt(power) * unit;
  const divisor = 10n ** BigInt(-power);
  return (mantissa * unit + divisor - 1n) / divisor;
}

/** Bytes as the shortest exact quantity: 10737418240 is "10Gi", 1000 is "1k", 1001 is "1001". */
export function formatQuantity(bytes: number): string {
  let shortest = String(bytes);
  for (const [suffix, unit] of Object.entries(SUFFIXES)) {
    const inUnits = bytes / Number(unit);
    if (Number.isInteger(inUnits) && `${inUnits}${suffix}`.length < shortest.length) shortest = `${inUnits}${suffix}`;
  }
  return shortest;
}

/** Whole bytes for a reader, in binary units with at most one decimal: 288768 is "282Ki", 1572864 is "1.5Mi". */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = "";
  for (const next of ["Ki", "Mi", "Gi", "Ti", "Pi"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return `${value < 10 ? Math.round(value * 10) / 10 : Math.round(value)}${unit}`;
}
