import { execFile } from "node:child_process";
import { access, mkdir, mkdtemp, readdir, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";

import { CACHE } from "./tools.ts";

const execute = promisify(execFile);

/** Debian packages of the libraries that Node is linked with. */
const PACKAGES = ["libc6", "libgcc-s1", "libstdc++6", "libatomic1"];
/** The folders and the dynamic loader of an architecture, as Debian has them. */
const DEBIAN = {
  amd64: { triplet: "x86_64-linux-gnu", loader: "/lib64/ld-linux-x86-64.so.2", npm: "x64" },
  arm64: { triplet: "aarch64-linux-gnu", loader: "/lib/ld-linux-aarch64.so.1", npm: "arm64" },
} as const;

/** An architecture as Go names it. */
export type Architecture = keyof typeof DEBIAN;

/** Node and its libraries: files of this machine, by where they come to lie. */
export interface NodeFiles {
  node: string;
  libraries: Array<{ from: string; to: string }>;
}

/** Node of an architecture that this machine is not of: Node from npm, its libraries from Debian, kept in the cache folder. */
export async function fetchNode(architecture: Architecture, version: string): Promise<NodeFiles> {
  const { triplet, loader, npm } = DEBIAN[architecture];
  const folder = join(CACHE, `node-${version}-${architecture}`);
  const node = join(folder, "package/bin/node");
  const root = join(folder, "root");
  const isThere = await access(folder).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    const fresh = `${folder}-${process.pid}`;
    await mkdir(fresh, { recursive: true });
    await fetchPackages(architecture, join(fresh, "root"));
    const { stdout } = await execute("npm", ["pack", "--silent", `node-linux-${npm}@${version}`], { cwd: fresh });
    await execute("tar", ["-xzf", stdout.trim(), "package/bin/node"], { cwd: fresh });
    await rm(join(fresh, stdout.trim()));
    // Another run may have been faster; then its folder stays.
    await rename(fresh, folder).catch(() => rm(fresh, { recursive: true, force: true }));
  }
  const { stdout: linked } = await execute("ldd", [process.execPath]);
  const names = [...linked.matchAll(/^\s*(\S+\.so\S*) =>/gm)].map(([, name = ""]) => basename(name));
  const libraries = names.map((name) => ({ name, to: `/lib/${triplet}/${name}` }));
  const found = await Promise.all(
    libraries.map(async ({ name, to }) => ({
      from: await findIn(root, [`lib/${triplet}`, `usr/lib/${triplet}`], name),
      to,
    })),
  );
  const ownLoader = await findIn(root, [`lib/${triplet}`, "lib", "lib64", `usr/lib/${triplet}`], basename(loader));
  return { node, libraries: [...found, { from: ownLoader, to: loader }] };
}

/** Unpacks the newest packages that the machine's Debian has for another architecture, without touching what it has itself. */
async function fetchPackages(architecture: Architecture, root: string): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "cro-apt-"));
  try {
    for (const name of ["lists/partial", "cache/archives/partial"])
      await mkdir(join(folder, name), { recursive: true });
    const options = [
      ...["-o", `APT::Architecture=${architecture}`, "-o", `APT::Architectures::=${architecture}`],
      ...[
        "-o",
        `Dir::State::lists=${folder}/lists`,
        "-o",
        `Dir::Cache=${folder}/cache`,
        "-o",
        "Dir::State::status=/dev/null",
      ],
      // The packages are of root's, and the folder too.
      ...["-o", "APT::Sandbox::User=root"],
    ];
    await execute("apt-get", [...options, "update"], { cwd: folder });
    const wanted = PACKAGES.map((name) => `${name}:${architecture}`);
    await execute("apt-get", [...options, "download", ...wanted], { cwd: folder });
    for (const name of await readdir(folder)) {
      if (name.endsWith(".deb")) await execute("dpkg-deb", ["-x", join(folder, name), root]);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function findIn(root: string, folders: readonly string[], name: string): Promise<string> {
  for (const folder of folders) {
    const names = await readdir(join(root, folder)).catch((): string[] => []);
    if (names.includes(name)) return join(root, folder, name);
  }
  throw new Error(`Debian's packages ${PACKAGES.join(", ")} have no ${name}`);
}
