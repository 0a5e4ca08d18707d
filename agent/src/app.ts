import { randomUUID } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { createGovernor } from "@cro/shared/policy/govern";
import { VERSION } from "@cro/shared/version";
import { REFUSED } from "@cro/shared/wire/directive";
import { type Deletion, REPORT_LIMITS, type Reason, type Report } from "@cro/shared/wire/report";
import { pino, stdTimeFunctions } from "pino";
import { createTrustedTime, systemClock } from "./clock.ts";
import type { ServeConfig } from "./config.ts";
import type { Due } from "./enforce/attention.ts";
import { readDisk } from "./enforce/disk.ts";
import { createEnforcer } from "./enforce/enforcer.ts";
import { isPaused, PAUSE_FILE } from "./enforce/remove.ts";
import { EXIT } from "./errors.ts";
import type { Granularity } from "./granularity.ts";
import { createApi } from "./http/api.ts";
import { type Certificates, watchCertificates } from "./http/certificates.ts";
import { createStatusServer } from "./http/status.ts";
import { createArchiveIndex } from "./inventory/archive-index.ts";
import { type Directory, directoryKey } from "./inventory/directory.ts";
import type { Entry } from "./inventory/entry.ts";
import { createObserver } from "./inventory/observer.ts";
import { createSightings, type KeptSightings } from "./inventory/sightings.ts";
import { createJournal } from "./journal.ts";
import { factLines, type Head, planFacts } from "./local/facts.ts";
import { startLocalServer } from "./local/socket.ts";
import { createMetrics } from "./metrics.ts";
import { type AcceptedPolicy, acceptDirective, type Verdict } from "./policy/accept.ts";
import { createOrphanProofs } from "./policy/orphan-proofs.ts";
import { createStateFolder, type Watched } from "./policy/state-folder.ts";
import { addToSums, buildReport, type SumsByReason } from "./report.ts";
import { createReportNews } from "./report-news.ts";
import { describeLimit, describePolicy, isOfNode } from "./retention/explain.ts";

const TICK_MS = 1000;
/** How often what was seen in the directory is kept, if it changed, in milliseconds. */
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
  const log = pino({
    level: config.logLevel,
    base: { component: "agent", node },
    timestamp: stdTimeFunctions.isoTime,
    formatters: { level: (level) => ({ level }) },
  });
  const bootId = randomUUID();
  const index = createArchiveIndex<Entry>();
  const proofs = createOrphanProofs(bootId, clock.monotonicMs);
  const time = createTrustedTime(clock);
  const sightings = createSightings({ index, clock, time });
  const { promise: ended, resolve: end } = Promise.withResolvers<{ code: number; problem?: string }>();

  let accepted: AcceptedPolicy | undefined;
  /** What the state folder holds for sure. */
  let onDisk: AcceptedPolicy | undefined;
  /** Whether what was accepted is acted upon. */
  let isInForce = false;
  /** What the state folder told at the start. */
  let watched: Watched | undefined;
  /** What that folder holds of the directory for sure. */
  let keptRecord: Watched | undefined;
  let keptDue: Due | undefined;
  let keptSightings: KeptSightings | undefined;
  let watchedDirectory: Directory | undefined;
  /** Events that were not acted upon to the end, by the directory in which they were; for directories that come back. */
  const dueIn = new Map<string, Due>();
  let govern: ReturnType<typeof createGovernor> | undefined;
  /** When the last directive of this start came, on the monotonic clock. */
  let directedAtMs: number | undefined;
  let certificates: Certificates | undefined;
  /** Runs while a kept policy waits for the coordinator, which may know that it is no longer what is wanted. */
  let waitingForCoordinator: NodeJS.Timeout | undefined;
  let reports = 0;
  let orphanCursor = 0;
  const news = createReportNews({ bootId, clock });
  const deletions: Deletion[] = [];
  let deletionCount = 0;
  const deletedSums: SumsByReason = {};

  const enforcer = createEnforcer({
    index,
    proofs,
    clock,
    log,
    readDisk,
    time,
    unmanaged: sightings.unmanaged,
    events: {
      deleted: ({ entry, reason, sinceEventMs }) => {
        sightings.noticed(entry);
        const { file, identity, size: bytes } = entry;
        const rule = ruleOf(entry, reason);
        log.info({ ...deletionFields(entry, reason), ...rule }, "archive deleted");
        addToSums(deletedSums, reason, bytes);
        const counted = { namespace: metrics.countedNamespace(identity?.namespace ?? ""), reason };
        metrics.deleted.inc(counted);
        metrics.deletedBytes.inc(counted, bytes);
        metrics.eventToDeletion.observe(sinceEventMs / 1000);
        news.raise();
        deletionCount += 1;
        const when = new Date(clock.wallMs()).toISOString();
        const digest = accepted && { digest: accepted.digest };
        journal.add({ time: when, file, bytes, ...identity, reason, ...rule, ...digest });
        deletions.push({ number: deletionCount, time: when, file, ...identity, bytes, reason });
        if (deletions.length > REPORT_LIMITS.deletions) deletions.shift();
      },
      wouldDelete: ({ entry, reason }) =>
        log.info({ ...deletionFields(entry, reason), ...ruleOf(entry, reason) }, "archive would be deleted"),
      deleteFailed: ({ code }) => metrics.deleteErrors.inc({ code }),
      enforced: ({ durationMs }) => {
        news.raise();
        metrics.enforcement.observe(durationMs / 1000);
      },
      stale: (file) => observer.lookAgain(file),
    },
  });
  const observer = createObserver({
    index,
    clock,
    log,
    incompleteAfterMs: config.incompleteAfterMs,
    nodeName: node,
    roots: config.checkpointRoots,
    on: {
      directory: (directory) => {
        if (watchedDirectory !== undefined) {
          const due = enforcer.due();
          if (due === undefined) dueIn.delete(directoryKey(watchedDirectory));
          else dueIn.set(directoryKey(watchedDirectory), due);
        }
        watchedDirectory = directory;
        if (directory !== undefined) sightings.setDirectory(directory);
        const left = enforcer.setDirectory(directory, directory && dueIn.get(directoryKey(directory)));
        return left.then(() => journal.setDirectory(directory));
      },
      listed: () => {
        sightings.listed();
        enforcer.listed();
        void keepWatched();
      },
      looked: sightings.noticed,
      changed: (entry, isEvent) => {
        if (isEvent) {
          const { identity, file, size, state: seen } = entry;
          log.info({ ...identity, archive: file, bytes: size, state: seen }, "archive arrived");
          const counted = { namespace: metrics.countedNamespace(identity?.namespace ?? "") };
          metrics.arrived.inc(counted);
          metrics.arrivedBytes.inc(counted, size);
        }
        news.raise();
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
    startedAtMs: clock.wallMs(),
    source: {
      archives: () => index.all(),
      planned: plannedSums,
      unreachable: () => enforcer.status().unreachable.map(({ limit }) => limit),
      disk: () => enforcer.status().disk,
      fence: () => accepted?.fence,
      directiveAgeSeconds: () => (directedAtMs === undefined ? undefined : (clock.monotonicMs() - directedAtMs) / 1000),
      isPaused: () => enforcer.status().isPaused,
      isWatchDegraded: () => observer.status().isDegraded,
      certificateNotAfterMs: () => certificates?.notAfterMs,
      foreignFiles: () => observer.status().foreignFiles,
      foreignBytes: () => observer.status().foreignBytes,
      isDirectoryMounted: () => observer.status().state === "watching",
      policy: () => accepted && { digest: accepted.digest, mode: accepted.document.mode },
    },
  });
  const state = createStateFolder(config.stateDir, (message, err) => {
    log.warn({ err }, message);
    metrics.stateErrors.inc();
  });

  const journal = createJournal({
    clock,
    onProblem: (err, { isFirst }) => {
      if (isFirst) log.warn({ err }, "deletions cannot be written to the journal; they are made all the same");
      metrics.journalErrors.inc();
    },
  });

  /** The resource that asks for a deletion, which of its entries, in words, and its limits. */
  function ruleOf({ identity }: Entry, reason: Reason) {
    if (govern === undefined || accepted === undefined) return {};
    const policy = identity && govern(identity);
    const limit = describeLimit(reason, policy, accepted.document.node);
    const entry = isOfNode(reason) ? "node policy" : describePolicy(policy);
    return { ...(accepted.name !== undefined && { policy: accepted.name }), entry, limit };
  }

  function plannedSums(): SumsByReason {
    const sums: SumsByReason = {};
    for (const [file, reason] of enforcer.status().planned) addToSums(sums, reason, index.get(file)?.size ?? 0);
    return sums;
  }

  function adopt(policy: AcceptedPolicy): void {
    if (govern === undefined || accepted?.digest !== policy.digest) govern = createGovernor(policy.document);
    accepted = policy;
    news.raise();
    enforcer.setPolicy(policy);
    observer.setPath(policy.document.directory, watched);
  }

  /** Lets what was accepted act. */
  function enforce(): void {
    clearTimeout(waitingForCoordinator);
    isInForce = true;
    enforcer.setWaiting(false);
  }

  /** Directives one after the other: each is on disk before anything is done for it, and before the next is judged. */
  let directing: Promise<unknown> = Promise.resolve();
  function directive(body: unknown): Promise<Verdict> {
    const receivedAtMs = clock.monotonicMs();
    const verdict = directing.then(() => follow(body, receivedAtMs));
    directing = verdict.catch(() => {});
    return verdict;
  }

  async function follow(body: unknown, receivedAtMs: number): Promise<Verdict> {
    const verdict = acceptDirective(body, { node, podUID, current: accepted });
    if (!verdict.ok) {
      // Asking for the document is how a new policy normally arrives.
      const level = verdict.status === REFUSED.documentNeeded ? "debug" : "warn";
      log[level]({ status: verdict.status, reason: verdict.refusal.error }, "directive refused");
      return verdict;
    }
    const { directive: received } = verdict;
    // To keep more archives needs no waiting for the disk.
    proofs.withdraw(received.orphans);
    const toldMs = Date.parse(received.time);
    const acceptedAtTrustedMs = verdict.accepted.acceptedAtTrustedMs ?? time.ifTold(toldMs, receivedAtMs);
    const next = { ...verdict.accepted, ...(acceptedAtTrustedMs !== undefined && { acceptedAtTrustedMs }) };
    const isNewPolicy = next.digest !== accepted?.digest;
    if (isNewPolicy) {
      // The policy before may delete what this one keeps: it does nothing more while this one is written.
      clearTimeout(waitingForCoordinator);
      enforcer.setWaiting(true);
      // What arrived under the old policy must not be news under the new one after a crash.
      void keepWatched();
    }
    // Kept first: an agent that was killed in between would else obey an older leader again.
    await keepAccepted(next);
    time.told(toldMs, receivedAtMs);
    sightings.tick();
    directedAtMs = receivedAtMs;
    if (!isDeepStrictEqual(next, accepted)) {
      const { fence, digest, document, name } = next;
      log.info({ ...fence, policy: digest, name, mode: document.mode }, "directive accepted");
      adopt(next);
    }
    enforce();
    enforcer.proved(proofs.receive(received.orphans, receivedAtMs, received.time));
    return verdict;
  }

  /** Writes what was accepted, unless just that is on disk already. What could not be written is tried again later. */
  async function keepAccepted(policy: AcceptedPolicy): Promise<void> {
    if (isDeepStrictEqual(policy, onDisk)) return;
    onDisk = (await state.writeAccepted(policy)) ? policy : undefined;
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
          disk: {
            sizeBytes: enforced.disk.sizeBytes,
            freeBytes: enforced.disk.availableBytes,
            usedBytes: enforced.disk.usedBytes,
          },
        }),
        paused: enforced.isPaused,
        deleteErrors: enforced.deleteErrors,
        failing: {
          archives: enforced.failing.size,
          codes: [...new Set(enforced.failing.values())].slice(0, REPORT_LIMITS.failingCodes),
        },
        certificates: {
          authorities: certificates?.authorityFingerprints ?? [],
          ...(certificates && { notAfter: new Date(certificates.notAfterMs).toISOString() }),
        },
      },
      archives: index.all(),
      govern,
      isByUid: accepted?.document.orphanMatch === "UID",
      unreachable: enforced.unreachable,
      pinnedLimits: enforced.pinnedLimits,
      planned: plannedSums(),
      deletions: { last: deletions, total: deletionCount, sums: deletedSums },
      orphanCursor,
    });
    orphanCursor = result.orphanCursor;
    news.told(result.report);
    return result.report;
  }

  /** What a report tells that no event tells of. */
  let condition = "";
  function noteCondition(): void {
    const { path, state: seen, message, isListed } = observer.status();
    const { isPaused, disk, deleteErrors, failing } = enforcer.status();
    // Of a disk in use every byte would be news.
    const usedPercent = disk && Math.floor((100 * disk.usedBytes) / (disk.usedBytes + disk.availableBytes));
    const now = JSON.stringify([path, seen, message, isListed, isPaused, usedPercent, deleteErrors, failing.size]);
    if (now !== condition) news.raise();
    condition = now;
  }

  /** Why nothing is deleted just now. */
  function held(): string[] {
    const { state: seen, message, isListed, path = "the directory" } = observer.status();
    if (accepted === undefined) return ["no policy has come yet"];
    return [
      ...(isInForce ? [] : ["the last accepted policy waits for the coordinator"]),
      ...(seen === "watching" ? [] : [message ?? `the directory is ${seen}`]),
      ...(seen === "watching" && !isListed ? ["the directory is not listed yet"] : []),
      ...(watchedDirectory !== undefined && isPaused(watchedDirectory) ? [`${path}/${PAUSE_FILE} is there`] : []),
      ...(accepted.document.mode === "DryRun" ? ["the policy's mode is DryRun"] : []),
    ];
  }

  /** What the agent's own commands are told. */
  function facts(): Iterable<string> {
    const { path, state: seen, message } = observer.status();
    const { deleteErrors, unreachable } = enforcer.status();
    const situation = enforcer.situation();
    const head: Head = {
      node,
      version: VERSION,
      time: new Date(clock.wallMs()).toISOString(),
      directory: path ?? "",
      state: seen,
      ...(message !== undefined && { message }),
      archives: index.size,
      held: held(),
      ...(accepted && { accepted: { ...accepted.fence, digest: accepted.digest, ...named(accepted) } }),
      ...(directedAtMs !== undefined && { directiveAgeSeconds: (clock.monotonicMs() - directedAtMs) / 1000 }),
      deleted: deletionCount,
      deleteErrors,
      unreachable: [...unreachable],
      ...(situation && { plan: planFacts(situation) }),
    };
    return factLines(head, [...index.all()], situation);
  }

  let keptAtMs = Number.NEGATIVE_INFINITY;
  async function keepWatched(): Promise<void> {
    keptAtMs = clock.monotonicMs();
    const record = observer.record();
    if (record === undefined) return;
    const isWatchedNow = watchedDirectory !== undefined && directoryKey(record) === directoryKey(watchedDirectory);
    const due = isWatchedNow ? enforcer.due() : dueIn.get(directoryKey(record));
    if (record === keptRecord && isDeepStrictEqual(due, keptDue)) return;
    const isKept = await state.writeWatched({ ...record, ...(due && { due }) });
    keptRecord = isKept ? record : undefined;
    keptDue = due;
  }

  async function keepSightings(): Promise<void> {
    const record = sightings.record();
    if (record === undefined || record === keptSightings) return;
    keptSightings = (await state.writeSightings(record)) ? record : undefined;
  }

  await mkdir(config.stateDir, { recursive: true }).catch((err: unknown) => log.warn({ err }, "no state folder"));
  const status = createStatusServer({
    metrics: () => metrics.registry.metrics(),
    notReady: () => {
      const { isListed, state: seen, message } = observer.status();
      if (accepted === undefined) return "no policy yet";
      if (!isInForce) return "the last accepted policy waits for the coordinator";
      return isListed ? undefined : (message ?? `the directory is not listed yet (${seen})`);
    },
  });
  await status.listen(config.metricsAddress);

  const keptWatched = await state.readWatched();
  if (keptWatched !== undefined) {
    const { due, ...seen } = keptWatched;
    watched = seen;
    if (due !== undefined) dueIn.set(directoryKey(seen), due);
  }
  keptSightings = await state.readSightings();
  if (keptSightings !== undefined) sightings.restore(keptSightings);
  const kept = await state.readAccepted();
  onDisk = kept;
  if (kept !== undefined) {
    log.info({ ...kept.fence, policy: kept.digest }, "waiting for the coordinator; else the last accepted policy acts");
    enforcer.setWaiting(true);
    adopt(kept);
    waitingForCoordinator = setTimeout(() => {
      log.info({ ...kept.fence, policy: kept.digest }, "no coordinator came; the last accepted policy acts");
      enforce();
    }, config.waitForCoordinatorMs);
  } else log.info("nothing is deleted until the coordinator sends a policy");

  const local = await startLocalServer(config.stateDir, {
    clock,
    lines: facts,
    onProblem: (err) => log.warn({ err }, "the agent's own commands cannot ask it"),
  });

  let api: ReturnType<typeof createApi> | undefined;
  const watching = watchCertificates(config.certsDir, {
    certificates: (next) => {
      certificates = next;
      news.raise();
      log.info({ notAfter: new Date(next.notAfterMs).toISOString() }, "certificates loaded");
      if (api !== undefined) return api.setCertificates(next);
      api = createApi({ certificates: next, directive, report, hasNews: news.isNewTo });
      api.listen(config.apiAddress).then(
        ({ port }) => log.info({ address: config.apiAddress.host, port }, "waiting for the coordinator"),
        (cause: Error) => end({ code: EXIT.failed, problem: `--api-address: ${cause.message}; name another one` }),
      );
    },
    problem: (problem) => log.warn({ problem }, "waiting for certificates"),
  });

  const timer = setInterval(() => {
    sightings.tick();
    enforcer.tick();
    noteCondition();
    if (clock.monotonicMs() - keptAtMs < KEEP_WATCHED_MS) return;
    void keepWatched();
    void keepSightings();
    if (accepted !== undefined) directing = directing.then(() => accepted && keepAccepted(accepted)).catch(() => {});
  }, TICK_MS);

  return {
    ended,
    async stop() {
      clearInterval(timer);
      clearTimeout(waitingForCoordinator);
      watching.stop();
      await keepWatched();
      await keepSightings();
      await enforcer.stop();
      await journal.written();
      await observer.stop();
      await Promise.all([api?.close(), status.close(), local.close()]);
      log.info("stopped");
    },
  };
}

function named({ name }: AcceptedPolicy): { name?: string } {
  return name === undefined ? {} : { name };
}

/** What is logged of an archive that is deleted, or would be. */
function deletionFields({ identity, file, size: bytes, state }: Entry, reason: Reason) {
  return { ...identity, archive: file, bytes, state, reason };
}
