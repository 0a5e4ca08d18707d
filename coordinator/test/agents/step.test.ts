import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { AgentOutcome } from "../../src/agents/client.ts";
import {
  type AgentState,
  afterPush,
  afterReport,
  type DirectiveKey,
  desire,
  findNewer,
  isApplied,
  newAgentState,
  nextCall,
  suspectRestart,
} from "../../src/agents/step.ts";
import { aReport } from "../support/agent-peer.ts";

const timings = { resyncMs: 300_000, reportMs: 30_000, changeMs: 7000, minBackoffMs: 1000, maxBackoffMs: 60_000 };
const at = (nowMs: number, random = 0.5) => ({ nowMs, random: () => random, timings });
const key = (revision: number, { term = 1, digest = "d" } = {}): DirectiveKey => ({ term, revision, digest });
/** Of an agent that sends the whole report each time. */
const accepted = (accepted?: DirectiveKey, bootId = "boot-1", protocol = 1): AgentOutcome => ({
  outcome: "accepted",
  report: aReport({ bootId, protocol, ...(accepted && { accepted }) }),
});
/** Of one that tells whether anything has changed. */
const acceptedByNewer = (directive?: DirectiveKey, bootId = "boot-1") => accepted(directive, bootId, 2);
const unchanged: AgentOutcome = { outcome: "unchanged" };
const failed: AgentOutcome = { outcome: "failed", cause: new Error("down") };
const push = (state: AgentState, outcome: AgentOutcome, nowMs = 0) =>
  afterPush(state, { sent: state.desired as DirectiveKey, withDocument: state.documentWanted, outcome }, at(nowMs));
const wanting = (desired: DirectiveKey, nowMs = 0) => desire(newAgentState(nowMs), desired, nowMs);
const applied = (desired: DirectiveKey) => push(wanting(desired), accepted(desired));

describe("the steps of an agent", () => {
  it("pushes to a new agent at once, and asks for its report where there is nothing to push", () => {
    expect(nextCall(wanting(key(1), 5))).toEqual({ call: "push", atMs: 5 });
    expect(nextCall(newAgentState(5))).toEqual({ call: "report", atMs: 5 });
  });

  it("is content with an agent that has taken the directive, asks it every 30 s and tells it again every 5 minutes", () => {
    let state = applied(key(1));
    expect(isApplied(state)).toBe(true);
    expect(nextCall(state)).toEqual({ call: "report", atMs: 30_000 });
    let nowMs = 0;
    for (let next = nextCall(state); next.call === "report"; next = nextCall(state)) {
      nowMs = next.atMs;
      state = afterReport(state, accepted(key(1)), at(nowMs));
    }
    expect(nextCall(state)).toEqual({ call: "push", atMs: 300_000 });
  });

  it("asks an agent that tells of changes every 7 s, and takes for well what it says to be unchanged", () => {
    let state = push(wanting(key(1)), acceptedByNewer(key(1)));
    const { resyncAtMs } = state;
    for (let nowMs = 7000; nowMs < 70_000; nowMs += 7000) {
      expect(nextCall(state)).toEqual({ call: "report", atMs: nowMs });
      state = afterReport(state, unchanged, at(nowMs));
      expect([isApplied(state), state.silences]).toEqual([true, 0]);
    }
    expect(state.resyncAtMs).toBe(resyncAtMs);
    // An agent of 0.1.0 took its place.
    expect(nextCall(afterReport(state, accepted(key(1)), at(70_000))).atMs).toBe(100_000);
  });

  it("pushes at once to an agent that was silent and now says that nothing has changed", () => {
    let state = push(wanting(key(1)), acceptedByNewer(key(1)));
    state = afterReport(state, failed, at(7000));
    state = desire(state, key(2), 7500);
    state = afterReport(state, unchanged, at(8000));
    expect([state.silences, nextCall(state)]).toEqual([0, { call: "push", atMs: 8000 }]);
  });

  it("spreads reports and resyncs by a tenth around their time", () => {
    const soonest = afterPush(
      wanting(key(1)),
      { sent: key(1), withDocument: false, outcome: accepted(key(1)) },
      at(0, 0),
    );
    const latest = afterPush(
      wanting(key(1)),
      { sent: key(1), withDocument: false, outcome: accepted(key(1)) },
      at(0, 1),
    );
    expect([soonest.reportAtMs, soonest.resyncAtMs]).toEqual([27_000, 270_000]);
    expect([latest.reportAtMs, latest.resyncAtMs].map(Math.round)).toEqual([33_000, 330_000]);
  });

  it("sends the document at once where it was asked for, once, and only for that policy", () => {
    const asked = push(wanting(key(1)), { outcome: "documentNeeded" }, 7);
    expect(asked).toMatchObject({ documentWanted: true, refusals: 0, silences: 0 });
    expect(asked.pushAtMs).toBe(7);
    expect(push(asked, accepted(key(1))).documentWanted).toBe(false);
    expect(desire(asked, key(2), 7).documentWanted).toBe(true);
    expect(desire(asked, key(2, { digest: "e" }), 7).documentWanted).toBe(false);
    const sent = key(0, { digest: "c" });
    const late = afterPush(
      wanting(key(1)),
      { sent, withDocument: false, outcome: { outcome: "documentNeeded" } },
      at(7),
    );
    expect(late.documentWanted).toBe(false);
  });

  it("backs off from an agent that asks for the document that it was sent", () => {
    const asked = push(wanting(key(1)), { outcome: "documentNeeded" });
    const state = push(asked, { outcome: "documentNeeded" });
    expect(state.pushAtMs).toBeGreaterThanOrEqual(500);
    expect(nextCall(state)).toEqual({ call: "report", atMs: 0 });
  });

  it("backs off twice as long each time, up to the bound, with jitter, and forgets it at the first answer", () => {
    const waits = (call: (state: AgentState, random: number) => AgentState, next: (state: AgentState) => number) => {
      let state = wanting(key(1));
      const seen = Array.from({ length: 9 }, () => {
        state = call(state, 1);
        return next(state);
      });
      return [...seen, next(call(state, 0))];
    };
    const expected = [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000, 30_000];
    const pushed = (outcome: AgentOutcome) => (state: AgentState, random: number) =>
      afterPush(state, { sent: key(1), withDocument: true, outcome }, at(0, random));
    expect(waits(pushed(failed), ({ retryAtMs }) => retryAtMs)).toEqual(expected);
    expect(waits(pushed({ outcome: "documentNeeded" }), ({ pushAtMs }) => pushAtMs)).toEqual(expected);
    expect(
      waits(
        (state, random) => afterReport(state, failed, at(0, random)),
        ({ reportAtMs }) => reportAtMs,
      ),
    ).toEqual(expected);
    const forgotten = pushed(accepted(key(1)))(pushed(failed)(wanting(key(1)), 1), 1);
    expect(forgotten).toMatchObject({ refusals: 0, silences: 0 });
  });

  it("tries a failed resync and a failed report again after the backoff", () => {
    const due = { ...applied(key(1)), resyncAtMs: 100, reportAtMs: 2000 };
    const retried = push(due, failed, 100);
    expect(nextCall(retried)).toEqual({ call: "push", atMs: 850 });
    const asked = afterReport({ ...applied(key(1)), reportAtMs: 100 }, failed, at(100));
    expect(nextCall(asked)).toEqual({ call: "report", atMs: 850 });
  });

  it("does not hurry to an agent that does not answer when its policy changes, but does to one that refused", () => {
    const silent = push(wanting(key(1)), failed);
    expect(nextCall(desire(silent, key(2), 10)).atMs).toBe(750);
    const another = push(wanting(key(1)), { outcome: "misdirected", error: "" });
    expect(nextCall(desire(another, key(2), 10)).atMs).toBe(750);
    for (const refusal of [
      { outcome: "older", term: 5, revision: 1 },
      { outcome: "invalid", field: "/x", error: "" },
    ] satisfies AgentOutcome[]) {
      const refusing = { ...push(wanting(key(1)), refusal), reportAtMs: 1000 };
      expect(nextCall(desire(refusing, key(1, { term: 6 }), 10))).toEqual({ call: "push", atMs: 10 });
    }
  });

  it("pushes at once to an agent that started anew, or that has another directive than it said", () => {
    for (const report of [
      accepted(key(1), "boot-2"),
      accepted(undefined),
      accepted(key(2)),
      accepted(key(1, { digest: "e" })),
    ]) {
      const state = afterReport(applied(key(1)), report, at(50));
      expect(nextCall(state)).toEqual({ call: "push", atMs: 50 });
    }
    expect(nextCall(afterReport(applied(key(1)), accepted(key(1)), at(50))).call).toBe("report");
  });

  it("does not take a directive for applied that the report does not name", () => {
    for (const report of [accepted(undefined), accepted(key(0)), accepted(key(1, { digest: "e" }))]) {
      const state = push(wanting(key(1)), report);
      expect(isApplied(state)).toBe(false);
      expect(state).toMatchObject({ refusals: 1, silences: 0 });
    }
  });

  it("pushes the newest directive after an older one was taken", () => {
    const state = desire(wanting(key(1)), key(2), 0);
    const next = afterPush(state, { sent: key(1), withDocument: false, outcome: accepted(key(1)) }, at(0));
    expect(isApplied(next)).toBe(false);
    expect(nextCall(next)).toEqual({ call: "push", atMs: 0 });
  });

  it("goes on asking an agent for its report, however often it refuses its directive", () => {
    for (const refusal of [
      { outcome: "older", term: 5, revision: 1 },
      { outcome: "invalid", field: "/policy/document/node", error: "" },
      accepted(key(0)),
    ] satisfies AgentOutcome[]) {
      let state = wanting(key(1));
      let reports = 0;
      for (let nowMs = 0; nowMs < 300_000; ) {
        const next = nextCall(state);
        nowMs = Math.max(nowMs, next.atMs);
        if (next.call === "report") reports += 1;
        state = next.call === "push" ? push(state, refusal, nowMs) : afterReport(state, accepted(key(0)), at(nowMs));
        expect(state.silences).toBe(0);
      }
      // Each answer to a directive may hold one, too.
      if (refusal.outcome !== "accepted") expect(reports).toBeGreaterThanOrEqual(9);
      expect(reports).toBeLessThanOrEqual(11);
    }
  });

  it("goes on asking an agent whose directives never arrive, and pushing to one whose reports never come", () => {
    const calls = (answers: { push: AgentOutcome; report: AgentOutcome }) => {
      let state = wanting(key(1));
      const made = { push: 0, report: 0 };
      for (let nowMs = 0; nowMs < 300_000; ) {
        const next = nextCall(state);
        nowMs = Math.max(nowMs, next.atMs);
        made[next.call] += 1;
        state = next.call === "push" ? push(state, answers.push, nowMs) : afterReport(state, answers.report, at(nowMs));
      }
      return made;
    };
    expect(calls({ push: failed, report: accepted() }).report).toBeGreaterThan(8);
    expect(calls({ push: accepted(key(1)), report: failed }).push).toBeGreaterThan(0);
    const silent = calls({ push: failed, report: failed });
    expect(silent.push).toBeGreaterThan(3);
    expect(silent.report).toBeGreaterThan(3);
    expect(silent.push + silent.report).toBeLessThan(20);
  });

  it("pushes at once to an agent that is back after a silence", () => {
    const silent = push(push(wanting(key(1)), failed), failed);
    expect(silent.pushAtMs).toBeGreaterThan(1000);
    expect(nextCall(afterReport(silent, accepted(), at(1000)))).toEqual({ call: "push", atMs: 1000 });
    const refusing = push(wanting(key(1)), { outcome: "invalid", field: undefined, error: "" });
    expect(nextCall(afterReport(refusing, accepted(), at(10)))).toEqual({ call: "push", atMs: 750 });
  });

  it("does not hurry to an agent that refused what it should still have", () => {
    const refusing = push(wanting(key(1)), { outcome: "invalid", field: undefined, error: "" });
    expect(desire(refusing, key(1), 10)).toBe(refusing);
    const idle = newAgentState(0);
    expect(desire(idle, undefined, 10)).toBe(idle);
    expect(desire(refusing, undefined, 10)).toMatchObject({ desired: undefined, documentWanted: false });
  });

  it("asks for no document of a policy that is not wanted any more", () => {
    const asked = push(wanting(key(1)), { outcome: "documentNeeded" });
    expect(desire(asked, undefined, 5).documentWanted).toBe(false);
    const late = afterPush(
      desire(asked, undefined, 5),
      { sent: key(1), withDocument: false, outcome: { outcome: "documentNeeded" } },
      at(7),
    );
    expect(late.documentWanted).toBe(false);
    expect(desire({ ...newAgentState(0), documentWanted: true }, key(1), 5).documentWanted).toBe(false);
  });

  it("takes the report that comes with a directive for one, be it that of another directive", () => {
    expect(push(wanting(key(1)), accepted(key(0)), 100).reportAtMs).toBe(30_100);
    expect(push(wanting(key(1)), { outcome: "older", term: 5, revision: 1 }, 100).reportAtMs).toBe(0);
  });

  it("no longer takes for applied what the agent refuses, or asks the document of", () => {
    for (const outcome of [
      { outcome: "older", term: 5, revision: 1 },
      { outcome: "invalid", field: undefined, error: "" },
      { outcome: "documentNeeded" },
      accepted(key(0)),
    ] satisfies AgentOutcome[]) {
      expect(isApplied(push(applied(key(1)), outcome, 100))).toBe(false);
    }
    expect(isApplied(push(applied(key(1)), failed, 100))).toBe(true);
  });

  it("asks soon after a connection ended, but not before a backoff is over", () => {
    expect(nextCall(suspectRestart(applied(key(1)), at(5000)))).toEqual({ call: "report", atMs: 5500 });
    expect(nextCall(suspectRestart(newAgentState(0), at(100)))).toEqual({ call: "report", atMs: 0 });
    const backingOff = { ...push(applied(key(1)), failed), retryAtMs: 9000 };
    expect(nextCall(suspectRestart(backingOff, at(5000))).atMs).toBe(9000);
  });

  it("asks an agent that ends the connection after each answer every five seconds, and not at once each time", () => {
    let state = applied(key(1));
    const calls: number[] = [];
    for (let nowMs = 0; nowMs < 60_000; nowMs = nextCall(state).atMs) {
      state = afterReport(state, accepted(key(1)), at(nowMs));
      calls.push(nowMs);
      state = suspectRestart(state, at(nowMs + 1));
    }
    expect(calls).toEqual(Array.from({ length: 12 }, (_, count) => count * 5000));
  });

  it("finds what cannot be superseded without a higher term, and nothing else", () => {
    const sent = key(3, { term: 4 });
    expect(findNewer(sent, { outcome: "older", term: 9, revision: 1 })).toEqual({ term: 9, revision: 1 });
    expect(findNewer(sent, { outcome: "older", term: 4, revision: 4 })).toEqual({ term: 4, revision: 4 });
    expect(findNewer(sent, { outcome: "older", term: 4, revision: 2 })).toBeUndefined();
    expect(findNewer(sent, { outcome: "older", term: 4, revision: 3 })).toEqual({ term: 4, revision: 3 });
    expect(findNewer(sent, accepted(sent))).toBeUndefined();
    expect(findNewer(sent, accepted(key(2, { term: 4 })))).toBeUndefined();
    expect(findNewer(sent, accepted(key(3, { term: 4, digest: "e" })))).toMatchObject({ term: 4, revision: 3 });
    expect(findNewer(sent, accepted(undefined))).toBeUndefined();
    expect(findNewer(sent, failed)).toBeUndefined();
  });

  it("always has a next call, in finite time, and ends content once the agent answers", () => {
    const arbOutcome = fc.constantFrom<AgentOutcome>(
      failed,
      { outcome: "documentNeeded" },
      { outcome: "older", term: 1, revision: 9 },
      { outcome: "misdirected", error: "" },
      { outcome: "invalid", field: undefined, error: "" },
      accepted(undefined),
      accepted(key(1)),
      accepted(key(2), "boot-2"),
      acceptedByNewer(key(1)),
      acceptedByNewer(undefined),
      unchanged,
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(arbOutcome, fc.boolean(), fc.nat({ max: 3 })), { maxLength: 40 }), (events) => {
        let nowMs = 0;
        let state = wanting(key(1));
        const call = (outcome: AgentOutcome) => {
          const next = nextCall(state);
          expect(next.atMs - nowMs).toBeLessThanOrEqual(60_000);
          nowMs = Math.max(nowMs, next.atMs);
          state = next.call === "push" ? push(state, outcome, nowMs) : afterReport(state, outcome, at(nowMs));
        };
        const isTaken = () => isApplied(state) && state.silences + state.refusals === 0;
        for (const [outcome, isChange, revision] of events) {
          if (isChange) state = desire(state, key(revision + 1), nowMs);
          call(outcome);
        }
        // Between two tries of a directive there may be some reports.
        for (let calls = 0; calls < 1 || (!isTaken() && calls < 20); calls++) call(accepted(state.desired));
        expect(isApplied(state)).toBe(true);
        expect(state).toMatchObject({ refusals: 0, silences: 0 });
      }),
    );
  });
});
