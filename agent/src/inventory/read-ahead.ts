import { readSync } from "node:fs";
import { advanceWalk, nextRead, type Walk } from "../archive/walk.ts";
import { stepWalk } from "../archive/walk-file.ts";

/** How many bytes are read at once where a walk asks for a header, which takes 512, or for as little else. */
export const READ_AHEAD = {
  /** An archive that just came is walked twice or more while it grows: no byte too many. */
  none: 512,
  /** Most entries are small, so that the next headers come along; a read costs more than so few bytes of it. */
  some: 8192,
} as const;

/** Space that walks read into, one after the other: for each to have its own would leave much garbage. */
export interface ReadSpace {
  bytes: Buffer;
  /** Whose bytes there are just now. */
  holder: object | undefined;
}

export function createReadSpace(sizeBytes: number): ReadSpace {
  return { bytes: Buffer.allocUnsafe(sizeBytes), holder: undefined };
}

/**
 * Yields what does one read of a walk over this file, or none where the bytes came along with the last one, and tells
 * whether there is a verdict. It is for one pass over one content, after which it must not be used again: like the
 * verdict, the bytes that came along are worth something only if the file was the same before the pass and after it.
 */
export function createWalkStep(descriptor: number, space: ReadSpace): (walk: Walk) => boolean {
  const window = space.bytes;
  const self = {};
  let start = 0;
  let end = 0;

  return (walk) => {
    const wanted = nextRead(walk);
    if (wanted === undefined || wanted.length > window.length) return stepWalk(descriptor, walk, window);
    const { offset, length } = wanted;
    if (space.holder !== self || offset < start || offset + length > end) {
      space.holder = self;
      start = offset;
      end = offset;
      try {
        end += fill(descriptor, window, { offset, leastBytes: length });
      } catch (error) {
        walk.verdict = { kind: "failed", code: (error as NodeJS.ErrnoException).code ?? "unknown" };
        return true;
      }
    }
    advanceWalk(walk, window.subarray(offset - start, Math.min(offset + length, end) - start));
    return walk.verdict !== undefined;
  };
}

/** Reads until the least is there or the file ends; returns how many bytes there are. */
function fill(
  descriptor: number,
  window: Buffer,
  { offset, leastBytes }: { offset: number; leastBytes: number },
): number {
  let filled = 0;
  while (filled < leastBytes) {
    const count = readSync(descriptor, window, filled, window.length - filled, offset + filled);
    if (count === 0) break;
    filled += count;
  }
  return filled;
}
