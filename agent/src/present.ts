import { formatBytes } from "@cro/shared/quantity";
import type { UnreachableLimit } from "@cro/shared/wire/report";
import Table from "cli-table3";
import type { Decision } from "./retention/explain.ts";

/** What an archive is. The names are null where nobody is known to own it; the size is in bytes. */
export function archiveFacts({ file, identity, size, state, pinned }: Decision["archive"]) {
  const { namespace = null, pod = null, container = null } = identity ?? {};
  return { file, namespace, pod, container, size, state, pinned };
}

/** One line of `--json`: what an archive is and what is done with it. */
export function toJson({ archive, action, reason }: Pick<Decision, "archive" | "action" | "reason">): string {
  return JSON.stringify({ ...archiveFacts(archive), action, reason });
}

/** The same with the policy that governs the archive and a few words why. */
export function toExplainedJson({ archive, action, reason, policy, why }: Decision): string {
  return JSON.stringify({ ...archiveFacts(archive), action, reason, policy, why });
}

/** Columns of text, aligned, without borders: one line a row, as kubectl prints. */
export function toTable(head: string[], rows: string[][]): string {
  const edges = ["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"];
  const lines = ["left", "left-mid", "mid", "mid-mid", "right", "right-mid"];
  const table = new Table({
    chars: { ...Object.fromEntries([...edges, ...lines].map((name) => [name, ""])), middle: "  " },
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [], compact: true },
  });
  table.push(head, ...rows);
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
    `${new Date(timeMs).toISOString().slice(0, 19)}Z`,
    formatBytes(size),
    pinned ? `${state}, pinned` : state,
  ];
}

/** `maxTotalSize of team-a/web cannot be reached: 3 archives over it, 1 of which may go` */
export function describeUnreachable({
  limit,
  namespace,
  pod,
  container,
  wanted,
  freed,
  unit,
}: UnreachableLimit): string {
  const scope = [namespace, pod, container].filter((name) => name !== undefined).join("/") || "the node";
  const amount = (value: number) => (unit === "bytes" ? `${formatBytes(value)}B` : `${value} archives`);
  return `${limit} of ${scope} cannot be reached: ${amount(wanted)} over it, of which ${amount(freed)} may go`;
}
