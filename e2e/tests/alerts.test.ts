import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { parse, stringify } from "yaml";
import { archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import type { AnyObject } from "../support/kube.ts";
import { CHART } from "../support/package.ts";
import { aFolder, ROOT, until } from "../support/processes.ts";
import { findPrometheus, startPrometheus } from "../support/prometheus.ts";
import { aPolicyFile, series, startPair, writePolicy } from "../support/standalone.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const RULES = join(CHART, "files/alerts.yaml");
const rules: AnyObject[] = parse(readFileSync(RULES, "utf8")).groups.flatMap(({ rules: group }: AnyObject) => group);
const dashboard: AnyObject = JSON.parse(readFileSync(join(CHART, "files/dashboard.json"), "utf8"));

type Series = Record<string, string>;

/** For each alert: what makes it fire and how often, what must not, and after how long. Values as promtool writes them. */
const CASES: Record<string, { after: string; fires: Series; times?: number; silent: Series[] }> = {
  CheckpointDiskNearlyFull: {
    after: "15m",
    fires: {
      // Of 100 blocks five are reserved for root: 86 of 95 is over nine tenths.
      'checkpoint_directory_used_bytes{node="a"}': "86+0x60",
      'checkpoint_directory_free_bytes{node="a"}': "9+0x60",
      'checkpoint_directory_used_bytes{node="b"}': "45+0x60",
      'checkpoint_directory_free_bytes{node="b"}': "50+0x60",
    },
    silent: [
      {
        'checkpoint_directory_used_bytes{node="a"}': "85+0x60",
        'checkpoint_directory_free_bytes{node="a"}': "10+0x60",
      },
      // Full for five minutes, then a policy has made room.
      {
        'checkpoint_directory_used_bytes{node="a"}': "90+0x5 45+0x60",
        'checkpoint_directory_free_bytes{node="a"}': "5+0x5 50+0x60",
      },
    ],
  },
  CheckpointDiskFillsFast: {
    after: "80m",
    fires: {
      'checkpoint_directory_free_bytes{node="a"}': "450-2x90",
      'checkpoint_directory_free_bytes{node="b"}': "450+0x90",
    },
    silent: [
      { 'checkpoint_directory_free_bytes{node="a"}': "900-2x90" },
      { 'checkpoint_directory_free_bytes{node="a"}': "100+2x90" },
    ],
  },
  CheckpointDirectoryNotMounted: {
    after: "10m",
    fires: { 'checkpoint_directory_mounted{node="a"}': "0+0x60", 'checkpoint_directory_mounted{node="b"}': "1+0x60" },
    silent: [
      { 'checkpoint_directory_mounted{node="a"}': "1+0x60" },
      // As an agent starts.
      { 'checkpoint_directory_mounted{node="a"}': "0 0 1+0x60" },
    ],
  },
  CheckpointWatchDegraded: {
    after: "20m",
    fires: { 'checkpoint_watch_degraded{node="a"}': "1+0x60" },
    silent: [{ 'checkpoint_watch_degraded{node="a"}': "0+0x60" }],
  },
  CheckpointPolicyRefused: {
    after: "10m",
    fires: {
      'checkpoint_policies{pod="x",state="refused"}': "2+0x60",
      'checkpoint_policies{pod="x",state="accepted"}': "1+0x60",
    },
    silent: [
      {
        'checkpoint_policies{pod="x",state="refused"}': "0+0x60",
        'checkpoint_policies{pod="x",state="ignored"}': "1+0x60",
      },
    ],
  },
  CheckpointPolicyNotApplied: {
    after: "20m",
    fires: {
      'checkpoint_node_policy_applied{pod="x",node="a"}': "0+0x60",
      'checkpoint_node_policy_applied{pod="x",node="b"}': "1+0x60",
    },
    silent: [
      { 'checkpoint_node_policy_applied{pod="x",node="a"}': "1+0x60" },
      // A change takes a while.
      { 'checkpoint_node_policy_applied{pod="x",node="a"}': "1 1 0+0x5 1+0x60" },
    ],
  },
  CheckpointLimitUnreachable: {
    after: "20m",
    fires: {
      'checkpoint_limits_unreachable{node="a",limit="max_checkpoints"}': "1+0x60",
      'checkpoint_limits_unreachable{node="a",limit="orphan"}': "0+0x60",
    },
    silent: [{ 'checkpoint_limits_unreachable{node="a",limit="max_checkpoints"}': "0+0x60" }],
  },
  CheckpointDeletionErrors: {
    after: "12m",
    fires: { 'checkpoint_archive_delete_errors_total{node="a",code="EPERM"}': "0+1x60" },
    // Long ago, and none since.
    silent: [{ 'checkpoint_archive_delete_errors_total{node="a",code="EPERM"}': "7+0x60" }],
  },
  CheckpointAgentDown: {
    after: "15m",
    fires: {
      'checkpoint_node_agent_up{pod="x",node="a"}': "0+0x60",
      'checkpoint_node_agent_up{pod="x",node="b"}': "1+0x60",
      'checkpoint_agent_build_info{node="a"}': "1+0x60",
    },
    silent: [
      { 'checkpoint_node_agent_up{pod="x",node="a"}': "1+0x60", 'checkpoint_agent_build_info{node="a"}': "1+0x60" },
    ],
  },
  CheckpointNoLeader: {
    after: "10m",
    fires: {
      'checkpoint_coordinator_is_leader{pod="x"}': "0+0x60",
      'checkpoint_coordinator_is_leader{pod="y"}': "0+0x60",
    },
    silent: [
      { 'checkpoint_coordinator_is_leader{pod="x"}': "0+0x60", 'checkpoint_coordinator_is_leader{pod="y"}': "1+0x60" },
      // A leader that dies: the other one takes over.
      {
        'checkpoint_coordinator_is_leader{pod="x"}': "1 1 0+0x60",
        'checkpoint_coordinator_is_leader{pod="y"}': "0 0 0 1+0x60",
      },
    ],
  },
  CheckpointPolicyConflict: {
    after: "15m",
    fires: { 'checkpoint_policy_conflicts{pod="x"}': "1+0x60", 'checkpoint_policy_conflicts{pod="y"}': "0+0x60" },
    silent: [{ 'checkpoint_policy_conflicts{pod="x"}': "0+0x60" }],
  },
  CheckpointOrphansHeld: {
    after: "5m",
    fires: { 'checkpoint_orphans_held{pod="x"}': "12+0x60" },
    silent: [{ 'checkpoint_orphans_held{pod="x"}': "0+0x60" }],
  },
  CheckpointArchivesUnidentified: {
    after: "70m",
    fires: { 'checkpoint_archives_state{node="a",state="unidentified"}': "3+0x90" },
    silent: [
      {
        'checkpoint_archives_state{node="a",state="unidentified"}': "0+0x90",
        'checkpoint_archives_state{node="a",state="complete"}': "9+0x90",
      },
    ],
  },
  CheckpointArchivesUnread: {
    after: "70m",
    fires: { 'checkpoint_archives_state{node="a",state="unread"}': "2+0x90" },
    silent: [{ 'checkpoint_archives_state{node="a",state="unread"}': "0+0x90" }],
  },
  CheckpointDeletionPaused: {
    after: "370m",
    fires: { 'checkpoint_deletion_paused{node="a"}': "1+0x400" },
    // For an hour only.
    silent: [{ 'checkpoint_deletion_paused{node="a"}': "1+0x60 0+0x400" }],
  },
  CheckpointCertificateExpiring: {
    after: "70m",
    fires: {
      'checkpoint_certificate_expiry_timestamp_seconds{node="a",pod="p",certificate="agent"}': `${6 * 86400}+0x90`,
    },
    silent: [
      { 'checkpoint_certificate_expiry_timestamp_seconds{node="a",pod="p",certificate="agent"}': `${8 * 86400}+0x90` },
    ],
  },
};
/** Nothing is scraped at all: what fires then. */
const ON_NOTHING = ["CheckpointAgentDown", "CheckpointNoLeader"];

/** Alerts that tell of the cluster, and not of a node. */
const OF_THE_CLUSTER = ["NoLeader", "PolicyConflict", "PolicyRefused", "OrphansHeld"].map(
  (name) => `Checkpoint${name}`,
);

describe("the alerts", () => {
  it("each have a test, a severity, and a section of docs/operations.md that says what to do", () => {
    expect(Object.keys(CASES).sort()).toEqual(rules.map(({ alert }) => alert).sort());
    const operations = readFileSync(join(ROOT, "docs/operations.md"), "utf8");
    for (const { alert, labels, annotations } of rules) {
      expect(["info", "warning", "critical"]).toContain(labels.severity);
      expect(annotations.runbook_url).toBe(`docs/operations.md#${alert.toLowerCase()}`);
      expect(operations).toContain(`\n### ${alert}\n`);
      if (!OF_THE_CLUSTER.includes(alert))
        expect([alert, annotations.summary]).toEqual([alert, expect.stringMatching(/\$labels\.(node|pod) \}\}/)]);
    }
  });
});

const found = await findPrometheus();

describeWith("with Prometheus, the alerts", found, ({ promtool, prometheus }) => {
  /** Has promtool evaluate the rules on these series; rejects with what it says when the count of firing alerts differs. */
  async function expectFiring(alert: string, { input, after, times }: { input: Series; after: string; times: number }) {
    const file = join(aFolder(), "test.yaml");
    const entries = Object.entries(input).map(([name, values]) => ({ series: name, values }));
    const expr = `count(ALERTS{alertname="${alert}",alertstate="firing"}) or vector(0)`;
    const promql_expr_test = [{ expr, eval_time: after, exp_samples: [{ labels: "{}", value: times }] }];
    const tests = [{ interval: "1m", input_series: entries, promql_expr_test }];
    writeFileSync(file, stringify({ rule_files: [RULES], evaluation_interval: "1m", tests }));
    await execute(promtool, ["test", "rules", file]).catch((cause: { stdout: string; stderr: string }) => {
      throw new Error(`${alert} on ${JSON.stringify(input)}: ${cause.stdout}${cause.stderr}`);
    });
  }

  it("are rules that promtool accepts", async () => {
    await execute(promtool, ["check", "rules", "--lint-fatal", RULES]);
  });

  it.each(Object.entries(CASES))(
    "%s fires when it must, and not otherwise",
    async (alert, { after, fires, times = 1, silent }) => {
      await expectFiring(alert, { input: fires, after, times });
      for (const input of silent) await expectFiring(alert, { input, after, times: 0 });
      await expectFiring(alert, { input: {}, after, times: ON_NOTHING.includes(alert) ? 1 : 0 });
    },
  );

  it("name the nodes and policies that they are about where the cluster as a whole is looked at", async () => {
    const file = join(aFolder(), "test.yaml");
    const alert = rules.find((rule) => rule.alert === "CheckpointPolicyRefused");
    const refused = (policy: string, node: string) => ({
      series: `checkpoint_node_policy_refused{pod="x",policy="${policy}",node="${node}"}`,
      values: "1+0x60",
    });
    const description = [
      alert?.annotations.description.split("\n")[0],
      "Nodes of shop/typo (2): node-a node-b. Nodes of ops/old (1): node-c. ",
    ].join("\n");
    const tests = [
      {
        interval: "1m",
        input_series: [
          { series: 'checkpoint_policies{pod="x",state="refused"}', values: "2+0x60" },
          ...[refused("shop/typo", "node-a"), refused("shop/typo", "node-b"), refused("ops/old", "node-c")],
        ],
        alert_rule_test: [
          {
            eval_time: "10m",
            alertname: "CheckpointPolicyRefused",
            exp_alerts: [
              {
                exp_labels: { severity: "warning" },
                exp_annotations: {
                  summary: "2 policies are refused",
                  description,
                  runbook_url: alert?.annotations.runbook_url,
                },
              },
            ],
          },
        ],
      },
    ];
    writeFileSync(file, stringify({ rule_files: [RULES], evaluation_interval: "1m", tests }));
    await execute(promtool, ["test", "rules", file]).catch((cause: { stdout: string; stderr: string }) => {
      throw new Error(`${cause.stdout}${cause.stderr}`);
    });
  });

  it("and the dashboard: its every query has series where agent and coordinator run", async () => {
    const folder = aFolder();
    const directory = join(folder, "checkpoints");
    mkdirSync(directory);
    const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } };
    const policy = aPolicyFile(spec);
    const pair = await startPair({ policy, directory });
    // What something is mounted on cannot be unlinked: EBUSY, again and again.
    const [busy = ""] = series(directory, 4).map((file) => join(directory, file));
    pair.startAgent({ prefix: ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && exec "$@"', busy] });
    pair.startCoordinator();
    const target = (url: string, labels: Series) => ({ targets: [new URL(url).host], labels });
    const server = await startPrometheus(
      { prometheus },
      {
        rule_files: [RULES],
        scrape_configs: [
          {
            job_name: "agent",
            honor_labels: true,
            static_configs: [target(pair.agentUrl, { node: "node-a", pod: "a" })],
          },
          { job_name: "coordinator", honor_labels: true, static_configs: [target(pair.coordinatorUrl, { pod: "c" })] },
        ],
      },
    );
    try {
      const counted = (value: number) => async () =>
        expect((await server.query('sum(checkpoint_archives{namespace="shop"})'))[0]?.value).toBe(value);
      await until(counted(3), 60_000);
      const queries: string[] = dashboard.panels.flatMap(({ targets = [] }: AnyObject) =>
        targets.map(({ expr }: AnyObject) => expr),
      );
      expect(queries.length).toBeGreaterThan(25);
      // Rates need two samples, and something that happens between them.
      let minutes = 60;
      const look = async () => {
        minutes -= 1;
        writePolicy(policy, { ...spec, globalPolicy: { ...spec.globalPolicy, maxCheckpointsPerPod: 10 + minutes } });
        writeArchive(directory, { container: "main", time: archiveTime(Date.now() - minutes * 60_000) });
        for (const query of queries) {
          const promql = query.replaceAll("$__rate_interval", "1m").replaceAll(/\$(node|namespace)\b/g, ".*");
          const samples = await server.query(promql);
          expect(samples, promql).not.toEqual([]);
          for (const { value } of samples) expect(Number.isFinite(value), promql).toBe(true);
        }
      };
      await vi.waitFor(look, { timeout: 60_000, interval: 2000 });
    } finally {
      await server.stop();
    }
  }, 150_000);
});
