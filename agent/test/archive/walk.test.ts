import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { advanceWalk, nextRead, startWalk, type Verdict, type Walk } from "../../src/archive/walk.ts";
import {
  archiveBytes,
  base256Size,
  type Entry,
  octalSize,
  POD_UID,
  sealHeader,
  specBytes,
  tarBytes,
  tarHeader,
} from "../support/archives.ts";
import { realArchives } from "../support/real-archives.ts";
import { walkBytes } from "../support/walks.ts";

const BLOCK = 512;
const OWNER = { namespace: "shop", pod: "web-0", container: "app" };
const COMPLETE = { kind: "ended", hasConfig: true, spec: { ...OWNER, podUID: POD_UID } };
const TORN = { kind: "torn", isResumed: false, spec: undefined };
const config: Entry = { name: "config.dump", content: Buffer.from("{}") };
const spec: Entry = { name: "spec.dump", content: specBytes() };

const real = realArchives();
const folder = mkdtempSync(join(tmpdir(), "walk-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A walk's verdict, but for images, which have tests of their own. */
function walk(bytes: Uint8Array, resumed?: Walk) {
  return withoutImages(walkBytes(bytes, resumed).verdict);
}

function withoutImages(verdict: Verdict) {
  if (verdict.kind !== "ended") return verdict;
  const { hasImages: _, ...others } = verdict;
  return others;
}
const walkEntries = (...entries: Entry[]) => walk(tarBytes(entries));
const messageOf = (bytes: Uint8Array) => {
  const verdict = walk(bytes);
  return verdict.kind === "refused" ? verdict.message : verdict.kind;
};

/** An extended header in front of an entry, each record given without its length. */
function paxHeader(...records: string[]): Entry {
  const lines = records.map((record) => {
    const rest = ` ${record}\n`;
    const length = rest.length + String(rest.length + String(rest.length).length).length;
    return `${length}${rest}`;
  });
  return { name: "PaxHeaders/x", type: "x", content: Buffer.from(lines.join("")) };
}

/** Where GNU tar sees headers, and the end mark, in bytes. */
function tarOffsets(bytes: Uint8Array): number[] {
  const path = join(folder, "listed.tar");
  writeFileSync(path, bytes);
  const listing = execFileSync("tar", ["--force-local", "-tRf", path], { encoding: "utf8" });
  return [...listing.matchAll(/^block ([0-9]+): /gm)].map(([, block]) => Number(block) * BLOCK);
}

describe("a walk of real archives", () => {
  it.each(real)("finds the headers and the end of $file where GNU tar finds them", ({ bytes }) => {
    const { verdict, reads } = walkBytes(bytes);
    const whole = { kind: "ended", hasConfig: true, hasImages: true };
    expect(verdict).toMatchObject({ ...whole, spec: { pod: expect.any(String) } });
    const [end, ...headers] = reads.filter(({ length }) => length === BLOCK).reverse();
    expect(headers.reverse().map(({ offset }) => offset)).toEqual(tarOffsets(bytes));
    expect(end?.offset).toBe((headers.at(-1)?.offset ?? 0) + BLOCK);
  });

  it.each(real)("reads less than 64 KiB of $file", ({ bytes }) => {
    const read = walkBytes(bytes).reads.reduce((sum, { length }) => sum + length, 0);
    expect(read).toBeLessThan(64 * 1024);
  });

  it.each(real)("takes $file, cut anywhere before its end mark, for torn, and names nobody else", ({ bytes }) => {
    const { verdict, reads } = walkBytes(bytes);
    const owner = verdict.kind === "ended" ? verdict.spec : undefined;
    const specEnd = Math.max(
      ...reads.filter(({ length }) => length !== BLOCK).map((read) => read.offset + read.length),
    );
    const end = (reads.at(-1)?.offset ?? 0) + BLOCK;
    for (let block = 0; block <= end; block += BLOCK) {
      for (const cut of [block - 1, block, block + 1, block + 100]) {
        if (cut < 0) continue;
        const whole = { kind: "ended", hasConfig: true, spec: owner };
        const torn = { kind: "torn", isResumed: false, spec: cut < specEnd ? undefined : owner };
        expect(walk(bytes.subarray(0, cut)), `cut at ${cut}`).toEqual(cut < end ? torn : whole);
      }
    }
  });
});

describe("a walk", () => {
  it("tells an archive's end, its two files and its owner", () => {
    expect(walk(archiveBytes())).toEqual(COMPLETE);
  });

  it.each(["./", "././"])("finds both files behind a leading %s", (root) => {
    expect(walkEntries({ ...config, name: `${root}config.dump` }, { ...spec, name: `${root}spec.dump` })).toEqual(
      COMPLETE,
    );
  });

  it("takes files of those names in folders for what they are", () => {
    const inFolder = (entry: Entry) => ({ ...entry, name: `checkpoint/${entry.name}` });
    expect(walkEntries(inFolder(config), inFolder(spec))).toEqual({ kind: "ended", hasConfig: false, spec: undefined });
    expect(walkEntries({ ...config, prefix: "a" }, { ...spec, prefix: "a" })).toEqual({
      kind: "ended",
      hasConfig: false,
      spec: undefined,
    });
    expect(walkEntries({ ...config, prefix: "." }, { ...spec, prefix: "." })).toEqual(COMPLETE);
    // Only in front is a "./" the root; there it stands for nothing.
    expect(walkEntries(config, { ...spec, name: "spec./.dump" })).toEqual({ ...COMPLETE, spec: undefined });
  });

  it("takes what GNU tar has in the place of the prefix for none", () => {
    const block = tarHeader({ ...config, content: new Uint8Array(), prefix: "a" });
    block.write("ustar  \0", 257);
    expect(walk(Buffer.concat([sealHeader(block), tarBytes([spec])]))).toEqual(COMPLETE);
  });

  it.each(["0", "\0", "7"])("takes both files from entries of type %j", (type) => {
    expect(walkEntries({ ...config, type }, { ...spec, type })).toEqual(COMPLETE);
  });

  it.each(["1", "2", "3", "4", "5", "6", "V"])("takes neither file from an entry of type %s", (type) => {
    const content = new Uint8Array();
    expect(walkEntries({ ...config, type, content }, { ...spec, type, content })).toEqual({
      kind: "ended",
      hasConfig: false,
      spec: undefined,
    });
  });

  it("knows which entries have data, whatever size the others claim", () => {
    const claiming = (type: string, name = "other"): Entry => ({ name, type, sizeField: octalSize(5000) });
    const bare = ["1", "2", "3", "4", "5", "6"].map((type) => claiming(type));
    expect(walkEntries(...bare, claiming("\0", "folder/"), config, spec)).toEqual(COMPLETE);
    const full = ["0", "\0", "7", "V", "g", "K"].map(
      (type): Entry => ({ name: "other", type, content: Buffer.alloc(5000) }),
    );
    expect(walkEntries(...full, config, spec)).toEqual(COMPLETE);
    // A folder by its name alone is one only of the oldest type, whose name may fill its field.
    expect(walkEntries({ name: "folder/", content: Buffer.alloc(5000) }, config, spec)).toEqual(COMPLETE);
    expect(walkEntries(claiming("\0", `${"d".repeat(99)}/`), config, spec)).toEqual(COMPLETE);
    expect(walkEntries({ name: "", content: Buffer.alloc(5000) }, config, spec)).toEqual(COMPLETE);
  });

  it("does not look behind the end mark", () => {
    expect(walk(tarBytes([config, spec], Buffer.concat([Buffer.alloc(1024), Buffer.alloc(9000, "x")])))).toEqual(
      COMPLETE,
    );
    const older = archiveBytes({ pod: "other" });
    expect(walk(Buffer.concat([archiveBytes(), older]))).toEqual(COMPLETE);
  });

  it("tells whether there are images of CRIU's: files below checkpoint/, and no folder or link alone", () => {
    const hasImages = (...entries: Entry[]) => {
      const { verdict } = walkBytes(tarBytes([...entries, config, spec]));
      return verdict.kind === "ended" && verdict.hasImages;
    };
    const image = { name: "checkpoint/pages-1.img", content: Buffer.alloc(4096) };
    expect(hasImages(image)).toBe(true);
    expect(hasImages({ ...image, name: "./checkpoint/core-1.img", content: Buffer.alloc(0) })).toBe(true);
    expect(hasImages()).toBe(false);
    expect(hasImages({ name: "checkpoint/", type: "5" })).toBe(false);
    expect(hasImages({ name: "checkpoint/pages-1.img", type: "2" })).toBe(false);
    expect(hasImages({ ...image, name: "rootfs/checkpoint/pages-1.img" })).toBe(false);
    expect(hasImages({ ...image, name: "checkpoints/pages-1.img" })).toBe(false);
  });

  it("tells when either file is missing", () => {
    expect(walkEntries(spec)).toEqual({ ...COMPLETE, hasConfig: false });
    expect(walkEntries(config)).toEqual({ ...COMPLETE, spec: undefined });
    expect(walkEntries()).toEqual({ kind: "ended", hasConfig: false, spec: undefined });
  });

  it("finds a conflict in a second spec.dump, even in the same one again", () => {
    const conflict = "the archive holds more than one spec.dump";
    expect(walkEntries(config, spec, spec)).toEqual({ ...COMPLETE, spec: { conflict } });
  });

  const large = (bytes: number): Entry => ({
    ...spec,
    content: Buffer.concat([specBytes(), Buffer.alloc(bytes - specBytes().length, " ")]),
  });

  it("reads a spec.dump of up to 16 MiB in pieces of 64 KiB", () => {
    const piece = 64 * 1024;
    for (const bytes of [piece - 1, piece, piece + 1, 3 * piece]) {
      const { verdict, reads } = walkBytes(tarBytes([config, large(bytes)]));
      expect(withoutImages(verdict)).toEqual(COMPLETE);
      const pieces = reads.filter(({ offset }) => offset >= 3 * BLOCK).slice(0, Math.ceil(bytes / piece));
      expect(pieces.map(({ offset }) => offset)).toEqual(pieces.map((_, at) => 3 * BLOCK + at * piece));
      expect(pieces.reduce((sum, { length }) => sum + length, 0)).toBe(bytes);
      expect(Math.max(...reads.map(({ length }) => length))).toBeLessThanOrEqual(piece);
    }
    const most = tarHeader({ ...spec, sizeField: octalSize(16 * 1024 * 1024) });
    expect(walkBytes(most).reads.at(-1)).toEqual({ offset: BLOCK, length: piece });
  });

  it("takes a spec.dump over 16 MiB for one that names nobody, without reading it", () => {
    const sizeBytes = 16 * 1024 * 1024 + 1;
    const header = tarHeader({ ...spec, sizeField: octalSize(sizeBytes) });
    const { verdict, reads } = walkBytes(header);
    expect(verdict).toEqual({ ...TORN, spec: {} });
    expect(reads).toEqual([
      { offset: 0, length: BLOCK },
      { offset: sizeBytes - 1 + 2 * BLOCK, length: BLOCK },
    ]);
  });

  it("knows nobody for the owner before all of spec.dump was read", () => {
    const bytes = tarBytes([config, large(200_000)]);
    for (const cut of [70_000, 140_000, 200_000])
      expect(walk(bytes.subarray(0, cut))).toEqual({ kind: "torn", isResumed: false, spec: undefined });
  });

  it("follows sizes that octal cannot hold", () => {
    const { reads } = walkBytes(tarHeader({ name: "pages", sizeField: base256Size(9n * 2n ** 30n) }));
    expect(reads.at(-1)).toEqual({ offset: BLOCK + 9 * 2 ** 30, length: BLOCK });
    const pax = tarBytes([paxHeader(`size=${9 * 2 ** 30}`), { name: "pages" }], new Uint8Array());
    expect(walkBytes(pax).reads.at(-1)).toEqual({ offset: pax.length + 9 * 2 ** 30, length: BLOCK });
  });

  it("applies an extended header to the next entry alone, and a global one to none", () => {
    const content = Buffer.alloc(700);
    expect(walkEntries(paxHeader("size=700"), { name: "a", content, sizeField: octalSize(0) }, config, spec)).toEqual(
      COMPLETE,
    );
    expect(walkEntries(paxHeader("mtime=1.5", "path=spec.dump", "size="), { ...spec, name: "x" }, config)).toEqual(
      COMPLETE,
    );
    expect(walkEntries({ ...paxHeader("path=spec.dump", "size=9999"), type: "g" }, config, spec)).toEqual(COMPLETE);
    expect(walkEntries(paxHeader("path=other"), { ...paxHeader("a=b"), type: "g" }, spec, config)).toEqual(COMPLETE);
    expect(walkEntries(paxHeader("path=other"), spec, config)).toEqual({ ...COMPLETE, spec: undefined });
    expect(walkEntries(paxHeader("linkpath=spec.dump"), { ...spec, name: "x" }, config)).toEqual({
      ...COMPLETE,
      spec: undefined,
    });
  });

  it.each(["L", "K", "x", "g"])("applies the size of an extended header to no extension header of type %s", (type) => {
    const between: Entry = type === "x" || type === "g" ? { ...paxHeader("a=b"), type } : { name: "x", type };
    // What comes between a size and its entry spends it, or leaves it for the entry.
    const isSpent = type === "x" || type === "g";
    const entry: Entry = {
      name: "pages",
      content: Buffer.alloc(5000),
      ...(isSpent ? {} : { sizeField: octalSize(0) }),
    };
    expect(walkEntries(paxHeader("size=5000"), between, entry, config, spec)).toEqual(COMPLETE);
  });

  it("applies a GNU long name to the next entry, and takes a long link for none", () => {
    const long = (type: string, name: string): Entry => ({
      name: "././@LongLink",
      type,
      content: Buffer.from(`${name}\0`),
    });
    expect(walkEntries(long("L", "./spec.dump"), { ...spec, name: "x" }, config)).toEqual(COMPLETE);
    expect(walkEntries(long("L", `spec.dump/${"x".repeat(200)}`), spec, config)).toEqual({
      ...COMPLETE,
      spec: undefined,
    });
    expect(walkEntries(long("K", "elsewhere"), spec, config)).toEqual(COMPLETE);
    expect(walkEntries(long("L", "spec.dump"), long("K", "elsewhere"), { ...spec, name: "x" }, config)).toEqual(
      COMPLETE,
    );
    const bare: Entry = { name: "x", type: "L", content: Buffer.from("spec.dump") };
    expect(walkEntries(bare, { ...spec, name: "x" }, config)).toEqual(COMPLETE);
    const longest: Entry = { name: "x", type: "L", content: Buffer.alloc(65_536, "x") };
    expect(walkEntries(longest, spec, config)).toEqual({ ...COMPLETE, spec: undefined });
    const padded = Buffer.concat([specBytes(), Buffer.alloc(700 - specBytes().length, " ")]);
    const entry = { name: "x", content: padded, sizeField: octalSize(0) };
    expect(walkEntries(paxHeader("size=700"), long("L", "spec.dump"), entry, config)).toEqual(COMPLETE);
    expect(walkEntries(paxHeader("path=a"), long("L", "spec.dump"), { ...spec, name: "x" }, config)).toEqual(COMPLETE);
  });

  it("accepts numbers padded with spaces and NULs, and a checksum over signed bytes", () => {
    const padded = (field: string): Entry => ({ ...spec, sizeField: Buffer.from(field.padEnd(12, "\0")) });
    const size = specBytes().length.toString(8);
    for (const field of [` ${size}`, `\0\0${size} `, `${size} \0 `, size.padStart(12, "0")]) {
      expect(walkEntries(padded(field), config)).toEqual(COMPLETE);
    }
    const header = tarHeader({ name: "é", type: "5" });
    const sum = header.reduce(
      (total, byte, at) => total + (at >= 148 && at < 156 ? 32 : byte > 127 ? byte - 256 : byte),
      0,
    );
    header.write(`${sum.toString(8)}\0 `.padStart(8, " "), 148);
    expect(walk(Buffer.concat([header, tarBytes([config, spec])]))).toEqual(COMPLETE);
    // Behind a NUL anything may stand; it counts as the space that the sum takes it for.
    header[155] = 0xff;
    expect(walk(Buffer.concat([header, tarBytes([config, spec])]))).toEqual(COMPLETE);
  });

  it.each([
    ["", `\0${"7".repeat(10)}`],
    ["123".padEnd(12, " "), "  12"],
  ])("reads a size of %j up to the end of its field, whatever comes behind it", (size, mtime) => {
    const content = Buffer.alloc(0o123);
    const header = tarHeader({ name: "a", sizeField: Buffer.from(size.padEnd(12, "\0")) });
    header.fill(0, 136, 148);
    header.write(mtime, 136);
    const data = size === "" ? [] : [content, Buffer.alloc(BLOCK - content.length)];
    expect(walk(Buffer.concat([sealHeader(header), ...data, tarBytes([config, spec])]))).toEqual(COMPLETE);
  });

  it.each([0, 1, 511])("takes any file of %i bytes for torn", (length) => {
    expect(walk(Buffer.alloc(length, "x"))).toEqual(TORN);
    expect(walk(Buffer.alloc(length))).toEqual(TORN);
  });

  it("takes a file for torn that ends in, or right behind, its first zero block", () => {
    for (const length of [0, 1, 512, 513, 1023]) {
      expect(walk(tarBytes([config, spec], Buffer.alloc(length)))).toEqual({ ...TORN, spec: COMPLETE.spec });
    }
  });

  it.each<[string, Uint8Array, RegExp]>([
    ["gzip", gzipSync(Buffer.from(Array.from({ length: 4000 }, (_, at) => (at * at) % 251))), /at byte 0 .*checksum/],
    ["text", Buffer.alloc(1000, "no tar "), /at byte 0 .*checksum/],
    ["a zero block before data", Buffer.concat([Buffer.alloc(BLOCK), archiveBytes()]), /byte 512 .*single zero block/],
    [
      "one zero block among entries",
      Buffer.concat([tarBytes([config], Buffer.alloc(BLOCK)), archiveBytes()]),
      /single zero/,
    ],
    ["a negative size", tarHeader({ name: "x", sizeField: base256Size(-1n) }), /size/],
    ["a very negative size", tarHeader({ name: "x", sizeField: base256Size(5n - 2n ** 94n) }), /size/],
    ["a size beyond any file", tarHeader({ name: "x", sizeField: base256Size(2n ** 60n) }), /size/],
    ["a size whose end is beyond any file", tarHeader({ name: "x", sizeField: base256Size(2n ** 53n - 1n) }), /size/],
    ["a size of 95 bits", tarHeader({ name: "x", sizeField: base256Size(2n ** 93n) }), /size/],
    ["a size that is no number", tarHeader({ name: "x", sizeField: Buffer.from("0000000009\0 ") }), /size/],
    ["a sparse entry", tarHeader({ name: "x", type: "S" }), /sparse/],
    ["a sparse entry of PAX", tarBytes([paxHeader("GNU.sparse.major=1"), spec]), /byte 512 .*sparse/],
    ["a negative PAX size", tarBytes([paxHeader("size=-1"), spec]), /size/],
    ["a PAX size beyond any file", tarBytes([paxHeader("size=9007199254740993"), spec]), /size/],
    [
      "a PAX record without length",
      tarBytes([{ name: "x", type: "x", content: Buffer.from("size=1\n") }]),
      /malformed/,
    ],
    ["a PAX record too short", tarBytes([{ name: "x", type: "x", content: Buffer.from("9 size=12\n") }]), /malformed/],
    [
      "a PAX record without a value",
      tarBytes([{ name: "x", type: "x", content: Buffer.from("5 ab\n9 size=1\n") }]),
      /malformed/,
    ],
    ["a PAX record without a key", tarBytes([{ name: "x", type: "x", content: Buffer.from("5 =a\n") }]), /malformed/],
    [
      "a PAX record whose length has a sign",
      tarBytes([{ name: "x", type: "x", content: Buffer.from("+11 size=1\n") }]),
      /malformed/,
    ],
    [
      "a PAX record whose length has a fraction",
      tarBytes([{ name: "x", type: "x", content: Buffer.from("12.0 size=1\n") }]),
      /malformed/,
    ],
    ["a PAX size with an exponent", tarBytes([paxHeader("size=1e3"), spec]), /size/],
    ["a PAX record too long", tarBytes([{ name: "x", type: "x", content: Buffer.from("99 size=1\n") }]), /malformed/],
    [
      "a PAX record of no length",
      tarBytes([{ name: "x", type: "x", content: Buffer.from("0 size=1\n") }]),
      /malformed/,
    ],
    ["a PAX header over 64 KiB", tarHeader({ name: "x", type: "x", sizeField: octalSize(65_537) }), /65537/],
    ["a GNU long name over 64 KiB", tarHeader({ name: "x", type: "L", sizeField: octalSize(65_537) }), /65537/],
  ])("refuses %s and tells where", (_, bytes, message) => {
    const padded = Buffer.concat([bytes, Buffer.alloc(-bytes.length & (BLOCK - 1))]);
    expect(messageOf(padded)).toMatch(message);
  });

  it("refuses a header in which any one bit is wrong", () => {
    const bytes = archiveBytes();
    for (let at = 0; at < BLOCK; at++) {
      const wrong = Buffer.from(bytes);
      wrong[at] = (wrong[at] ?? 0) ^ 1;
      // The bytes behind the checksum's digits are padding, in which a changed bit may still be padding.
      if (at < 154 || at > 155) expect(messageOf(wrong), `byte ${at}`).toMatch(/at byte 0 /);
    }
  });

  it("says what it found in the place of a checksum", () => {
    expect(messageOf(Buffer.alloc(BLOCK, "x"))).toBe(
      "at byte 0 is no tar header: its checksum says nothing, its bytes sum to 60736",
    );
    const block = tarHeader({ name: "x" });
    block.write("0000017\0 ", 148);
    expect(messageOf(block)).toMatch(/^at byte 0 is no tar header: its checksum says 15, its bytes sum to \d+$/);
  });

  it("sums up the largest bytes there are", () => {
    const block = Buffer.alloc(BLOCK, 0xff);
    const sum = 8 * 0x20 + (BLOCK - 8) * 0xff;
    block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    expect(messageOf(block)).toBe("at byte 0 is an entry whose size is no number, negative or too large");
    block.write(`${(sum - 1).toString(8).padStart(6, "0")}\0 `, 148);
    expect(messageOf(block)).toMatch(/^at byte 0 is no tar header: /);
  });

  it("wants no more bytes once it has ended or was refused, and more of a file that may grow", () => {
    const reading = (bytes: Uint8Array) => {
      const walking = startWalk();
      walkBytes(bytes, walking);
      return nextRead(walking);
    };
    expect(reading(tarBytes([config, spec]))).toBeUndefined();
    expect(reading(Buffer.alloc(BLOCK, "x"))).toBeUndefined();
    expect(reading(tarBytes([config], new Uint8Array()))).toEqual({ offset: 2 * BLOCK, length: BLOCK });
  });

  it("keeps the owner that it had read when it comes upon a bad header", () => {
    expect(walk(tarBytes([config, spec], Buffer.alloc(1024, "x")))).toMatchObject({ kind: "refused", spec: OWNER });
  });

  it("follows as many headers as an archive of 10,000 processes has", () => {
    const header = tarHeader({ name: "x" });
    const end = tarBytes([config, spec]);
    const processes = startWalk();
    const endStart = 7 * 10_000 * BLOCK;
    for (let read = nextRead(processes); read !== undefined; read = nextRead(processes)) {
      const at = read.offset - endStart;
      advanceWalk(processes, at < 0 ? header : end.subarray(at, at + read.length));
    }
    expect(withoutImages(processes.verdict as Verdict)).toEqual(COMPLETE);
  });

  it("counts only what it read of one pass, however often it looked for more", () => {
    const growing = startWalk();
    const bytes = archiveBytes({ pagesBytes: 10_000 });
    for (let look = 0; look < 100; look += 1) walkBytes(bytes.subarray(0, 2000), growing);
    expect(growing.readBytes).toBe(2 * BLOCK);
    walkBytes(bytes, growing);
    const fresh = startWalk();
    walkBytes(bytes, fresh);
    expect(growing.readBytes).toBe(fresh.readBytes);
  });

  it("keeps nothing of the buffer that it was given", () => {
    const bytes = tarBytes([paxHeader("path=spec.dump"), { ...spec, name: "x" }, config]);
    const once = Object.assign(Buffer.from(bytes), {
      subarray: (start: number, end: number) => {
        const part = Buffer.from(bytes.subarray(start, end));
        setImmediate(() => part.fill(0));
        return part;
      },
    });
    expect(walk(once)).toEqual(COMPLETE);
  });
});

describe("a resumed walk", () => {
  const files = [
    ...real.map(({ bytes }) => bytes),
    archiveBytes(),
    archiveBytes({ pagesBytes: 5000, runtime: "cri-o" }),
    tarBytes([config, { ...spec, content: Buffer.concat([specBytes(), Buffer.alloc(150_000, " ")]) }]),
  ];
  const fileAt = (index: number) => files[index] ?? Buffer.alloc(0);
  const arbitraryIndex = fc.nat(files.length - 1);
  const arbitraryCuts = fc.array(fc.nat(300_000), { maxLength: 6 });

  it("comes to the verdict of a fresh one on the file that has grown", () => {
    fc.assert(
      fc.property(arbitraryIndex, arbitraryCuts, (index, cuts) => {
        const bytes = fileAt(index);
        const resumed = startWalk();
        for (const [at, cut] of cuts.sort((a, b) => a - b).entries()) {
          const grown = bytes.subarray(0, cut);
          const fresh = walk(grown);
          expect(walk(grown, resumed)).toEqual(fresh.kind === "torn" ? { ...fresh, isResumed: at > 0 } : fresh);
          if (fresh.kind !== "torn") return;
        }
        expect(walkBytes(bytes, resumed).verdict).toEqual(walkBytes(bytes).verdict);
      }),
    );
  });

  it("reads nothing again until it ends, and then once more from the start", () => {
    const bytes = archiveBytes({ pagesBytes: 10_000 });
    const resumed = startWalk();
    const before = walkBytes(bytes.subarray(0, 4096), resumed).reads.at(-1);
    const after = walkBytes(bytes, resumed).reads;
    expect(after[0]).toEqual(before);
    expect(after.slice(after.findIndex(({ offset }) => offset === 0))).toEqual(walkBytes(bytes).reads);
  });

  it("ends as a fresh one does, or says that it was resumed, when another archive was written over the first", () => {
    fc.assert(
      fc.property(arbitraryIndex, arbitraryIndex, fc.nat(300_000), fc.nat(300_000), (first, second, cut, written) => {
        const [older, newer] = [fileAt(first), fileAt(second)];
        const resumed = startWalk();
        walkBytes(older.subarray(0, cut), resumed);
        if (resumed.verdict?.kind !== "torn") return;
        const over = Buffer.concat([newer.subarray(0, written), older.subarray(Math.min(written, newer.length), cut)]);
        const { verdict } = walkBytes(over, resumed);
        if (verdict.kind === "torn" && verdict.isResumed) return;
        expect(verdict).toEqual(walkBytes(over).verdict);
      }),
      { numRuns: soak(500) },
    );
  });

  it("says that it was resumed for as long as it is torn", () => {
    const bytes = archiveBytes({ pagesBytes: 10_000 });
    const resumed = startWalk();
    expect(walkBytes(bytes.subarray(0, 600), resumed).verdict).toEqual(TORN);
    expect(walkBytes(bytes.subarray(0, 2000), resumed).verdict).toEqual({ ...TORN, isResumed: true });
  });

  it("begins anew when it meets a bad header", () => {
    const resumed = startWalk();
    walkBytes(archiveBytes({ pagesBytes: 10_000 }).subarray(0, 2000), resumed);
    const shorter = Buffer.concat([archiveBytes({ pagesBytes: 512 }), Buffer.alloc(20_000, "x")]);
    expect(walk(shorter, resumed)).toEqual(COMPLETE);
  });
});

describe("a walk of a corrupted archive", () => {
  const arbitraryDamage = fc.array(fc.record({ at: fc.nat(12_000), byte: fc.nat(255) }), {
    minLength: 1,
    maxLength: 20,
  });

  it("neither throws nor reads without end", () => {
    fc.assert(
      fc.property(arbitraryDamage, fc.boolean(), (damage, isSealed) => {
        const bytes = archiveBytes({ pagesBytes: 3000, runtime: "cri-o" });
        for (const { at, byte } of damage) bytes[at % bytes.length] = byte;
        if (isSealed) sealHeader(bytes.subarray(0, BLOCK));
        const { verdict, reads } = walkBytes(bytes);
        expect(["ended", "torn", "refused"]).toContain(verdict.kind);
        expect(reads.every(({ offset }, at) => at === 0 || offset > (reads[at - 1]?.offset ?? 0))).toBe(true);
        expect(Math.max(...reads.map(({ length }) => length))).toBeLessThanOrEqual(64 * 1024);
      }),
      { numRuns: soak(1000) },
    );
  });

  it("survives any header that has a right checksum", () => {
    const arbitraryHeader = fc
      .tuple(fc.uint8Array({ minLength: BLOCK, maxLength: BLOCK }), fc.constantFrom(..."017xgLKS5V\0"), fc.nat(3000))
      .map(([noise, type, size]) => {
        const header = Buffer.from(noise);
        header.set(octalSize(size), 124);
        header.write(type, 156);
        return sealHeader(header);
      });
    fc.assert(
      fc.property(fc.array(arbitraryHeader, { minLength: 1, maxLength: 8 }), (headers) => {
        expect(() => walk(Buffer.concat([...headers, archiveBytes()]))).not.toThrow();
      }),
    );
  });
});
