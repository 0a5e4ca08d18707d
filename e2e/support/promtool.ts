import { execFile } from "node:child_process";
import { mkdir, readdir, rename } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Found, findExecutable } from "./tools.ts";

const run = promisify(execFile);

/**
 * Prometheus and promtool: from $PATH, the cache folder, or Debian's prometheus package, which is unpacked into the cache
 * folder and not installed.
 */
export async function findPrometheus(): Promise<Found<{ prometheus: string; promtool: string }>> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "checkpoint-restore-operator");
  const folder = join(cache, "prometheus");
  const find = async () => {
    const [prometheus, promtool] = await Promise.all(
      ["prometheus", "promtool"].map((name) => findExecutable(name, [join(folder, "usr/bin")])),
    );
    return prometheus !== undefined && promtool !== undefined ? { prometheus, promtool } : undefined;
  };
  const present = await find();
  if (present !== undefined) return { found: true, value: present };
  const fresh = join(cache, `prometheus-${process.pid}`);
  try {
    await mkdir(fresh, { recursive: true });
    const download = () => run("apt-get", ["download", "prometheus"], { cwd: fresh });
    await download().catch(async () => {
      await run("apt-get", ["update"]);
      await download();
    });
    const [archive = ""] = (await readdir(fresh)).filter((name) => name.endsWith(".deb"));
    await run("dpkg-deb", ["-x", join(fresh, archive), fresh]);
    // Another run may have been faster; then its folder stays.
    await rename(fresh, folder).catch(() => {});
  } catch (cause) {
    return { found: false, why: `Debian's prometheus package cannot be had: ${(cause as Error).message}` };
  }
  const unpacked = await find();
  return unpacked === undefined
    ? { found: false, why: "Debian's prometheus package holds no promtool" }
    : { found: true, value: unpacked };
}
