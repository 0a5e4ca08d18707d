import { compilePolicy } from "@cro/shared/policy/compile";
import type { PolicyDocument } from "@cro/shared/policy/document";

/** An agent names its directory, and the Lease has to hold it: a longer path is not believed. */
const MAX_DIRECTORY_BYTES = 1024;

/**
 * The document of a node whose policy went away: the node rules of that policy act, for a full disk does not wait, and nothing
 * else is deleted. What was only to go because of its age can wait. The largest floor of all its rules holds for every container, because node rules respect floors. Agents of version 0.1.0
 * understand it.
 */
export function restPolicy({ directory, mode, global, rules, node: ruled }: PolicyDocument): PolicyDocument {
  const { maxAgeUnmanagedMs: _, ...node } = ruled;
  const minCheckpoints = Math.max(0, ...[global, ...rules].map((rule) => rule.minCheckpoints ?? 0));
  return {
    directory,
    mode,
    applyImmediately: false,
    global: { level: "global", retainOrphan: true, ...(minCheckpoints > 0 && { minCheckpoints }) },
    rules: [],
    node,
  };
}

/**
 * The document of a node whose policy went away and is not known: nothing is deleted. Undefined if the directory is none
 * that a policy can name.
 */
export function emptyRestPolicy(directory: string): PolicyDocument | undefined {
  if (Buffer.byteLength(directory) > MAX_DIRECTORY_BYTES) return undefined;
  if (!compilePolicy({ checkpointDirectory: directory }).ok) return undefined;
  return {
    directory,
    mode: "Enforce",
    applyImmediately: false,
    global: { level: "global", retainOrphan: true },
    rules: [],
    node: {},
  };
}
