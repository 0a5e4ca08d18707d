import * as Type from "typebox";
import { GlobalPolicySpec } from "./schema.ts";

/**
 * The conditions of a policy resource. `Ready` sums the others up for `kubectl get`; it, `Accepted` and `Enforcing` are good
 * when True, the others when False. `UnitlessQuantity`, `NoLimit` and `LimitPinned` are warnings.
 */
export const CONDITION_TYPES = [
  "Ready",
  "Accepted",
  "Enforcing",
  "Paused",
  "Conflict",
  "UnitlessQuantity",
  "NoLimit",
  "DirectoryNotMounted",
  "LimitUnreachable",
  "LimitPinned",
  "OrphansHeld",
] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

const count = (description: string) => Type.Integer({ description, minimum: 0 });
const time = (description: string) => Type.String({ description, format: "date-time" });

/** The standard condition of Kubernetes (k8s.io/apimachinery/pkg/apis/meta/v1: Condition), with its limits. */
export const Condition = Type.Object(
  {
    type: Type.String({ description: "What is true or not, in one word of CamelCase.", maxLength: 316 }),
    status: Type.Enum(["True", "False", "Unknown"], { description: "Whether it is true." }),
    observedGeneration: Type.Optional(
      Type.Integer({ description: "The generation of the spec that this condition is about.", minimum: 0 }),
    ),
    lastTransitionTime: time("When the status last changed."),
    reason: Type.String({
      description: "Why, in one word of CamelCase.",
      minLength: 1,
      maxLength: 1024,
      pattern: "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
    }),
    message: Type.String({ description: "Why, for a reader.", maxLength: 32_768 }),
  },
  { description: "One thing that is so or not." },
);
export type Condition = Type.Static<typeof Condition>;

const planned = () => ({ archives: count("How many archives."), bytes: count("Their size in bytes.") });

/** `status` of the policy resource; absent where no coordinator has looked at it yet. */
export const PolicyStatus = Type.Object(
  {
    observedGeneration: Type.Optional(
      Type.Integer({ description: "The generation of the spec that this status is about.", minimum: 0 }),
    ),
    conditions: Type.Optional(
      Type.Array(Condition, { description: "What is so, and why. Ready sums up whether the policy does its work." }),
    ),
    mode: Type.Optional(Type.Enum(["Enforce", "DryRun"], { description: "The mode in force." })),
    nodes: Type.Optional(
      Type.Object(
        {
          desired: count("Nodes that this resource is for."),
          ready: count("Those of them whose agent answers."),
          applied: count("Those of them whose agent has the current policy."),
          stale: count("Those of them whose agent has not answered for a while."),
          summary: Type.Optional(Type.String({ description: "Applied of desired nodes, such as 2/3." })),
        },
        { description: "How many nodes this resource is for, and how far it has come there." },
      ),
    ),
    archives: Type.Optional(count("Archives on those nodes, incomplete and pinned ones included.")),
    bytes: Type.Optional(count("Their size in bytes.")),
    size: Type.Optional(Type.String({ description: "Their size for a reader, such as 1.5Gi." })),
    planned: Type.Optional(
      Type.Object(
        {
          archives: count("How many archives."),
          bytes: Type.Optional(
            count("Their size in bytes; absent while an agent of an older version does not tell it."),
          ),
          byReason: Type.Optional(
            Type.Record(Type.String(), Type.Object(planned()), {
              description: "The same by the rule that wants them gone.",
            }),
          ),
        },
        {
          description:
            "Archives that would be deleted, did not DryRun, a .pause or the wait for the next event of their scope keep them.",
        },
      ),
    ),
    fullest: Type.Optional(
      Type.Object(
        {
          node: Type.String({ description: "The node." }),
          usedPercent: Type.Integer({
            description: "Used of used and free bytes, as df shows it and as highWatermarkPercent means it.",
            minimum: 0,
            maximum: 100,
          }),
          summary: Type.Optional(Type.String({ description: "Both for a reader, such as node-a 81%." })),
        },
        { description: "The node whose file system with the archives is fullest." },
      ),
    ),
    pinned: Type.Optional(count("Archives that a .keep file protects.")),
    incomplete: Type.Optional(count("Archives that were never written to their end.")),
    unidentified: Type.Optional(count("Archives of which nobody can say whose they are; they are never deleted.")),
    effectiveGlobalPolicy: Type.Optional(
      Type.Object(GlobalPolicySpec.properties, { description: "The global policy in force, defaults included." }),
    ),
    lastEnforcementTime: Type.Optional(time("When an archive was last deleted under this resource.")),
    lastReportTime: Type.Optional(
      time(
        "When an agent last reported. Renewed at least every two minutes: if it is older, no coordinator works and the rest is old too.",
      ),
    ),
  },
  { description: "What became of the policy. Written by the coordinator." },
);
export type PolicyStatus = Type.Static<typeof PolicyStatus>;
