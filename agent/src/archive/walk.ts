import { type SpecFacts, SpecScan } from "./spec.ts";

/** What a walk has found out. */
export type Verdict =
  /** The archive ends at two zero blocks; what lies behind them is not looked at. */
  | { kind: "ended"; hasConfig: boolean; hasImages: boolean; spec: SpecFacts | undefined }
  /**
   * The file ends before the archive does. The same walk goes on from there once the file has grown. `isResumed`: it has
   * done so before, and what it skipped may have been overwritten since; what is to be relied upon needs a fresh walk.
   */
  | { kind: "torn"; isResumed: boolean; spec: SpecFacts | undefined }
  /** What was read is no tar that can be followed; the message tells where and what was seen. */
  | { kind: "refused"; message: string; spec: SpecFacts | undefined }
  /** Reading failed with that error code; the walk may be tried again. */
  | { kind: "failed"; code: string };

/** A walk under way, from one tar header to the next. Only `verdict` is of interest outside. */
export interface Walk {
  /** Undefined while there is more to read. */
  verdict: Verdict | undefined;
  /** What the next read is for, where it starts and how long it is, in bytes. */
  stage: "header" | "end" | "spec" | "pax" | "long-name";
  offset: number;
  length: number;
  /** Where the header after the data being read starts, in bytes. */
  following: number;
  /** What was read since the start of the file, in bytes. */
  readBytes: number;
  isResumed: boolean;
  hasConfig: boolean;
  /** Whether there is any file below `checkpoint/`: what CRIU wrote, without which nothing can be restored. */
  hasImages: boolean;
  spec: SpecFacts | undefined;
  /** What was read of spec.dump so far, and where its data ends. */
  specScan: SpecScan | undefined;
  specEnd: number;
  /** What extension headers say of the next entry; they override its own header. */
  longName: string | undefined;
  pax: PaxRecords;
}

interface PaxRecords {
  path?: string;
  size?: number;
}

/** A walk that has read nothing. */
export function startWalk(): Walk {
  return {
    verdict: undefined,
    stage: "header",
    offset: 0,
    length: BLOCK_BYTES,
    following: 0,
    readBytes: 0,
    isResumed: false,
    hasConfig: false,
    hasImages: false,
    spec: undefined,
    specScan: undefined,
    specEnd: 0,
    longName: undefined,
    pax: {},
  };
}

/** The next bytes that the walk needs, at most 64 KiB and mostly 512; undefined when its verdict is final. */
export function nextRead(walk: Walk): { offset: number; length: number } | undefined {
  return isFinal(walk.verdict) ? undefined : { offset: walk.offset, length: walk.length };
}

/**
 * Takes the walk one read further; `bytes` is what {@link nextRead} asked for, shorter only where the file ends. It keeps
 * no reference to them. Every step leads further into the file and reads at most 512 MiB of it, whatever the file holds.
 *
 * A walk that was resumed begins anew where it would have come to its end: what it skipped then may be another archive's
 * now, as runtimes overwrite in place. So a final verdict is always that of one pass over the file.
 *
 * The format is read as Go's archive/tar does, which the runtimes write with: ustar, GNU and PAX.
 */
export function advanceWalk(walk: Walk, bytes: Uint8Array): void {
  if (walk.verdict !== undefined) {
    walk.isResumed = true;
    walk.verdict = undefined;
  }
  if (bytes.length < walk.length) {
    walk.verdict = { kind: "torn", isResumed: walk.isResumed, spec: walk.spec };
    return;
  }
  walk.readBytes += bytes.length;
  const problem = walk.readBytes > MAX_READ_BYTES ? TOO_MUCH : takeIn(walk, bytes);
  if (problem !== undefined) {
    conclude(walk, { kind: "refused", message: `at byte ${walk.offset} ${problem}`, spec: walk.spec });
  }
}

const BLOCK_BYTES = 512;
/**
 * What a walk reads at most, in bytes, from the start of a file to its end. CRIU writes some 7 images a process, so that
 * the headers of 100,000 processes take 358 MB. Somebody who makes an archive of nothing but headers costs the agent
 * seconds of reading, in slices, and not as long as their disk is large.
 */
const MAX_READ_BYTES = 512 * 1024 * 1024;
const TOO_MUCH = `the walk gives up: it has read more than ${MAX_READ_BYTES} bytes`;
/** Above this, spec.dump counts as one that cannot be parsed; real ones have some 10 KB. */
const MAX_SPEC_BYTES = 16 * 1024 * 1024;
/** How much of spec.dump is read at once, in bytes: most are read at once, and no read takes the event loop long. */
const SPEC_READ_BYTES = 64 * 1024;
const MAX_EXTENSION_BYTES = 64 * 1024;
const SPACE = 0x20;

function isFinal(verdict: Verdict | undefined): boolean {
  return verdict?.kind === "ended" || verdict?.kind === "refused";
}

function conclude(walk: Walk, verdict: Verdict): void {
  if (walk.isResumed) Object.assign(walk, startWalk());
  else walk.verdict = verdict;
}

/** Goes on from what was read, or tells why the file cannot be followed from here. */
function takeIn(walk: Walk, bytes: Uint8Array): string | undefined {
  switch (walk.stage) {
    case "header":
      return takeHeader(walk, bytes);
    case "end":
      if (!isBlank(bytes)) return "is data behind a single zero block";
      conclude(walk, { kind: "ended", hasConfig: walk.hasConfig, hasImages: walk.hasImages, spec: walk.spec });
      return undefined;
    case "spec":
      walk.specScan?.take(bytes);
      if (walk.offset + bytes.length < walk.specEnd) return readSpec(walk, walk.offset + bytes.length);
      walk.spec = walk.specScan?.facts();
      walk.specScan = undefined;
      break;
    case "long-name":
      walk.longName = textOf(bytes, 0, bytes.length);
      break;
    case "pax": {
      const pax = parsePax(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1"));
      if (typeof pax === "string") return `is a PAX header ${pax}`;
      walk.pax = pax;
    }
  }
  return readNext(walk, walk.following);
}

function readNext(walk: Walk, offset: number): undefined {
  walk.stage = "header";
  walk.offset = offset;
  walk.length = BLOCK_BYTES;
}

function readData(walk: Walk, stage: "pax" | "long-name", sizeBytes: number): undefined {
  walk.stage = stage;
  walk.offset += BLOCK_BYTES;
  walk.length = sizeBytes;
}

function readSpec(walk: Walk, offset: number): undefined {
  walk.stage = "spec";
  walk.offset = offset;
  walk.length = Math.min(SPEC_READ_BYTES, walk.specEnd - offset);
}

function takeHeader(walk: Walk, block: Uint8Array): string | undefined {
  if (isBlank(block)) {
    walk.stage = "end";
    walk.offset += BLOCK_BYTES;
    return undefined;
  }
  const sum = parseOctal(block, 148, 156);
  const unsigned = unsignedSum(block);
  if (sum !== unsigned && sum !== signedSum(block)) {
    return `is no tar header: its checksum says ${sum ?? "nothing"}, its bytes sum to ${unsigned}`;
  }

  const type = String.fromCharCode(byteOf(block, 156));
  if (type === "S") return "is a sparse entry, which no runtime writes";
  const isExtension = type === "x" || type === "g" || type === "L" || type === "K";
  const sizeBytes = isExtension ? parseSize(block) : (walk.pax.size ?? parseSize(block));
  const dataStart = walk.offset + BLOCK_BYTES;
  walk.following = dataStart + Math.ceil((sizeBytes ?? Number.NaN) / BLOCK_BYTES) * BLOCK_BYTES;
  if (sizeBytes === undefined || walk.following > Number.MAX_SAFE_INTEGER) {
    return "is an entry whose size is no number, negative or too large";
  }

  if (type === "x" || type === "L") {
    if (sizeBytes > MAX_EXTENSION_BYTES) return `is an extension header of ${sizeBytes} bytes`;
    return readData(walk, type === "x" ? "pax" : "long-name", sizeBytes);
  }
  if (type === "K") return readNext(walk, walk.following);
  return takeEntry(walk, { type, name: walk.longName || walk.pax.path || nameOf(block), sizeBytes });
}

/** Global PAX headers come here too: to archive/tar they are entries, on which what was said of the next one is spent. */
function takeEntry(
  walk: Walk,
  { type, name, sizeBytes }: { type: string; name: string; sizeBytes: number },
): undefined {
  walk.longName = undefined;
  walk.pax = {};
  const isOldDirectory = type === "\0" && name.endsWith("/");
  const hasData = !isOldDirectory && !(type >= "1" && type <= "6");
  const isFile = hasData && (type === "0" || type === "\0" || type === "7");
  const rootName = isFile ? name.replace(/^(?:\.\/)+/, "") : "";
  if (rootName === "config.dump") walk.hasConfig = true;
  if (rootName.startsWith("checkpoint/")) walk.hasImages = true;
  if (rootName === "spec.dump") {
    if (walk.spec === undefined && sizeBytes <= MAX_SPEC_BYTES) {
      walk.specScan = new SpecScan();
      walk.specEnd = walk.offset + BLOCK_BYTES + sizeBytes;
      return readSpec(walk, walk.offset + BLOCK_BYTES);
    }
    walk.spec = walk.spec === undefined ? {} : { conflict: "the archive holds more than one spec.dump" };
  }
  return readNext(walk, hasData ? walk.following : walk.offset + BLOCK_BYTES);
}

function isBlank(block: Uint8Array): boolean {
  return block.every((byte) => byte === 0);
}

/** The block whose checksum is taken, in two views. Walks take turns, and none comes back to what lies here. */
const summed = new Uint8Array(BLOCK_BYTES);
const summedAsWords = new Int32Array(summed.buffer);

/** A byte of a block, of which {@link advanceWalk} saw that it is whole. */
function byteOf(block: Uint8Array, at: number): number {
  return block[at] as number;
}

/**
 * The sum of a block's bytes, the checksum's own eight taken for spaces. They go four at a time, for this is most of what
 * a walk computes.
 */
function unsignedSum(block: Uint8Array): number {
  summed.set(block);
  summed.fill(SPACE, 148, 156);
  let pairs = 0; // two sums of 16 bits each, which 256 bytes do not fill
  for (let at = 0; at < summedAsWords.length; at++) {
    const word = summedAsWords[at] as number;
    pairs = (pairs + (word & 0x00ff00ff) + ((word >>> 8) & 0x00ff00ff)) | 0;
  }
  return (pairs & 0xffff) + (pairs >>> 16);
}

/** The same over signed bytes, as some old writers summed them up. */
function signedSum(block: Uint8Array): number {
  const bytes = Int8Array.from(block).fill(SPACE, 148, 156);
  return bytes.reduce((total, byte) => total + byte, 0);
}

/** Octal digits with NULs or spaces around them; an empty field is 0, anything else undefined. */
function parseOctal(block: Uint8Array, start: number, end: number): number | undefined {
  let at = start;
  while (at < end && (block[at] === 0 || block[at] === SPACE)) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = byteOf(block, at) - 0x30;
    if (digit < 0 || digit > 7) break;
    value = value * 8 + digit;
  }
  while (at < end && block[at] === SPACE) at++;
  return at === end || block[at] === 0 ? value : undefined;
}

/** In octal or, the first bit set, as a binary number of two's complement; undefined is negative or no number. */
function parseSize(block: Uint8Array): number | undefined {
  const first = byteOf(block, 124);
  if (first < 0x80) return parseOctal(block, 124, 136);
  if (first & 0x40) return undefined;
  let size = first & 0x3f;
  for (let at = 125; at < 136; at++) size = size * 256 + byteOf(block, at);
  return size;
}

function nameOf(block: Uint8Array): string {
  const name = textOf(block, 0, 100);
  // GNU's magic has a space here and keeps other things where ustar has the prefix.
  const prefix = textOf(block, 257, 263) === "ustar" ? textOf(block, 345, 500) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** A field up to its first NUL. */
function textOf(bytes: Uint8Array, start: number, end: number): string {
  const nul = bytes.indexOf(0, start);
  const length = (nul === -1 || nul > end ? end : nul) - start;
  return Buffer.from(bytes.buffer, bytes.byteOffset + start, length).toString("latin1");
}

/** The records of an extended header that matter here, or what is wrong with it. */
function parsePax(text: string): PaxRecords | string {
  const records: PaxRecords = {};
  for (let at = 0; at < text.length; ) {
    const space = text.indexOf(" ", at);
    const digits = text.slice(at, space);
    const end = at + Number(digits);
    const equals = text.indexOf("=", space);
    const isRecord = /^[0-9]{1,5}$/.test(digits) && equals > space + 1 && equals < end;
    if (!isRecord || text[end - 1] !== "\n") return `whose record at byte ${at} is malformed`;
    const key = text.slice(space + 1, equals);
    const value = text.slice(equals + 1, end - 1);
    at = end;
    if (key.startsWith("GNU.sparse.")) return "of a sparse entry, which no runtime writes";
    if (value === "") continue;
    if (key === "path") records.path = value;
    if (key === "size") {
      const size = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
      if (!Number.isSafeInteger(size)) return "whose size is no number, negative or too large";
      records.size = size;
    }
  }
  return records;
}
