import { getOrMake } from "@cro/shared/get-or-make";
import { AGENT_VIEW_STATES, type AgentView } from "./push.ts";

/**
 * The agents of each node as one. A node has two while one replaces the other, and then it has the policy if all have it
 * that answer. One that never answered has no policy yet, so it deletes nothing and is only told of; one that answered
 * once and no longer does may act by an older policy.
 */
export function viewByNode(views: Iterable<AgentView>): Map<string, AgentView> {
  const nodes = new Map<string, AgentView>();
  const several = new Map<string, AgentView[]>();
  for (const view of views) {
    const { node } = view.address;
    const other = nodes.get(node);
    if (other !== undefined) getOrMake(several, node, () => [other]).push(view);
    else nodes.set(node, view);
  }
  for (const [node, all] of several) nodes.set(node, combine(all));
  return nodes;
}

function combine(all: AgentView[]): AgentView {
  const rank = ({ state }: AgentView) => AGENT_VIEW_STATES.indexOf(state);
  const byState = all.toSorted((a, b) => rank(a) - rank(b));
  // A pod that was told to end, and does not answer, has most likely ended.
  const known = byState.filter(
    ({ report, state, address }) => report !== undefined && !(state === "stale" && address.isLeaving === true),
  );
  const counted = known.length > 0 ? known : byState;
  const [best] = counted;
  const worst = counted.at(-1);
  if (best === undefined || worst === undefined) throw new Error("a node of this list has an agent");
  const silent = all.find(
    (view) => view.state === "stale" && !counted.includes(view) && view.address.isLeaving !== true,
  );
  const aside = silent && `its agent ${silent.address.podUID} does not answer: ${silent.problem}`;
  // They watch one directory, so either report tells of it; the one that answers tells what is there now.
  const { address, report, heardAtMs } = best;
  return { address, report, heardAtMs, state: worst.state, problem: worst.problem ?? aside };
}
