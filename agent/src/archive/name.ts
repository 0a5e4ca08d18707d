import type { ContainerIdentity } from "@cro/shared/policy/govern";

/** What the file name of an archive proves, and what it leaves open. */
export interface ArchiveName extends OwnerName {
  /** The time in the name, in milliseconds since 1970. */
  timeMs: number;
}

/** What a file name tells of the owner: the same for all archives of a container. */
export interface OwnerName {
  pod: string;
  /** Every way to read NAMESPACE-CONTAINER as two names that Kubernetes allows; at least one. */
  candidates: readonly ContainerIdentity[];
  /**
   * Whether NAMESPACE-CONTAINER holds more than one dash. Then the name alone decides nothing, not even where a single
   * candidate is left: a wrong guess would delete another tenant's archive.
   */
  isAmbiguous: boolean;
}

/**
 * Reads `checkpoint-POD_NAMESPACE-CONTAINER-TIME.tar`, as the kubelet names its archives; undefined is any other file.
 * The three names must be ones that Kubernetes allows (RFC 1123 subdomain and labels), TIME is RFC 3339 in whole seconds
 * with `Z`, a numeric offset or, for UTC, nothing, on a date that exists. Costs one pass over the name.
 */
export function parseArchiveName(file: string): ArchiveName | undefined {
  if (!file.startsWith(PREFIX) || !file.endsWith(SUFFIX)) return undefined;
  const timeEnd = file.length - SUFFIX.length;
  const timeStart = timeEnd - timeLength(file, timeEnd);
  const underscore = file.indexOf("_");
  const joinedEnd = timeStart - 1;
  if (file.charCodeAt(joinedEnd) !== DASH) return undefined;
  const timeMs = parseTime(file, timeStart, timeEnd);
  // Without an underscore nothing stands before it, and that is no pod.
  if (timeMs === undefined || !isSubdomain(file, PREFIX.length, underscore)) return undefined;

  const pod = file.slice(PREFIX.length, underscore);
  const candidates: ContainerIdentity[] = [];
  let dashes = 0;
  for (let at = underscore + 1; at < joinedEnd; at++) {
    const code = file.charCodeAt(at);
    if (isAlphanumeric(code)) continue;
    if (code !== DASH) return undefined;
    dashes++;
    const isSplit =
      at - underscore - 1 <= LABEL_LENGTH &&
      joinedEnd - at - 1 <= LABEL_LENGTH &&
      isAlphanumeric(file.charCodeAt(at - 1)) &&
      isAlphanumeric(file.charCodeAt(at + 1));
    if (isSplit)
      candidates.push({ namespace: file.slice(underscore + 1, at), pod, container: file.slice(at + 1, joinedEnd) });
  }
  const hasNameEnds = isAlphanumeric(file.charCodeAt(underscore + 1)) && isAlphanumeric(file.charCodeAt(joinedEnd - 1));
  if (!hasNameEnds || candidates.length === 0) return undefined;
  return { pod, timeMs, candidates, isAmbiguous: dashes > 1 };
}

const PREFIX = "checkpoint-";
const SUFFIX = ".tar";
const LABEL_LENGTH = 63;
const SUBDOMAIN_LENGTH = 253;

const PLUS = 0x2b;
const DASH = 0x2d;
const DOT = 0x2e;
const ZERO = 0x30;
const COLON = 0x3a;
const UPPER_T = 0x54;
const UPPER_Z = 0x5a;

function isAlphanumeric(code: number): boolean {
  return (code >= 0x61 && code <= 0x7a) || (code >= ZERO && code <= 0x39);
}

function isSubdomain(file: string, start: number, end: number): boolean {
  if (end - start > SUBDOMAIN_LENGTH) return false;
  let previous = DOT; // so that nothing at all is none either
  for (let at = start; at < end; at++) {
    const code = file.charCodeAt(at);
    if (code === DOT) {
      if (previous === DOT || previous === DASH) return false;
    } else if (code === DASH) {
      if (previous === DOT) return false;
    } else if (!isAlphanumeric(code)) return false;
    previous = code;
  }
  return previous !== DOT && previous !== DASH;
}

/** How long the time is that ends there, by the form of its offset. */
function timeLength(file: string, end: number): number {
  if (file.charCodeAt(end - 1) === UPPER_Z) return 20;
  const sign = file.charCodeAt(end - 6);
  return sign === PLUS || sign === DASH ? 25 : 19;
}

function parseTime(file: string, start: number, end: number): number | undefined {
  const isShaped =
    file.charCodeAt(start + 4) === DASH &&
    file.charCodeAt(start + 7) === DASH &&
    file.charCodeAt(start + 10) === UPPER_T &&
    file.charCodeAt(start + 13) === COLON &&
    file.charCodeAt(start + 16) === COLON;
  if (!isShaped) return undefined;
  const year = twoDigits(file, start) * 100 + twoDigits(file, start + 2);
  const month = twoDigits(file, start + 5);
  const day = twoDigits(file, start + 8);
  const hours = twoDigits(file, start + 11);
  const minutes = twoDigits(file, start + 14);
  const seconds = twoDigits(file, start + 17);
  // NaN, from what is no digit, is within no bounds.
  const isTime = month >= 1 && month <= 12 && hours <= 23 && minutes <= 59 && seconds <= 59;
  if (!isTime) return undefined;

  let offsetMinutes = 0;
  if (end - start === 25) {
    if (file.charCodeAt(end - 3) !== COLON) return undefined;
    const offsetHours = twoDigits(file, end - 5);
    const offsetRest = twoDigits(file, end - 2);
    if (!(offsetHours <= 23 && offsetRest <= 59)) return undefined;
    offsetMinutes = (offsetHours * 60 + offsetRest) * (file.charCodeAt(end - 6) === DASH ? -1 : 1);
  }

  const date = new Date(0);
  // Date.UTC would take the years 0 to 99 for 1900 to 1999.
  date.setUTCFullYear(year, month - 1, day);
  // A day that the month does not have becomes another month's; NaN is not even itself.
  if (date.getUTCDate() !== day) return undefined;
  return date.getTime() + ((hours * 60 + minutes - offsetMinutes) * 60 + seconds) * 1000;
}

function twoDigits(file: string, at: number): number {
  const tens = file.charCodeAt(at) - ZERO;
  const ones = file.charCodeAt(at + 1) - ZERO;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN;
}
