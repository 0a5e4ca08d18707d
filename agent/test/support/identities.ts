import fc from "fast-check";

const ALPHANUMERIC = "abcxyz0189";

/** Any RFC 1123 label, with many dashes; now and then one of the longest. */
export const arbitraryLabel: fc.Arbitrary<string> = fc
  .tuple(
    fc.string({ unit: fc.constantFrom(...ALPHANUMERIC, "-", "-", "-"), maxLength: 61, size: "max" }),
    fc.constantFrom(...ALPHANUMERIC),
    fc.constantFrom(...ALPHANUMERIC),
    fc.integer({ min: 0, max: 12 }),
  )
  .map(([middle, first, last, length]) => {
    if (length === 0) return first;
    return `${first}${length === 12 ? middle : middle.slice(0, length)}${last}`;
  });

/** Any RFC 1123 subdomain of up to 253 characters. */
export const arbitrarySubdomain: fc.Arbitrary<string> = fc
  .array(arbitraryLabel, { minLength: 1, maxLength: 5 })
  .map((labels) => labels.join("."))
  .filter((name) => name.length <= 253);

/** Any container that Kubernetes allows. */
export const arbitraryIdentity = fc.record({
  namespace: arbitraryLabel,
  pod: arbitrarySubdomain,
  container: arbitraryLabel,
});

/** Any moment of four-digit years, as a name may tell it. */
export const arbitraryTime = fc
  .record({
    second: fc.integer({ min: Date.UTC(1, 0, 2) / 1000, max: Date.UTC(9999, 11, 30) / 1000 }),
    offset: fc.oneof(fc.constantFrom("", "Z"), fc.integer({ min: -14 * 60, max: 14 * 60 })),
  })
  .map(({ second, offset }) => {
    const timeMs = second * 1000;
    const minutes = typeof offset === "number" ? offset : 0;
    const local = new Date(timeMs + minutes * 60_000).toISOString().slice(0, 19);
    return { timeMs, time: local + (typeof offset === "number" ? zone(offset) : offset) };
  });

function zone(minutes: number): string {
  const digits = (value: number) => String(value).padStart(2, "0");
  const absolute = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${digits(Math.floor(absolute / 60))}:${digits(absolute % 60)}`;
}
