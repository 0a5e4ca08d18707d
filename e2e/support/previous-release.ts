import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { ROOT } from "./processes.ts";
import { CACHE, type Found } from "./tools.ts";

/** The previous release, built: what its bundles are in. */
export interface PreviousRelease {
  /** The folder of agent.js and coordinator.js. */
  dist: string;
}

const execute = promisify(execFile);
/** The commit of the previous release. */
const COMMIT = readFileSync(join(ROOT, "e2e/previous-release"), "utf8").trim();

/**
 * Builds the release that the file e2e/previous-release names, by its own scripts, from this repository's history; the
 * result stays in the cache folder. A clone without that history, a shallow one say, has none.
 */
export async function findPreviousRelease(): Promise<Found<PreviousRelease>> {
  const cache = join(CACHE, "release");
  const folder = join(cache, COMMIT);
  const dist = join(folder, "dist");
  if (existsSync(folder)) return { found: true, value: { dist } };
  try {
    await execute("git", ["cat-file", "-e", `${COMMIT}^{commit}`], { cwd: ROOT });
  } catch {
    return { found: false, why: `this clone has no commit ${COMMIT}; fetch the whole history` };
  }
  await mkdir(cache, { recursive: true });
  const unfinished = await mkdtemp(`${folder}.`);
  try {
    process.stderr.write("Building the previous release (once, about a minute) …\n");
    await unpack(unfinished);
    await execute(process.execPath, ["scripts/run.mjs", "build"], { cwd: unfinished, maxBuffer: 2 ** 26 });
    // A folder that has its name is complete; another run may have been faster.
    await rename(unfinished, folder).catch(() => {});
  } catch (cause) {
    return { found: false, why: `the previous release cannot be built: ${(cause as Error).message.slice(0, 500)}` };
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
  return { found: true, value: { dist } };
}

async function unpack(folder: string): Promise<void> {
  const tar = join(folder, "release.tar");
  await execute("git", ["archive", "--format=tar", "--output", tar, COMMIT], { cwd: ROOT });
  await execute("tar", ["-xf", tar, "-C", folder]);
  await rm(tar);
}
