import { execFileSync } from "node:child_process";
import { mkdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { aFolder } from "./watching.ts";

const run = (command: string, ...args: string[]) => execFileSync(command, args, { stdio: ["ignore", "pipe", "pipe"] });

/** Why this machine cannot mount a file system in a file; undefined where it can. */
export function whyNoLoop(): string | undefined {
  if (process.getuid?.() !== 0) return "mounting needs root";
  try {
    run("losetup", "--find");
    run("mkfs.ext4", "-V");
    return undefined;
  } catch (cause) {
    return `a loop device and mkfs.ext4 are needed: ${(cause as Error).message.split("\n")[0]}`;
  }
}

/** A file system of its own in memory, gone with the test; `options` are those of tmpfs(5). */
export function aMemoryFileSystem(options: string): string {
  const folder = aFolder();
  run("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder);
  onTestFinished(() => void run("umount", "--lazy", folder));
  return folder;
}

/** An ext4 file system in a file, gone with the test. */
export function aDiskFileSystem(sizeBytes: number) {
  const parent = aFolder();
  const [image, folder] = [join(parent, "image"), join(parent, "mounted")];
  mkdirSync(folder);
  run("truncate", "--size", `${sizeBytes}`, image);
  // Without a journal, what is at the end of the file is data alone.
  run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", image);
  const mount = () => void run("mount", "-o", "loop", image, folder);
  const unmount = () => void run("umount", folder);
  mount();
  onTestFinished(() => void run("umount", "--lazy", folder));
  return {
    folder,
    /** From now on the disk answers reads behind this byte with an error, as one does that is failing. */
    breakBehind(bytes: number) {
      unmount();
      mount();
      truncateSync(image, bytes);
    },
  };
}

/** Sets or removes flags of ext4, such as +i; removed ones are what lets a test clean up. */
export function changeAttributes(flags: string, path: string): void {
  run("chattr", flags, path);
}

export function remount(folder: string, options: string): void {
  run("mount", "-o", `remount,${options}`, folder);
}

/** Mounts a file over itself: the same file, but busy. */
export function makeBusy(path: string): { release: () => void } {
  run("mount", "--bind", path, path);
  let isMounted = true;
  const release = () => {
    if (isMounted) run("umount", "--lazy", path);
    isMounted = false;
  };
  onTestFinished(release);
  return { release };
}
