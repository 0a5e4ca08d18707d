import { open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { PolicyDocument } from "@cro/shared/policy/document";
import { Fence } from "@cro/shared/wire/fence";
import * as Type from "typebox";
import { Check } from "typebox/value";
import type { Due } from "../enforce/attention.ts";
import { type KeptSightings, MAX_SIGHTINGS } from "../inventory/sightings.ts";
import type { AcceptedPolicy } from "./accept.ts";

/** What was in a directory when it was last seen, without the archives whose arrival is still to be told. */
export interface Watched {
  device: string;
  inode: string;
  /** Names of archives, packed. */
  seen: string;
}

/** What is kept of a directory: what was seen, and events in it that were not acted upon to the end. */
export interface KeptWatched extends Watched {
  due?: Due;
}

const AcceptedSchema = Type.Object({
  fence: Fence,
  digest: Type.String(),
  document: PolicyDocument,
  name: Type.Optional(Type.String()),
  acceptedAtTrustedMs: Type.Optional(Type.Number()),
});
const WatchedSchema = Type.Object({
  device: Type.String(),
  inode: Type.String(),
  seen: Type.String(),
  due: Type.Optional(Type.Object({ digest: Type.String(), containers: Type.Array(Type.String()) })),
});

const SightingsSchema = Type.Object({
  device: Type.String(),
  inode: Type.String(),
  sightings: Type.Array(
    Type.Object({
      file: Type.String(),
      inode: Type.String(),
      size: Type.Number(),
      mtimeNs: Type.String(),
      ctimeNs: Type.String(),
      sinceMs: Type.Number(),
    }),
    { maxItems: MAX_SIGHTINGS },
  ),
});

/**
 * What an agent remembers over its restarts: the policy it last accepted, what it last saw in which directory, and since when
 * files there have been what no rule but maxAgeUnmanaged may take.
 */
export interface StateFolder {
  readAccepted(): Promise<AcceptedPolicy | undefined>;
  readWatched(): Promise<KeptWatched | undefined>;
  /**
   * Like {@link StateFolder.writeWatched}, returns whether it is on disk now. If it is not, the file before it is removed:
   * after a restart no policy acts rather than one that was superseded.
   */
  writeAccepted(accepted: AcceptedPolicy): Promise<boolean>;
  writeWatched(watched: KeptWatched): Promise<boolean>;
  readSightings(): Promise<KeptSightings | undefined>;
  writeSightings(kept: KeptSightings): Promise<boolean>;
}

/**
 * Keeps the state in files of a folder, each replaced as a whole. A missing file is no state; one that cannot be
 * read or understood is reported and is no state either: the agent then waits for its coordinator.
 */
export function createStateFolder(path: string, onProblem: (message: string, cause: unknown) => void): StateFolder {
  async function read<T>(file: string, isValid: (value: unknown) => value is T): Promise<T | undefined> {
    try {
      const value: unknown = JSON.parse(await readFile(join(path, file), "utf8"));
      if (isValid(value)) return value;
      onProblem("state file is not understood and is left aside", new Error(file));
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "ENOENT") onProblem("state file cannot be read", cause);
    }
    return undefined;
  }

  /** One write at a time: two would share the temporary file. */
  let writing: Promise<unknown> = Promise.resolve();
  function write(file: string, value: unknown): Promise<boolean> {
    const written = writing.then(() => replace(file, value));
    writing = written;
    return written;
  }

  async function replace(file: string, value: unknown): Promise<boolean> {
    try {
      const temporary = join(path, `${file}.new`);
      const handle = await open(temporary, "w", 0o600);
      try {
        await handle.writeFile(JSON.stringify(value));
        await handle.sync();
      } finally {
        await handle.close();
      }
      await rename(temporary, join(path, file));
      await syncFolder();
      return true;
    } catch (cause) {
      onProblem("state cannot be written", cause);
      // An older policy or record must not come back in its place. To remove a file needs no room on the disk.
      await rm(join(path, file), { force: true }).catch(() => {});
      return false;
    }
  }

  /** Without this a power cut may bring the replaced file back. */
  async function syncFolder(): Promise<void> {
    const folder = await open(path, "r");
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  }

  return {
    readAccepted: () => read("accepted.json", (value): value is AcceptedPolicy => Check(AcceptedSchema, value)),
    readWatched: () => read("watched.json", (value): value is Watched => Check(WatchedSchema, value)),
    writeAccepted: (accepted) => write("accepted.json", accepted),
    writeWatched: (watched) => write("watched.json", watched),
    readSightings: () => read("unmanaged.json", (value): value is KeptSightings => Check(SightingsSchema, value)),
    writeSightings: (kept) => write("unmanaged.json", kept),
  };
}
