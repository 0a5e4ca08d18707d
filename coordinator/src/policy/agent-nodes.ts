import type { NodeMatchExpression } from "@cro/shared/crd/schema";
import type { KubeObject } from "../kube/client.ts";
import { type NodeFacts, selects } from "./ruling.ts";

/**
 * What the labels of a node must be so that an agent can run there: Windows has no checkpoints, and the nodes of a virtual
 * kubelet and of Fargate run no DaemonSets. The chart's DaemonSet has the same affinity.
 */
export const AGENT_NODES: NodeMatchExpression[] = [
  { key: "kubernetes.io/os", operator: "NotIn", values: ["windows"] },
  { key: "type", operator: "NotIn", values: ["virtual-kubelet"] },
  { key: "eks.amazonaws.com/compute-type", operator: "NotIn", values: ["fargate"] },
];

/** Projects a node. */
export function toNodeFacts({ metadata }: KubeObject): NodeFacts {
  return { name: metadata.name, labels: metadata.labels ?? {} };
}

/** The nodes that count: those where an agent can run, and those where one runs although their labels say otherwise. */
export function agentNodes(
  nodes: Iterable<NodeFacts>,
  pods: Iterable<{ readonly node: string | undefined }>,
): NodeFacts[] {
  const withAgent = new Set(Array.from(pods, ({ node }) => node));
  return [...nodes].filter(
    ({ name, labels }) => withAgent.has(name) || selects({ nodeMatchExpressions: AGENT_NODES }, labels),
  );
}
