import * as Type from "typebox";
import { WORKLOAD_KINDS } from "../policy/workload.ts";

/** The kind, group and version of the policy resource. Fixed by the Go operator, whose resources apply here unmodified. */
export const POLICY_KIND = "CheckpointRestoreOperator";
export const POLICY_GROUP = "criu.org";
export const POLICY_API_VERSION = `${POLICY_GROUP}/v1`;

/** The kubelet's checkpoint directory (kubernetes/pkg/kubelet/config/defaults.go: DefaultKubeletCheckpointsDirName). */
export const DEFAULT_CHECKPOINT_DIRECTORY = "/var/lib/kubelet/checkpoints";

/** The most policies that one list of a resource may hold; it also bounds what the API server's cost check assumes. */
const MAX_POLICIES = 1000;

/** The most labels that a node selector may name, and the most expressions and values of one that may choose nodes. */
const MAX_LABELS = 64;

/** A DNS label, as namespaces and containers have for names, without its bound of 63 characters. */
export const LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";

/** Part of a path: neither `.` nor `..`, and spelt without lookahead, which the API server's expressions do not have. */
const PATH_PART = "([^/.\\x00][^/\\x00]*|[.][^/.\\x00][^/\\x00]*|[.][.][^/\\x00]+)";
/** An absolute path without an empty, `.` or `..` part; it may end in a slash. */
export const PLAIN_PATH = `^/(${PATH_PART}(/${PATH_PART})*/?)?$`;

/** Grammar of label keys: k8s.io/apimachinery/pkg/util/validation, IsQualifiedName. */
export const LABEL_KEY = `^(${LABEL}([.]${LABEL})*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]$`;
/** Grammar of label values: k8s.io/apimachinery/pkg/util/validation, IsValidLabelValue. */
export const LABEL_VALUE = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";

/** A name as namespaces and containers have, or the beginning of one followed by `*`. */
export const NAME_OR_PREFIX = `^(${LABEL}|([a-z0-9][-a-z0-9]*)?[*])$`;
/** A name as most resources have: a DNS subdomain, without its bound of 253 characters. */
export const NAME = `^${LABEL}([.]${LABEL})*$`;
/** A name as pods have, or the beginning of one followed by `*`. */
export const POD_OR_PREFIX = `^(${LABEL}([.]${LABEL})*|([a-z0-9][-.a-z0-9]*)?[*])$`;
/** The quantities that policies take, as text; `parseQuantity` says which of them are too small. */
export const QUANTITY = "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)(Ki|Mi|Gi|Ti|Pi|Ei|[kMGTPE]|[eE][-+]?[0-9]+)?$";
/** A share of a file system: whole percent, 0 to 99. */
export const SHARE = "^[0-9]{1,2}%$";
/** A quantity, or a share. */
export const QUANTITY_OR_SHARE = `${QUANTITY}|${SHARE}`;
/** A whole number, or a share. */
export const COUNT_OR_SHARE = `^[0-9]{1,15}$|${SHARE}`;
/** The durations that policies take, as text. */
export const DURATION = "^[+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w))+)$";

const namespaceName = (description: string) =>
  Type.String({ description, minLength: 1, maxLength: 64, pattern: NAME_OR_PREFIX });

const podName = () =>
  Type.String({
    description: "Name of the pod, or a prefix of it followed by *.",
    minLength: 1,
    maxLength: 254,
    pattern: POD_OR_PREFIX,
  });

const quantity = (description: string) =>
  Type.Optional(
    Type.Union(
      [
        Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
        Type.String({ maxLength: 64, pattern: QUANTITY }),
      ],
      {
        description: `${description} A Kubernetes quantity such as 10Gi; a number without a unit is MiB. 0 is no limit.`,
      },
    ),
  );

const quantityOrShare = (description: string) =>
  Type.Optional(
    Type.Union(
      [
        Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
        Type.String({ maxLength: 64, pattern: QUANTITY_OR_SHARE }),
      ],
      {
        description: `${description} A Kubernetes quantity such as 10Gi, or a share of the file system such as 10%; a number without a unit is MiB. 0 is no limit.`,
      },
    ),
  );

const duration = (description: string) =>
  Type.Optional(
    Type.Union([Type.Integer({ minimum: 0, maximum: 0 }), Type.String({ maxLength: 64, pattern: DURATION })], {
      description: `${description} A duration such as 30s, 12h, 7d or 2w.`,
    }),
  );

const count = (description: string) => Type.Optional(Type.Integer({ description, minimum: 0, maximum: 2_147_483_647 }));

const percent = (description: string, minimum: number) =>
  Type.Optional(Type.Integer({ description, minimum, maximum: 100 }));

const retainOrphan = () =>
  Type.Optional(
    Type.Boolean({ description: "Whether archives of pods and containers that no longer exist stay. Default true." }),
  );

const maxCheckpointSize = () => quantity("Archives larger than this are deleted.");
const maxAge = () => duration("Archives older than this, by the time in their name, are deleted. 0 is no limit.");
const FLOOR = "so many newest complete archives of each container survive every limit. Default 0.";

/** The limits of a policy that names its scope. */
const scopedLimits = (scope: string) => ({
  retainOrphan: retainOrphan(),
  maxCheckpoints: count(`How many archives the ${scope} may have; the oldest go. 0 is no limit.`),
  maxCheckpointSize: maxCheckpointSize(),
  maxTotalSize: quantity(`How many bytes the archives of the ${scope} may have together; the oldest go.`),
  maxAge: maxAge(),
  minCheckpoints: count(`Floor: ${FLOOR}`),
});

const closed = { additionalProperties: false } as const;

export const GlobalPolicySpec = Type.Object(
  {
    retainOrphan: retainOrphan(),
    maxCheckpointsPerContainer: count("How many archives each container may have. Default 10; 0 is no limit."),
    maxCheckpointsPerPod: count("How many archives each pod may have. 0 is no limit."),
    maxCheckpointsPerNamespace: count("How many archives each namespace may have. 0 is no limit."),
    maxCheckpointSize: maxCheckpointSize(),
    maxTotalSizePerContainer: quantity("How many bytes the archives of each container may have together."),
    maxTotalSizePerPod: quantity("How many bytes the archives of each pod may have together."),
    maxTotalSizePerNamespace: quantity("How many bytes the archives of each namespace may have together."),
    maxAge: maxAge(),
    minCheckpointsPerContainer: count(`Floor: ${FLOOR}`),
  },
  { ...closed, description: "The policy of every archive that no more specific policy governs." },
);

export const ContainerPolicySpec = Type.Object(
  {
    namespace: namespaceName("Namespace of the container, or a prefix of it followed by *."),
    pod: podName(),
    container: namespaceName("Name of the container, or a prefix of it followed by *."),
    ...scopedLimits("container"),
  },
  { ...closed, description: "The policy of the containers of these names." },
);

export const PodPolicySpec = Type.Object(
  {
    namespace: namespaceName("Namespace of the pod, or a prefix of it followed by *."),
    pod: podName(),
    ...scopedLimits("pod"),
  },
  { ...closed, description: "The policy of the pods of these names." },
);

export const WorkloadPolicySpec = Type.Object(
  {
    namespace: namespaceName("Namespace of the workload, or a prefix of it followed by *."),
    kind: Type.Enum([...WORKLOAD_KINDS], {
      description: "Kind of the workload. Its pods are known by the names that Kubernetes gives them.",
    }),
    name: Type.String({ description: "Name of the workload.", minLength: 1, maxLength: 253, pattern: NAME }),
    container: Type.Optional(
      namespaceName("Name of the container, or a prefix of it followed by *. Default: every container."),
    ),
    ...scopedLimits("workload"),
  },
  { ...closed, description: "The policy of the pods of one workload, all of them on a node together." },
);

export const NamespacePolicySpec = Type.Object(
  { namespace: namespaceName("The namespace, or a prefix of it followed by *."), ...scopedLimits("namespace") },
  { ...closed, description: "The policy of the namespaces of this name." },
);

export const NodePolicySpec = Type.Object(
  {
    maxTotalSize: quantityOrShare("How many bytes all archives of a node may have together."),
    highWatermarkPercent: percent("Archives are deleted when the file system that holds them is fuller than this.", 0),
    lowWatermarkPercent: percent(
      "Above the high watermark, archives are deleted until the file system is below this. Default: 5 under the high one.",
      1,
    ),
    minFree: quantityOrShare("Archives are deleted until the file system that holds them has this much free."),
    minFreeInodes: Type.Optional(
      Type.Union(
        [
          Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER }),
          Type.String({ maxLength: 64, pattern: COUNT_OR_SHARE }),
        ],
        {
          description:
            "Archives are deleted until the file system that holds them has so many inodes free. A number, or a share such as 5%. 0 is no limit.",
        },
      ),
    ),
    maxAgeUnmanaged: duration(
      "Files named like archives that are unidentified or unread, which no other rule takes, are deleted once the agent has seen them unchanged for this long. At least 1h. Default: they are kept; 0 too.",
    ),
  },
  { ...closed, description: "Limits of each node as a whole." },
);

/** One of a NodeSelectorTerm's matchExpressions (k8s.io/api/core/v1: NodeSelectorRequirement), without Gt and Lt. */
export const NodeMatchExpression = Type.Object(
  {
    key: Type.String({ description: "The label's name.", minLength: 1, maxLength: 317, pattern: LABEL_KEY }),
    operator: Type.Enum(["In", "NotIn", "Exists", "DoesNotExist"], {
      description: "NotIn and DoesNotExist also match a node without the label.",
    }),
    values: Type.Optional(
      Type.Array(Type.String({ maxLength: 63, pattern: LABEL_VALUE }), {
        description: "Values of the label; In and NotIn need at least one, the others have none.",
        maxItems: MAX_LABELS,
      }),
    ),
  },
  { ...closed, description: "A condition on one label of a node." },
);

/** `spec` of the policy resource: the one definition that validation, static types and the CRD come from. */
export const PolicySpec = Type.Object(
  {
    checkpointDirectory: Type.Optional(
      Type.String({
        description: `Absolute path of the archives on the nodes. Default: the first that the agents mount, usually ${DEFAULT_CHECKPOINT_DIRECTORY}.`,
        maxLength: 4096,
        pattern: PLAIN_PATH,
      }),
    ),
    applyPoliciesImmediately: Type.Optional(
      Type.Boolean({
        description:
          "Whether a changed policy acts at once, and not only when a scope has its next archive. Default false.",
      }),
    ),
    mode: Type.Optional(
      Type.Enum(["Enforce", "DryRun"], {
        description: "DryRun computes and reports everything and deletes nothing. Default Enforce.",
      }),
    ),
    nodeSelector: Type.Optional(
      Type.Record(Type.String(), Type.String({ maxLength: 63, pattern: LABEL_VALUE }), {
        description: "Labels of the nodes that this resource is for. Default: every node.",
        minProperties: 1,
        maxProperties: MAX_LABELS,
      }),
    ),
    nodeMatchExpressions: Type.Optional(
      Type.Array(NodeMatchExpression, {
        description:
          "Conditions on the labels of the nodes that this resource is for; all must hold, nodeSelector too.",
        minItems: 1,
        maxItems: MAX_LABELS,
      }),
    ),
    priority: Type.Optional(
      Type.Integer({
        description:
          "Of several resources that are for a node, the one with the highest priority rules it, then the oldest one. Default 0.",
        minimum: -2_147_483_648,
        maximum: 2_147_483_647,
      }),
    ),
    orphanGracePeriod: duration(
      "How long a pod must have been absent before its archives count as orphans. Default 30s.",
    ),
    orphanMatch: Type.Optional(
      Type.Enum(["Name", "UID"], {
        description:
          "Whether a pod of the same name saves the archives of one before it, or UID: only the same pod does. Default Name.",
      }),
    ),
    globalPolicy: Type.Optional(GlobalPolicySpec),
    containerPolicies: Type.Optional(
      Type.Array(ContainerPolicySpec, {
        description: "Policies of containers by name; they come before all others.",
        maxItems: MAX_POLICIES,
      }),
    ),
    podPolicies: Type.Optional(
      Type.Array(PodPolicySpec, {
        description: "Policies of pods by name; they come before workload, namespace and global policies.",
        maxItems: MAX_POLICIES,
      }),
    ),
    workloadPolicies: Type.Optional(
      Type.Array(WorkloadPolicySpec, {
        description:
          "Policies of workloads, such as Deployments, by name; they come before namespace and global policies.",
        maxItems: MAX_POLICIES,
      }),
    ),
    namespacePolicies: Type.Optional(
      Type.Array(NamespacePolicySpec, {
        description: "Policies of namespaces by name; they come before the global policy.",
        maxItems: MAX_POLICIES,
      }),
    ),
    nodePolicy: Type.Optional(NodePolicySpec),
  },
  { ...closed, description: "What to keep of the container checkpoints on the nodes." },
);

export type PolicySpec = Type.Static<typeof PolicySpec>;
export type NodeMatchExpression = Type.Static<typeof NodeMatchExpression>;
export type WorkloadPolicySpec = Type.Static<typeof WorkloadPolicySpec>;
export type GlobalPolicySpec = Type.Static<typeof GlobalPolicySpec>;
export type NodePolicySpec = Type.Static<typeof NodePolicySpec>;
/** The limits that container, pod, workload and namespace policies have in common. */
export type ScopedPolicySpec = Omit<Type.Static<typeof NamespacePolicySpec>, "namespace">;
