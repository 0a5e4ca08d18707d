import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { IMAGE_PATH } from "./image.ts";
import { observe, type Running } from "./processes.ts";
import { type Found, findExecutable } from "./tools.ts";

/** Whether this machine can run containers as {@link runContainer} does. */
export async function findContainers(): Promise<Found<true>> {
  if (process.getuid?.() !== 0) return { found: false, why: "only root may change the root of a process; run as root" };
  for (const name of ["unshare", "mount", "capsh"]) {
    if ((await findExecutable(name)) === undefined) {
      return { found: false, why: `${name} is missing; it is in Debian's util-linux, mount and libcap2-bin` };
    }
  }
  return { found: true, value: true };
}

/** A folder of this machine as a container sees it. */
export interface Mount {
  source: string;
  target: string;
  isReadOnly: boolean;
}

export interface Container {
  /** The image's root file system; folders to mount on are made in it. */
  rootFileSystem: string;
  isRootReadOnly: boolean;
  mounts: readonly Mount[];
  /** Command and arguments; the first is looked up as a container runtime does. */
  command: readonly string[];
  env: Readonly<Record<string, string>>;
  uid: number;
  gid: number;
}

/**
 * Mounts, changes the root, gives up every capability, and becomes the command: the process that is started is the
 * container's own. Its arguments are the root, `ro` or `rw`, uid, gid, how many mounts there are, three words for each,
 * and the command.
 */
const SCRIPT = `
set -e
root=$1 mode=$2 uid=$3 gid=$4 count=$5
shift 5
mount --bind "$root" "$root"
while [ "$count" -gt 0 ]; do
  mount --bind "$1" "$root$2"
  if [ "$3" = ro ]; then mount -o remount,bind,ro "$root$2"; fi
  count=$((count - 1))
  shift 3
done
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
if [ "$mode" = ro ]; then mount -o remount,bind,ro "$root"; fi
program=$1
shift
exec capsh --no-new-privs --drop=all --chroot="$root" --groups= --gid="$gid" --uid="$uid" --shell="$program" -- "$@"
`;

/**
 * Runs a command as a container runtime does with a pod's: in a root file system of its own with its mounts, as its user,
 * without any capability, and with the environment given alone. It shares this machine's network. Whoever calls
 * this ends the process.
 */
export async function runContainer(container: Container): Promise<Running> {
  const { rootFileSystem, isRootReadOnly, mounts, command, env, uid, gid } = container;
  for (const { target } of mounts) await mkdir(join(rootFileSystem, target), { recursive: true });
  const [name = "", ...args] = command;
  const program = name.startsWith("/") ? name : `/usr/local/bin/${name}`;
  const words = mounts.flatMap(({ source, target, isReadOnly }) => [source, target, isReadOnly ? "ro" : "rw"]);
  const script = ["sh", "-c", SCRIPT, "sh", rootFileSystem, isRootReadOnly ? "ro" : "rw", `${uid}`, `${gid}`];
  return observe(
    spawn("unshare", ["-m", ...script, `${mounts.length}`, ...words, program, ...args], {
      env: { PATH: IMAGE_PATH, ...env },
      cwd: "/",
    }),
  );
}
