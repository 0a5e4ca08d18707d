import { access, constants } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { describe, test } from "vitest";

/** Where what tests download or build once is kept. */
export const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "checkpoint-restore-operator");

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
 * A group of tests that needs something a machine may lack. Where it is missing, one skipped test stands for the group:
 * the run's summary names it with the way to get what is missing, and with CI=true the run fails.
 */
export function describeWith<T>(name: string, tool: Found<T>, body: (value: T) => void): void {
  if (tool.found) describe(name, () => body(tool.value));
  else test(`${name}: every test of it`, ({ skip }) => skip(tool.why));
}
