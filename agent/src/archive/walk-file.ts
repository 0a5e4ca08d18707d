import { readSync } from "node:fs";
import { advanceWalk, nextRead, type Walk } from "./walk.ts";

/**
 * Does one read of a walk, some microseconds of work, so that the caller can stop between two of them, and tells whether
 * there is a verdict: the walk is over, or can go no further for now. A torn walk, or one whose read failed, goes on at
 * the next call. `buffer` is any scratch space that the caller reuses; longer reads than it holds bring their own.
 *
 * A verdict is about one content only if size and mtime were the same before the walk and after it, which is for the
 * caller to see.
 */
export function stepWalk(fd: number, walk: Walk, buffer: Buffer): boolean {
  const wanted = nextRead(walk);
  if (wanted === undefined) return true;
  const { offset, length } = wanted;
  const target = buffer.length >= length ? buffer : Buffer.allocUnsafe(length);
  let filled = 0;
  try {
    let count: number;
    do {
      // 0 where the file ends, or where nothing is left to be read.
      count = readSync(fd, target, filled, length - filled, offset + filled);
      filled += count;
    } while (count !== 0);
  } catch (error) {
    // Whatever a read fails with has a code.
    walk.verdict = { kind: "failed", code: (error as { code: string }).code };
    return true;
  }
  advanceWalk(walk, target.subarray(0, filled));
  return walk.verdict !== undefined;
}
