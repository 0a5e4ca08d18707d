import { mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";

/** Where the term is kept while there is no cluster to keep it. */
export interface TermFile {
  /**
   * Raises the term above its old value and above `other`, and yields it once it is safely on disk. Rejects where it
   * cannot be written, or where there is no higher one.
   */
  raiseAbove(other: number): Promise<number>;
}

/**
 * Keeps the term in the file `term` of a folder. Where that is lost or unreadable the term begins at 1 again: agents
 * refuse what is older than what they know and name its term, above which it is then raised.
 */
export function createTermFile(directory: string): TermFile {
  const path = join(directory, "term");
  let last: Promise<unknown> = Promise.resolve();

  async function raise(other: number): Promise<number> {
    const term = Math.max(await readTerm(path), other) + 1;
    if (!Number.isSafeInteger(term)) throw new Error(`no term is above ${other}; the agents' state must be cleared`);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const file = await open(`${path}.tmp`, "w", 0o600);
    try {
      await file.writeFile(`${term}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.tmp`, path);
    const folder = await open(directory, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
    return term;
  }

  return {
    raiseAbove(other) {
      const raised = last.catch(() => undefined).then(() => raise(other));
      last = raised;
      return raised;
    },
  };
}

async function readTerm(path: string): Promise<number> {
  try {
    const text = (await readFile(path, "utf8")).trim();
    return /^\d{1,15}$/.test(text) ? Number(text) : 0;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return 0;
    throw cause;
  }
}
