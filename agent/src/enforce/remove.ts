import { type BigIntStats, lstatSync } from "node:fs";
import { unlink } from "node:fs/promises";
import type { Archive } from "../archive/archive.ts";
import { type Directory, withPath } from "../inventory/directory.ts";

/** The suffix of the file that pins the archive beside it. */
export const PIN_SUFFIX = ".keep";
/** The file that stops every deletion in its directory. */
export const PAUSE_FILE = ".pause";

/**
 * A file as it was when something was decided about it. `ctimeNs` is given if the decision rests on it: then not even its mode,
 * owner or links may have changed.
 */
export type Seen = Pick<Archive, "file" | "size" | "mtimeNs"> & { inode: bigint; ctimeNs?: bigint | undefined };

export type Removal =
  | { outcome: "deleted" }
  /** Somebody else had deleted it. */
  | { outcome: "gone" }
  /** It is not what the plan was made for: the next plan decides. */
  | { outcome: "refused"; why: string }
  /** A {@link PAUSE_FILE} is there. */
  | { outcome: "paused" }
  | { outcome: "failed"; code: string; cause: Error };

/**
 * Deletes an archive, if it still is what the plan was made for: the same inode, size and mtime, a regular file, not
 * pinned, and deletion not paused. `survivor` is the newest archive that the plan leaves to its container: if that is no
 * longer what it was, the plan might take the last one there is, and nothing is deleted. The look and the unlink follow
 * each other with nothing awaited in between.
 */
export async function removeArchive(directory: Directory, archive: Seen, survivor?: Seen): Promise<Removal> {
  const refusal = lookAgain(directory, archive, survivor);
  if (refusal !== undefined) return refusal;
  try {
    await unlink(directory.at(archive.file));
    return { outcome: "deleted" };
  } catch (cause) {
    return failure(cause, directory);
  }
}

function lookAgain(directory: Directory, archive: Seen, survivor: Seen | undefined): Removal | undefined {
  const refuse = (why: string): Removal => ({ outcome: "refused", why });
  try {
    const now = lstatSync(directory.at(archive.file), { bigint: true });
    if (!now.isFile()) return refuse("is no regular file any more");
    if (now.ino !== archive.inode) return refuse("was replaced");
    if (hasOtherContent(now, archive)) return refuse("was changed");
    if (archive.ctimeNs !== undefined && now.ctimeNs !== archive.ctimeNs) return refuse("was touched");
  } catch (cause) {
    return failure(cause, directory);
  }
  if (isPinned(directory, archive.file)) return refuse("was pinned");
  if (survivor !== undefined && !isStill(directory, survivor)) {
    return refuse(`is perhaps the newest of its container, as ${survivor.file} is not what it was`);
  }
  if (isPaused(directory)) return { outcome: "paused" };
  return undefined;
}

function hasOtherContent(now: BigIntStats, { size, mtimeNs }: Seen): boolean {
  return now.size !== BigInt(size) || now.mtimeNs !== mtimeNs;
}

function isStill(directory: Directory, seen: Seen): boolean {
  try {
    const now = lstatSync(directory.at(seen.file), { bigint: true });
    return now.isFile() && now.ino === seen.inode && !hasOtherContent(now, seen);
  } catch {
    return false;
  }
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

function failure(cause: unknown, directory: Directory): Removal {
  const told = withPath(cause, directory);
  return told.code === "ENOENT" ? { outcome: "gone" } : { outcome: "failed", code: told.code, cause: told };
}
