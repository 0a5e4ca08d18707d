import type { PolicyDocument } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import type { Archive } from "../../src/archive/archive.ts";
import { archivesOf, keyOf, limitedScopes, type Scope } from "../../src/enforce/attention.ts";
import type { InForce } from "../../src/enforce/in-force.ts";
import { createShortlists, type Shortlist } from "../../src/enforce/shortlist.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { type Plan, type PlanInput, planRetention } from "../../src/retention/plan.ts";
import { arbArchives, arbPolicy } from "../retention/arbitrary.ts";
import { NOW_MS, told } from "../retention/builders.ts";

/** What happens between two plans: archives that come, change or go, by their place among all. */
interface Change {
  arrivals: readonly Archive[];
  changed: ReadonlyArray<{ at: number; how: Partial<Archive> }>;
  removed: readonly number[];
  /** Whether all that was planned gets done. */
  isCarriedOut: boolean;
  /** Whether scopes are planned for in which nothing changed. */
  isEverywhere: boolean;
}

const NO_CHANGE: Change = { arrivals: [], changed: [], removed: [], isCarriedOut: true, isEverywhere: false };

const place = fc.nat({ max: 1000 });

const arbChange: fc.Arbitrary<Change> = fc.record({
  arrivals: arbArchives({ maxLength: 3 }),
  changed: fc.array(
    fc.record({
      at: place,
      how: fc.constantFrom<Partial<Archive>[]>(
        { pinned: true },
        { pinned: false },
        { size: 1 },
        { size: 12 },
        { mtimeNs: 2n },
        { state: "complete" },
        { state: "incomplete", settled: true },
        { state: "unsettled" },
      ),
    }),
    { maxLength: 2 },
  ),
  removed: fc.array(place, { maxLength: 1 }),
  isCarriedOut: fc.integer({ min: 0, max: 9 }).map((roll) => roll > 0),
  isEverywhere: fc.boolean(),
});

const hasNothingLeft = ({ deferred, stuck, unreachable, pinnedLimits, waits }: Plan) =>
  !waits && [deferred, stuck, unreachable, pinnedLimits].every(({ length }) => length === 0);

/** A node under a policy on which all happens that an enforcer tells its shortlists of. */
function aNode(document: PolicyDocument) {
  const index = createArchiveIndex<Entry>();
  const losses: string[] = [];
  // Every scope has shortlists, however few archives it holds.
  const shortlists = createShortlists({
    index,
    large: 1,
    onLoss: ({ file }, scope) => losses.push(`${scope} ${file}`),
  });
  const govern = createGovernor(document);
  const inForce = { document, govern } as unknown as InForce;
  shortlists.setPolicy(inForce);
  let arrived = 0;
  const input = { policy: document, govern, nowMs: NOW_MS, orphans: [], isActive: () => true, node: undefined };
  const plan = (archives: Iterable<Archive>, told: Partial<PlanInput> = {}) =>
    planRetention({ ...input, archives, ...told });
  const counted = { scope: 0, node: 0 };

  /** A plan for a shortlist is the plan for all, if it leaves nothing; and then so does the one for all. */
  function compare(whole: Plan, shortlist: Shortlist | undefined, kind: keyof typeof counted): void {
    if (shortlist === undefined) return;
    const short = plan(shortlist.archives, shortlist.told);
    if (!hasNothingLeft(short)) return;
    counted[kind] += 1;
    expect(told(short)).toEqual(told(whole));
    // What pins use up is told of by the plans for scopes.
    expect(hasNothingLeft(kind === "node" ? { ...whole, pinnedLimits: [] } : whole)).toBe(true);
  }

  function carryOut({ deletions }: Plan, isWhole: boolean): void {
    for (const { archive } of isWhole ? deletions : deletions.slice(1)) index.remove(archive.file);
  }

  return {
    index,
    counted,
    losses,
    shortlists,
    scopesOf: (archives: Iterable<Archive>): Map<string, Scope> => {
      const scopes = new Map<string, Scope>();
      for (const { identity } of archives) {
        const [widest] = identity ? limitedScopes(inForce, identity) : [];
        if (widest !== undefined) scopes.set(keyOf(widest), widest);
      }
      return scopes;
    },
    /** Lets things happen; returns the archives to which something did. */
    change({ arrivals, changed, removed }: Omit<Change, "isCarriedOut" | "isEverywhere">): Archive[] {
      const touched: Archive[] = [];
      for (const archive of arrivals) {
        arrived += 1;
        const entry = { ...archive, file: `${archive.file}-${arrived}` } as Entry;
        index.put(entry);
        touched.push(entry);
      }
      for (const { at, how } of changed) {
        const all = [...index.all()];
        const entry = all[at % all.length];
        // What nobody owns stays so.
        if (entry?.identity === undefined) continue;
        Object.assign(entry, how);
        index.put(entry);
        touched.push(entry);
      }
      for (const at of removed) {
        const all = [...index.all()];
        const entry = all[at % all.length];
        if (entry !== undefined) index.remove(entry.file);
      }
      return touched;
    },
    planScope(scope: Scope, isCarriedOut: boolean): void {
      // Within a scope there may be others, planned for by themselves.
      const isOwn = ({ identity }: Entry) =>
        keyOf(limitedScopes(inForce, identity as never)[0] as Scope) === keyOf(scope);
      const whole = plan([...archivesOf(scope, { index, govern })].filter(isOwn));
      for (const _ of shortlists.prepare(scope));
      compare(whole, shortlists.of(scope), "scope");
      shortlists.begin([scope]);
      carryOut(whole, isCarriedOut);
      shortlists.end([scope], isCarriedOut && hasNothingLeft(whole));
    },
    planNode(isCarriedOut: boolean): void {
      const { maxTotalBytes } = document.node;
      const scopes = plan(index.all());
      const isQuiet = scopes.deletions.length === 0 && hasNothingLeft({ ...scopes, pinnedLimits: [] });
      const whole = plan(index.all(), { node: { disk: undefined } });
      if (maxTotalBytes !== undefined && index.countedBytes > maxTotalBytes && isQuiet) {
        for (const _ of shortlists.prepareNode());
        compare(whole, shortlists.ofNode(maxTotalBytes), "node");
      }
      carryOut(whole, isCarriedOut);
    },
  };
}

/** Runs through random histories; how many plans for shortlists were compared, of scopes and of the node. */
function compareAll(
  policies: fc.Arbitrary<PolicyDocument>,
  adapt: (archive: Archive) => Archive = (archive) => archive,
) {
  const counted = { scope: 0, node: 0 };
  fc.assert(
    fc.property(
      policies,
      arbArchives({ maxLength: 20 }),
      fc.array(arbChange, { minLength: 1, maxLength: 12 }),
      (policy, archives, changes) => {
        const node = aNode(policy);
        for (const change of [{ ...NO_CHANGE, arrivals: archives }, ...changes]) {
          const touched = node.change({ ...change, arrivals: change.arrivals.map(adapt) });
          const scopes = node.scopesOf(change.isEverywhere ? node.index.all() : touched);
          for (const scope of scopes.values()) node.planScope(scope, change.isCarriedOut);
          node.planNode(change.isCarriedOut);
        }
        counted.scope += node.counted.scope;
        counted.node += node.counted.node;
      },
    ),
    { numRuns: soak(1000) },
  );
  return counted;
}

describe("a plan for a shortlist is the plan for all", () => {
  it("of a scope, whatever its archives, the policy and what happened before", () => {
    // Else nothing would have been compared.
    expect(compareAll(arbPolicy({ hasNode: false })).scope).toBeGreaterThan(soak(200));
  });

  it("of the node, whose total size is limited", () => {
    const policies = fc
      .record({
        policy: arbPolicy({ hasNode: false }),
        maxTotalBytes: fc.integer({ min: 15, max: 60 }),
        isFree: fc.boolean(),
      })
      .map(({ policy, maxTotalBytes, isFree }) => {
        // Most limits of scopes would leave the node nothing to do.
        const { minCheckpoints, retainOrphan } = policy.global;
        const global = {
          level: "global" as const,
          retainOrphan,
          ...(minCheckpoints !== undefined && { minCheckpoints }),
        };
        return { ...policy, ...(isFree && { global, rules: [] }), node: { maxTotalBytes } };
      });
    // The newest of each container stays: of many containers nothing could go.
    const ofFewContainers = ({ identity, state, ...rest }: Archive): Archive => ({
      ...rest,
      identity: identity && { namespace: identity.namespace, pod: "web-24567", container: "main" },
      state: state === "incomplete" && rest.listed > 0 ? "complete" : state,
    });
    expect(compareAll(policies, ofFewContainers).node).toBeGreaterThan(soak(100));
  });
});
