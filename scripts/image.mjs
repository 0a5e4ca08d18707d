// npm run image -- FILE.tar: the image as an OCI archive, for machines without Docker and clusters without a registry.
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { fetchNode } from "../e2e/support/foreign-node.ts";
import { makeRootFileSystem } from "../e2e/support/image.ts";
import { writeImageArchive } from "../e2e/support/oci-archive.ts";
import { sourceTime } from "../e2e/support/package.ts";
import { VERSION } from "../shared/src/version.ts";
import { buildBundles } from "./build.mjs";

const USAGE = `usage: npm run image -- FILE.tar [--arch amd64|arm64] [--name NAME]

Writes the image as an OCI archive: Node, the libraries that it needs, and the two commands, with no shell and no package
manager. The same commit makes the same bytes on machines with the same libraries.

  --arch ARCH  the nodes' architecture (this machine's). Node of another one is fetched from npm, its libraries by apt-get
  --name NAME  what the image is called where it is imported (localhost/checkpoint-restore-operator:${VERSION})

Examples:
  npm run image -- image.tar
  ctr --namespace k8s.io images import image.tar       # on each node, with containerd
  k3s ctr images import image.tar
  kind load image-archive image.tar
  crane push image.tar REGISTRY/checkpoint-restore-operator:${VERSION}`;

/** Architectures as Go names them, by Node's names. */
const ARCHITECTURES = { x64: "amd64", arm64: "arm64" };

const options = { arch: { type: "string" }, name: { type: "string" }, help: { type: "boolean", short: "h" } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
const [file] = positionals;
if (values.help || file === undefined || positionals.length > 1) {
  (values.help ? console.log : console.error)(USAGE);
  process.exit(values.help ? 0 : 2);
}
if (existsSync(file)) {
  console.error(`${file} is there already; name a new file`);
  process.exit(2);
}
const own = ARCHITECTURES[process.arch];
const architecture = values.arch ?? own;
if (!Object.values(ARCHITECTURES).includes(architecture)) {
  console.error(`--arch ${values.arch ?? process.arch}: there is no image for it; give amd64 or arm64`);
  process.exit(2);
}
const name = values.name ?? `localhost/checkpoint-restore-operator:${VERSION}`;
const rootFileSystem = mkdtempSync(join(tmpdir(), "cro-rootfs-"));
try {
  const seconds = await sourceTime();
  process.env.SOURCE_DATE_EPOCH ??= `${seconds}`;
  await buildBundles();
  mkdirSync(rootFileSystem, { recursive: true });
  const { version } = process;
  await makeRootFileSystem(
    rootFileSystem,
    architecture === own ? undefined : await fetchNode(architecture, version.slice(1)),
  );
  await writeImageArchive(file, { rootFileSystem, name, version: VERSION, architecture, seconds });
  console.log(`${file}: ${name} for linux/${architecture}`);
} finally {
  rmSync(rootFileSystem, { recursive: true, force: true });
}
