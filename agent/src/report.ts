import { getOrMake } from "@cro/shared/get-or-make";
import type { Policy } from "@cro/shared/policy/document";
import { DOCUMENT_FIELDS } from "@cro/shared/policy/document-fields";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import {
  ARCHIVE_STATES,
  type ArchiveSum,
  ASKED_CONTAINERS,
  type Deletion,
  type OrphanScope,
  type PinnedLimit,
  PROTOCOL,
  REPORT_LIMITS,
  type Reason,
  type Report,
  type UnreachableLimit,
} from "@cro/shared/wire/report";
import { type Archive, countsInBytes, countsInNumber, isDeletable, isOwnerless } from "./archive/archive.ts";
import { isContainerAsked } from "./retention/scope.ts";

/** What a report tells beside what is counted from the archives. */
export type ReportHead = Pick<
  Report,
  | "node"
  | "podUID"
  | "version"
  | "bootId"
  | "number"
  | "time"
  | "accepted"
  | "directory"
  | "disk"
  | "paused"
  | "deleteErrors"
  | "failing"
  | "certificates"
>;

export interface ReportInput {
  head: ReportHead;
  archives: Iterable<Archive>;
  govern: ((identity: ContainerIdentity) => Policy) | undefined;
  /** Whether another pod of the same name saves no archives. */
  isByUid: boolean;
  unreachable: readonly UnreachableLimit[];
  pinnedLimits: readonly PinnedLimit[];
  /** What would go but does not, by reason. */
  planned: SumsByReason;
  /** The last deletions, how many there were since the start, and the sums of all of them by reason. */
  deletions: { last: readonly Deletion[]; total: number; sums: SumsByReason };
  /** Where the last report ended in the list of orphan scopes, so that each of very many gets its turn. */
  orphanCursor: number;
}

/** How many archives of how many bytes, for each reason that there is. */
export type SumsByReason = Partial<Record<Reason, ArchiveSum>>;

/** Adds an archive to the sum of its reason. */
export function addToSums(sums: SumsByReason, reason: Reason, bytes: number): void {
  const { archives, bytes: before } = sums[reason] ?? { archives: 0, bytes: 0 };
  sums[reason] = { archives: archives + 1, bytes: before + bytes };
}

type NamespaceTotal = Report["namespaces"][number];

/** Sums an agent's archives up. Lists are cut to {@link REPORT_LIMITS}, and what was left out is counted. */
export function buildReport(input: ReportInput): { report: Report; orphanCursor: number } {
  const { head, archives, govern, isByUid, unreachable, pinnedLimits, planned, deletions } = input;
  const states = Object.fromEntries(ARCHIVE_STATES.map((state) => [state, 0]));
  const namespaces = new Map<string, NamespaceTotal>();
  const orphans = new Map<string, Asked>();
  // Archives of one container mostly share what names it, so that each of very many costs one look.
  const owners = new Map<ContainerIdentity, { total: NamespaceTotal; mayBeOrphaned: boolean; uids: Set<string> }>();
  const sum = { archives: 0, bytes: 0, pinned: 0 };

  for (const archive of archives) {
    states[archive.state] = (states[archive.state] ?? 0) + 1;
    if (archive.pinned) sum.pinned += 1;
    if (isOwnerless(archive)) sum.bytes += archive.size;
    if (!countsInBytes(archive)) continue;
    const { identity, size } = archive;
    const owner = getOrMake(owners, identity, () => {
      const { namespace } = identity;
      return {
        total: getOrMake(namespaces, namespace, () => ({ namespace, archives: 0, bytes: 0 })),
        mayBeOrphaned: false,
        uids: new Set(),
      };
    });
    const count = countsInNumber(archive) ? 1 : 0;
    owner.total.archives += count;
    owner.total.bytes += size;
    const mayBeOrphaned = isDeletable(archive) && !archive.isStaticPod;
    owner.mayBeOrphaned ||= mayBeOrphaned;
    if (isByUid && mayBeOrphaned && archive.podUID !== undefined) owner.uids.add(archive.podUID);
    sum.archives += count;
    sum.bytes += size;
  }
  for (const [identity, owner] of owners) {
    if (govern === undefined || !owner.mayBeOrphaned) continue;
    const policy = govern(identity);
    if (policy.retainOrphan) continue;
    const { namespace, pod, container } = identity;
    const orphan = getOrMake(orphans, `${namespace}/${pod}`, () => ({
      ...{ namespace, pod },
      containers: new Set<string>(),
      uids: new Set<string>(),
    }));
    for (const uid of owner.uids) orphan.uids.add(uid);
    if (isContainerAsked(policy.level)) orphan.containers.add(container);
  }

  const byBytes = [...namespaces.values()].sort((a, b) => b.bytes - a.bytes || (a.namespace < b.namespace ? -1 : 1));
  const scopes = [...orphans.values()];
  const start = input.orphanCursor < scopes.length ? input.orphanCursor : 0;
  const asked = askAbout([...scopes.slice(start), ...scopes.slice(0, start)]);
  const last = deletions.last.slice(-REPORT_LIMITS.deletions);
  return {
    orphanCursor: start + asked.length,
    report: {
      protocol: PROTOCOL,
      documentFields: [...DOCUMENT_FIELDS],
      ...head,
      ...sum,
      states,
      namespaces: byBytes.slice(0, REPORT_LIMITS.namespaces),
      namespacesOmitted: Math.max(0, byBytes.length - REPORT_LIMITS.namespaces),
      orphanScopes: asked,
      orphanScopesOmitted: scopes.length - asked.length,
      unreachable: unreachable.slice(0, REPORT_LIMITS.unreachable),
      pinnedLimits: pinnedLimits.slice(0, REPORT_LIMITS.pinnedLimits),
      pinnedLimitsOmitted: Math.max(0, pinnedLimits.length - REPORT_LIMITS.pinnedLimits),
      planned: totalOf(planned).archives,
      plan: { bytes: totalOf(planned).bytes, byReason: planned },
      deleted: deletions.sums,
      unreachableOmitted: Math.max(0, unreachable.length - REPORT_LIMITS.unreachable),
      deletions: [...last],
      deletionsOmitted: deletions.total - last.length,
    },
  };
}

function totalOf(sums: SumsByReason): ArchiveSum {
  const total = { archives: 0, bytes: 0 };
  for (const { archives, bytes } of Object.values(sums)) {
    total.archives += archives;
    total.bytes += bytes;
  }
  return total;
}

/** A pod to ask about, with its containers whose own absence counts and the UIDs of the pods of its name that have archives. */
interface Asked {
  namespace: string;
  pod: string;
  containers: Set<string>;
  uids: Set<string>;
}

/** The first of these scopes, as many as one report may ask about; the next report goes on behind them. */
function askAbout(scopes: Asked[]): OrphanScope[] {
  const asked: OrphanScope[] = [];
  let left: number = ASKED_CONTAINERS.perReport;
  for (const { namespace, pod, containers, uids } of scopes) {
    const named = [...containers].slice(0, ASKED_CONTAINERS.perPod);
    const earlier = [...uids].slice(0, ASKED_CONTAINERS.perPod);
    left -= named.length + earlier.length;
    if (asked.length >= REPORT_LIMITS.orphanScopes || left < 0) break;
    asked.push({ namespace, pod, containers: named, ...(earlier.length > 0 && { uids: earlier }) });
  }
  return asked;
}
