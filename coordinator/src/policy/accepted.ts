import type { AgentView } from "../agents/push.ts";
import type { AcceptedDirective } from "./ruling.ts";

/**
 * What the agents of each node have accepted. A node is absent until all its agents that answer have told: of two, the
 * other one may have a policy that went away. Of two that have told, that one counts.
 *
 * @param defaultDigest of the default policy, which never goes away
 */
export function acceptedByNode(views: Iterable<AgentView>, defaultDigest: string): Map<string, AcceptedDirective> {
  const accepted = new Map<string, AcceptedDirective>();
  const waiting = new Set<string>();
  for (const { address, report, state } of views) {
    if (report === undefined) {
      if (state !== "stale") waiting.add(address.node);
      continue;
    }
    const before = accepted.get(address.node)?.digest ?? null;
    if (before !== null && before !== defaultDigest) continue;
    const digest = report.accepted?.digest ?? before;
    accepted.set(address.node, { digest, directory: report.directory.path });
  }
  for (const node of waiting) accepted.delete(node);
  return accepted;
}
