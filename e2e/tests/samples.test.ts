import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { readPolicy } from "@cro/shared/crd/read-policy";
import { PolicySpec } from "@cro/shared/crd/schema";
import { beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { findHelm } from "../support/helm.ts";
import { createNamespace, describeWithKube, installPolicyDefinition } from "../support/kube.ts";
import { ROOT } from "../support/processes.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const FOLDER = join(ROOT, "config/samples");
const FILES = readdirSync(FOLDER).filter((file) => file.endsWith(".yaml"));
const GO_SAMPLE = "criu_v1_checkpointrestoreoperator.yaml";
const textOf = (file: string) => readFileSync(join(FOLDER, file), "utf8");
const tools = await findHelm();

/** A schema or a part of it. */
interface Schema {
  properties?: Record<string, Schema>;
  items?: Schema;
}

/** Every field below a schema: `globalPolicy.maxAge`, `podPolicies[].pod`. */
function fieldsOf({ properties = {} }: Schema, parent = ""): string[] {
  return Object.entries(properties).flatMap(([name, schema]) => {
    const path = `${parent}${name}`;
    if (schema.items !== undefined) return fieldsOf(schema.items, `${path}[].`);
    return schema.properties === undefined ? [path] : fieldsOf(schema, `${path}.`);
  });
}

/** Every field that a value sets, and each of its parents. */
function fieldsIn(value: unknown, parent = ""): string[] {
  if (Array.isArray(value)) return value.flatMap((item) => fieldsIn(item, `${parent}[]`));
  if (typeof value !== "object" || value === null) return [parent];
  const inner = Object.entries(value).flatMap(([key, item]) =>
    fieldsIn(item, parent === "" ? key : `${parent}.${key}`),
  );
  return [parent, ...inner];
}

describe("the sample policies", () => {
  it.each(FILES)("%s is understood, begins with what it does, and writes sizes with their unit", (file) => {
    const read = readPolicy(textOf(file));
    expect(read).toMatchObject({ ok: true });
    expect(textOf(file)).toMatch(/^# \S/);
    if (read.ok && file !== GO_SAMPLE) expect(read.policy.unitless).toEqual([]);
  });

  it("set every field that a policy has, each somewhere", () => {
    const set = new Set(FILES.flatMap((file) => fieldsIn(parse(textOf(file)).spec)));
    expect(fieldsOf(PolicySpec as Schema).filter((field) => !set.has(field))).toEqual([]);
  });

  it("are all in the folder's list, each under a name of its own", () => {
    const readme = textOf("README.md");
    expect(FILES.filter((file) => !readme.includes(`](${file})`))).toEqual([]);
    const linked = [...readme.matchAll(/\]\(([^/)]+\.yaml)\)/g)].map(([, file]) => file);
    expect(linked.sort()).toEqual([...FILES].sort());
    expect(new Set(FILES.map((file) => parse(textOf(file)).metadata.name)).size).toBe(FILES.length);
  });
});

describeWith("the sample policies, with kubectl", tools, ({ kubectl, versions }) => {
  describeWithKube("on a real API server", (kube) => {
    let kubeconfig = "";
    let namespace = "";
    beforeAll(async () => {
      console.log(`Real parts: kubectl ${versions.kubectl}, kube-apiserver`);
      await installPolicyDefinition(kube.client);
      namespace = await createNamespace(kube.client);
      kubeconfig = await kube.writeKubeconfig();
    }, 60_000);

    it.each(FILES)("%s is taken as it is, without a warning, and stored as it came", async (file) => {
      const apply = ["apply", "-n", namespace, "--server-side", "--dry-run=server", "--validate=strict", "-o", "json"];
      const args = ["--kubeconfig", kubeconfig, ...apply, "-f", join(FOLDER, file)];
      const { stdout, stderr } = await execute(kubectl, args);
      expect(stderr).toBe("");
      expect(JSON.parse(stdout).spec).toEqual(parse(textOf(file)).spec);
    });
  });
});
