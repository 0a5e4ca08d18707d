import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parse } from "yaml";
import { type Found, findExecutable } from "./tools.ts";

const execute = promisify(execFile);
const MODULE = "github.com/prometheus-operator/prometheus-operator";
const VERSION = "v0.85.0";
const KINDS = ["podmonitors", "servicemonitors", "prometheusrules"];

/** The Prometheus operator's own definitions of what the chart makes of it, from its Go module; some 5 MB once. */
export async function findPrometheusOperator(): Promise<Found<{ version: string; definitions: object[] }>> {
  const go = await findExecutable("go", ["/usr/local/go/bin"]);
  if (go === undefined) return { found: false, why: "the Prometheus operator's module is had by Go 1.26; install it" };
  try {
    const { stdout } = await execute(go, ["mod", "download", "-json", `${MODULE}@${VERSION}`], { cwd: tmpdir() });
    const { Dir: folder } = JSON.parse(stdout) as { Dir: string };
    const files = KINDS.map((kind) =>
      join(folder, "example/prometheus-operator-crd", `monitoring.coreos.com_${kind}.yaml`),
    );
    const definitions = await Promise.all(files.map(async (file) => parse(await readFile(file, "utf8")) as object));
    return { found: true, value: { version: VERSION, definitions } };
  } catch (cause) {
    return { found: false, why: `${MODULE} cannot be had: ${(cause as Error).message}` };
  }
}
