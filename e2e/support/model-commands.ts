import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { restPolicy } from "@cro/coordinator/policy/rest";
import { compilePolicy } from "@cro/shared/policy/compile";
import { digestOf, type PolicyDocument } from "@cro/shared/policy/document";
import fc from "fast-check";
import { archiveBytes, archiveTime, type Runtime } from "../../agent/test/support/archives.ts";
import type { Fault } from "./fault-proxy.ts";
import { policyPath, remove } from "./kube.ts";
import {
  beginToWatch,
  type Change,
  type Content,
  cloneModel,
  emptyFolder,
  endWatching,
  mountedFolder,
  type NodeModel,
  obey,
  outcomesOf,
  passTime,
  putFile,
  type Spelling,
} from "./model.ts";
import { INCOMPLETE_AFTER_MS, OWNERS, PODS, type World } from "./model-world.ts";
import { policyDocument } from "./policy-document.ts";

/** The node, and the cluster around it as far as the node is to feel it. */
export interface Model {
  node: NodeModel;
  resources: Map<string, Resource>;
  /** The last good version of each resource that the present leader has seen, by UID. */
  good: Map<string, unknown>;
  /** What ruled last, as far as a leader has seen: its age, by which its name ranks, and what acts while nodes rest after it. */
  ruled: { name: string; createdAt: string; rest: PolicyDocument | undefined } | undefined;
  /** Coordinators that run. */
  coordinators: number;
  leads: boolean;
  /** Whether the Lease is still that of a leader who was killed. */
  isLeaseOrphaned: boolean;
  leaderships: number;
  /** Since how many steps the API server, or the way to the agent, fails; undefined while neither does. */
  failingFor: number | undefined;
  /** Whether it is the way to the agent that fails, and not the API server. */
  isCutOff: boolean;
  /** Whether policies have changed since. */
  isChangedUnseen: boolean;
  podsGone: Set<string>;
  /** How often pods were proved to be gone. */
  proofs: number;
  /** How often the monotonic clock was put ahead. */
  waits: number;
  hoursAhead: number;
  startedAtMs: number;
}

interface Resource {
  uid: string;
  createdAt: string;
  spec: unknown;
  isValid: boolean;
}

type Command = fc.AsyncCommand<Model, World>;

/** After so long a run makes no further steps: tests are to end, and what is torn would become incomplete by itself. */
const LONGEST_RUN_MS = 60_000;
/** More proofs than that might be held back as suspiciously many. */
const MAX_PROOFS = 8;
const MAX_STEPS_FAILING = 4;
/** After so long an agent has looked at what was written. */
const ALL_SEEN_MS = 700;
/** The folder that shows where nothing is mounted. */
const BARE = 2;
const HOUR_MS = 3_600_000;
/** Longer than the coordinators' grace period. */
const REST_MS = 1500;

export function startModel(): Model {
  return {
    node: {
      folders: [emptyFolder(), emptyFolder(), emptyFolder()],
      mounts: [BARE, 0],
      isAgentUp: true,
      policy: undefined,
      active: new Set(),
      wallShiftMs: 0,
      hasReference: true,
      gone: new Set(),
    },
    resources: new Map(),
    good: new Map(),
    ruled: undefined,
    coordinators: 0,
    leads: false,
    isLeaseOrphaned: false,
    leaderships: 0,
    failingFor: undefined,
    isCutOff: false,
    isChangedUnseen: false,
    podsGone: new Set(),
    proofs: 0,
    waits: 0,
    hoursAhead: 0,
    startedAtMs: performance.now(),
  };
}

/** Whether what changes in the API server reaches the agent. */
const isEffective = ({ leads, failingFor }: Model) => leads && failingFor === undefined;
/** Whether somebody may begin to lead at any moment. */
const isUncertain = ({ leads, coordinators }: Model) => !leads && coordinators > 0;

/** The resource that ranks first: one whose name ruled last has the age of the first of that name. */
function rulerOf({ resources, ruled }: Model): { name: string; createdAt: string; uid: string } | undefined {
  return [...resources]
    .map(([name, { uid, createdAt }]) => ({ name, uid, createdAt: name === ruled?.name ? ruled.createdAt : createdAt }))
    .sort((a, b) => Date.parse(a.createdAt) - Date.parse(b.createdAt) || (a.name < b.name ? -1 : 1))[0];
}

/** What the leader wants of the agent; undefined where it wants nothing. */
function wantedPolicy(m: Model, r: World): PolicyDocument | undefined {
  const ruler = rulerOf(m);
  if (ruler === undefined) return policyDocument({ checkpointDirectory: r.release.mounted });
  const good = m.good.get(ruler.uid);
  return good === undefined ? undefined : policyDocument(good);
}

interface Act {
  /** What happens to the node, in the model. */
  changes?: readonly Change[];
  /** The same in reality: at once where the second says so, else one after the other. */
  carryOut?: () => void | Promise<void>;
  isAtOnce?: boolean;
  isEverythingFresh?: boolean;
  /** Whether the agent's view is waited for; what decides anew, like a policy, must not overtake what came before. */
  isSeen?: boolean;
}

/** Lets something happen, and waits until everything is as the model says it must be. */
async function act(m: Model, r: World, { changes = [], carryOut, isAtOnce = false, ...how }: Act): Promise<void> {
  const before = m.node;
  const log = r.agentLog();
  const logged = log.mark();
  const outcomesNow = () =>
    outcomesOf(m.node, [...changes, ...following(m, r)], {
      isAtOnce,
      isEverythingFresh: how.isEverythingFresh ?? false,
    });
  // What becomes of files is reckoned before it happens, for it is then too late to tell what was fresh.
  let outcomes = changes.length > 0 ? outcomesNow() : undefined;
  const wantedBefore = digestOfPolicy(m.node.policy);
  await carryOut?.();
  if (m.leads) {
    const leaderships = r.leaderships();
    if (leaderships !== m.leaderships) m.good.clear();
    m.leaderships = leaderships;
  }
  outcomes ??= outcomesNow();
  const first = outcomes[0];
  if (first === undefined) throw new Error("no outcome");
  const digest = digestOfPolicy(first.model.policy);
  if (digest !== undefined && digest !== wantedBefore) {
    await r
      .awaitPolicy(digest)
      .catch((cause: Error) => r.fail(`policy ${digest} never came: ${cause.message}`, before));
  }
  const proves = [...first.deleted.values()].some(({ reasons }) => reasons.has("orphan"));
  if (proves) m.proofs += 1;
  // Another start of the agent has a log of its own.
  const mark = r.agentLog() === log ? logged : 0;
  const outcome = await r.awaitOutcome(outcomes, { before, mark, proves });
  m.node = outcome.model;
  if (how.isSeen && m.node.isAgentUp && m.node.policy !== undefined) await r.awaitView(m.node);
}

const digestOfPolicy = (policy: PolicyDocument | undefined) => policy && digestOf(JSON.stringify(policy));

/** The leader has seen every resource as it is. Returns what acts on the node first, where what ruled it went away. */
function learnGood(m: Model): PolicyDocument | undefined {
  const { resources, good, ruled: before } = m;
  for (const { uid, spec, isValid } of resources.values()) if (isValid) good.set(uid, spec);
  const ruler = rulerOf(m);
  const known = ruler && good.get(ruler.uid);
  const rest = known === undefined ? before?.rest : restPolicy(policyDocument(known));
  m.ruled = ruler && { name: ruler.name, createdAt: ruler.createdAt, rest };
  return before !== undefined && !resources.has(before.name) ? before.rest : undefined;
}

/** What follows from the state of the cluster: proofs, and a policy that the agent does not obey yet. */
function following(m: Model, r: World): Change[] {
  const rest = isEffective(m) ? learnGood(m) : undefined;
  const wanted = isEffective(m) && m.node.isAgentUp ? wantedPolicy(m, r) : undefined;
  const gone = isEffective(m) ? r.named([...m.podsGone]) : [];
  return [
    (node) => {
      node.gone = new Set(gone);
      if (rest !== undefined && m.node.isAgentUp) obey(node, rest);
      if (wanted !== undefined && digestOfPolicy(wanted) !== digestOfPolicy(node.policy)) obey(node, wanted);
    },
  ];
}

/** One command: what it is called, when it may come, and what it does. */
function command<T>(
  name: string,
  values: fc.Arbitrary<T>,
  {
    can = () => true,
    run,
  }: { can?: (m: Model, value: T) => boolean; run: (m: Model, r: World, value: T) => Promise<void> },
): fc.Arbitrary<Command> {
  return values.map((value) => {
    const text = value === undefined ? name : `${name} ${JSON.stringify(value)}`;
    return {
      check: (m) =>
        performance.now() - m.startedAtMs < LONGEST_RUN_MS &&
        (name === HEAL || (m.failingFor ?? 0) < MAX_STEPS_FAILING) &&
        can(m, value),
      async run(m, r) {
        r.trace.push(text);
        if (m.failingFor !== undefined) m.failingFor += 1;
        await run(m, r, value);
      },
      toString: () => text,
    };
  });
}

const HEAL = "all is well again";
const nothing = fc.constant(undefined);
const chance = (percent: number) => fc.integer({ min: 1, max: 100 }).map((roll) => roll <= percent);
const pick = () => fc.nat({ max: 999 });
const owner = () => fc.nat({ max: OWNERS.length - 1 });

/** Times in names: every hour or so of the day before, none of which becomes too old during a run; few lie ahead. */
const SLOTS = 24;
const slot = () =>
  fc.oneof(
    { weight: 12, arbitrary: fc.nat({ max: SLOTS - 1 }) },
    { weight: 1, arbitrary: fc.integer({ min: SLOTS, max: SLOTS + 1 }) },
  );

function timeOf(r: World, index: number): number {
  return index >= SLOTS
    ? r.baseMs + (index - SLOTS) * 2 * HOUR_MS + HOUR_MS * 1.5
    : r.baseMs - HOUR_MS / 2 - Math.floor(index / 2) * HOUR_MS - (index % 2) * 60_000;
}

interface Name {
  owner: number;
  slot: number;
  /** How the time is written: with Z, without, with an offset. */
  form: number;
}

const name = (): fc.Arbitrary<Name> =>
  fc.record({
    owner: owner(),
    slot: slot(),
    form: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.nat({ max: 2 }) }),
  });

function spell(r: World, { owner, slot, form }: Name): { file: string; spelling: Spelling } {
  const { namespace, pod, container } = r.owners[owner] as World["owners"][number];
  const timeMs = timeOf(r, slot);
  const utc = archiveTime(timeMs);
  const time = [utc, utc.slice(0, -1), `${archiveTime(timeMs + 5.5 * HOUR_MS).slice(0, -1)}+05:30`][form];
  return {
    file: `checkpoint-${pod}_${namespace}-${container}-${time}.tar`,
    spelling: { pod, joined: `${namespace}-${container}`, timeMs },
  };
}

interface Archive extends Name {
  runtime: Runtime;
  pagesBytes: number;
  /** The mtime, in seconds after a moment long past. */
  mtime: number;
}

const archive = (): fc.Arbitrary<Archive> =>
  fc
    .record({
      name: name(),
      runtime: fc.oneof(
        { weight: 8, arbitrary: fc.constantFrom<Runtime>("containerd", "cri-o", "checkpointctl") },
        { weight: 1, arbitrary: fc.constant<Runtime>("none") },
      ),
      pagesBytes: fc.oneof(
        { weight: 4, arbitrary: fc.constant(4096) },
        { weight: 1, arbitrary: fc.constantFrom(900_000, 1_500_000, 2_600_000) },
      ),
      mtime: fc.nat({ max: 3 }),
    })
    .map(({ name, ...rest }) => ({ ...name, ...rest }));

function mtimeOf(r: World, mtime: number): number {
  return r.baseMs - 7 * 24 * HOUR_MS + mtime * 1000;
}

function pathOf(r: World, m: Model, file: string): string {
  return join(r.folders[m.node.mounts.at(-1) ?? 0] ?? "", file);
}

/** Writes over what is there, from the start, as runtimes do. */
function writeOver(path: string, bytes: Uint8Array): void {
  const descriptor = openSync(path, constants.O_WRONLY | constants.O_CREAT, 0o600);
  writeSync(descriptor, bytes);
  closeSync(descriptor);
}

function touch(path: string, mtimeMs: number): void {
  utimesSync(path, mtimeMs / 1000, mtimeMs / 1000);
}

const cuts = ["nothing", "a header", "pages", "all but spec.dump", "the end"] as const;

/** Whether it is one of those that live on whatever happens. */
const isOfCrowd = ({ pod }: Spelling) => pod.startsWith("crowd-");

/** The mtime that is wanted, or one beside it: content that changes with no trace in size and mtime is nobody's doing. */
function anotherMtime(r: World, m: Model, { file, mtime }: { file: string; mtime: number }): number {
  const mtimeMs = mtimeOf(r, mtime);
  return mountedFolder(m.node).files.get(file)?.mtimeMs === mtimeMs ? mtimeMs + 1 : mtimeMs;
}

/** How many bytes there are of a torn archive, and whether spec.dump is among them. */
function cutOf(bytes: Uint8Array, cut: (typeof cuts)[number]): { length: number; hasSpec: boolean } {
  const total = bytes.length;
  const length = {
    nothing: 0,
    "a header": 300,
    pages: 2600,
    "all but spec.dump": total - 1024 - 600,
    "the end": total - 700,
  }[cut];
  return { length, hasSpec: cut === "the end" };
}

function fileAt(m: Model, index: number, isIt: (content: Content) => boolean = () => true) {
  const files = [...mountedFolder(m.node).files.values()].filter(
    ({ content, spelling }) => isIt(content) && !isOfCrowd(spelling),
  );
  files.sort((a, b) => (a.file < b.file ? -1 : 1));
  return files.length === 0 ? undefined : files[index % files.length];
}

/** Whether two archives of one pod or namespace have the same time: then only their mtimes tell which is older. */
function hasTies(m: Model, added: ReadonlyArray<{ spelling: Spelling }>): boolean {
  const times = [...mountedFolder(m.node).files.values(), ...added].map(({ spelling }) => spelling.timeMs);
  return new Set(times).size < times.length;
}

/** Whether an archive of a pod that is gone may be written, or become one that can go: each such costs a proof. */
const mayProve = (m: Model) => m.podsGone.size === 0 || (!isUncertain(m) && m.proofs < MAX_PROOFS);

const creation = fc.record({
  archives: fc.oneof(
    { weight: 5, arbitrary: fc.array(archive(), { minLength: 1, maxLength: 1 }) },
    { weight: 3, arbitrary: fc.array(archive(), { minLength: 2, maxLength: 4, size: "max" }) },
  ),
  isAtOnce: fc.boolean(),
  isSeen: chance(30),
});

const created = command("created", creation, {
  can: mayProve,
  async run(m, r, { archives, isAtOnce, isSeen }) {
    const { others } = mountedFolder(m.node);
    const all = archives
      .map((one) => ({ ...one, ...spell(r, one) }))
      .filter(
        ({ file }, index, spelled) => !others.has(file) && spelled.findIndex((one) => one.file === file) === index,
      );
    const written = all.map(({ runtime, pagesBytes, owner, mtime, ...rest }) => {
      const parts = { owner: r.owners[owner] as World["owners"][number], runtime, pagesBytes };
      return {
        ...rest,
        mtimeMs: anotherMtime(r, m, { file: rest.file, mtime }),
        parts,
        bytes: archiveBytes({ ...parts.owner, runtime, pagesBytes }),
      };
    });
    const atOnce = isAtOnce || hasTies(m, written);
    await act(m, r, {
      changes: written.map(({ file, spelling, mtimeMs, parts, bytes }) => (node) => {
        const size = Math.max(bytes.length, mountedFolder(node).files.get(file)?.size ?? 0);
        putFile(node, { file, spelling, size, mtimeMs, content: { kind: "whole", written: parts } });
      }),
      carryOut: () =>
        r.carryOut(
          () => {
            for (const { file, bytes, mtimeMs } of written) {
              writeOver(pathOf(r, m, file), bytes);
              touch(pathOf(r, m, file), mtimeMs);
            }
          },
          { isAtOnce: atOnce && m.node.isAgentUp },
        ),
      isAtOnce: atOnce,
      isSeen,
    });
  },
});

const begun = command("begun", fc.record({ archive: archive(), cut: fc.constantFrom(...cuts) }), {
  can: mayProve,
  async run(m, r, { archive: { runtime, pagesBytes, mtime, ...rest }, cut }) {
    const { file, spelling } = spell(r, rest);
    const folder = mountedFolder(m.node);
    if (folder.files.has(file) || folder.others.has(file)) return;
    const written = { owner: r.owners[rest.owner] as World["owners"][number], runtime, pagesBytes };
    const bytes = archiveBytes({ ...written.owner, runtime, pagesBytes });
    const { length, hasSpec } = cutOf(bytes, cut);
    const mtimeMs = mtimeOf(r, mtime);
    await act(m, r, {
      changes: [
        (node) =>
          putFile(node, {
            file,
            spelling,
            size: length,
            mtimeMs,
            content: { kind: "torn", written, hasSpec, isAbandoned: false },
          }),
      ],
      carryOut: () => {
        writeOver(pathOf(r, m, file), bytes.subarray(0, length));
        touch(pathOf(r, m, file), mtimeMs);
      },
    });
  },
});

const grown = command(
  "grown",
  fc.record({ which: pick(), cut: fc.option(fc.constantFrom(...cuts), { nil: undefined }) }),
  {
    can: (m, { which }) => mayProve(m) && fileAt(m, which, ({ kind }) => kind === "torn") !== undefined,
    async run(m, r, { which, cut }) {
      const file = fileAt(m, which, ({ kind }) => kind === "torn");
      if (file?.content.kind !== "torn") return;
      const { written } = file.content;
      const bytes = archiveBytes({ ...written.owner, ...written });
      const { length, hasSpec } = cut === undefined ? { length: bytes.length, hasSpec: true } : cutOf(bytes, cut);
      if (length <= file.size) return;
      const content: Content =
        cut === undefined ? { kind: "whole", written } : { kind: "torn", written, hasSpec, isAbandoned: false };
      const isAtOnce = hasTies(m, []);
      await act(m, r, {
        changes: [(node) => putFile(node, { ...file, mtimeMs: file.mtimeMs + 1, size: length, content })],
        carryOut: () =>
          r.carryOut(
            () => {
              writeOver(pathOf(r, m, file.file), bytes.subarray(0, length));
              touch(pathOf(r, m, file.file), file.mtimeMs + 1);
            },
            { isAtOnce: isAtOnce && m.node.isAgentUp },
          ),
        isAtOnce,
      });
    },
  },
);

const truncated = command("truncated", fc.record({ which: pick(), cut: fc.constantFrom(...cuts) }), {
  can: (m, { which }) => fileAt(m, which, ({ kind }) => kind === "whole") !== undefined,
  async run(m, r, { which, cut }) {
    const file = fileAt(m, which, ({ kind }) => kind === "whole");
    if (file?.content.kind !== "whole") return;
    const { written } = file.content;
    const { length, hasSpec } = cutOf(archiveBytes({ ...written.owner, ...written }), cut);
    await act(m, r, {
      changes: [
        (node) =>
          putFile(node, {
            ...file,
            mtimeMs: file.mtimeMs + 1,
            size: length,
            content: { kind: "torn", written, hasSpec, isAbandoned: false },
          }),
      ],
      carryOut: () => {
        truncateSync(pathOf(r, m, file.file), length);
        touch(pathOf(r, m, file.file), file.mtimeMs + 1);
      },
    });
  },
});

const overwritten = command("overwritten by another of that spelling", fc.record({ which: pick(), with: archive() }), {
  can: (m, { which }) => mayProve(m) && fileAt(m, which) !== undefined,
  async run(m, r, { which, with: { runtime, pagesBytes, mtime } }) {
    const file = fileAt(m, which);
    if (file === undefined) return;
    const { spelling } = file;
    const twins = r.owners.filter(
      ({ namespace, pod, container }) => pod === spelling.pod && `${namespace}-${container}` === spelling.joined,
    );
    const written = { owner: twins[which % twins.length] as World["owners"][number], runtime, pagesBytes };
    const bytes = archiveBytes({ ...written.owner, runtime, pagesBytes });
    const mtimeMs = anotherMtime(r, m, { file: file.file, mtime });
    await act(m, r, {
      changes: [
        (node) =>
          putFile(node, {
            ...file,
            size: Math.max(file.size, bytes.length),
            mtimeMs,
            content: { kind: "whole", written },
          }),
      ],
      carryOut: () =>
        r.carryOut(
          () => {
            writeOver(pathOf(r, m, file.file), bytes);
            touch(pathOf(r, m, file.file), mtimeMs);
          },
          { isAtOnce: m.node.isAgentUp },
        ),
      isAtOnce: true,
    });
  },
});

const spoilt = command("spoilt: no tar any more", fc.record({ which: pick() }), {
  can: (m, { which }) => fileAt(m, which) !== undefined,
  async run(m, r, { which }) {
    const file = fileAt(m, which);
    if (file === undefined) return;
    const bytes = Buffer.alloc(1200, "no tar at all. ");
    await act(m, r, {
      changes: [
        (node) =>
          putFile(node, {
            ...file,
            mtimeMs: file.mtimeMs + 1,
            size: Math.max(file.size, bytes.length),
            content: { kind: "junk" },
          }),
      ],
      carryOut: () => {
        writeOver(pathOf(r, m, file.file), bytes);
        touch(pathOf(r, m, file.file), file.mtimeMs + 1);
      },
    });
  },
});

const pinned = command(
  "pinned",
  fc.record({ which: pick(), by: fc.constantFrom("a file", "a directory", "a dead link") }),
  {
    can: (m, { which }) => fileAt(m, which) !== undefined,
    async run(m, r, { which, by }) {
      const file = fileAt(m, which)?.file;
      if (file === undefined || mountedFolder(m.node).keeps.has(file)) return;
      const path = pathOf(r, m, `${file}.keep`);
      await act(m, r, {
        changes: [(node) => void mountedFolder(node).keeps.add(file)],
        carryOut: () => {
          if (by === "a file") writeFileSync(path, "");
          else if (by === "a directory") mkdirSync(path);
          else symlinkSync("nowhere", path);
        },
      });
    },
  },
);

const unpinned = command("unpinned", fc.record({ which: pick() }), {
  can: (m) => mayProve(m) && mountedFolder(m.node).keeps.size > 0,
  async run(m, r, { which }) {
    const keeps = [...mountedFolder(m.node).keeps].sort();
    const file = keeps[which % keeps.length] ?? "";
    await act(m, r, {
      changes: [(node) => void mountedFolder(node).keeps.delete(file)],
      carryOut: () => rmSync(pathOf(r, m, `${file}.keep`), { recursive: true }),
    });
  },
});

const renamed = command("renamed", fc.record({ which: pick(), to: fc.option(name(), { nil: undefined, freq: 3 }) }), {
  can: (m, { which }) => mayProve(m) && fileAt(m, which) !== undefined,
  async run(m, r, { which, to }) {
    const file = fileAt(m, which);
    if (file === undefined) return;
    const target = to === undefined ? { file: `moved-${file.file}`, spelling: undefined } : spell(r, to);
    const { spelling } = target;
    if (target.file === file.file || mountedFolder(m.node).others.has(target.file)) return;
    await act(m, r, {
      changes: [
        (node) => {
          const folder = mountedFolder(node);
          folder.files.delete(file.file);
          const { content } = file;
          folder.files.delete(target.file);
          if (spelling === undefined) folder.others.add(target.file);
          else
            putFile(node, {
              ...file,
              ...target,
              spelling,
              content: content.kind === "torn" ? { ...content, isAbandoned: false } : content,
            });
        },
      ],
      carryOut: () => renameSync(pathOf(r, m, file.file), pathOf(r, m, target.file)),
    });
  },
});

const removed = command("deleted by somebody", fc.record({ which: pick() }), {
  can: (m, { which }) => fileAt(m, which) !== undefined,
  async run(m, r, { which }) {
    const file = fileAt(m, which)?.file ?? "";
    await act(m, r, {
      changes: [(node) => void mountedFolder(node).files.delete(file)],
      carryOut: () => unlinkSync(pathOf(r, m, file)),
    });
  },
});

const disguised = command(
  "named like an archive",
  fc.record({ name: name(), as: fc.constantFrom("a directory", "a link") }),
  {
    async run(m, r, { name, as }) {
      const { file } = spell(r, name);
      const folder = mountedFolder(m.node);
      if (folder.files.has(file) || folder.others.has(file)) return;
      await act(m, r, {
        changes: [(node) => void mountedFolder(node).others.add(file)],
        carryOut: () =>
          as === "a directory" ? void mkdirSync(pathOf(r, m, file)) : symlinkSync("/etc/hostname", pathOf(r, m, file)),
      });
    },
  },
);

function setPaused(node: NodeModel, isPaused: boolean): void {
  mountedFolder(node).isPaused = isPaused;
}

const paused = command("paused", nothing, {
  can: (m) => !mountedFolder(m.node).isPaused,
  run: (m, r) =>
    act(m, r, {
      changes: [(node) => setPaused(node, true)],
      carryOut: () => writeFileSync(pathOf(r, m, ".pause"), ""),
    }),
});

const resumed = command("no longer paused", nothing, {
  can: (m) => mayProve(m) && mountedFolder(m.node).isPaused,
  run: (m, r) =>
    act(m, r, {
      changes: [(node) => setPaused(node, false)],
      carryOut: () => unlinkSync(pathOf(r, m, ".pause")),
    }),
});

const maybe = <T>(arbitrary: fc.Arbitrary<T>, freq = 2) => fc.option(arbitrary, { nil: undefined, freq });
const compact = <T extends object>(value: T) =>
  Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined));
const count = () => fc.integer({ min: 1, max: 4 });
const bytes = () => fc.constantFrom("1500Ki", "3Mi", "5Mi");
const scopedLimits = {
  maxCheckpoints: maybe(count(), 4),
  maxTotalSize: maybe(bytes(), 1),
  maxCheckpointSize: maybe(fc.constant("2Mi"), 1),
  minCheckpoints: maybe(fc.constant(1), 1),
  retainOrphan: maybe(fc.constant(false), 1),
};
const scoped = (names: fc.Arbitrary<object>) =>
  fc.array(
    fc.tuple(names, fc.record(scopedLimits)).map(([one, limits]) => compact({ ...one, ...limits })),
    { maxLength: 2 },
  );

/** Policies in placeholders, all of them good; those that do not act at once have no ages. */
const spec = (): fc.Arbitrary<Record<string, unknown>> =>
  fc
    .record({
      mode: fc.oneof({ weight: 8, arbitrary: fc.constant(undefined) }, { weight: 2, arbitrary: fc.constant("DryRun") }),
      isImmediate: chance(80),
      globalPolicy: fc.record({
        maxCheckpointsPerContainer: fc.oneof(
          { weight: 4, arbitrary: count() },
          { weight: 1, arbitrary: fc.constant(0) },
        ),
        maxCheckpointsPerPod: maybe(fc.integer({ min: 2, max: 6 }), 1),
        maxCheckpointsPerNamespace: maybe(fc.integer({ min: 2, max: 8 }), 1),
        maxTotalSizePerContainer: maybe(bytes(), 1),
        maxTotalSizePerPod: maybe(bytes(), 1),
        maxTotalSizePerNamespace: maybe(bytes(), 1),
        maxCheckpointSize: maybe(fc.constant("2Mi"), 1),
        maxAge: maybe(fc.constantFrom("4h", "8h"), 2),
        minCheckpointsPerContainer: maybe(fc.constant(1), 1),
        retainOrphan: maybe(fc.constant(false), 2),
      }),
      containerPolicies: scoped(
        fc.constantFrom(
          { namespace: "team", pod: "web", container: "prod-main" },
          { namespace: "team-prod", pod: "web", container: "main" },
          { namespace: "team*", pod: "web", container: "prod-*" },
        ),
      ),
      podPolicies: scoped(
        fc.constantFrom(
          { namespace: "team", pod: "web" },
          { namespace: "team-prod", pod: "web" },
          { namespace: "jobs", pod: "job-*" },
        ),
      ),
      workloadPolicies: scoped(
        fc.constantFrom(
          { namespace: "team", kind: "Deployment", name: "roll" },
          { namespace: "team", kind: "Deployment", name: "roll", container: "main" },
          { namespace: "team-prod", kind: "Deployment", name: "roll" },
          { namespace: "team*", kind: "ReplicaSet", name: "roll-6f9f8977b7" },
        ),
      ),
      namespacePolicies: scoped(
        fc.constantFrom({ namespace: "team" }, { namespace: "team-p*" }, { namespace: "jobs" }),
      ),
      nodePolicy: maybe(fc.constantFrom({ maxTotalSize: "4Mi" }, { maxTotalSize: "8Mi" }), 1),
    })
    .map(({ isImmediate, globalPolicy, ...rest }) => {
      const { maxAge, ...limits } = globalPolicy;
      const crowd = { namespace: "team-crowd", retainOrphan: false };
      return compact({
        ...rest,
        applyPoliciesImmediately: isImmediate,
        orphanGracePeriod: "1s",
        globalPolicy: compact({ ...limits, ...(isImmediate ? { maxAge } : {}) }),
        namespacePolicies: [...rest.namespacePolicies, crowd],
      });
    })
    .filter((one) => isGood(one));

/** The schema's lists hold every name once, and a floor is under its limit. */
function isGood(one: Record<string, unknown>): boolean {
  const lists = [one.containerPolicies, one.podPolicies, one.workloadPolicies, one.namespacePolicies] as Array<
    Array<Record<string, unknown>>
  >;
  const isSingle = lists.every((list) => {
    const keys = list.map(({ namespace, pod, kind, name, container }) =>
      [namespace, pod, kind, name, container].join("/"),
    );
    return new Set(keys).size === keys.length;
  });
  return isSingle && compilePolicy(one).ok;
}

async function putPolicy(
  m: Model,
  r: World,
  { name, spec, isValid }: { name: string; spec: Record<string, unknown>; isValid: boolean },
) {
  const named = { ...r.named(spec), checkpointDirectory: r.release.mounted };
  const { metadata } = await r.release.apply(name, named);
  m.resources.set(name, { uid: metadata.uid, createdAt: metadata.creationTimestamp, spec: named, isValid });
  if (!isEffective(m) && m.leads) m.isChangedUnseen = true;
}

const mayChangePolicy = (m: Model) => !isUncertain(m) && !m.isChangedUnseen && mayProve(m);
const policyName = fc.oneof(
  { weight: 4, arbitrary: fc.constant("policy-a") },
  { weight: 1, arbitrary: fc.constant("policy-b") },
);

/**
 * Before a policy or a clock changes, the agent has seen what came before: what it makes of that follows from the order.
 * The last look at a file that was written in two steps shows in no metric.
 */
async function seeAll(m: Model, r: World): Promise<void> {
  const changedAtMs = Math.max(0, ...[...mountedFolder(m.node).files.values()].map((file) => file.changedAtMs));
  await sleep(Math.max(0, changedAtMs + ALL_SEEN_MS - performance.now()));
  if (m.node.isAgentUp && m.node.policy !== undefined) await r.awaitView(m.node);
}

const applied = command("policy", fc.record({ name: policyName, spec: spec() }), {
  can: mayChangePolicy,
  async run(m, r, { name, spec }) {
    await seeAll(m, r);
    await act(m, r, { carryOut: () => putPolicy(m, r, { name, spec, isValid: true }) });
  },
});

const invalidated = command("policy made invalid", fc.record({ name: policyName }), {
  can: mayChangePolicy,
  async run(m, r, { name }) {
    await seeAll(m, r);
    const spec = {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerContainer: 1, maxChekpointSize: "1Gi" },
    };
    await act(m, r, { carryOut: () => putPolicy(m, r, { name, spec, isValid: false }) });
  },
});

const policyDeleted = command("policy deleted", fc.record({ name: policyName }), {
  can: (m, { name }) => mayChangePolicy(m) && m.resources.has(name),
  async run(m, r, { name }) {
    await seeAll(m, r);
    await act(m, r, {
      carryOut: async () => {
        await remove(r.kube.client, policyPath(r.release.namespace, name));
        m.resources.delete(name);
        if (!isEffective(m) && m.leads) m.isChangedUnseen = true;
      },
    });
    // Longer than the grace period: what comes back later ranks by its own age.
    if (isEffective(m) && wantedPolicy(m, r) === undefined) await sleep(REST_MS);
  },
});

const pod = () => fc.record({ pod: fc.constantFrom(...PODS) });

const podGone = command("pod deleted", pod(), {
  can: (m, { pod }) => !isUncertain(m) && !m.podsGone.has(pod) && m.proofs < MAX_PROOFS,
  async run(m, r, { pod }) {
    await act(m, r, {
      carryOut: async () => {
        await r.deletePod(r.named(pod));
        m.podsGone.add(pod);
      },
    });
  },
});

const podBack = command("pod created again", pod(), {
  can: (m, { pod }) => !isUncertain(m) && m.podsGone.has(pod),
  async run(m, r, { pod }) {
    await act(m, r, {
      carryOut: async () => {
        await r.createPod(r.named(pod));
        m.podsGone.delete(pod);
      },
    });
  },
});

const podReplaced = command("pod replaced", pod(), {
  can: (m, { pod }) => !m.podsGone.has(pod),
  async run(m, r, { pod }) {
    await act(m, r, {
      carryOut: async () => {
        await r.deletePod(r.named(pod));
        await r.createPod(r.named(pod));
      },
    });
  },
});

const agentKilled = command("agent ended", fc.record({ by: fc.constantFrom("SIGKILL", "SIGTERM") }), {
  can: (m) => m.node.isAgentUp && !isUncertain(m),
  async run(m, r, { by }) {
    await act(m, r, {
      carryOut: async () => {
        await r.endAgent(by);
        m.node = cloneModel(m.node);
        m.node.isAgentUp = false;
        m.node.hasReference = false;
        m.node.mounts = [BARE, 0];
        for (const [at, folder] of m.node.folders.entries()) folder.seen = r.keptOf(at);
      },
    });
  },
});

const agentStarted = command("agent started", nothing, {
  // With a clock that is wrong it would be a race between the first plan and the first directive.
  can: (m) => !m.node.isAgentUp && !isUncertain(m) && mayProve(m) && m.hoursAhead === 0 && !m.isChangedUnseen,
  async run(m, r) {
    if (isEffective(m)) learnGood(m);
    const wanted = isEffective(m) ? wantedPolicy(m, r) : undefined;
    const isOutdated = wanted !== undefined && digestOfPolicy(wanted) !== digestOfPolicy(m.node.policy);
    // How long an agent goes on with the policy it remembers is a matter of chance: here, until that has acted.
    if (isOutdated) blockWay(m, r);
    await act(m, r, {
      carryOut: async () => {
        const sinceMs = performance.now();
        await r.startAgent();
        m.node = cloneModel(m.node);
        m.node.isAgentUp = true;
        beginToWatch(m.node, sinceMs);
        await tellTime(m, r);
      },
      isEverythingFresh: true,
      isSeen: true,
    });
    if (isOutdated) await act(m, r, { carryOut: () => heal(m, r) });
  },
});

const mounted = command("mounted over", fc.record({ folder: fc.nat({ max: BARE - 1 }) }), {
  can: (m, { folder }) =>
    m.node.isAgentUp && m.node.mounts.at(-1) !== folder && m.node.mounts.length < 5 && mayProve(m) && !isUncertain(m),
  run: (m, r, { folder }) => remount(m, r, folder),
});

const unmounted = command("unmounted", nothing, {
  can: (m) => m.node.isAgentUp && m.node.mounts.length > 1 && mayProve(m) && !isUncertain(m),
  run: (m, r) => remount(m, r, undefined),
});

async function remount(m: Model, r: World, folder: number | undefined): Promise<void> {
  await seeAll(m, r);
  await act(m, r, {
    carryOut: async () => {
      const mounts = folder === undefined ? m.node.mounts.slice(0, -1) : [...m.node.mounts, folder];
      const sinceMs = performance.now();
      await r.mount(folder);
      m.node = cloneModel(m.node);
      endWatching(m.node);
      m.node.mounts = mounts;
      beginToWatch(m.node, sinceMs);
    },
    isEverythingFresh: true,
    isSeen: true,
  });
}

/** The agent's clocks, as far as the model puts them ahead. */
async function shiftClocks(m: Model, r: World, areTornAbandoned: boolean): Promise<void> {
  await seeAll(m, r);
  await act(m, r, {
    carryOut: async () => {
      // The second wait would make the clocks disagree by more than is believed, did not the wall go along with it.
      const wallMs = m.hoursAhead * HOUR_MS + Math.max(0, m.waits - 1) * WAIT_MS;
      await r.shiftClock({ wallMs, monotonicMs: m.waits * WAIT_MS });
      m.node = cloneModel(m.node);
      m.node.wallShiftMs = wallMs;
      passTime(m.node, { areTornAbandoned });
    },
    isSeen: true,
  });
}

const WAIT_MS = INCOMPLETE_AFTER_MS + 2000;

const clockStepped = command("clock stepped", fc.record({ hours: fc.constantFrom(-12, -3, 0, 0, 0, 2, 5, 12) }), {
  can: (m, { hours }) => m.node.isAgentUp && !isUncertain(m) && mayProve(m) && hours !== m.hoursAhead,
  async run(m, r, { hours }) {
    m.hoursAhead = hours;
    await shiftClocks(m, r, false);
  },
});

const waited = command("waited until nobody writes what is torn", nothing, {
  can: (m) =>
    m.node.isAgentUp &&
    !isUncertain(m) &&
    mayProve(m) &&
    m.waits < 2 &&
    fileAt(m, 0, ({ kind }) => kind === "torn") !== undefined,
  async run(m, r) {
    m.waits += 1;
    await shiftClocks(m, r, true);
  },
});

const faults: Record<string, Fault> = {
  "500": { do: "answer", status: 500, body: "" },
  "404 of a proxy": { do: "answer", status: 404, body: "404 page not found" },
  "404 that names no pod": {
    do: "answer",
    status: 404,
    body: JSON.stringify({ kind: "Status", apiVersion: "v1", status: "Failure", code: 404, reason: "NotFound" }),
  },
  silence: { do: "hang" },
  "a cut": { do: "drop" },
};

const failing = command("the API server fails", fc.record({ by: fc.constantFrom(...Object.keys(faults)) }), {
  // An agent that is down would be told later what the leader has learnt before.
  can: (m) => m.failingFor === undefined && m.leads && m.node.isAgentUp,
  async run(m, r, { by }) {
    await act(m, r, {
      carryOut: () => {
        // The Lease is spared, so that the same coordinator leads in the end.
        r.release.proxy.fault = ({ url }) => (url.includes("/leases/") ? undefined : faults[by]);
        r.release.proxy.cut();
        m.failingFor = 0;
      },
    });
  },
});

const cutOff = command("the way to the agent fails", nothing, {
  can: (m) => m.failingFor === undefined && m.leads && m.node.isAgentUp,
  run: (m, r) =>
    act(m, r, {
      carryOut: () => blockWay(m, r),
    }),
});

function blockWay(m: Model, r: World): void {
  r.relay.block(true);
  m.failingFor = 0;
  m.isCutOff = true;
}

/** Only what is read about pods fails: policies and watches go on. */
const podsFailing = command(
  "answers about pods fail",
  fc.record({ by: fc.constantFrom(...Object.keys(faults)), pod: fc.constantFrom(...PODS) }),
  {
    can: (m, { pod }) => isEffective(m) && !m.podsGone.has(pod) && m.node.isAgentUp,
    async run(m, r, { by, pod }) {
      const fault = faults[by];
      r.release.proxy.fault = ({ url }) =>
        /\/namespaces\/[^/]+\/pods(\/|\?|$)/.test(url) && !url.includes("watch") ? fault : undefined;
      await r.deletePod(r.named(pod));
      r.relay.cut();
      // Longer than the grace period: were an error a proof, it would be one by now.
      await sleep(1600);
      await r.createPod(r.named(pod));
      await act(m, r, {
        carryOut: () => {
          r.release.proxy.fault = () => undefined;
          if (by === "silence") r.release.proxy.cut();
        },
      });
    },
  },
);

const healed = command(HEAL, nothing, {
  can: (m) => m.failingFor !== undefined && (m.podsGone.size === 0 || m.proofs < MAX_PROOFS + 3),
  async run(m, r) {
    await act(m, r, {
      carryOut: async () => {
        await heal(m, r);
      },
    });
  },
});

async function heal(m: Model, r: World): Promise<void> {
  r.release.proxy.fault = () => undefined;
  if (m.failingFor !== undefined && !m.isCutOff) r.release.proxy.cut();
  r.relay.block(false);
  m.failingFor = undefined;
  m.isCutOff = false;
  m.isChangedUnseen = false;
  if (!m.leads) return;
  await r.awaitLeader();
  await tellTime(m, r);
}

const mayLoseLeader = (m: Model) =>
  m.leads && m.failingFor === undefined && (m.coordinators === 1 || m.podsGone.size === 0);

const leaderKilled = command("leader killed", nothing, {
  can: mayLoseLeader,
  async run(m, r) {
    await seeAll(m, r);
    await act(m, r, {
      carryOut: async () => {
        await r.endLeader("SIGKILL");
        m.coordinators -= 1;
        m.leads = false;
        m.isLeaseOrphaned = true;
      },
    });
  },
});

const leaderFrozen = command("leader frozen until another leads", nothing, {
  can: (m) => m.leads && m.failingFor === undefined && m.coordinators === 2 && m.podsGone.size === 0,
  async run(m, r) {
    await seeAll(m, r);
    await act(m, r, {
      carryOut: async () => {
        await r.freezeLeader();
        await lead(m, r);
      },
    });
  },
});

const leaderStopped = command("leader stopped", nothing, {
  can: mayLoseLeader,
  async run(m, r) {
    await seeAll(m, r);
    await act(m, r, {
      carryOut: async () => {
        await r.endLeader("SIGTERM");
        m.coordinators -= 1;
        m.leads = m.coordinators > 0;
        if (m.leads) await lead(m, r);
      },
    });
  },
});

const coordinatorStarted = command("coordinator started", nothing, {
  can: (m) => m.coordinators < 2 && m.failingFor === undefined && mayProve(m),
  async run(m, r) {
    await act(m, r, {
      carryOut: async () => {
        r.startCoordinator();
        m.coordinators += 1;
        if (!m.leads && !m.isLeaseOrphaned) await lead(m, r);
      },
    });
  },
});

const leaderAwaited = command("another leads", nothing, {
  can: isUncertain,
  run: (m, r) => act(m, r, { carryOut: () => lead(m, r) }),
});

async function lead(m: Model, r: World): Promise<void> {
  await r.awaitLeader();
  m.leads = true;
  m.isLeaseOrphaned = false;
  m.good.clear();
  await tellTime(m, r);
}

/** The first directive that reaches an agent tells it the time. */
async function tellTime(m: Model, r: World): Promise<void> {
  if (!m.leads || m.isCutOff || !m.node.isAgentUp || m.node.hasReference) return;
  if (isEffective(m)) learnGood(m);
  // A leader that knows no good version of the policy says nothing.
  if (wantedPolicy(m, r) === undefined) return;
  await r.awaitReference();
  m.node = cloneModel(m.node);
  m.node.hasReference = true;
}

/** What would delete nearly everything, were it obeyed. */
const strict = { globalPolicy: { maxCheckpointsPerContainer: 1 } };

const belated = command(
  "a directive out of time or place",
  fc.record({
    what: fc.constantFrom(
      "of an earlier term",
      "of an earlier revision",
      "for another pod",
      "for another node",
      "with a proof of nobody's",
    ),
  }),
  {
    can: (m) => m.node.isAgentUp && m.node.policy !== undefined && m.leads && !m.isCutOff && m.node.hasReference,
    async run(m, r, { what }) {
      const { term, revision, policy } =
        r.agentLog().last("directive accepted", "the last accepted policy is in force") ?? {};
      const fence = { term: Number(term), revision: Number(revision) };
      const [owner] = r.owners;
      const body = {
        "of an earlier term": { spec: strict, term: fence.term - 1, revision: 1_000_000 },
        "of an earlier revision": { spec: strict, term: fence.term, revision: fence.revision - 1 },
        "for another pod": { spec: strict, term: fence.term, revision: fence.revision + 1, podUID: "another" },
        "for another node": { spec: strict, term: fence.term, revision: fence.revision + 1, node: "another" },
        "with a proof of nobody's": {
          ...fence,
          policy: { digest: policy },
          orphans: [{ bootId: "another", report: 1, namespace: owner?.namespace, pod: owner?.pod }],
        },
      }[what];
      let status = 0;
      await act(m, r, {
        carryOut: async () => {
          status = await r.sendDirective(body);
        },
        isSeen: true,
      });
      if (!what.startsWith("with") && status === 200) r.fail(`a directive ${what} was accepted`, m.node);
    },
  },
);

/** All that may happen, as often as it is to. */
const weighted: Array<[number, fc.Arbitrary<Command>]> = [
  [30, created],
  [5, begun],
  [5, grown],
  [3, truncated],
  [4, overwritten],
  [2, spoilt],
  [6, pinned],
  [5, unpinned],
  [5, renamed],
  [4, removed],
  [1, disguised],
  [2, paused],
  [4, resumed],
  [10, applied],
  [2, invalidated],
  [2, policyDeleted],
  [3, podGone],
  [3, podBack],
  [2, podReplaced],
  [2, agentKilled],
  [6, agentStarted],
  [2, mounted],
  [2, unmounted],
  [4, clockStepped],
  [4, waited],
  [2, failing],
  [1, cutOff],
  [4, podsFailing],
  [4, healed],
  [1, leaderKilled],
  [1, leaderFrozen],
  [1, leaderStopped],
  [4, coordinatorStarted],
  [4, leaderAwaited],
  [3, belated],
];

/** Sequences of commands, as long as asked for at the most. */
export function commandSequences(maxCommands: number) {
  const all = weighted.flatMap(([weight, arbitrary]) => Array.from({ length: weight }, () => arbitrary));
  // Biased ones would mostly be short.
  return fc.noBias(fc.commands(all, { maxCommands, size: "max" }));
}

/** Begins: a coordinator leads, the agent obeys the default, and the crowd has its archives. */
export async function begin(m: Model, r: World): Promise<void> {
  await act(m, r, {
    carryOut: async () => {
      r.startCoordinator();
      m.coordinators += 1;
      await lead(m, r);
    },
  });
  const spelled = r.crowd.map((one) => ({ one, ...spellOf(one, r.baseMs - 3 * HOUR_MS) }));
  await act(m, r, {
    changes: [
      (node) => {
        for (const { one, file, spelling } of spelled) {
          const content: Content = { kind: "whole", written: { owner: one, runtime: "containerd", pagesBytes: 0 } };
          putFile(node, {
            file,
            spelling,
            content,
            size: archiveBytes({ ...one, pagesBytes: 0 }).length,
            mtimeMs: mtimeOf(r, 0),
          });
        }
      },
    ],
    carryOut: () => {
      for (const { one, file } of spelled) {
        writeOver(pathOf(r, m, file), archiveBytes({ ...one, pagesBytes: 0 }));
        touch(pathOf(r, m, file), mtimeOf(r, 0));
      }
    },
    isAtOnce: true,
    isSeen: true,
  });
}

function spellOf(
  { namespace, pod, container }: World["owners"][number],
  timeMs: number,
): { file: string; spelling: Spelling } {
  return {
    file: `checkpoint-${pod}_${namespace}-${container}-${archiveTime(timeMs)}.tar`,
    spelling: { pod, joined: `${namespace}-${container}`, timeMs },
  };
}

/** Ends: everything goes again, and once it has settled, all is as the model says. */
export async function end(m: Model, r: World): Promise<void> {
  await act(m, r, {
    carryOut: async () => {
      await heal(m, r);
      if (isUncertain(m)) await lead(m, r);
    },
  });
  await seeAll(m, r);
  r.checkEnd(m.node);
}
