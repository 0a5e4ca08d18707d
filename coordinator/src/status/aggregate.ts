import type { Condition, ConditionType, PolicyStatus } from "@cro/shared/crd/status";
import { getOrMake } from "@cro/shared/get-or-make";
import { formatProblems } from "@cro/shared/policy/compile";
import { formatBytes, formatQuantity } from "@cro/shared/quantity";
import {
  type ArchiveSum,
  OBSTACLES,
  type Obstacle,
  type PinnedLimit,
  REPORT_LIMITS,
  type Report,
  type ReportedLimit,
  scopeOfLimit,
} from "@cro/shared/wire/report";
import type { AgentView } from "../agents/push.ts";
import { type HeldProofs, NAMED_PODS } from "../liveness/hold.ts";
import type { ReadyPolicy } from "../policy/judge.ts";
import type { Conflict, NodeRuling, ResourceRuling } from "../policy/ruling.ts";

/** The definition's limit: what is longer is no status at all to the API server. */
const MAX_MESSAGE = 32_768;
/** How many nodes a message names. */
const NAMED_NODES = 10;
/** How many other resources a message names. */
const NAMED_RULERS = 10;
/** How many limits a message tells of. */
const NAMED_LIMITS = 5;

/** How many reasons a status tells apart: an agent may give any word for one. */
const MAX_REASONS = 20;
const OTHER_REASONS = "other";

/** Why another resource ranks higher. */
const RANKS_HIGHER: Record<Conflict["why"], string> = {
  priority: "has a higher priority",
  age: "is older",
  name: "has the same age, comes first by its name",
  keptRank: "has its rank from the first resource of its name",
};

const DURATION_UNITS: ReadonlyArray<readonly [string, number]> = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
];

export interface StatusInput {
  ruling: ResourceRuling;
  /** What rules each node. */
  nodes: ReadonlyMap<string, NodeRuling>;
  /** The agent of each node that has one. */
  agents: ReadonlyMap<string, AgentView>;
  /** Why the agents of other nodes cannot be called, as far as that is known. */
  starts: ReadonlyMap<string, string>;
  /** Held proofs of orphans, by node. */
  held: ReadonlyMap<string, HeldProofs>;
  /** RFC 3339. */
  now: string;
  /** The monotonic clock of the rulings. */
  nowMs: number;
}

/** What is written under a resource's `status`, from what the agents of its nodes have reported. */
export function aggregateStatus(input: StatusInput): PolicyStatus {
  const { ruling, nodes, agents, held, now } = input;
  const ruled = ruling.matched.filter((node) => rulesNode(ruling.key, nodes.get(node)));
  const waiting = ruling.matched.filter((node) => waitsForNode(ruling.key, nodes.get(node)));
  const desired = [...ruled, ...waiting];
  const views = desired.map((node) => agents.get(node));
  const ready = views.filter((view) => view?.state === "applied" || view?.state === "pending").length;
  const reports = views.flatMap((view) =>
    view?.report === undefined ? [] : [{ ...view.report, node: view.address.node }],
  );
  const sum = (value: (report: (typeof reports)[number]) => number) =>
    // A node that is not to be trusted may report any number; the sum must stay one that the API server takes.
    Math.min(
      Number.MAX_SAFE_INTEGER,
      reports.reduce((total, report) => total + value(report), 0),
    );
  const bytes = sum((report) => report.bytes);
  const applied = ruled.filter((node) => agents.get(node)?.state === "applied").length;
  const document = ruling.policy?.compiled.document;

  const unmounted = reports.filter(({ directory }) => directory.state !== "watching");
  const unreachable = reports.flatMap(({ node, unreachable: limits }) => limits.map((limit) => ({ node, ...limit })));
  const unreachableOmitted = sum((report) => report.unreachableOmitted);
  const pinned = reports.flatMap(({ node, pinnedLimits = [] }) => pinnedLimits.map((limit) => ({ node, ...limit })));
  const pinnedOmitted = sum((report) => report.pinnedLimitsOmitted ?? 0);
  const paused = reports.filter((report) => report.paused).map(({ node }) => node);
  const heldNodes = ruled.filter((node) => (held.get(node)?.count ?? 0) > 0);
  const plan = sumPlans(reports);
  const accepted = acceptedOf(ruling);
  const enforcing = enforcingOf(ruling, { ruled, waiting, applied }, input);
  const others = [
    flag("Paused", paused.length > 0, {
      reason: "PauseFile",
      message: () => `a .pause stops all deletion on ${nameNodes(paused)}`,
    }),
    flag("Conflict", ruling.conflicts.size > 0, {
      reason: "Outranked",
      message: () => describeConflicts(ruling.conflicts, nodes),
    }),
    flag("UnitlessQuantity", (ruling.policy?.compiled.unitless.length ?? 0) > 0, {
      reason: "TakenAsMiB",
      message: () => formatProblems(ruling.policy?.compiled.unitless ?? []),
    }),
    flag("NoLimit", (ruling.policy?.compiled.unlimited.length ?? 0) > 0, {
      reason: "ExemptsItsScope",
      message: () => formatProblems(ruling.policy?.compiled.unlimited ?? []),
    }),
    flag("DirectoryNotMounted", unmounted.length > 0, {
      reason: "NotWatched",
      message: () =>
        `${nameNodes(unmounted.map(({ node }) => node))}: ${unmounted[0]?.directory.message ?? unmounted[0]?.directory.state}`,
    }),
    flag("LimitUnreachable", unreachable.length > 0, {
      reason: "NothingLeftToDelete",
      message: () => describeLimits(unreachable, unreachableOmitted),
    }),
    flag("LimitPinned", pinned.length > 0, {
      reason: "EachNewOneGoes",
      message: () => describePins(pinned, pinnedOmitted),
    }),
    flag("OrphansHeld", heldNodes.length > 0, {
      reason: "SuspiciouslyMany",
      message: () => describeHeld(heldNodes, held),
    }),
  ];
  const conditions: Array<Omit<Condition, "lastTransitionTime">> = [
    { type: "Ready", ...readyOf({ accepted, enforcing, others, reports, unreachable, plan, mode: document?.mode }) },
    { type: "Accepted", ...accepted },
    { type: "Enforcing", ...enforcing },
    ...others,
  ];
  // Of what was deleted before the resource existed, it says nothing.
  const lastEnforcementTime = reports
    .filter(({ node }) => rulesNode(ruling.key, nodes.get(node)))
    .flatMap(({ deletions }) => deletions.findLast(({ time }) => time !== undefined)?.time ?? [])
    .filter((time) => Date.parse(time) >= Date.parse(ruling.resource.createdAt))
    .reduce<string | undefined>(latest, undefined);

  return {
    observedGeneration: ruling.resource.generation,
    conditions: conditions.map((condition) => ({
      ...condition,
      message: condition.message.slice(0, MAX_MESSAGE),
      observedGeneration: ruling.resource.generation,
      lastTransitionTime: now,
    })),
    ...(document && { mode: document.mode }),
    nodes: {
      desired: desired.length,
      ready,
      applied,
      // A node without any agent is as stale as one whose agent does not answer.
      stale: desired.length - ready,
      summary: `${applied}/${desired.length}`,
    },
    archives: sum((report) => report.archives),
    bytes,
    size: formatBytes(bytes),
    ...(plan !== undefined && { planned: plan }),
    ...fullestOf(reports),
    pinned: sum((report) => report.pinned),
    incomplete: sum((report) => report.states.incomplete ?? 0),
    unidentified: sum((report) => report.states.unidentified ?? 0),
    ...(ruling.policy && { effectiveGlobalPolicy: effectiveGlobalPolicy(ruling.policy) }),
    ...(lastEnforcementTime !== undefined && { lastEnforcementTime }),
    ...lastReportOf(views),
  };
}

/**
 * A status as it follows the one before, whoever wrote that: a condition whose status is the same has not changed since,
 * and what was enforced once stays so.
 */
export function continueStatus(status: PolicyStatus, previous: PolicyStatus): PolicyStatus {
  const lastEnforcementTime = latest(previous.lastEnforcementTime, status.lastEnforcementTime);
  return {
    ...status,
    ...(status.conditions && {
      conditions: status.conditions.map((condition) => {
        const before = previous.conditions?.find(({ type }) => type === condition.type);
        return before?.status === condition.status
          ? { ...condition, lastTransitionTime: before.lastTransitionTime }
          : condition;
      }),
    }),
    ...(lastEnforcementTime !== undefined && { lastEnforcementTime }),
  };
}

type Verdict = Pick<Condition, "status" | "reason" | "message">;

function acceptedOf({ problems, isNamespaceAllowed, resource, policy }: ResourceRuling): Verdict {
  if (!isNamespaceAllowed) {
    const message = `policies of namespace ${resource.namespace} are not among those that this installation obeys`;
    return { status: "False", reason: "NamespaceNotAllowed", message };
  }
  if (problems.length === 0) return { status: "True", reason: "Valid", message: "the policy is well-formed" };
  const consequence = policy === undefined ? "nothing is pushed" : "the last good version stays in force";
  return { status: "False", reason: "Invalid", message: `${formatProblems(problems)} (${consequence})` };
}

function enforcingOf(
  { policy, isNamespaceAllowed, matched }: ResourceRuling,
  state: { ruled: string[]; waiting: string[]; applied: number },
  { agents, starts, nodes, nowMs }: StatusInput,
): Verdict {
  const { ruled, waiting, applied } = state;
  if (!isNamespaceAllowed || policy === undefined) {
    return { status: "False", reason: "NotAccepted", message: "no version of this policy can be enforced" };
  }
  const rest = describeRest(waiting, { nodes, nowMs });
  if (rest !== undefined) return { status: "False", reason: "Resting", message: rest };
  if (matched.length === 0) {
    return { status: "False", reason: "NoMatchingNodes", message: `it matches none of ${nodes.size} nodes` };
  }
  if (ruled.length + waiting.length === 0) {
    const message = `it matches ${matched.length} of ${nodes.size} nodes, and other policies rule all of them (see Conflict)`;
    return { status: "False", reason: "Outranked", message };
  }
  if (applied === ruled.length + waiting.length) {
    const untold = ruled.filter((node) => agents.get(node)?.problem !== undefined);
    const held = [
      untold[0] === undefined ? undefined : `${nameNodes(untold)}: ${agents.get(untold[0])?.problem}`,
      policy.compiled.document.mode === "DryRun" ? "DryRun: nothing is deleted" : undefined,
    ].filter((text) => text !== undefined);
    const message = [`on all of ${ruled.length} nodes`, ...held].join("; ");
    return { status: "True", reason: "Applied", message };
  }
  const missing = [...ruled.filter((node) => agents.get(node)?.state !== "applied"), ...waiting];
  const problemOf = (node: string) => (agents.has(node) ? agents.get(node)?.problem : starts.get(node));
  const problem = missing.map(problemOf).find((text) => text !== undefined);
  return {
    status: "False",
    reason: "Pending",
    message: `not yet on ${nameNodes(missing)}${problem === undefined ? "" : `: ${problem}`}`,
  };
}

type Planned = NonNullable<PolicyStatus["planned"]>;

/** What would go on all nodes; undefined until an agent has told. Its bytes are unknown if one tells its archives alone. */
function sumPlans(reports: readonly Report[]): Planned | undefined {
  if (reports.length === 0) return undefined;
  const total = { archives: 0, bytes: 0 };
  const byReason = new Map<string, ArchiveSum>();
  let isInBytes = true;
  const add = (to: ArchiveSum, { archives, bytes }: ArchiveSum) => {
    to.archives = Math.min(Number.MAX_SAFE_INTEGER, to.archives + archives);
    to.bytes = Math.min(Number.MAX_SAFE_INTEGER, to.bytes + bytes);
  };
  for (const { planned, plan } of reports) {
    add(total, { archives: planned, bytes: plan?.bytes ?? 0 });
    if (planned > 0 && plan === undefined) isInBytes = false;
    for (const [named, sum] of Object.entries(plan?.byReason ?? {})) {
      const reason = byReason.has(named) || byReason.size < MAX_REASONS ? named : OTHER_REASONS;
      add(
        getOrMake(byReason, reason, () => ({ archives: 0, bytes: 0 })),
        sum,
      );
    }
  }
  const sums = { archives: total.archives, byReason: Object.fromEntries(byReason) };
  return isInBytes ? { ...sums, bytes: total.bytes } : sums;
}

/** The node whose file system is fullest, of those whose agents tell; a node that is not to be trusted tells at most 100 %. */
function fullestOf(reports: ReadonlyArray<Report & { node: string }>): Pick<PolicyStatus, "fullest"> {
  let fullest: PolicyStatus["fullest"];
  for (const { node, disk } of reports) {
    if (disk?.usedBytes === undefined || disk.usedBytes + disk.freeBytes === 0) continue;
    const usedPercent = Math.floor((100 * disk.usedBytes) / (disk.usedBytes + disk.freeBytes));
    if (fullest !== undefined && usedPercent <= fullest.usedPercent) continue;
    fullest = { node, usedPercent, summary: `${node} ${usedPercent}%` };
  }
  return fullest === undefined ? {} : { fullest };
}

function lastReportOf(views: ReadonlyArray<AgentView | undefined>): Pick<PolicyStatus, "lastReportTime"> {
  const lastMs = views.reduce((last, view) => Math.max(last, view?.heardAtMs ?? 0), 0);
  return lastMs === 0 ? {} : { lastReportTime: new Date(lastMs).toISOString() };
}

/**
 * Whether the policy does its work, and the first thing that is wrong if not. What is told beside a Ready that is True is
 * what an operator should know all the same.
 */
function readyOf(state: {
  accepted: Verdict;
  enforcing: Verdict;
  others: ReadonlyArray<Omit<Condition, "lastTransitionTime">>;
  reports: ReadonlyArray<Report & { node: string }>;
  unreachable: ReadonlyArray<ReportedLimit & { node: string }>;
  plan: Planned | undefined;
  mode: string | undefined;
}): Verdict {
  const { accepted, enforcing, others, reports, unreachable, plan, mode } = state;
  const held = describePlan(plan, mode);
  const withPlan = (verdict: Verdict): Verdict =>
    held === undefined ? verdict : { ...verdict, message: `${verdict.message}; ${held}` };
  const trueOf = (type: ConditionType) =>
    others.find((condition) => condition.type === type && condition.status === "True");
  const unready = [accepted, enforcing].find(({ status }) => status !== "True");
  if (unready !== undefined) return { ...unready, status: "False" };
  for (const type of ["DirectoryNotMounted", "Paused"] as const) {
    const found = trueOf(type);
    if (found !== undefined) return withPlan({ status: "False", reason: type, message: found.message });
  }
  const failing = describeFailing(reports, unreachable);
  if (failing !== undefined) return withPlan({ status: "False", reason: "DeletionsFailing", message: failing });
  for (const type of ["LimitUnreachable", "LimitPinned", "OrphansHeld"] as const) {
    const found = trueOf(type);
    if (found !== undefined) return withPlan({ status: "True", reason: type, message: found.message });
  }
  return withPlan({ status: "True", reason: mode === "DryRun" ? "DryRun" : "Enforcing", message: enforcing.message });
}

function describePlan(plan: Planned | undefined, mode: string | undefined): string | undefined {
  if (plan === undefined || plan.archives === 0) return undefined;
  const { archives, bytes } = plan;
  const size = bytes === undefined ? "" : ` (${formatBytes(bytes)}B)`;
  const amount = `${archives} ${archives === 1 ? "archive" : "archives"}${size}`;
  if (mode === "DryRun") return `${amount} would be deleted, were it not for DryRun`;
  return `${amount} would be deleted with the next event of their scopes, or once nothing is paused`;
}

function rulesNode(key: string, rules: NodeRuling | undefined): boolean {
  return rules?.source === "resource" && rules.resource === key;
}

/** Whether a resource will rule a node that still rests, or an agent that has yet to tell what it obeys. */
function waitsForNode(key: string, rules: NodeRuling | undefined): boolean {
  return (rules?.source === "rest" || rules?.source === "unknown") && rules.next === key;
}

/** Which nodes of a resource rest, after what, and for how long; undefined if none does. */
function describeRest(waiting: string[], { nodes, nowMs }: Pick<StatusInput, "nodes" | "nowMs">): string | undefined {
  const resting = waiting.flatMap((node) => {
    const rules = nodes.get(node);
    return rules?.source === "rest" ? [{ node, ...rules }] : [];
  });
  if (resting.length === 0) return undefined;
  const names = nameNodes(resting.map(({ node }) => node));
  const minutes = Math.max(1, ...resting.map(({ untilMs }) => Math.ceil((untilMs - nowMs) / 60_000)));
  const ruled = [...new Set(resting.map(({ after }) => after ?? "another policy"))].slice(0, NAMED_RULERS).join(", ");
  const isOne = resting.length === 1;
  // Of what is not known no rule is kept.
  const acts = resting.every(({ after }) => after === undefined)
    ? "until then no rule is pushed there"
    : "until then only the node rules of that policy act there";
  return `${names} ${isOne ? "rests" : "rest"} for ${minutes} more ${minutes === 1 ? "minute" : "minutes"}: ${ruled} ruled ${isOne ? "it" : "them"} and went away; ${acts}`;
}

function describeHeld(nodes: string[], held: ReadonlyMap<string, HeldProofs>): string {
  const proofs = nodes.flatMap((node) => held.get(node) ?? []);
  const total = proofs.reduce((sum, { podCount }) => sum + podCount, 0);
  const named = proofs.flatMap(({ pods }) => pods).slice(0, NAMED_PODS);
  const more = total > named.length ? ` and ${total - named.length} more` : "";
  const pods = total === 1 ? "1 pod seems" : `${total} pods seem`;
  return `${nameNodes(nodes)}: ${pods} to be gone at once (${named.join(", ")}${more}); their archives wait for a second proof`;
}

/** Which resources rank higher, why, and on which nodes. */
function describeConflicts(conflicts: ResourceRuling["conflicts"], nodes: StatusInput["nodes"]): string {
  const kinds = Map.groupBy(conflicts, ([node, { ruler, why }]) => {
    const verb = rulesNode(ruler, nodes.get(node)) ? "rules" : "is the next to rule";
    return `${RANKS_HIGHER[why]} and ${verb}`;
  });
  return [...kinds]
    .map(([why, same]) => {
      const rulers = [...new Set(same.map(([, { ruler }]) => ruler))];
      const more = rulers.length > NAMED_RULERS ? ` and ${rulers.length - NAMED_RULERS} more` : "";
      return `${rulers.slice(0, NAMED_RULERS).join(", ")}${more} ${why} ${nameNodes(same.map(([node]) => node))}`;
    })
    .join("; ");
}

function flag(
  type: ConditionType,
  isTrue: boolean,
  { reason, message }: { reason: string; message: () => string },
): Omit<Condition, "lastTransitionTime"> {
  return isTrue
    ? { type, status: "True", reason, message: message() }
    : { type, status: "False", reason: "None", message: "" };
}

/** Names the first ten of these nodes, in the order given, and tells how many more there are. */
export function nameNodes(nodes: string[]): string {
  const named = nodes.slice(0, NAMED_NODES).join(", ");
  return nodes.length > NAMED_NODES ? `${named} and ${nodes.length - NAMED_NODES} more nodes` : named;
}

function describeLimits(limits: Array<ReportedLimit & { node: string }>, omitted: number): string {
  const named = limits.slice(0, NAMED_LIMITS).map((one) => {
    const { node, limit, wanted, freed, unit, obstacles, codes } = one;
    const amount = (value: number) => (unit === "bytes" ? `${formatBytes(value)}B` : `${value} ${unit}`);
    const over = `${node}: ${limit} of ${scopeOfLimit(one)} is exceeded by ${amount(wanted)}, of which ${amount(freed)} could go`;
    return `${over}${describeObstacles(obstacles, codes)}`;
  });
  const more = limits.length - named.length + omitted;
  return `${named.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

function describePins(limits: Array<PinnedLimit & { node: string }>, omitted: number): string {
  const named = limits.slice(0, NAMED_LIMITS).map((one) => {
    const { node, maxCheckpoints, pinned } = one;
    return `${node}: ${scopeOfLimit(one)} has ${pinned} pinned of at most ${maxCheckpoints}, so that each new archive goes at once`;
  });
  const more = limits.length - named.length + omitted;
  return `${named.join("; ")}${more > 0 ? `; and ${more} more` : ""}`;
}

/** On which nodes archives that must go fail to be deleted, and which limits do not hold for it; undefined if none do. */
function describeFailing(
  reports: ReadonlyArray<Report & { node: string }>,
  unreachable: ReadonlyArray<ReportedLimit & { node: string }>,
): string | undefined {
  const nodes = reports.filter(({ failing }) => (failing?.archives ?? 0) > 0);
  const limits = unreachable.filter(({ obstacles }) => (obstacles?.failing ?? 0) > 0);
  if (nodes.length + limits.length === 0) return undefined;
  const archives = nodes.reduce((sum, { failing }) => sum + (failing?.archives ?? 0), 0);
  const codes = [...new Set(nodes.flatMap(({ failing }) => failing?.codes ?? []))].slice(0, REPORT_LIMITS.failingCodes);
  const count = archives === 1 ? "1 archive fails" : `${archives} archives fail`;
  const why = codes.length > 0 ? ` (${codes.join(", ")})` : "";
  return [
    ...(nodes.length > 0 ? [`${count} to be deleted${why} on ${nameNodes(nodes.map(({ node }) => node))}`] : []),
    ...(limits.length > 0 ? [describeLimits(limits, 0)] : []),
  ].join("; ");
}

const OBSTACLE_WORDS: Record<Obstacle, string> = {
  pinned: "pinned",
  held: "held",
  floor: "kept by the floor",
  failing: "failing to be deleted",
  unsettled: "not settled",
};

/** What stands in the way of a limit; nothing if its agent does not tell. */
function describeObstacles(obstacles: ReportedLimit["obstacles"], codes: readonly string[] = []): string {
  const told = OBSTACLES.flatMap((name) => {
    const archives = obstacles?.[name] ?? 0;
    const why = name === "failing" && codes.length > 0 ? ` (${codes.join(", ")})` : "";
    return archives > 0 ? [`${archives} ${OBSTACLE_WORDS[name]}${why}`] : [];
  });
  return told.length === 0 ? "" : `; in the way: ${told.join(", ")}`;
}

/** The global policy as one would write it, defaults filled in; what is off is left out. */
function effectiveGlobalPolicy({ compiled }: ReadyPolicy): PolicyStatus["effectiveGlobalPolicy"] {
  const { global } = compiled.document;
  const written = {
    retainOrphan: global.retainOrphan,
    maxCheckpointsPerContainer: global.perContainer?.maxCheckpoints,
    maxCheckpointsPerPod: global.perPod?.maxCheckpoints,
    maxCheckpointsPerNamespace: global.perNamespace?.maxCheckpoints,
    maxCheckpointSize: quantity(global.maxCheckpointBytes),
    maxTotalSizePerContainer: quantity(global.perContainer?.maxTotalBytes),
    maxTotalSizePerPod: quantity(global.perPod?.maxTotalBytes),
    maxTotalSizePerNamespace: quantity(global.perNamespace?.maxTotalBytes),
    maxAge: duration(global.maxAgeMs),
    minCheckpointsPerContainer: global.minCheckpoints,
  };
  return JSON.parse(JSON.stringify(written)) as PolicyStatus["effectiveGlobalPolicy"];
}

/** A quantity with a suffix always, for a bare number would be read as MiB. */
function quantity(bytes: number | undefined): string | undefined {
  if (bytes === undefined) return undefined;
  const text = formatQuantity(bytes);
  return /\d$/.test(text) ? `${bytes / 1000}k` : text;
}

/** A duration in its largest whole unit. */
function duration(milliseconds: number | undefined): string | undefined {
  if (milliseconds === undefined) return undefined;
  const [unit, sizeMs] = DURATION_UNITS.find(([, size]) => milliseconds % size === 0) ?? ["ms", 1];
  return `${milliseconds / sizeMs}${unit}`;
}

function latest(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Date.parse(a) >= Date.parse(b) ? a : b;
}
