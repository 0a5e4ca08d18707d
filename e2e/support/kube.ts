import {
  createKubeClient,
  type KubeAccess,
  type KubeClient,
  type KubeResult,
  loadKubeAccess,
} from "@cro/coordinator/kube/client";
import { POLICY_PLURAL, policyDefinition } from "@cro/shared/crd/manifest";
import { POLICY_API_VERSION, POLICY_KIND } from "@cro/shared/crd/schema";
import { afterAll, beforeAll, expect, vi } from "vitest";
import { type ControlPlane, findControlPlane, startControlPlane } from "./envtest.ts";
import { describeWith } from "./tools.ts";

/** A control plane with a client of its administrator. */
export interface Kube extends ControlPlane {
  client: KubeClient;
}

/** What `kubectl get -o json` gives. */
// biome-ignore lint/suspicious/noExplicitAny: tests look into objects of every kind
export type AnyObject = any;

const binaries = await findControlPlane();

/**
 * A group of tests on a kube-apiserver of their own, which runs while they do. Where the machine has none and cannot
 * build one, they are skipped and named at the end of the run; see {@link describeWith}.
 */
export function describeWithKube(name: string, body: (kube: Kube) => void): void {
  describeWith(name, binaries, (found) => {
    const kube = {} as Kube;
    beforeAll(async () => {
      const controlPlane = await startControlPlane(found);
      const access = await adminAccess(controlPlane);
      Object.assign(kube, controlPlane, { client: createKubeClient(access, { userAgent: "test" }) });
    }, 120_000);
    afterAll(async () => {
      await kube.client?.close();
      await kube.stop?.();
    }, 60_000);
    body(kube);
  });
}

async function adminAccess(controlPlane: ControlPlane): Promise<KubeAccess> {
  return loadKubeAccess({ kubeconfig: await controlPlane.writeKubeconfig(), nowMs: () => performance.now() });
}

/** The value of an answer that a test needs. */
export function unwrap<T>(result: KubeResult<T>): T {
  if (!result.ok) throw new Error(result.message);
  return result.value;
}

/** Creates any object; returns it as the API server stored it. */
export async function create(client: KubeClient, path: string, object: object): Promise<AnyObject> {
  return unwrap(await client.request<AnyObject>({ method: "POST", path, body: object }));
}

let namespaces = 0;

/** Creates a namespace of a name that no other test has; returns the name. */
export async function createNamespace(client: KubeClient, prefix = "test"): Promise<string> {
  namespaces += 1;
  const name = `${prefix}-${namespaces}`;
  await create(client, "/api/v1/namespaces", { metadata: { name } });
  return name;
}

/** Creates a pod that no kubelet will ever run. */
export async function createPod(
  client: KubeClient,
  { namespace, name, ...metadata }: { namespace: string; name: string; labels?: Record<string, string> },
): Promise<AnyObject> {
  return create(client, `/api/v1/namespaces/${namespace}/pods`, {
    metadata: { name, ...metadata },
    spec: { containers: [{ name: "main", image: "none" }] },
  });
}

/** Deletes any object at once, without the grace period that a kubelet would have to end. */
export async function remove(client: KubeClient, path: string): Promise<void> {
  unwrap(await client.request({ method: "DELETE", path, query: { gracePeriodSeconds: 0 } }));
}

/** Creates a ServiceAccount with the rights given, and returns a token of it. */
export async function createServiceAccount(
  client: KubeClient,
  {
    namespace,
    name,
    rules,
    expirationSeconds = 3600,
  }: { namespace: string; name: string; rules: object[]; expirationSeconds?: number },
): Promise<string> {
  await create(client, `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } });
  const rbac = "/apis/rbac.authorization.k8s.io/v1";
  const role = `${namespace}-${name}`;
  await create(client, `${rbac}/clusterroles`, { metadata: { name: role }, rules });
  await create(client, `${rbac}/clusterrolebindings`, {
    metadata: { name: role },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: role },
    subjects: [{ kind: "ServiceAccount", name, namespace }],
  });
  return createToken(client, { namespace, name, expirationSeconds });
}

/** A token of a ServiceAccount that exists. */
export async function createToken(
  client: KubeClient,
  { namespace, name, expirationSeconds = 3600 }: { namespace: string; name: string; expirationSeconds?: number },
): Promise<string> {
  const request = await create(client, `/api/v1/namespaces/${namespace}/serviceaccounts/${name}/token`, {
    apiVersion: "authentication.k8s.io/v1",
    kind: "TokenRequest",
    spec: { expirationSeconds },
  });
  return request.status.token;
}

/** Installs the policy resource, and waits until the API server serves it. */
export async function installPolicyDefinition(client: KubeClient): Promise<void> {
  const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
  const created = await create(client, path, policyDefinition());
  await vi.waitFor(
    async () => {
      const definition = unwrap(await client.request<AnyObject>({ path: `${path}/${created.metadata.name}` }));
      const { conditions = [] } = definition.status ?? {};
      expect(conditions).toContainEqual(expect.objectContaining({ type: "Established", status: "True" }));
    },
    { timeout: 20_000, interval: 100 },
  );
  await vi.waitFor(async () => unwrap(await client.request({ path: `/apis/${POLICY_API_VERSION}/${POLICY_PLURAL}` })), {
    timeout: 20_000,
    interval: 100,
  });
}

/** Where the policies of a namespace are, or one of them. */
export function policyPath(namespace: string, name?: string): string {
  const path = `/apis/${POLICY_API_VERSION}/namespaces/${namespace}/${POLICY_PLURAL}`;
  return name === undefined ? path : `${path}/${name}`;
}

/** A policy resource with this spec. */
export function aPolicy(spec: unknown, name = "policy"): object {
  return { apiVersion: POLICY_API_VERSION, kind: POLICY_KIND, metadata: { name }, spec };
}
