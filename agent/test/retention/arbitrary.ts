import type { NodePolicy, Policy, PolicyDocument, ScopeLimits } from "@cro/shared/policy/document";
import { ARCHIVE_STATES } from "@cro/shared/wire/report";
import fc from "fast-check";
import type { Archive } from "../../src/archive/archive.ts";
import type { OrphanCover } from "../../src/retention/plan.ts";
import { anArchive, NOW_MS } from "./builders.ts";

/** Few names, one the beginning of another, so that scopes and prefixes meet often. */
const namespace = () => fc.constantFrom("team", "team-prod", "ops");
/** As of nobody, of StatefulSet or Job web, and of Deployment web or ReplicaSet web-b. */
const pod = () => fc.constantFrom("web", "web-1", "web-24567", "web-b-x7k2p", "web-b-bbbbb");
const container = () => fc.constantFrom("main", "side");

const podUID = () => fc.constantFrom("uid-1", "uid-2");
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });
const sometimes = (weight: number) => fc.integer({ min: 1, max: 100 }).map((roll) => roll <= weight);

const archive = ({ isWalked }: { isWalked: boolean }) =>
  fc
    .record({
      namespace: namespace(),
      pod: pod(),
      container: container(),
      // Coarse, so that ages tie and only mtime and then the name tell them apart.
      age: fc.integer({ min: -1, max: 8 }),
      mtimeNs: fc.bigInt({ min: 0n, max: 1n }),
      size: fc.oneof(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 30 })),
      allocated: fc.integer({ min: 0, max: 9 }),
      hasOtherNames: sometimes(15),
      state: fc.oneof(
        { weight: 6, arbitrary: fc.constant("complete" as const) },
        { weight: 2, arbitrary: fc.constant("incomplete" as const) },
        { weight: 1, arbitrary: fc.constantFrom(...ARCHIVE_STATES) },
      ),
      pinned: sometimes(15),
      isSettled: sometimes(85),
      listed: fc.integer({ min: 0, max: 3 }),
      walked: isWalked ? fc.constant(true) : sometimes(95),
      isOwned: sometimes(90),
      isStaticPod: sometimes(20),
      podUID: maybe(podUID()),
      // Of any state: nothing but the planner itself may make sure that it is asked of two alone.
      unmanagedHours: maybe(fc.integer({ min: -1, max: 4 })),
    })
    .map(({ isOwned, isSettled, age, unmanagedHours, ...rest }) =>
      anArchive({
        ...rest,
        timeMs: NOW_MS - age * 1000,
        unmanagedSinceMs: unmanagedHours === undefined ? undefined : NOW_MS - unmanagedHours * 3_600_000,
        settled: isSettled || rest.state === "incomplete",
        ...(isOwned && rest.state !== "unidentified" ? {} : { identity: null }),
      }),
    );

/** Archives of one directory: no two have the same name. */
export const arbArchives = ({ isWalked = true, maxLength = 24 } = {}): fc.Arbitrary<Archive[]> =>
  fc
    .array(archive({ isWalked }), { maxLength })
    .map((archives) => archives.map((one, index) => ({ ...one, file: `${index % 7}-${index}.tar` })));

/** Leaves absent limits out, as documents do. */
const compact = <T extends object>(value: T): T =>
  Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as T;

const limits = (): fc.Arbitrary<ScopeLimits | undefined> =>
  maybe(
    fc
      .record({
        maxCheckpoints: maybe(fc.integer({ min: 1, max: 5 })),
        maxTotalBytes: maybe(fc.integer({ min: 1, max: 60 })),
      })
      .map(compact),
  ) as fc.Arbitrary<ScopeLimits | undefined>;

const pattern = (name: fc.Arbitrary<string>) =>
  fc.oneof(
    name,
    fc.tuple(name, fc.integer({ min: 0, max: 6 })).map(([text, length]) => `${text.slice(0, length)}*`),
  );

const common = () => ({
  retainOrphan: fc.boolean(),
  minCheckpoints: maybe(fc.integer({ min: 1, max: 3 })),
  maxCheckpointBytes: maybe(fc.integer({ min: 1, max: 25 })),
  maxAgeMs: maybe(fc.integer({ min: 1, max: 8 }).map((seconds) => seconds * 1000)),
});

const LEVELS = ["container", "pod", "workload", "namespace"] as const;
type Level = (typeof LEVELS)[number];

const arbRule = (levels: readonly Level[], namespaces: fc.Arbitrary<string>): fc.Arbitrary<Policy> =>
  fc
    .record({
      ...common(),
      level: fc.constantFrom(...levels),
      namespace: pattern(namespaces),
      kind: fc.constantFrom("Deployment" as const, "ReplicaSet" as const, "StatefulSet" as const, "Job" as const),
      workload: fc.constantFrom("web", "web-b"),
      isForAll: fc.boolean(),
      pod: pattern(pod()),
      container: pattern(container()),
      own: limits(),
    })
    .map(({ own, level, pod, container, kind, workload, isForAll, ...rest }) =>
      compact({
        ...rest,
        level,
        ...(level === "namespace" && { perNamespace: own }),
        ...(level === "workload" && { kind, workload, perWorkload: own, ...(!isForAll && { container }) }),
        ...(level === "pod" && { pod, perPod: own }),
        ...(level === "container" && { pod, container, perContainer: own }),
      } as Policy),
    );

const arbGlobal = (): fc.Arbitrary<Policy> =>
  fc
    .record({ ...common(), perContainer: limits(), perPod: limits(), perNamespace: limits() })
    .map((fields) => compact({ level: "global", ...fields } as Policy));

const arbNodePolicy = (): fc.Arbitrary<NodePolicy> =>
  fc
    .record({
      maxTotalBytes: maybe(fc.integer({ min: 1, max: 120 })),
      watermark: maybe(
        fc.tuple(fc.integer({ min: 2, max: 100 }), fc.integer({ min: 1, max: 99 })).map(([high, below]) => ({
          high,
          low: Math.max(1, high - below),
        })),
      ),
      minFreeBytes: maybe(fc.integer({ min: 1, max: 60 })),
      minFreeInodes: maybe(fc.integer({ min: 1, max: 30 })),
      maxAgeUnmanagedMs: maybe(fc.integer({ min: 1, max: 3 }).map((hours) => hours * 3_600_000)),
    })
    .map((fields) => compact(fields as NodePolicy));

const scopeOf = ({ namespace, pod, kind, workload, container }: Policy) =>
  `${namespace}/${pod}/${kind}/${workload}/${container}`;

export const arbPolicy = ({
  hasNode = true,
  levels = LEVELS,
  namespaces,
}: {
  hasNode?: boolean;
  levels?: readonly Level[];
  namespaces?: readonly string[];
} = {}): fc.Arbitrary<PolicyDocument> =>
  fc.record({
    directory: fc.constant("/checkpoints"),
    mode: fc.constant("Enforce" as const),
    applyImmediately: fc.constant(false),
    orphanMatch: maybe(fc.constant("UID" as const)),
    global: arbGlobal(),
    rules: fc.uniqueArray(arbRule(levels, namespaces === undefined ? namespace() : fc.constantFrom(...namespaces)), {
      maxLength: 6,
      selector: (rule) => `${rule.level} ${scopeOf(rule)}`,
    }),
    node: hasNode ? arbNodePolicy() : fc.constant({}),
  });

export const arbDisk = () =>
  maybe(
    fc
      .record({
        usedBytes: fc.integer({ min: 0, max: 200 }),
        availableBytes: fc.integer({ min: 0, max: 60 }),
        inodes: maybe(fc.nat({ max: 30 }).map((free) => ({ total: 100, free }))),
      })
      .map(({ inodes, ...bytes }) => ({ ...bytes, ...(inodes && { inodes }) })),
  );

export const arbOrphans = (): fc.Arbitrary<OrphanCover[]> =>
  fc.array(
    fc
      .record({
        namespace: namespace(),
        pod: pod(),
        container: maybe(container()),
        isOfUid: sometimes(40),
        uid: podUID(),
        listedUpTo: fc.integer({ min: 0, max: 3 }),
      })
      .map(
        ({ isOfUid, container, uid, ...rest }) =>
          compact({ ...rest, ...(isOfUid ? { uid } : { container }) }) as OrphanCover,
      ),
    { maxLength: 3 },
  );

/** Some scopes of the names above. */
export const arbActive = (): fc.Arbitrary<(scope: string) => boolean> =>
  fc.oneof(
    { weight: 2, arbitrary: fc.constant(() => true) },
    {
      weight: 1,
      arbitrary: fc
        .subarray([
          "team",
          "team-prod",
          "ops",
          "team/web",
          "team-prod/web",
          "ops/web-1",
          "team/web/main",
          "ops/web/side",
          "team//Deployment/web",
          "team//Job/web/main",
          "ops//StatefulSet/web",
        ])
        .map((active) => (scope: string) => active.includes(scope)),
    },
  );
