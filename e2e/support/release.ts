import { execFile } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { HelmTools } from "./helm.ts";
import type { AnyObject } from "./kube.ts";
import { CHART, packageRelease } from "./package.ts";
import { ROOT } from "./processes.ts";

const execute = promisify(execFile);

/** What the chart of a checkout has to be told: an image's registry. Further values files win over this one. */
export const CHECKOUT_VALUES = join(ROOT, "e2e/support/checkout-values.yaml");

/** helm and kubectl of one cluster and namespace, as a user has them. Both reject with what the tool says. */
export function userOf(
  { helm, kubectl }: HelmTools,
  { kubeconfig, namespace, folder }: { kubeconfig: string; namespace: string; folder: string },
) {
  const run = async (tool: string, args: readonly string[]) => {
    const { stdout } = await execute(tool, [...args, "--namespace", namespace], {
      env: {
        ...process.env,
        KUBECONFIG: kubeconfig,
        HELM_CACHE_HOME: folder,
        HELM_CONFIG_HOME: folder,
        HELM_DATA_HOME: folder,
      },
      maxBuffer: 1 << 26,
    });
    return stdout;
  };
  const fileOf = (content: unknown) => {
    const file = join(mkdtempSync(join(folder, "file-")), "content.json");
    writeFileSync(file, JSON.stringify(content));
    return file;
  };
  return {
    helm: (...args: string[]) => run(helm, args.includes(CHART) ? [...args, "--values", CHECKOUT_VALUES] : args),
    /** helm install or upgrade of the chart, with these values. */
    deploy: (command: "install" | "upgrade", release: string, values: object) =>
      run(helm, [command, release, CHART, "--values", CHECKOUT_VALUES, "--values", fileOf(values)]),
    /** The same of a chart's package, which needs to be told no image. */
    deployPackage: async (command: "install" | "upgrade", release: string, values: object) => {
      const image = { registry: "localhost", repository: "checkpoint-restore-operator" };
      const [chart = ""] = await packageRelease(helm, image, mkdtempSync(join(folder, "package-")));
      return run(helm, [command, release, chart, "--values", fileOf(values)]);
    },
    kubectl: (...args: string[]) => run(kubectl, args),
    apply: (object: AnyObject) => run(kubectl, ["apply", "-f", fileOf(object)]),
    /** For objects that are too large for kubectl's annotation. */
    serverApply: (object: AnyObject) => run(kubectl, ["apply", "--server-side", "-f", fileOf(object)]),
    get: async (...what: string[]): Promise<AnyObject> =>
      JSON.parse(await run(kubectl, ["get", ...what, "-o", "json"])),
  };
}

/**
 * What a Prometheus scrapes for a PodMonitor, as the Prometheus operator translates it: the pods that the selector finds,
 * by the port's name, with its interval and relabelings. Debian's Prometheus is built without the discovery of pods: the
 * targets, with the labels that it would give them, are listed. `via` has the API server pass the requests on, for those
 * who cannot reach pods.
 */
export function scrapeConfigOf(
  podMonitor: AnyObject,
  { pods, via }: { pods: readonly AnyObject[]; via?: { address: string; tls: object } },
): object[] {
  const { metadata, spec } = podMonitor;
  return spec.podMetricsEndpoints.map((endpoint: AnyObject, index: number) => ({
    job_name: `podMonitor/${metadata.namespace}/${metadata.name}/${index}`,
    honor_labels: endpoint.honorLabels ?? false,
    scrape_interval: endpoint.interval,
    ...(via && { scheme: "https", tls_config: via.tls }),
    static_configs: pods.flatMap(targetsOf),
    relabel_configs: [
      ...Object.entries(spec.selector.matchLabels as Record<string, string>).map(([label, value]) => ({
        action: "keep",
        source_labels: [labelName(label)],
        regex: value,
      })),
      { action: "drop", source_labels: ["__meta_kubernetes_pod_phase"], regex: "(Failed|Succeeded)" },
      { action: "keep", source_labels: ["__meta_kubernetes_pod_container_port_name"], regex: endpoint.port },
      { source_labels: ["__meta_kubernetes_namespace"], target_label: "namespace" },
      { source_labels: ["__meta_kubernetes_pod_container_name"], target_label: "container" },
      { source_labels: ["__meta_kubernetes_pod_name"], target_label: "pod" },
      ...(endpoint.relabelings ?? []).map(({ sourceLabels, targetLabel, ...rest }: AnyObject) => ({
        ...(sourceLabels && { source_labels: sourceLabels }),
        ...(targetLabel && { target_label: targetLabel }),
        ...rest,
      })),
      ...(via === undefined
        ? []
        : [
            {
              source_labels: [
                "__meta_kubernetes_namespace",
                "__meta_kubernetes_pod_name",
                "__meta_kubernetes_pod_container_port_number",
              ],
              regex: "(.+);(.+);(.+)",
              target_label: "__metrics_path__",
              replacement: "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            },
            { target_label: "__address__", replacement: via.address },
          ]),
    ],
  }));
}

const labelName = (label: string) => `__meta_kubernetes_pod_label_${label.replaceAll(/[^a-zA-Z0-9_]/g, "_")}`;

/** One target for each port that a pod declares (prometheus.io/docs/prometheus/latest/configuration/configuration/#pod). */
function targetsOf({ metadata, spec, status }: AnyObject): object[] {
  return spec.containers.flatMap(({ name, ports }: AnyObject) =>
    ports.map((port: AnyObject) => ({
      targets: [`${status.podIP}:${port.containerPort}`],
      labels: {
        ...Object.fromEntries(Object.entries(metadata.labels).map(([label, value]) => [labelName(label), value])),
        __meta_kubernetes_namespace: metadata.namespace,
        __meta_kubernetes_pod_name: metadata.name,
        __meta_kubernetes_pod_node_name: spec.nodeName,
        __meta_kubernetes_pod_phase: status.phase,
        __meta_kubernetes_pod_container_name: name,
        __meta_kubernetes_pod_container_port_name: port.name,
        __meta_kubernetes_pod_container_port_number: `${port.containerPort}`,
      },
    })),
  );
}
