const TIME = /^\d{4}-\d\d-\d\d([Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d))?$/;

/** RFC 3339 with its zone, or a date alone, which begins in UTC; milliseconds since 1970, undefined for anything else. */
export function parseMoment(text: unknown): number | undefined {
  if (typeof text !== "string" || !TIME.test(text)) return undefined;
  const timeMs = Date.parse(text);
  // Date.parse takes the 30th of February for the 2nd of March.
  const day = new Date(`${text.slice(0, 10)}T00:00:00Z`);
  return Number.isNaN(timeMs) || day.getUTCDate() !== Number(text.slice(8, 10)) ? undefined : timeMs;
}
