import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parse } from "yaml";
import { type Found, findExecutable } from "./tools.ts";

const execute = promisify(execFile);

/** Definitions of somebody else's resources, and the version that they are of. */
export interface Definitions {
  version: string;
  definitions: object[];
}

/** The Prometheus operator's own definitions of what the chart makes of it, from its Go module; some 5 MB once. */
export function findPrometheusOperator(): Promise<Found<Definitions>> {
  return findDefinitions(
    "github.com/prometheus-operator/prometheus-operator@v0.85.0",
    ["podmonitors", "servicemonitors", "prometheusrules"].map(
      (kind) => `example/prometheus-operator-crd/monitoring.coreos.com_${kind}.yaml`,
    ),
  );
}

/** cert-manager's own definition of a Certificate, from its Go module; some 3 MB once. */
export function findCertManager(): Promise<Found<Definitions>> {
  return findDefinitions("github.com/cert-manager/cert-manager@v1.18.2", ["deploy/crds/crd-certificates.yaml"]);
}

async function findDefinitions(module: string, files: readonly string[]): Promise<Found<Definitions>> {
  const go = await findExecutable("go", ["/usr/local/go/bin"]);
  if (go === undefined) return { found: false, why: `${module} is had by Go 1.26; install it` };
  try {
    const { stdout } = await execute(go, ["mod", "download", "-json", module], { cwd: tmpdir() });
    const { Dir: folder, Version: version } = JSON.parse(stdout) as { Dir: string; Version: string };
    const texts = await Promise.all(files.map((file) => readFile(join(folder, file), "utf8")));
    return { found: true, value: { version, definitions: texts.map(readDefinition) } };
  } catch (cause) {
    return { found: false, why: `${module} cannot be had: ${(cause as Error).message}` };
  }
}

/** cert-manager's are templates of its chart: only the labels are, and comments. */
function readDefinition(text: string): object {
  const { metadata, ...definition } = parse(text) as { metadata: { name: string } };
  return { ...definition, metadata: { name: metadata.name } };
}
