import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { unpackNames } from "../../src/inventory/seen.ts";
import { archiveName } from "../support/archives.ts";
import { packNames } from "../support/seen.ts";

const arbNames = fc.uniqueArray(fc.stringMatching(/^[ -~]{0,80}$/), { maxLength: 50 });

describe("names that were seen", () => {
  it("are known after they were packed and unpacked, and others are not", () => {
    fc.assert(
      fc.property(arbNames, arbNames, (names, others) => {
        const seen = unpackNames(packNames(names));
        expect(names.every((name) => seen?.has(name))).toBe(true);
        expect(others.filter((name) => !names.includes(name) && seen?.has(name))).toEqual([]);
      }),
    );
  });

  it("are packed alike in any order", () => {
    fc.assert(fc.property(arbNames, (names) => packNames([...names].reverse()) === packNames(names)));
  });

  it("are the 32-bit FNV-1a hashes of the names, sorted, in base64", () => {
    // The published test vectors of FNV-1a: "" is 811c9dc5, "a" is e40c292c, "foobar" is bf9cf968.
    const bytes = Buffer.from(packNames(["a", "foobar", ""]), "base64");
    expect([0, 4, 8].map((at) => bytes.readUInt32LE(at).toString(16))).toEqual(["811c9dc5", "bf9cf968", "e40c292c"]);
  });

  it("take less than 300 KB for 50,000 archives", () => {
    const names = Array.from({ length: 50_000 }, (_, pod) => archiveName({ pod: `web-${pod}` }));
    expect(packNames(names).length).toBeLessThan(300_000);
  });

  it("of nothing are none, and not unknown", () => {
    expect(packNames([])).toBe("");
    expect(unpackNames("")?.has("a")).toBe(false);
  });

  it.each(["AAAA", "AAAAA===", "!!!!!!==", "xZ0cgQ", "AQAAAAAAAAA=", " "])(
    "are unknown if they are damaged: %j",
    (packed) => expect(unpackNames(packed)).toBeUndefined(),
  );
});
