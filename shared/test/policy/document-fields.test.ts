import { describe, expect, it } from "vitest";
import { compilePolicy, defaultPolicy } from "../../src/policy/compile.ts";
import { DOCUMENT_FIELDS, FIELDS_OF_0_1_0, fieldsOfDocument } from "../../src/policy/document-fields.ts";

describe("the fields of a policy document", () => {
  it("are all that the schema has, members of lists and values of enums among them", () => {
    expect(DOCUMENT_FIELDS).toEqual(
      expect.arrayContaining(["directory", "mode.DryRun", "global.perPod.maxTotalBytes", "rules.level.pod"]),
    );
    expect(DOCUMENT_FIELDS).toContain("node.watermark.high");
    expect(new Set(DOCUMENT_FIELDS).size).toBe(DOCUMENT_FIELDS.length);
  });

  it("never lose one that version 0.1.0 knew", () => {
    expect(FIELDS_OF_0_1_0.filter((field) => !DOCUMENT_FIELDS.includes(field))).toEqual([]);
    expect(FIELDS_OF_0_1_0).toHaveLength(55);
  });

  it("of one document are those that it has, each once", () => {
    expect(fieldsOfDocument(defaultPolicy().document).sort()).toEqual([
      ...["applyImmediately", "directory", "global", "global.level", "global.level.global", "global.perContainer"],
      ...["global.perContainer.maxCheckpoints", "global.retainOrphan", "mode", "mode.Enforce", "node", "rules"],
    ]);
    const compiled = compilePolicy({
      podPolicies: ["a", "b"].map((pod) => ({ namespace: "n", pod, maxAge: "1h" })),
      nodePolicy: { highWatermarkPercent: 80 },
    });
    const fields = fieldsOfDocument(compiled.ok && compiled.policy.document);
    expect(fields.filter((field) => field.startsWith("rules.") || field.startsWith("node."))).toEqual([
      ...["rules.level", "rules.level.pod", "rules.namespace", "rules.pod", "rules.retainOrphan", "rules.maxAgeMs"],
      ...["node.watermark", "node.watermark.high", "node.watermark.low"],
    ]);
  });

  it("of a document of a later version are those too that nobody here knows", () => {
    const { document } = defaultPolicy();
    const later = {
      ...document,
      mode: "Preview",
      rules: [{ level: "owner", chart: "web" }],
      node: { trash: { a: 1 } },
    };
    expect(fieldsOfDocument(later)).toEqual(
      expect.arrayContaining(["mode.Preview", "rules.level.owner", "rules.chart", "node.trash", "node.trash.a"]),
    );
    expect(fieldsOfDocument({ ...document, absent: undefined })).not.toContain("absent");
  });
});
