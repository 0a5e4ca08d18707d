import { expect, it } from "vitest";
import { agentNodes } from "../../src/policy/agent-nodes.ts";
import type { NodeFacts } from "../../src/policy/ruling.ts";

it("counts no node where an agent cannot run, unless one runs there", () => {
  const nodes: NodeFacts[] = [
    { name: "plain", labels: {} },
    { name: "linux", labels: { "kubernetes.io/os": "linux", type: "worker" } },
    { name: "windows", labels: { "kubernetes.io/os": "windows" } },
    { name: "virtual", labels: { "kubernetes.io/os": "linux", type: "virtual-kubelet" } },
    { name: "fargate", labels: { "kubernetes.io/os": "linux", "eks.amazonaws.com/compute-type": "fargate" } },
  ];
  const names = (pods: Array<{ node: string | undefined }>) => agentNodes(nodes, pods).map(({ name }) => name);
  expect(names([])).toEqual(["plain", "linux"]);
  expect(names([{ node: undefined }, { node: "linux" }])).toEqual(["plain", "linux"]);
  expect(names([{ node: "virtual" }])).toEqual(["plain", "linux", "virtual"]);
});
