import { describe, expect, it } from "vitest";
import { compareFences } from "../../src/wire/fence.ts";

describe("compareFences", () => {
  it.each([
    [{ term: 1, revision: 9 }, { term: 2, revision: 0 }, -1],
    [{ term: 2, revision: 0 }, { term: 1, revision: 9 }, 1],
    [{ term: 2, revision: 3 }, { term: 2, revision: 4 }, -1],
    [{ term: 2, revision: 4 }, { term: 2, revision: 3 }, 1],
    [{ term: 2, revision: 3 }, { term: 2, revision: 3 }, 0],
    [{ term: 0, revision: Number.MAX_SAFE_INTEGER }, { term: 1, revision: 0 }, -1],
    [{ term: Number.MAX_SAFE_INTEGER, revision: 0 }, { term: Number.MAX_SAFE_INTEGER - 1, revision: 7 }, 1],
  ])("orders %j and %j by term, then by revision", (a, b, sign) => {
    expect(Math.sign(compareFences(a, b))).toBe(sign);
  });
});
