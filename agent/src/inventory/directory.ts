import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  realpathSync,
  statSync,
} from "node:fs";

/**
 * The checkpoint directory, held open. Files are named through the descriptor, so that every look and every deletion is
 * of this very directory, whatever is renamed, mounted or linked at its path meanwhile.
 */
export interface Directory {
  /** The path that was opened. */
  path: string;
  device: bigint;
  inode: bigint;
  /** The path by which a file of this directory is reached. */
  at(file: string): string;
  /** What the descriptor refers to now: a changed mtime is a changed listing, no links are a deleted directory. */
  stat(): BigIntStats;
  close(): void;
}

const OWN_DESCRIPTOR = /\/proc\/self\/fd\/\d+/g;

/** An error of a file operation, told by the directory's path: an operator does not know this process's descriptor. */
export function withPath(cause: unknown, { path }: Pick<Directory, "path">): Error & { code: string } {
  const { code = "UNKNOWN", message } = cause as NodeJS.ErrnoException;
  return Object.assign(new Error(message.replace(OWN_DESCRIPTOR, path)), { code });
}

/** What tells a directory from every other, whatever its path. */
export function directoryKey({ device, inode }: { device: bigint | string; inode: bigint | string }): string {
  return `${device} ${inode}`;
}

/** Why a directory cannot be watched. */
export interface DirectoryProblem {
  state: "missing" | "unreadable" | "not_mounted";
  message: string;
}

export type OpenedDirectory = { ok: true; directory: Directory } | { ok: false; problem: DirectoryProblem };

/**
 * Opens a directory. Where roots are given, it must lie in one of them when every symbolic link is resolved: a policy
 * must not lead the agent out of what was mounted for it.
 */
export function openDirectory(path: string, roots: readonly string[]): OpenedDirectory {
  const refuse = (state: DirectoryProblem["state"], message: string): OpenedDirectory => ({
    ok: false,
    problem: { state, message },
  });
  try {
    const real = realpathSync(path);
    if (roots.length > 0 && !roots.some((root) => isWithin(real, realRoot(root)))) {
      return refuse("not_mounted", `${path} lies in none of the mounted directories: ${roots.join(", ")}`);
    }
    const descriptor = openSync(real, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    const { dev, ino } = fstatSync(descriptor, { bigint: true });
    const base = `/proc/self/fd/${descriptor}`;
    return {
      ok: true,
      directory: {
        path,
        device: dev,
        inode: ino,
        at: (file) => `${base}/${file}`,
        stat: () => fstatSync(descriptor, { bigint: true }),
        close: () => closeSync(descriptor),
      },
    };
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code !== "ENOENT") return refuse("unreadable", code === "ENOTDIR" ? `${path} is not a directory` : message);
    const isOutside = roots.length > 0 && !roots.some((root) => isWithin(path, root));
    return isOutside
      ? refuse("not_mounted", `${path} lies in none of the mounted directories: ${roots.join(", ")}`)
      : refuse("missing", `${path} does not exist`);
  }
}

/** Whether the path still leads to this directory: not so after a rename, a removal or a mount over it. */
export function isStillAt({ path, device, inode }: Directory): boolean {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return dev === device && ino === inode;
  } catch {
    return false;
  }
}

/**
 * Whether a mounted root was deleted on the host. A path whose own inode has no link is a mount of something that is
 * gone; what is created in its place later can never appear inside the container, so only a restart helps.
 */
export function isGoneMount(root: string): boolean {
  try {
    return lstatSync(root, { bigint: true }).nlink === 0n;
  } catch {
    return false;
  }
}

function realRoot(root: string): string {
  try {
    return realpathSync(root);
  } catch {
    return root;
  }
}

function isWithin(path: string, root: string): boolean {
  return path === root || path.startsWith(root.endsWith("/") ? root : `${root}/`);
}
