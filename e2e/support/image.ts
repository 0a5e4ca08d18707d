import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, readdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import type { NodeFiles } from "./foreign-node.ts";

const execute = promisify(execFile);
const ROOT = join(import.meta.dirname, "../..");
/** Where Node's own images have it. */
const NODE = "/usr/local/bin/node";
/** What a container runtime gives every container, and what it mounts there. */
const GIVEN = ["proc", "dev", "sys", "tmp", "etc"];

/** What the Dockerfile's final stage adds to its base image: files of the project, by where they come to lie. */
export async function readImageFiles(): Promise<Array<{ from: string; to: string }>> {
  const text = (await readFile(join(ROOT, "Dockerfile"), "utf8")).replaceAll("\\\n", " ");
  const stages = text.split(/^FROM /m);
  const lines = (stages.at(-1) ?? "").split("\n").filter((line) => /^(COPY|ADD|RUN) /.test(line));
  return lines.flatMap((line) => {
    const [command, from, ...paths] = line.trim().split(/\s+/);
    const target = paths.pop();
    if (command !== "COPY" || from !== "--from=build" || target === undefined) {
      throw new Error(`Dockerfile: ${line} is not a COPY --from=build; teach readImageFiles what it makes`);
    }
    return paths.map((path) => {
      if (!path.startsWith("/src/")) throw new Error(`Dockerfile: ${path} does not come from the project`);
      return { from: path.slice("/src/".length), to: target.endsWith("/") ? join(target, basename(path)) : target };
    });
  });
}

/**
 * Makes the root file system of the image in a folder: what the Dockerfile copies, over a base image of which there is
 * Node and the libraries that it needs, and nothing else. The bundles must have been built. Returns how many bytes the
 * image has above its base.
 */
export async function makeRootFileSystem(folder: string, given?: NodeFiles): Promise<number> {
  const { node, libraries } = given ?? (await ownNode());
  for (const name of GIVEN) await mkdir(join(folder, name), { recursive: true });
  await put(node, join(folder, NODE));
  for (const { from, to } of libraries) await put(from, join(folder, to));
  let bytes = 0;
  for (const { from, to } of await readImageFiles()) {
    await put(join(ROOT, from), join(folder, to));
    bytes += await sizeOf(join(ROOT, from));
  }
  return bytes;
}

/** The Node that runs this, and what it is linked with. */
async function ownNode(): Promise<NodeFiles> {
  const { stdout } = await execute("ldd", [process.execPath]);
  const paths = [...stdout.matchAll(/(\/\S+) \(0x/g)].map(([, path = ""]) => path);
  return { node: process.execPath, libraries: paths.map((path) => ({ from: path, to: path })) };
}

async function sizeOf(path: string): Promise<number> {
  const found = await stat(path);
  if (!found.isDirectory()) return found.size;
  const sizes = await Promise.all((await readdir(path)).map((name) => sizeOf(join(path, name))));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function put(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  if ((await stat(from)).isDirectory()) await cp(from, to, { recursive: true });
  else await copyFile(from, to);
}

/** What the Dockerfile's final stage says of how the image runs, with these build arguments in their places. */
export async function readImageSettings(
  given: Record<string, string>,
): Promise<{ entrypoint: string[]; command: string[]; user: string; labels: Record<string, string> }> {
  const text = (await readFile(join(ROOT, "Dockerfile"), "utf8")).replaceAll("\\\n", " ");
  const stage = text.split(/^FROM /m).at(-1) ?? "";
  const lineOf = (instruction: string) => new RegExp(`^${instruction} (.*)$`, "m").exec(stage)?.[1] ?? "";
  const defaults = Object.fromEntries([...stage.matchAll(/^ARG (\w+)=(.*)$/gm)].map(([, key, value]) => [key, value]));
  const filled = (value: string) =>
    value.replaceAll(/\$\{(\w+)\}/g, (_, key: string) => given[key] ?? defaults[key] ?? "");
  const labels = [...lineOf("LABEL").matchAll(/([\w.]+)="([^"]*)"/g)].map(([, key, value = ""]) => [
    key,
    filled(value),
  ]);
  return {
    entrypoint: JSON.parse(lineOf("ENTRYPOINT")),
    command: JSON.parse(lineOf("CMD")),
    user: lineOf("USER"),
    labels: Object.fromEntries(labels),
  };
}

/** The environment that the image gives its commands. */
export const IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
