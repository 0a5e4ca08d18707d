import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, readFile, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";

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
export async function makeRootFileSystem(folder: string, { node = process.execPath } = {}): Promise<number> {
  for (const name of GIVEN) await mkdir(join(folder, name), { recursive: true });
  await put(node, join(folder, NODE));
  const { stdout } = await execute("ldd", [node]);
  for (const [, library = ""] of stdout.matchAll(/(\/\S+) \(0x/g)) await put(library, join(folder, library));
  let bytes = 0;
  for (const { from, to } of await readImageFiles()) {
    await put(join(ROOT, from), join(folder, to));
    bytes += (await stat(join(ROOT, from))).size;
  }
  return bytes;
}

async function put(from: string, to: string): Promise<void> {
  await mkdir(dirname(to), { recursive: true });
  if ((await stat(from)).isDirectory()) await cp(from, to, { recursive: true });
  else await copyFile(from, to);
}

/** The environment that the image gives its commands. */
export const IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
