import type { TSchema } from "typebox";
import { Compile } from "typebox/compile";
import { PLAIN_PATH } from "../crd/schema.ts";
import { isObject } from "../is-object.ts";
import { RFC_3339 } from "../rfc3339.ts";
import {
  type ArchiveSum,
  ASKED_CONTAINERS,
  OrphanScope,
  PinnedLimit,
  REPORT_LIMITS,
  Report,
  ReportedDeletion,
  ReportedLimit,
  TOKEN,
} from "./report.ts";

/** What became of a value that came in place of a report. */
export type ReadReport =
  /** `dropped` tells what in it is not believed, one line an entry of the report; nothing acts on that part. */
  { ok: true; report: Report; dropped: string[] } | { ok: false; problem: string };

/** How much of a text is kept, in characters: it goes into logs and into the status of a policy. */
const MAX_TEXT = 1000;
/** The longest path that is believed, in characters: it may get into the policy of a node that rests, and its record. */
const MAX_PATH = 1024;
const PATH = new RegExp(PLAIN_PATH);
/** The most words of a map: an agent may give any. */
const MAX_WORDS = 64;
/** How many parts that are not believed are told of one by one. */
const MAX_TOLD = 10;
/** As far as clocks of a cluster are apart, in milliseconds: what a report dates later than that has not happened. */
const CLOCK_TOLERANCE_MS = 5 * 60_000;

const FINGERPRINT = /^[0-9A-Fa-f:]{64,95}$/;
const WORD = new RegExp(TOKEN);
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it replaces
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/g;

/** The parts of which one may be wrong without the whole being so. */
const LISTS = {
  namespaces: { items: (Report.properties.namespaces as { items: TSchema }).items, omitted: "namespacesOmitted" },
  orphanScopes: { items: OrphanScope, omitted: "orphanScopesOmitted" },
  unreachable: { items: ReportedLimit, omitted: "unreachableOmitted" },
  pinnedLimits: { items: PinnedLimit, omitted: "pinnedLimitsOmitted" },
  deletions: { items: ReportedDeletion, omitted: "deletionsOmitted" },
} as const;

/** Makes a reader of reports; compiling the checks takes a while, so one is kept. */
export function createReportReader(): (value: unknown, nowMs: number) => ReadReport {
  const checks = Object.fromEntries(
    Object.entries(LISTS).map(([name, { items }]) => [name, Compile(items as TSchema)]),
  );
  const checkReport = Compile(Report);
  const checkFailing = Compile(Report.properties.failing);
  const checkFields = Compile(Report.properties.documentFields);

  /**
   * Reads what may be any text of somebody else. Entries of lists, times and words that are not what they should be are
   * left out and told of; a report that is wrong in what it is as a whole is none.
   * @param nowMs the reader's own clock, in milliseconds since 1970
   */
  return function readReport(value: unknown, nowMs: number): ReadReport {
    if (!isObject(value)) return { ok: false, problem: "the body is no JSON object" };
    const dropped: string[] = [];
    const drop = (what: string) => void dropped.push(what);
    const report: Record<string, unknown> = { ...value };

    for (const [name, { omitted }] of Object.entries(LISTS)) {
      const list = value[name];
      if (!Array.isArray(list)) continue;
      const limit = REPORT_LIMITS[name as keyof typeof LISTS];
      // Of deletions the last are new; of all else the first matter most. What exceeds the limit costs nothing.
      const looked =
        name === "deletions"
          ? list.slice(-limit).map((entry) => withBelievedTime(entry, { nowMs, drop }))
          : list.slice(0, limit);
      const { entries, cut } =
        name === "orphanScopes" ? withFewContainers(looked) : { entries: looked.map(withFewCodes), cut: 0 };
      const kept = entries.filter((entry, index) => {
        const isGood = checks[name]?.Check(entry) === true;
        // To find the problem costs much more than to see that there is one.
        if (!isGood) drop(dropped.length < MAX_TOLD ? `${name}[${index}]: ${firstProblem(checks[name], entry)}` : name);
        return isGood;
      });
      report[name] = kept;
      report[omitted] = addUp(value[omitted], list.length - kept.length + cut);
    }
    if (value.time !== undefined) setOrDrop(report, "time", believeTime(value.time, nowMs), drop);
    if (value.documentFields !== undefined && !checkFields.Check(value.documentFields)) {
      setOrDrop(report, "documentFields", undefined, drop);
    }
    if (isObject(value.states)) report.states = readWords(value.states, { name: "states", isGood: isCount, drop });
    if (value.deleted !== undefined)
      setOrDrop(report, "deleted", readSums(value.deleted, { name: "deleted", drop }), drop);
    if (value.plan !== undefined) setOrDrop(report, "plan", readPlan(value.plan, drop), drop);
    if (value.failing !== undefined) {
      const failing = withFewCodes(value.failing);
      setOrDrop(report, "failing", checkFailing.Check(failing) ? failing : undefined, drop);
    }
    if (isObject(value.directory)) {
      const { path, message } = value.directory;
      const isBelieved = typeof path !== "string" || path === "" || isPlainPath(path);
      if (!isBelieved) drop("directory.path: it is too long, or no plain absolute path");
      report.directory = {
        ...value.directory,
        ...(!isBelieved && { path: "" }),
        ...(typeof message === "string" && { message: plain(message, MAX_TEXT) }),
      };
    }
    if (isObject(value.certificates)) report.certificates = readCertificates(value.certificates, drop);

    if (!checkReport.Check(report)) return { ok: false, problem: firstProblem(checkReport, report) };
    const more = dropped.length - MAX_TOLD;
    const known = pickKnown(report, Report as Shape) as Report;
    return {
      ok: true,
      report: known,
      dropped: more > 0 ? [...dropped.slice(0, MAX_TOLD), `and ${more} more`] : dropped,
    };
  };
}

/** A map of a set that later versions may add to, of bounded size; what is no word, or has no good value, is left out. */
function readWords(
  words: Record<string, unknown>,
  { name, isGood, drop }: { name: string; isGood: (value: unknown) => boolean; drop: (what: string) => void },
): Record<string, unknown> {
  const all = Object.entries(words);
  const good = all.filter(([word, value]) => WORD.test(word) && isGood(value)).slice(0, MAX_WORDS);
  if (good.length < all.length) drop(`${name}: ${all.length - good.length} of them are none`);
  return Object.fromEntries(good);
}

function readSums(sums: unknown, { name, drop }: { name: string; drop: (what: string) => void }) {
  if (!isObject(sums)) return undefined;
  const isGood = (sum: unknown) => isObject(sum) && isCount(sum.archives) && isCount(sum.bytes);
  const good = readWords(sums, { name, isGood, drop }) as Record<string, ArchiveSum>;
  return Object.fromEntries(Object.entries(good).map(([word, { archives, bytes }]) => [word, { archives, bytes }]));
}

/** What would go; without a number that may be believed it is not known. */
function readPlan(plan: unknown, drop: (what: string) => void) {
  if (!isObject(plan) || !isCount(plan.bytes)) return undefined;
  const byReason = readSums(plan.byReason, { name: "plan.byReason", drop });
  return byReason && { bytes: plan.bytes, byReason };
}

/** A text in which nothing steers a terminal, and of bounded length. */
export function plain(text: string, maxLength = MAX_TEXT): string {
  return text.slice(0, maxLength).replace(CONTROL, " ");
}

/** A schema, as far as the known members of a value are found by it. */
interface Shape {
  properties?: Record<string, Shape>;
  items?: Shape;
}

/** A value without the members that its schema does not name: a report is kept, and they may be of any size. */
function pickKnown(value: unknown, { properties, items }: Shape): unknown {
  if (Array.isArray(value)) return items === undefined ? value : value.map((item) => pickKnown(item, items));
  if (properties === undefined || !isObject(value)) return value;
  const known = Object.entries(properties).filter(([name]) => Object.hasOwn(value, name));
  return Object.fromEntries(known.map(([name, shape]) => [name, pickKnown(value[name], shape)]));
}

/** Orphan scopes about as many containers and UIDs as a report may ask about. `cut` is how many scopes lost some. */
function withFewContainers(scopes: unknown[]): { entries: unknown[]; cut: number } {
  let left: number = ASKED_CONTAINERS.perReport;
  let cut = 0;
  const entries = scopes.map((scope) => {
    if (!isObject(scope) || !Array.isArray(scope.containers)) return scope;
    const take = (list: unknown[]) => {
      const taken = list.slice(0, Math.min(left, ASKED_CONTAINERS.perPod));
      left -= taken.length;
      return taken;
    };
    const { uids } = scope;
    const containers = take(scope.containers);
    const few = Array.isArray(uids) ? take(uids) : [];
    const isCut = containers.length < scope.containers.length || (Array.isArray(uids) && few.length < uids.length);
    if (isCut) cut += 1;
    return { ...scope, containers, ...(Array.isArray(uids) && { uids: few }) };
  });
  return { entries, cut };
}

/** An entry with as many error codes as are kept: a later version may tell more, and the first ones are enough. */
function withFewCodes(entry: unknown): unknown {
  if (!isObject(entry) || !Array.isArray(entry.codes)) return entry;
  return { ...entry, codes: entry.codes.slice(0, REPORT_LIMITS.failingCodes) };
}

function isPlainPath(path: string): boolean {
  return path.length <= MAX_PATH && PATH.test(path) && plain(path, MAX_PATH) === path;
}

function readCertificates(certificates: Record<string, unknown>, drop: (what: string) => void) {
  const { authorities, notAfter, ...rest } = certificates;
  const read: Record<string, unknown> = { ...rest, authorities };
  if (Array.isArray(authorities)) {
    // Not to be told that an agent trusts an authority is safe: the old one is then trusted for longer.
    read.authorities = authorities.filter((text) => typeof text === "string" && FINGERPRINT.test(text)).slice(0, 100);
    if ((read.authorities as unknown[]).length < authorities.length) drop("certificates.authorities: no fingerprint");
  }
  if (notAfter !== undefined) {
    setOrDrop(read, "notAfter", believeTime(notAfter, Number.POSITIVE_INFINITY), (what) =>
      drop(`certificates.${what}`),
    );
  }
  return read;
}

/** A deletion without a time that cannot be: that it took place, and how often, may be believed all the same. */
function withBelievedTime(entry: unknown, { nowMs, drop }: { nowMs: number; drop: (what: string) => void }): unknown {
  if (!isObject(entry) || entry.time === undefined) return entry;
  const read = { ...entry };
  setOrDrop(read, "time", believeTime(entry.time, nowMs), (what) => drop(`deletions: ${what}`));
  return read;
}

/** A time in the one form that everybody takes; undefined for what is none, or is still to come. */
function believeTime(time: unknown, nowMs: number): string | undefined {
  if (typeof time !== "string" || !RFC_3339.test(time)) return undefined;
  const timeMs = Date.parse(time);
  if (Number.isNaN(timeMs) || timeMs > nowMs + CLOCK_TOLERANCE_MS) return undefined;
  const text = new Date(timeMs).toISOString();
  return RFC_3339.test(text) ? text : undefined;
}

function setOrDrop(object: Record<string, unknown>, name: string, value: unknown, drop: (what: string) => void): void {
  if (value !== undefined) {
    object[name] = value;
    return;
  }
  const shown = plain(JSON.stringify(object[name])?.slice(0, 60) ?? "");
  delete object[name];
  drop(`${name}: ${shown} is not believed`);
}

function firstProblem(check: ReturnType<typeof Compile> | undefined, value: unknown): string {
  const problem = check?.Errors(value)[0];
  return plain(`${problem?.instancePath || "it"} ${problem?.message ?? "is not what it should be"}`, 200);
}

function addUp(omitted: unknown, more: number): unknown {
  return isCount(omitted) ? Math.min(Number.MAX_SAFE_INTEGER, omitted + more) : omitted;
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
