import { mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { archivesIn, archiveTime } from "../../agent/test/support/archives.ts";
import { realArchives } from "../../agent/test/support/real-archives.ts";
import { describeWithInstallation, readAccess } from "../support/installation.ts";
import type { AnyObject } from "../support/kube.ts";
import { ROOT, until } from "../support/processes.ts";
import { findPrometheus, startPrometheus } from "../support/prometheus.ts";
import { scrapeConfigOf } from "../support/release.ts";

const RELEASE = "checkpoint-restore-operator";
const prometheus = await findPrometheus();

/** Whose checkpoint the archive is that these tests write under other times. */
const OWNER = { pod: "static.one-node-a", namespace: "default", container: "c" };
const CONTENT = realArchives().find(({ file }) => file.includes(OWNER.pod))?.bytes ?? Buffer.of();

/** A real checkpoint's archive, as one so many minutes old. */
function dropArchive(directory: string, { minutesOld }: { minutesOld: number }): string {
  const time = Date.now() - minutesOld * 60_000;
  const file = `checkpoint-${OWNER.pod}_${OWNER.namespace}-${OWNER.container}-${archiveTime(time)}.tar`;
  writeFileSync(join(directory, file), CONTENT, { mode: 0o600 });
  utimesSync(join(directory, file), time / 1000, time / 1000);
  return file;
}

/** What the README has a newcomer apply; it keeps three archives of each container. */
const SAMPLE = join(ROOT, "config/samples/getting-started.yaml");
const KEPT = 3;

const policy = (spec: AnyObject, name = "getting-started") => ({
  apiVersion: "criu.org/v1",
  kind: "CheckpointRestoreOperator",
  metadata: { name },
  spec: { applyPoliciesImmediately: true, ...spec },
});

describeWithInstallation("a helm release", (cluster) => {
  const valuesOf = (values: AnyObject): AnyObject => ({ ...cluster.values, ...values });

  /** Waits until every pod of the release is ready and is of the objects that there are now. */
  async function ready(): Promise<void> {
    await cluster.settle();
    await until(async () => {
      const { items } = await cluster.user.get("pods");
      for (const { metadata, status } of items) {
        const isReady = status.conditions?.some(({ type, status: is }: AnyObject) => type === "Ready" && is === "True");
        expect(isReady, metadata.name).toBe(true);
      }
      expect(items.length).toBeGreaterThan(cluster.nodes.length);
    }, 90_000);
  }

  const secretData = async (name: string) => (await cluster.user.get("secret", `${RELEASE}-${name}`)).data ?? {};
  const condition = async (type: string, name = "getting-started") =>
    (await cluster.user.get("cro", name)).status?.conditions?.find((one: AnyObject) => one.type === type);

  it("is installed with its values, and every pod of it becomes ready", async () => {
    cluster.showOnFailure();
    // The chart of `npm run package`, whose image is that of `npm run image`: neither needs a registry.
    const said = await cluster.user[cluster.isRemote ? "deploy" : "deployPackage"](
      "install",
      RELEASE,
      valuesOf({
        podMonitor: { enabled: true, interval: "1s" },
        prometheusRule: { enabled: true },
        policyGracePeriod: "2s",
      }),
    );
    expect(said).toContain("kubectl apply");
    await ready();
    expect(Object.keys(await secretData("agent")).sort()).toEqual(["ca.crt", "tls.crt", "tls.key"]);
    const lease = await cluster.user.get("lease", RELEASE);
    expect(lease.spec.holderIdentity).toContain("coordinator");
  }, 180_000);

  it("enforces an applied policy on real archives of every node, and says so in status and Events", async () => {
    cluster.showOnFailure();
    const dropped = cluster.nodes.map(({ directory }) =>
      [50, 40, 30, 20, 10].map((minutesOld) => dropArchive(directory, { minutesOld })),
    );
    expect(await cluster.user.kubectl("apply", "-f", SAMPLE)).toContain("created");
    await until(() => {
      for (const [index, { directory }] of cluster.nodes.entries())
        expect(archivesIn(directory)).toEqual(dropped[index]?.slice(-KEPT));
    }, 60_000);
    await until(async () => {
      const { status } = await cluster.user.get("cro", "getting-started");
      expect(status).toMatchObject({
        archives: KEPT * cluster.nodes.length,
        nodes: { desired: cluster.nodes.length, applied: cluster.nodes.length },
      });
    }, 90_000);
    await until(async () => expect(await condition("Enforcing")).toMatchObject({ status: "True" }), 60_000);
    expect(await cluster.user.kubectl("get", "cro")).toMatch(
      /NAME +MODE +NODES +ARCHIVES +SIZE +PLANNED +READY +REASON +AGE/,
    );
    await until(async () => {
      const { items } = await cluster.user.get("events");
      expect(items.some(({ message }: AnyObject) => message.includes("max_checkpoints"))).toBe(true);
    }, 60_000);
  }, 180_000);

  it("is well, as helm test says", async () => {
    cluster.showOnFailure();
    const testing = cluster.user.helm("test", RELEASE, "--timeout", "3m");
    const container = await cluster.runToEnd(`${RELEASE}-check`);
    expect(await testing).toMatch(/^TEST SUITE: +.*-check$[\s\S]*^Phase: +Succeeded$/m);
    if (container === undefined) return;
    expect([container.out, container.err]).toEqual([
      [
        expect.stringMatching(/^ok {4}.*coordinator.* leads$/),
        `ok    agents are ready on ${cluster.nodes.length} of ${cluster.nodes.length} nodes`,
        expect.stringMatching(/^ok {4}all 4 pods run localhost\/checkpoint-restore-operator:\d/),
        "ok    1 policy is obeyed",
      ],
      [],
    ]);
  }, 240_000);

  it("answers the questions of docs/operate/three-in-the-morning.md as the page says", async () => {
    const page = readFileSync(join(ROOT, "docs/operate/three-in-the-morning.md"), "utf8");
    const blocks = [...page.matchAll(/^```console\n(.+?)^```$/gms)].map(([, block = ""]) => block);
    expect(blocks).toHaveLength(8);
    /** What is another one each time. */
    const masked = (text: string) =>
      text
        .replaceAll(/\d{4}-\d\d-\d\dT[\d:]+Z/g, "TIME")
        .replaceAll(/[\w-]+_[0-9a-f-]{36}/g, "COORDINATOR")
        .replaceAll(/\b\d+[smhd](\d+[smh])?\b/g, "AGE")
        .replaceAll(/(node-\w+) \d+%/g, "$1 N%")
        .replaceAll(/(agent-)[0-9a-f]{10}/g, "$1ID")
        .replace(" (no change)", "")
        .replaceAll(/ +/g, " ")
        .trim();
    for (const block of blocks) {
      const [line = "", ...output] = block.trimEnd().split("\n");
      const command = line.replaceAll("NAME ", `${RELEASE} `).replace("$ kubectl -n NAMESPACE ", "");
      const words = [...command.matchAll(/'([^']*)'|((?:[^\s']|'[^']*')+)/g)].map(
        ([, quoted, plain]) => quoted ?? plain ?? "",
      );
      await until(async () => {
        const told = await cluster.user.kubectl(...words.map((word) => word.replaceAll("'", "")));
        expect([line, masked(told)]).toEqual([line, masked(output.join("\n"))]);
      }, 30_000);
    }
    await cluster.user.kubectl(
      "patch",
      "cro",
      "getting-started",
      "--type",
      "merge",
      "-p",
      '{"spec":{"mode":"Enforce"}}',
    );
  }, 300_000);

  it("names the field of a policy with a typo, and goes on with the one before", async () => {
    const wrong = policy({ globalPolicy: { maxTotalSizePerPod: "10 Gigs" } });
    await expect(cluster.user.apply(wrong)).rejects.toThrow(/spec\.globalPolicy\.maxTotalSizePerPod.*10 Gigs/s);
    const good = (await cluster.user.get("cro", "getting-started")).spec;
    await cluster.user.apply(policy({ globalPolicy: { maxCheckpoint: 1 } }));
    await until(async () => {
      expect(await condition("Accepted")).toMatchObject({
        status: "False",
        message: expect.stringContaining("spec.globalPolicy.maxCheckpoint"),
      });
      expect(await condition("Enforcing")).toMatchObject({ status: "True" });
    }, 60_000);
    for (const { directory } of cluster.nodes) expect(archivesIn(directory)).toHaveLength(KEPT);
    await cluster.user.apply(policy(good));
    await until(async () => {
      expect(await condition("Accepted")).toMatchObject({ status: "True" });
      expect(await condition("Enforcing")).toMatchObject({ status: "True" });
    }, 60_000);
  }, 180_000);

  it("is scraped by a real Prometheus as its PodMonitors say: counts and bytes of every namespace and node", async ({
    skip,
  }) => {
    cluster.showOnFailure();
    if (!prometheus.found) return skip(prometheus.why);
    console.log(`Real parts: Prometheus ${prometheus.value.version}`);
    const folder = mkdtempSync(join(tmpdir(), "cro-scrape-"));
    const { items } = await cluster.user.get("podmonitors");
    const via = cluster.isRemote ? { via: readAccess(cluster.kubeconfig, folder) } : {};
    const { items: pods } = await cluster.user.get("pods");
    const scrape = items.flatMap((item: AnyObject) => scrapeConfigOf(item, { pods, ...via }));
    const server = await startPrometheus(prometheus.value, { scrape_configs: scrape });
    try {
      await until(async () => {
        const counts = await server.query('sum by (namespace) (checkpoint_archives{namespace="default"})');
        expect(counts).toEqual([{ metric: { namespace: "default" }, value: KEPT * cluster.nodes.length }]);
      }, 60_000);
      const byNode = await server.query('sum by (node) (checkpoint_archive_bytes{namespace="default"})');
      expect(byNode.map(({ metric, value }) => [metric.node, value]).sort()).toEqual(
        cluster.nodes.map(({ name }) => [name, KEPT * CONTENT.length]).sort(),
      );
      const deleted = await server.query(
        'sum(checkpoint_archives_deleted_total{namespace="default",reason="max_checkpoints"})',
      );
      expect(deleted[0]?.value).toBe(2 * cluster.nodes.length);
      await until(async () => {
        expect((await server.query("sum(checkpoint_coordinator_is_leader)"))[0]?.value).toBe(1);
        expect((await server.query("sum(checkpoint_node_archives)"))[0]?.value).toBe(KEPT * cluster.nodes.length);
        expect(await server.query("up == 0")).toEqual([]);
      }, 60_000);
    } finally {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    }
  }, 180_000);

  it("is upgraded with other values: certificates, Lease and archives stay, and the new ones act", async () => {
    cluster.showOnFailure();
    const before = { ca: await secretData("ca"), lease: await cluster.user.get("lease", RELEASE) };
    const kept = cluster.nodes.map(({ directory }) => archivesIn(directory));
    const names = (await cluster.user.get("pods")).items.map(({ metadata }: AnyObject) => metadata.name);
    await cluster.user.deploy(
      "upgrade",
      RELEASE,
      valuesOf({
        logLevel: "debug",
        metrics: { granularity: "container" },
        defaultPolicy: { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } },
        policyGracePeriod: "2s",
      }),
    );
    await ready();
    const after = (await cluster.user.get("pods")).items.map(({ metadata }: AnyObject) => metadata.name);
    expect(after.filter((name: string) => names.includes(name))).toEqual([]);
    expect(await secretData("ca")).toEqual(before.ca);
    const lease = await cluster.user.get("lease", RELEASE);
    const term = (one: AnyObject) => Number(one.metadata.annotations["criu.org/fencing-term"]);
    expect(term(lease)).toBeGreaterThan(term(before.lease));
    expect(cluster.nodes.map(({ directory }) => archivesIn(directory))).toEqual(kept);

    await cluster.user.kubectl("delete", "cro", "getting-started");
    await until(() => {
      for (const [index, { directory }] of cluster.nodes.entries())
        expect(archivesIn(directory)).toEqual(kept[index]?.slice(-1));
    }, 90_000);
  }, 240_000);

  it("is rolled back: what the coordinator wrote stays, and policies act as before", async () => {
    cluster.showOnFailure();
    const ca = await secretData("ca");
    await cluster.user.helm("rollback", RELEASE, "1");
    await ready();
    expect(await secretData("ca")).toEqual(ca);
    await cluster.user.apply(policy({ globalPolicy: { maxCheckpointsPerContainer: 3 } }));
    const directory = cluster.nodes[0]?.directory ?? "";
    const left = archivesIn(directory);
    const dropped = [8, 6, 4].map((minutesOld) => dropArchive(directory, { minutesOld }));
    await until(() => expect(archivesIn(directory)).toEqual(dropped), 60_000);
    expect(left).toHaveLength(1);
  }, 240_000);

  it("is uninstalled: policies and archives stay, and nothing else is left over", async () => {
    cluster.showOnFailure();
    const kept = cluster.nodes.map(({ directory }) => archivesIn(directory));
    await cluster.user.helm("uninstall", RELEASE);
    await cluster.settle();
    expect(cluster.pods()).toEqual([]);
    const kinds = [
      ...["daemonset", "deployment", "serviceaccount", "role", "rolebinding", "clusterrole", "clusterrolebinding"],
      ...[
        "secret",
        "lease",
        "service",
        "configmap",
        "networkpolicy",
        "poddisruptionbudget",
        "podmonitor",
        "prometheusrule",
      ],
    ];
    await until(async () => {
      const { items } = await cluster.user.get(kinds.join(","), "-l", `app.kubernetes.io/instance=${RELEASE}`);
      expect(items.map(({ kind, metadata }: AnyObject) => `${kind} ${metadata.name}`)).toEqual([]);
    }, 60_000);
    expect((await cluster.user.get("cro", "getting-started")).spec.globalPolicy).toEqual({
      maxCheckpointsPerContainer: 3,
    });
    expect(cluster.nodes.map(({ directory }) => archivesIn(directory))).toEqual(kept);
  }, 120_000);

  it("is installed again: the policy that stayed acts, and no archive that it keeps is lost", async () => {
    cluster.showOnFailure();
    const directory = cluster.nodes[0]?.directory ?? "";
    const before = archivesIn(directory);
    const next = dropArchive(directory, { minutesOld: 2 });
    await cluster.user.deploy("install", RELEASE, valuesOf({}));
    await ready();
    await until(() => expect(archivesIn(directory)).toEqual([...before.slice(1), next]), 60_000);
    await until(async () => expect(await condition("Enforcing")).toMatchObject({ status: "True" }), 60_000);
    await cluster.user.kubectl("delete", "cro", "getting-started");
    await cluster.user.helm("uninstall", RELEASE);
    await cluster.settle();
  }, 240_000);
});
