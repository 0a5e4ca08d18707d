import type { TSchema } from "typebox";
import { PolicyDocument } from "./document.ts";

interface Shape {
  properties?: Record<string, Shape>;
  items?: Shape;
  enum?: unknown[];
}

/**
 * All members of a document as dotted paths, such as `node.minFreeBytes`; a list adds nothing to the path of what is in
 * it. The values of an enum are members too, such as `mode.DryRun`: whoever does not know one refuses the document.
 */
export const DOCUMENT_FIELDS: readonly string[] = fieldsOfSchema(PolicyDocument);

/** What version 0.1.0 knows, which does not tell so. */
export const FIELDS_OF_0_1_0: readonly string[] = [
  ...["directory", "mode", "mode.Enforce", "mode.DryRun", "applyImmediately"],
  ...["global", "rules"].flatMap((policy) => [
    policy,
    ...["level", "level.container", "level.pod", "level.namespace", "level.global", "namespace", "pod", "container"]
      .concat(["retainOrphan", "minCheckpoints", "maxCheckpointBytes", "maxAgeMs"])
      .concat(...["perContainer", "perPod", "perNamespace"].map(withScopeLimits))
      .map((member) => `${policy}.${member}`),
  ]),
  ...["node", "node.maxTotalBytes", "node.watermark", "node.watermark.high", "node.watermark.low", "node.minFreeBytes"],
];

/** The members that a document has, also ones that this version does not know. */
export function fieldsOfDocument(document: unknown): string[] {
  const fields = new Set<string>();
  visitValue(document, { shape: PolicyDocument as Shape, path: "", fields });
  return [...fields];
}

function withScopeLimits(scope: string): string[] {
  return [scope, `${scope}.maxCheckpoints`, `${scope}.maxTotalBytes`];
}

function fieldsOfSchema(schema: TSchema): string[] {
  const fields = new Set<string>();
  visitSchema(schema as Shape, "", fields);
  return [...fields];
}

function visitSchema({ properties = {}, items, enum: values = [] }: Shape, path: string, fields: Set<string>): void {
  for (const value of values) fields.add(join(path, String(value)));
  if (items !== undefined) visitSchema(items, path, fields);
  for (const [name, shape] of Object.entries(properties)) {
    fields.add(join(path, name));
    visitSchema(shape, join(path, name), fields);
  }
}

function visitValue(
  value: unknown,
  { shape, path, fields }: { shape: Shape | undefined; path: string; fields: Set<string> },
): void {
  if (shape?.enum !== undefined) fields.add(join(path, String(value)));
  else if (Array.isArray(value)) for (const item of value) visitValue(item, { shape: shape?.items, path, fields });
  else if (typeof value === "object" && value !== null) {
    for (const [name, member] of Object.entries(value)) {
      if (member === undefined) continue;
      fields.add(join(path, name));
      visitValue(member, { shape: shape?.properties?.[name], path: join(path, name), fields });
    }
  }
}

function join(path: string, name: string): string {
  return path === "" ? name : `${path}.${name}`;
}
