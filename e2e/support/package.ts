import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { parseDocument } from "yaml";
import { sourceDate } from "../../scripts/source-date.mjs";
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
 * Returns the paths. Two packagings of one commit for one image are the same, byte for byte.
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
    await dateAll(chart, await sourceTime());
    const { stdout } = await execute(helm, ["package", chart, "--destination", destination]);
    const [, archive = ""] = /saved it to: (.+)$/m.exec(stdout) ?? [];
    const manifest = join(destination, "install.yaml");
    await writeFile(manifest, await renderManifest(helm, chart));
    return [archive, manifest];
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** When the source was last changed, in seconds since 1970: what the environment says, or the time of the commit. */
async function sourceTime(): Promise<number> {
  return sourceDate() ?? Number((await execute("git", ["log", "-1", "--format=%ct"], { cwd: CHART })).stdout);
}

/** Gives one time to all files of a chart: helm packs the times of files along with them. */
async function dateAll(folder: string, seconds: number): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    await utimes(join(entry.parentPath, entry.name), seconds, seconds);
  }
}
