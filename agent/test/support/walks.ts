import { type SpecFacts, SpecScan } from "../../src/archive/spec.ts";
import { advanceWalk, nextRead, startWalk, type Verdict, type Walk } from "../../src/archive/walk.ts";

/** Walks as far as the bytes go; the reads that it took are in order. */
export function walkBytes(
  bytes: Uint8Array,
  walk: Walk = startWalk(),
): { verdict: Verdict; reads: { offset: number; length: number }[] } {
  const reads: { offset: number; length: number }[] = [];
  for (let read = nextRead(walk); read !== undefined; read = nextRead(walk)) {
    reads.push(read);
    advanceWalk(walk, bytes.subarray(read.offset, read.offset + read.length));
    if (walk.verdict !== undefined) break;
  }
  if (walk.verdict === undefined) throw new Error("the walk wants no read and has no verdict");
  return { verdict: walk.verdict, reads };
}

/** What a spec.dump of these bytes tells, all of it at once. */
export function readSpec(bytes: Uint8Array): SpecFacts {
  const scan = new SpecScan();
  scan.take(bytes);
  return scan.facts();
}
