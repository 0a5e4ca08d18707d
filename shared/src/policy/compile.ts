import { Compile } from "typebox/compile";
import type { TLocalizedValidationError } from "typebox/error";
import {
  DEFAULT_CHECKPOINT_DIRECTORY,
  type GlobalPolicySpec,
  type NodeMatchExpression,
  type NodePolicySpec,
  PolicySpec,
  type ScopedPolicySpec,
  type WorkloadPolicySpec,
} from "../crd/schema.ts";
import { parseDuration } from "../duration.ts";
import { parseQuantity } from "../quantity.ts";
import { show } from "../show.ts";
import {
  limit,
  MIN_UNMANAGED_AGE_MS,
  type NodePolicy,
  namesOfPolicy,
  type Policy,
  type PolicyDocument,
  type ScopeLimits,
} from "./document.ts";

/** Something about one field of a policy: what is wrong with it, or what its author should know. */
export interface FieldProblem {
  /** As its author would write it: `spec.containerPolicies[3].maxAge`. */
  field: string;
  message: string;
}

/** A policy resource, understood. */
export interface CompiledPolicy {
  document: PolicyDocument;
  /** Milliseconds that a pod must have been absent before it counts as gone. */
  orphanGraceMs: number;
  /** Labels that a node must have; undefined is every node. */
  nodeSelector?: Record<string, string>;
  /** Conditions on a node's labels that must all hold, too; undefined is none. */
  nodeMatchExpressions?: NodeMatchExpression[];
  /** Of several resources that are for a node, the one with the highest priority rules it. */
  priority: number;
  /** Quantities that were taken as MiB for want of a unit. */
  unitless: FieldProblem[];
  /** Entries that set no limit, and so exempt what they govern from those of every wider policy. */
  unlimited: FieldProblem[];
}

export interface CompileOptions {
  /** Where the archives are if a policy does not say; by default the kubelet's own directory. */
  defaultDirectory?: string | undefined;
}

export type CompileResult = { ok: true; policy: CompiledPolicy } | { ok: false; problems: FieldProblem[] };

const DEFAULT_MAX_CHECKPOINTS_PER_CONTAINER = 10;
const DEFAULT_ORPHAN_GRACE_MS = 30_000;
/** How far the low watermark lies under the high one where the policy names none, in percent. */
const DEFAULT_WATERMARK_GAP = 5;

let checker: ReturnType<typeof Compile<typeof PolicySpec>> | undefined;

/** A schema, as far as a value's fields are found by it. */
interface Shape {
  properties?: Record<string, Shape>;
  patternProperties?: Record<string, Shape>;
  items?: Shape;
}

/** A value without the fields of its schema that are null: the API server takes those as absent. */
function withoutNulls(value: unknown, shape: Shape | undefined): unknown {
  if (shape === undefined || typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((item) => withoutNulls(item, shape.items));
  const [anyField] = Object.values(shape.patternProperties ?? {});
  const fieldOf = (key: string) => (Object.hasOwn(shape.properties ?? {}, key) ? shape.properties?.[key] : anyField);
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, field]) => field !== null || fieldOf(key) === undefined)
      .map(([key, field]) => [key, withoutNulls(field, fieldOf(key))]),
  );
}

/**
 * Checks a policy's `spec` and resolves it: defaults filled in, quantities to bytes, durations to milliseconds, zeros
 * (which switch a rule off) to nothing. Every problem is reported, each with its field; a policy with a problem yields
 * no document at all, for half a policy could delete what the whole one keeps.
 */
export function compilePolicy(
  given: unknown,
  { defaultDirectory = DEFAULT_CHECKPOINT_DIRECTORY }: CompileOptions = {},
): CompileResult {
  checker ??= Compile(PolicySpec);
  const spec = withoutNulls(given, PolicySpec as Shape);
  if (!checker.Check(spec)) return { ok: false, problems: explainErrors(spec, checker.Errors(spec)) };
  const resolver = createResolver(defaultDirectory);
  const policy: CompiledPolicy = {
    document: {
      directory: resolver.directory(spec.checkpointDirectory),
      mode: spec.mode ?? "Enforce",
      applyImmediately: spec.applyPoliciesImmediately ?? false,
      ...(spec.orphanMatch === "UID" && { orphanMatch: "UID" }),
      global: resolver.global(spec.globalPolicy ?? {}),
      rules: [
        ...(spec.containerPolicies ?? []).map((rule, index) =>
          resolver.rule(rule, { level: "container", index, names: rule }),
        ),
        ...(spec.podPolicies ?? []).map((rule, index) => resolver.rule(rule, { level: "pod", index, names: rule })),
        ...(spec.workloadPolicies ?? []).map((rule, index) =>
          resolver.rule(rule, { level: "workload", index, names: workloadNames(rule) }),
        ),
        ...(spec.namespacePolicies ?? []).map((rule, index) =>
          resolver.rule(rule, { level: "namespace", index, names: rule }),
        ),
      ],
      node: resolver.node(spec.nodePolicy ?? {}),
    },
    orphanGraceMs: resolver.duration("spec.orphanGracePeriod", spec.orphanGracePeriod) ?? DEFAULT_ORPHAN_GRACE_MS,
    unitless: resolver.unitless,
    unlimited: resolver.unlimited,
    priority: spec.priority ?? 0,
  };
  if (spec.nodeSelector !== undefined) policy.nodeSelector = spec.nodeSelector;
  if (spec.nodeMatchExpressions !== undefined) {
    policy.nodeMatchExpressions = resolver.expressions(spec.nodeMatchExpressions);
  }
  return resolver.problems.length > 0 ? { ok: false, problems: resolver.problems } : { ok: true, policy };
}

/** The document that is in force where no policy resource rules. */
export function defaultPolicy(options?: CompileOptions): CompiledPolicy {
  const result = compilePolicy({}, options);
  if (!result.ok) throw new Error("the empty policy must compile");
  return result.policy;
}

/** `spec.globalPolicy.maxAge: "soon" is not a duration; write e.g. 30s, 12h or 7d` */
export function formatProblem({ field, message }: FieldProblem): string {
  return `${field}: ${message}`;
}

/** How many problems are told in one sentence. */
const MAX_PROBLEMS = 20;

/** The problems of a policy in one sentence: the first of them, and how many more there are. */
export function formatProblems(problems: readonly FieldProblem[]): string {
  const told = problems.slice(0, MAX_PROBLEMS).map((one) => (one.field === "" ? one.message : formatProblem(one)));
  const more = problems.length - told.length;
  return [...told, ...(more > 0 ? [`and ${more} more`] : [])].join("; ");
}

type RuleNames = Pick<Policy, "pod" | "kind" | "workload" | "container"> & { namespace: string };

/** The names of a workload policy: `*`, which is every container, is the same as none. */
function workloadNames({ namespace, kind, name, container }: WorkloadPolicySpec): RuleNames {
  return { namespace, kind, workload: name, ...(container === undefined || container === "*" ? {} : { container }) };
}

/** The limits of a policy that names its scope. */
const LIMITS = ["maxCheckpoints", "maxCheckpointSize", "maxTotalSize", "maxAge"] as const;

const LIST_OF_LEVEL = {
  container: "containerPolicies",
  pod: "podPolicies",
  workload: "workloadPolicies",
  namespace: "namespacePolicies",
} as const;
const SCOPE_OF_LEVEL = {
  container: "perContainer",
  pod: "perPod",
  workload: "perWorkload",
  namespace: "perNamespace",
} as const;

/** Turns the parts of a checked spec into their resolved form, gathering problems and unitless quantities on the way. */
function createResolver(defaultDirectory: string) {
  const problems: FieldProblem[] = [];
  const unitless: FieldProblem[] = [];
  const unlimited: FieldProblem[] = [];
  const seen = new Map<string, string>();

  function size(field: string, value: unknown): number | undefined {
    if (value === undefined) return undefined;
    const parsed = parseQuantity(value);
    if (!parsed.ok) {
      problems.push({ field, message: parsed.problem });
      return undefined;
    }
    if (parsed.unitless !== undefined) {
      unitless.push({
        field,
        message: `${show(value)} has no unit and is taken as MiB; write ${parsed.unitless}`,
      });
    }
    return parsed.bytes;
  }

  function sizeOrShare<B extends string, P extends string>(
    [bytes, percent]: [B, P],
    field: string,
    value: unknown,
  ): { [K in B]?: number } | { [K in P]?: number } {
    const share = shareOf(value);
    return share === undefined ? limit(bytes, size(field, value)) : limit(percent, share);
  }

  function duration(field: string, value: unknown): number | undefined {
    if (value === undefined) return undefined;
    const parsed = parseDuration(value);
    if (parsed.ok) return parsed.milliseconds;
    problems.push({ field, message: parsed.problem });
    return undefined;
  }

  function directory(value: string | undefined): string {
    const path = value ?? defaultDirectory;
    return path.length > 1 ? path.replace(/\/+$/, "") : path;
  }

  function expressions(list: NodeMatchExpression[]): NodeMatchExpression[] {
    for (const [index, { operator, values = [] }] of list.entries()) {
      const needsValues = operator === "In" || operator === "NotIn";
      if (needsValues === values.length > 0) continue;
      problems.push({
        field: `spec.nodeMatchExpressions[${index}].values`,
        message: needsValues ? `${operator} needs at least one value` : `${operator} has no values; leave them out`,
      });
    }
    return list;
  }

  function common(field: string, spec: Pick<ScopedPolicySpec, "retainOrphan" | "maxCheckpointSize" | "maxAge">) {
    return {
      retainOrphan: spec.retainOrphan ?? true,
      ...limit("maxCheckpointBytes", size(`${field}.maxCheckpointSize`, spec.maxCheckpointSize)),
      ...limit("maxAgeMs", duration(`${field}.maxAge`, spec.maxAge)),
    };
  }

  function floor(field: string, names: { min: string; max: string }, min: number | undefined, max: number | undefined) {
    if (min !== undefined && max !== undefined && max > 0 && min > max) {
      problems.push({
        field: `${field}.${names.min}`,
        message: `${min} is over ${names.max}, ${max}; lower the floor or raise the limit`,
      });
    }
    return limit("minCheckpoints", min);
  }

  function global(spec: GlobalPolicySpec): Policy {
    const field = "spec.globalPolicy";
    const maxCheckpoints = spec.maxCheckpointsPerContainer ?? DEFAULT_MAX_CHECKPOINTS_PER_CONTAINER;
    const scope = (name: "PerContainer" | "PerPod" | "PerNamespace", count: number | undefined) =>
      scopeLimits(count, size(`${field}.maxTotalSize${name}`, spec[`maxTotalSize${name}`]));
    return {
      level: "global",
      ...common(field, spec),
      ...floor(
        field,
        { min: "minCheckpointsPerContainer", max: "maxCheckpointsPerContainer" },
        spec.minCheckpointsPerContainer,
        maxCheckpoints,
      ),
      ...limit("perContainer", scope("PerContainer", maxCheckpoints)),
      ...limit("perPod", scope("PerPod", spec.maxCheckpointsPerPod)),
      ...limit("perNamespace", scope("PerNamespace", spec.maxCheckpointsPerNamespace)),
    };
  }

  function rule(
    spec: ScopedPolicySpec,
    { level, index, names }: { level: Exclude<Policy["level"], "global">; index: number; names: RuleNames },
  ): Policy {
    const field = `spec.${LIST_OF_LEVEL[level]}[${index}]`;
    const { namespace, pod, kind, workload, container } = names;
    const scope = namesOfPolicy(names);
    const twin = seen.get(`${level} ${scope}`);
    if (twin !== undefined) problems.push({ field, message: `has the same scope as ${twin}, ${scope}; merge the two` });
    else seen.set(`${level} ${scope}`, field);
    // A 0 that is written says that no limit is meant.
    if (LIMITS.every((name) => spec[name] === undefined)) {
      const message = `exempts ${scope} from all other limits, because it sets none; set one, or maxCheckpoints: 0 if that is meant`;
      unlimited.push({ field, message });
    }
    return {
      level,
      namespace,
      ...(pod === undefined ? {} : { pod }),
      ...(kind === undefined ? {} : { kind }),
      ...(workload === undefined ? {} : { workload }),
      ...(container === undefined ? {} : { container }),
      ...common(field, spec),
      ...floor(field, { min: "minCheckpoints", max: "maxCheckpoints" }, spec.minCheckpoints, spec.maxCheckpoints),
      ...limit(
        SCOPE_OF_LEVEL[level],
        scopeLimits(spec.maxCheckpoints, size(`${field}.maxTotalSize`, spec.maxTotalSize)),
      ),
    };
  }

  function node(spec: NodePolicySpec): NodePolicy {
    const field = "spec.nodePolicy";
    const { highWatermarkPercent: high, lowWatermarkPercent: low } = spec;
    if (low !== undefined && (high === undefined || low >= high)) {
      problems.push({
        field: `${field}.lowWatermarkPercent`,
        message:
          high === undefined
            ? `${low} needs a highWatermarkPercent above it`
            : `${low} is not under highWatermarkPercent, ${high}`,
      });
    }
    return {
      ...sizeOrShare(["maxTotalBytes", "maxTotalPercent"], `${field}.maxTotalSize`, spec.maxTotalSize),
      ...(high === undefined || high === 0
        ? {}
        : { watermark: { high, low: low ?? Math.max(1, high - DEFAULT_WATERMARK_GAP) } }),
      ...sizeOrShare(["minFreeBytes", "minFreePercent"], `${field}.minFree`, spec.minFree),
      ...countOrShare(spec.minFreeInodes),
      ...limit("maxAgeUnmanagedMs", unmanagedAge(`${field}.maxAgeUnmanaged`, spec.maxAgeUnmanaged)),
    };
  }

  function unmanagedAge(field: string, value: unknown): number | undefined {
    const ageMs = duration(field, value);
    if (ageMs !== undefined && ageMs > 0 && ageMs < MIN_UNMANAGED_AGE_MS) {
      problems.push({ field, message: `${show(value)} is under 1h, the shortest there is; 0 switches the rule off` });
    }
    return ageMs;
  }

  return { problems, unitless, unlimited, duration, directory, expressions, global, rule, node };
}

function scopeLimits(maxCheckpoints: number | undefined, maxTotalBytes: number | undefined): ScopeLimits | undefined {
  const limits = { ...limit("maxCheckpoints", maxCheckpoints), ...limit("maxTotalBytes", maxTotalBytes) };
  return Object.keys(limits).length > 0 ? limits : undefined;
}

/** The percent of a share such as `10%`; undefined if the value is none. */
function shareOf(value: unknown): number | undefined {
  return typeof value === "string" && value.endsWith("%") ? Number(value.slice(0, -1)) : undefined;
}

function countOrShare(value: NodePolicySpec["minFreeInodes"]) {
  const share = shareOf(value);
  if (share !== undefined) return limit("minFreeInodesPercent", share);
  return limit("minFreeInodes", value === undefined ? undefined : Number(value));
}

const UNKNOWN_FIELD = "does not exist; see the policy fields in README.md";

/** Words the schema's errors for the author of the policy: one for each field, the way out included. */
function explainErrors(spec: unknown, errors: TLocalizedValidationError[]): FieldProblem[] {
  const problems = new Map<string, FieldProblem>();
  for (const error of errors) {
    const keys = error.instancePath.split("/").slice(1).map(unescapePointer);
    for (const { path, message } of explainError(spec, keys, error)) {
      const field = fieldName(path);
      if (!problems.has(field)) problems.set(field, { field, message });
    }
  }
  return [...problems.values()];
}

function explainError(
  spec: unknown,
  keys: string[],
  error: TLocalizedValidationError,
): Array<{ path: string[]; message: string }> {
  const value = keys.reduce<unknown>((parent, key) => (parent as Record<string, unknown> | undefined)?.[key], spec);
  const shown = show(value);
  switch (error.keyword) {
    case "additionalProperties":
      return error.params.additionalProperties.map((key) => ({
        path: [...keys, key],
        message: UNKNOWN_FIELD,
      }));
    case "boolean":
      // The twin of additionalProperties, and all that is left of it where there are more errors than are listed.
      return [{ path: keys, message: UNKNOWN_FIELD }];
    case "required":
      return error.params.requiredProperties.map((key) => ({ path: [...keys, key], message: "is required" }));
    case "enum":
      return [{ path: keys, message: `${shown} is not one of ${error.params.allowedValues.join(", ")}` }];
    case "maxItems":
      return [{ path: keys, message: `has over ${error.params.limit} entries` }];
    case "minItems":
      return [{ path: keys, message: "needs at least one entry; leave it out for every node" }];
    case "maxProperties":
      return [{ path: keys, message: `has over ${error.params.limit} labels` }];
    case "minProperties":
      return [{ path: keys, message: "needs at least one label; leave it out for every node" }];
    default:
      return [{ path: keys, message: explainValue(keys, value) ?? `${shown} ${error.message}` }];
  }
}

/** What is wrong with a value whose field has a grammar of its own; undefined where the grammar has no objection. */
function explainValue(keys: string[], value: unknown): string | undefined {
  const key = keys.at(-1) ?? "";
  const shown = show(value);
  if (keys[0] === "nodeMatchExpressions" && key === "key") {
    return `${shown} is not the name of a label; write it as on the node, e.g. kubernetes.io/os`;
  }
  if (keys.at(-2) === "nodeSelector" || (keys[0] === "nodeMatchExpressions" && keys.at(-2) === "values"))
    return `${shown} is not a label value; quote it, and write it as on the node`;
  if (keys[0] === "nodePolicy" && typeof value === "string" && value.endsWith("%")) {
    return `${shown} is not a share of the file system; write whole percent from 1% to 99%, or 0`;
  }
  if (key === "minFreeInodes") return `${shown} is neither a number of inodes nor a share of them; write e.g. 5%`;
  if (/^(maxCheckpointSize|maxTotalSize\w*|minFree)$/.test(key)) {
    const parsed = parseQuantity(value);
    return parsed.ok ? `${shown} is too long for a quantity` : parsed.problem;
  }
  if (key === "maxAge" || key === "maxAgeUnmanaged" || key === "orphanGracePeriod") {
    const parsed = parseDuration(value);
    return parsed.ok ? `${shown} is too long for a duration` : parsed.problem;
  }
  if (key === "checkpointDirectory") {
    const isAbsolute = typeof value === "string" && value.startsWith("/");
    const why = isAbsolute ? "is too long or has an empty, . or .. part" : "is not an absolute path";
    return `${shown} ${why}; write e.g. ${DEFAULT_CHECKPOINT_DIRECTORY}`;
  }
  if (keys[0] === "workloadPolicies" && key === "name") {
    return `${shown} is not the name of a workload, in full; write e.g. web`;
  }
  if (key === "namespace" || key === "pod" || key === "container") {
    return `${shown} is neither a Kubernetes name nor the beginning of one followed by *; write e.g. web-*`;
  }
  return undefined;
}

function fieldName(keys: string[]): string {
  return keys.reduce((name, key) => (/^\d+$/.test(key) ? `${name}[${key}]` : `${name}.${key}`), "spec");
}

function unescapePointer(key: string): string {
  return key.replaceAll("~1", "/").replaceAll("~0", "~");
}
