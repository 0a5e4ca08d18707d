import { unwatchFile, watchFile } from "node:fs";
import { readFile } from "node:fs/promises";
import { readPolicy } from "@cro/shared/crd/read-policy";
import type { CompiledPolicy, FieldProblem } from "@cro/shared/policy/compile";

/** What the command line says over the policy's own words. */
export interface PolicyOverrides {
  directory: string | undefined;
  /** Whether nothing is deleted, whatever the policy's mode. */
  isDryRun: boolean;
}

export interface PolicyFileOptions {
  path: string;
  overrides: PolicyOverrides;
  /** The file holds another policy than before; the first one too. */
  onPolicy(policy: CompiledPolicy): void;
  /** The file is gone or holds no valid policy; what was in force before stays. */
  onRefused(problems: FieldProblem[]): void;
  /** How often the file is looked at, and how long it must have been left alone before it is read. */
  timings: { pollMs: number; settleMs: number };
}

export type PolicyFileStart = { ok: true; close: () => void } | { ok: false; problems: FieldProblem[] };

/**
 * Reads a policy resource from a file and follows its changes. A file that holds no valid policy at the start yields its
 * problems, and is not followed.
 *
 * The file is found by its name each time, so that it may be rewritten, replaced, deleted and created again, or be a link
 * that is led elsewhere. It is read only when it has been left alone for a moment: half of a policy may be a valid one
 * that deletes what the whole one keeps.
 */
export async function followPolicyFile(options: PolicyFileOptions): Promise<PolicyFileStart> {
  const { path, timings } = options;
  let timer: NodeJS.Timeout | undefined;
  let isClosed = false;
  let changes = 0;
  let current: string | undefined;

  const first = await readPolicyFile(path);
  if (!first.ok) return first;
  current = first.text;
  options.onPolicy(applyOverrides(first.policy, options.overrides));

  async function reread(): Promise<void> {
    const seen = changes;
    const next = await readPolicyFile(path);
    // What changed while it was read is read again, when it is left alone.
    if (isClosed || seen !== changes || next.text === current) return;
    current = next.text;
    if (next.ok) options.onPolicy(applyOverrides(next.policy, options.overrides));
    else options.onRefused(next.problems);
  }

  const onChange = () => {
    changes++;
    clearTimeout(timer);
    timer = setTimeout(() => void reread(), timings.settleMs);
  };
  watchFile(path, { interval: timings.pollMs }, onChange);
  // What changed between the reading and the first look of the watch is no change to the watch.
  onChange();

  return {
    ok: true,
    close() {
      isClosed = true;
      clearTimeout(timer);
      unwatchFile(path, onChange);
    },
  };
}

/** A policy with the command line's words over its own. */
export function applyOverrides(policy: CompiledPolicy, { directory, isDryRun }: PolicyOverrides): CompiledPolicy {
  return {
    ...policy,
    document: {
      ...policy.document,
      directory: directory ?? policy.document.directory,
      mode: isDryRun ? "DryRun" : policy.document.mode,
    },
  };
}

type PolicyFileContent =
  | { ok: true; text: string; policy: CompiledPolicy }
  | { ok: false; text: string | undefined; problems: FieldProblem[] };

async function readPolicyFile(path: string): Promise<PolicyFileContent> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    return {
      ok: false,
      text: undefined,
      problems: [{ field: "", message: `cannot be read: ${(cause as Error).message}` }],
    };
  }
  return { ...readPolicy(text), text };
}
