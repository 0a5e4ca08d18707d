import { setTimeout as sleep } from "node:timers/promises";
import type { KubeClient, KubeFailure, KubeObject } from "./client.ts";
import { acceptOf, type Collection, isObject, listObjects } from "./list.ts";

/**
 * What a watch knows. It begins with nothing known; `synced` brings all there is, and the events after it keep that
 * current; after `lost` nothing is known any more, least of all that something is absent, until the next `synced`.
 */
export type WatchEvent<T> =
  | { type: "synced"; items: T[] }
  | { type: "added" | "modified" | "deleted"; item: T }
  | { type: "lost"; failure: KubeFailure };

export interface WatchOptions<T> {
  client: KubeClient;
  collection: Collection;
  /** What is kept of an object; the rest of it is let go at once. */
  project: (object: KubeObject) => T;
  /** Called with one event after the other, in their order. */
  emit: (event: WatchEvent<T>) => void;
  signal: AbortSignal;
  /** A monotonic clock. */
  nowMs: () => number;
  /** A number from 0 up to 1, for jitter. */
  random: () => number;
  /**
   * A watch that brings neither event nor bookmark for so long is taken for dead. The API server sends a bookmark about
   * every minute (k8s.io/apiserver: defaultBookmarkFrequency, up to 1.25 minutes).
   */
  silenceMs?: number;
}

const DEFAULT_SILENCE_MS = 120_000;
/** How long one watch is asked to last at the most: it spreads the watchers over the API server's replicas. */
const MAX_WATCH_S = 600;
/** A watch that ends sooner is not followed by the next at once. */
const MIN_WATCH_MS = 1_000;
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 30_000;
const MAX_RETRY_AFTER_MS = 60_000;
/** No object is larger: etcd refuses requests over 1.5 MiB, and JSON may double that. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;

/**
 * Lists a collection and watches it until the signal. A watch that ends between two lines, as all do sooner or later, is
 * carried on where it stopped, and nothing is lost by that; anything else (an error, a line that is no event, silence,
 * an API server that does not answer) makes all unknown, and the next list, with backoff, makes it known again.
 */
export async function watchObjects<T>(options: WatchOptions<T>): Promise<void> {
  const { client, collection, project, emit, signal, nowMs, random } = options;
  let failures = 0;
  while (!signal.aborted) {
    const list = await listObjects(client, collection, { project, signal });
    if (signal.aborted) return;
    let failure: KubeFailure;
    if (list.ok) {
      const { items, resourceVersion } = list.value;
      emit({ type: "synced", items });
      const syncedAtMs = nowMs();
      failure = await followWatches(options, resourceVersion);
      if (signal.aborted) return;
      emit({ type: "lost", failure });
      // What worked for a while is tried again soon; an API server whose watches fail at once is spared.
      if (nowMs() - syncedAtMs >= MAX_BACKOFF_MS) failures = 0;
    } else {
      failure = list;
      emit({ type: "lost", failure });
    }
    const delayMs = backoffMs(failures, { random, retryAfterMs: failure.retryAfterMs });
    failures += 1;
    await sleep(delayMs, undefined, { signal }).catch(() => {});
  }
}

/** Half to all of a delay that doubles with each failure, and never less than what the server asks for. */
export function backoffMs(
  failures: number,
  { random, retryAfterMs = 0 }: { random: () => number; retryAfterMs?: number | undefined },
): number {
  const delayMs = Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(failures, 16), MAX_BACKOFF_MS) * (0.5 + random() / 2);
  return Math.max(delayMs, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS));
}

/** Runs one watch after the other from a version on, as long as each carries on where the last one ended. */
async function followWatches<T>(options: WatchOptions<T>, from: string): Promise<KubeFailure> {
  const { client, collection, signal, nowMs, random, silenceMs = DEFAULT_SILENCE_MS } = options;
  const position = { resourceVersion: from };
  for (;;) {
    const startMs = nowMs();
    const ended = new AbortController();
    const stream = await client.stream({
      path: collection.path,
      query: {
        labelSelector: collection.labelSelector,
        fieldSelector: collection.fieldSelector,
        watch: true,
        allowWatchBookmarks: true,
        resourceVersion: position.resourceVersion,
        timeoutSeconds: Math.round(MAX_WATCH_S * (0.5 + random() / 2)),
      },
      accept: acceptOf(collection, "PartialObjectMetadata"),
      signal: AbortSignal.any([signal, ended.signal]),
    });
    if (!stream.ok) return stream;
    const failure = await readEvents(options, { body: stream.value.body, position, silenceMs, ended });
    ended.abort();
    if (failure !== undefined || signal.aborted) return failure ?? aborted(collection);
    const lastedMs = nowMs() - startMs;
    if (lastedMs < MIN_WATCH_MS) await sleep(MIN_WATCH_MS - lastedMs, undefined, { signal }).catch(() => {});
  }
}

/** Reads one watch to its end. Undefined where it just ended; everything that came before is then known. */
async function readEvents<T>(
  { collection, project, emit, signal }: WatchOptions<T>,
  {
    body,
    position,
    silenceMs,
    ended,
  }: {
    body: AsyncIterable<Buffer>;
    position: { resourceVersion: string };
    silenceMs: number;
    ended: AbortController;
  },
): Promise<KubeFailure | undefined> {
  const failed = (reason: string, what: string): KubeFailure => ({
    ok: false,
    reason,
    message: `watch of ${collection.path}: ${what}`,
  });
  const silence = setTimeout(() => ended.abort("silent"), silenceMs);
  try {
    for await (const line of readLines(body)) {
      silence.refresh();
      const event = line === undefined ? undefined : parseEvent(line);
      if (event === undefined) return failed("Malformed", "a line that is no event");
      if (event.type === "ERROR") {
        const { reason, message, code, details } = event.status;
        const failure = failed(reason ?? "ERROR", message ?? `error ${code}`);
        if (code !== undefined) failure.status = code;
        if (details?.retryAfterSeconds !== undefined) failure.retryAfterMs = details.retryAfterSeconds * 1000;
        return failure;
      }
      if (event.type !== "BOOKMARK") {
        emit({ type: EVENT_TYPES[event.type], item: project(event.object) });
        // A listener may have had enough.
        if (signal.aborted) return undefined;
      }
      position.resourceVersion = event.resourceVersion;
    }
    return undefined;
  } catch {
    // Cut between two lines or in the middle of one: what came before was whole, and what did not come is sent again.
    return ended.signal.aborted ? failed("Timeout", `neither event nor bookmark for ${silenceMs / 1000} s`) : undefined;
  } finally {
    clearTimeout(silence);
  }
}

const EVENT_TYPES = { ADDED: "added", MODIFIED: "modified", DELETED: "deleted" } as const;

type RawEvent =
  | { type: keyof typeof EVENT_TYPES; object: KubeObject; resourceVersion: string }
  | { type: "BOOKMARK"; resourceVersion: string }
  | { type: "ERROR"; status: Partial<NonNullable<KubeFailure["answer"]>> };

function parseEvent(line: string): RawEvent | undefined {
  let event: { type?: unknown; object?: unknown } | null;
  try {
    event = JSON.parse(line);
  } catch {
    return undefined;
  }
  const { type, object } = event ?? {};
  if (typeof object !== "object" || object === null) return undefined;
  if (type === "ERROR") return { type, status: object };
  const resourceVersion = (object as Partial<KubeObject>).metadata?.resourceVersion;
  if (typeof resourceVersion !== "string" || resourceVersion === "") return undefined;
  if (type === "BOOKMARK") return { type, resourceVersion };
  if ((type === "ADDED" || type === "MODIFIED" || type === "DELETED") && isObject(object)) {
    return { type, object, resourceVersion };
  }
  return undefined;
}

/** The lines of a stream; undefined, as the last one, for one that is too long or no UTF-8. An unfinished last line is dropped. */
async function* readLines(body: AsyncIterable<Buffer>): AsyncGenerator<string | undefined> {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let parts: Buffer[] = [];
  let length = 0;
  for await (const chunk of body) {
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end >= 0; end = chunk.indexOf(0x0a, start)) {
      const line = Buffer.concat([...parts, chunk.subarray(start, end)]);
      parts = [];
      length = 0;
      start = end + 1;
      let text: string;
      try {
        text = decoder.decode(line);
      } catch {
        yield undefined;
        return;
      }
      yield text;
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > MAX_LINE_BYTES) {
      yield undefined;
      return;
    }
  }
}

function aborted(collection: Collection): KubeFailure {
  return { ok: false, reason: "Aborted", message: `watch of ${collection.path}: aborted` };
}
