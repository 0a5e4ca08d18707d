import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { stringify } from "yaml";
import { freePort, observe, until } from "./processes.ts";
import { CACHE, type Found, findExecutable } from "./tools.ts";

const run = promisify(execFile);

/**
 * Prometheus and promtool: from $PATH, the cache folder, or Debian's prometheus package, which is unpacked into the cache
 * folder and not installed.
 */
export async function findPrometheus(): Promise<Found<{ prometheus: string; promtool: string; version: string }>> {
  const folder = join(CACHE, "prometheus");
  const find = async () => {
    const [prometheus, promtool] = await Promise.all(
      ["prometheus", "promtool"].map((name) => findExecutable(name, [join(folder, "usr/bin")])),
    );
    if (prometheus === undefined || promtool === undefined) return undefined;
    const { stdout } = await run(prometheus, ["--version"]);
    return { prometheus, promtool, version: /version (\S+)/.exec(stdout)?.[1] ?? stdout };
  };
  const present = await find();
  if (present !== undefined) return { found: true, value: present };
  const fresh = join(CACHE, `prometheus-${process.pid}`);
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

/** What a Prometheus answers to an instant query, a sample for each series. */
export interface Sample {
  metric: Record<string, string>;
  value: number;
}

/** A Prometheus with a configuration of its own. */
export interface RunningPrometheus {
  /** Rejects where Prometheus refuses the query. */
  query(promql: string): Promise<Sample[]>;
  stop(): Promise<void>;
}

/** Starts a real Prometheus on this scrape configuration, and waits until it answers. Whoever calls this stops it. */
export async function startPrometheus(
  { prometheus }: { prometheus: string },
  config: { scrape_configs: object[]; rule_files?: string[] },
): Promise<RunningPrometheus> {
  const folder = await mkdtemp(join(tmpdir(), "cro-prometheus-"));
  const file = join(folder, "prometheus.yml");
  await writeFile(file, stringify({ global: { scrape_interval: "1s", evaluation_interval: "1s" }, ...config }));
  const address = `127.0.0.1:${await freePort()}`;
  const args = [
    `--config.file=${file}`,
    `--storage.tsdb.path=${join(folder, "data")}`,
    `--web.listen-address=${address}`,
  ];
  const running = observe(spawn(prometheus, args));
  const api = (path: string) => fetch(`http://${address}${path}`);
  await until(async () => {
    const status = await api("/-/ready").then((answer) => answer.status, String);
    if (status !== 200) throw new Error(`Prometheus is not ready, ${status}: ${running.err.slice(-5).join("; ")}`);
  }, 30_000);
  return {
    async query(promql) {
      const answer = (await (await api(`/api/v1/query?query=${encodeURIComponent(promql)}`)).json()) as {
        status: string;
        error?: string;
        data: { result: Array<{ metric: Record<string, string>; value: [number, string] }> };
      };
      if (answer.status !== "success") throw new Error(`${promql}: ${answer.error}`);
      return answer.data.result.map(({ metric, value }) => ({ metric, value: Number(value[1]) }));
    },
    async stop() {
      await running.kill("SIGTERM");
      await rm(folder, { recursive: true, force: true });
    },
  };
}
