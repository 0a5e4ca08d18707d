import { constants } from "node:fs";
import { type FileHandle, open, rename, stat, unlink } from "node:fs/promises";
import * as Type from "typebox";
import { Check } from "typebox/value";
import type { Clock } from "./clock.ts";
import type { Directory } from "./inventory/directory.ts";

/** The journal of deletions, in the checkpoint directory: it outlives the pod. The older half is what it was renamed to. */
export const JOURNAL = { file: ".deletions.jsonl", older: ".deletions.1.jsonl" } as const;
/** From this size on, in bytes, a new one is begun. */
export const JOURNAL_BYTES = 5 * 2 ** 20;
/** How old what it tells may be, in milliseconds. */
export const JOURNAL_MS = 30 * 86_400_000;
/** Lines that wait for a disk that does not answer; further ones are lost. */
const MAX_WAITING = 10_000;

const EntrySchema = Type.Object({
  /** Of the agent's clock, RFC 3339. */
  time: Type.String(),
  file: Type.String(),
  bytes: Type.Number(),
  /** Absent if nobody is known to own it. */
  namespace: Type.Optional(Type.String()),
  pod: Type.Optional(Type.String()),
  container: Type.Optional(Type.String()),
  reason: Type.String(),
  /** The limits that asked for it, as the policy resource writes them. */
  limit: Type.Optional(Type.String()),
  /** The policy resource, `namespace/name`, and which of its entries asked for it, in words; and the digest of its document. */
  policy: Type.Optional(Type.String()),
  entry: Type.Optional(Type.String()),
  digest: Type.Optional(Type.String()),
});

/** A deletion that was made: a line each. */
export type JournalEntry = Type.Static<typeof EntrySchema>;

/** Writes down what was deleted. Nobody waits for it, and nothing depends on it. */
export interface Journal {
  /** Writes on in another directory, or nowhere. Settles when nothing is written in the one before any more. */
  setDirectory(directory: Directory | undefined): Promise<void>;
  add(entry: JournalEntry): void;
  /** Settles when all that was added has been written, or could not be. */
  written(): Promise<void>;
}

/**
 * A journal that writes what comes while it is busy in one piece. If it cannot, the lines are lost and `onProblem` is told;
 * `isFirst` until it succeeds again.
 */
export function createJournal({
  clock,
  onProblem,
}: {
  clock: Pick<Clock, "wallMs">;
  onProblem: (cause: unknown, about: { isFirst: boolean }) => void;
}): Journal {
  let current: Directory | undefined;
  /** What is written next, in one piece. */
  let batch: string[] | undefined;
  let waiting = 0;
  let isFailing = false;
  /** Whether the last line of the file is surely whole. */
  let isWhole = false;
  let chain: Promise<void> = Promise.resolve();

  function failed(cause: unknown): void {
    const isFirst = !isFailing;
    isFailing = true;
    onProblem(cause, { isFirst });
  }

  async function write(lines: string[]): Promise<void> {
    if (batch === lines) batch = undefined;
    try {
      if (current === undefined) throw new Error("the directory is gone");
      const text = lines.join("");
      await append(current, isWhole ? text : `\n${text}`, clock.wallMs());
      isWhole = true;
      isFailing = false;
    } catch (cause) {
      isWhole = false;
      failed(cause);
    }
    waiting -= lines.length;
  }

  return {
    setDirectory(next) {
      batch = undefined;
      chain = chain.then(() => {
        current = next;
        isWhole = false;
      });
      return chain;
    },
    add(entry) {
      if (waiting >= MAX_WAITING) return failed(new Error(`${MAX_WAITING} deletions wait to be written`));
      waiting += 1;
      if (batch === undefined) {
        const lines: string[] = [];
        batch = lines;
        chain = chain.then(() => write(lines));
      }
      batch.push(`${JSON.stringify(entry)}\n`);
    },
    written: () => chain,
  };
}

async function append(directory: Directory, text: string, nowMs: number): Promise<void> {
  const [file, older] = [directory.at(JOURNAL.file), directory.at(JOURNAL.older)];
  let handle = await openToAppend(file);
  try {
    const { size } = await handle.stat();
    if (size > 0 && size + Buffer.byteLength(text) > JOURNAL_BYTES) {
      await handle.close();
      await rename(file, older);
      handle = await openToAppend(file);
    }
    await handle.appendFile(text);
  } finally {
    await handle.close();
  }
  await dropIfOld(older, nowMs);
}

/** Neither through a link nor to anything but a regular file; a pipe without a reader must not stop the agent. */
async function openToAppend(path: string): Promise<FileHandle> {
  const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_WRONLY } = constants;
  const handle = await open(path, O_APPEND | O_CREAT | O_WRONLY | O_NOFOLLOW | O_NONBLOCK, 0o600);
  if ((await handle.stat()).isFile()) return handle;
  await handle.close();
  throw new Error(`${JOURNAL.file} is no regular file`);
}

/** Removes the older half once its last line is too old to be told. */
async function dropIfOld(path: string, nowMs: number): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() && nowMs - found.mtimeMs > JOURNAL_MS) await unlink(path);
}

/**
 * Reads what was deleted in a directory since a moment, the oldest first. A line that is no entry, such as one that a full
 * disk cut off, is passed over. Throws if a journal is there and cannot be read.
 */
export async function readJournal(directory: Directory, sinceMs: number): Promise<JournalEntry[]> {
  const entries: JournalEntry[] = [];
  for (const name of [JOURNAL.older, JOURNAL.file]) {
    for (const line of (await readIfThere(directory.at(name))).split("\n")) {
      const entry = parseEntry(line);
      if (entry !== undefined && Date.parse(entry.time) >= sinceMs) entries.push(entry);
    }
  }
  return entries;
}

async function readIfThere(path: string): Promise<string> {
  const { O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants;
  let handle: FileHandle;
  try {
    handle = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw cause;
  }
  try {
    return (await handle.stat()).isFile() ? await handle.readFile("utf8") : "";
  } finally {
    await handle.close();
  }
}

function parseEntry(line: string): JournalEntry | undefined {
  try {
    const entry: unknown = JSON.parse(line);
    return Check(EntrySchema, entry) ? entry : undefined;
  } catch {
    return undefined;
  }
}
