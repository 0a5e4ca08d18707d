import { formatBytes } from "@cro/shared/quantity";
import { type PinnedLimit, scopeOfLimit, type UnreachableLimit } from "@cro/shared/wire/report";
import Table from "cli-table3";
import { compareAge } from "./archive/archive.ts";
import type { Decision } from "./retention/explain.ts";
import { containerScope } from "./retention/scope.ts";

/** What an archive is. The names are null where nobody is known to own it; the size is in bytes. */
export function archiveFacts({ file, identity, size, state, pinned }: Decision["archive"]) {
  const { namespace = null, pod = null, container = null } = identity ?? {};
  return { file, namespace, pod, container, size, state, pinned };
}

/** One line of `--json`: what an archive is and what is done with it. */
export function toJson({ archive, action, reason }: Pick<Decision, "archive" | "action" | "reason">): string {
  return JSON.stringify({ ...archiveFacts(archive), action, reason });
}

/** What an archive is, with its time in RFC 3339 and the node on which it lies. */
export function locatedFacts(archive: Decision["archive"], node: string) {
  return { ...archiveFacts(archive), time: formatTime(archive.timeMs), node };
}

/** The same with what is done with it, the policy that governs it and a few words why. */
export function explainedFacts({ archive, action, reason, policy, why }: Decision, node: string) {
  return { ...locatedFacts(archive, node), action, reason, policy, why };
}

/** RFC 3339 in seconds, as names of archives have it. */
export function formatTime(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

/** By namespace, pod, container and then age; those that are nobody's come last. */
export function compareOwners(a: Decision["archive"], b: Decision["archive"]): number {
  const [mine, theirs] = [a, b].map(({ identity }) => identity && containerScope(identity));
  if (mine === theirs) return compareAge(a, b);
  if (mine === undefined) return 1;
  if (theirs === undefined) return -1;
  // A slash sorts before letters and digits, but after a dash.
  return mine.replaceAll("/", " ") < theirs.replaceAll("/", " ") ? -1 : 1;
}

/** Columns of text, aligned, without borders: one line a row, as kubectl prints. An empty head is no line. */
export function toTable(head: string[], rows: string[][]): string {
  const edges = ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"];
  const lines = ["left", "left-mid", "mid", "mid-mid", "right", "right-mid"];
  const table = new Table({
    chars: { ...Object.fromEntries([...edges, ...lines].map((name) => [name, ""])), middle: "  " },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [], compact: true },
  });
  table.push(...(head.length > 0 ? [head] : []), ...rows);
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}

/** The columns that say which archive it is. */
export const ARCHIVE_COLUMNS = ["NAMESPACE", "POD", "CONTAINER", "TIME", "SIZE", "STATE"];

/** An archive's cells for {@link ARCHIVE_COLUMNS}; where nobody is known to own it, its file stands for the pod. */
export function archiveCells({ file, identity, timeMs, size, state, pinned }: Decision["archive"]): string[] {
  return [
    identity?.namespace ?? "-",
    identity?.pod ?? file,
    identity?.container ?? "-",
    formatTime(timeMs),
    formatBytes(size),
    pinned ? `${state}, pinned` : state,
  ];
}

/** `maxCheckpoints 3 of team-a/web: 3 archives are pinned, so that each new one goes at once; unpin some, or raise it` */
export function describePins(limit: PinnedLimit): string {
  const { maxCheckpoints, pinned } = limit;
  const why = `${pinned} ${pinned === 1 ? "archive is" : "archives are"} pinned, so that each new one goes at once`;
  return `maxCheckpoints ${maxCheckpoints} of ${scopeOfLimit(limit)}: ${why}; unpin some, or raise it`;
}

/** `maxTotalSize of team-a/web cannot be reached: 3 archives over it, 1 of which may go` */
export function describeUnreachable(unreachable: UnreachableLimit): string {
  const { limit, wanted, freed, unit } = unreachable;
  const amount = (value: number) => (unit === "bytes" ? `${formatBytes(value)}B` : `${value} archives`);
  return `${limit} of ${scopeOfLimit(unreachable)} cannot be reached: ${amount(wanted)} over it, of which ${amount(freed)} may go`;
}
