import { describe, expect, it } from "vitest";
import { factsOf, nextMs } from "../../src/liveness/step.ts";
import { ACTIVE, aDrivenProver, GRACE_MS, nameOf, RESYNC_MS, TERMINATING } from "./driven.ts";

const MINUTE_MS = 60_000;
const many = (count: number, prefix = "n/gone") => Array.from({ length: count }, (_, index) => `${prefix}-${index}`);

/** A prover that knows all pods, and an agent that asks about an absent one since the grace was over. */
function aDueQuestion() {
  const prover = aDrivenProver();
  prover.synced();
  prover.pass(GRACE_MS);
  prover.ask(["n/gone"]);
  return prover;
}

describe("a pod whose name is another one's", () => {
  const uids = ["before", "now"];

  /** A prover that has seen `n/db-0` replaced by another pod of its name, and an agent that asks about both. */
  function aReplacedPod() {
    const prover = aDrivenProver();
    prover.synced();
    prover.added("n/db-0", "before");
    prover.ask(["n/db-0"], { uids: ["before"] });
    prover.pass(GRACE_MS);
    expect(prover.reads()).toEqual([]);
    prover.deleted("n/db-0", "before");
    prover.added("n/db-0", "now");
    return prover;
  }

  it("is proved to be gone by a read of the other, when that has had the name for the grace period", () => {
    const prover = aReplacedPod();
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    prover.ask(["n/db-0"], { uids });
    expect(prover.findPod([])).toEqual(["n/db-0"]);
    expect(factsOf(prover.state, "agent")).toMatchObject([{ namespace: "n", pod: "db-0", uid: "before", report: 2 }]);
    expect(prover.reads()).toEqual([]);
  });

  it("is not proved by a read that finds yet another pod, nothing, or no answer", () => {
    const prover = aReplacedPod();
    for (const answer of [
      { found: "pod" as const, uid: "before", containers: [] },
      { found: "nothing" as const },
      { found: "unknown" as const },
    ]) {
      prover.pass(GRACE_MS);
      prover.ask(["n/db-0"], { uids });
      const [read] = prover.reads();
      prover.answer(read, answer);
      expect(prover.facts()).toEqual([]);
    }
  });

  it("has its grace anew with each pod that takes the name, and its proof is withdrawn then", () => {
    const prover = aReplacedPod();
    prover.pass(GRACE_MS);
    prover.ask(["n/db-0"], { uids });
    prover.findPod([]);
    expect(prover.facts()).toEqual(["db-0//before"]);
    prover.deleted("n/db-0", "now");
    prover.added("n/db-0", "third");
    expect(prover.facts()).toEqual([]);
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    prover.ask(["n/db-0"], { uids });
    prover.findPod([]);
    expect(prover.facts()).toEqual(["db-0//before", "db-0//now"]);
  });

  it("counts from when all pods were listed, where the other was there by then", () => {
    const prover = aDrivenProver();
    prover.pass(MINUTE_MS);
    prover.synced("n/db-0");
    prover.ask(["n/db-0"], { uids: ["before"] });
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    prover.findPod([]);
    expect(prover.facts()).toEqual(["db-0//before"]);
  });

  it("is not asked about any more: its proof is withdrawn", () => {
    const prover = aReplacedPod();
    prover.pass(GRACE_MS);
    prover.ask(["n/db-0"], { uids });
    prover.findPod([]);
    prover.ask(["n/db-0"], { uids: ["now"] });
    expect(prover.facts()).toEqual([]);
  });

  it("is held back where most pods of a node seem to be replaced at once", () => {
    const prover = aDrivenProver();
    const pods = many(12, "n/db");
    prover.synced(...pods);
    prover.pass(GRACE_MS);
    prover.ask(pods, { uids: ["before"] });
    for (const key of prover.findPod([])) expect(pods).toContain(key);
    expect(prover.facts()).toEqual([]);
    expect(prover.held().count).toBe(12);
    for (let ms = 0; ms <= RESYNC_MS; ms += MINUTE_MS) {
      prover.ask(pods, { uids: ["before"] });
      prover.findPod([]);
      prover.pass(MINUTE_MS);
    }
    prover.ask(pods, { uids: ["before"] });
    prover.findPod([]);
    expect(prover.facts()).toHaveLength(12);
  });
});

describe("a pod that is gone", () => {
  it("is read when it has been absent for the grace period, and is then proved", () => {
    const prover = aDrivenProver();
    prover.synced("n/gone");
    prover.ask(["n/gone"]);
    prover.deleted("n/gone");
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    expect(nextMs(prover.state)).toBe(GRACE_MS);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    const provedAt = new Date(1_800_000_000_000 + GRACE_MS).toISOString();
    const fact = { bootId: "boot", report: 1, namespace: "n", pod: "gone", provedAt, graceMs: GRACE_MS };
    expect(factsOf(prover.state, "agent")).toEqual([fact]);
    expect(prover.reads()).toEqual([]);
  });

  it("has been absent since the watch knew all pods, if that did not list it", () => {
    const prover = aDrivenProver();
    prover.pass(MINUTE_MS);
    prover.ask(["n/gone"]);
    prover.synced("n/other");
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(prover.facts()).toEqual(["gone"]);
  });

  it("is proved for every agent that asked before the read was sent, each with its own report", () => {
    const prover = aDueQuestion();
    prover.ask(["n/gone"], { agent: "second", node: "other", number: 7 });
    const [read] = prover.reads();
    prover.ask(["n/gone"], { agent: "late" });
    prover.answer(read, { found: "nothing" });
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 1 }]);
    expect(factsOf(prover.state, "second")).toMatchObject([{ report: 7 }]);
    expect(factsOf(prover.state, "late")).toEqual([]);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(factsOf(prover.state, "late")).toMatchObject([{ report: 1 }]);
  });

  it("is not proved for an agent whose own grace was not over when the read was sent", () => {
    const prover = aDueQuestion();
    prover.ask(["n/gone"], { agent: "second", graceMs: GRACE_MS + 1000 });
    prover.findNothing();
    expect([prover.facts(), prover.facts("second")]).toEqual([["gone"], []]);
    prover.pass(1000);
    prover.findNothing();
    expect(prover.facts("second")).toEqual(["gone"]);
  });

  it("is not read for a report that is a minute old, and an answer to one proves nothing", () => {
    const prover = aDueQuestion();
    prover.pass(MINUTE_MS - 1);
    const [read] = prover.reads();
    prover.pass(1);
    prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
    prover.pass(MINUTE_MS);
    expect(prover.reads()).toEqual([]);
    prover.ask(["n/gone"]);
    expect(prover.findNothing()).toEqual(["n/gone"]);
  });

  it("rests after an answer that told nothing also for an agent that asked while the read was on its way", () => {
    const prover = aDrivenProver();
    prover.synced();
    prover.ask(["n/gone"]);
    prover.pass(GRACE_MS);
    const read = prover.read();
    prover.ask(["n/gone"], { agent: "second", node: "other" });
    prover.answer(read, { found: "unknown" });
    expect(prover.read()).toBeUndefined();
    prover.pass(2000);
    expect(prover.read()).toBeDefined();
  });

  it("is not proved if the latest report does not ask about it any more, unless that left scopes out", () => {
    for (const [omitted, expected] of [
      [0, []],
      [1, ["gone"]],
    ] as const) {
      const prover = aDrivenProver();
      prover.synced();
      prover.ask(["n/gone"]);
      prover.pass(GRACE_MS);
      const read = prover.read();
      prover.ask([], { omitted });
      prover.answer(read, { found: "nothing" });
      expect(prover.facts()).toEqual(expected);
    }
  });

  it("is read again after an answer that told nothing, when that has rested", () => {
    const prover = aDueQuestion();
    prover.answer(prover.read(), { found: "unknown" });
    expect(prover.facts()).toEqual([]);
    prover.pass(1999);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    prover.answer(prover.read(), { found: "unknown", retryAfterMs: 5000 });
    prover.pass(4999);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    prover.answer(prover.read(), { found: "unknown", retryAfterMs: 1e9 });
    prover.ask(["n/gone"]);
    prover.pass(MINUTE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.ask(["n/gone"]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(prover.facts()).toEqual(["gone"]);
  });

  it("begins its grace anew when a read finds it, though the watch does not list it", () => {
    const prover = aDueQuestion();
    prover.pass(1000);
    prover.answer(prover.read(), { found: "pod", uid: "back", containers: ["main"] });
    prover.pass(GRACE_MS - 1);
    prover.ask(["n/gone"]);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(prover.facts()).toEqual(["gone"]);
  });

  it("begins its grace anew when it came and went, and what was read before proves nothing", () => {
    const prover = aDueQuestion();
    const [read] = prover.reads();
    prover.added("n/gone");
    prover.deleted("n/gone");
    prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
  });

  it("that came and went in one moment is not proved by a read of before, even without a grace period", () => {
    const prover = aDrivenProver();
    prover.synced(...many(50, "n/lives"));
    prover.ask(["m/gone", ...many(22), ...many(50, "n/lives")], { graceMs: 0 });
    const reads = prover.reads();
    expect(reads.map(nameOf)).toEqual(["m/gone", "n"]);
    for (const pod of ["m/gone", "n/gone-5"]) {
      prover.added(pod);
      prover.deleted(pod);
    }
    prover.answer(reads[0], { found: "nothing" });
    prover.answer(reads[1], { found: "list", pods: new Set() });
    expect(prover.facts()).toHaveLength(21);
    expect(prover.facts()).not.toContain("gone");
    expect(prover.facts()).not.toContain("gone-5");
  });

  it("that a read finds is gone for nobody any more, though the watch does not list it", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.ask(["n/gone"], { agent: "second", node: "other" });
    prover.answer(prover.read(), { found: "pod", uid: "back", containers: [] });
    expect([prover.facts(), prover.facts("second")]).toEqual([[], []]);
    expect(prover.state.changes.facts.get("agent")).toEqual({ isWithdrawn: true });
  });

  it("is forgotten when it is there again", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.added("n/gone");
    expect(prover.facts()).toEqual([]);
    expect(prover.state.changes.facts.get("agent")).toEqual({ isWithdrawn: true });
    expect(prover.reads().map(nameOf)).toEqual([]);
  });

  it("that was deleted long ago keeps the moment as long as the longest grace period needs it", () => {
    const prover = aDrivenProver();
    const hourMs = 60 * MINUTE_MS;
    prover.synced("n/gone");
    prover.pass(10 * hourMs);
    prover.deleted("n/gone");
    const graceMs = 2 * hourMs;
    prover.ask(["n/gone"], { graceMs });
    prover.pass(graceMs - 1);
    prover.ask(["n/gone"], { graceMs });
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone"]);
  });

  it("whose deletion is forgotten counts from the last deletion that is", () => {
    const prover = aDrivenProver();
    const hourMs = 60 * MINUTE_MS;
    prover.synced("n/first", "n/second");
    prover.deleted("n/first");
    prover.pass(hourMs);
    prover.deleted("n/second");
    prover.pass(hourMs + 1);
    prover.ask(["n/first"], { graceMs: 2 * hourMs });
    expect(prover.reads()).toEqual([]);
    expect(nextMs(prover.state)).toBe(3 * hourMs);
  });
});

describe("a watch", () => {
  it("that is lost makes all void: facts, holds, moments of deletion, and reads on their way", () => {
    const prover = aDrivenProver();
    prover.synced("n/gone", "n/second");
    prover.deleted("n/gone");
    prover.pass(GRACE_MS);
    prover.ask(["n/gone"]);
    prover.findNothing();
    prover.deleted("n/second");
    prover.ask(["n/gone", "n/second"]);
    prover.pass(GRACE_MS);
    const reads = prover.reads();
    expect(reads).toHaveLength(1);
    prover.lost();
    expect(prover.facts()).toEqual([]);
    expect(prover.reads()).toEqual([]);
    prover.synced();
    for (const read of reads) prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
    prover.pass(GRACE_MS - 1);
    prover.ask(["n/gone", "n/second"]);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toEqual(["n/gone", "n/second"]);
  });

  it("that lists all pods anew, though it did not say that it was lost, makes all void too", () => {
    const prover = aDueQuestion();
    prover.ask(["n/second"], { agent: "second" });
    const reads = prover.reads();
    prover.answer(reads[0], { found: "nothing" });
    prover.synced();
    prover.answer(reads[1], { found: "nothing" });
    expect([prover.facts(), prover.facts("second"), prover.reads()]).toEqual([[], [], []]);
    expect(prover.state.changes.held.size).toBe(0);
  });

  it("that was lost takes the absence of a container for seen no more", () => {
    const prover = aDrivenProver();
    prover.synced("n/pod");
    prover.ask(["n/pod"], { containers: ["debug"] });
    prover.findPod(["main"]);
    prover.lost();
    prover.synced("n/pod");
    prover.pass(GRACE_MS);
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual([]);
  });

  it("that knows nothing yet answers nothing", () => {
    const prover = aDrivenProver();
    prover.added("n/pod");
    prover.ask(["n/gone"]);
    prover.pass(MINUTE_MS - 1);
    expect(prover.reads()).toEqual([]);
  });
});

describe("a container of a living pod", () => {
  function aLivingPod() {
    const prover = aDrivenProver();
    prover.synced("n/pod");
    prover.ask(["n/pod"], { containers: ["main", "debug"] });
    return prover;
  }

  it("is proved to be missing by a second read, when it was missing for the grace period since the first", () => {
    const prover = aLivingPod();
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.reads()).toEqual([]);
    prover.pass(GRACE_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.pass(1);
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual(["pod/debug"]);
  });

  it("that was added since the first read is there, by the second", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    expect(prover.findPod(["main", "debug"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual([]);
    prover.pass(GRACE_MS);
    prover.ask(["n/pod"], { containers: ["main", "debug"] });
    expect(prover.reads()).toEqual([]);
  });

  it("is not proved by an earlier read when the one for this question fails", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.answer(prover.read(), { found: "unknown" });
    expect(prover.facts()).toEqual([]);
    prover.pass(2000);
    expect(prover.findPod(["main", "debug"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual([]);
  });

  it.each([
    ["another pod of that name", { found: "pod", uid: "another", containers: ["main"] }],
    ["no such pod", { found: "nothing" }],
  ] as const)("is not proved by an answer about %s", (_what, answer) => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.answer(prover.read(), answer);
    expect(prover.facts()).toEqual([]);
    expect(prover.reads()).toEqual([]);
    prover.pass(2000);
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual(["pod/debug"]);
  });

  it("that was there once is there for as long as the pod, and asked about anew in the next one of that name", () => {
    const prover = aLivingPod();
    expect(prover.findPod(["main", "debug"])).toEqual(["n/pod"]);
    prover.lost();
    prover.synced("n/pod");
    prover.modified("n/pod");
    prover.ask(["n/pod"], { containers: ["main", "debug"] });
    expect(prover.reads()).toEqual([]);
    prover.modified("n/pod", "the next");
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual([]);
  });

  it("is not proved by a read that another pod of that name has overtaken", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    const read = prover.read();
    prover.deleted("n/pod");
    prover.added("n/pod", "the next");
    expect(prover.reads().map(nameOf)).toEqual(["n/pod"]);
    prover.answer(read, { found: "pod", uid: "uid of n/pod", containers: ["main"] });
    expect(prover.facts()).toEqual([]);
  });

  it("is no longer told of when its pod is another, or gone", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.findPod(["main"]);
    expect(prover.facts()).toEqual(["pod/debug"]);
    prover.deleted("n/pod");
    expect(prover.facts()).toEqual([]);
  });

  it("is remembered to be missing over the reports that do not ask about it", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.ask(["n/other"], { omitted: 1 });
    prover.pass(GRACE_MS);
    prover.ask(["n/pod"], { containers: ["debug"], omitted: 1 });
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual(["pod/debug"]);
  });

  it("is proved to be missing for one node, however many made-up ones another node asks about", () => {
    const prover = aDrivenProver();
    prover.synced("n/pod");
    for (const round of ["a", "b", "c"]) {
      prover.ask(["n/pod"], {
        agent: "evil",
        node: "evil",
        containers: many(100, round).map((name) => name.replace("/", "-")),
      });
      prover.findPod(["main"]);
    }
    prover.ask(["n/pod"], { containers: ["main", "debug"] });
    prover.findPod(["main"]);
    expect(prover.reads()).toEqual([]);
    prover.pass(GRACE_MS);
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts()).toEqual(["pod/debug"]);
    expect(prover.reads()).toEqual([]);
  });

  it("is missing since the first read of its pod, whoever asked then", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.ask(["n/pod"], { agent: "second", node: "other", containers: ["removed"] });
    expect(prover.findPod(["main"])).toEqual(["n/pod"]);
    expect(prover.facts("second")).toEqual(["pod/removed"]);
  });

  it("that a read for another node finds is missing for nobody any more", () => {
    const prover = aLivingPod();
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.ask(["n/pod"], { agent: "second", node: "other", containers: ["removed"] });
    prover.answer(prover.read(), { found: "pod", uid: "uid of n/pod", containers: ["main"] });
    expect([prover.facts(), prover.facts("second")]).toEqual([["pod/debug"], ["pod/removed"]]);
    prover.ask(["n/pod"], { agent: "third", node: "third", containers: ["other"] });
    prover.findPod(["main", "debug"]);
    expect([prover.facts(), prover.facts("second"), prover.facts("third")]).toEqual([
      [],
      ["pod/removed"],
      ["pod/other"],
    ]);
  });
});

describe("the policy of a node", () => {
  it("that is unknown answers no question, withdraws what was proved, and ends reads on their way", () => {
    const prover = aDueQuestion();
    prover.ask(["n/second"], { agent: "second" });
    prover.findNothing();
    expect([prover.facts(), prover.facts("second")]).toEqual([["gone"], ["second"]]);
    prover.grace(undefined);
    expect([prover.facts(), prover.facts("second")]).toEqual([[], ["second"]]);
    prover.pass(MINUTE_MS / 4);
    expect(prover.reads()).toEqual([]);
    prover.grace(GRACE_MS);
    const read = prover.read();
    prover.grace(undefined);
    prover.grace(GRACE_MS);
    prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(prover.facts()).toEqual(["gone"]);
  });

  it("that gives a longer grace withdraws what was proved under a shorter one, and a shorter one does not", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.grace(GRACE_MS - 1);
    expect(prover.facts()).toEqual(["gone"]);
    prover.grace(GRACE_MS + 1000);
    expect(prover.facts()).toEqual([]);
    expect(prover.reads()).toEqual([]);
    prover.pass(1000);
    expect(prover.findNothing()).toEqual(["n/gone"]);
  });

  it("that comes to give a longer grace while the read is on its way needs another read", () => {
    const prover = aDueQuestion();
    const read = prover.read();
    prover.grace(GRACE_MS + 1000);
    prover.pass(5000);
    prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(prover.facts()).toEqual(["gone"]);
  });
});

describe("an agent", () => {
  it("of protocol 2 learns when a fact was sent for and under which grace", () => {
    const prover = aDueQuestion();
    const read = prover.read();
    prover.pass(3000);
    prover.answer(read, { found: "nothing" });
    const provedAt = new Date(1_800_000_000_000 + GRACE_MS).toISOString();
    expect(factsOf(prover.state, "agent")).toMatchObject([{ provedAt, graceMs: GRACE_MS }]);
  });

  it.each([
    ["names protocol 1", 1],
    ["names none", undefined],
  ])(
    "that %s is answered nothing: it may ask about static pods, and cannot be told that a proof is void",
    (_, protocol) => {
      const prover = aDrivenProver();
      prover.synced("n/pod");
      prover.pass(GRACE_MS);
      prover.ask(["n/gone", "n/pod"], { agent: "older", containers: ["debug"], protocol });
      expect(prover.reads()).toEqual([]);
      expect(nextMs(prover.state)).toBe(Number.POSITIVE_INFINITY);
      prover.ask(["n/gone"]);
      expect(prover.findNothing()).toEqual(["n/gone"]);
      expect([prover.facts(), prover.facts("older")]).toEqual([["gone"], []]);
      prover.ask(["n/gone"], { bootId: "downgraded", number: 1, protocol });
      expect([prover.facts(), prover.reads()]).toEqual([[], []]);
    },
  );

  it("that asks again is answered anew when the last answer is ten seconds old, and has that one until then", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.pass(9999);
    prover.ask(["n/gone"]);
    expect(prover.reads()).toEqual([]);
    prover.state.changes.facts.clear();
    prover.pass(1);
    prover.ask(["n/gone"]);
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 1 }]);
    prover.answer(prover.read(), { found: "unknown" });
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 1 }]);
    prover.pass(2000);
    prover.findNothing();
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 3 }]);
    expect(prover.state.changes.facts.get("agent")).toEqual({ isWithdrawn: false });
  });

  it("costs, if one of a thousand questions comes due, no look at the others", () => {
    const prover = aDrivenProver();
    prover.synced(...many(1000, "n/lives"));
    prover.ask(many(1000, "n/lives"));
    for (const key of many(20, "n/lives")) {
      prover.deleted(key);
      prover.pass(100);
    }
    prover.pass(GRACE_MS - 2000 - 1);
    let looks = 0;
    const { uidOf } = prover.state.pods;
    prover.state.pods.uidOf = (...names) => {
      looks += 1;
      return uidOf(...names);
    };
    prover.pass(1);
    expect(looks).toBe(1);
    expect(nextMs(prover.state)).toBe(prover.now() + 100);
    for (let more = 1; more < 20; more += 1) prover.pass(100);
    expect(looks).toBe(20);
    expect(prover.reads()).toHaveLength(20);
  });

  it("no longer has a fact about a container that it does not ask about any more", () => {
    const prover = aDrivenProver();
    prover.synced("n/pod");
    prover.ask(["n/pod"], { containers: ["debug", "old"] });
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.findPod(["main"]);
    expect(prover.facts()).toEqual(["pod/debug", "pod/old"]);
    prover.ask(["n/pod"], { containers: ["old"] });
    expect(prover.facts()).toEqual(["pod/old"]);
  });

  it("that does not ask any more is told no more, unless its report left scopes out", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.ask(["n/other"], { omitted: 1 });
    expect(prover.facts()).toEqual(["gone"]);
    prover.ask(["n/other"]);
    expect(prover.facts()).toEqual([]);
  });

  it("that started anew is told nothing of what the one before asked", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.ask(["n/gone"], { bootId: "second", number: 1 });
    expect(prover.facts()).toEqual([]);
    const read = prover.read();
    prover.ask(["n/gone"], { bootId: "third", number: 1 });
    prover.answer(read, { found: "nothing" });
    expect(prover.facts()).toEqual([]);
  });

  it("whose reports come out of order keeps the newest", () => {
    const prover = aDueQuestion();
    prover.ask(["n/gone"], { number: 5 });
    prover.ask(["n/other"], { number: 4 });
    prover.ask(["n/other"], { number: 5 });
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 5 }]);
  });

  it("is told a fact for a minute after the report that asked, and then the question is open again", () => {
    const prover = aDueQuestion();
    prover.pass(20_000);
    prover.findNothing();
    prover.pass(5000);
    prover.ask(["n/gone"]);
    expect(nextMs(prover.state)).toBe(GRACE_MS + MINUTE_MS);
    prover.pass(34_999);
    expect(prover.facts()).toEqual(["gone"]);
    prover.pass(1);
    expect(prover.facts()).toEqual([]);
    expect(prover.findNothing()).toEqual(["n/gone"]);
    expect(factsOf(prover.state, "agent")).toMatchObject([{ report: 2 }]);
  });

  it.each([
    ["../pods?watch=true&x=", "pod", "main"],
    ["n", "..", "main"],
    ["n", "a_b", "main"],
    ["n", "UPPER", "main"],
    ["n.m", "pod", "main"],
    ["n", "pod", "a.b"],
    ["", "pod", "main"],
    ["n", "", "main"],
    ["n", "pod", ""],
    ["n", "p".repeat(254), "main"],
    ["n".repeat(64), "pod", "main"],
    ["n\n", "pod", "main"],
    ["n", "pod.", "main"],
  ])("is not answered about what no pod can be called (%j, %j, %j)", (namespace, pod, container) => {
    const prover = aDrivenProver();
    prover.synced();
    prover.pass(GRACE_MS);
    prover.ask([`${namespace}/${pod}`], { containers: [container] });
    // A name with a slash is split otherwise by the driver, and is none all the same.
    expect(prover.reads()).toEqual([]);
  });

  it("is answered about the longest names that there are", () => {
    const prover = aDrivenProver();
    prover.synced();
    prover.pass(GRACE_MS);
    const pod = `${"p".repeat(200)}.${"q".repeat(52)}`;
    prover.ask([`${"n".repeat(63)}/${pod}`], { containers: ["c".repeat(63)] });
    expect(prover.findNothing()).toHaveLength(1);
  });

  it("gets a thousand facts at most, and the others when those have lapsed", () => {
    const prover = aDrivenProver();
    prover.synced(...many(3000, "n/lives"));
    prover.pass(GRACE_MS);
    const asked = many(1001);
    prover.ask([...asked, ...many(3000, "n/lives")]);
    expect(prover.findNothing()).toEqual(["n"]);
    expect(prover.facts()).toHaveLength(1000);
    expect(prover.reads()).toEqual([]);
    prover.pass(MINUTE_MS / 2);
    prover.ask(asked.slice(999));
    expect(prover.findNothing()).toEqual(["n/gone-999", "n/gone-1000"]);
  });
});

describe("reads", () => {
  it("are of one namespace at once if over twenty of its pods seem to be gone", () => {
    const prover = aDrivenProver();
    prover.synced(...many(100, "n/lives"));
    prover.pass(GRACE_MS);
    prover.ask([...many(20), ...many(100, "n/lives")]);
    expect(prover.findNothing().sort()).toEqual(many(20).sort());
    prover.ask([...many(9), "m/gone"], { agent: "a", node: "a" });
    prover.ask([...many(24).slice(3)], { agent: "b", node: "b" });
    const reads = prover.reads();
    expect(reads.map(nameOf)).toEqual(["n", "m/gone"]);
    prover.answer(reads[0], { found: "list", pods: new Set(["gone-3", "lives-1"]) });
    expect(prover.facts("a")).toEqual(
      many(9)
        .map((key) => key.slice(2))
        .filter((pod) => pod !== "gone-3"),
    );
  });

  it("of a namespace prove nothing of a pod that came and went during the read, nor of one that was not yet due", () => {
    const prover = aDrivenProver();
    prover.synced("n/late", ...many(100, "n/lives"));
    prover.pass(GRACE_MS - 1000);
    prover.deleted("n/late");
    prover.pass(1000);
    prover.ask([...many(25), "n/late", ...many(100, "n/lives")]);
    const [read] = prover.reads();
    prover.added("n/gone-7");
    prover.deleted("n/gone-7");
    prover.pass(GRACE_MS);
    prover.answer(read, { found: "list", pods: new Set() });
    expect(prover.facts().length).toBeGreaterThan(8);
    expect(prover.facts()).not.toContain("gone-7");
    expect(prover.facts()).not.toContain("late");
  });

  it("that fail to list a namespace answer nothing, for none of its pods", () => {
    const prover = aDrivenProver();
    prover.synced();
    prover.pass(GRACE_MS);
    prover.ask(many(25));
    prover.answer(prover.read(), { found: "unknown" });
    expect([prover.facts(), prover.held().count, prover.reads()]).toEqual([[], 0, []]);
    prover.pass(2000);
    expect(prover.findNothing()).toEqual(["n"]);
  });

  it("go to each node in turn, and half of them to living pods", () => {
    const prover = aDrivenProver();
    const one = (namespace: string) => many(18, `${namespace}/gone`);
    prover.synced(...many(30, "n/lives"));
    prover.pass(GRACE_MS);
    prover.ask([...one("a"), ...one("b"), ...many(30, "n/lives")], { agent: "a", node: "a", containers: ["main"] });
    prover.ask(one("c"), { agent: "c", node: "c" });
    const reads = Array.from({ length: 12 }, () =>
      nameOf(prover.read() as NonNullable<ReturnType<typeof prover.read>>),
    );
    expect(reads.filter((name) => name.startsWith("n/"))).toHaveLength(6);
    expect(reads.filter((name) => name.startsWith("c/")).length).toBeGreaterThanOrEqual(5);
  });
});

describe("proofs for most of a node whose pods went with their namespace", () => {
  /** The pods of a node are gone, all read, and the read of their namespace is on its way. */
  function aSuspectNamespace(pods = many(11)) {
    const prover = aDrivenProver();
    prover.synced("n/lives");
    prover.pass(GRACE_MS);
    prover.ask([...pods, "n/lives"]);
    const reads: Array<ReturnType<typeof prover.read>> = [];
    let namespace: ReturnType<typeof prover.read>;
    for (let read = prover.read(); read !== undefined; read = prover.read()) {
      if (read.of === "namespace") namespace = read;
      else if (read.of === "pods") prover.answer(read, { found: "list", pods: new Set() });
      else if (read.uid === undefined) prover.answer(read, { found: "nothing" });
      else reads.push(read);
    }
    expect(namespace).toMatchObject({ of: "namespace", namespace: "n", pod: undefined });
    expect([prover.facts(), prover.held().count, prover.reads()]).toEqual([[], 0, []]);
    return { prover, namespace };
  }

  it.each([
    ["is gone", { found: "nothing" } as const],
    ["is being deleted", TERMINATING],
  ])("are made anew at once, and nothing is told of a hold, when it %s", (_, answer) => {
    for (const pods of [many(11), many(30)]) {
      const { prover, namespace } = aSuspectNamespace(pods);
      prover.answer(namespace, answer);
      expect(prover.facts()).toEqual([]);
      expect(prover.findNothing()).toHaveLength(pods.length === 11 ? 11 : 1);
      expect(prover.facts()).toHaveLength(pods.length);
      expect(prover.held().count).toBe(0);
      for (const told of prover.state.changes.held.values()) expect(told).toEqual({ held: 0, released: 0 });
    }
  });

  it.each([
    ["is there", ACTIVE],
    ["cannot be read", { found: "unknown" } as const],
  ])("are held for a whole resync, and told of, when it %s", (_, answer) => {
    const { prover, namespace } = aSuspectNamespace();
    prover.answer(namespace, answer);
    expect(prover.held().count).toBe(11);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 11, released: 0 });
    prover.pass(RESYNC_MS - 1);
    prover.ask(many(11));
    expect(prover.findNothing()).toEqual([]);
    prover.pass(1);
    expect(prover.findNothing()).toHaveLength(11);
    expect(prover.facts()).toHaveLength(11);
  });

  it("need a read of each pod after that of the namespace", () => {
    const { prover, namespace } = aSuspectNamespace();
    prover.answer(namespace, { found: "nothing" });
    const reads = prover.reads();
    expect(reads).toHaveLength(11);
    for (const [at, read] of reads.entries()) {
      prover.answer(read, at === 0 ? { found: "unknown" } : { found: "pod", uid: "back", containers: [] });
    }
    expect(prover.facts()).toEqual([]);
  });

  it.each([
    ["gone", { found: "nothing" } as const],
    ["there", ACTIVE],
  ])("need a read of the namespace that was sent after they were held, and none before finds it %s", (_, answer) => {
    const { prover, namespace } = aSuspectNamespace();
    prover.pass(1000);
    prover.ask(many(12, "n/later"), { agent: "second", node: "other" });
    for (let read = prover.read(); read !== undefined; read = prover.read()) {
      if (read.uid === undefined) prover.answer(read, { found: "nothing" });
    }
    prover.answer(namespace, answer);
    expect(prover.held("other").count).toBe(0);
    const again = prover.read();
    if (answer === ACTIVE) expect(prover.held().count).toBe(11);
    const reads = [again, ...prover.reads()];
    const asked = reads.find((read) => read?.of === "namespace");
    expect(asked).toMatchObject({ namespace: "n", sentAtMs: prover.now() });
    for (const read of reads) if (read?.of === "pod") prover.answer(read, { found: "nothing" });
    expect(prover.facts("second")).toEqual([]);
    prover.answer(asked, { found: "nothing" });
    prover.findNothing();
    expect(prover.facts("second")).toHaveLength(12);
  });

  it("are not helped by a read of a namespace that a lost watch has overtaken", () => {
    const { prover, namespace } = aSuspectNamespace();
    prover.lost();
    prover.synced();
    prover.answer(namespace, { found: "nothing" });
    prover.pass(GRACE_MS);
    prover.ask(many(11));
    prover.findNothing();
    expect([prover.facts(), prover.held().count]).toEqual([[], 11]);
  });

  it("make nothing of another namespace suspicious, nor go for it", () => {
    const prover = aDrivenProver();
    prover.synced();
    prover.pass(GRACE_MS);
    prover.namespaces.set("n", { found: "nothing" });
    prover.ask(many(12));
    for (let round = 0; round < 2; round += 1) prover.findNothing();
    expect(prover.facts()).toHaveLength(12);
    prover.ask(["m/one", "m/two"]);
    prover.findNothing();
    expect([prover.facts(), prover.held().count]).toEqual([["one", "two"], 0]);
    prover.ask(many(11, "m/gone"));
    for (let round = 0; round < 3; round += 1) prover.findNothing();
    expect([prover.facts(), prover.held().count]).toEqual([[], 11]);
  });

  it("are held again when a pod of that name was seen since", () => {
    const { prover, namespace } = aSuspectNamespace();
    prover.answer(namespace, { found: "nothing" });
    prover.findNothing();
    for (const pod of many(11)) prover.added(pod);
    for (const pod of many(11)) prover.deleted(pod);
    prover.pass(GRACE_MS);
    prover.ask(many(11));
    prover.findNothing();
    expect([prover.facts(), prover.held().count]).toEqual([[], 11]);
  });
});

describe("proofs for most of a node", () => {
  function aHold() {
    const prover = aDrivenProver();
    prover.synced("n/lives");
    prover.pass(GRACE_MS);
    prover.ask([...many(11), "n/lives"]);
    return prover;
  }
  /** Asks again, as agents do, so that a question is open after that time. */
  const passAsking = (prover: ReturnType<typeof aHold>, ms: number, options = {}) => {
    prover.pass(ms);
    prover.ask([...many(11), "n/lives"], options);
  };

  it("wait for a whole resync since they were held, and go when they are proved again after it", () => {
    const prover = aHold();
    prover.pass(20_000);
    expect(prover.findNothing()).toHaveLength(11);
    expect(prover.facts()).toEqual([]);
    expect(prover.held().count).toBe(11);
    expect(prover.held().pods.has("n/gone-3")).toBe(true);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 11, released: 0 });
    passAsking(prover, RESYNC_MS - 1);
    expect(prover.reads()).toEqual([]);
    prover.state.changes.held.clear();
    prover.pass(1);
    expect(prover.findNothing()).toHaveLength(11);
    expect(prover.facts()).toHaveLength(11);
    expect(prover.held().count).toBe(0);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 0, released: 11 });
  });

  it("that are confirmed go at once when they are proved again, and what is held later waits as ever", () => {
    const prover = aHold();
    prover.pass(20_000);
    prover.findNothing();
    prover.confirm("elsewhere");
    expect([prover.reads(), prover.held().count]).toEqual([[], 11]);
    prover.confirm();
    // Confirmed is not proved: a read that finds a pod keeps its archives, and one that fails answers nothing.
    const reads = prover.reads();
    expect(reads).toHaveLength(11);
    for (const [at, read] of reads.entries()) {
      const found = { found: "pod", uid: "back", containers: [] } as const;
      prover.answer(read, at === 0 ? found : at === 1 ? { found: "unknown" } : { found: "nothing" });
    }
    expect(prover.facts()).toHaveLength(9);
    expect(prover.held().count).toBe(1);
    prover.confirm();
    passAsking(prover, RESYNC_MS);
    expect(prover.reads().map(nameOf)).toContain("n/gone-1");
  });

  it("are held for their own whole resync if they came later", () => {
    const prover = aHold();
    prover.findNothing();
    prover.pass(10_000);
    prover.deleted("n/lives");
    passAsking(prover, GRACE_MS);
    expect(prover.findNothing()).toEqual(["n/lives"]);
    expect(prover.held().count).toBe(12);
    passAsking(prover, RESYNC_MS - GRACE_MS - 10_000);
    expect(prover.findNothing()).not.toContain("n/lives");
    passAsking(prover, GRACE_MS + 10_000);
    expect(prover.findNothing()).toContain("n/lives");
  });

  it("are held on though the agent restarts, has listed little yet, or is another pod of the node", () => {
    const prover = aHold();
    prover.findNothing();
    passAsking(prover, 1000);
    prover.pass(1000);
    prover.ask(many(3), { bootId: "second", number: 1 });
    expect(prover.findNothing()).toEqual([]);
    expect(prover.held().count).toBe(11);
    prover.ask(["n/new-pod"], { agent: "another", bootId: "third" });
    expect(prover.findNothing()).toEqual(["n/new-pod"]);
    expect(prover.facts("another")).toEqual([]);
    passAsking(prover, RESYNC_MS - 2001, { agent: "another", bootId: "third" });
    expect(prover.findNothing()).toEqual([]);
  });

  it("are held on though a second agent of the node, which has no policy yet, does not ask, and go in time", () => {
    const prover = aHold();
    prover.findNothing();
    for (let ms = 0; ms < RESYNC_MS; ms += 30_000) {
      prover.ask([], { agent: "second", bootId: "second" });
      passAsking(prover, 30_000);
    }
    expect(prover.findNothing()).toHaveLength(11);
    expect([prover.facts().length, prover.held().count]).toEqual([11, 0]);
  });

  it("go to both agents of a node that ask, by one read", () => {
    const prover = aHold();
    prover.ask([...many(11), "n/lives"], { agent: "second", bootId: "second" });
    prover.findNothing();
    passAsking(prover, RESYNC_MS);
    prover.ask([...many(11), "n/lives"], { agent: "second", bootId: "second" });
    expect(prover.findNothing()).toHaveLength(11);
    expect([prover.facts().length, prover.facts("second").length, prover.held().count]).toEqual([11, 11, 0]);
  });

  it("are not held again once they were released, though the agent cannot act and asks for an hour", () => {
    const prover = aHold();
    prover.findNothing();
    passAsking(prover, RESYNC_MS);
    prover.findNothing();
    for (let ms = 0; ms < 60 * MINUTE_MS; ms += 30_000) {
      passAsking(prover, 30_000);
      expect([prover.facts().length, prover.held().count]).toEqual([11, 0]);
      prover.findNothing();
      expect([prover.facts().length, prover.held().count]).toEqual([11, 0]);
    }
  });

  it("are held again for a pod that was seen since, or not asked about, or under a watch that was lost since", () => {
    const released = () => {
      const prover = aHold();
      prover.findNothing();
      passAsking(prover, RESYNC_MS);
      prover.findNothing();
      expect(prover.facts()).toHaveLength(11);
      return prover;
    };
    const back = released();
    back.added("n/gone-3");
    back.deleted("n/gone-3");
    passAsking(back, GRACE_MS);
    back.findNothing();
    expect([...back.held().pods]).toEqual(["n/gone-3"]);

    const found = released();
    passAsking(found, 10_000);
    const [read] = found.reads();
    found.answer(read, { found: "pod", uid: "back", containers: [] });
    passAsking(found, GRACE_MS);
    found.findNothing();
    expect([...found.held().pods]).toEqual(["n/gone-0"]);

    const unasked = released();
    unasked.ask([...many(10), "n/lives"]);
    passAsking(unasked, 1000);
    unasked.findNothing();
    expect([...unasked.held().pods]).toEqual(["n/gone-10"]);

    const lost = released();
    lost.lost();
    lost.synced("n/lives");
    passAsking(lost, GRACE_MS);
    lost.findNothing();
    expect([lost.held().count, lost.facts()]).toEqual([11, []]);
  });

  it("are withdrawn from every agent of the node when they come to be held", () => {
    const prover = aDrivenProver();
    prover.synced("n/lives");
    prover.pass(GRACE_MS);
    for (const agent of ["agent", "second"]) prover.ask(many(8), { agent });
    prover.findNothing();
    expect([prover.facts().length, prover.facts("second").length]).toEqual([8, 8]);
    prover.pass(10_000);
    prover.ask(many(11));
    prover.findNothing();
    expect([prover.facts(), prover.facts("second"), prover.held().count]).toEqual([[], [], 11]);
  });

  it("are ten thousand at most, and what exceeds that is neither let go nor read without end", () => {
    const prover = aDrivenProver();
    prover.synced();
    prover.pass(GRACE_MS);
    for (let round = 0; round < 11; round += 1) {
      prover.ask(many(1000, `n/gone-${round}`), { omitted: 1 });
      prover.findNothing();
    }
    expect([prover.held().count, prover.facts(), prover.reads()]).toEqual([10_000, [], []]);
  });

  it("end for a container that nobody asks about any more, though its pod is asked about", () => {
    const prover = aDrivenProver();
    prover.synced(...many(11, "n/lives"));
    prover.ask(many(11, "n/lives"), { containers: ["debug", "main"] });
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.findPod(["main"]);
    expect(prover.held().count).toBe(11);
    prover.ask(many(11, "n/lives"), { containers: ["main"] });
    expect(prover.held().count).toBe(0);
  });

  it("are dropped, and told of, when no agent of the node asks any more, though one did a minute ago and another node's does", () => {
    const prover = aHold();
    prover.findNothing();
    expect(prover.held().count).toBe(11);
    prover.ask(many(11), { agent: "silent" });
    prover.ask(["n/lives"]);
    expect(prover.held().count).toBe(11);
    prover.pass(60_000);
    prover.ask(many(11), { agent: "elsewhere", node: "other" });
    prover.state.changes.held.clear();
    prover.ask(["n/lives"]);
    expect(prover.held().count).toBe(0);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 0, released: 0 });
  });

  it("are dropped when the pod is back, when the watch is lost, or when nobody asks any more", () => {
    const prover = aHold();
    prover.findNothing();
    prover.state.changes.held.clear();
    prover.added("n/gone-3");
    expect(prover.held().count).toBe(10);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 0, released: 0 });
    prover.ask([...many(3), "n/lives"], { omitted: 1 });
    expect(prover.held().count).toBe(10);
    prover.ask([...many(3), "n/lives"]);
    expect(prover.held().count).toBe(3);
    prover.state.changes.held.clear();
    prover.lost();
    expect(prover.held().count).toBe(0);
    expect(prover.state.changes.held.get("node")).toEqual({ held: 0, released: 0 });
  });

  it("are over half of its pods, and over ten", () => {
    const prover = aDrivenProver();
    prover.synced(...many(12, "n/lives"));
    prover.pass(GRACE_MS);
    prover.ask([...many(11), ...many(11, "n/lives")]);
    prover.ask(many(10, "m/gone"), { agent: "b", node: "b" });
    prover.ask([...many(11, "o/gone"), ...many(10, "n/lives")], { agent: "c", node: "c" });
    prover.findNothing();
    expect([prover.facts().length, prover.facts("b").length, prover.facts("c").length]).toEqual([11, 10, 0]);
  });

  it("are compared with all pods that the node is known to have had, those that were proved before too", () => {
    const prover = aDrivenProver();
    const lives = many(20, "n/lives");
    prover.synced(...lives);
    prover.pass(GRACE_MS);
    prover.ask([...many(8), ...lives]);
    prover.findNothing();
    prover.ask([...many(5, "m/gone"), ...lives]);
    prover.findNothing();
    expect([prover.facts().length, prover.held().count]).toEqual([5, 0]);
  });

  it("are counted together over ten minutes, each pod once, and by container too", () => {
    const prover = aDrivenProver();
    prover.synced(...many(11, "n/lives"));
    prover.pass(GRACE_MS);
    prover.ask(many(8));
    prover.findNothing();
    expect(prover.facts()).toHaveLength(8);
    prover.pass(20_000);
    prover.ask(many(8));
    prover.findNothing();
    expect(prover.facts()).toHaveLength(8);
    prover.ask(many(3, "m/gone"));
    prover.findNothing();
    expect([prover.facts(), prover.held().count]).toEqual([[], 3]);
    prover.pass(10 * MINUTE_MS);
    prover.ask(many(3, "m/gone"));
    prover.ask(many(11, "n/lives"), { agent: "b", node: "b", containers: ["debug"] });
    prover.findPod(["main"]);
    prover.pass(GRACE_MS);
    prover.findPod(["main"]);
    expect([prover.facts("b"), prover.held("b").count]).toEqual([[], 11]);
  });

  it("stay held for as long as they cannot be proved again", () => {
    const prover = aHold();
    prover.findNothing();
    passAsking(prover, 3 * RESYNC_MS);
    for (const read of prover.reads()) prover.answer(read, { found: "unknown" });
    expect([prover.held().count, prover.facts()]).toEqual([11, []]);
  });

  it("no longer count when they are ten minutes old", () => {
    const prover = aDueQuestion();
    prover.findNothing();
    prover.pass(10 * MINUTE_MS - 1);
    expect(prover.state.nodes.size).toBe(1);
    prover.pass(1);
    expect(prover.state.nodes.size).toBe(0);
  });

  it("are forgotten when the node has had no agent for two resyncs", () => {
    const prover = aHold();
    prover.findNothing();
    prover.state.agents.delete("agent");
    prover.pass(2 * RESYNC_MS - 1);
    expect(prover.held().count).toBe(11);
    prover.pass(1);
    expect(prover.held().count).toBe(0);
    expect(prover.state.nodes.size).toBe(0);
  });

  it("that were released stay so over a change of the agent, and are forgotten without one for two resyncs", () => {
    const prover = aHold();
    prover.findNothing();
    passAsking(prover, RESYNC_MS);
    prover.findNothing();
    prover.state.agents.delete("agent");
    passAsking(prover, 5000, { agent: "next", bootId: "next" });
    prover.findNothing();
    expect([prover.facts("next").length, prover.held().count]).toEqual([11, 0]);
    prover.state.agents.delete("next");
    prover.pass(2 * RESYNC_MS);
    expect(prover.state.nodes.size).toBe(0);
  });
});
