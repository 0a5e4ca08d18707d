import { closeSync, ftruncateSync, openSync, readdirSync, utimesSync, writeSync } from "node:fs";
import { join } from "node:path";

/** Whose annotations spec.dump carries. */
export type Runtime = "containerd" | "cri-o" | "checkpointctl" | "none";

/** What the name of an archive is made of; each part has a default. */
export interface NameParts {
  pod?: string;
  namespace?: string;
  container?: string;
  /** As it stands in the name: `2026-01-02T03:04:05Z`. */
  time?: string;
}

/** What the runtime writes of a pod besides its names. */
export interface PodParts {
  /** Default: a UUID, as the API server gives it; null for a runtime that does not tell. */
  podUID?: string | null;
  /** Annotations that the pod's author set and the runtime copied. */
  copied?: Record<string, string>;
}

/** What an archive holds; each part has a default. */
export interface ArchiveParts extends NameParts, PodParts {
  /** Default containerd; with "none" spec.dump names nobody. */
  runtime?: Runtime;
  /** Size of checkpoint/pages-1.img, zeros; default 4,096. */
  pagesBytes?: number;
  /** What spec.dump holds instead of what the runtime would write; null leaves the entry out. */
  spec?: Uint8Array | null;
}

/** A name as the kubelet gives it; without checking that Kubernetes would allow the parts. */
export function archiveName(parts: NameParts = {}): string {
  const { pod, namespace, container, time } = { ...NAME_DEFAULTS, ...parts };
  return `checkpoint-${pod}_${namespace}-${container}-${time}.tar`;
}

/** The time of a name, in UTC, from milliseconds since 1970. */
export function archiveTime(timeMs: number): string {
  return `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
}

/** A complete archive: a plain tar, its entries in a real one's order, that GNU tar reads. */
export function archiveBytes(parts: ArchiveParts = {}): Buffer {
  const { segments, totalBytes } = layOut(parts);
  const bytes = Buffer.alloc(totalBytes);
  for (const { offset, content } of segments) bytes.set(content, offset);
  return bytes;
}

/**
 * Writes a complete archive under its final name and returns that name. `sparsePagesBytes` takes the place of
 * `pagesBytes` and leaves a hole instead of zeros, so that gigabytes cost nothing. `mtimeMs` is set if given.
 */
export function writeArchive(
  directory: string,
  { mtimeMs, sparsePagesBytes, ...parts }: ArchiveParts & { mtimeMs?: number; sparsePagesBytes?: number } = {},
): string {
  const file = archiveName(parts);
  const path = join(directory, file);
  const descriptor = openSync(path, "w", 0o600);
  try {
    if (sparsePagesBytes === undefined) {
      writeSync(descriptor, archiveBytes(parts));
    } else {
      const { segments, totalBytes } = layOut({ ...parts, pagesBytes: sparsePagesBytes });
      ftruncateSync(descriptor, totalBytes);
      for (const { offset, content } of segments) writeSync(descriptor, content, 0, content.length, offset);
    }
  } finally {
    closeSync(descriptor);
  }
  if (mtimeMs !== undefined) utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
  return file;
}

/** What the runtime writes into spec.dump, as far as it tells whose archive it is. */
export function specBytes(parts: NameParts & PodParts & { runtime?: Runtime } = {}): Buffer {
  const { runtime = "containerd", copied, ...rest } = parts;
  const annotations = { ...copied, ...annotationsOf(runtime, rest) };
  return Buffer.from(JSON.stringify({ ociVersion: "1.2.1", annotations }));
}

/** One entry of a tar: its header, and where its content ends on the block boundary. */
export interface Entry {
  name: string;
  /** Default 0: a regular file. */
  type?: string;
  /** Default: no content. */
  content?: Uint8Array;
  /** What the size field holds, 12 bytes; default: the content's length in octal. */
  sizeField?: Uint8Array;
  /** The ustar prefix; default none. */
  prefix?: string;
}

/** A ustar header with a right checksum. */
export function tarHeader({ name, type = "0", content, sizeField, prefix = "" }: Entry): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0, 100);
  header.write("0000600\0", 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.set(sizeField ?? octalSize(content?.length ?? 0), 124);
  header.write("15127706750\0", 136);
  header.write(type, 156);
  header.write("ustar\0", 257);
  header.write("00", 263);
  header.write(prefix, 345, 155);
  return sealHeader(header);
}

/** Puts the right checksum into a header. */
export function sealHeader(header: Buffer): Buffer {
  header.fill(" ", 148, 156);
  const sum = header.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

/** Any entries as a tar; `end` is what follows the last one, two zero blocks unless told. */
export function tarBytes(entries: Entry[], end: Uint8Array = Buffer.alloc(1024)): Buffer {
  const parts = entries.flatMap((entry) => {
    const content = entry.content ?? new Uint8Array();
    return [tarHeader(entry), content, Buffer.alloc(-content.length & 511)];
  });
  return Buffer.concat([...parts, end]);
}

/** The 12 bytes of a size up to 8 GiB. */
export function octalSize(size: number): Buffer {
  return size < 8 ** 11 ? Buffer.from(`${size.toString(8).padStart(11, "0")}\0`) : base256Size(BigInt(size));
}

/** The 12 bytes of any size, negative ones too, as GNU tar writes what octal cannot hold. */
export function base256Size(size: bigint): Buffer {
  const hex = BigInt.asUintN(96, size).toString(16).padStart(24, "0");
  const field = Buffer.from(hex, "hex");
  field[0] = (field[0] ?? 0) | 0x80;
  return field;
}

/** The UID of the pod that the builders make. */
export const POD_UID = "5f0c8d53-3c33-4a1e-9d0a-0f6a5a3f1c11";

const NAME_DEFAULTS = { pod: "web-0", namespace: "shop", container: "app", time: "2026-01-02T03:04:05Z" };

function annotationsOf(runtime: Runtime, parts: NameParts & PodParts): Record<string, string> {
  const { pod, namespace, container, podUID } = { ...NAME_DEFAULTS, podUID: POD_UID, ...parts };
  const uid = (key: string) => (podUID === null ? {} : { [key]: podUID });
  switch (runtime) {
    case "containerd":
      return {
        "io.kubernetes.cri.container-name": container,
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": namespace,
        ...uid("io.kubernetes.cri.sandbox-uid"),
      };
    case "cri-o": {
      const labels = {
        "io.kubernetes.container.name": container,
        "io.kubernetes.pod.name": pod,
        "io.kubernetes.pod.namespace": namespace,
        ...uid("io.kubernetes.pod.uid"),
      };
      return {
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.Labels": JSON.stringify(labels),
        ...labels,
      };
    }
    case "checkpointctl":
      return {
        "org.criu.checkpoint.container.name": container,
        "org.criu.checkpoint.pod.name": pod,
        "org.criu.checkpoint.pod.namespace": namespace,
        ...uid("org.criu.checkpoint.pod.uid"),
      };
    case "none":
      return {};
  }
}

/** The pieces that are not zero, and where they stand. */
function layOut(parts: ArchiveParts): { segments: { offset: number; content: Uint8Array }[]; totalBytes: number } {
  const { pagesBytes = 4096, spec, ...names } = parts;
  const config = Buffer.from(JSON.stringify({ id: "0".repeat(64), runtime: "io.containerd.runc.v2" }));
  const files: [name: string, content: Uint8Array | number][] = [
    ["checkpoint/pages-1.img", pagesBytes],
    ["config.dump", config],
    ["dump.log", Buffer.from("Dumping finished successfully\n")],
  ];
  if (spec !== null) files.push(["spec.dump", spec ?? specBytes(names)]);
  const segments: { offset: number; content: Uint8Array }[] = [
    { offset: 0, content: tarHeader({ name: "checkpoint/", type: "5" }) },
  ];
  let offset = 512;
  for (const [name, content] of files) {
    const size = typeof content === "number" ? content : content.length;
    segments.push({ offset, content: tarHeader({ name, sizeField: octalSize(size) }) });
    if (typeof content !== "number") segments.push({ offset: offset + 512, content });
    offset += 512 + Math.ceil(size / 512) * 512;
  }
  return { segments, totalBytes: offset + 1024 };
}

/** The names of the archives that lie in a folder, in the order of their spelling. */
export const archivesIn = (folder: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".tar"))
    .sort();
