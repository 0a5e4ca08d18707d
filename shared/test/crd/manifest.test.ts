import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { CHART_CRD_FILE, CRD_FILE, policyDefinition, renderManifests } from "../../src/crd/manifest.ts";
import { PolicySpec } from "../../src/crd/schema.ts";

const root = fileURLToPath(new URL("../../..", import.meta.url));

describe("the generated manifests", () => {
  it.each([CRD_FILE, CHART_CRD_FILE])("are committed as `make manifests` writes them: %s", async (path) => {
    expect(await readFile(`${root}/${path}`, "utf8")).toBe(renderManifests()[path]);
  });

  it("say the same in the chart, where they can be left out and left behind", () => {
    const template = renderManifests()[CHART_CRD_FILE] ?? "";
    expect(template).toMatch(/^#.*\n\{\{- if \.Values\.crds\.enabled \}\}\n/);
    expect(template).toMatch(/\n\{\{- end \}\}\n$/);
    expect(template).toContain(
      "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n",
    );
    const { metadata, ...rest } = parse(template.replaceAll(/^\s*\{\{.*\}\}\n/gm, ""));
    const { metadata: plain, ...definition } = policyDefinition();
    expect(rest).toEqual(definition);
    expect(metadata).toMatchObject(plain as object);
  });

  it("hold nothing that Helm would take for a template", () => {
    expect(renderManifests()[CRD_FILE]).not.toContain("{{");
  });
});

describe("the definition of the policy resource", () => {
  // biome-ignore lint/suspicious/noExplicitAny: a path through plain JSON
  const definition = policyDefinition() as any;
  const [version] = definition.spec.versions;
  const { spec, status } = version.schema.openAPIV3Schema.properties;

  it("has every field of the schema", () => {
    expect(Object.keys(spec.properties)).toEqual(Object.keys(PolicySpec.properties));
  });

  it("keeps the name by which the Go operator's resources find it", () => {
    expect(definition.metadata.name).toBe("checkpointrestoreoperators.criu.org");
    expect(definition.spec.scope).toBe("Namespaced");
    expect(definition.spec.names.shortNames).toEqual(["cro"]);
    expect(version).toMatchObject({ name: "v1", served: true, storage: true, subresources: { status: {} } });
  });

  it("prints columns of fields that the status has", () => {
    const columns: Array<{ name: string; jsonPath: string }> = version.additionalPrinterColumns;
    expect(columns.map(({ name }) => name)).toEqual(
      "Mode Nodes Archives Size Planned Ready Reason Age Pinned Unidentified Fullest Updated".split(" "),
    );
    for (const { jsonPath } of columns.filter((column) => column.jsonPath.startsWith(".status."))) {
      const [, , ...keys] = jsonPath.replace(/\[.*/, "").split(".");
      const field = keys.reduce((schema, key) => schema?.properties?.[key], status);
      expect(field, jsonPath).toBeDefined();
    }
  });

  it("describes every field of spec and status for `kubectl explain`, every list and object too", () => {
    const silent: string[] = [];
    // biome-ignore lint/suspicious/noExplicitAny: a walk through plain JSON
    const walk = (schema: any, path: string) => {
      if ((schema.description ?? "").length < 5) silent.push(path);
      for (const [key, value] of Object.entries(schema.properties ?? {})) walk(value, `${path}.${key}`);
      if (schema.items?.properties !== undefined) walk(schema.items, `${path}[]`);
    };
    walk(spec, "spec");
    walk(status, "status");
    expect(silent).toEqual([]);
  });

  it("keeps in every object of a spec what it does not know, and nowhere else", () => {
    const marked: string[] = [];
    const objects: string[] = [];
    // biome-ignore lint/suspicious/noExplicitAny: a walk through plain JSON
    const walk = (schema: any, path: string) => {
      if (schema["x-kubernetes-preserve-unknown-fields"] === true) marked.push(path);
      if (schema.properties !== undefined && path.startsWith("spec")) objects.push(path);
      for (const [key, value] of Object.entries(schema.properties ?? {})) walk(value, `${path}.${key}`);
      if (schema.items !== undefined) walk(schema.items, `${path}[]`);
    };
    walk(spec, "spec");
    walk(status, "status");
    expect(marked).toEqual(objects);
    expect(objects).toContain("spec.containerPolicies[]");
  });

  it("bounds every list, map and string that a policy holds", () => {
    const unbounded: string[] = [];
    // biome-ignore lint/suspicious/noExplicitAny: a walk through plain JSON
    const walk = (schema: any, path: string) => {
      if (schema.type === "array" && schema.maxItems === undefined) unbounded.push(path);
      if (schema.additionalProperties !== undefined && schema.maxProperties === undefined) unbounded.push(path);
      const mayBeString = schema.type === "string" || schema["x-kubernetes-int-or-string"];
      if (mayBeString && schema.maxLength === undefined && schema.enum === undefined) unbounded.push(path);
      for (const [key, value] of Object.entries(schema.properties ?? {})) walk(value, `${path}.${key}`);
      if (schema.items !== undefined) walk(schema.items, `${path}[]`);
      if (schema.additionalProperties !== undefined) walk(schema.additionalProperties, `${path}.*`);
    };
    walk(spec, "spec");
    expect(unbounded).toEqual([]);
  });
});
