import { PolicyDocument } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import { ARCHIVE_STATES, ReportedLimit, type UnreachableLimit } from "@cro/shared/wire/report";
import * as Type from "typebox";
import { Check } from "typebox/value";
import type { Archive } from "../archive/archive.ts";
import type { DiskUsage, PlanInput } from "../retention/plan.ts";
import { scopesOf } from "../retention/scope.ts";

const Identity = Type.Object({ namespace: Type.String(), pod: Type.String(), container: Type.String() });

/** What a running agent says of itself: the first line of its answer. */
const Head = Type.Object({
  node: Type.String(),
  version: Type.String(),
  /** Of the agent's clock, RFC 3339. */
  time: Type.String(),
  directory: Type.String(),
  /** As in the report: `watching`, or what is wrong with the directory. */
  state: Type.String(),
  message: Type.Optional(Type.String()),
  archives: Type.Integer(),
  /** Why nothing is deleted just now, each a sentence. */
  held: Type.Array(Type.String()),
  accepted: Type.Optional(
    Type.Object({
      term: Type.Integer(),
      revision: Type.Integer(),
      digest: Type.String(),
      name: Type.Optional(Type.String()),
    }),
  ),
  directiveAgeSeconds: Type.Optional(Type.Number()),
  deleted: Type.Integer(),
  deleteErrors: Type.Integer(),
  unreachable: Type.Array(Type.Unsafe<UnreachableLimit>(ReportedLimit)),
  plan: Type.Optional(
    Type.Object({
      policy: PolicyDocument,
      nowMs: Type.Optional(Type.Number()),
      orphans: Type.Array(
        Type.Object({
          namespace: Type.String(),
          pod: Type.String(),
          container: Type.Optional(Type.String()),
          uid: Type.Optional(Type.String()),
          listedUpTo: Type.Integer(),
        }),
      ),
      stuck: Type.Array(Type.String()),
      failing: Type.Array(Type.Tuple([Type.String(), Type.String()])),
      node: Type.Optional(
        Type.Object({
          disk: Type.Optional(
            Type.Object({
              usedBytes: Type.Number(),
              availableBytes: Type.Number(),
              inodes: Type.Optional(Type.Object({ total: Type.Number(), free: Type.Number() })),
            }),
          ),
          passLimitBytes: Type.Optional(Type.Number()),
          passLimitInodes: Type.Optional(Type.Number()),
        }),
      ),
    }),
  ),
});
export type Head = Type.Static<typeof Head>;

/** An archive as the agent knows it: a line of its answer each. */
const ArchiveLine = Type.Object({
  file: Type.String(),
  identity: Type.Optional(Identity),
  candidates: Type.Array(Identity),
  podUID: Type.Optional(Type.String()),
  isStaticPod: Type.Boolean(),
  timeMs: Type.Number(),
  mtimeNs: Type.String(),
  size: Type.Number(),
  allocated: Type.Number(),
  hasOtherNames: Type.Boolean(),
  state: Type.Enum([...ARCHIVE_STATES]),
  walked: Type.Boolean(),
  pinned: Type.Boolean(),
  settled: Type.Boolean(),
  listed: Type.Integer(),
  unmanagedSinceMs: Type.Optional(Type.Number()),
  /** The keys of those of its scopes on which rules may act now. */
  active: Type.Array(Type.String()),
});

/** The last line: an answer without it was cut off. */
const END = '{"end":true}';

/** All that a running agent knows, as a command reads it. */
export interface Facts {
  head: Head;
  archives: Archive[];
  /** What the agent's next plan rests on; undefined while it has no policy or no directory. */
  input: PlanInput | undefined;
}

/** The part of a head that a plan rests on; infinite pass limits are left out, as JSON has none. */
export function planFacts(situation: Omit<PlanInput, "archives">): NonNullable<Head["plan"]> {
  const { policy, nowMs, orphans, stuck = [], failing = [], node } = situation;
  const { disk, passLimitBytes, passLimitInodes } = node ?? {};
  return {
    policy,
    ...(nowMs !== undefined && { nowMs }),
    orphans: orphans.map(({ namespace, pod, container, uid, listedUpTo }) => ({
      namespace,
      pod,
      ...(container !== undefined && { container }),
      ...(uid !== undefined && { uid }),
      listedUpTo,
    })),
    stuck: [...stuck],
    failing: [...failing],
    ...(node && {
      node: {
        ...(disk && { disk: pickUsage(disk) }),
        ...(Number.isFinite(passLimitBytes) && { passLimitBytes }),
        ...(Number.isFinite(passLimitInodes) && { passLimitInodes }),
      },
    }),
  };
}

function pickUsage({ usedBytes, availableBytes, inodes }: DiskUsage): DiskUsage {
  return { usedBytes, availableBytes, ...(inodes && { inodes }) };
}

const NO_PASS_LIMITS = { passLimitBytes: Number.POSITIVE_INFINITY, passLimitInodes: Number.POSITIVE_INFINITY };

/** The lines of an answer, each made when it is taken. */
export function* factLines(
  head: Head,
  archives: Iterable<Archive>,
  situation: Omit<PlanInput, "archives"> | undefined,
): Generator<string> {
  yield JSON.stringify(head);
  const govern = situation && (situation.govern ?? createGovernor(situation.policy));
  for (const archive of archives) {
    const { file, identity, candidates, podUID, isStaticPod, timeMs, mtimeNs, size, allocated, hasOtherNames } =
      archive;
    const { state, walked, pinned, settled, listed, unmanagedSinceMs } = archive;
    const scopes = identity && govern ? scopesOf(govern(identity), identity) : [];
    const active = scopes.filter((scope) => situation?.isActive(scope));
    const names = { file, identity, candidates, podUID, isStaticPod, timeMs, mtimeNs: `${mtimeNs}` };
    const now = { state, walked, pinned, settled, listed, unmanagedSinceMs, active };
    yield JSON.stringify({ ...names, size, allocated, hasOtherNames, ...now });
  }
  yield END;
}

/** Reads an answer; undefined if it is not one, or was cut off. */
export function parseFacts(lines: readonly string[]): Facts | undefined {
  const [first, ...rest] = lines;
  if (first === undefined || rest.pop() !== END) return undefined;
  const head = parse(first);
  if (!Check(Head, head)) return undefined;
  const archives: Archive[] = [];
  const active = new Set<string>();
  for (const line of rest) {
    const read = parse(line);
    if (!Check(ArchiveLine, read)) return undefined;
    const { active: scopes, mtimeNs, identity, podUID, unmanagedSinceMs, ...others } = read;
    archives.push({ ...others, identity, podUID, unmanagedSinceMs, mtimeNs: BigInt(mtimeNs) });
    for (const scope of scopes) active.add(scope);
  }
  return { head, archives, input: head.plan && toInput(head.plan, archives, active) };
}

function toInput(plan: NonNullable<Head["plan"]>, archives: Archive[], active: ReadonlySet<string>): PlanInput {
  const { policy, nowMs, orphans, stuck, failing, node } = plan;
  return {
    archives,
    policy,
    govern: createGovernor(policy),
    nowMs,
    orphans,
    isActive: (scope) => active.has(scope),
    stuck: new Set(stuck),
    failing: new Map(failing),
    node: node && { ...NO_PASS_LIMITS, ...node, disk: node.disk },
  };
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
