import { execFile } from "node:child_process";
import { access, constants, mkdir } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { type Found, findExecutable } from "./tools.ts";

const execute = promisify(execFile);
const COMMAND = "github.com/rhysd/actionlint/cmd/actionlint";
const VERSION = "v1.7.12";

/** actionlint: built by Go from its module into the cache folder, once, in some seconds. */
export async function findActionlint(): Promise<Found<string>> {
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "checkpoint-restore-operator");
  const folder = join(cache, `actionlint-${VERSION}`);
  const path = join(folder, "actionlint");
  const isThere = await access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
  if (isThere) return { found: true, value: path };
  const go = await findExecutable("go", ["/usr/local/go/bin"]);
  if (go === undefined) return { found: false, why: "actionlint is built by Go 1.26; install it" };
  try {
    await mkdir(folder, { recursive: true });
    // go install writes the executable beside its place and renames it: two runs at once do no harm.
    const env = { ...process.env, PATH: `${process.env.PATH}:${dirname(go)}`, GOBIN: folder, GOFLAGS: "-mod=mod" };
    await execute(go, ["install", `${COMMAND}@${VERSION}`], { cwd: tmpdir(), env });
    return { found: true, value: path };
  } catch (cause) {
    return { found: false, why: `${COMMAND}@${VERSION} cannot be built: ${(cause as Error).message}` };
  }
}
