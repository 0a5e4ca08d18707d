import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type AgentPod, describeStarts, toAddresses, toAgentPod } from "../../src/agents/discover.ts";
import { viewByNode } from "../../src/agents/nodes.ts";
import { AGENT_VIEW_STATES, type AgentView } from "../../src/agents/push.ts";
import { aReport } from "../support/agent-peer.ts";

const aPod = (pod: Partial<AgentPod> = {}): AgentPod => ({
  ...{ uid: "u", name: "agent", node: "a", ip: "10.0.0.1", isLeaving: false, hasEnded: false, waitsFor: undefined },
  ...pod,
});

function aView(
  podUID: string,
  state: AgentView["state"],
  { node = "a", isHeard = true, isLeaving = false } = {},
): AgentView {
  const problem = state === "stale" ? `${podUID} is silent` : undefined;
  const address = { node, podUID, url: "https://10.0.0.1:9810", ...(isLeaving && { isLeaving }) };
  const report = isHeard ? aReport({ node, podUID, number: 7 }) : undefined;
  return { address, state, report, heardAtMs: isHeard ? 1 : undefined, problem };
}

describe("the agents to be called", () => {
  it("are all pods with an address that have not ended, also two of one node and ones that are leaving", () => {
    const pods = [
      aPod({ uid: "runs" }),
      aPod({ uid: "new", ip: "10.0.0.2" }),
      aPod({ uid: "leaving", ip: "10.0.0.3", isLeaving: true }),
      aPod({ uid: "ended", hasEnded: true }),
      aPod({ uid: "waiting", ip: undefined }),
      aPod({ uid: "nowhere", node: undefined }),
      aPod({ uid: "six", node: "b", ip: "fd00::1" }),
    ];
    expect(toAddresses(pods, 9810)).toEqual([
      { node: "a", podUID: "runs", url: "https://10.0.0.1:9810" },
      { node: "a", podUID: "new", url: "https://10.0.0.2:9810" },
      { node: "a", podUID: "leaving", url: "https://10.0.0.3:9810", isLeaving: true },
      { node: "b", podUID: "six", url: "https://[fd00::1]:9810" },
    ]);
  });

  it("that have not started are told by their nodes, with what the kubelet says and how to see more", () => {
    const waiting = { containerStatuses: [{ state: { waiting: { reason: "ContainerCreating" } } }] };
    const metadata = { name: "agent-x", uid: "u", resourceVersion: "1" };
    const pod = toAgentPod({ metadata, spec: { nodeName: "b" }, status: waiting } as never);
    const pods = [aPod(), pod, aPod({ node: "c", ip: undefined }), aPod({ node: "d", ip: undefined, isLeaving: true })];
    expect([...describeStarts(pods)]).toEqual([
      [
        "b",
        expect.stringMatching(
          /^its agent has not started \(ContainerCreating\); kubectl describe pod agent-x says why, /,
        ),
      ],
      ["c", expect.stringMatching(/^its agent has not started; .* checkpointRoots /)],
    ]);
  });

  it("are told by their pods", () => {
    const metadata = { name: "agent", uid: "u", resourceVersion: "1" };
    const pod = (changes: object) =>
      toAgentPod({ metadata, spec: { nodeName: "a" }, status: { podIP: "10.0.0.1" }, ...changes } as never);
    expect(pod({})).toEqual(aPod());
    expect(pod({ status: { podIP: "10.0.0.1", phase: "Failed" } })).toEqual(aPod({ hasEnded: true }));
    expect(pod({ status: { podIP: "10.0.0.1", phase: "Succeeded" } }).hasEnded).toBe(true);
    expect(pod({ status: { podIP: "10.0.0.1", phase: "Running" } }).hasEnded).toBe(false);
    expect(pod({ metadata: { ...metadata, deletionTimestamp: "2026-01-01T00:00:00Z" } }).isLeaving).toBe(true);
    expect(pod({ status: { podIP: "" } }).ip).toBeUndefined();
    expect(pod({ status: undefined, spec: undefined })).toEqual(aPod({ ip: undefined, node: undefined }));
  });
});

describe("a node's agents as one", () => {
  const of = (...views: AgentView[]) => viewByNode(views).get("a");

  it("have the policy if all have it that ever answered", () => {
    expect(of(aView("one", "applied"))).toEqual(aView("one", "applied"));
    expect(of(aView("one", "applied"), aView("two", "applied"))?.state).toBe("applied");
    expect(of(aView("one", "applied"), aView("two", "pending"))?.state).toBe("pending");
    expect(of(aView("one", "pending"), aView("two", "stale"), aView("three", "applied"))?.state).toBe("stale");
    expect(of(aView("one", "applied"), aView("two", "stale"))).toMatchObject({
      state: "stale",
      problem: "two is silent",
    });
  });

  it("have it, too, beside one that never answered, which is told of", () => {
    for (const views of [
      [aView("old", "applied"), aView("new", "stale", { isHeard: false })],
      [aView("new", "stale", { isHeard: false }), aView("old", "applied")],
    ]) {
      expect(of(...views)).toMatchObject({
        state: "applied",
        address: { podUID: "old" },
        problem: "its agent new does not answer: new is silent",
      });
    }
    const starting = of(aView("old", "applied"), aView("new", "pending", { isHeard: false }));
    expect(starting).toMatchObject({ state: "applied", problem: undefined });
  });

  it("are silent, or wait, if none has ever answered", () => {
    expect(of(aView("one", "stale", { isHeard: false }))).toMatchObject({ state: "stale", report: undefined });
    expect(of(aView("one", "pending", { isHeard: false }))?.state).toBe("pending");
  });

  it("do not need one that is leaving and does not answer any more", () => {
    const leaving = aView("old", "stale", { isLeaving: true });
    expect(of(leaving, aView("new", "applied"))).toMatchObject({ state: "applied", problem: undefined });
    expect(of(aView("old", "pending", { isLeaving: true }), aView("new", "applied"))?.state).toBe("pending");
    expect(of(leaving)?.state).toBe("stale");
  });

  it("report what the one says that answers", () => {
    expect(of(aView("silent", "stale"), aView("answers", "pending"))?.report?.podUID).toBe("answers");
  });

  it("are each node's own, in whatever order they come", () => {
    const arbView = fc
      .tuple(fc.constantFrom(...AGENT_VIEW_STATES), fc.constantFrom("a", "b"), fc.boolean(), fc.boolean(), fc.nat())
      .map(([state, node, isHeard, isLeaving, uid]) =>
        aView(`${uid}`, state, { node, isHeard: isHeard || state === "applied", isLeaving }),
      );
    fc.assert(
      fc.property(fc.array(arbView, { maxLength: 6 }), (views) => {
        const nodes = viewByNode(views);
        const backwards = viewByNode(views.toReversed());
        expect([...nodes.keys()].sort()).toEqual([...new Set(views.map(({ address }) => address.node))].sort());
        for (const [node, { state }] of nodes) {
          expect(backwards.get(node)?.state).toBe(state);
          const heard = views.filter(({ address, report }) => address.node === node && report !== undefined);
          const answering = heard.filter((view) => view.state !== "stale");
          if (state === "applied") expect(answering.every((view) => view.state === "applied")).toBe(true);
          if (answering.some((view) => view.state === "pending")) expect(state).not.toBe("applied");
        }
      }),
    );
  });
});
