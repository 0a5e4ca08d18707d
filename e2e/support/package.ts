import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Document, isMap, parseDocument } from "yaml";
import { sourceDate } from "../../scripts/source-date.mjs";
import { fillTable, renderManifests } from "./chart-files.ts";

const execute = promisify(execFile);
const NAME = "checkpoint-restore-operator";
/** The chart. */
export const CHART = join(import.meta.dirname, "../../charts", NAME);

/** Where a release's image was pushed, and where its source can be read. */
export interface Released {
  registry: string;
  /** The chart is pushed beside it, into `charts`. */
  repository: string;
  /** Without one the image is taken by the chart's version. */
  digest?: string | undefined;
  /** The repository's page, such as `https://git.example/team/cro`, which links lead to. Without it there are none. */
  source?: string | undefined;
}

/**
 * Writes what a release is made of into a folder: the chart's package, crds.yaml and install.yaml, with this image as their
 * default. Returns the paths. Two packagings of one commit for one image are the same, byte for byte.
 */
export async function packageRelease(helm: string, released: Released, destination: string): Promise<string[]> {
  const { source, ...image } = released;
  const folder = await mkdtemp(join(tmpdir(), "cro-package-"));
  try {
    await mkdir(destination, { recursive: true });
    const chart = join(folder, NAME);
    await cp(CHART, chart, { recursive: true });
    const edit = async (file: string, change: (document: Document) => void) => {
      const document = parseDocument(await readFile(join(chart, file), "utf8"));
      change(document);
      const text = document.toString({ lineWidth: 0 });
      await writeFile(join(chart, file), text);
      return text;
    };
    const values = await edit("values.yaml", (document) => {
      for (const [key, value] of Object.entries(image)) if (value !== undefined) document.setIn(["image", key], value);
    });
    let version = "";
    await edit("Chart.yaml", (document) => {
      version = String(document.get("version"));
      if (source === undefined || !isMap(document.contents)) return;
      document.set("home", source);
      document.set("sources", [source]);
    });
    const readme = join(chart, "README.md");
    const names = { chart: `${image.registry}/${chartsOf(image.repository)}/${NAME}`, version, source };
    await writeFile(readme, toReleased(fillTable(await readFile(readme, "utf8"), values), names));
    await dateAll(chart, await sourceTime());
    const { stdout } = await execute(helm, ["package", chart, "--destination", destination]);
    const [, archive = ""] = /saved it to: (.+)$/m.exec(stdout) ?? [];
    const paths = [archive];
    for (const [name, text] of Object.entries(await renderManifests(helm, chart))) {
      paths.push(join(destination, `${name}.yaml`));
      await writeFile(paths.at(-1) as string, text);
    }
    return paths;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Where charts lie whose image is in this repository. */
function chartsOf(repository: string): string {
  const end = repository.lastIndexOf("/");
  return end < 0 ? "charts" : `${repository.slice(0, end)}/charts`;
}

/**
 * The README as it lies in a released chart. What stands between `checkout` comments is left out, and what is in `release` comments
 * comes to light. Links into the project lead to its source at that version; without a source they are words alone.
 */
function toReleased(
  readme: string,
  { chart, version, source }: { chart: string; version: string; source: string | undefined },
): string {
  return readme
    .replaceAll(/<!-- checkout -->\n[\s\S]*?<!-- \/checkout -->\n/g, "")
    .replaceAll(/<!-- release\n([\s\S]*?)\/release -->\n/g, "$1")
    .replaceAll("oci://CHART --version VERSION", `oci://${chart} --version ${version}`)
    .replaceAll(/\[([^\]]*)\]\(\.\.\/\.\.\/([^)]*)\)/g, (_, words: string, path: string) =>
      source === undefined ? words : `[${words}](${source}/blob/v${version}/${path})`,
    );
}

/** When the source was last changed, in seconds since 1970: what the environment says, or the time of the commit. */
export async function sourceTime(): Promise<number> {
  return sourceDate() ?? Number((await execute("git", ["log", "-1", "--format=%ct"], { cwd: CHART })).stdout);
}

/** Gives one time to all files of a chart: helm packs the times of files along with them. */
async function dateAll(folder: string, seconds: number): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true, recursive: true })) {
    await utimes(join(entry.parentPath, entry.name), seconds, seconds);
  }
}
