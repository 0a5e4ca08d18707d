import { setTimeout as sleep } from "node:timers/promises";
import { POLICY_PLURAL } from "@cro/shared/crd/manifest";
import { POLICY_API_VERSION } from "@cro/shared/crd/schema";
import type { PolicyStatus } from "@cro/shared/crd/status";
import { VERSION } from "@cro/shared/version";
import { toAgentPod } from "./agents/discover.ts";
import type { CheckConfig } from "./config.ts";
import {
  createKubeClient,
  type KubeClient,
  type KubeObject,
  type KubeResult,
  kubePath,
  loadKubeAccess,
} from "./kube/client.ts";
import { type Collection, listObjects } from "./kube/list.ts";
import { readLease } from "./leader/lease.ts";
import type { LeaseSeen } from "./leader/step.ts";
import { agentNodes, toNodeFacts } from "./policy/agent-nodes.ts";
import { resourceKey } from "./policy/judge.ts";
import type { NodeFacts } from "./policy/ruling.ts";

/** Time between two looks, in milliseconds. */
const LOOK_MS = 1000;
const CALL_MS = 10_000;
/** How many things that are wrong are named of one kind. */
const MAX_NAMED = 10;

/** A pod of the release. */
export interface ReleasePod {
  node: string | undefined;
  isReady: boolean;
  image: string | undefined;
  /** Whether it runs an agent. */
  isAgent: boolean;
}

/** What one look at a release finds. */
export interface ReleaseFacts {
  lease: Pick<LeaseSeen, "holder" | "record">;
  /** The Lease's record at the first look. Whoever leads renews it; other hands change the Lease, and not its record. */
  firstRecord: string;
  nodes: NodeFacts[];
  pods: ReleasePod[];
  /** The status may be of an earlier generation of the policy: then it says nothing of this one. */
  policies: Array<{ key: string; generation: number | undefined; status: PolicyStatus | undefined }>;
}

/** One thing that must be so, and whether it is. */
export interface Finding {
  isOk: boolean;
  text: string;
}

/** What is well with a release, and what is not. Pure. */
export function judgeRelease({ lease, firstRecord, nodes, pods, policies }: ReleaseFacts): Finding[] {
  const agents = pods.filter(({ isAgent }) => isAgent);
  const wanted = agentNodes(nodes, agents);
  const readyOn = new Set(agents.filter(({ isReady }) => isReady).map(({ node }) => node));
  const unready = wanted.map(({ name }) => name).filter((name) => !readyOn.has(name));
  const images = [...new Set(pods.map(({ image }) => image))];
  const failing = policies.flatMap(({ key, generation, status }) => {
    const ready = status?.conditions?.find(({ type }) => type === "Ready");
    if (ready === undefined || status?.observedGeneration !== generation) return [`${key} has no status yet`];
    // Another policy ruling its nodes is nothing that is wrong with the release.
    return ready.status === "True" || ready.reason === "Outranked" ? [] : [`${key}: ${ready.reason}: ${ready.message}`];
  });
  const [holder] = lease.holder.split("_");
  const isRenewed = lease.record !== firstRecord;
  return [
    holder === ""
      ? { isOk: false, text: "no coordinator leads: nobody holds the Lease" }
      : { isOk: isRenewed, text: isRenewed ? `${holder} leads` : `${holder} holds the Lease and does not renew it` },
    unready.length === 0
      ? { isOk: wanted.length > 0, text: `agents are ready on ${wanted.length} of ${wanted.length} nodes` }
      : { isOk: false, text: `no agent is ready on ${name(unready)}; kubectl describe its pod` },
    images.length <= 1
      ? { isOk: pods.length > 0, text: `all ${pods.length} pods run ${images[0] ?? "nothing"}` }
      : { isOk: false, text: `pods run different images: ${name(images.map((image) => image ?? "none"))}` },
    failing.length === 0
      ? { isOk: true, text: `${policies.length} ${policies.length === 1 ? "policy is" : "policies are"} obeyed` }
      : { isOk: false, text: name(failing) },
  ];
}

function name(list: readonly string[]): string {
  const named = list.slice(0, MAX_NAMED).join(", ");
  return list.length > MAX_NAMED ? `${named} and ${list.length - MAX_NAMED} more` : named;
}

/**
 * Looks at a release until all is well, or its time is over, and prints what the last look found: a line for each thing that
 * must be so. Returns the exit code.
 */
export async function runCheck(config: CheckConfig, print: (line: string) => void): Promise<0 | 1> {
  const nowMs = () => performance.now();
  const endMs = nowMs() + config.timeoutMs;
  let client: KubeClient | undefined;
  try {
    const access = await loadKubeAccess({ ...(config.kubeconfig && { kubeconfig: config.kubeconfig }), nowMs });
    client = createKubeClient(access, { userAgent: `checkpoint-restore-operator/${VERSION}` });
    let firstRecord: string | undefined;
    for (;;) {
      const looked = await look(client, config);
      if (looked.ok) firstRecord ??= looked.value.lease.record;
      const findings = looked.ok
        ? judgeRelease({ ...looked.value, firstRecord: firstRecord ?? "" })
        : [{ isOk: false, text: looked.message }];
      const isWell = findings.every(({ isOk }) => isOk);
      if (isWell || nowMs() >= endMs) {
        for (const { isOk, text } of findings) print(`${isOk ? "ok  " : "FAIL"}  ${text}`);
        return isWell ? 0 : 1;
      }
      await sleep(LOOK_MS);
    }
  } catch (cause) {
    print(`FAIL  ${(cause as Error).message}`);
    return 1;
  } finally {
    await client?.close();
  }
}

/** Finds out how a release stands. */
async function look(client: KubeClient, config: CheckConfig): Promise<KubeResult<Omit<ReleaseFacts, "firstRecord">>> {
  const { namespace, leaseName, agentSelector } = config;
  const list = <T>(collection: Collection, project: (object: KubeObject) => T) =>
    listObjects(client, collection, { project, timeoutMs: CALL_MS });
  const lease = await readLease(
    client,
    { namespace, name: leaseName },
    { timeoutMs: CALL_MS, defaultDurationMs: CALL_MS },
  );
  if (!lease.ok) return lease;
  const nodes = await list({ path: "/api/v1/nodes", metadataOnly: true }, toNodeFacts);
  if (!nodes.ok) return nodes;
  const isAgent = labelsOf(agentSelector);
  const isCoordinator = labelsOf(agentSelector.replace("component=agent", "component=coordinator"));
  const path = kubePath`/api/v1/namespaces/${namespace}/pods`;
  const pods = await list({ path, metadataOnly: false }, (object) => ({
    pod: toReleasePod(object, isAgent),
    isPart: (isAgent(object) || isCoordinator(object)) && !toAgentPod(object).hasEnded,
  }));
  if (!pods.ok) return pods;
  const policies = await list(
    { path: `/apis/${POLICY_API_VERSION}/${POLICY_PLURAL}`, metadataOnly: false },
    (object) => {
      const { metadata, status } = object as KubeObject & { status?: PolicyStatus };
      const key = resourceKey({ namespace: metadata.namespace ?? "", name: metadata.name });
      return { key, generation: metadata.generation, status };
    },
  );
  if (!policies.ok) return policies;
  const parts = pods.value.items.filter(({ isPart }) => isPart).map(({ pod }) => pod);
  return {
    ok: true,
    value: { lease: lease.value, nodes: nodes.value.items, pods: parts, policies: policies.value.items },
  };
}

/** Whether an object has the labels of a selector that asks for equality alone, as the chart writes it. */
function labelsOf(selector: string): (object: KubeObject) => boolean {
  const wanted = selector.split(",").map((pair) => pair.split("=") as [string, string | undefined]);
  return ({ metadata }) => wanted.every(([key, value = ""]) => metadata.labels?.[key] === value);
}

function toReleasePod(object: KubeObject, isAgent: (object: KubeObject) => boolean): ReleasePod {
  const { spec, status } = object as KubeObject & {
    spec?: { containers?: Array<{ image?: string }> };
    status?: { conditions?: Array<{ type: string; status: string }> };
  };
  return {
    node: toAgentPod(object).node,
    isReady: status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") ?? false,
    image: spec?.containers?.[0]?.image,
    isAgent: isAgent(object),
  };
}
