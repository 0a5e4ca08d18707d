import type { KubeObject } from "../kube/client.ts";
import type { AgentAddress } from "./directive.ts";

/** What is kept of an agent's pod. */
export interface AgentPod {
  uid: string;
  name: string;
  node: string | undefined;
  ip: string | undefined;
  /** Whether it is about to end. It still runs. */
  isLeaving: boolean;
  hasEnded: boolean;
  /** Why its container does not run, as the kubelet says, such as `ContainerCreating`; undefined if it does not say so. */
  waitsFor: string | undefined;
}

/** Projects a pod of the DaemonSet. */
export function toAgentPod(object: KubeObject): AgentPod {
  const { spec, status, metadata } = object as KubeObject & {
    spec?: { nodeName?: string };
    status?: {
      podIP?: string;
      phase?: string;
      containerStatuses?: Array<{ state?: { waiting?: { reason?: string } } }>;
    };
  };
  return {
    uid: metadata.uid,
    name: metadata.name,
    node: spec?.nodeName,
    ip: status?.podIP || undefined,
    isLeaving: metadata.deletionTimestamp !== undefined,
    hasEnded: status?.phase === "Succeeded" || status?.phase === "Failed",
    waitsFor: status?.containerStatuses?.[0]?.state?.waiting?.reason,
  };
}

/**
 * What is known of agents that cannot be called because their pods have not come so far as to have an address, by node. A mount
 * that fails is such a case: the kubelet tells that in an Event alone, which `kubectl describe` shows.
 */
export function describeStarts(pods: Iterable<AgentPod>): Map<string, string> {
  const starts = new Map<string, string>();
  for (const { name, node, ip, isLeaving, hasEnded, waitsFor } of pods) {
    if (node === undefined || ip !== undefined || isLeaving || hasEnded) continue;
    const state = waitsFor === undefined ? "" : ` (${waitsFor})`;
    const why = `kubectl describe pod ${name} says why, such as a directory of checkpointRoots that the node does not have`;
    starts.set(node, `its agent has not started${state}; ${why}`);
  }
  return starts;
}

/**
 * The agents to be called: every pod that has an address and has not ended. They need not be ready, for an agent without
 * a policy is not; and a node may have two, of which the older one is the one that runs. A stale address does no harm: an
 * agent refuses what is meant for another.
 */
export function toAddresses(pods: Iterable<AgentPod>, port: number): AgentAddress[] {
  const addresses: AgentAddress[] = [];
  for (const { uid, node, ip, isLeaving, hasEnded } of pods) {
    if (node === undefined || ip === undefined || hasEnded) continue;
    const url = `https://${ip.includes(":") ? `[${ip}]` : ip}:${port}`;
    addresses.push({ node, podUID: uid, url, ...(isLeaving && { isLeaving }) });
  }
  return addresses;
}
