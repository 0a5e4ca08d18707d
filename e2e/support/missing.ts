import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";

/** Tells at the end of a run, after the summary, which tests this machine could not run. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), "cro-missing-"));
  const file = join(folder, "missing");
  await writeFile(file, "");
  project.provide("missingToolsFile", file);
  return async () => {
    const missing = await readFile(file, "utf8");
    if (missing !== "") process.stderr.write(`\n${missing}\n`);
    await rm(folder, { recursive: true });
  };
}
