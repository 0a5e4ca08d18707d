import { readdirSync, readFileSync } from "node:fs";

export interface TreeProcess {
  pid: number;
  command: string;
}

/** A process's parent and state, as `man 5 proc` has them; undefined if there is no such process. */
function statOf(pid: number): { parent: number; state: string } | undefined {
  try {
    const [, state = "", parent] = /\) (.) (\d+) /.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
    return { parent: Number(parent), state };
  } catch {
    return undefined;
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}

/** A process and all that it started, directly or not: it first, then level by level. */
export function processTree(root: number): TreeProcess[] {
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const parents = new Map(all.map((name) => [Number(name), statOf(Number(name))?.parent]));
  const pids = [root];
  for (const above of pids) for (const [pid, parent] of parents) if (parent === above) pids.push(pid);
  return pids.map((pid) => ({ pid, command: commandOf(pid) }));
}

/** Those processes that still run. A zombie does not: it only waits to be reaped. */
export function stillRunning(processes: TreeProcess[]): TreeProcess[] {
  return processes.filter(({ pid, command }) => {
    const stat = statOf(pid);
    return stat !== undefined && stat.state !== "Z" && commandOf(pid) === command;
  });
}
