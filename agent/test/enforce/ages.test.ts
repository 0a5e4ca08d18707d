import { createGovernor } from "@cro/shared/policy/govern";
import { describe, expect, it } from "vitest";
import { createAges, hasAges } from "../../src/enforce/ages.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { aClock } from "../support/driven.ts";
import { anAcceptedPolicy } from "../support/watching.ts";

const DAY_MS = 86_400_000;
const START_MS = 1_800_000_000_000;
const identity = (container: string) => ({ namespace: "n", pod: "p", container });

/** Ages under a policy of 10 days for main, 20 for side, and none for the rest. */
function someAges({ acceptedAtMs }: { acceptedAtMs?: number } = {}) {
  const index = createArchiveIndex<Entry>();
  const clock = aClock({ wallMs: START_MS });
  const trusted: { nowMs: number | undefined } = { nowMs: START_MS };
  const ages = createAges({ index, clock, time: { nowMs: () => trusted.nowMs } });
  const policies = [
    { ...identity("main"), maxAge: "10d" },
    { ...identity("side"), maxAge: "20d" },
  ];
  const accepted = anAcceptedPolicy({ containerPolicies: policies }, "/");
  const obey = () =>
    ages.setPolicy({
      ...accepted,
      ...(acceptedAtMs !== undefined && { acceptedAtTrustedMs: acceptedAtMs }),
      govern: createGovernor(accepted.document),
    });
  let files = 0;
  const put = (container: string | undefined, ageMs: number, { walked = true } = {}): Entry => {
    files += 1;
    const entry = {
      file: `${files}.tar`,
      identity: container === undefined ? undefined : identity(container),
      candidates: [],
      timeMs: START_MS - ageMs,
      walked,
    } as unknown as Entry;
    index.put(entry);
    ages.noticed(entry);
    return entry;
  };
  const reached = () => ages.reached().map(({ container }) => container);
  const pass = (ms: number) => {
    clock.pass(ms);
    if (trusted.nowMs !== undefined) trusted.nowMs += ms;
  };
  return { ages, put, obey, reached, pass, trusted, index };
}

describe("ages that are reached", () => {
  it("are told of once, a millisecond after the age, by each container's own policy", () => {
    const { put, obey, reached, pass } = someAges();
    obey();
    put("main", 10 * DAY_MS - 1000);
    put("side", 20 * DAY_MS - 3000);
    put("other", 1000 * DAY_MS);
    expect(reached()).toEqual([]);
    pass(1000);
    expect(reached()).toEqual([]);
    pass(1);
    expect(reached()).toEqual(["main"]);
    expect(reached()).toEqual([]);
    pass(2000);
    expect(reached()).toEqual(["side"]);
    pass(100 * DAY_MS);
    expect(reached()).toEqual([]);
  });

  it("are no news if they were reached before the policy was accepted, to the millisecond", () => {
    const acceptedAtMs = START_MS - 5000;
    const { put, obey, reached } = someAges({ acceptedAtMs });
    obey();
    put("main", 10 * DAY_MS + 5001);
    put("side", 20 * DAY_MS + 5001);
    expect(reached()).toEqual([]);
    const later = someAges({ acceptedAtMs });
    later.obey();
    later.put("side", 20 * DAY_MS + 5000);
    expect(later.reached()).toEqual(["side"]);
  });

  it("are told of for an archive that comes later with an age that was reached meanwhile", () => {
    const { put, obey, reached, pass } = someAges();
    obey();
    put("side", 0);
    expect(reached()).toEqual([]);
    pass(60_000);
    put("main", 10 * DAY_MS - 30_000);
    expect(reached()).toEqual(["main"]);
  });

  it("wait for a trusted time and a policy", () => {
    const { put, obey, reached, trusted, pass } = someAges();
    put("main", 10 * DAY_MS - 1);
    expect(reached()).toEqual([]);
    obey();
    expect(reached()).toEqual([]);
    trusted.nowMs = undefined;
    pass(1000);
    expect(reached()).toEqual([]);
    trusted.nowMs = START_MS + 1000;
    expect(reached()).toEqual(["main"]);
  });

  it("are not those that a jump of the trusted time passes over", () => {
    const { put, obey, reached, trusted, pass } = someAges();
    obey();
    put("main", 0);
    expect(reached()).toEqual([]);
    trusted.nowMs = START_MS + 400 * DAY_MS;
    pass(1000);
    expect(reached()).toEqual([]);
  });

  it("are looked for again in another directory, and while an archive has no known owner", () => {
    const { ages, put, obey, reached, pass, index } = someAges();
    obey();
    const unwalked = put(undefined, 10 * DAY_MS - 500, { walked: false });
    expect(reached()).toEqual([]);
    pass(1000);
    expect(reached()).toEqual([]);
    index.put(Object.assign(unwalked, { identity: identity("main"), walked: true }));
    expect(reached()).toEqual(["main"]);
    // Of one that nobody tells of, a new listing does.
    index.put({ ...unwalked, file: "late.tar", timeMs: START_MS - 10 * DAY_MS + 2000 });
    pass(3000);
    expect(reached()).toEqual([]);
    ages.restart();
    expect(reached()).toEqual(["main"]);
  });

  it("are asked for by any policy that has a maxAge, and by no other", () => {
    const document = (spec: object) => anAcceptedPolicy(spec, "/").document;
    expect(hasAges(document({}))).toBe(false);
    expect(hasAges(document({ globalPolicy: { maxAge: "1d" } }))).toBe(true);
    expect(hasAges(document({ namespacePolicies: [{ namespace: "a" }, { namespace: "b", maxAge: "1d" }] }))).toBe(true);
  });
});
