import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compilePolicy } from "@cro/shared/policy/compile";
import { digestOf } from "@cro/shared/policy/document";
import type { Reason } from "@cro/shared/wire/report";
import { pino } from "pino";
import { onTestFinished } from "vitest";
import { type Clock, systemClock } from "../../src/clock.ts";
import { readDisk } from "../../src/enforce/disk.ts";
import { createEnforcer } from "../../src/enforce/enforcer.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { createObserver } from "../../src/inventory/observer.ts";
import { createSightings } from "../../src/inventory/sightings.ts";
import type { AcceptedPolicy } from "../../src/policy/accept.ts";
import { createOrphanProofs } from "../../src/policy/orphan-proofs.ts";
import type { Watched } from "../../src/policy/state-folder.ts";

/** A folder of its own, removed when the test is over. */
export function aFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "cro-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A policy in force since now. */
export function anAcceptedPolicy(spec: unknown, directory: string): AcceptedPolicy {
  const compiled = compilePolicy(spec);
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems));
  const document = { ...compiled.policy.document, directory };
  const digest = digestOf(JSON.stringify(document));
  return { fence: { term: 1, revision: 1 }, digest, document, acceptedAtTrustedMs: Date.now() };
}

/** Watches a directory, and enforces on it what policy it is given, as the agent does. Ends with the test. */
export function watchDirectory(
  path: string,
  options: {
    spec?: unknown;
    incompleteAfterMs?: number;
    clock?: Clock;
    roots?: string[];
    watched?: Watched;
    isTimeTrusted?: () => boolean;
  } = {},
) {
  const { clock = systemClock, incompleteAfterMs = 600_000, roots = [] } = options;
  const index = createArchiveIndex<Entry>();
  const logged: Array<Record<string, unknown>> = [];
  const log = pino({ level: "debug" }, { write: (line) => logged.push(JSON.parse(line) as Record<string, unknown>) });
  const proofs = createOrphanProofs("boot", () => performance.now());
  const deleted: Array<{ file: string; reason: Reason }> = [];
  const failed: Array<{ file: string; code: string }> = [];
  const events: string[] = [];
  const gone: string[] = [];
  const time = { nowMs: () => ((options.isTimeTrusted?.() ?? true) ? clock.wallMs() : undefined) };
  const sightings = createSightings({ index, clock, time });
  const enforcer = createEnforcer({
    index,
    proofs,
    clock,
    log,
    readDisk,
    time,
    unmanaged: sightings.unmanaged,
    events: {
      deleted: ({ entry, reason }) => deleted.push({ file: entry.file, reason }),
      wouldDelete: () => {},
      deleteFailed: ({ entry, code }) => failed.push({ file: entry.file, code }),
      enforced: () => {},
      stale: (file) => observer.lookAgain(file),
    },
  });
  const observer = createObserver({
    index,
    clock,
    log,
    incompleteAfterMs,
    nodeName: "node-a",
    roots,
    on: {
      directory: (directory) => {
        if (directory !== undefined) sightings.setDirectory(directory);
        return enforcer.setDirectory(directory);
      },
      listed: () => {
        sightings.listed();
        enforcer.listed();
      },
      looked: sightings.noticed,
      changed: (entry, isEvent) => {
        if (isEvent) events.push(entry.file);
        enforcer.changed(entry, isEvent);
      },
      goneMount: (root) => gone.push(root),
    },
  });
  const apply = (spec: unknown) => enforcer.setPolicy(anAcceptedPolicy(spec, path));
  if (options.spec !== undefined) apply(options.spec);
  observer.setPath(path, options.watched);
  const timer = setInterval(() => {
    sightings.tick();
    enforcer.tick();
  }, 200);
  const end = async () => {
    clearInterval(timer);
    await enforcer.stop();
    await observer.stop();
  };
  let ended: Promise<void> | undefined;
  const stop = () => {
    ended ??= end();
    return ended;
  };
  onTestFinished(stop);
  return {
    index,
    observer,
    enforcer,
    sightings,
    proofs,
    apply,
    deleted,
    failed,
    events,
    gone,
    logged,
    state: (file: string) => index.get(file)?.state,
    files: () => [...index.all()].map(({ file }) => file).sort(),
    /** Whether everything has been listed, walked and acted upon. */
    isCalm: () => observer.status().isIdle && enforcer.status().isIdle,
    /** Ends it before the test does. */
    stop,
  };
}
