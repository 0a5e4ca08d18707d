import * as Type from "typebox";
import { LABEL } from "../crd/schema.ts";
import { Fence } from "./fence.ts";

/** `GET` of a {@link Report}. */
export const REPORT_PATH = "/v1/report";

/**
 * Names the last report that its reader has, in the query of {@link REPORT_PATH}. An agent that has nothing else to tell
 * answers 304 then; one of 0.1.0 sends the whole report.
 */
export function reportQuery({ bootId, number }: Pick<Report, "bootId" | "number">): string {
  return `?boot=${encodeURIComponent(bootId)}&after=${number}`;
}

/** HTTP's status for an answer that is the one its reader has (RFC 9110, 15.4.5). */
export const NOT_MODIFIED = 304;

/**
 * What two versions may say to each other: 2 from this version on, which tells of it; absent is 1, that of 0.1.0. A
 * directive holds no member that its reader's protocol does not have, for readers refuse members that they do not know.
 */
export const PROTOCOL = 2;

/** How many entries of each list a report carries at most; what exceeds it is told by a number beside the list. */
export const REPORT_LIMITS = {
  namespaces: 1000,
  orphanScopes: 1000,
  unreachable: 100,
  pinnedLimits: 100,
  deletions: 200,
  failingCodes: 5,
} as const;

/** About how many containers and UIDs a report asks: of one pod, of each kind, and in sum. What exceeds it waits, or is never an orphan. */
export const ASKED_CONTAINERS = { perPod: 100, perReport: 5000 } as const;

/** Why an archive is deleted, and which limit could not be met: a closed set, also the metrics' label. */
export const REASONS = [
  "orphan",
  "max_checkpoint_size",
  "max_age",
  "max_checkpoints",
  "max_total_size",
  "node_max_total_size",
  "node_watermark",
  "node_inodes",
  "max_age_unmanaged",
] as const;
export type Reason = (typeof REASONS)[number];

/** What an archive is, the first that fits; see docs/retention.md. */
export const ARCHIVE_STATES = ["unidentified", "postdated", "unread", "unsettled", "incomplete", "complete"] as const;
export type ArchiveState = (typeof ARCHIVE_STATES)[number];

const count = () => Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
/**
 * A DNS label and a DNS subdomain, as Kubernetes has them (k8s.io/apimachinery/pkg/util/validation): it bounds a subdomain as
 * a whole, and not each label of it.
 */
const label = () => Type.String({ pattern: `^${LABEL}$`, maxLength: 63 });
const subdomain = () => Type.String({ pattern: `^${LABEL}(\\.${LABEL})*$`, maxLength: 253 });
/** Pattern of a value of a set that later versions may add to. */
export const TOKEN = "^[A-Za-z][A-Za-z0-9_]{0,62}$";
const token = () => Type.String({ pattern: TOKEN });

const sum = () => Type.Object({ archives: count(), bytes: count() });
/** How many archives, of how many bytes. */
export type ArchiveSum = Type.Static<ReturnType<typeof sum>>;

/** What may keep a limit from being met. */
export const OBSTACLES = ["pinned", "held", "floor", "failing", "unsettled"] as const;
export type Obstacle = (typeof OBSTACLES)[number];

/** A deletion as an agent writes it. */
export interface Deletion {
  /** Counts the deletions since the agent's start, from 1. */
  number: number;
  time: string;
  file: string;
  /** Whose it was; the three are absent if it was torn and had no owner. */
  namespace?: string;
  pod?: string;
  container?: string;
  bytes: number;
  reason: Reason;
}

/** A deletion as it is read: of a later version's, names may be absent and the reason is any word. */
export const ReportedDeletion = Type.Object({
  number: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  /** Absent if the report gave no time that may be believed. */
  time: Type.Optional(Type.String()),
  file: Type.Optional(Type.String({ maxLength: 255 })),
  namespace: Type.Optional(label()),
  pod: Type.Optional(subdomain()),
  container: Type.Optional(label()),
  bytes: count(),
  reason: token(),
});
export type ReportedDeletion = Type.Static<typeof ReportedDeletion>;

/** A limit that still does not hold when everything that may go has gone, as an agent writes it. */
export interface UnreachableLimit {
  limit: Reason;
  /** The scope: none of the names is the node. */
  namespace?: string;
  pod?: string;
  container?: string;
  /** Instead of pod and container: `Deployment/web`, or `Deployment/web/main` if the policy is for some containers alone. */
  workload?: string;
  /** How much would have to go and how much of it could, in `unit`. */
  wanted: number;
  freed: number;
  unit: "bytes" | "archives";
  /** What stands in the way: archives of the scope that may not or cannot go, by what keeps them. */
  obstacles?: Partial<Record<Obstacle, number>>;
  /** The error codes, such as EPERM, of those that fail to be deleted; the first few. */
  codes?: string[];
}

/** Pattern of a workload as a limit names it, which may be of a kind that this version does not know. */
const WORKLOAD = `^[A-Za-z]{1,63}/${LABEL}(\\.${LABEL})*(/[a-z0-9]?[-a-z0-9]*[*]?)?$`;

/** The scope of a limit in words: `team-a/web-0/main`, `team-a/Deployment/web`, or `the node`. */
export function scopeOfLimit(limit: Pick<UnreachableLimit, "namespace" | "pod" | "container" | "workload">): string {
  const { namespace, pod, container, workload } = limit;
  return [namespace, workload, pod, container].filter((name) => name !== undefined).join("/") || "the node";
}

/** The same as it is read: limit and unit are any word. */
export const ReportedLimit = Type.Object({
  limit: token(),
  namespace: Type.Optional(label()),
  pod: Type.Optional(subdomain()),
  container: Type.Optional(label()),
  workload: Type.Optional(Type.String({ pattern: WORKLOAD, maxLength: 400 })),
  wanted: count(),
  freed: count(),
  unit: token(),
  obstacles: Type.Optional(Type.Object(Object.fromEntries(OBSTACLES.map((name) => [name, Type.Optional(count())])))),
  codes: Type.Optional(Type.Array(token(), { maxItems: REPORT_LIMITS.failingCodes })),
});
export type ReportedLimit = Type.Static<typeof ReportedLimit>;

/** A limit on how many archives a scope may have, all of which are pinned: each new one goes at once. */
export const PinnedLimit = Type.Object({
  namespace: label(),
  pod: Type.Optional(subdomain()),
  container: Type.Optional(label()),
  workload: Type.Optional(Type.String({ pattern: WORKLOAD, maxLength: 400 })),
  maxCheckpoints: count(),
  pinned: count(),
});
export type PinnedLimit = Type.Static<typeof PinnedLimit>;

/** A pod's UID. The API server gives each pod one of its own, and never again: of a UUID's form, but nothing rests on that. */
const uid = () => Type.String({ pattern: "^[A-Za-z0-9][-A-Za-z0-9]{0,63}$" });

/** A pod whose archives would go if it, or one of these containers, no longer existed. */
export const OrphanScope = Type.Object({
  namespace: label(),
  pod: subdomain(),
  /** Containers whose own absence counts too; none where only the pod's does. */
  containers: Type.Array(label(), { maxItems: ASKED_CONTAINERS.perPod }),
  /** UIDs of pods of this name whose archives would go if another pod had the name by now; absent where that saves them. */
  uids: Type.Optional(Type.Array(uid(), { maxItems: ASKED_CONTAINERS.perPod })),
});
export type OrphanScope = Type.Static<typeof OrphanScope>;

export const DIRECTORY_STATES = ["watching", "missing", "unreadable", "not_mounted", "no_policy"] as const;
export type DirectoryState = (typeof DIRECTORY_STATES)[number];

/** Archives and bytes by reason; a later version may have more reasons. */
const Sums = Type.Record(Type.String(), sum());
const NamespaceTotal = Type.Object({ namespace: label(), archives: count(), bytes: count() });
const DocumentFields = Type.Array(
  Type.String({ pattern: "^[A-Za-z][A-Za-z0-9]*(\\.[A-Za-z][A-Za-z0-9]*)*$", maxLength: 200 }),
  {
    maxItems: 1000,
  },
);

/**
 * What an agent tells of itself and its archives. Open: later versions add members, and words to every set. An agent
 * writes exact values; a reader goes by what `createReportReader` makes of it, which keeps only the members named here.
 */
export const Report = Type.Object({
  node: Type.String({ minLength: 1, maxLength: 253 }),
  podUID: Type.String({ minLength: 1, maxLength: 64 }),
  version: Type.String({ maxLength: 64 }),
  /** Absent before version 2 of the protocol. */
  protocol: Type.Optional(Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER })),
  /** The members of a policy document that the agent knows; absent from 0.1.0, which does not tell. */
  documentFields: Type.Optional(DocumentFields),
  /** Names this start of the agent; reports are numbered from 1 within it. */
  bootId: Type.String({ minLength: 1, maxLength: 64 }),
  number: Type.Integer({ minimum: 1, maximum: Number.MAX_SAFE_INTEGER }),
  /** By the agent's clock. Absent if the report gave no time that may be believed. */
  time: Type.Optional(Type.String()),
  /** The newest directive accepted, and the digest of its policy. */
  accepted: Type.Optional(Type.Object({ ...Fence.properties, digest: Type.String({ maxLength: 64 }) })),
  directory: Type.Object({ path: Type.String(), state: token(), message: Type.Optional(Type.String()) }),
  /** The file system of the directory, in bytes. */
  disk: Type.Optional(
    Type.Object({
      sizeBytes: count(),
      freeBytes: count(),
      /** As df tells it: of used and free together, used is what the rules of the node go by. Absent from 0.1.0. */
      usedBytes: Type.Optional(count()),
    }),
  ),
  /** Whether a `.pause` stops every deletion. */
  paused: Type.Boolean(),
  archives: count(),
  bytes: count(),
  pinned: count(),
  /** Archives by state. */
  states: Type.Record(Type.String(), count()),
  namespaces: Type.Array(NamespaceTotal),
  namespacesOmitted: count(),
  orphanScopes: Type.Array(OrphanScope),
  orphanScopesOmitted: count(),
  unreachable: Type.Array(ReportedLimit),
  unreachableOmitted: count(),
  /** Absent from earlier versions, which do not tell. */
  pinnedLimits: Type.Optional(Type.Array(PinnedLimit)),
  pinnedLimitsOmitted: Type.Optional(count()),
  /** Archives that would go but do not: for DryRun, for a `.pause`, or until the next event of their scopes. */
  planned: count(),
  /** The same in bytes and by reason; absent from 0.1.0. */
  plan: Type.Optional(Type.Object({ bytes: count(), byReason: Sums })),
  /** Deletions since the agent's start, by reason, however many the list below holds; absent from 0.1.0. */
  deleted: Type.Optional(Sums),
  /** The last deletions, the oldest first. */
  deletions: Type.Array(ReportedDeletion),
  /** How many deletions since the start are no longer among them. */
  deletionsOmitted: count(),
  deleteErrors: count(),
  /** Archives that must go and whose last deletion failed, and the first few of its error codes; absent from 0.1.0. */
  failing: Type.Optional(
    Type.Object({ archives: count(), codes: Type.Array(token(), { maxItems: REPORT_LIMITS.failingCodes }) }),
  ),
  certificates: Type.Object({
    /** SHA-256 fingerprints, in hex, of the CA certificates that the agent trusts. */
    authorities: Type.Array(Type.String()),
    /** When its own certificate ends, RFC 3339. */
    notAfter: Type.Optional(Type.String()),
  }),
});
export type Report = Type.Static<typeof Report>;
