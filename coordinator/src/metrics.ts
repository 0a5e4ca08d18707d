import type { Report } from "@cro/shared/wire/report";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { AGENT_VIEW_STATES, type AgentView } from "./agents/push.ts";
import type { CertificateName } from "./certs/store.ts";
import type { Ruling } from "./policy/ruling.ts";

/** The coordinator's series. Those of the agents are computed from `agents` when they are asked for. */
export interface Metrics {
  registry: Registry;
  isLeader: Gauge;
  watchSynced: Gauge<"resource">;
  pushDurationSeconds: Histogram;
  pushErrors: Counter;
  policyConflicts: Gauge;
  policies: Gauge<"state">;
  policyRefused: Gauge<"node" | "policy">;
  orphansHeld: Gauge;
  certificateExpiry: Gauge<"certificate">;
}

export function createMetrics({ version, agents }: { version: string; agents: () => readonly AgentView[] }): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  // Gauges whose names end as only counters' may: linters of metrics refuse them.
  for (const kind of ["handles", "requests", "resources"]) {
    registry.removeSingleMetric(`nodejs_active_${kind}`);
    registry.removeSingleMetric(`nodejs_active_${kind}_total`);
  }

  new Gauge({
    name: "checkpoint_coordinator_build_info",
    help: "Always 1; the version of the coordinator is a label.",
    labelNames: ["version"],
    registers,
  }).set({ version }, 1);
  new Gauge({
    name: "checkpoint_coordinator_agents",
    help: "Agents by state: applied has the current directive, pending is about to get it, stale does not answer.",
    labelNames: ["state"],
    registers,
    collect() {
      for (const state of AGENT_VIEW_STATES) {
        this.set({ state }, agents().filter((agent) => agent.state === state).length);
      }
    },
  });
  perNode(registers, agents, {
    name: "checkpoint_node_archives",
    help: "Archives of a node, by its last report.",
    value: (report) => report.archives,
  });
  perNode(registers, agents, {
    name: "checkpoint_node_archive_bytes",
    help: "Bytes of a node's archives, by its last report.",
    value: (report) => report.bytes,
  });

  everyAgentOfNode(registers, agents, {
    name: "checkpoint_node_agent_up",
    help: "1 while every agent of the node answers its coordinator.",
    is: (state) => state !== "stale",
  });
  everyAgentOfNode(registers, agents, {
    name: "checkpoint_node_policy_applied",
    help: "1 while every agent of the node has the current directive.",
    is: (state) => state === "applied",
  });

  return {
    registry,
    isLeader: new Gauge({
      name: "checkpoint_coordinator_is_leader",
      help: "1 while this coordinator is the one that directs the agents.",
      registers,
    }),
    watchSynced: new Gauge({
      name: "checkpoint_coordinator_watch_synced",
      help: "1 while what is known of a resource is complete and current.",
      labelNames: ["resource"],
      registers,
    }),
    pushDurationSeconds: new Histogram({
      name: "checkpoint_coordinator_push_duration_seconds",
      help: "How long pushing a directive to an agent took, successful or not.",
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
      registers,
    }),
    pushErrors: new Counter({
      name: "checkpoint_coordinator_push_errors_total",
      help: "Directives that an agent did not take.",
      registers,
    }),
    policies: new Gauge({
      name: "checkpoint_policies",
      help: "Policy resources by state: accepted, refused because of their content, or ignored because of their namespace.",
      labelNames: ["state"],
      registers,
    }),
    policyRefused: new Gauge<"node" | "policy">({
      name: "checkpoint_node_policy_refused",
      help: "1 for each node that a refused policy resource is for.",
      labelNames: ["node", "policy"] satisfies ["node", "policy"],
      registers,
    }),
    policyConflicts: new Gauge({
      name: "checkpoint_policy_conflicts",
      help: "Policy resources that do not act because another one rules their nodes.",
      registers,
    }),
    orphansHeld: new Gauge({
      name: "checkpoint_orphans_held",
      help: "Proofs of orphans that are held back because there are suspiciously many at once.",
      registers,
    }),
    certificateExpiry: new Gauge<"certificate">({
      name: "checkpoint_certificate_expiry_timestamp_seconds",
      help: "When a certificate ends.",
      labelNames: ["certificate"] satisfies ["certificate"],
      registers,
    }),
  };
}

/** Counts the policy resources of a ruling by what became of them, and names the nodes of those that are refused. */
export function countPolicies(metrics: Metrics, { resources }: Pick<Ruling, "resources">): void {
  const counts = { accepted: 0, refused: 0, ignored: 0 };
  metrics.policyRefused.reset();
  for (const { key, isNamespaceAllowed, problems, matched } of resources) {
    if (isNamespaceAllowed && problems.length > 0) {
      for (const node of matched) metrics.policyRefused.set({ node, policy: key }, 1);
    }
    counts[!isNamespaceAllowed ? "ignored" : problems.length > 0 ? "refused" : "accepted"] += 1;
  }
  for (const [state, count] of Object.entries(counts)) metrics.policies.set({ state }, count);
}

/** Forgets what only a leader knows: it would stay as it was, and alarm for as long as this process stands by. */
export function forgetLeadership(metrics: Metrics): void {
  for (const gauge of [metrics.isLeader, metrics.policyConflicts, metrics.orphansHeld]) gauge.set(0);
  metrics.watchSynced.reset();
  metrics.certificateExpiry.reset();
  metrics.policies.reset();
  metrics.policyRefused.reset();
}

/** Sets when a certificate ends, from milliseconds since 1970. */
export function setExpiry(metrics: Metrics, certificate: CertificateName, notAfterMs: number): void {
  metrics.certificateExpiry.set({ certificate }, notAfterMs / 1000);
}

/** A gauge of each node: 1 while the state of all of its agents is one that is asked for, else 0. */
function everyAgentOfNode(
  registers: Registry[],
  agents: () => readonly AgentView[],
  { name, help, is }: { name: string; help: string; is: (state: AgentView["state"]) => boolean },
): void {
  new Gauge({
    name,
    help,
    labelNames: ["node"],
    registers,
    collect() {
      // A node that is gone leaves no series behind.
      this.reset();
      for (const [node, views] of Map.groupBy(agents(), ({ address }) => address.node)) {
        this.set({ node }, views.every(({ state }) => is(state)) ? 1 : 0);
      }
    },
  });
}

function perNode(
  registers: Registry[],
  agents: () => readonly AgentView[],
  { name, help, value }: { name: string; help: string; value: (report: Report) => number },
): void {
  new Gauge({
    name,
    help,
    labelNames: ["node"],
    registers,
    collect() {
      // A node that is gone leaves no series behind.
      this.reset();
      for (const { address, report } of agents()) {
        if (report !== undefined) this.set({ node: address.node }, value(report));
      }
    },
  });
}
