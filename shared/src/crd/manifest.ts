import { stringify } from "yaml";
import {
  COUNT_OR_SHARE,
  DEFAULT_CHECKPOINT_DIRECTORY,
  DURATION,
  LABEL_KEY,
  LABEL_VALUE,
  NAME,
  NAME_OR_PREFIX,
  PLAIN_PATH,
  POD_OR_PREFIX,
  POLICY_GROUP,
  POLICY_KIND,
  PolicySpec,
  QUANTITY,
  QUANTITY_OR_SHARE,
} from "./schema.ts";
import { PolicyStatus } from "./status.ts";

/** The resource's name in paths: `/apis/criu.org/v1/namespaces/NAMESPACE/checkpointrestoreoperators`. */
export const POLICY_PLURAL = `${POLICY_KIND.toLowerCase()}s`;

/** The files that {@link renderManifests} renders, from the project's root. */
export const CRD_FILE = `config/crd/${POLICY_GROUP}_${POLICY_PLURAL}.yaml`;
export const CHART_CRD_FILE = `charts/checkpoint-restore-operator/templates/crds/${POLICY_GROUP}_${POLICY_PLURAL}.yaml`;

/** JSON, as the API server's schemas are. */
type Json = string | number | boolean | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

/** A rule that a schema cannot say, in the Common Expression Language, with the way out as its message. */
interface Rule {
  rule: string;
  message: string;
  fieldPath: string;
}

/** A rule on one value, which its message shows. Of a value of several lines the API server writes the plain message. */
type ValueRule = { rule: string; message: string; messageExpression: string };

/** What a text is not that does not match its pattern, and the way out: a pattern in a message is of no use to a reader. */
const WORDS = new Map<string, string>([
  [QUANTITY, "is not a quantity; write e.g. 10Gi or 10G"],
  [QUANTITY_OR_SHARE, "is neither a quantity nor a share of the file system; write e.g. 10Gi or 10%"],
  [COUNT_OR_SHARE, "is neither a number of inodes nor a share of them; write e.g. 100000 or 5%"],
  [DURATION, "is not a duration; write e.g. 30s, 12h or 7d"],
  [PLAIN_PATH, `is not an absolute path without . and ..; write e.g. ${DEFAULT_CHECKPOINT_DIRECTORY}`],
  [NAME_OR_PREFIX, "is neither a Kubernetes name nor the beginning of one followed by *; write e.g. web-*"],
  [NAME, "is not the name of a workload, in full; write e.g. web"],
  [POD_OR_PREFIX, "is neither a Kubernetes name nor the beginning of one followed by *; write e.g. web-*"],
  [LABEL_VALUE, "is not a label value; quote it, and write it as on the node"],
  [LABEL_KEY, "is not the name of a label; write it as on the node, e.g. kubernetes.io/os"],
]);

/**
 * In the place of a `minimum` for quantities as text: what is over 0 and rounds up to less than 1 MiB is refused, as by
 * `parseQuantity`. Exponents of three digits are left to that, because the API server computes with them as they are.
 */
const MIN_SIZE_RULE = textRule(
  `!self.matches('${QUANTITY}') || self.matches('[eE][-+]?[0-9]{3,}$') || !quantity(self).isGreaterThan(quantity('0'))` +
    " || quantity(self).isGreaterThan(quantity(self.matches('[A-Za-z]$') ? '1048575' : '0.999999046'))",
  "is under 1Mi, the smallest limit there is; 0 means no limit",
  { isUnion: true },
);

const FLOOR_RULE: Rule = {
  rule: "!has(self.minCheckpoints) || !has(self.maxCheckpoints) || self.maxCheckpoints == 0 || self.minCheckpoints <= self.maxCheckpoints",
  message: "minCheckpoints is over maxCheckpoints; lower the floor, raise the limit, or write 0 for no limit",
  fieldPath: ".minCheckpoints",
};

const GLOBAL_FLOOR_RULE: Rule = {
  rule:
    "!has(self.minCheckpointsPerContainer) || (has(self.maxCheckpointsPerContainer)" +
    " ? self.maxCheckpointsPerContainer == 0 || self.minCheckpointsPerContainer <= self.maxCheckpointsPerContainer" +
    " : self.minCheckpointsPerContainer <= 10)",
  message:
    "minCheckpointsPerContainer is over maxCheckpointsPerContainer, which is 10 where it is not set;" +
    " lower the floor, raise the limit, or write 0 for no limit",
  fieldPath: ".minCheckpointsPerContainer",
};

/** In the place of `maximum: 0`, which has no words for the way out. */
const NO_UNIT_RULE: ValueRule = {
  rule: "type(self) != int || self == 0",
  message: "has no unit; write e.g. 30s, 12h or 7d",
  messageExpression: "string(self) + ' has no unit; write e.g. 30s, 12h or 7d'",
};

const MATCH_RULE: Rule = {
  rule: "(has(self.values) && size(self.values) > 0) == (self.operator in ['In', 'NotIn'])",
  message: "In and NotIn need at least one value; Exists and DoesNotExist have none",
  fieldPath: ".values",
};

const WATERMARK_RULE: Rule = {
  rule:
    "!has(self.lowWatermarkPercent) ||" +
    " (has(self.highWatermarkPercent) && self.lowWatermarkPercent < self.highWatermarkPercent)",
  message:
    "lowWatermarkPercent needs a highWatermarkPercent above it; set that one, or leave lowWatermarkPercent out" +
    " (it is then 5 under the high one)",
  fieldPath: ".lowWatermarkPercent",
};

/** What the API server should know of a part of the resource, beyond its schema; by path. */
const ADDITIONS: Record<string, JsonObject> = {
  "spec.globalPolicy": rules(GLOBAL_FLOOR_RULE),
  "spec.nodePolicy": rules(WATERMARK_RULE),
  "spec.containerPolicies": listMap("namespace", "pod", "container"),
  "spec.containerPolicies[]": rules(FLOOR_RULE),
  "spec.podPolicies": listMap("namespace", "pod"),
  "spec.podPolicies[]": rules(FLOOR_RULE),
  "spec.workloadPolicies": listMap("namespace", "kind", "name", "container"),
  "spec.workloadPolicies[]": rules(FLOOR_RULE),
  // A key of a list's entries must be there, or have a default.
  "spec.workloadPolicies[].container": { default: "*" },
  "spec.namespacePolicies": listMap("namespace"),
  "spec.namespacePolicies[]": rules(FLOOR_RULE),
  "spec.nodeMatchExpressions": { "x-kubernetes-list-type": "atomic" },
  "spec.nodeMatchExpressions[]": rules(MATCH_RULE),
  "spec.nodeMatchExpressions[].values": { "x-kubernetes-list-type": "atomic" },
  "status.conditions": listMap("type"),
};

/** A rule on a text; with `isUnion`, a number may stand in its place, and the API server does not know which it is. */
function textRule(rule: string, message: string, { isUnion }: { isUnion: boolean }): ValueRule {
  return {
    rule: isUnion ? `type(self) != string || ${rule}` : rule,
    message,
    // A raw text, so that the rule is plain YAML.
    messageExpression: `r'"' + ${isUnion ? "string(self)" : "self"} + '" ${message}'`,
  };
}

function patternRule(pattern: string, { path, isUnion }: { path: string; isUnion: boolean }): ValueRule {
  const message = WORDS.get(pattern);
  if (message === undefined) throw new Error(`${path}: say in words what does not match ${pattern}`);
  return textRule(`self.matches(r'${pattern}')`, message, { isUnion });
}

function rules(...list: Rule[]): JsonObject {
  return { "x-kubernetes-validations": list.map((rule) => ({ ...rule })) };
}

/** A list of which the API server refuses two entries with the same keys. */
function listMap(...keys: string[]): JsonObject {
  return { "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys };
}

/** The CustomResourceDefinition of the policy resource, from the schemas that validate it everywhere else. */
export function policyDefinition(): JsonObject {
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `${POLICY_PLURAL}.${POLICY_GROUP}` },
    spec: {
      group: POLICY_GROUP,
      names: {
        kind: POLICY_KIND,
        listKind: `${POLICY_KIND}List`,
        plural: POLICY_PLURAL,
        singular: POLICY_KIND.toLowerCase(),
        shortNames: ["cro"],
      },
      scope: "Namespaced",
      versions: [
        {
          name: "v1",
          served: true,
          storage: true,
          subresources: { status: {} },
          additionalPrinterColumns: [
            { name: "Mode", type: "string", jsonPath: ".status.mode" },
            { name: "Nodes", type: "string", jsonPath: ".status.nodes.summary" },
            { name: "Archives", type: "integer", jsonPath: ".status.archives" },
            { name: "Size", type: "string", jsonPath: ".status.size" },
            { name: "Planned", type: "integer", jsonPath: ".status.planned.archives" },
            { name: "Ready", type: "string", jsonPath: '.status.conditions[?(@.type=="Ready")].status' },
            { name: "Reason", type: "string", jsonPath: '.status.conditions[?(@.type=="Ready")].reason' },
            { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
            { name: "Pinned", type: "integer", jsonPath: ".status.pinned", priority: 1 },
            { name: "Unidentified", type: "integer", jsonPath: ".status.unidentified", priority: 1 },
            { name: "Fullest", type: "string", jsonPath: ".status.fullest.summary", priority: 1 },
            { name: "Updated", type: "date", jsonPath: ".status.lastReportTime", priority: 1 },
          ],
          schema: {
            openAPIV3Schema: {
              type: "object",
              description: "What to keep of the container checkpoints that lie on the nodes.",
              properties: {
                apiVersion: { type: "string" },
                kind: { type: "string" },
                metadata: { type: "object" },
                spec: policySchema(),
                status: toStructural(asJson(PolicyStatus), { path: "status", hasRules: false }),
              },
            },
          },
        },
      ],
    },
  };
}

/**
 * What a policy's spec may be, as the API server checks it. With patterns as such it is for those who know no rules: they
 * refuse less, and in other words.
 */
export function policySchema({ hasRules = true } = {}): JsonObject {
  return toStructural(asJson(PolicySpec), { path: "spec", hasRules });
}

/** The files that are generated from the schemas: path from the project's root → content. */
export function renderManifests(): Record<string, string> {
  const note = "# Generated from shared/src/crd by `make manifests`; edit that.\n";
  const definition = policyDefinition();
  return {
    [CRD_FILE]: note + toYaml(definition),
    [CHART_CRD_FILE]: note + wrapInChart(definition),
  };
}

/** As a template of the chart: installed with crds.enabled, and left behind on uninstalling with crds.keep. */
function wrapInChart({ metadata, ...definition }: JsonObject): string {
  const { name } = metadata as { name: string };
  return [
    "{{- if .Values.crds.enabled }}\n",
    toYaml({ apiVersion: definition.apiVersion as string, kind: definition.kind as string }),
    "metadata:\n",
    `  name: ${name}\n`,
    "  labels:\n",
    '    {{- include "checkpoint-restore-operator.labels" (list .) | nindent 4 }}\n',
    "  {{- if .Values.crds.keep }}\n",
    "  annotations:\n",
    "    helm.sh/resource-policy: keep\n",
    "  {{- end }}\n",
    toYaml({ spec: definition.spec as JsonObject }),
    "{{- end }}\n",
  ].join("");
}

function toYaml(value: JsonObject): string {
  return stringify(value, { lineWidth: 0, aliasDuplicateObjects: false });
}

/** The parts of JSON schema that TypeBox writes and this project uses. */
interface Schema {
  [keyword: string]: unknown;
  type?: string;
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  enum?: Json[];
}

function asJson(schema: object): Schema {
  return JSON.parse(JSON.stringify(schema)) as Schema;
}

/** Keywords that mean the same in the API server's schemas. */
const SAME = [
  "type",
  "description",
  "format",
  "enum",
  "required",
  "pattern",
  "minLength",
  "maxLength",
  "minimum",
  "maximum",
  "minItems",
  "maxItems",
  "minProperties",
  "maxProperties",
] as const;
const TRANSLATED = ["properties", "additionalProperties", "patternProperties", "items", "anyOf"];

/**
 * A TypeBox schema in the API server's structural form (https://kubernetes.io/docs/tasks/extend-kubernetes/
 * custom-resources/custom-resource-definitions/#specifying-a-structural-schema). A keyword that it does not know is an
 * error: a check that silently got lost on the way would let in what the coordinator refuses.
 */
function toStructural(schema: Schema, { path, hasRules }: { path: string; hasRules: boolean }): JsonObject {
  const unknown = Object.keys(schema).find(
    (keyword) => !(SAME as readonly string[]).includes(keyword) && !TRANSLATED.includes(keyword),
  );
  if (unknown !== undefined) throw new Error(`${path}: the CRD has no translation of the keyword ${unknown}`);
  const result: JsonObject = {};
  for (const keyword of SAME) if (schema[keyword] !== undefined) result[keyword] = schema[keyword] as Json;
  if (schema.enum !== undefined) result.type = "string";
  const checks =
    hasRules && schema.pattern !== undefined ? [patternRule(String(schema.pattern), { path, isUnion: false })] : [];
  if (checks.length > 0) delete result.pattern;
  if (schema.type === "integer" && (schema.maximum === undefined || Number(schema.maximum) >= 2 ** 31)) {
    result.format = "int64";
  }
  if (schema.anyOf !== undefined) Object.assign(result, toIntOrString(schema.anyOf, { path, hasRules }));
  if (schema.properties !== undefined) {
    // The API server keeps what a closed object does not name, a field of a later version for instance. If it pruned it,
    // half a policy would stay, and could delete what the whole one keeps. The coordinator refuses the whole one instead.
    if (schema.additionalProperties === false) result["x-kubernetes-preserve-unknown-fields"] = true;
    result.properties = Object.fromEntries(
      Object.entries(schema.properties).map(([key, value]) => [
        key,
        toStructural(value, { path: `${path}.${key}`, hasRules }),
      ]),
    );
  }
  if (schema.patternProperties !== undefined) {
    const [[pattern, values] = [], ...others] = Object.entries(schema.patternProperties);
    if (pattern !== "^.*$" || values === undefined || others.length > 0) {
      throw new Error(`${path}: the CRD knows only maps with keys of any form`);
    }
    result.additionalProperties = toStructural(values, { path: `${path}.*`, hasRules });
  }
  if (schema.items !== undefined) result.items = toStructural(schema.items, { path: `${path}[]`, hasRules });
  if (checks.length > 0) result["x-kubernetes-validations"] = checks;
  return { ...result, ...ADDITIONS[path] };
}

/** Of a union, only that of an integer and a string can be said; their own checks then stand beside it. */
function toIntOrString(variants: Schema[], { path, hasRules }: { path: string; hasRules: boolean }): JsonObject {
  const [integer, string, ...others] = variants;
  if (integer?.type !== "integer" || string?.type !== "string" || others.length > 0) {
    throw new Error(`${path}: the CRD knows only unions of an integer and a string`);
  }
  const { type: _integer, maximum, ...numberChecks } = integer;
  const { type: _string, pattern, ...stringChecks } = string;
  const checks = [
    ...(maximum === 0 ? [NO_UNIT_RULE] : []),
    ...(pattern === undefined ? [] : [patternRule(String(pattern), { path, isUnion: true })]),
    ...(pattern === QUANTITY || pattern === QUANTITY_OR_SHARE ? [MIN_SIZE_RULE] : []),
  ];
  return {
    "x-kubernetes-int-or-string": true,
    anyOf: [{ type: "integer" }, { type: "string" }],
    ...(numberChecks as JsonObject),
    ...(maximum !== 0 && { maximum: maximum as number }),
    ...(stringChecks as JsonObject),
    ...(hasRules ? { "x-kubernetes-validations": checks } : { pattern: pattern as string }),
  };
}
