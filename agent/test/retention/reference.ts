import type { Policy } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { Reason, UnreachableLimit } from "@cro/shared/wire/report";
import { isNameOfPodOf } from "../../../shared/test/support/pod-names.ts";
import type { Archive } from "../../src/archive/archive.ts";
import type { PlanInput, PlannedDeletion } from "../../src/retention/plan.ts";

type Owned = Archive & { identity: ContainerIdentity };

/** Whether a name in a policy stands for this name. */
export function matches(pattern: string | undefined, name: string): boolean {
  if (pattern === undefined) return true;
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : pattern === name;
}

const KINDS: Array<Policy["kind"]> = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job", "CronJob"];

/** The governing policy by the words of its definition: every rule that matches, the most specific of them. */
export function governs(rules: readonly Policy[], global: Policy, identity: ContainerIdentity): Policy {
  const levels = ["container", "pod", "workload", "namespace"];
  const rank = (pattern: string | undefined): number =>
    pattern === undefined ? 0 : pattern.endsWith("*") ? pattern.length : 1000;
  return (
    rules
      .filter((rule) => matches(rule.namespace, identity.namespace))
      .filter((rule) => matches(rule.pod, identity.pod) && matches(rule.container, identity.container))
      .filter(
        ({ kind, workload }) => kind === undefined || isNameOfPodOf({ kind, name: workload as string }, identity.pod),
      )
      .sort(
        (a, b) =>
          levels.indexOf(a.level) - levels.indexOf(b.level) ||
          rank(b.namespace) - rank(a.namespace) ||
          (b.workload ?? "").length - (a.workload ?? "").length ||
          KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) ||
          rank(b.pod) - rank(a.pod) ||
          rank(b.container) - rank(a.container),
      )[0] ?? global
  );
}

export function byAge(a: Archive, b: Archive): number {
  return a.timeMs - b.timeMs || Number(a.mtimeNs - b.mtimeNs) || (a.file < b.file ? -1 : 1);
}

/** Incomplete ones first, then the oldest. */
const inOrder = (a: Archive, b: Archive) =>
  Number(b.state === "incomplete") - Number(a.state === "incomplete") || byAge(a, b);

/** How wide a scope is: that many names, or a workload of a namespace, by its policy. */
type Width = 1 | 2 | 3 | Policy;

const workloadOf = ({ kind, workload, container }: Policy) =>
  [kind, workload, ...(container === undefined ? [] : [container])].join("/");
export const keyOf = (identity: ContainerIdentity, width: Width) =>
  typeof width === "number"
    ? [identity.namespace, identity.pod, identity.container].slice(0, width).join("/")
    : `${identity.namespace}//${workloadOf(width)}`;
const namesOf = (identity: ContainerIdentity, width: Width) =>
  typeof width === "number"
    ? {
        namespace: identity.namespace,
        ...(width > 1 ? { pod: identity.pod } : {}),
        ...(width > 2 ? { container: identity.container } : {}),
      }
    : { namespace: identity.namespace, workload: workloadOf(width) };
/** What an archive's floor is counted by: its container, or the containers of its name in all pods of the workload. */
export const floorKey = (identity: ContainerIdentity, policy: Policy) =>
  policy.level === "workload" ? `${keyOf(identity, policy)}//${identity.container}` : keyOf(identity, 3);
const total = (archives: readonly Archive[], of: (archive: Archive) => number) =>
  archives.reduce((sum, archive) => sum + of(archive), 0);

/**
 * The planner once more, in the plainest way: every rule filters and sorts all archives anew and takes one at a time.
 * Its cost is quadratic and worse.
 */
export function referencePlan(input: PlanInput) {
  const archives = [...input.archives];
  const gone = new Set<Archive>();
  const planned: PlannedDeletion[] = [];
  const cannotGo = new Set<Archive>();
  const unreachable: UnreachableLimit[] = [];
  const policyOf = (archive: Owned) => governs(input.policy.rules, input.policy.global, archive.identity);
  const left = () =>
    archives.filter((archive): archive is Owned => archive.identity !== undefined && !gone.has(archive));
  const whole = (archive: Archive) => archive.state === "complete" || archive.state === "incomplete";
  const isStuck = ({ file }: Archive) => input.stuck?.has(file) ?? false;
  const inBytes = (archive: Archive) => archive.state !== "unidentified" && (archive.pinned || whole(archive));
  const inNumbers = (archive: Archive) =>
    archive.state === "complete" || (archive.state === "incomplete" && !archive.pinned);
  const deletable = (archive: Archive) => whole(archive) && !archive.pinned && !cannotGo.has(archive);
  const newest = (archive: Owned, by: (archive: Owned) => string) =>
    left()
      .filter((other) => other.state === "complete" && by(other) === by(archive))
      .sort(byAge)
      .reverse();
  const floor = new Set(
    left().filter((archive) =>
      newest(archive, (other) => floorKey(other.identity, policyOf(other)))
        .slice(0, policyOf(archive).minCheckpoints ?? 0)
        .includes(archive),
    ),
  );
  const candidates = () =>
    left()
      .filter((archive) => deletable(archive) && !floor.has(archive))
      .sort(inOrder);
  const unwalked = archives.filter(({ walked }) => !walked);
  const acts = (identity: ContainerIdentity, width: Width) =>
    input.isActive(keyOf(identity, width)) &&
    !unwalked.some((archive) =>
      [...archive.candidates, ...(archive.identity === undefined ? [] : [archive.identity])].some((reading) => {
        const walkedWith = typeof width === "number" ? width : 1;
        return keyOf(reading, walkedWith) === keyOf(identity, walkedWith);
      }),
    );
  const ownWidth = (policy: Policy): Width =>
    policy.level === "workload" ? policy : ({ global: 3, container: 3, pod: 2, namespace: 1 } as const)[policy.level];
  const ownActs = (archive: Owned) => acts(archive.identity, ownWidth(policyOf(archive)));
  const obstacles = (members: readonly Archive[], { kept = floor, unsettled = 0 }: Partial<InTheWay> = {}) => {
    const failing = members.filter(isStuck).length;
    const others = members.filter((archive) => !isStuck(archive));
    const pinned = others.filter((archive) => archive.pinned).length;
    const floored = others.filter((archive) => !archive.pinned && kept.has(archive) && !gone.has(archive)).length;
    const told = {
      ...(pinned > 0 && { pinned }),
      ...(floored > 0 && { floor: floored }),
      ...(failing > 0 && { failing }),
      ...(unsettled > 0 && { unsettled }),
    };
    return {
      ...(Object.keys(told).length > 0 && { obstacles: told }),
      ...(failing > 0 && { codes: ["UNKNOWN"] }),
    };
  };
  const take = (archive: Archive, reason: Reason) => {
    gone.add(archive);
    planned.push({ archive, reason });
  };

  for (const archive of left()) {
    const policy = policyOf(archive);
    const isCovered = input.orphans.some(
      (orphan) =>
        orphan.namespace === archive.identity.namespace &&
        orphan.pod === archive.identity.pod &&
        (orphan.container === undefined ||
          (ownWidth(policy) === 3 && orphan.container === archive.identity.container)) &&
        (orphan.uid === undefined || (input.policy.orphanMatch === "UID" && orphan.uid === archive.podUID)) &&
        archive.listed <= orphan.listedUpTo,
    );
    const mayBeOrphan = !policy.retainOrphan && !archive.isStaticPod;
    if (isCovered && mayBeOrphan && deletable(archive) && ownActs(archive)) take(archive, "orphan");
  }

  const each = (reason: Reason, violates: (archive: Owned) => boolean) => {
    const violating = left().filter((archive) => inBytes(archive) && ownActs(archive) && violates(archive));
    const going = violating.filter((archive) => candidates().includes(archive));
    for (const archive of going) take(archive, reason);
    const freeing = going.filter((archive) => !isStuck(archive));
    const scopes = new Map(
      violating.map((archive) => {
        const width = ownWidth(policyOf(archive));
        return [keyOf(archive.identity, width), namesOf(archive.identity, width)];
      }),
    );
    for (const [key, names] of scopes) {
      const inScope = (archive: Owned) => keyOf(archive.identity, ownWidth(policyOf(archive))) === key;
      const wanted = violating.filter(inScope).length;
      const freed = freeing.filter(inScope).length;
      if (freed < wanted) {
        const amounts = { wanted, freed, unit: "archives" } as const;
        unreachable.push({ limit: reason, ...names, ...amounts, ...obstacles(violating.filter(inScope)) });
      }
    }
  };
  each("max_checkpoint_size", (archive) => archive.size > (policyOf(archive).maxCheckpointBytes ?? Infinity));
  const { nowMs } = input;
  if (nowMs !== undefined) {
    each("max_age", (archive) => nowMs - archive.timeMs > (policyOf(archive).maxAgeMs ?? Infinity));
  }

  const perScope = (
    act: (members: () => Owned[], limits: NonNullable<Policy["perPod"]>, names: object, ever: Owned[]) => void,
  ) => {
    const fields = ["perContainer", "perPod", "perWorkload", "perNamespace"] as const;
    for (const field of fields) {
      const widthOf = (archive: Owned): Width =>
        (({ perContainer: 3, perPod: 2, perWorkload: policyOf(archive), perNamespace: 1 }) as const)[field];
      const limited = left().filter((archive) => policyOf(archive)[field] !== undefined);
      for (const key of new Set(limited.map((archive) => keyOf(archive.identity, widthOf(archive))))) {
        const isMember = (archive: Owned) =>
          policyOf(archive)[field] !== undefined && keyOf(archive.identity, widthOf(archive)) === key;
        const members = () => left().filter(isMember);
        const [first] = members();
        const limits = first && policyOf(first)[field];
        if (first === undefined || limits === undefined || !acts(first.identity, widthOf(first))) continue;
        const ever = archives.filter(
          (archive): archive is Owned =>
            archive.identity !== undefined && inBytes(archive) && isMember(archive as Owned),
        );
        act(members, limits, namesOf(first.identity, widthOf(first)), ever);
      }
    }
  };
  perScope((members, { maxCheckpoints = Infinity }, names, ever) => {
    const count = () => members().filter(inNumbers).length;
    const wanted = count() - maxCheckpoints;
    let freed = 0;
    let failing = 0;
    for (const archive of candidates().filter((one) => members().includes(one))) {
      if (count() <= maxCheckpoints) break;
      take(archive, "max_checkpoints");
      if (isStuck(archive)) failing += 1;
      else freed += 1;
    }
    if (count() + failing > maxCheckpoints) {
      const amounts = { wanted, freed, unit: "archives" } as const;
      unreachable.push({ limit: "max_checkpoints", ...names, ...amounts, ...obstacles(ever.filter(inNumbers)) });
    }
  });
  const shrink = (reason: Reason, names: object, options: Shrink) => {
    const { members, ever, limit, of, orders, tolerated = 0, unit = "bytes" } = options;
    const sum = () => total(members(), of);
    const wanted = sum() - limit;
    let freed = 0;
    let failing = 0;
    for (const next of orders) {
      for (let archive = next(); archive !== undefined && sum() > limit + tolerated; archive = next()) {
        take(archive, reason);
        if (isStuck(archive)) failing += of(archive);
        else freed += of(archive);
      }
    }
    if (sum() + failing > limit) {
      const inTheWay = obstacles(
        ever.filter((archive) => of(archive) > 0),
        options,
      );
      unreachable.push({ limit: reason, ...names, wanted, freed, unit, ...inTheWay });
    }
  };
  perScope((members, { maxTotalBytes = Infinity }, names, ever) => {
    const mine = () => candidates().filter((archive) => members().includes(archive));
    shrink("max_total_size", names, {
      members: () => members().filter(inBytes),
      ever,
      limit: maxTotalBytes,
      of: ({ size }) => size,
      orders: [() => mine().find(({ size }) => size > maxTotalBytes), () => mine()[0]],
    });
  });

  const { node } = input.policy;
  if (input.node !== undefined && unwalked.length === 0 && Object.keys(node).length > 0) {
    for (const archive of archives) {
      const { state, pinned, unmanagedSinceMs = Number.POSITIVE_INFINITY } = archive;
      const isUnmanaged = !pinned && ["unread", "unidentified"].includes(state);
      const ageMs = (nowMs ?? Number.NEGATIVE_INFINITY) - unmanagedSinceMs;
      if (isUnmanaged && ageMs > (node.maxAgeUnmanagedMs ?? Infinity)) take(archive, "max_age_unmanaged");
    }
    // What an earlier rule wants gone is not what a container will have left.
    const spared = new Set(left().map((archive) => newest(archive, (other) => keyOf(other.identity, 3))[0]));
    // To the node they are still there, and it cannot take them.
    for (const archive of archives.filter(isStuck)) {
      gone.delete(archive);
      cannotGo.add(archive);
    }
    const mine = () => candidates().filter((archive) => !spared.has(archive));
    const ownerless = archives.filter(
      ({ identity, state, pinned }) => identity === undefined && state === "incomplete" && !pinned,
    );
    const ofAll = () =>
      [...mine(), ...ownerless.filter((archive) => !gone.has(archive) && !cannotGo.has(archive))].sort(inOrder);
    const counted = () => [...left().filter(inBytes), ...ownerless.filter((archive) => !gone.has(archive))];
    const any = (_: Archive) => true;
    const largest =
      (of: (archive: Archive) => number, isOne = any) =>
      () => {
        const share = (archive: Owned) =>
          total(
            counted().filter(({ identity }) => identity?.namespace === archive.identity.namespace),
            of,
          );
        return mine()
          .filter(isOne)
          .sort(
            (a, b) =>
              share(b) - share(a) ||
              (a.identity.namespace === b.identity.namespace
                ? 0
                : a.identity.namespace < b.identity.namespace
                  ? -1
                  : 1),
          )[0];
      };
    const torn =
      (isOne = any) =>
      () =>
        ofAll().find((archive) => archive.state === "incomplete" && isOne(archive));
    const ofNode = {
      members: counted,
      ever: archives.filter(
        (archive) => ownerless.includes(archive) || (archive.identity !== undefined && inBytes(archive)),
      ),
      kept: new Set<Archive>([...floor, ...[...spared].filter((archive) => archive !== undefined)]),
    };
    const limit = node.maxTotalBytes ?? Infinity;
    shrink(
      "node_max_total_size",
      {},
      {
        ...ofNode,
        limit,
        of: ({ size }) => size,
        tolerated: total(
          counted().filter((archive) => isStuck(archive) && archive.state === "incomplete"),
          ({ size }) => size,
        ),
        orders: [() => ofAll().find(({ size }) => size > limit), torn(), largest(({ size }) => size)],
      },
    );
    const { disk } = input.node;
    if (disk !== undefined && disk.usedBytes + disk.availableBytes > 0) {
      const size = disk.usedBytes + disk.availableBytes;
      const freed = total(
        planned.map(({ archive }) => archive).filter((archive) => !isStuck(archive)),
        (a) => a.allocated,
      );
      const used = disk.usedBytes - freed;
      let target = used;
      // The numbers of the tests are small: counting down finds the first usage that will do.
      if (node.watermark !== undefined && used * 100 > node.watermark.high * size) {
        while (target * 100 >= node.watermark.low * size) target -= 1;
      }
      while (size - target < (node.minFreeBytes ?? 0)) target -= 1;
      target = Math.max(target, used - (input.node.passLimitBytes ?? Infinity));
      const before = total(counted(), (archive) => archive.allocated);
      shrink(
        "node_watermark",
        {},
        {
          ...ofNode,
          unsettled: archives.filter(
            ({ state, pinned, allocated }) => state === "unsettled" && !pinned && allocated > 0,
          ).length,
          limit: before - (used - target),
          of: ({ allocated }) => allocated,
          orders: [torn(), largest(({ allocated }) => allocated)],
        },
      );
    }
    if (disk?.inodes !== undefined) {
      const going = planned.filter(({ archive }) => !isStuck(archive)).length;
      const wanted = (node.minFreeInodes ?? 0) - disk.inodes.free - going;
      const unsettled = archives.filter(
        ({ state, pinned, allocated }) => state === "unsettled" && !pinned && allocated > 0,
      ).length;
      const isOnlyName = ({ hasOtherNames }: Archive) => !hasOtherNames;
      const inode = (archive: Archive) => (isOnlyName(archive) ? 1 : 0);
      shrink(
        "node_inodes",
        {},
        {
          ...ofNode,
          unsettled,
          unit: "archives",
          limit: total(counted(), inode) - Math.max(0, Math.min(wanted, input.node.passLimitInodes ?? Infinity)),
          of: inode,
          orders: [torn(isOnlyName), largest(inode, isOnlyName)],
        },
      );
    }
  }
  return {
    deletions: planned.filter(({ archive }) => archive.settled && !isStuck(archive)),
    deferred: planned.filter(({ archive }) => !archive.settled && !isStuck(archive)),
    stuck: planned.filter(({ archive }) => isStuck(archive)),
    unreachable,
  };
}

/** What may stand in a limit's way. */
interface InTheWay {
  /** What the floor keeps, if it is another one. */
  kept: ReadonlySet<Archive>;
  /** How many archives may still be written and take up disk space. */
  unsettled: number;
}

interface Shrink extends Partial<InTheWay> {
  members: () => Archive[];
  /** The same before any rule took one. */
  ever: Archive[];
  limit: number;
  of: (archive: Archive) => number;
  /** By how much the limit may be exceeded before anything is taken. */
  tolerated?: number;
  orders: Array<() => Archive | undefined>;
  unit?: UnreachableLimit["unit"];
}
