import { lstatSync } from "node:fs";
import { unlink } from "node:fs/promises";
import type { Archive } from "../archive/archive.ts";
import type { Directory } from "../inventory/directory.ts";

/** The suffix of the file that pins the archive beside it. */
export const PIN_SUFFIX = ".keep";
/** The file that stops every deletion in its directory. */
export const PAUSE_FILE = ".pause";

/** Why a deletion is refused while a {@link PAUSE_FILE} is there. */
export const REFUSED_BY_PAUSE = "deletion is paused";

export type Removal =
  | { outcome: "deleted" }
  /** Somebody else had deleted it. */
  | { outcome: "gone" }
  /** It is not what the plan was made for: the next plan decides. */
  | { outcome: "refused"; why: string }
  | { outcome: "failed"; code: string; cause: unknown };

/**
 * Deletes an archive, if it still is what the plan was made for: the same inode, size and mtime, a regular file, not
 * pinned, and deletion not paused. The look and the unlink follow each other with nothing awaited in between.
 */
export async function removeArchive(directory: Directory, archive: Archive & { inode: bigint }): Promise<Removal> {
  const refusal = lookAgain(directory, archive);
  if (refusal !== undefined) return refusal;
  try {
    await unlink(directory.at(archive.file));
    return { outcome: "deleted" };
  } catch (cause) {
    return failure(cause);
  }
}

function lookAgain(directory: Directory, archive: Archive & { inode: bigint }): Removal | undefined {
  const refuse = (why: string): Removal => ({ outcome: "refused", why });
  try {
    const now = lstatSync(directory.at(archive.file), { bigint: true });
    if (!now.isFile()) return refuse("is no regular file any more");
    if (now.ino !== archive.inode) return refuse("was replaced");
    if (now.size !== BigInt(archive.size) || now.mtimeNs !== archive.mtimeNs) return refuse("was changed");
  } catch (cause) {
    return failure(cause);
  }
  if (isPinned(directory, archive.file)) return refuse("was pinned");
  if (isPaused(directory)) return refuse(REFUSED_BY_PAUSE);
  return undefined;
}

/** Whether a `.keep` lies beside the archive. Only a name that cannot exist or does not is no pin; any doubt is one. */
export function isPinned(directory: Directory, file: string): boolean {
  return isThere(directory, file + PIN_SUFFIX);
}

/** Whether a `.pause` lies in the directory; any doubt pauses. */
export function isPaused(directory: Directory): boolean {
  return isThere(directory, PAUSE_FILE);
}

function isThere(directory: Directory, file: string): boolean {
  try {
    lstatSync(directory.at(file));
    return true;
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    return code !== "ENOENT" && code !== "ENAMETOOLONG";
  }
}

function failure(cause: unknown): Removal {
  const code = (cause as NodeJS.ErrnoException).code ?? "UNKNOWN";
  return code === "ENOENT" ? { outcome: "gone" } : { outcome: "failed", code, cause };
}
