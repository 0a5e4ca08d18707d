import { execFile } from "node:child_process";
import { access, constants, mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { CACHE, type Found, findExecutable } from "./tools.ts";

const execute = promisify(execFile);

/** A command of a Go module, which machines need not have: it is built into the cache folder, once. */
async function findGoTool(command: string, version: string): Promise<Found<string>> {
  const name = basename(command);
  const folder = join(CACHE, `${name}-${version}`);
  const path = join(folder, name);
  const isThere = await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
  if (isThere) return { found: true, value: path };
  const go = await findExecutable("go", ["/usr/local/go/bin"]);
  if (go === undefined) return { found: false, why: `${name} is built by Go 1.26; install it` };
  try {
    await mkdir(folder, { recursive: true });
    process.stderr.write(`Building ${name} with Go (once) …\n`);
    // go install writes the executable beside its place and renames it: two runs at once do no harm.
    const env = {
      ...process.env,
      PATH: `${process.env.PATH}:${dirname(go)}`,
      GOBIN: folder,
      GOFLAGS: "-mod=mod",
      CGO_ENABLED: "0",
    };
    await execute(go, ["install", "-ldflags=-s -w", `${command}@${version}`], {
      cwd: tmpdir(),
      env,
      maxBuffer: 1 << 26,
    });
    return { found: true, value: path };
  } catch (cause) {
    return { found: false, why: `${command}@${version} cannot be built: ${(cause as Error).message}` };
  }
}

/** Reads workflows. Built in some seconds. */
export const findActionlint = () => findGoTool("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12");

/** Finds what is in an image, as scanners do. Built in some minutes. */
export const findSyft = () => findGoTool("github.com/anchore/syft/cmd/syft", "v1.38.0");

/** Unpacks OCI images. Built in some seconds. */
export const findUmoci = () => findGoTool("github.com/opencontainers/umoci/cmd/umoci", "v0.5.1");
