import type { PolicyDocument } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { type ArchiveState, REASONS } from "@cro/shared/wire/report";
import type { Archive } from "../../agent/src/archive/archive.ts";
import { governs, keyOf, referencePlan } from "../../agent/test/retention/reference.ts";
import type { Runtime } from "../../agent/test/support/archives.ts";

/** What a file really holds, whatever its name says. */
export type Content =
  | { kind: "whole"; written: Written }
  /** The file ends before the archive does. `hasSpec`: behind spec.dump. `isAbandoned`: unchanged for long enough. */
  | { kind: "torn"; written: Written; hasSpec: boolean; isAbandoned: boolean }
  /** No tar at all. */
  | { kind: "junk" };

/** What a runtime writes. */
export interface Written {
  owner: ContainerIdentity;
  runtime: Runtime;
  pagesBytes: number;
}

/** What the name of an archive spells. */
export interface Spelling {
  pod: string;
  /** NAMESPACE-CONTAINER. */
  joined: string;
  timeMs: number;
}

export interface ModelFile {
  file: string;
  spelling: Spelling;
  content: Content;
  size: number;
  mtimeMs: number;
  /** Of the machine's monotonic clock, in milliseconds. */
  changedAtMs: number;
  isPostdated: boolean;
  /** Whether it arrived and is still to be an event: that is when it first counts. */
  isNews: boolean;
}

/** One directory that may be mounted for the agent. */
export interface ModelFolder {
  files: Map<string, ModelFile>;
  /** Archives that a .keep lies beside, or would, were they there. */
  keeps: Set<string>;
  /** What is none of the agent's business. */
  others: Set<string>;
  isPaused: boolean;
  /** Archives that were there when the agent last saw it, without those that are still to be events; undefined: it does not know. */
  seen: { has(file: string): boolean } | undefined;
}

/** All that decides what the agent must leave. */
export interface NodeModel {
  folders: ModelFolder[];
  /** Which of them the agent sees: the last one of those mounted over each other. */
  mounts: number[];
  isAgentUp: boolean;
  /** What it obeys; undefined before its first directive. */
  policy: PolicyDocument | undefined;
  /** Scopes on which a policy acts that does not act everywhere at once. */
  active: Set<string>;
  /** By how much the agent's clock is ahead. */
  wallShiftMs: number;
  /** Whether a directive has told this start of the agent what time it is. */
  hasReference: boolean;
  /** Pods that are gone, as `namespace/pod`, as far as somebody can prove it: sooner or later it is proved. */
  gone: Set<string>;
}

/** Times of a directive and the clock may differ by that much, and so may a time lie ahead of it. */
const TOLERANCE_MS = 5 * 60_000;
/** How long an archive must be unchanged, and how much later at most the agent knows. */
const SETTLED_MS = 2000;
const SETTLED_FOR_SURE_MS = 4000;
/** How soon an agent looks at what has changed, in milliseconds. */
const LOOK_MS = 300;
/** So many ways in which things may go are looked at; of more, these stand for all. */
const MAX_WAYS = 120;

export function emptyFolder(): ModelFolder {
  return { files: new Map(), keeps: new Set(), others: new Set(), isPaused: false, seen: undefined };
}

export function cloneModel(model: NodeModel): NodeModel {
  return {
    ...model,
    mounts: [...model.mounts],
    active: new Set(model.active),
    gone: new Set(model.gone),
    folders: model.folders.map(({ files, keeps, others, ...rest }) => ({
      ...rest,
      files: new Map([...files].map(([name, file]) => [name, { ...file, content: { ...file.content } }])),
      keeps: new Set(keeps),
      others: new Set(others),
    })),
  };
}

/** The folder that is mounted where the agent looks. */
export function mountedFolder(model: NodeModel): ModelFolder {
  return model.folders[model.mounts.at(-1) ?? 0] as ModelFolder;
}

/** Every name in a folder. */
export function listingOf({ files, keeps, others, isPaused }: ModelFolder): string[] {
  return [
    ...files.keys(),
    ...[...keeps].map((file) => `${file}.keep`),
    ...others,
    ...(isPaused ? [".pause"] : []),
  ].sort();
}

/** The machine's time as the agent has it. */
function wallMs(model: NodeModel): number {
  return Date.now() + model.wallShiftMs;
}

/** Every split of NAMESPACE-CONTAINER at a dash. */
function readings({ pod, joined }: Spelling): ContainerIdentity[] {
  const words = joined.split("-");
  return words.slice(1).map((_, index) => ({
    namespace: words.slice(0, index + 1).join("-"),
    pod,
    container: words.slice(index + 1).join("-"),
  }));
}

/** Which of the readings a spec.dump means: namespace and pod decide, a container that is of no reading is not believed. */
function meant(possible: readonly ContainerIdentity[], told: ContainerIdentity): ContainerIdentity | undefined {
  const inPod = possible.find(({ namespace, pod }) => namespace === told.namespace && pod === told.pod);
  const isOther = possible.some((reading) => reading !== inPod && reading.container === told.container);
  return isOther ? undefined : inPod;
}

/** Whose a file is, and what it is, by the words of design.md. */
export function judge(file: ModelFile): { identity: ContainerIdentity | undefined; state: ArchiveState } {
  const { content, spelling } = file;
  const possible = readings(spelling);
  const isTorn = content.kind === "torn";
  const isAbandoned = content.kind === "torn" && content.isAbandoned;
  const hasSpec = content.kind === "whole" || (content.kind === "torn" && content.hasSpec);
  const told = hasSpec && content.written.runtime !== "none" ? content.written.owner : undefined;
  const identity = told !== undefined ? meant(possible, told) : possible.length === 1 ? possible[0] : undefined;
  if (identity === undefined && (told !== undefined || !isTorn || (isAbandoned && hasSpec)))
    return { identity, state: "unidentified" };
  if (file.isPostdated) return { identity, state: "postdated" };
  // Without an owner it would be incomplete after an hour, which no run lasts.
  if (isTorn) return { identity, state: isAbandoned && identity !== undefined ? "incomplete" : "unsettled" };
  return { identity, state: content.kind === "whole" ? "complete" : "unread" };
}

/** Whether the file's name or mtime lies ahead of the agent's clock, by more than a little where it did not before. */
export function isAhead(model: NodeModel, file: ModelFile): boolean {
  const aheadMs = Math.max(file.spelling.timeMs, file.mtimeMs) - wallMs(model);
  return file.isPostdated ? aheadMs >= 0 : aheadMs > TOLERANCE_MS;
}

function toArchive(folder: ModelFolder, file: ModelFile, settled: boolean): Archive {
  const { identity, state } = judge(file);
  return {
    file: file.file,
    identity,
    candidates: readings(file.spelling),
    podUID: undefined,
    isStaticPod: false,
    timeMs: file.spelling.timeMs,
    mtimeNs: BigInt(file.mtimeMs) * 1_000_000n,
    size: file.size,
    allocated: file.size,
    hasOtherNames: false,
    state,
    walked: true,
    pinned: folder.keeps.has(file.file),
    settled: settled || state === "incomplete",
    listed: 0,
    unmanagedSinceMs: undefined,
  };
}

/** All archives that the agent sees, as a plan wants them. */
export function archivesOf(model: NodeModel, unsettled: ReadonlySet<string> = new Set()): Archive[] {
  const folder = mountedFolder(model);
  return [...folder.files.values()].map((file) => toArchive(folder, file, !unsettled.has(file.file)));
}

export function countsInNumber({ identity, state, pinned }: Archive): boolean {
  return identity !== undefined && (state === "complete" || (state === "incomplete" && !pinned));
}

const isDeletable = ({ identity, state, pinned }: Archive) =>
  identity !== undefined && !pinned && (state === "complete" || state === "incomplete");

/**
 * What the plain planner makes of the model, with what is too fresh and of which pods it is proved that they are gone;
 * `isEverywhere`: as if no scope waited for its next event.
 */
function planOf(
  model: NodeModel,
  {
    unsettled,
    proved,
    isEverywhere = false,
  }: { unsettled: ReadonlySet<string>; proved: readonly string[]; isEverywhere?: boolean },
) {
  const { policy } = model;
  if (policy === undefined) return undefined;
  return referencePlan({
    archives: archivesOf(model, unsettled),
    policy,
    nowMs: model.hasReference && Math.abs(model.wallShiftMs) <= TOLERANCE_MS ? wallMs(model) : undefined,
    orphans: proved.map((key) => {
      const [namespace = "", pod = ""] = key.split("/");
      return { namespace, pod, listedUpTo: Number.MAX_SAFE_INTEGER };
    }),
    isActive: (scope) => isEverywhere || policy.applyImmediately || model.active.has(scope),
    node: { disk: undefined },
  });
}

/**
 * What the agent tells of deletions that a pause, DryRun or the wait for an event holds back, and of limits that cannot be reached, by the names
 * of its metrics. Where proofs come and go it tells now the one and now the other, and what it told of ages stands while
 * the clock is not believed: that is left out.
 */
export function heldBack(model: NodeModel): Map<string, number> {
  const told = new Map<string, number>();
  const facts = { unsettled: new Set<string>(), proved: [] };
  const everywhere = planOf(model, { ...facts, isEverywhere: true });
  const acted = model.policy?.mode === "DryRun" ? everywhere : planOf(model, facts);
  if (everywhere === undefined || acted === undefined || model.gone.size > 0) return told;
  for (const reason of REASONS) {
    if (reason === "max_age" && model.wallShiftMs !== 0) continue;
    told.set(
      `checkpoint_archives_planned{reason="${reason}"}`,
      everywhere.deletions.filter((one) => one.reason === reason).length,
    );
    told.set(
      `checkpoint_limits_unreachable{limit="${reason}"}`,
      acted.unreachable.filter(({ limit }) => limit === reason).length,
    );
  }
  return told;
}

/** An event of a container: the policy acts on every scope that its archives count in. */
export function activate(model: NodeModel, identity: ContainerIdentity): void {
  const { policy } = model;
  if (policy === undefined || !model.isAgentUp) return;
  const { namespace, pod, container } = identity;
  const keys = { namespace, pod: `${namespace}/${pod}`, container: `${namespace}/${pod}/${container}` };
  const governing = governs(policy.rules, policy.global, identity);
  const { level } = governing;
  if (level === "workload") {
    model.active.add(keyOf(identity, governing));
    return;
  }
  const levels = level === "global" ? (["namespace", "pod", "container"] as const) : [level];
  for (const one of levels) model.active.add(keys[one]);
}

/** What arrived is told of when it is whole or given up, as an event if it counts. */
function endNews(model: NodeModel, file: ModelFile): void {
  const archive = toArchive(mountedFolder(model), file, true);
  const { identity, state } = archive;
  if (!file.isNews || identity === undefined || (state !== "complete" && state !== "incomplete")) return;
  file.isNews = false;
  if (countsInNumber(archive)) activate(model, identity);
}

/** Whether a walk finds the same in both. */
function isSameContent(a: Content, b: Content): boolean {
  const told = (content: Content) => {
    if (content.kind === "junk") return [content.kind];
    const { owner, runtime } = content.written;
    const hasSpec = content.kind === "whole" || content.hasSpec;
    return [content.kind, hasSpec, hasSpec && runtime !== "none" && owner];
  };
  return JSON.stringify(told(a)) === JSON.stringify(told(b));
}

/** A file came or changed while the agent watches, or did not: its state is a new one, and news if its content is. */
export function putFile(model: NodeModel, file: Omit<ModelFile, "changedAtMs" | "isPostdated" | "isNews">): void {
  const folder = mountedFolder(model);
  const before = folder.files.get(file.file);
  const isSame = before !== undefined && before.size === file.size && isSameContent(before.content, file.content);
  const entry: ModelFile = {
    ...file,
    changedAtMs: performance.now(),
    isPostdated: false,
    isNews: before?.isNews || !isSame,
  };
  entry.isPostdated = isAhead(model, entry);
  folder.files.set(file.file, entry);
  if (model.isAgentUp) endNews(model, entry);
}

/** What time, of either clock, does to archives: news that counts of a sudden is an event. */
export function passTime(model: NodeModel, { areTornAbandoned = false } = {}): void {
  for (const file of mountedFolder(model).files.values()) {
    if (areTornAbandoned && file.content.kind === "torn") file.content.isAbandoned = true;
    file.isPostdated = isAhead(model, file);
    endNews(model, file);
  }
}

/** The agent sees this directory no more, and remembers what was in it. */
export function endWatching(model: NodeModel): void {
  const folder = mountedFolder(model);
  folder.seen = new Set([...folder.files.values()].filter(({ isNews }) => !isNews).map(({ file }) => file));
}

/** The agent sees its directory for the first time, or again: news is what it knows not to have been there before. */
export function beginToWatch(model: NodeModel, sinceMs: number): void {
  model.active.clear();
  const { files, seen } = mountedFolder(model);
  for (const file of files.values()) {
    if (file.content.kind === "torn") file.content.isAbandoned = false;
    file.isPostdated = false;
    file.isPostdated = isAhead(model, file);
    file.isNews = seen !== undefined && !seen.has(file.file);
    file.changedAtMs = sinceMs;
    endNews(model, file);
  }
}

/** Another policy is in force. */
export function obey(model: NodeModel, policy: PolicyDocument): void {
  // With its first policy an agent learns where to look.
  if (model.policy === undefined) for (const file of mountedFolder(model).files.values()) file.isNews = false;
  model.policy = policy;
  model.active.clear();
}

/** The archives of a pod that is gone whose policy asks for a proof; none where it does not. */
function askedOf(model: NodeModel, key: string): ContainerIdentity[] {
  const { policy } = model;
  if (policy === undefined) return [];
  const owned = archivesOf(model).flatMap((archive) =>
    archive.identity !== undefined && `${archive.identity.namespace}/${archive.identity.pod}` === key
      ? [{ archive, identity: archive.identity }]
      : [],
  );
  const isAsked = owned.some(
    ({ archive, identity }) => isDeletable(archive) && !governs(policy.rules, policy.global, identity).retainOrphan,
  );
  return isAsked ? owned.map(({ identity }) => identity) : [];
}

/** What is deleted: for which reasons that may be told, and from when on it may go, on the monotonic clock. */
export interface Deletion {
  reasons: ReadonlySet<string>;
  fromMs: number;
}

/** One way in which it may end: the model once nothing is to be deleted any more, and what went, by file. */
export interface Outcome {
  model: NodeModel;
  deleted: Map<string, Deletion>;
}

/** A change, in the model alone. */
export type Change = (model: NodeModel) => void;

/**
 * Every way in which it may rightly end when these changes happen to files. That is nearly always one. But archives may
 * be seen together or one after the other, and a limit in bytes that waits for a too fresh archive may hold meanwhile
 * because a larger one went.
 */
export function outcomesOf(
  model: NodeModel,
  changes: readonly Change[],
  { isAtOnce, isEverythingFresh }: { isAtOnce: boolean; isEverythingFresh: boolean },
): Outcome[] {
  const found: Outcome[] = [];
  const groupings = isAtOnce || changes.length > 5 ? [[changes.length]] : groupingsOf(changes.length);
  for (const sizes of groupings.length === 0 ? [[0]] : groupings) {
    let stages: Outcome[] = [{ model: cloneModel(model), deleted: new Map() }];
    let next = 0;
    for (const [index, size] of sizes.entries()) {
      const group = changes.slice(next, next + size);
      next += size;
      const isLast = index === sizes.length - 1;
      stages = stages.flatMap(({ model: before, deleted }) => {
        const after = cloneModel(before);
        const touchedFromMs = performance.now();
        for (const change of group) change(after);
        const touched = namesOf(after, ({ changedAtMs }) => changedAtMs >= touchedFromMs);
        return settle({ model: after, deleted }, { touched, isLast, isEverythingFresh });
      });
      const alike = oneOfEach(stages, (after) => listingOf(mountedFolder(after)).join());
      stages = alike.slice(0, isLast ? MAX_WAYS : 3);
    }
    found.push(...stages);
  }
  return oneOfEach(found, ({ folders, active }) => JSON.stringify([folders.map(listingOf), [...active].sort()]));
}

/** Of the outcomes whose models have the same key the last one, in which whatever went may have gone as in any of them. */
function oneOfEach(outcomes: readonly Outcome[], keyOf: (model: NodeModel) => string): Outcome[] {
  const found = new Map<string, Outcome>();
  for (const outcome of outcomes) {
    const key = keyOf(outcome.model);
    for (const [file, deletion] of found.get(key)?.deleted ?? []) noteDeletion(outcome.deleted, file, deletion);
    found.set(key, outcome);
  }
  return [...found.values()];
}

function noteDeletion(deleted: Map<string, Deletion>, file: string, { reasons, fromMs }: Deletion): void {
  const known = deleted.get(file) ?? { reasons: [], fromMs };
  deleted.set(file, { reasons: new Set([...known.reasons, ...reasons]), fromMs: Math.min(known.fromMs, fromMs) });
}

function namesOf(model: NodeModel, isIt: (file: ModelFile) => boolean): Set<string> {
  return new Set([...mountedFolder(model).files.values()].filter(isIt).map(({ file }) => file));
}

/** Every way to cut so many things, in their order, into groups. */
function groupingsOf(count: number): number[][] {
  if (count === 0) return [];
  const all: number[][] = [[count]];
  for (let first = 1; first < count; first += 1) {
    for (const rest of groupingsOf(count - first)) all.push([first, ...rest]);
  }
  return all;
}

/** What is left when the policy has acted; before the last of the changes, only at once and not on what is fresh. */
function settle(
  { model, deleted }: Outcome,
  { touched, isLast, isEverythingFresh }: { touched: ReadonlySet<string>; isLast: boolean; isEverythingFresh: boolean },
): Outcome[] {
  const { policy } = model;
  if (policy === undefined || !model.isAgentUp) return [{ model, deleted }];
  const isIdle = policy.mode === "DryRun" || mountedFolder(model).isPaused;
  const nowMs = performance.now();
  const recent = namesOf(model, ({ changedAtMs }) => nowMs - changedAtMs < SETTLED_FOR_SURE_MS);
  const starts = [touched];
  if (hasByteLimits(policy)) {
    starts.push(
      recent,
      namesOf(model, ({ changedAtMs }) => nowMs - changedAtMs < SETTLED_MS),
    );
    if (isEverythingFresh) starts.push(namesOf(model, () => true));
  } else if (!isLast || model.gone.size > 0) starts.push(recent);
  const ways: Outcome[] = [];
  const seen = new Set<string>();
  const pending = starts.map((unsettled) => ({ model: cloneModel(model), deleted, unsettled, proved: [] as string[] }));
  for (let way = pending.shift(); way !== undefined && seen.size < MAX_WAYS; way = pending.shift()) {
    const { unsettled, proved } = way;
    const reasons = [...way.deleted].map(([file, deletion]) => [file, ...[...deletion.reasons].sort()].join()).sort();
    const listing = listingOf(mountedFolder(way.model));
    const key = JSON.stringify([listing, [...unsettled].sort(), [...proved].sort(), reasons]);
    if (seen.has(key)) continue;
    seen.add(key);
    const after = { model: way.model, deleted: new Map(way.deleted) };
    const plan = planOf(after.model, way);
    if (!isIdle) {
      for (const { archive, reason } of plan?.deletions ?? []) {
        const { files } = mountedFolder(after.model);
        const restMs = archive.state === "complete" ? SETTLED_MS : 0;
        const fromMs = (files.get(archive.file)?.changedAtMs ?? 0) + restMs;
        noteDeletion(after.deleted, archive.file, { reasons: new Set([reason]), fromMs });
        files.delete(archive.file);
      }
      if ((plan?.deletions.length ?? 0) > 0) {
        pending.push({ ...after, unsettled, proved });
        continue;
      }
    }
    if (!isLast) {
      ways.push(after);
      continue;
    }
    const waiting = isIdle ? [] : (plan?.deferred ?? []).map(({ archive }) => archive.file);
    const unproved = [...after.model.gone].filter(
      (pod) => !proved.includes(pod) && askedOf(after.model, pod).length > 0,
    );
    for (const pod of unproved) {
      const next = cloneModel(after.model);
      // A proof is an event, too.
      for (const identity of askedOf(next, pod)) activate(next, identity);
      pending.push({ model: next, deleted: after.deleted, unsettled, proved: [...proved, pod] });
    }
    if (waiting.length > 0 && !hasByteLimits(policy)) pending.push({ ...after, unsettled: new Set(), proved });
    else {
      for (const file of earliestOf(after.model, waiting)) {
        const fresh = new Set([...unsettled].filter((one) => one !== file));
        pending.push({ model: cloneModel(after.model), deleted: after.deleted, unsettled: fresh, proved });
      }
    }
    if (unproved.length === 0 && waiting.length === 0) ways.push(after);
  }
  // In one of the ways that were not looked at it may go for another reason.
  if (pending.length > 0)
    for (const { deleted: all } of ways) for (const one of all.values()) one.reasons = new Set(REASONS);
  return ways;
}

/** Those that settle next: they have been unchanged for longest, give or take how soon an agent looks. */
function earliestOf(model: NodeModel, files: readonly string[]): string[] {
  const changedAtMs = (file: string) => mountedFolder(model).files.get(file)?.changedAtMs ?? 0;
  const firstMs = Math.min(...files.map(changedAtMs));
  return files.filter((file) => changedAtMs(file) - firstMs < LOOK_MS);
}

function hasByteLimits({ global, rules, node }: PolicyDocument): boolean {
  return (
    node.maxTotalBytes !== undefined ||
    [global, ...rules].some(({ perContainer, perPod, perNamespace }) =>
      [perContainer, perPod, perNamespace].some((limits) => limits?.maxTotalBytes !== undefined),
    )
  );
}
