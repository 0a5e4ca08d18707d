import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Mount, runContainer } from "./container.ts";
import { type AnyObject, create, createToken, type Kube, remove, unwrap } from "./kube.ts";
import type { Running } from "./processes.ts";

const TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount";
const LOOK_MS = 200;
const RESTART_MS = 500;

/** A node: a folder of this machine stands for its file system. */
export interface PlayedNode {
  name: string;
  root: string;
}

/** A pod that runs as a process of this machine. */
export interface PlayedPod {
  name: string;
  uid: string;
  node: PlayedNode;
  component: string;
  ip: string;
  /** Of its container's processes the one of now, and how many there were before. */
  container(): Running;
  restarts(): number;
}

export interface PlayedCluster {
  /** What controllers do: creates the pods that DaemonSets and Deployments want now, and ends the others. */
  reconcile(): Promise<void>;
  pods(): PlayedPod[];
  /** Waits for a pod that no controller has made, such as `helm test` does, and runs its container to the end. */
  runToEnd(name: string): Promise<Running>;
  stop(): Promise<void>;
}

interface Options {
  namespace: string;
  rootFileSystem: string;
  nodes: readonly PlayedNode[];
}

interface Entry extends PlayedPod {
  hash: string;
  end(): Promise<void>;
}

let addresses = 0;
/** Two runs on one machine, whose pods all listen on the same ports, must not have the same addresses. */
const NETWORK = 1 + (process.pid % 254);

/**
 * Plays controllers, scheduler and kubelets of a namespace: what the API server has of DaemonSets and Deployments becomes
 * pods, and each pod a process with exactly its command, arguments, environment, mounts, user and probes, and with a token
 * of its ServiceAccount. Pods have addresses of 127.0.0.0/8, on which their processes must listen, for they share this
 * machine's network.
 */
export function playCluster(kube: Kube, { namespace, rootFileSystem, nodes }: Options): PlayedCluster {
  const { client } = kube;
  const running = new Map<string, Entry>();
  async function wanted(): Promise<Array<{ key: string; owner: AnyObject; node: PlayedNode; hash: string }>> {
    const get = async (plural: string): Promise<AnyObject[]> =>
      unwrap(await client.request<AnyObject>({ path: `/apis/apps/v1/namespaces/${namespace}/${plural}` })).items;
    const [daemonSets, deployments] = await Promise.all([get("daemonsets"), get("deployments")]);
    const copies = [
      ...daemonSets.flatMap((owner) => nodes.map((node) => ({ owner, node, suffix: node.name }))),
      ...deployments.flatMap((owner) =>
        Array.from({ length: owner.spec.replicas }, (_, index) => ({
          owner,
          node: nodes[index % nodes.length] as PlayedNode,
          suffix: `${index}`,
        })),
      ),
    ];
    return copies.map(({ owner, node, suffix }) => {
      const hash = createHash("sha256").update(JSON.stringify(owner.spec.template)).digest("hex").slice(0, 10);
      return { key: `${owner.metadata.name}-${hash}-${suffix}`, owner, node, hash };
    });
  }

  /** How a pod's container is started, and what must be tended and removed when it has ended. */
  async function prepare(pod: AnyObject, { node, ip, signal }: { node: PlayedNode; ip: string; signal: AbortSignal }) {
    const { spec, metadata } = pod;
    const folder = mkdtempSync(join(tmpdir(), "cro-pod-"));
    const { volumes, tending } = await makeVolumes(kube, { pod, namespace, node, folder, signal });
    const [container] = spec.containers;
    const env = {
      HOSTNAME: metadata.name,
      KUBERNETES_SERVICE_HOST: new URL(kube.server).hostname,
      KUBERNETES_SERVICE_PORT: new URL(kube.server).port,
      ...readEnv(container.env ?? [], { ...pod, status: { podIP: ip } }),
    };
    const expand = (word: string) => word.replace(/\$\((\w+)\)/g, (all, key: string) => (env as AnyObject)[key] ?? all);
    const mounts = [...(container.volumeMounts ?? [])]
      .filter(({ mountPath }: AnyObject) => mountPath !== TOKEN_PATH)
      .map(({ name: volume, mountPath, readOnly }: AnyObject): Mount => {
        const source = volumes.get(volume);
        if (source === undefined) throw new Error(`pod ${metadata.name} mounts ${volume}, which is no volume of it`);
        return { source, target: mountPath, isReadOnly: readOnly ?? false };
      });
    const token = volumes.get(TOKEN_PATH);
    if (token !== undefined) mounts.push({ source: token, target: TOKEN_PATH, isReadOnly: true });
    const security = { ...spec.securityContext, ...container.securityContext };
    const start = () =>
      runContainer({
        rootFileSystem,
        isRootReadOnly: security.readOnlyRootFilesystem ?? false,
        mounts,
        command: [...container.command, ...container.args].map(expand),
        env,
        uid: security.runAsUser,
        gid: security.runAsGroup,
      });
    return { start, container, folder, tending };
  }

  function nextAddress(): string {
    addresses += 1;
    return `127.${NETWORK}.${addresses >> 8}.${addresses & 255}`;
  }

  async function startPod(
    name: string,
    { owner, node, hash }: Awaited<ReturnType<typeof wanted>>[number],
  ): Promise<Entry> {
    const { metadata, spec } = owner.spec.template;
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const pod = await create(client, path, { metadata: { ...metadata, name }, spec: { ...spec, nodeName: node.name } });
    const ip = nextAddress();
    const writeStatus = async (isReady: boolean) => {
      const status = {
        phase: "Running",
        podIP: ip,
        podIPs: [{ ip }],
        conditions: [{ type: "Ready", status: isReady ? "True" : "False" }],
      };
      await client.request({ method: "PATCH", path: `${path}/${name}/status`, body: { status } });
    };
    await writeStatus(false);

    const ending = new AbortController();
    const { start, container, folder, tending } = await prepare(pod, { node, ip, signal: ending.signal });
    let current = await start();
    let restarts = 0;

    const restarting = (async () => {
      while (!ending.signal.aborted) {
        await current.exited;
        await sleep(RESTART_MS, undefined, { signal: ending.signal }).catch(() => {});
        if (ending.signal.aborted) return;
        restarts += 1;
        current = await start();
      }
    })();
    const probing = (async () => {
      let isReady = false;
      let failures = 0;
      while (!ending.signal.aborted) {
        const answers = await Promise.all(
          [container.readinessProbe, container.livenessProbe].map((probe) => ask(probe, { container, ip })),
        );
        if (answers[0] !== isReady) await writeStatus(!isReady);
        isReady = answers[0] ?? false;
        failures = answers[1] ? 0 : failures + 1;
        const { failureThreshold, periodSeconds } = container.livenessProbe;
        if (failures * LOOK_MS > failureThreshold * periodSeconds * 1000) {
          failures = 0;
          void current.kill("SIGTERM");
        }
        await sleep(LOOK_MS, undefined, { signal: ending.signal }).catch(() => {});
      }
    })();

    return {
      name,
      uid: pod.metadata.uid,
      node,
      component: metadata.labels["app.kubernetes.io/component"],
      ip,
      hash,
      container: () => current,
      restarts: () => restarts,
      async end() {
        ending.abort();
        await current.kill("SIGTERM");
        await Promise.all([restarting, probing, tending]);
        await remove(client, `${path}/${name}`);
        rmSync(folder, { recursive: true, force: true });
      },
    };
  }

  return {
    async reconcile() {
      const all = await wanted();
      const keys = new Set(all.map(({ key }) => key));
      const gone = [...running].filter(([key]) => !keys.has(key));
      await Promise.all(gone.map(([key, entry]) => entry.end().finally(() => running.delete(key))));
      for (const one of all) {
        if (!running.has(one.key)) running.set(one.key, await startPod(one.key, one));
      }
    },
    pods: () => [...running.values()],
    async runToEnd(name) {
      const path = `/api/v1/namespaces/${namespace}/pods/${name}`;
      let found = await client.request<AnyObject>({ path });
      for (; !found.ok; found = await client.request<AnyObject>({ path })) await sleep(LOOK_MS);
      const ending = new AbortController();
      const how = { node: nodes[0] as PlayedNode, ip: nextAddress(), signal: ending.signal };
      const { start, folder, tending } = await prepare(found.value, how);
      const current = await start();
      const code = await current.exited;
      ending.abort();
      await tending;
      rmSync(folder, { recursive: true, force: true });
      const status = { phase: code === 0 ? "Succeeded" : "Failed" };
      unwrap(await client.request({ method: "PATCH", path: `${path}/status`, body: { status } }));
      return current;
    },
    async stop() {
      await Promise.all([...running.values()].map((entry) => entry.end()));
      running.clear();
    },
  };
}

/** Whether a probe's page answers with success (kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes). */
async function ask(probe: AnyObject, { container, ip }: { container: AnyObject; ip: string }): Promise<boolean> {
  const { path, port } = probe.httpGet;
  const named = container.ports.find(({ name }: AnyObject) => name === port);
  try {
    const signal = AbortSignal.timeout(probe.timeoutSeconds * 1000);
    const { status } = await fetch(`http://${ip}:${named?.containerPort ?? port}${path}`, { signal });
    return status >= 200 && status < 400;
  } catch {
    return false;
  }
}

function readEnv(entries: readonly AnyObject[], pod: AnyObject): Record<string, string> {
  return Object.fromEntries(
    entries.map(({ name, value, valueFrom }) => {
      if (value !== undefined) return [name, value];
      const path: string = valueFrom.fieldRef.fieldPath;
      const found = path.split(".").reduce((at: AnyObject, key) => at?.[key], pod);
      if (typeof found !== "string") throw new Error(`env ${name}: the pod has no ${path}`);
      return [name, found];
    }),
  );
}

/** A folder for each volume of a pod, those of Secrets and ConfigMaps kept as they are, until the signal. */
async function makeVolumes(
  kube: Kube,
  options: { pod: AnyObject; namespace: string; node: PlayedNode; folder: string; signal: AbortSignal },
): Promise<{ volumes: Map<string, string>; tending: Promise<unknown> }> {
  const { pod, namespace, node, folder, signal } = options;
  const volumes = new Map<string, string>();
  const tending: Array<Promise<void>> = [];
  const own = (name: string) => {
    const path = join(folder, name);
    mkdirSync(path, { recursive: true });
    return path;
  };
  for (const { name, hostPath, secret, configMap, emptyDir } of pod.spec.volumes ?? []) {
    if (hostPath !== undefined) {
      const path = join(node.root, hostPath.path);
      mkdirSync(path, { recursive: true });
      volumes.set(name, path);
    } else if (emptyDir !== undefined) {
      volumes.set(name, own(name));
    } else {
      const path = own(name);
      const object = secret ? `secrets/${secret.secretName}` : `configmaps/${configMap.name}`;
      const { kept } = await follow(kube, { path: `/api/v1/namespaces/${namespace}/${object}`, folder: path, signal });
      tending.push(kept);
      volumes.set(name, path);
    }
  }
  const { serviceAccountName: account = "default", automountServiceAccountToken: mounts } = pod.spec;
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}`;
  const { automountServiceAccountToken: isDefault = true } = unwrap(await kube.client.request<AnyObject>({ path }));
  if (mounts ?? isDefault) {
    const files = {
      token: Buffer.from(await createToken(kube.client, { namespace, name: account })),
      namespace: Buffer.from(namespace),
      "ca.crt": Buffer.from(kube.caPem),
    };
    const projected = own("token");
    project(projected, files);
    volumes.set(TOKEN_PATH, projected);
  }
  return { volumes, tending: Promise.all(tending) };
}

/** Keeps a folder as a Secret or ConfigMap is, until the signal. Resolves when it is so for the first time. */
async function follow(
  kube: Kube,
  { path, folder, signal }: { path: string; folder: string; signal: AbortSignal },
): Promise<{ kept: Promise<void> }> {
  let version = "";
  const look = async () => {
    const answer = await kube.client.request<AnyObject>({ path });
    if (!answer.ok || answer.value.metadata.resourceVersion === version) return;
    version = answer.value.metadata.resourceVersion;
    const encoding = path.includes("/secrets/") ? "base64" : "utf8";
    const entries = Object.entries((answer.value.data ?? {}) as Record<string, string>);
    project(folder, Object.fromEntries(entries.map(([name, value]) => [name, Buffer.from(value, encoding)])));
  };
  const keep = async () => {
    while (!signal.aborted) {
      await sleep(LOOK_MS, undefined, { signal }).catch(() => {});
      if (!signal.aborted) await look();
    }
  };
  await look();
  return { kept: keep() };
}

let versions = 0;

/** Puts all files in place at once, as the kubelet does: a new folder, and a link to it that is replaced. */
function project(folder: string, files: Record<string, Buffer>): void {
  versions += 1;
  const version = `..v${versions}`;
  mkdirSync(join(folder, version));
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, version, name), content, { mode: 0o644 });
    const link = join(folder, `..link-${name}`);
    symlinkSync(join("..data", name), link);
    renameSync(link, join(folder, name));
  }
  symlinkSync(version, join(folder, "..data-new"));
  renameSync(join(folder, "..data-new"), join(folder, "..data"));
}
