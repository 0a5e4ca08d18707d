import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { createGovernor } from "@cro/shared/policy/govern";
import { VERSION } from "@cro/shared/version";
import { REFUSED } from "@cro/shared/wire/directive";
import { type Deletion, REPORT_LIMITS, type Report } from "@cro/shared/wire/report";
import { pino } from "pino";
import { systemClock } from "./clock.ts";
import type { ServeConfig } from "./config.ts";
import { readDisk } from "./enforce/disk.ts";
import { createEnforcer } from "./enforce/enforcer.ts";
import { EXIT } from "./errors.ts";
import type { Granularity } from "./granularity.ts";
import { createApi } from "./http/api.ts";
import { type Certificates, watchCertificates } from "./http/certificates.ts";
import { createStatusServer } from "./http/status.ts";
import { createArchiveIndex } from "./inventory/archive-index.ts";
import type { Entry } from "./inventory/entry.ts";
import { createObserver } from "./inventory/observer.ts";
import { createMetrics } from "./metrics.ts";
import { type AcceptedPolicy, acceptDirective } from "./policy/accept.ts";
import { isClockTrusted, type TimeReference } from "./policy/clock-trust.ts";
import { createOrphanProofs } from "./policy/orphan-proofs.ts";
import { createStateFolder, type Watched } from "./policy/state-folder.ts";
import { buildReport } from "./report.ts";

const TICK_MS = 1000;
/** How often the time until which all has been acted upon is kept, in milliseconds. */
const KEEP_WATCHED_MS = 10_000;

/** A running agent. */
export interface Agent {
  /** Settles when the agent cannot go on, with the exit code and what to tell; it otherwise runs until it is stopped. */
  ended: Promise<{ code: number; problem?: string }>;
  stop(): Promise<void>;
}

/**
 * Builds and starts the agent: it observes at once, enforces as soon as it has a policy, and answers its coordinator
 * as soon as it has certificates. Throws where it cannot listen.
 */
export async function startAgent(config: ServeConfig): Promise<Agent> {
  const { nodeName: node, podUid: podUID } = config;
  const clock = systemClock;
  const log = pino({ level: config.logLevel, base: { component: "agent", node } });
  const bootId = randomUUID();
  const index = createArchiveIndex<Entry>();
  const proofs = createOrphanProofs(bootId, clock.monotonicMs);
  const { promise: ended, resolve: end } = Promise.withResolvers<{ code: number; problem?: string }>();

  let accepted: AcceptedPolicy | undefined;
  let watched: Watched | undefined;
  let openedAtMs = Number.NEGATIVE_INFINITY;
  let govern: ReturnType<typeof createGovernor> | undefined;
  let time: TimeReference | undefined;
  let certificates: Certificates | undefined;
  let reports = 0;
  let orphanCursor = 0;
  const deletions: Deletion[] = [];
  let deletionCount = 0;

  const isTrusted = () => isClockTrusted(time, clock);
  const enforcer = createEnforcer({
    index,
    proofs,
    clock,
    log,
    readDisk,
    isClockTrusted: isTrusted,
    events: {
      deleted: ({ entry, reason, sinceEventMs }) => {
        const { namespace, pod, container } = entry.identity ?? { namespace: "", pod: "", container: "" };
        const { file, size: bytes } = entry;
        const { state } = entry;
        log.info({ namespace, pod, container, archive: file, bytes, state, reason }, "archive deleted");
        const counted = { namespace: metrics.countedNamespace(namespace), reason };
        metrics.deleted.inc(counted);
        metrics.deletedBytes.inc(counted, bytes);
        metrics.eventToDeletion.observe(sinceEventMs / 1000);
        deletionCount += 1;
        const when = new Date(clock.wallMs()).toISOString();
        deletions.push({ number: deletionCount, time: when, file, namespace, pod, container, bytes, reason });
        if (deletions.length > REPORT_LIMITS.deletions) deletions.shift();
      },
      deleteFailed: ({ code }) => metrics.deleteErrors.inc({ code }),
      enforced: ({ durationMs }) => metrics.enforcement.observe(durationMs / 1000),
      stale: (file) => observer.lookAgain(file),
    },
  });
  const observer = createObserver({
    index,
    clock,
    log,
    incompleteAfterMs: config.incompleteAfterMs,
    roots: config.checkpointRoots,
    on: {
      directory: (directory) => {
        openedAtMs = clock.wallMs();
        return enforcer.setDirectory(directory);
      },
      listed: () => {
        enforcer.listed();
        void beginWatched();
      },
      changed: (entry, isEvent) => {
        if (isEvent) {
          const { identity, file, size, state: seen } = entry;
          log.info({ ...identity, archive: file, bytes: size, state: seen }, "archive arrived");
        }
        enforcer.changed(entry, isEvent);
      },
      goneMount: (root) => {
        log.error(
          { directory: root },
          "the mounted directory was deleted on the node; restarting to mount the new one",
        );
        end({ code: EXIT.restart });
      },
    },
  });
  const metrics = createMetrics({
    granularity: config.metricsGranularity as Granularity,
    version: VERSION,
    source: {
      archives: () => index.all(),
      planned: () => enforcer.status().planned.values(),
      unreachable: () => enforcer.status().unreachable.map(({ limit }) => limit),
      disk: () => enforcer.status().disk,
      fence: () => accepted?.fence,
      directiveAgeSeconds: () => time && (clock.monotonicMs() - time.monotonicMs) / 1000,
      isPaused: () => enforcer.status().isPaused,
      isWatchDegraded: () => observer.status().isDegraded,
      certificateNotAfterMs: () => certificates?.notAfterMs,
      foreignFiles: () => observer.status().foreignFiles,
    },
  });
  const state = createStateFolder(config.stateDir, (message, err) => {
    log.warn({ err }, message);
    metrics.stateErrors.inc();
  });

  function enforcePolicy(policy: AcceptedPolicy): void {
    if (govern === undefined || accepted?.digest !== policy.digest) govern = createGovernor(policy.document);
    accepted = policy;
    enforcer.setPolicy(policy);
    observer.setPath(policy.document.directory, watched);
  }

  async function directive(body: unknown) {
    const verdict = acceptDirective(body, { node, podUID, current: accepted, nowMs: clock.wallMs() });
    if (!verdict.ok) {
      // Asking for the document is how a new policy normally arrives.
      const level = verdict.status === REFUSED.documentNeeded ? "debug" : "warn";
      log[level]({ status: verdict.status, reason: verdict.refusal.error }, "directive refused");
      return verdict;
    }
    const { directive: received, accepted: next } = verdict;
    time = { coordinatorMs: Date.parse(received.time), monotonicMs: clock.monotonicMs() };
    if (accepted?.fence.term !== next.fence.term || accepted.fence.revision !== next.fence.revision) {
      log.info({ ...next.fence, policy: next.digest, mode: next.document.mode }, "directive accepted");
      enforcePolicy(next);
      await state.writeAccepted(next);
    }
    enforcer.proved(proofs.receive(received.orphans, clock.monotonicMs(), received.time));
    return verdict;
  }

  function report(): Report {
    reports += 1;
    const observed = observer.status();
    const enforced = enforcer.status();
    proofs.reported(reports, observed.listedUpTo);
    const result = buildReport({
      head: {
        node,
        podUID,
        version: VERSION,
        bootId,
        number: reports,
        time: new Date(clock.wallMs()).toISOString(),
        ...(accepted && { accepted: { ...accepted.fence, digest: accepted.digest } }),
        directory: {
          path: observed.path ?? "",
          state: observed.state,
          ...(observed.message !== undefined && { message: observed.message }),
        },
        ...(enforced.disk && {
          disk: { sizeBytes: enforced.disk.sizeBytes, freeBytes: enforced.disk.availableBytes },
        }),
        paused: enforced.isPaused,
        planned: enforced.planned.size,
        deleteErrors: enforced.deleteErrors,
        certificates: {
          authorities: certificates?.authorityFingerprints ?? [],
          ...(certificates && { notAfter: new Date(certificates.notAfterMs).toISOString() }),
        },
      },
      archives: index.all(),
      govern,
      unreachable: enforced.unreachable,
      deletions: { last: deletions, total: deletionCount },
      orphanCursor,
    });
    orphanCursor = result.orphanCursor;
    return result.report;
  }

  /** A directory that is watched for the first time holds no news from before it was opened. */
  async function beginWatched(): Promise<void> {
    const { directory } = observer.status();
    if (directory === undefined || (watched?.device === directory.device && watched.inode === directory.inode)) return;
    watched = { ...directory, untilMs: openedAtMs };
    await state.writeWatched(watched);
  }

  let keptAtMs = Number.NEGATIVE_INFINITY;
  async function keepWatched(): Promise<void> {
    const { directory, isIdle } = observer.status();
    if (directory === undefined || !isIdle || !enforcer.status().isIdle) return;
    keptAtMs = clock.monotonicMs();
    watched = { ...directory, untilMs: clock.wallMs() };
    await state.writeWatched(watched);
  }

  await mkdir(config.stateDir, { recursive: true }).catch((err: unknown) => log.warn({ err }, "no state folder"));
  const status = createStatusServer({
    metrics: () => metrics.registry.metrics(),
    notReady: () => {
      const { isListed, state: seen, message } = observer.status();
      if (accepted === undefined) return "no policy yet";
      return isListed ? undefined : (message ?? `the directory is not listed yet (${seen})`);
    },
  });
  await status.listen(config.metricsAddress);

  watched = await state.readWatched();
  const kept = await state.readAccepted();
  if (kept !== undefined) {
    log.info({ ...kept.fence, policy: kept.digest }, "the last accepted policy is in force");
    enforcePolicy(kept);
  } else log.info("nothing is deleted until the coordinator sends a policy");

  let api: ReturnType<typeof createApi> | undefined;
  const watching = watchCertificates(config.certsDir, {
    certificates: (next) => {
      certificates = next;
      log.info({ notAfter: new Date(next.notAfterMs).toISOString() }, "certificates loaded");
      if (api !== undefined) return api.setCertificates(next);
      api = createApi({ certificates: next, directive, report });
      api.listen(config.apiAddress).then(
        ({ port }) => log.info({ address: config.apiAddress.host, port }, "waiting for the coordinator"),
        (cause: Error) => end({ code: EXIT.failed, problem: `--api-address: ${cause.message}; name another one` }),
      );
    },
    problem: (problem) => log.warn({ problem }, "waiting for certificates"),
  });

  const timer = setInterval(() => {
    enforcer.tick();
    if (clock.monotonicMs() - keptAtMs >= KEEP_WATCHED_MS) void keepWatched();
  }, TICK_MS);

  return {
    ended,
    async stop() {
      clearInterval(timer);
      watching.stop();
      await keepWatched();
      await enforcer.stop();
      await observer.stop();
      await Promise.all([api?.close(), status.close()]);
      log.info("stopped");
    },
  };
}
