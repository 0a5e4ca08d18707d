import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { policySchema } from "@cro/shared/crd/manifest";
import { isMap, isScalar, type Pair, parseDocument, stringify } from "yaml";

const execute = promisify(execFile);
const ROOT = join(import.meta.dirname, "../..");
const CHART = "charts/checkpoint-restore-operator";
/** The release of those who install without helm, and its namespace. */
const RELEASE = "checkpoint-restore-operator";

const README = `${CHART}/README.md`;
const DESCRIPTION = `${CHART}/Chart.yaml`;
const CHANGELOG = "CHANGELOG.md";
const SCHEMA = `${CHART}/values.schema.json`;
const CRDS = "config/crds.yaml";
const INSTALL = "config/install.yaml";
/** The registry by which an image is known that `npm run image` made. */
const IMPORTED = "localhost";
const TABLE = /(?<=<!-- values -->\n)[\s\S]*(?=<!-- \/values -->)/;

/** One documented value: its path, its default as JSON, and what values.yaml says of it. */
export interface ChartValue {
  path: string;
  default: unknown;
  description: string;
}

/**
 * The values that values.yaml documents: those under a comment that begins with `--`. A value below which nothing is
 * documented has to have such a comment; throws where one lacks it.
 */
export function readChartValues(text: string): ChartValue[] {
  const values: ChartValue[] = [];
  const visit = (pair: Pair, parents: readonly string[], before: string | null | undefined) => {
    if (!isScalar(pair.key)) throw new Error(`values.yaml: a key below ${parents.join(".")} is no scalar`);
    const path = [...parents, String(pair.key.value)];
    const comment = before ?? pair.key.commentBefore ?? "";
    const description = /^\s*-- (.*)$/m.exec(comment)?.[1];
    if (description !== undefined) {
      const value = pair.value as { toJSON(): unknown };
      values.push({ path: path.join("."), default: value.toJSON(), description });
    } else if (isMap(pair.value)) {
      // The comment above a map's first key is kept with the map.
      const { items, commentBefore } = pair.value;
      for (const [index, item] of items.entries()) visit(item, path, index === 0 ? commentBefore : undefined);
    } else {
      throw new Error(`values.yaml: ${path.join(".")} has no comment that begins with "# -- "`);
    }
  };
  const { contents, commentBefore } = parseDocument(text);
  if (!isMap(contents)) throw new Error("values.yaml is no map");
  for (const [index, item] of contents.items.entries()) {
    visit(item, [], index === 0 ? (contents.commentBefore ?? commentBefore) : undefined);
  }
  return values;
}

/** The generated files, by path from the project's root. */
export async function renderChartFiles(helm: string): Promise<Record<string, string>> {
  const read = (path: string) => readFile(join(ROOT, path), "utf8");
  const schema = JSON.parse(await read(SCHEMA)) as Schema;
  schema.properties = { ...schema.properties, defaultPolicy: specSchema() };
  describeValues(schema, await read(`${CHART}/values.yaml`));
  return {
    [DESCRIPTION]: fillChanges(await read(DESCRIPTION), await read(CHANGELOG)),
    [README]: fillTable(await read(README), await read(`${CHART}/values.yaml`)),
    [SCHEMA]: `${JSON.stringify(schema, null, 2)}\n`,
    ...(await renderCheckoutManifests(helm)),
  };
}

/** Chart.yaml with the changes of its version, as Artifact Hub reads them, out of the changelog's section of that version. */
function fillChanges(chart: string, changelog: string): string {
  const document = parseDocument(chart);
  const version = String(document.get("version"));
  const section = changelog.split(/^## /m).find((part) => part.startsWith(`${version}\n`));
  if (section === undefined) throw new Error(`${CHANGELOG} has no section ## ${version}`);
  const changes: Array<{ kind: string; description: string }> = [];
  for (const part of section.split(/^### /m).slice(1)) {
    const [kind = "", ...lines] = part.split("\n");
    for (const line of lines) {
      if (line.startsWith("- "))
        changes.push({ kind: kind.toLowerCase(), description: line.slice(2).replaceAll("`", "") });
      else if (line.startsWith("  ")) (changes.at(-1) as { description: string }).description += ` ${line.trim()}`;
    }
  }
  document.setIn(["annotations", "artifacthub.io/changes"], stringify(changes, { lineWidth: 0 }));
  return document.toString({ lineWidth: 0 });
}

/** The chart's README with the table of these values. */
export function fillTable(readme: string, values: string): string {
  if (!TABLE.test(readme)) throw new Error(`${README} has no <!-- values --> … <!-- /values -->`);
  return readme.replace(TABLE, () => renderTable(readChartValues(values)));
}

interface Schema {
  properties?: Record<string, Schema>;
  description?: string;
  default?: unknown;
}

/** Has the schema say of each value what values.yaml says of it, for editors and catalogues. */
function describeValues(schema: Schema, values: string): void {
  for (const { path, description, default: value } of readChartValues(values)) {
    const keys = path.split(".");
    const found = keys.reduce<Schema | undefined>((at, key) => at?.properties?.[key], schema);
    if (found === undefined) throw new Error(`${SCHEMA} does not know ${path}, which values.yaml has; add it`);
    Object.assign(found, { description, default: value });
  }
}

function renderTable(values: readonly ChartValue[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const rows = values.map(
    ({ path, description, default: value }) =>
      `| \`${path}\` | ${cell(description)} | \`${cell(JSON.stringify(value))}\` |`,
  );
  return ["", "| Value | What it is | Default |", "|---|---|---|", ...rows, "", ""].join("\n");
}

/** What a policy's spec may be, for helm: as in the resource's definition, but an unknown field is refused. */
function specSchema(): Schema {
  return strict(policySchema({ hasRules: false })) as Schema;
}

function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const entries = Object.entries(schema).filter(([key]) => !key.startsWith("x-kubernetes-"));
  const result = Object.fromEntries(entries.map(([key, value]) => [key, strict(value)]));
  // A field named "properties" would be one of a spec; there is none.
  return "properties" in schema ? { ...result, additionalProperties: false } : result;
}

/** What `kubectl apply` installs: the namespace and the definitions, which stay, and all else. */
export interface Manifests {
  crds: string;
  install: string;
}

async function renderCheckoutManifests(helm: string): Promise<Record<string, string>> {
  const { crds, install } = await renderManifests(helm, join(ROOT, CHART), ["--set", `image.registry=${IMPORTED}`]);
  const generated = `# Generated from ${CHART} by \`make manifests\`; edit that.\n`;
  return {
    [CRDS]: `${generated}${crds}`,
    [INSTALL]: `${generated}# No registry has the image of a checkout. Import one of \`npm run image\` on every node, which has the name that stands here, or
# put another in its place: \`make deploy IMG=…\`. A release's install.yaml names an image that is there.
${install}`,
  };
}

/** What the chart in this folder installs by default, for kubectl. */
export async function renderManifests(helm: string, chart: string, flags: readonly string[] = []): Promise<Manifests> {
  const render = async (...more: string[]) => {
    const args = ["template", RELEASE, chart, "--namespace", RELEASE, "--skip-tests", ...flags, ...more];
    const { stdout } = await execute(helm, args, { maxBuffer: 16 * 1024 * 1024 });
    const isHelmsOwn = /^\s*(helm\.sh\/chart|app\.kubernetes\.io\/managed-by): /;
    return stdout.split("\n").filter((line) => !isHelmsOwn.test(line));
  };
  const definitions = await render("--set", "crds.keep=false", "--show-only", "templates/crds/*");
  const objects = await render("--set", "crds.enabled=false");
  return {
    crds: `# The namespace, and the definition of policies: what stays when install.yaml is deleted. Whoever deletes this file's
# objects deletes every policy of the cluster.
apiVersion: v1
kind: Namespace
metadata:
  name: ${RELEASE}
  labels:
    # The agents mount a directory of their node.
    pod-security.kubernetes.io/enforce: privileged
${definitions.join("\n")}`,
    install: `# kubectl apply -f crds.yaml -f install.yaml
${objects.join("\n")}`,
  };
}
