import { randomUUID } from "node:crypto";
import { mkdir, readdir, readFile, readlink, rename, rm, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";

/** The three places of certificates: the authority with its key, and what each side of a connection holds. */
export const CERTIFICATE_NAMES = ["ca", "agent", "coordinator"] as const;
export type CertificateName = (typeof CERTIFICATE_NAMES)[number];

/** The texts of one place by file name; see {@link CERTIFICATE_FILES}. What is not there yet is absent or empty. */
export type CertificateFiles = Readonly<Partial<Record<string, string>>>;

export interface StoredCertificate {
  files: CertificateFiles;
  /** Names this content, as a Secret's resourceVersion does; to be handed back on writing. */
  version: string;
}

/**
 * Where certificates are kept, shared by every replica. A write replaces a place's files as one and only if nobody wrote
 * since the version was read: of two replicas that start at the same moment, one fills the place and the other learns it.
 */
export interface CertificateStore {
  /** A place that nobody filled yet has no files; that it cannot be read is an error, and never a reason to fill it. */
  read(name: CertificateName): Promise<StoredCertificate>;
  /** False where somebody else wrote since: read again. */
  write(name: CertificateName, files: Readonly<Record<string, string>>, version: string): Promise<boolean>;
}

/** A store that only the leader uses: once `mayAct` says no, it rejects, so that nobody reads again and again. */
export function guardStore(store: CertificateStore, mayAct: () => boolean): CertificateStore {
  const guard = <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) => {
    return (...args: Args) => (mayAct() ? call(...args) : Promise.reject(new Error("no longer the leader")));
  };
  return { read: guard(store.read), write: guard(store.write) };
}

const CURRENT = "..data";
const GENERATION = /^\.\.v(\d+)$/;
const FILE_NAMES = Object.values(CERTIFICATE_FILES);

/**
 * Keeps certificates in DIRECTORY/ca, /agent and /coordinator, laid out as the kubelet lays out a Secret's volume: the
 * files are links through `..data` to a folder of their generation, so that a reader sees all of them change at once.
 * The generation's number is the version; a folder that exists already cannot be renamed onto, which makes the
 * comparison atomic between processes and leaves no lock behind a killed one.
 */
export function createFolderStore(directory: string): CertificateStore {
  return {
    async read(name) {
      const folder = join(directory, name);
      const generation = (await listGenerations(folder)).at(-1) ?? 0;
      // Before the first generation there may be plain files that somebody put there.
      const source = generation === 0 ? folder : join(folder, generationName(generation));
      if (generation > 0) await publishNewest(folder);
      const files: Record<string, string> = {};
      for (const file of FILE_NAMES) {
        const text = await readIfPresent(join(source, file));
        if (text !== undefined) files[file] = text;
      }
      return { files, version: String(generation) };
    },

    async write(name, files, version) {
      const folder = join(directory, name);
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const generation = Number(version) + 1;
      const draft = join(folder, `..draft-${randomUUID()}`);
      const target = join(folder, generationName(generation));
      try {
        await mkdir(draft, { mode: 0o700 });
        for (const [file, text] of Object.entries(files)) {
          await writeFile(join(draft, file), text, { mode: 0o600, flush: true });
        }
        if ((await listGenerations(folder)).some((other) => other >= generation)) return false;
        await rename(draft, target);
      } catch (cause) {
        const { code } = cause as NodeJS.ErrnoException;
        if (code === "ENOTEMPTY" || code === "EEXIST") return false;
        throw cause;
      } finally {
        await rm(draft, { recursive: true, force: true });
      }
      await publishNewest(folder);
      // The generation before stays for whoever is reading it; the ones before that are nobody's.
      for (const old of await listGenerations(folder)) {
        if (old < generation - 1) await rm(join(folder, generationName(old)), { recursive: true, force: true });
      }
      return true;
    },
  };
}

function generationName(generation: number): string {
  return `..v${generation}`;
}

/** The numbers of the generations that a folder holds, ascending. */
async function listGenerations(folder: string): Promise<number[]> {
  try {
    const names = await readdir(folder);
    return names
      .flatMap((name) => GENERATION.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => a - b);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw cause;
  }
}

/**
 * Lets the folder's files be those of its newest generation. Also done on reading, for a writer may have been killed
 * before; and repeated until nothing newer came, for another process may do the same at this moment.
 */
async function publishNewest(folder: string): Promise<void> {
  let newest = (await listGenerations(folder)).at(-1);
  let published: number | undefined;
  while (newest !== undefined && newest !== published) {
    await relink(join(folder, CURRENT), generationName(newest));
    published = newest;
    newest = (await listGenerations(folder)).at(-1);
  }
  for (const file of FILE_NAMES) await relink(join(folder, file), `${CURRENT}/${file}`);
}

async function relink(path: string, target: string): Promise<void> {
  if ((await readlink(path).catch(() => undefined)) === target) return;
  const draft = `${path}-${randomUUID()}`;
  await symlink(target, draft);
  await rename(draft, path);
}

async function readIfPresent(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cause;
  }
}
