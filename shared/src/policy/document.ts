import { createHash } from "node:crypto";
import * as Type from "typebox";
import { WORKLOAD_KINDS } from "./workload.ts";

const closed = { additionalProperties: false } as const;
const positive = () => Type.Optional(Type.Integer({ minimum: 1 }));
const share = () => Type.Optional(Type.Integer({ minimum: 1, maximum: 99 }));

/**
 * The shortest `maxAgeUnmanaged`, in milliseconds. Nobody writes on a file that has been unchanged for so long: nothing else
 * tells that of one that cannot be read or is nobody's.
 */
export const MIN_UNMANAGED_AGE_MS = 3_600_000;

/** Limits of one scope. An absent one is no limit. */
export const ScopeLimits = Type.Object({ maxCheckpoints: positive(), maxTotalBytes: positive() }, closed);

/**
 * One policy, resolved: sizes in bytes, times in milliseconds, defaults filled in, no limit is absent.
 * A container policy has only `perContainer`, a pod policy only `perPod`, a workload policy only `perWorkload`, a namespace
 * policy only `perNamespace`; the global one may have all but `perWorkload`. Names end in `*` where they are prefixes.
 */
export const Policy = Type.Object(
  {
    level: Type.Enum(["container", "pod", "workload", "namespace", "global"]),
    namespace: Type.Optional(Type.String()),
    pod: Type.Optional(Type.String()),
    /** Of a workload policy: absent for every container. */
    container: Type.Optional(Type.String()),
    /** Kind and name of the workload of a workload policy. */
    kind: Type.Optional(Type.Enum([...WORKLOAD_KINDS])),
    workload: Type.Optional(Type.String()),
    retainOrphan: Type.Boolean(),
    minCheckpoints: positive(),
    maxCheckpointBytes: positive(),
    maxAgeMs: positive(),
    perContainer: Type.Optional(ScopeLimits),
    perPod: Type.Optional(ScopeLimits),
    perWorkload: Type.Optional(ScopeLimits),
    perNamespace: Type.Optional(ScopeLimits),
  },
  closed,
);

export const NodePolicy = Type.Object(
  {
    maxTotalBytes: positive(),
    /** The same in percent of the file system, in place of it. */
    maxTotalPercent: share(),
    /** Both watermarks or none, in percent of the file system. */
    watermark: Type.Optional(
      Type.Object(
        { high: Type.Integer({ minimum: 1, maximum: 100 }), low: Type.Integer({ minimum: 1, maximum: 100 }) },
        closed,
      ),
    ),
    minFreeBytes: positive(),
    minFreePercent: share(),
    minFreeInodes: positive(),
    minFreeInodesPercent: share(),
    /** For how long the agent must have seen a file unchanged that is `unidentified` or `unread` before it goes. */
    maxAgeUnmanagedMs: Type.Optional(Type.Integer({ minimum: MIN_UNMANAGED_AGE_MS })),
  },
  closed,
);

/** A policy resource in the form that travels to the agents: all that they need, nothing left to interpret. */
export const PolicyDocument = Type.Object(
  {
    directory: Type.String({ pattern: "^/" }),
    mode: Type.Enum(["Enforce", "DryRun"]),
    applyImmediately: Type.Boolean(),
    /** Whether archives are orphans, too, if their pod's name is another pod's by now; absent: they are not. */
    orphanMatch: Type.Optional(Type.Enum(["UID"])),
    global: Policy,
    rules: Type.Array(Policy, { maxItems: 4000 }),
    node: NodePolicy,
  },
  closed,
);

export type ScopeLimits = Type.Static<typeof ScopeLimits>;
export type Policy = Type.Static<typeof Policy>;
export type NodePolicy = Type.Static<typeof NodePolicy>;
export type PolicyDocument = Type.Static<typeof PolicyDocument>;

/** A member of a document: the limit by its name, or nothing where it is unset or switched off by 0. */
export function limit<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return value === undefined || value === 0 ? {} : ({ [key]: value } as { [P in K]?: V });
}

/** What a policy is for, as its author would name it: `team-a/web-0/main`, or `team-a/Deployment/web` for a workload. */
export function namesOfPolicy(policy: Pick<Policy, "namespace" | "pod" | "kind" | "workload" | "container">): string {
  const { namespace, pod, kind, workload, container } = policy;
  return [namespace, pod, kind, workload, container].filter((name) => name !== undefined).join("/");
}

/** SHA-256 of the document's JSON, in hex: what names a document on the wire when its body need not travel. */
export function digestOf(serializedDocument: string): string {
  return createHash("sha256").update(serializedDocument).digest("hex");
}
