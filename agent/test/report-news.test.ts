import { expect, it } from "vitest";
import { createReportNews } from "../src/report-news.ts";
import { aClock } from "./support/driven.ts";

const bootId = "boot";
const scope = { namespace: "n", pod: "p", containers: [] };

function aTold(orphanScopes: Array<typeof scope> = []) {
  const clock = aClock();
  const news = createReportNews({ bootId, clock });
  const tell = (number: number) => news.told({ number, orphanScopes } as unknown as Parameters<typeof news.told>[0]);
  tell(3);
  return { clock, news, tell };
}

it("has news before its first report, for the reader of another report, and after a change", () => {
  const fresh = createReportNews({ bootId, clock: aClock() });
  expect(fresh.isNewTo({ bootId, number: 0 })).toBe(true);
  const { news, tell } = aTold();
  expect(news.isNewTo({ bootId, number: 3 })).toBe(false);
  for (const known of [
    { bootId, number: 2 },
    { bootId, number: Number.NaN },
    { bootId: "undefined", number: 3 },
  ]) {
    expect([known, news.isNewTo(known)]).toEqual([known, true]);
  }
  news.raise();
  expect(news.isNewTo({ bootId, number: 3 })).toBe(true);
  tell(4);
  expect([3, 4].map((number) => news.isNewTo({ bootId, number }))).toEqual([true, false]);
});

it("has a report that asks about pods stand for 40 s, and any other for three minutes", () => {
  for (const [scopes, standsMs] of [
    [[scope], 40_000],
    [[], 180_000],
  ] as const) {
    const { clock, news } = aTold([...scopes]);
    clock.pass(standsMs - 1);
    expect(news.isNewTo({ bootId, number: 3 })).toBe(false);
    clock.pass(1);
    expect(news.isNewTo({ bootId, number: 3 })).toBe(true);
  }
});
