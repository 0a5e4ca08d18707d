import type { Condition, ConditionType, PolicyStatus } from "@cro/shared/crd/status";
import { formatProblem } from "@cro/shared/policy/compile";
import { formatBytes, formatQuantity } from "@cro/shared/quantity";
import type { UnreachableLimit } from "@cro/shared/wire/report";
import type { AgentView } from "../agents/push.ts";
import type { NodeRuling, ResourceRuling } from "../policy/ruling.ts";

/** How many nodes a message names. */
const NAMED_NODES = 10;
/** How many limits a message tells of. */
const NAMED_LIMITS = 5;

export interface StatusInput {
  ruling: ResourceRuling;
  /** What rules each node. */
  nodes: ReadonlyMap<string, NodeRuling>;
  /** The agent of each node that has one. */
  agents: ReadonlyMap<string, AgentView>;
  /** Held proofs of orphans, by node. */
  held: ReadonlyMap<string, number>;
  previous: PolicyStatus | undefined;
  /** RFC 3339. */
  now: string;
}

/** What is written under a resource's `status`, from what the agents of its nodes have reported. */
export function aggregateStatus(input: StatusInput): PolicyStatus {
  const { ruling, nodes, agents, held, previous, now } = input;
  const ruled = ruling.matched.filter((node) => {
    const rules = nodes.get(node);
    return rules?.source === "resource" && rules.resource === ruling.key;
  });
  const views = ruled.map((node) => agents.get(node));
  const inState = (state: AgentView["state"]) => views.filter((view) => view?.state === state).length;
  const reports = views.flatMap((view) =>
    view?.report === undefined ? [] : [{ ...view.report, node: view.address.node }],
  );
  const sum = (value: (report: (typeof reports)[number]) => number) =>
    reports.reduce((total, report) => total + value(report), 0);
  const bytes = sum((report) => report.bytes);
  const applied = inState("applied");
  const document = ruling.policy?.compiled.document;

  const unmounted = reports.filter(({ directory }) => directory.state !== "watching");
  const unreachable = reports.flatMap(({ node, unreachable: limits }) => limits.map((limit) => ({ node, ...limit })));
  const heldNodes = ruled.filter((node) => (held.get(node) ?? 0) > 0);
  const accepted = acceptedOf(ruling);
  const conditions: Array<Omit<Condition, "lastTransitionTime">> = [
    { type: "Accepted", ...accepted },
    { type: "Enforcing", ...enforcingOf(ruling, { ruled, applied, nodes, agents }) },
    flag("Conflict", ruling.conflicts.size > 0, {
      reason: "OlderResourceRules",
      message: () => {
        const rulers = [...new Set(ruling.conflicts.values())].join(", ");
        return `${rulers} is older and rules ${nameNodes([...ruling.conflicts.keys()])}`;
      },
    }),
    flag("UnitlessQuantity", (ruling.policy?.compiled.unitless.length ?? 0) > 0, {
      reason: "TakenAsMiB",
      message: () => (ruling.policy?.compiled.unitless ?? []).map(formatProblem).join("; "),
    }),
    flag("DirectoryNotMounted", unmounted.length > 0, {
      reason: "NotWatched",
      message: () =>
        `${nameNodes(unmounted.map(({ node }) => node))}: ${unmounted[0]?.directory.message ?? unmounted[0]?.directory.state}`,
    }),
    flag("LimitUnreachable", unreachable.length > 0, {
      reason: "NothingLeftToDelete",
      message: () => describeLimits(unreachable),
    }),
    flag("OrphansHeld", heldNodes.length > 0, {
      reason: "SuspiciouslyMany",
      message: () =>
        `${nameNodes(heldNodes)}: ${heldNodes.reduce((total, node) => total + (held.get(node) ?? 0), 0)} pods seem to be gone at once; their archives wait for a second proof`,
    }),
  ];
  const lastDeletion = reports
    .flatMap(({ deletions }) => deletions.map(({ time }) => time))
    .sort()
    .at(-1);
  const lastEnforcementTime = latest(previous?.lastEnforcementTime, lastDeletion);

  return {
    observedGeneration: ruling.resource.generation,
    conditions: conditions.map((condition) =>
      withTransition(condition, { previous, now, generation: ruling.resource.generation }),
    ),
    ...(document && { mode: document.mode }),
    nodes: {
      desired: ruled.length,
      ready: applied + inState("pending"),
      applied,
      // A node without any agent is as stale as one whose agent does not answer.
      stale: ruled.length - applied - inState("pending"),
      summary: `${applied}/${ruled.length}`,
    },
    archives: sum((report) => report.archives),
    bytes,
    size: formatBytes(bytes),
    pinned: sum((report) => report.pinned),
    incomplete: sum((report) => report.states.incomplete ?? 0),
    unidentified: sum((report) => report.states.unidentified ?? 0),
    ...(ruling.policy && { effectiveGlobalPolicy: effectiveGlobalPolicy(ruling.policy) }),
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
  return { status: "False", reason: "Invalid", message: `${problems.map(formatProblem).join("; ")} (${consequence})` };
}

function enforcingOf(
  { policy, isNamespaceAllowed }: ResourceRuling,
  state: { ruled: string[]; applied: number; nodes: StatusInput["nodes"]; agents: StatusInput["agents"] },
): Verdict {
  const { ruled, applied, agents } = state;
  if (!isNamespaceAllowed || policy === undefined) {
    return { status: "False", reason: "NotAccepted", message: "no version of this policy can be enforced" };
  }
  if (ruled.length === 0) return { status: "False", reason: "NoNodes", message: "it rules no node" };
  if (applied === ruled.length)
    return { status: "True", reason: "Applied", message: `on all of ${ruled.length} nodes` };
  const missing = ruled.filter((node) => agents.get(node)?.state !== "applied");
  const problem = missing.map((node) => agents.get(node)?.problem).find((text) => text !== undefined);
  return {
    status: "False",
    reason: "Pending",
    message: `not yet on ${nameNodes(missing)}${problem === undefined ? "" : `: ${problem}`}`,
  };
}

function flag(
  type: ConditionType,
  isTrue: boolean,
  { reason, message }: { reason: string; message: () => string },
): Omit<Condition, "lastTransitionTime"> {
  return isTrue
    ? { type, status: "True", reason, message: message().slice(0, 32_768) }
    : { type, status: "False", reason: "None", message: "" };
}

function withTransition(
  condition: Omit<Condition, "lastTransitionTime">,
  { previous, now, generation }: { previous: PolicyStatus | undefined; now: string; generation: number },
): Condition {
  const before = previous?.conditions?.find(({ type }) => type === condition.type);
  const lastTransitionTime = before?.status === condition.status ? before.lastTransitionTime : now;
  return { ...condition, observedGeneration: generation, lastTransitionTime };
}

/** The first ten nodes by name, and how many more there are. */
export function nameNodes(nodes: string[]): string {
  const named = nodes.slice(0, NAMED_NODES).join(", ");
  return nodes.length > NAMED_NODES ? `${named} and ${nodes.length - NAMED_NODES} more nodes` : named;
}

function describeLimits(limits: Array<UnreachableLimit & { node: string }>): string {
  const told = limits.slice(0, NAMED_LIMITS).map(({ node, limit, namespace, pod, container, wanted, freed, unit }) => {
    const scope = [namespace, pod, container].filter((name) => name !== undefined).join("/") || "the node";
    const amount = (value: number) => (unit === "bytes" ? `${formatBytes(value)}B` : `${value} archives`);
    return `${node}: ${limit} of ${scope} is exceeded by ${amount(wanted)}, of which ${amount(freed)} could go`;
  });
  const more = limits.length > NAMED_LIMITS ? `; and ${limits.length - NAMED_LIMITS} more` : "";
  return `${told.join("; ")}${more}`;
}

/** The global policy as one would write it, defaults filled in; what is off is left out. */
function effectiveGlobalPolicy({
  compiled,
}: NonNullable<ResourceRuling["policy"]>): PolicyStatus["effectiveGlobalPolicy"] {
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
    maxAge: global.maxAgeMs === undefined ? undefined : `${global.maxAgeMs}ms`,
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

function latest(a: string | undefined, b: string | undefined): string | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return Date.parse(a) >= Date.parse(b) ? a : b;
}
