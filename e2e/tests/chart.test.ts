import { execFile } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { AGENT_NODES } from "@cro/coordinator/policy/agent-nodes";
import { policyDefinition } from "@cro/shared/crd/manifest";
import { readPolicy } from "@cro/shared/crd/read-policy";
import { VERSION } from "@cro/shared/version";
import { AGENT_DNS_NAME, COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { readChartValues, renderChartFiles } from "../support/chart-files.ts";
import { findCertManager, findPrometheusOperator } from "../support/definitions.ts";
import { findHelm } from "../support/helm.ts";
import { type AnyObject, create, createNamespace, describeWithKube, unwrap } from "../support/kube.ts";
import { CHART } from "../support/package.ts";
import { aFolder, ROOT, until } from "../support/processes.ts";
import { CHECKOUT_VALUES, userOf } from "../support/release.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const tools = await findHelm();
const operator = await findPrometheusOperator();
const certManager = await findCertManager();

/** Where definitions of resources are created. */
const DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/** For every documented value one that is not its default. */
const SAMPLES: Record<string, unknown> = {
  "image.registry": "registry.example",
  "image.repository": "team/cro",
  "image.tag": "1.2.3",
  "image.digest": `sha256:${"0".repeat(64)}`,
  "image.pullPolicy": "Always",
  imagePullSecrets: [{ name: "pull" }],
  nameOverride: "other",
  fullnameOverride: "full",
  commonLabels: { team: "platform" },
  logLevel: "debug",
  "crds.enabled": false,
  "crds.keep": false,
  checkpointRoots: ["/var/lib/kubelet/checkpoints", "/mnt/checkpoints"],
  hostPathType: "DirectoryOrCreate",
  policyNamespaces: ["platform", "ops"],
  policyGracePeriod: "1h",
  defaultPolicy: { mode: "DryRun", globalPolicy: { maxTotalSizePerPod: "10Gi" } },
  "metrics.granularity": "container",
  "certificates.existingSecrets.agent": "agent-tls",
  "certificates.existingSecrets.coordinator": "coordinator-tls",
  "certificates.caLifetime": "365d",
  "certificates.lifetime": "30d",
  "rbac.create": false,
  "rbac.aggregateTo.view": false,
  "rbac.aggregateTo.edit": true,
  "resourceQuota.enabled": true,
  "resourceQuota.pods": 7,
  "networkPolicy.enabled": false,
  "podMonitor.enabled": true,
  "podMonitor.interval": "10s",
  "podMonitor.labels": { release: "prometheus" },
  "podMonitor.relabelings": [{ targetLabel: "cluster", replacement: "one" }],
  "serviceMonitor.enabled": true,
  "serviceMonitor.interval": "10s",
  "serviceMonitor.labels": { release: "prometheus" },
  "serviceMonitor.relabelings": [{ targetLabel: "cluster", replacement: "one" }],
  "prometheusRule.enabled": true,
  "prometheusRule.labels": { release: "prometheus" },
  "prometheusRule.runbookUrl": "https://wiki.example/operations",
  "dashboard.enabled": true,
  "dashboard.labels": { folder: "one" },
  "dashboard.annotations": { grafana_folder: "Storage" },
  "securityContextConstraints.enabled": true,
  "agent.seLinuxOptions": { type: "spc_t" },
  "agent.extraCapabilities": ["DAC_OVERRIDE"],
  "agent.mountPropagation": "None",
  "coordinator.replicas": 1,
};
const COMPONENT_SAMPLES: Record<string, unknown> = {
  "serviceAccount.create": false,
  "serviceAccount.name": "given",
  "serviceAccount.annotations": { note: "x" },
  resources: { requests: { cpu: "1", memory: 1024 }, limits: { memory: "1Gi" } },
  nodeSelector: { disk: "ssd" },
  affinity: { podAffinity: {} },
  tolerations: [{ key: "only", operator: "Exists" }],
  priorityClassName: "system-cluster-critical",
  updateStrategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 3 } },
  podAnnotations: { note: "y" },
  podLabels: { tier: "node" },
  extraArgs: ["--log-level=trace"],
  extraEnv: [{ name: "TZ", value: "UTC" }],
  extraVolumes: [{ name: "extra", emptyDir: {} }],
  extraVolumeMounts: [{ name: "extra", mountPath: "/extra" }],
};
for (const component of ["agent", "coordinator"]) {
  for (const [path, value] of Object.entries(COMPONENT_SAMPLES)) SAMPLES[`${component}.${path}`] = value;
}

const SPREAD = {
  podAntiAffinity: {
    requiredDuringSchedulingIgnoredDuringExecution: [
      { topologyKey: "kubernetes.io/hostname", labelSelector: { matchLabels: { app: "x" } } },
    ],
  },
};

/** What a value needs beside it to show. */
const TOGETHER: Array<[prefix: string, path: string, value: unknown]> = [
  ...["podMonitor", "serviceMonitor", "prometheusRule", "dashboard", "resourceQuota"].map(
    (part): [string, string, unknown] => [`${part}.`, `${part}.enabled`, true],
  ),
  ["certificates.existingSecrets.", "certificates.existingSecrets.agent", "agent-tls"],
  ["certificates.existingSecrets.", "certificates.existingSecrets.coordinator", "coordinator-tls"],
];

/** `{"a.b": 1}` as `{a: {b: 1}}`. */
function nest(paths: ReadonlyArray<readonly [string, unknown]>): Record<string, unknown> {
  const nested: AnyObject = {};
  for (const [path, value] of paths) {
    const keys = path.split(".");
    const last = keys.pop() as string;
    let at = nested;
    for (const key of keys) at = at[key] ??= {};
    at[last] = value;
  }
  return nested;
}

/** The objects in a Markdown text's blocks of YAML. */
function yamlIn(markdown: string): AnyObject[] {
  const blocks = [...markdown.matchAll(/^```yaml\n([\s\S]*?)^```$/gm)];
  return blocks.flatMap(([, text = ""]) => parseAllDocuments(text).map((document) => document.toJS()));
}

describe("the chart's files", () => {
  it("have the project's version", () => {
    const chart = parse(readFileSync(join(CHART, "Chart.yaml"), "utf8"));
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(chart).toMatchObject({ version, appVersion: version });
    expect(VERSION).toBe(version);
  });

  it("show in catalogues what is so: the definition's name, and a policy that it takes", () => {
    const { annotations } = parse(readFileSync(join(CHART, "Chart.yaml"), "utf8"));
    const {
      metadata: { name },
      spec: { names },
    } = policyDefinition() as AnyObject;
    expect(parse(annotations["artifacthub.io/crds"])).toMatchObject([{ name, kind: names.kind, version: "v1" }]);
    const [example] = parse(annotations["artifacthub.io/crdsExamples"]);
    expect(readPolicy(JSON.stringify(example))).toMatchObject({ ok: true });
    // The kinds that Artifact Hub knows.
    for (const { kind, description } of parse(annotations["artifacthub.io/changes"])) {
      expect(["added", "changed", "deprecated", "removed", "fixed", "security"]).toContain(kind);
      expect(description).toMatch(/^\S.*\S$/);
    }
  });

  it("say of certificates what both sides look for", () => {
    const readme = readFileSync(join(CHART, "README.md"), "utf8");
    const certificates = yamlIn(readme).filter(({ kind }) => kind === "Certificate");
    expect(certificates.map(({ spec }) => [spec.dnsNames, spec.usages.at(-1)])).toEqual([
      [[AGENT_DNS_NAME], "server auth"],
      [[COORDINATOR_DNS_NAME], "client auth"],
    ]);
    for (const name of [AGENT_DNS_NAME, COORDINATOR_DNS_NAME]) expect(readme).toContain(`| \`${name}\` |`);
  });

  it("have a schema of exactly the documented values, which knows every key of every object", () => {
    const documented = readChartValues(readFileSync(join(CHART, "values.yaml"), "utf8")).map(({ path }) => path);
    const schema = JSON.parse(readFileSync(join(CHART, "values.schema.json"), "utf8"));
    const { global: _helmsOwn, ...properties } = schema.properties;
    const known: string[] = [];
    const visit = (path: string, at: AnyObject) => {
      if (documented.includes(path) || at.properties === undefined) known.push(path);
      else for (const [key, value] of Object.entries(at.properties)) visit(`${path}.${key}`, value);
    };
    for (const [key, value] of Object.entries(properties)) visit(key, value);
    expect(known.sort()).toEqual(documented.sort());
    const open: string[] = [];
    const findOpen = (path: string, at: unknown) => {
      if (typeof at !== "object" || at === null) return;
      const { properties: fields, additionalProperties } = at as AnyObject;
      if (!path.endsWith("/properties") && fields !== undefined && additionalProperties !== false) open.push(path);
      for (const [key, value] of Object.entries(at)) findOpen(`${path}/${key}`, value);
    };
    findOpen("", schema);
    expect(open).toEqual([]);
  });
});

describeWith("the chart", tools, ({ helm, kubectl, versions }) => {
  console.log(`helm ${versions.helm}, kubectl ${versions.kubectl}`);

  /** Renders with these values; rejects with what helm says. */
  async function template(
    values: unknown,
    { release = "cro", namespace = "release" }: { release?: string; namespace?: string } = {},
  ): Promise<AnyObject[]> {
    const file = join(aFolder(), "values.json");
    writeFileSync(file, JSON.stringify(values));
    const { stdout } = await execute(
      helm,
      ["template", release, CHART, "-n", namespace, "-f", CHECKOUT_VALUES, "-f", file],
      {
        maxBuffer: 1 << 26,
      },
    );
    return parseAllDocuments(stdout)
      .map((document) => document.toJS())
      .filter((object) => object !== null);
  }

  it("has no stale generated file; `make manifests` writes them", async () => {
    for (const [path, content] of Object.entries(await renderChartFiles(helm))) {
      expect(readFileSync(join(ROOT, path), "utf8"), path).toBe(content);
    }
  });

  it("runs agents on exactly those nodes that count for policies", async () => {
    const objects = await template({});
    const { nodeSelector, affinity } = objects.find(({ kind }) => kind === "DaemonSet").spec.template.spec;
    const { nodeSelectorTerms } = affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution;
    const [os, ...others] = AGENT_NODES;
    expect(nodeSelectorTerms).toEqual([{ matchExpressions: others }]);
    expect(nodeSelector).toEqual({ "kubernetes.io/os": "linux" });
    expect(os).toEqual({ key: "kubernetes.io/os", operator: "NotIn", values: ["windows"] });
  });

  it("has its policies read by viewers, and written by editors only where told so", async () => {
    const roles = async (values: unknown) =>
      (await template(values)).filter(
        ({ kind, metadata }) =>
          kind === "ClusterRole" && Object.keys(metadata.labels).some((label) => label.includes("/aggregate-to-")),
      );
    const [view, ...others] = await roles({});
    expect(others).toEqual([]);
    expect(view?.metadata.labels).toMatchObject({ "rbac.authorization.k8s.io/aggregate-to-view": "true" });
    const resources = { apiGroups: ["criu.org"], resources: ["checkpointrestoreoperators"] };
    expect(view?.rules).toEqual([{ ...resources, verbs: ["get", "list", "watch"] }]);
    const [edit] = await roles({ rbac: { aggregateTo: { edit: true, view: false } } });
    expect(edit?.metadata.labels).toMatchObject({ "rbac.authorization.k8s.io/aggregate-to-edit": "true" });
    const verbs = ["create", "update", "patch", "delete", "deletecollection"];
    expect(edit?.rules).toEqual([{ ...resources, verbs }]);
  });

  it("leads the alerts' runbooks to the page that is given", async () => {
    const runbookUrl = "https://wiki.example/operations";
    const objects = await template({ prometheusRule: { enabled: true, runbookUrl } });
    const { groups } = objects.find(({ kind }) => kind === "PrometheusRule").spec;
    for (const { alert, annotations } of groups[0].rules)
      expect(annotations.runbook_url).toBe(`${runbookUrl}#${alert.toLowerCase()}`);
  });

  it("has the first of the roots be where the archives are if a policy does not say", async () => {
    const checkpointRoots = ["/var/lib/k0s/kubelet/checkpoints", "/var/lib/kubelet/checkpoints"];
    const objects = await template({ checkpointRoots, defaultPolicy: { mode: "DryRun" } });
    const [container] = objects.find(({ kind }) => kind === "Deployment")?.spec.template.spec.containers ?? [];
    expect(container.args).toContain("--default-directory=/var/lib/k0s/kubelet/checkpoints");
    const { volumes } = objects.find(({ kind }) => kind === "DaemonSet")?.spec.template.spec ?? {};
    const types = volumes.flatMap(({ hostPath }: AnyObject) => (hostPath === undefined ? [] : [hostPath.type]));
    expect(types).toEqual(["Directory", "Directory"]);
  });

  it("passes helm lint --strict", async () => {
    await execute(helm, ["lint", "--strict", CHART, "-f", CHECKOUT_VALUES]);
  });

  it("of a checkout is not rendered without a registry, which it says how to set, but with a repository that names one", async () => {
    const rendered = (...flags: string[]) =>
      execute(helm, ["template", "cro", CHART, ...flags], { maxBuffer: 1 << 26 });
    await expect(rendered()).rejects.toThrow(
      /image\.registry: this chart is of a checkout, and no registry has its image; set it to .*released chart/,
    );
    expect((await rendered("--set", "image.repository=team/cro")).stdout).toContain(`image: "team/cro:${VERSION}"`);
    expect((await rendered("--set", "image.registry=localhost:5001")).stdout).toContain(
      `image: "localhost:5001/checkpoint-restore-operator:${VERSION}"`,
    );
  });

  it("renders every documented value, each to an effect", async () => {
    const values = readChartValues(readFileSync(join(CHART, "values.yaml"), "utf8"));
    expect(Object.keys(SAMPLES).sort()).toEqual(values.map(({ path }) => path).sort());
    for (const { path, default: standard } of values) {
      const together = TOGETHER.filter(([prefix, other]) => path.startsWith(prefix) && other !== path);
      const beside = together.map(([, other, value]) => [other, value] as const);
      const isPaired = path.startsWith("certificates.existingSecrets.");
      const isChosen = path === "image.registry"; // there is none that has the image of a checkout
      const without = await template(isPaired || isChosen ? {} : nest([...beside, [path, standard]]));
      const withIt = await template(nest([...beside, [path, SAMPLES[path]]]));
      expect(withIt, path).not.toEqual(without);
    }
  }, 120_000);

  it.each([
    ["an unknown value", { polices: [] }, "'polices' not allowed"],
    ["an unknown value below another", { agent: { replicas: 2 } }, "'replicas' not allowed"],
    ["a level that there is not", { logLevel: "loud" }, "one of 'fatal', 'error'"],
    ["a wrong type", { coordinator: { replicas: "two" } }, "got string, want integer"],
    ["a duration without a unit", { policyGracePeriod: "10" }, 'policyGracePeriod: "10" is not a duration; write e.g.'],
    ["a relative root", { checkpointRoots: ["checkpoints"] }, "write an absolute path below /"],
    ["the whole node as a root", { checkpointRoots: ["/"] }, "write an absolute path below /"],
    ["a root that climbs", { checkpointRoots: ["/var/../etc"] }, "write an absolute path below /"],
    ["a name that no Service can have", { fullnameOverride: "a.b" }, "'a.b' does not match"],
    [
      "a strategy of another kind",
      { agent: { updateStrategy: { type: "Recreate" } } },
      "one of 'RollingUpdate', 'OnDelete'",
    ],
    [
      "roots without the default policy's directory",
      { checkpointRoots: ["/mnt/a"], defaultPolicy: { checkpointDirectory: "/var/lib/kubelet/checkpoints" } },
      "lies in none of the checkpointRoots, /mnt/a;",
    ],
    [
      "a default policy for a directory in no root",
      { defaultPolicy: { checkpointDirectory: "/var/lib/kubelet/checkpoints-2" } },
      "/var/lib/kubelet/checkpoints-2 lies in none of the checkpointRoots",
    ],
    [
      "a low watermark without a high one",
      { defaultPolicy: { nodePolicy: { lowWatermarkPercent: 80 } } },
      "lowWatermarkPercent: it needs a highWatermarkPercent above it",
    ],
    [
      "a floor over the built-in limit",
      { defaultPolicy: { globalPolicy: { minCheckpointsPerContainer: 11 } } },
      "globalPolicy.minCheckpointsPerContainer: the floor, 11, is over the limit, 10",
    ],
    [
      "a floor over its limit",
      { defaultPolicy: { podPolicies: [{ namespace: "a", pod: "b", minCheckpoints: 3, maxCheckpoints: 2 }] } },
      "podPolicies[0].minCheckpoints: the floor, 3, is over the limit, 2",
    ],
    ["one Secret of two", { certificates: { existingSecrets: { agent: "a" } } }, "name both, agent and coordinator"],
    ["a default policy with a typo", { defaultPolicy: { globalPolicy: { maxCheckpoint: 3 } } }, "not allowed"],
    [
      "a default policy with a bad size",
      { defaultPolicy: { globalPolicy: { maxCheckpointSize: "10 Gigs" } } },
      "10 Gigs",
    ],
  ])("refuses %s, in words", async (_, values, message) => {
    await expect(template(values)).rejects.toThrow(message);
  });

  it.each([
    [
      "another directory with its root",
      { checkpointRoots: ["/mnt"], defaultPolicy: { checkpointDirectory: "/mnt/a/" } },
    ],
    [
      "watermarks in their order",
      { defaultPolicy: { nodePolicy: { lowWatermarkPercent: 80, highWatermarkPercent: 85 } } },
    ],
    [
      "a floor where there is no limit",
      { defaultPolicy: { globalPolicy: { minCheckpointsPerContainer: 11, maxCheckpointsPerContainer: 0 } } },
    ],
    [
      "a floor of a policy without a limit",
      { defaultPolicy: { namespacePolicies: [{ namespace: "a", minCheckpoints: 3 }] } },
    ],
  ])("takes %s as a default policy, as the coordinator does", async (_, values) => {
    const objects = await template(values);
    const { data } = objects.find(({ metadata }) => metadata.name.endsWith("-default-policy"));
    expect(readPolicy(data["policy.yaml"])).toMatchObject({ ok: true });
    expect(parse(data["policy.yaml"]).spec).toEqual(values.defaultPolicy);
  });

  it.each([
    ["by default", {}, "cro"],
    ["with the longest names", { nameOverride: "n".repeat(45) }, "r".repeat(53)],
    ["with a name of its own", { fullnameOverride: "own", nameOverride: "other" }, "cro"],
    ["with labels of everybody", { commonLabels: { "app.kubernetes.io/component": "x", team: "a" } }, "cro"],
    [
      "with certificates of somebody else",
      { certificates: { existingSecrets: { agent: "a", coordinator: "c" } } },
      "cro",
    ],
    ["in a release and a namespace that look like numbers", {}, "123"],
  ])("the parts fit together %s: names, rights and selectors", async (_, values, release) => {
    const monitors = { podMonitor: { enabled: true }, serviceMonitor: { enabled: true } };
    const objects = await template({ ...values, ...monitors }, { release, namespace: "456" });
    const of = (kind: string, component: string) =>
      objects.find((one) => one.kind === kind && one.metadata.labels["app.kubernetes.io/component"] === component);
    const [agents, coordinators] = [of("DaemonSet", "agent"), of("Deployment", "coordinator")];
    const flags = new Map<string, string>(
      coordinators.spec.template.spec.containers[0].args.map(
        (flag: string) => /^--([^=]+)=(.*)$/.exec(flag)?.slice(1) ?? [],
      ),
    );

    // The Lease and the Secrets are there, and are those that the coordinator may touch.
    const isManaged = !("certificates" in values);
    const names = (kind: string) => objects.filter((one) => one.kind === kind).map(({ metadata }) => metadata.name);
    const secrets = ["ca-secret", "agent-secret", "coordinator-secret"].map((flag) => flags.get(flag));
    expect(names("Lease")).toEqual([flags.get("lease")]);
    expect(names("Secret")).toEqual(isManaged ? secrets : []);
    expect(of("Role", "coordinator").rules).toEqual([
      {
        apiGroups: ["coordination.k8s.io"],
        resources: ["leases"],
        resourceNames: names("Lease"),
        verbs: ["get", "patch"],
      },
      isManaged
        ? { apiGroups: [""], resources: ["secrets"], resourceNames: secrets, verbs: ["get", "patch"] }
        : { apiGroups: [""], resources: ["secrets"], resourceNames: [secrets[2]], verbs: ["get"] },
    ]);
    const volumes: AnyObject[] = agents.spec.template.spec.volumes;
    expect(volumes.find(({ secret }) => secret)?.secret.secretName).toBe(flags.get("agent-secret"));
    for (const kind of ["RoleBinding", "ClusterRoleBinding"]) {
      const { subjects, roleRef } = of(kind, "coordinator");
      const { serviceAccountName: name } = coordinators.spec.template.spec;
      expect(subjects).toEqual([{ kind: "ServiceAccount", name, namespace: "456" }]);
      expect(names(roleRef.kind)).toContain(roleRef.name);
    }

    // Whatever selects pods selects those of its component, and no others.
    const matches = (selector: Record<string, string>, { spec }: AnyObject) =>
      Object.entries(selector).every(([label, value]) => spec.template.metadata.labels[label] === value);
    const fromFlag = (flags.get("agent-selector") ?? "").split(",").map((pair) => pair.split("="));
    expect(matches(Object.fromEntries(fromFlag), agents)).toBe(true);
    expect(matches(Object.fromEntries(fromFlag), coordinators)).toBe(false);
    for (const [component, own, other] of [
      ["agent", agents, coordinators],
      ["coordinator", coordinators, agents],
    ] as const) {
      const selectors: Array<Record<string, string>> = [
        own.spec.selector.matchLabels,
        of("Service", component).spec.selector,
        of("NetworkPolicy", component).spec.podSelector.matchLabels,
        of("PodMonitor", component).spec.selector.matchLabels,
        of("ServiceMonitor", component).spec.selector.matchLabels,
      ];
      for (const selector of selectors) {
        expect(matches(selector, own)).toBe(true);
        expect(matches(selector, other)).toBe(false);
      }
      const ports = own.spec.template.spec.containers[0].ports.map(({ name }: AnyObject) => name);
      expect(ports).toContain(of("PodMonitor", component).spec.podMetricsEndpoints[0].port);
      expect(of("Service", component).spec.ports[0].name).toBe(of("ServiceMonitor", component).spec.endpoints[0].port);
    }
    for (const { metadata, kind } of objects) {
      if (kind !== "CustomResourceDefinition") expect(metadata.name.length, metadata.name).toBeLessThan(64);
    }
  });

  it("opens the agents' API to coordinators alone, and their metrics to all", async () => {
    const objects = await template({});
    const policy = (component: string) =>
      objects.find(({ kind, metadata }) => kind === "NetworkPolicy" && metadata.name.endsWith(component)).spec;
    const coordinators = objects.find(({ kind }) => kind === "Deployment").spec.selector;
    expect(policy("agent")).toMatchObject({ policyTypes: ["Ingress", "Egress"] });
    expect(policy("agent")).not.toHaveProperty("egress");
    expect(policy("agent").ingress).toEqual([
      { from: [{ podSelector: coordinators }], ports: [{ port: "api" }] },
      { ports: [{ port: "metrics" }] },
    ]);
    expect(policy("coordinator")).toMatchObject({
      policyTypes: ["Ingress"],
      ingress: [{ ports: [{ port: "metrics" }] }],
    });
  });

  it("writes a label once, whichever values give it; those of the chart itself are not to be changed", async () => {
    const objects = await template({
      commonLabels: { team: "a", release: "a", "app.kubernetes.io/name": "a" },
      agent: { podLabels: { team: "b", "app.kubernetes.io/instance": "b" } },
      podMonitor: { enabled: true, labels: { release: "prometheus" } },
    });
    const agents = objects.find(({ kind }) => kind === "DaemonSet");
    expect(agents.spec.template.metadata.labels).toMatchObject({ team: "b", release: "a" });
    expect(agents.spec.template.metadata.labels).toMatchObject(agents.spec.selector.matchLabels);
    expect(agents.spec.selector.matchLabels).toMatchObject({ "app.kubernetes.io/instance": "cro" });
    expect(agents.metadata.labels).toMatchObject({
      team: "a",
      "app.kubernetes.io/name": "checkpoint-restore-operator",
    });
    for (const { metadata } of objects.filter(({ kind }) => kind === "PodMonitor"))
      expect(metadata.labels).toMatchObject({ team: "a", release: "prometheus" });
  });

  it("on OpenShift leaves the coordinator's user to the namespace, and lets the agent's alone mount its node", async () => {
    const objects = await template({ securityContextConstraints: { enabled: true } });
    const pod = (kind: string) => objects.find((one) => one.kind === kind).spec.template.spec;
    const { runAsUser, runAsGroup, ...others } = pod("Deployment").securityContext;
    expect([runAsUser, runAsGroup, others.runAsNonRoot]).toEqual([undefined, undefined, true]);
    const constraints = objects.find(({ kind }) => kind === "SecurityContextConstraints");
    expect(constraints.users).toEqual([`system:serviceaccount:release:${pod("DaemonSet").serviceAccountName}`]);
    const used = pod("DaemonSet").volumes.map((volume: AnyObject) => Object.keys(volume).find((key) => key !== "name"));
    expect(constraints.volumes.sort()).toEqual([...new Set(used)].sort());
  });

  it("gives the agent no right, no token, no capability and nothing of the node but its checkpoints", async () => {
    const objects = await template({});
    const agent = objects.find(({ kind }) => kind === "DaemonSet").spec.template.spec;
    expect(agent).toMatchObject({ automountServiceAccountToken: false, priorityClassName: "system-node-critical" });
    for (const share of ["hostNetwork", "hostPID", "hostIPC"]) expect(agent[share] ?? false).toBe(false);
    expect(agent.tolerations).toEqual([{ operator: "Exists" }]);
    expect(agent.securityContext).toMatchObject({ runAsUser: 0, seccompProfile: { type: "RuntimeDefault" } });
    expect(agent.containers).toHaveLength(1);
    expect(agent.containers[0].securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    const paths = agent.volumes.flatMap(({ hostPath }: AnyObject) => (hostPath ? [hostPath.path] : []));
    expect(paths).toEqual(["/var/lib/kubelet/checkpoints"]);
    expect(agent.containers[0].volumeMounts[0]).toMatchObject({ mountPropagation: "HostToContainer" });
    const bound = objects.filter(({ kind }) => kind.endsWith("RoleBinding")).flatMap(({ subjects }) => subjects);
    expect(bound.map(({ name }) => name)).not.toContain(agent.serviceAccountName);
  });

  describeWithKube("on a real API server", (kube) => {
    let kubeconfig = "";
    beforeAll(async () => {
      kubeconfig = await kube.writeKubeconfig();
    });

    /** What kubectl says of a server-side dry run of these objects. */
    async function dryRun(objects: readonly AnyObject[], namespace: string): Promise<string> {
      const file = join(aFolder(), "objects.json");
      writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items: objects }));
      const args = [
        "--kubeconfig",
        kubeconfig,
        "apply",
        "-n",
        namespace,
        "--server-side",
        "--dry-run=server",
        "-f",
        file,
      ];
      const { stdout, stderr } = await execute(kubectl, args);
      return `${stdout}${stderr}`;
    }

    it("all that it renders by default passes a server-side dry run with strict validation", async () => {
      const namespace = await createNamespace(kube.client);
      const objects = await template({}, { namespace });
      const said = await dryRun(objects, namespace);
      expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
    });

    it("what somebody else brings is left out, and the rest passes", async () => {
      const own = { serviceAccount: { create: false, name: "given" }, affinity: SPREAD };
      const values = {
        ...{ crds: { enabled: false }, rbac: { create: false }, networkPolicy: { enabled: false } },
        certificates: { existingSecrets: { agent: "agent-tls", coordinator: "coordinator-tls" } },
        agent: { ...own, updateStrategy: { type: "OnDelete" } },
        coordinator: { ...own, replicas: 1, updateStrategy: { type: "Recreate" } },
      };
      const namespace = await createNamespace(kube.client);
      const objects = await template(values, { namespace });
      const kinds = [...new Set(objects.map(({ kind }) => kind))].sort();
      expect(kinds).toEqual(["DaemonSet", "Deployment", "Lease", "Pod", "Service"]);
      const said = await dryRun(objects, namespace);
      expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
    });

    describeWith("with cert-manager's definition", certManager, ({ version, definitions }) => {
      it(`the certificates that its README shows pass, as ${version} has it`, async () => {
        for (const definition of definitions) await create(kube.client, DEFINITIONS, definition);
        const certificates = yamlIn(readFileSync(join(CHART, "README.md"), "utf8")).filter(
          ({ kind }) => kind === "Certificate",
        );
        const namespace = await createNamespace(kube.client);
        const said = await until(() => dryRun(certificates, namespace), 30_000);
        expect(said.match(/serverside-applied/g)).toHaveLength(2);
      }, 60_000);
    });

    it.each([
      ["names as long as they may be", { nameOverride: "n".repeat(45) }, "r".repeat(53)],
      ["names that look like numbers", {}, "123"],
    ])("%s pass", async (_, values, release) => {
      const namespace = await createNamespace(kube.client);
      const objects = await template(values, { release, namespace });
      const said = await dryRun(objects, namespace);
      expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
    });

    it("a quota lets the agents' priority class into the namespace where told so", async () => {
      const namespace = await createNamespace(kube.client);
      const objects = await template({ resourceQuota: { enabled: true } }, { namespace });
      const [quota, ...others] = objects.filter(({ kind }) => kind === "ResourceQuota");
      expect(others).toEqual([]);
      const { priorityClassName } = objects.find(({ kind }) => kind === "DaemonSet").spec.template.spec;
      expect(quota?.spec.scopeSelector.matchExpressions).toMatchObject([
        { scopeName: "PriorityClass", values: [priorityClassName] },
      ]);
      expect(await dryRun([quota as AnyObject], namespace)).toContain("serverside-applied");
    });

    it("what goes without helm passes too, but for its namespace, which is its own", async () => {
      const objects = ["crds", "install"].flatMap((name) =>
        parseAllDocuments(readFileSync(join(ROOT, `config/${name}.yaml`), "utf8"))
          .map((document) => document.toJS())
          .filter((object) => object !== null),
      );
      const [namespace, ...others] = objects;
      expect(namespace).toMatchObject({ kind: "Namespace", metadata: { name: "checkpoint-restore-operator" } });
      await create(kube.client, "/api/v1/namespaces", namespace);
      const said = await dryRun(others, "checkpoint-restore-operator");
      expect(said.match(/serverside-applied/g)).toHaveLength(others.length);
    });

    describeWith("with the Prometheus operator's definitions", operator, ({ version, definitions }) => {
      it(`everything switched on passes, as ${version} has it`, async () => {
        for (const definition of definitions) await create(kube.client, DEFINITIONS, definition);
        const namespace = await createNamespace(kube.client);
        const values = nest(
          Object.entries(SAMPLES).filter(
            ([key]) =>
              !/\.create$|^crds|^rbac|^networkPolicy|^coordinator.replicas|^certificates|^securityContext|affinity$/.test(
                key,
              ),
          ),
        );
        const objects = await template(values, { namespace });
        const kinds = new Set(objects.map(({ kind }) => kind));
        for (const kind of ["PodMonitor", "ServiceMonitor", "PrometheusRule"]) expect(kinds).toContain(kind);
        const said = await until(() => dryRun(objects, namespace), 30_000);
        expect(said.match(/serverside-applied/g)).toHaveLength(objects.length);
      }, 60_000);
    });

    /** helm and kubectl in a namespace of their own. */
    async function aUser() {
      const namespace = await createNamespace(kube.client, "user");
      return { namespace, ...userOf({ helm, kubectl, versions }, { kubeconfig, namespace, folder: aFolder() }) };
    }

    it.each([
      ["on the server", ["--server-side=true"]],
      ["on the server, with conflicts forced", ["--server-side=true", "--force-conflicts"]],
      ["by helm's own three-way merge", ["--server-side=false"]],
    ])(
      "an upgrade and a rollback, merged %s, leave what the coordinator wrote",
      async (how, flags) => {
        const user = await aUser();
        const { namespace } = user;
        const release = namespace;
        const install = flags.filter((flag) => flag !== "--force-conflicts");
        await user.helm("install", release, CHART, "--set=crds.enabled=false", ...install);
        const paths = [
          ...["ca", "agent", "coordinator"].map(
            (name) => `/api/v1/namespaces/${namespace}/secrets/${release}-checkpoint-restore-operator-${name}`,
          ),
          `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases/${release}-checkpoint-restore-operator`,
        ];
        const read = async () =>
          Promise.all(paths.map(async (path) => unwrap(await kube.client.request<AnyObject>({ path }))));
        for (const { data, spec } of await read()) expect({ ...data, ...spec }).toEqual({});
        for (const path of paths) {
          const body = path.includes("/secrets/")
            ? { data: { "tls.crt": Buffer.from(how).toString("base64") } }
            : { metadata: { annotations: { "criu.org/fencing-term": "7" } }, spec: { holderIdentity: "me" } };
          unwrap(await kube.client.request({ method: "PATCH", path, body }));
        }
        const written = async () =>
          (await read()).map(({ data, spec, metadata }) => ({
            ...{ data, spec, uid: metadata.uid, term: metadata.annotations["criu.org/fencing-term"] },
          }));
        const before = await written();
        const other = ["--set=crds.enabled=false", "--set=commonLabels.team=platform", "--set=logLevel=debug"];
        await user.helm("upgrade", release, CHART, ...other, ...flags);
        expect((await read()).map(({ metadata }) => metadata.labels.team)).toEqual(paths.map(() => "platform"));
        expect(await written()).toEqual(before);
        await user.helm("rollback", release, "1", ...flags);
        expect((await read()).map(({ metadata }) => metadata.labels.team)).toEqual(paths.map(() => undefined));
        expect(await written()).toEqual(before);
        await user.helm("uninstall", release);
      },
      120_000,
    );

    it("the definition and its policies outlive every change of the release, and go with it only where told so", async () => {
      const user = await aUser();
      await user.helm("install", "cro", CHART);
      const policy = { apiVersion: "criu.org/v1", kind: "CheckpointRestoreOperator", metadata: { name: "mine" } };
      await until(() => user.apply({ ...policy, spec: { mode: "DryRun" } }), 30_000);
      const { uid } = (await user.get("cro", "mine")).metadata;
      for (const command of [
        ["upgrade", "cro", CHART, "--set=logLevel=debug"],
        ["rollback", "cro", "1"],
        ["upgrade", "cro", CHART, "--set=crds.enabled=false"],
        ["upgrade", "cro", CHART],
        ["upgrade", "cro", CHART, "--set=crds.enabled=false"],
        ["uninstall", "cro"],
        ["install", "cro", CHART],
      ]) {
        await user.helm(...command);
        expect((await user.get("cro", "mine")).metadata.uid, command.join(" ")).toBe(uid);
      }
      await user.helm("upgrade", "cro", CHART, "--set=crds.keep=false");
      expect((await user.get("cro", "mine")).metadata.uid).toBe(uid);
      await user.helm("uninstall", "cro");
      await until(
        () => expect(user.get("crd", "checkpointrestoreoperators.criu.org")).rejects.toThrow("NotFound"),
        30_000,
      );
    }, 120_000);

    it("what it tells to do next can be copied as it stands", async () => {
      const user = await aUser();
      const obeyed = await createNamespace(kube.client);
      const values = ["--set-json", `policyNamespaces=["${obeyed}"]`];
      const said = await user.helm("install", "cro", CHART, ...values);
      const commands = /^kubectl (?:.*<<EOF\n[\s\S]*?^EOF|.*)$/gm;
      const [rollout = "", label = "", apply = "", get = "", ...others] = said.match(commands) ?? [];
      expect(others).toEqual([]);
      const run = async (command: string) => {
        const env = { ...process.env, KUBECONFIG: kubeconfig, PATH: `${dirname(kubectl)}:${process.env.PATH}` };
        return (await execute("bash", ["-c", command], { env })).stdout;
      };
      // Nothing rolls out here, for there are no controllers; that it is there is all that can be asked.
      expect(await run(rollout.replace("rollout status", "get"))).toContain("cro-checkpoint-restore-operator-agent");
      // Its pod would never run; install.test.ts has kubelets that run it.
      expect(said).toContain(`\nhelm test cro --namespace ${user.namespace}\n`);
      expect(await run(label)).toContain(user.namespace);
      expect(await until(() => run(apply), 30_000)).toContain("retention created");
      expect(await run(get)).toMatch(new RegExp(`^${obeyed} +retention `, "m"));
      await user.helm("uninstall", "cro");
      await user.kubectl("delete", "-f", join(ROOT, "config/crd"));
    }, 60_000);

    it("a definition that is there already is taken over where told so, and its policies stay", async () => {
      const before = await aUser();
      await before.kubectl("apply", "-f", join(ROOT, "config/crd"));
      const policy = { apiVersion: "criu.org/v1", kind: "CheckpointRestoreOperator", metadata: { name: "mine" } };
      await until(() => before.apply({ ...policy, spec: { mode: "DryRun" } }), 30_000);
      const others = await aUser();
      for (const user of [before, others]) {
        await expect(user.helm("install", "cro", CHART)).rejects.toThrow(/cannot be imported into the current release/);
        await user.helm("install", "cro", CHART, "--take-ownership");
        expect(await user.kubectl("get", "crd", "checkpointrestoreoperators.criu.org", "-o", "yaml")).toContain(
          `meta.helm.sh/release-namespace: ${user.namespace}`,
        );
        expect((await before.get("cro", "mine")).spec).toEqual({ mode: "DryRun" });
        await user.helm("uninstall", "cro");
      }
      expect((await before.get("cro", "mine")).spec).toEqual({ mode: "DryRun" });
      await before.kubectl("delete", "-f", join(ROOT, "config/crd"));
    }, 120_000);

    it("coordinators run where `restricted` is enforced, agents only where nothing less than `privileged` is", async () => {
      const objects = await template({});
      const pod = (kind: string) => {
        const { spec } = objects.find((object) => object.kind === kind).spec.template;
        // No controller-manager is here, and so no ServiceAccount of the release.
        return { ...spec, serviceAccountName: "default", priorityClassName: undefined };
      };
      const tryPod = async (level: string, kind: string) => {
        const namespace = await createNamespace(kube.client, level);
        unwrap(
          await kube.client.request({
            method: "PATCH",
            path: `/api/v1/namespaces/${namespace}`,
            body: { metadata: { labels: { "pod-security.kubernetes.io/enforce": level } } },
          }),
        );
        return kube.client.request({
          method: "POST",
          path: `/api/v1/namespaces/${namespace}/pods`,
          body: { metadata: { name: "candidate" }, spec: pod(kind) },
        });
      };
      expect(await tryPod("restricted", "Deployment")).toMatchObject({ ok: true });
      for (const level of ["restricted", "baseline"]) {
        expect(await tryPod(level, "DaemonSet")).toMatchObject({
          ok: false,
          status: 403,
          message: expect.stringContaining("hostPath"),
        });
      }
      expect(await tryPod("privileged", "DaemonSet")).toMatchObject({ ok: true });
    });
  });
});
