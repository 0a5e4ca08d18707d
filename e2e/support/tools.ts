import { appendFileSync } from "node:fs";
import { access, constants } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { describe, inject, test } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    /** The file that {@link describeWith} lists skipped tests in, for the end of the run. */
    missingToolsFile: string;
  }
}

/** Something outside the project that tests need, or why this machine does not have it and how to get it. */
export type Found<T> = { found: true; value: T } | { found: false; why: string };

/** The path of an executable in $PATH or in one of the further folders; undefined where none has it. */
export async function findExecutable(name: string, folders: readonly string[] = []): Promise<string | undefined> {
  for (const folder of [...(process.env.PATH ?? "").split(delimiter), ...folders]) {
    if (folder === "") continue;
    const path = join(folder, name);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * A group of tests that needs something a machine may lack. Where it is missing the group is skipped and named at the
 * end of the run, with the way to get it; with CI=true it fails instead, so that no pipeline passes by not testing.
 */
export function describeWith<T>(name: string, tool: Found<T>, body: (value: T) => void): void {
  if (tool.found) {
    describe(name, () => body(tool.value));
    return;
  }
  if (process.env.CI === "true") {
    test(name, () => {
      throw new Error(`cannot run: ${tool.why}`);
    });
    return;
  }
  describe.skip(`${name} (${tool.why})`, () => {
    test("is skipped", () => {});
  });
  const file = inject("missingToolsFile");
  const line = `NOT TESTED: ${name}: ${tool.why}\n`;
  if (file === undefined) process.stderr.write(line);
  else appendFileSync(file, line);
}
