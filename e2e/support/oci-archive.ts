import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { IMAGE_PATH, readImageSettings } from "./image.ts";

const execute = promisify(execFile);

/** What an image archive is made of. */
export interface ImageArchive {
  /** The root file system, as `makeRootFileSystem` makes it. */
  rootFileSystem: string;
  /** By which a container runtime knows the image once it is imported: `localhost/checkpoint-restore-operator:0.1.0`. */
  name: string;
  version: string;
  /** As Go names it: `amd64`. */
  architecture: string;
  /** The time of the image and of all that is in it, in seconds since 1970. */
  seconds: number;
}

const sha256 = (content: Buffer) => createHash("sha256").update(content).digest("hex");

/**
 * Writes an image as an OCI archive (github.com/opencontainers/image-spec: image-layout.md), which `ctr images import`, `kind load
 * image-archive`, `podman load` and `crane push` take. The same root file system makes the same bytes.
 */
export async function writeImageArchive(file: string, image: ImageArchive): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "cro-oci-"));
  try {
    const blobs = join(folder, "blobs/sha256");
    await mkdir(blobs, { recursive: true });
    const add = async (mediaType: string, content: Buffer) => {
      const digest = sha256(content);
      await writeFile(join(blobs, digest), content);
      return { mediaType, digest: `sha256:${digest}`, size: content.length };
    };
    const addJson = (mediaType: string, value: object) => add(mediaType, Buffer.from(JSON.stringify(value)));

    const layerFile = join(folder, "layer.tar");
    await pack(image.rootFileSystem, layerFile, image.seconds);
    const content = await readFile(layerFile);
    await rm(layerFile);
    const layer = await add("application/vnd.oci.image.layer.v1.tar+gzip", gzipSync(content, { level: 6 }));
    const created = new Date(image.seconds * 1000).toISOString();
    const { entrypoint, command, user, labels } = await readImageSettings({ VERSION: image.version });
    const config = await addJson("application/vnd.oci.image.config.v1+json", {
      created,
      architecture: image.architecture,
      os: "linux",
      config: { Env: [`PATH=${IMAGE_PATH}`], Entrypoint: entrypoint, Cmd: command, User: user, Labels: labels },
      rootfs: { type: "layers", diff_ids: [`sha256:${sha256(content)}`] },
      history: [{ created, created_by: "npm run image" }],
    });
    const manifestType = "application/vnd.oci.image.manifest.v1+json";
    const manifest = await addJson(manifestType, {
      schemaVersion: 2,
      mediaType: manifestType,
      config,
      layers: [layer],
    });
    // containerd takes the whole name from its own annotation, others the tag from OCI's.
    const annotations = { "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.version };
    const platform = { architecture: image.architecture, os: "linux" };
    const index = { schemaVersion: 2, manifests: [{ ...manifest, platform, annotations }] };
    await writeFile(join(folder, "index.json"), JSON.stringify(index));
    await writeFile(join(folder, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
    await pack(folder, file, image.seconds);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Packs a folder by GNU tar, so that the same content makes the same bytes: names in order, one time, and everything root's. */
async function pack(folder: string, file: string, seconds: number): Promise<void> {
  const same = ["--sort=name", `--mtime=@${seconds}`, "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"];
  // By their names, and not as `.`: readers refuse a path that begins with a dot.
  const names = (await readdir(folder)).sort();
  await execute("tar", ["--create", `--file=${file}`, ...same, "--mode=u+rw,go+r,go-w,a+X", "-C", folder, ...names]);
}
