import type { KubeObject } from "../kube/client.ts";
import type { AgentAddress } from "./directive.ts";

/** What is kept of an agent's pod. */
export interface AgentPod {
  uid: string;
  node: string | undefined;
  ip: string | undefined;
  /** Whether it is about to end. It still runs. */
  isLeaving: boolean;
  hasEnded: boolean;
}

/** Projects a pod of the DaemonSet. */
export function toAgentPod(object: KubeObject): AgentPod {
  const { spec, status, metadata } = object as KubeObject & {
    spec?: { nodeName?: string };
    status?: { podIP?: string; phase?: string };
  };
  return {
    uid: metadata.uid,
    node: spec?.nodeName,
    ip: status?.podIP || undefined,
    isLeaving: metadata.deletionTimestamp !== undefined,
    hasEnded: status?.phase === "Succeeded" || status?.phase === "Failed",
  };
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
