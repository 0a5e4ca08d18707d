import { RFC_3339 } from "@cro/shared/rfc3339";

const DATE = /^\d{4}-\d\d-\d\d$/;

/** RFC 3339 with its zone, or a date alone, which begins in UTC; milliseconds since 1970, undefined for anything else. */
export function parseMoment(text: unknown): number | undefined {
  if (typeof text !== "string" || !(DATE.test(text) || RFC_3339.test(text))) return undefined;
  const timeMs = Date.parse(text);
  // Date.parse takes the 30th of February for the 2nd of March.
  const day = new Date(text.slice(0, 10)).getUTCDate();
  return Number.isNaN(timeMs) || day !== Number(text.slice(8, 10)) ? undefined : timeMs;
}
