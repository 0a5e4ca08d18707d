import type { ArchiveState } from "@cro/shared/wire/report";
import type { Identification } from "./identity.ts";
import type { Verdict } from "./walk.ts";

/** How far a time may lie ahead of the clock, in milliseconds, before the archive counts as postdated. */
const POSTDATED_MS = 5 * 60_000;

/** What an archive is: the first state that fits, in the order of {@link ArchiveState}. */
export function archiveState({
  identification,
  verdict,
  isPostdated,
  isStale,
  isOwnerless,
}: {
  identification: Identification;
  /** Undefined until a walk of the present content has been tried. */
  verdict: Verdict | undefined;
  isPostdated: boolean;
  /** Whether size and mtime have been unchanged for so long that nobody writes any more. */
  isStale: boolean;
  /** Whether they have been unchanged for so long that nobody will ever write what tells the owner. */
  isOwnerless: boolean;
}): ArchiveState {
  // A resumed walk may have skipped over what was overwritten meanwhile: only a fresh one proves that the end is missing.
  const isAbandoned = verdict?.kind === "torn" && !verdict.isResumed && isStale;
  if (identification.kind === "unidentified") return "unidentified";
  const isUndecided = identification.kind === "undecided";
  // A spec.dump that is there and does not decide will not decide later.
  if (isUndecided && isAbandoned && verdict.spec !== undefined) return "unidentified";
  if (isPostdated) return "postdated";
  if (verdict?.kind === "torn" && isUndecided && !isOwnerless) return "unsettled";
  if (verdict?.kind === "torn") return isAbandoned ? "incomplete" : "unsettled";
  const isWhole =
    identification.kind === "identified" &&
    verdict?.kind === "ended" &&
    verdict.hasConfig &&
    verdict.spec !== undefined;
  if (!isWhole) return "unread";
  if (verdict.hasImages) return "complete";
  // There is nothing to restore in it, and nobody writes it any more.
  return isStale ? "incomplete" : "unsettled";
}

/**
 * Whether the time in the name or the mtime lies more than five minutes ahead of the clock; what once did stays
 * postdated until the clock has passed both. All in milliseconds since 1970.
 */
export function isPostdated(
  { timeMs, mtimeMs, nowMs }: { timeMs: number; mtimeMs: number; nowMs: number },
  wasPostdated: boolean,
): boolean {
  const aheadMs = Math.max(timeMs, mtimeMs) - nowMs;
  return wasPostdated ? aheadMs >= 0 : aheadMs > POSTDATED_MS;
}
