import { closeSync, constants, lstatSync, openSync, readdirSync, readSync, unlinkSync, writeSync } from "node:fs";
import { parseArchiveName } from "../archive/name.ts";
import { PAUSE_FILE, PIN_SUFFIX } from "../enforce/remove.ts";
import { InputError } from "../errors.ts";
import type { Directory } from "../inventory/directory.ts";
import { parseMoment } from "../moment.ts";

/** The most bytes of a pin that are read. */
const MAX_PIN = 16_384;

/** What a pin says of itself. Neither of it unpins anything: an archive stays until somebody says that it may go. */
export interface PinNote {
  /** Why, for whoever finds it. */
  reason?: string | undefined;
  /** Until when the archive is wanted, RFC 3339; from then on {@link unpinExpired} takes the pin away. */
  until?: string | undefined;
}

/** Refuses what is no name of an archive: a path, or a name that the kubelet does not give. */
export function checkArchiveName(file: string): void {
  if (parseArchiveName(file) !== undefined) return;
  throw new InputError(
    `${JSON.stringify(file)} is not the name of an archive; \`agent list --json\` tells them, as "file"`,
  );
}

/**
 * Pins an archive; false if it was pinned already. Throws an {@link InputError} if it is not there. The note is kept in the
 * file.
 */
export function pin(directory: Directory, file: string, { reason, until }: PinNote = {}): boolean {
  checkArchiveName(file);
  mustBeThere(directory, file);
  const text = reason === undefined && until === undefined ? "" : `${JSON.stringify({ reason, until })}\n`;
  const isNew = make(directory, file + PIN_SUFFIX, text);
  try {
    mustBeThere(directory, file);
  } catch (cause) {
    // It was deleted a moment ago.
    if (isNew) remove(directory, file + PIN_SUFFIX);
    throw cause;
  }
  return isNew;
}

/** Takes the pin away; false if there was none. Anything but a regular file was put there by hand, and stays. */
export function unpin(directory: Directory, file: string): boolean {
  checkArchiveName(file);
  return remove(directory, file + PIN_SUFFIX);
}

/**
 * Takes away the pins whose `until` is over; returns their archives. A pin without one, one that cannot be read and one of
 * another kind of file stay.
 * @param nowMs milliseconds since 1970
 */
export function unpinExpired(directory: Directory, nowMs: number): string[] {
  const expired: string[] = [];
  for (const name of readdirSync(directory.at(".")).sort()) {
    const file = name.slice(0, -PIN_SUFFIX.length);
    if (!name.endsWith(PIN_SUFFIX) || parseArchiveName(file) === undefined) continue;
    const untilMs = readUntil(directory, name);
    if (untilMs !== undefined && untilMs <= nowMs && remove(directory, name)) expired.push(file);
  }
  return expired;
}

/** Until when a pin is wanted, in milliseconds since 1970; undefined if it does not say. */
function readUntil(directory: Directory, name: string): number | undefined {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  let descriptor: number | undefined;
  try {
    if (!lstatSync(directory.at(name)).isFile()) return undefined;
    descriptor = openSync(directory.at(name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    const buffer = Buffer.alloc(MAX_PIN);
    const note: unknown = JSON.parse(buffer.toString("utf8", 0, readSync(descriptor, buffer)));
    return parseMoment((note as { until?: unknown } | null)?.until);
  } catch {
    // It is no note, or cannot be read: then nobody has said that its time is over.
    return undefined;
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** Stops all deletion in a directory; false if it was stopped already. */
export function pause(directory: Directory): boolean {
  return make(directory, PAUSE_FILE, "");
}

/** Lets deletion go on; false if it was not stopped. */
export function resume(directory: Directory): boolean {
  return remove(directory, PAUSE_FILE);
}

function mustBeThere(directory: Directory, file: string): void {
  try {
    if (lstatSync(directory.at(file)).isFile()) return;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ENOENT") throw told(cause, directory, file);
  }
  throw new InputError(`${directory.path} has no archive ${file}; \`agent list --json\` tells those that are there`);
}

function make(directory: Directory, file: string, text: string): boolean {
  const { O_CREAT, O_EXCL, O_WRONLY, O_NOFOLLOW } = constants;
  let descriptor: number;
  try {
    descriptor = openSync(directory.at(file), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw told(cause, directory, file);
  }
  try {
    if (text !== "") writeSync(descriptor, text);
  } catch (cause) {
    throw new InputError(`${file} is there, without its reason: ${(cause as Error).message}`);
  } finally {
    closeSync(descriptor);
  }
  return true;
}

function remove(directory: Directory, file: string): boolean {
  try {
    if (!lstatSync(directory.at(file)).isFile()) {
      throw new InputError(`${directory.path}/${file} is no regular file; remove it on the node`);
    }
    unlinkSync(directory.at(file));
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw cause instanceof InputError ? cause : told(cause, directory, file);
  }
}

/** An error of the file system, by the path that a reader knows. */
function told(cause: unknown, directory: Directory, file: string): InputError {
  const { code = "UNKNOWN" } = cause as NodeJS.ErrnoException;
  return new InputError(`${directory.path}/${file} cannot be changed: ${code}`);
}
