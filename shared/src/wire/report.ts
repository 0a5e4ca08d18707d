import * as Type from "typebox";
import { Fence } from "./fence.ts";

/** `GET` of a {@link Report}. */
export const REPORT_PATH = "/v1/report";

/** How many entries of each list a report carries at most; what exceeds it is told by a number beside the list. */
export const REPORT_LIMITS = { namespaces: 1000, orphanScopes: 1000, unreachable: 100, deletions: 200 } as const;

/** Why an archive is deleted, and which limit could not be met: a closed set, also the metrics' label. */
export const REASONS = [
  "orphan",
  "max_checkpoint_size",
  "max_age",
  "max_checkpoints",
  "max_total_size",
  "node_max_total_size",
  "node_watermark",
] as const;
export type Reason = (typeof REASONS)[number];

/** What an archive is, the first that fits; see docs/retention.md. */
export const ARCHIVE_STATES = ["unidentified", "postdated", "unread", "unsettled", "incomplete", "complete"] as const;
export type ArchiveState = (typeof ARCHIVE_STATES)[number];

const count = () => Type.Integer({ minimum: 0 });
const optionalName = () => Type.Optional(Type.String());

export const Deletion = Type.Object({
  /** Counts the deletions since the agent's start, from 1. */
  number: count(),
  time: Type.String(),
  file: Type.String(),
  namespace: Type.String(),
  pod: Type.String(),
  container: Type.String(),
  bytes: count(),
  reason: Type.Enum([...REASONS]),
});
export type Deletion = Type.Static<typeof Deletion>;

/** A limit that still does not hold when everything that may go has gone. */
export const UnreachableLimit = Type.Object({
  limit: Type.Enum([...REASONS]),
  /** The scope: none of the three is the node. */
  namespace: optionalName(),
  pod: optionalName(),
  container: optionalName(),
  /** How much would have to go and how much of it could, in `unit`. */
  wanted: count(),
  freed: count(),
  unit: Type.Enum(["bytes", "archives"]),
});
export type UnreachableLimit = Type.Static<typeof UnreachableLimit>;

/** A pod whose archives would go if it, or one of these containers, no longer existed. */
export const OrphanScope = Type.Object({
  namespace: Type.String(),
  pod: Type.String(),
  /** Containers whose own absence counts too; none where only the pod's does. */
  containers: Type.Array(Type.String()),
});
export type OrphanScope = Type.Static<typeof OrphanScope>;

export const DIRECTORY_STATES = ["watching", "missing", "unreadable", "not_mounted", "no_policy"] as const;
export type DirectoryState = (typeof DIRECTORY_STATES)[number];

/** What an agent tells of itself and its archives. */
export const Report = Type.Object({
  node: Type.String(),
  podUID: Type.String(),
  version: Type.String(),
  /** The version of the protocol that the agent speaks; absent is 1. */
  protocol: Type.Optional(Type.Integer()),
  /** Names this start of the agent; reports are numbered from 1 within it. */
  bootId: Type.String(),
  number: Type.Integer({ minimum: 1 }),
  time: Type.String(),
  /** The newest directive accepted, and the digest of its policy. */
  accepted: Type.Optional(Type.Object({ ...Fence.properties, digest: Type.String() })),
  directory: Type.Object({
    path: Type.String(),
    state: Type.Enum([...DIRECTORY_STATES]),
    message: Type.Optional(Type.String()),
  }),
  /** The file system of the directory, in bytes. */
  disk: Type.Optional(Type.Object({ sizeBytes: count(), freeBytes: count() })),
  /** Whether a `.pause` stops every deletion. */
  paused: Type.Boolean(),
  archives: count(),
  bytes: count(),
  pinned: count(),
  /** Archives by state. */
  states: Type.Record(Type.String(), count()),
  namespaces: Type.Array(Type.Object({ namespace: Type.String(), archives: count(), bytes: count() })),
  namespacesOmitted: count(),
  orphanScopes: Type.Array(OrphanScope),
  orphanScopesOmitted: count(),
  unreachable: Type.Array(UnreachableLimit),
  unreachableOmitted: count(),
  /** What DryRun or a `.pause` holds back. */
  planned: count(),
  /** The last deletions, the oldest first. */
  deletions: Type.Array(Deletion),
  /** How many deletions since the start are no longer among them. */
  deletionsOmitted: count(),
  deleteErrors: count(),
  certificates: Type.Object({
    /** SHA-256 fingerprints, in hex, of the CA certificates that the agent trusts. */
    authorities: Type.Array(Type.String()),
    /** When its own certificate ends, RFC 3339. */
    notAfter: Type.Optional(Type.String()),
  }),
});
export type Report = Type.Static<typeof Report>;
