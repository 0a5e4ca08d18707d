import { describe, expect, it } from "vitest";
import type { Identification } from "../../src/archive/identity.ts";
import { archiveState, isPostdated } from "../../src/archive/state.ts";
import type { Verdict } from "../../src/archive/walk.ts";

const identified: Identification = {
  kind: "identified",
  identity: { namespace: "shop", pod: "web-0", container: "app" },
  podUID: undefined,
};
const unidentified: Identification = { kind: "unidentified", reason: "two readings" };
const undecided: Identification = { kind: "undecided" };

const ended: Verdict = { kind: "ended", hasConfig: true, hasImages: true, spec: {} };
const torn: Verdict = { kind: "torn", isResumed: false, spec: undefined };
const resumed: Verdict = { kind: "torn", isResumed: true, spec: undefined };
const refused: Verdict = { kind: "refused", message: "at byte 0 is no tar header", spec: undefined };
const failed: Verdict = { kind: "failed", code: "EIO" };
const verdicts = [undefined, ended, torn, resumed, refused, failed];

function stateOf(facts: Partial<Parameters<typeof archiveState>[0]>) {
  const rest = { isPostdated: false, isStale: false, isOwnerless: false };
  return archiveState({ identification: identified, verdict: ended, ...rest, ...facts });
}

describe("archiveState", () => {
  it("is complete when the walk came to the end mark and saw both files", () => {
    expect(stateOf({})).toBe("complete");
    expect(stateOf({ isStale: true })).toBe("complete");
  });

  it.each<[string, Verdict | undefined]>([
    ["was not walked", undefined],
    ["could not be read", failed],
    ["has a bad header", refused],
    ["lacks config.dump", { ...ended, hasConfig: false }],
    ["lacks spec.dump", { ...ended, spec: undefined }],
  ])("is unread, however old, when it %s", (_, verdict) => {
    expect(stateOf({ verdict })).toBe("unread");
    expect(stateOf({ verdict, isStale: true })).toBe("unread");
  });

  it("is unsettled without an image of CRIU's, and incomplete once nobody writes any more: there is nothing to restore", () => {
    const verdict = { ...ended, hasImages: false };
    expect(stateOf({ verdict })).toBe("unsettled");
    expect(stateOf({ verdict, isStale: true })).toBe("incomplete");
    // What is not known to be whole, or whose it is, is no more than that.
    expect(stateOf({ verdict: { ...verdict, hasConfig: false }, isStale: true })).toBe("unread");
    expect(stateOf({ verdict, identification: unidentified, isStale: true })).toBe("unidentified");
    expect(stateOf({ verdict, identification: undecided, isStale: true })).toBe("unread");
  });

  it("is unsettled while torn, and incomplete once nobody writes any more", () => {
    expect(stateOf({ verdict: torn })).toBe("unsettled");
    expect(stateOf({ verdict: torn, isStale: true })).toBe("incomplete");
  });

  it("is never incomplete on the word of a resumed walk", () => {
    expect(stateOf({ verdict: resumed, isStale: true })).toBe("unsettled");
    const ownerless = { identification: undecided, isOwnerless: true };
    expect(stateOf({ verdict: resumed, isStale: true, ...ownerless })).toBe("unsettled");
  });

  it("is unidentified before anything else", () => {
    for (const verdict of verdicts) {
      expect(stateOf({ identification: unidentified, verdict, isPostdated: true })).toBe("unidentified");
      expect(stateOf({ identification: unidentified, verdict, isStale: true })).toBe("unidentified");
    }
  });

  it("is unsettled when torn before what would have decided between several readings, and incomplete much later", () => {
    const facts = { identification: undecided, verdict: torn };
    expect(stateOf(facts)).toBe("unsettled");
    expect(stateOf({ ...facts, isStale: true })).toBe("unsettled");
    expect(stateOf({ ...facts, isStale: true, isOwnerless: true })).toBe("incomplete");
    expect(stateOf({ ...facts, isStale: true, isOwnerless: true, isPostdated: true })).toBe("postdated");
  });

  it("is unidentified, and never incomplete, when torn behind a spec.dump that does not decide", () => {
    const facts = { identification: undecided, verdict: { ...torn, spec: {} } };
    expect(stateOf(facts)).toBe("unsettled");
    for (const isOwnerless of [false, true]) {
      expect(stateOf({ ...facts, isStale: true, isOwnerless })).toBe("unidentified");
    }
  });

  it("is postdated before anything that its content tells", () => {
    for (const verdict of verdicts) {
      expect(stateOf({ verdict, isPostdated: true })).toBe("postdated");
      expect(stateOf({ verdict, isPostdated: true, isStale: true })).toBe("postdated");
    }
  });

  it("is neither complete nor incomplete as long as its owner may still be told", () => {
    for (const identification of [undecided, unidentified]) {
      for (const verdict of verdicts) {
        for (const isStale of [false, true]) {
          expect(["complete", "incomplete"]).not.toContain(stateOf({ identification, verdict, isStale }));
        }
      }
    }
  });
});

describe("isPostdated", () => {
  const nowMs = Date.UTC(2026, 0, 1);
  const ahead = (minutes: number) => nowMs + minutes * 60_000;

  it.each(["timeMs", "mtimeMs"])("begins when %s is more than five minutes ahead of the clock", (field) => {
    const times = { timeMs: nowMs, mtimeMs: nowMs, nowMs };
    expect(isPostdated({ ...times, [field]: ahead(5) }, false)).toBe(false);
    expect(isPostdated({ ...times, [field]: ahead(5) + 1 }, false)).toBe(true);
  });

  it.each(["timeMs", "mtimeMs"])("lasts until the clock has passed %s", (field) => {
    const times = { timeMs: ahead(-60), mtimeMs: ahead(-60), nowMs };
    expect(isPostdated({ ...times, [field]: ahead(1) }, true)).toBe(true);
    expect(isPostdated({ ...times, [field]: nowMs }, true)).toBe(true);
    expect(isPostdated({ ...times, [field]: nowMs - 1 }, true)).toBe(false);
  });
});
