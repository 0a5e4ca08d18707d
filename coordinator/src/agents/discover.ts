import type { KubeObject } from "../kube/client.ts";
import type { AgentAddress } from "./directive.ts";

/** What is kept of an agent's pod. */
export interface AgentPod {
  uid: string;
  node: string | undefined;
  ip: string | undefined;
  isLeaving: boolean;
  createdAt: string;
}

/** Projects a pod of the DaemonSet. */
export function toAgentPod(object: KubeObject): AgentPod {
  const { spec, status, metadata } = object as KubeObject & {
    spec?: { nodeName?: string };
    status?: { podIP?: string; phase?: string };
  };
  const hasEnded = status?.phase === "Succeeded" || status?.phase === "Failed";
  return {
    uid: metadata.uid,
    node: spec?.nodeName,
    ip: status?.podIP || undefined,
    isLeaving: metadata.deletionTimestamp !== undefined || hasEnded,
    createdAt: metadata.creationTimestamp ?? "",
  };
}

/**
 * The agents to be called: one a node, the newest that has an address. They need not be ready, for an agent without a
 * policy is not. A stale address does no harm: an agent refuses what is meant for another.
 */
export function toAddresses(pods: Iterable<AgentPod>, port: number): AgentAddress[] {
  const newest = new Map<string, AgentPod>();
  for (const pod of pods) {
    if (pod.node === undefined || pod.ip === undefined || pod.isLeaving) continue;
    const other = newest.get(pod.node);
    if (other === undefined || pod.createdAt >= other.createdAt) newest.set(pod.node, pod);
  }
  return [...newest].map(([node, { uid, ip = "" }]) => ({
    node,
    podUID: uid,
    url: `https://${ip.includes(":") ? `[${ip}]` : ip}:${port}`,
  }));
}
