import { spawn } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

/** What the kernel tells of a process (proc(5)). */
export interface ProcessFacts {
  /** Time on a core of all its threads, in milliseconds. */
  cpuMs: number;
  /** Bytes that its reads returned. */
  readBytes: number;
  residentMib: number;
  /** The most that was ever resident. */
  peakMib: number;
  handles: number;
  inotifyWatches: number;
}

export function factsOf(pid: number): ProcessFacts {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const kib = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
  const descriptors = readdirSync(`/proc/${pid}/fd`);
  return {
    cpuMs: cpuMsOf(pid),
    readBytes: readBytesOf(pid),
    residentMib: kib("VmRSS") / 1024,
    peakMib: kib("VmHWM") / 1024,
    handles: descriptors.length,
    inotifyWatches: descriptors.reduce((sum, descriptor) => sum + watchesOf(pid, descriptor), 0),
  };
}

/** Resident memory of a Node of the same version that does nothing, in MiB. */
export async function residentOfBareNode(): Promise<number> {
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  await sleep(1000);
  const { residentMib } = factsOf(child.pid as number);
  child.kill();
  return residentMib;
}

/** Of all threads that live, as the scheduler counts it, in nanoseconds; the ticks of stat are too coarse. */
export function cpuMsOf(pid: number): number {
  let nanoseconds = 0;
  for (const task of readdirSync(`/proc/${pid}/task`)) {
    try {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
    } catch {
      // It ended meanwhile.
    }
  }
  return nanoseconds / 1e6;
}

export function readBytesOf(pid: number): number {
  return Number(/^rchar: (\d+)/m.exec(readFileSync(`/proc/${pid}/io`, "utf8"))?.[1]);
}

function watchesOf(pid: number, descriptor: string): number {
  try {
    if (readlinkSync(`/proc/${pid}/fd/${descriptor}`) !== "anon_inode:inotify") return 0;
    return readFileSync(`/proc/${pid}/fdinfo/${descriptor}`, "utf8").match(/^inotify /gm)?.length ?? 0;
  } catch {
    return 0;
  }
}
