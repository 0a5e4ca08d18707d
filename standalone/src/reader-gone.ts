import { spawn } from "node:child_process";
import { fstatSync, writeSync } from "node:fs";

/** How often a socket is tried, in milliseconds. */
const TRY_MS = 500;

/**
 * Settles when nobody reads stdout any more, if it is a pipe or a socket, even while nothing is written to it. A pipe needs
 * GNU tail for that; without it, the next line that is written tells.
 */
export function whenReaderGone(): Promise<void> {
  const stat = fstatSync(1);
  return new Promise((resolve) => {
    if (stat.isSocket()) {
      const trying = setInterval(() => {
        try {
          // No bytes: nothing is written, and the kernel refuses it all the same if the other end is closed.
          writeSync(1, Buffer.alloc(0));
        } catch {
          clearInterval(trying);
          resolve();
        }
      }, TRY_MS).unref();
    }
    if (stat.isFIFO()) {
      // Node cannot wait for the end of a pipe that it only writes to; tail does, and ends by SIGPIPE.
      const tail = spawn("tail", ["-f", "/dev/null", `--pid=${process.pid}`], { stdio: ["ignore", 1, "ignore"] });
      tail.once("exit", (_code, signal) => signal === "SIGPIPE" && resolve());
      tail.once("error", () => {});
      tail.unref();
    }
  });
}
