import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseDocument } from "yaml";
import { fillTable, renderManifest } from "./chart-files.ts";
import { CHART } from "./release.ts";

const execute = promisify(execFile);

/** Where a release's image was pushed. Without a digest it is taken by the chart's version. */
export interface ReleasedImage {
  registry: string;
  repository: string;
  digest?: string | undefined;
}

/**
 * Writes what a release is made of into a folder: the chart's package and install.yaml, both with this image as their default.
 * Returns the paths.
 */
export async function packageRelease(helm: string, image: ReleasedImage, destination: string): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), "cro-package-"));
  try {
    await mkdir(destination, { recursive: true });
    const chart = join(folder, "checkpoint-restore-operator");
    await cp(CHART, chart, { recursive: true });
    const values = parseDocument(await readFile(join(chart, "values.yaml"), "utf8"));
    for (const [key, value] of Object.entries(image)) if (value !== undefined) values.setIn(["image", key], value);
    const text = values.toString({ lineWidth: 0 });
    await writeFile(join(chart, "values.yaml"), text);
    const readme = join(chart, "README.md");
    await writeFile(readme, fillTable(await readFile(readme, "utf8"), text));
    const { stdout } = await execute(helm, ["package", chart, "--destination", destination]);
    const [, archive = ""] = /saved it to: (.+)$/m.exec(stdout) ?? [];
    const manifest = join(destination, "install.yaml");
    await writeFile(manifest, await renderManifest(helm, chart));
    return [archive, manifest];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
