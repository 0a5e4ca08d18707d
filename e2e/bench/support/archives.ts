import { closeSync, ftruncateSync, futimesSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { archiveName, archiveTime, octalSize, specBytes, tarHeader } from "../../../agent/test/support/archives.ts";

export interface Owner {
  namespace: string;
  pod: string;
  container: string;
}

const MIB = 1024 * 1024;
const NAMESPACES = ["shop", "team-prod", "team", "data-platform-staging", "web", "ml-training", "payments", "kube-ops"];
const APPS = ["web", "api-server", "worker", "inference", "postgres", "cart", "queue-consumer", "cache"];
const CONTAINERS = ["main", "main-c", "app", "sidecar-proxy"];

/** A reproducible number in [0, 1) for each argument. */
export function chance(seed: number): number {
  let x = (seed + 0x6d2b79f5) | 0;
  x = Math.imul(x ^ (x >>> 15), x | 1);
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
  return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
}

/** So many containers of Deployments' pods. Most of their archives' names can be read in more than one way. */
export function owners(count: number): Owner[] {
  return Array.from({ length: count }, (_, index) => {
    const namespace = NAMESPACES[index % NAMESPACES.length] as string;
    const app = APPS[Math.floor(index / 8) % APPS.length] as string;
    const hash = Math.floor(chance(index) * 36 ** 5).toString(36);
    return {
      namespace,
      pod: `${app}-${(0x6f9f8977 + index).toString(16)}-${hash.padStart(5, "x")}`,
      container: CONTAINERS[Math.floor(chance(index + 7) * CONTAINERS.length)] as string,
    };
  });
}

/** A size as archives have it: from 1 MiB to 1 GiB, each doubling as likely as the other. */
export function aSize(seed: number): number {
  return Math.round(MIB * 2 ** (10 * chance(seed)));
}

/** Entries of a real one that CRIU and containerd wrote, and their sizes; memory pages come before these. */
const IMAGES: ReadonlyArray<[name: string, bytes: number]> = [
  ["cgroup.img", 5249],
  ["core-1.img", 2270],
  ["core-70.img", 2438],
  ["descriptors.json", 43],
  ["fdinfo-2.img", 44],
  ["fdinfo-3.img", 44],
  ["files.img", 352],
  ["fs-1.img", 18],
  ["fs-70.img", 18],
  ["ids-1.img", 36],
  ["ids-70.img", 36],
  ["inventory.img", 86],
  ["ipcns-var-11.img", 82],
  ["mm-1.img", 539],
  ["mm-70.img", 539],
  ["mountpoints-13.img", 4484],
  ["netns-10.img", 26],
  ["pagemap-1.img", 126],
  ["pagemap-70.img", 126],
  ["pstree.img", 36],
  ["seccomp.img", 12],
  ["timens-0.img", 34],
  ["tmpfs-dev-43.tar.gz.img", 97],
  ["tmpfs-dev-84.tar.gz.img", 396],
  ["tmpfs-dev-86.tar.gz.img", 227],
  ["utsns-12.img", 42],
];
const BEFORE_SPEC: ReadonlyArray<[name: string, bytes: number]> = [
  ["config.dump", 522],
  ["container.log", 3056],
  ["dump.log", 81494],
  ["rootfs-diff.tar", 400],
];
const AFTER_SPEC: ReadonlyArray<[name: string, bytes: number]> = [
  ["stats-dump", 47],
  ["status", 239],
  ["status.dump", 1501],
];
const SPEC_BYTES = 4443;

function layOut(entries: ReadonlyArray<[name: string, bytes: number]>): Buffer {
  return Buffer.concat(
    entries.map(([name, bytes]) => {
      const block = Buffer.alloc(512 + Math.ceil(bytes / 512) * 512);
      block.set(tarHeader({ name, sizeField: octalSize(bytes) }));
      return block;
    }),
  );
}

const HEAD = Buffer.concat([
  tarHeader({ name: "checkpoint/", type: "5" }),
  layOut(IMAGES.map(([name, bytes]) => [`checkpoint/${name}`, bytes])),
]);
const MIDDLE = layOut(BEFORE_SPEC);
const TAIL = Buffer.concat([layOut(AFTER_SPEC), Buffer.alloc(1024)]);
/** dump.log, the one large entry behind the memory pages, is left a hole. */
const LOG_START = MIDDLE.indexOf("dump.log") + 512;
const LOG_END = LOG_START + Math.ceil(81494 / 512) * 512;

/** What an archive takes beside its memory pages, in bytes. */
const FRAME_BYTES = HEAD.length + 512 + MIDDLE.length + 512 + Math.ceil(SPEC_BYTES / 512) * 512 + TAIL.length;

export interface Draft {
  owner: Owner;
  /** The time in its name, in milliseconds since 1970. */
  timeMs: number;
  /** Of the whole file; its memory pages take what the rest leaves. */
  sizeBytes: number;
  /** Whether the memory pages are written, and not left a hole. */
  isDense?: boolean;
}

/** The pieces of an archive in the order in which a runtime writes them. */
function piecesOf({ owner, sizeBytes }: Draft) {
  const pages = Math.max(512, Math.floor((sizeBytes - FRAME_BYTES) / 512) * 512);
  const pagesHeader = tarHeader({ name: "checkpoint/pages-1.img", sizeField: octalSize(pages) });
  const spec = Buffer.alloc(SPEC_BYTES, " ");
  spec.set(specBytes(owner));
  const specBlock = Buffer.alloc(512 + Math.ceil(SPEC_BYTES / 512) * 512);
  specBlock.set(tarHeader({ name: "spec.dump", sizeField: octalSize(SPEC_BYTES) }));
  specBlock.set(spec, 512);
  return {
    head: Buffer.concat([HEAD, pagesHeader]),
    pages,
    middle: MIDDLE,
    tail: Buffer.concat([specBlock, TAIL]),
  };
}

export function nameOf({ owner, timeMs }: Draft): string {
  return archiveName({ ...owner, time: archiveTime(timeMs) });
}

/** Writes a whole archive, its memory pages a hole unless it is to be dense, and returns its name; mtime is the time in it. */
export function writeWhole(directory: string, draft: Draft): string {
  const file = nameOf(draft);
  const { head, pages, middle, tail } = piecesOf(draft);
  const descriptor = openSync(join(directory, file), "w", 0o600);
  const start = head.length + pages;
  writeSync(descriptor, head, 0, head.length, 0);
  if (draft.isDense) writeZeros(descriptor, { offset: head.length, bytes: pages });
  writeSync(descriptor, middle, 0, LOG_START, start);
  writeSync(descriptor, middle, LOG_END, middle.length - LOG_END, start + LOG_END);
  writeSync(descriptor, tail, 0, tail.length, start + middle.length);
  futimesSync(descriptor, draft.timeMs / 1000, draft.timeMs / 1000);
  closeSync(descriptor);
  return file;
}

const ZEROS = Buffer.alloc(MIB);

function writeZeros(descriptor: number, { offset, bytes }: { offset: number; bytes: number }): void {
  for (let at = 0; at < bytes; at += ZEROS.length) {
    writeSync(descriptor, ZEROS, 0, Math.min(ZEROS.length, bytes - at), offset + at);
  }
}

/** An archive under way, as a runtime writes it: under its final name, from front to back. */
export interface Growing {
  file: string;
  /** Writes one more MiB of memory pages. */
  grow(): void;
  /** Writes what is left; returns when the last byte was written, by performance.now(). */
  finish(): number;
}

export function startWriting(directory: string, draft: Draft): Growing {
  const file = nameOf(draft);
  const { head, pages, middle, tail } = piecesOf(draft);
  const descriptor = openSync(join(directory, file), "w", 0o600);
  writeSync(descriptor, head);
  let written = 0;
  return {
    file,
    grow() {
      written += writeSync(descriptor, ZEROS, 0, Math.max(0, Math.min(ZEROS.length, pages - written)));
    },
    finish() {
      if (draft.isDense) writeZeros(descriptor, { offset: head.length + written, bytes: pages - written });
      else ftruncateSync(descriptor, head.length + pages);
      writeSync(descriptor, middle, 0, middle.length, head.length + pages);
      writeSync(descriptor, tail, 0, tail.length, head.length + pages + middle.length);
      const atMs = performance.now();
      closeSync(descriptor);
      return atMs;
    },
  };
}

/** Fills a directory up to `count` archives, `from` of them being there; no two are of the same second, the last of an hour ago. */
export function populate(
  directory: string,
  {
    from = 0,
    count,
    of,
    sizeOf = aSize,
  }: { from?: number; count: number; of: readonly Owner[]; sizeOf?: (index: number) => number },
): void {
  const newestMs = Math.floor(Date.now() / 60_000) * 60_000 - 3_600_000;
  for (let index = from; index < count; index += 1) {
    const owner = of[index % of.length] as Owner;
    const timeMs = newestMs - 1000 * index;
    writeWhole(directory, { owner, timeMs, sizeBytes: sizeOf(index) });
  }
}
