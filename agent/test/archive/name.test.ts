import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { parseArchiveName } from "../../src/archive/name.ts";
import { archiveName } from "../support/archives.ts";
import { arbitraryIdentity, arbitraryTime } from "../support/identities.ts";

const timeOf = (time: string) => parseArchiveName(archiveName({ time }))?.timeMs;

describe("parseArchiveName", () => {
  it("gives back every pod, namespace, container and time that Kubernetes allows, or says that it cannot tell", () => {
    fc.assert(
      fc.property(arbitraryIdentity, arbitraryTime, (identity, { time, timeMs }) => {
        const name = parseArchiveName(archiveName({ ...identity, time }));
        expect(name).toMatchObject({ pod: identity.pod, timeMs });
        expect(name?.candidates).toContainEqual(identity);
        if (!name?.isAmbiguous) expect(name?.candidates).toEqual([identity]);
      }),
      { numRuns: soak(2000) },
    );
  });

  it("is ambiguous wherever more than one dash stands between the underscore and the time", () => {
    fc.assert(
      fc.property(arbitraryIdentity, (identity) => {
        const dashes = `${identity.namespace}-${identity.container}`.split("-").length - 1;
        expect(parseArchiveName(archiveName(identity))?.isAmbiguous).toBe(dashes > 1);
      }),
    );
  });

  it("reads back every candidate as the same file name", () => {
    fc.assert(
      fc.property(arbitraryIdentity, (identity) => {
        const file = archiveName(identity);
        const candidates = parseArchiveName(file)?.candidates ?? [];
        expect(new Set(candidates.map((candidate) => archiveName(candidate)))).toEqual(new Set([file]));
      }),
    );
  });

  it("finds every reading of a name with several dashes", () => {
    expect(parseArchiveName("checkpoint-p_team-prod-main-c-2026-11-22T22:02:07Z.tar")).toEqual({
      pod: "p",
      timeMs: Date.UTC(2026, 10, 22, 22, 2, 7),
      isAmbiguous: true,
      candidates: [
        { namespace: "team", pod: "p", container: "prod-main-c" },
        { namespace: "team-prod", pod: "p", container: "main-c" },
        { namespace: "team-prod-main", pod: "p", container: "c" },
      ],
    });
  });

  it("stays ambiguous where a double dash leaves one reading only", () => {
    const name = parseArchiveName(archiveName({ namespace: "a", container: "b--c" }));
    expect(name?.candidates).toEqual([{ namespace: "a", pod: "web-0", container: "b--c" }]);
    expect(name?.isAmbiguous).toBe(true);
  });

  it("takes labels of 63 characters and no longer ones", () => {
    const [longest, tooLong] = ["x".repeat(63), "x".repeat(64)];
    expect(parseArchiveName(archiveName({ namespace: longest, container: longest }))?.candidates).toHaveLength(1);
    expect(parseArchiveName(archiveName({ namespace: tooLong }))).toBeUndefined();
    expect(parseArchiveName(archiveName({ container: tooLong }))).toBeUndefined();
    expect(parseArchiveName(archiveName({ namespace: "a", container: `b-${"x".repeat(62)}` }))?.candidates).toEqual([
      { namespace: "a-b", pod: "web-0", container: "x".repeat(62) },
    ]);
  });

  it("takes pod names of 253 characters and no longer ones", () => {
    expect(parseArchiveName(archiveName({ pod: "x".repeat(253) }))).toBeDefined();
    expect(parseArchiveName(archiveName({ pod: "x".repeat(254) }))).toBeUndefined();
  });

  it.each([
    ["an offset east", "2026-11-23T03:43:23+05:30", "2026-11-22T22:13:23Z"],
    ["an offset west", "2026-11-22T22:13:23-08:00", "2026-11-23T06:13:23Z"],
    ["no offset, which is UTC", "2026-11-22T22:13:23", "2026-11-22T22:13:23Z"],
    ["a leap day", "2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"],
    ["a year below 100", "0042-01-01T00:00:00Z", "0042-01-01T00:00:00Z"],
  ])("reads a time with %s", (_, time, utc) => {
    expect(timeOf(time)).toBe(Date.parse(utc));
  });

  it.each([
    "2026-02-29T00:00:00Z",
    "2026-04-31T00:00:00Z",
    "2026-00-10T00:00:00Z",
    "2026-13-10T00:00:00Z",
    "2026-01-00T00:00:00Z",
    "2026-01-32T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:60:00Z",
    "2026-01-01T00:00:60Z",
    "2026-01-01T00:00:00.5Z",
    "2026-01-01T00:00:00z",
    "2026-01-01t00:00:00Z",
    "2026-01-01 00:00:00Z",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00+05:60",
    "2026-01-01T00:00:00+0530",
    "2026-01-01T00:00:00+05-30",
    "2026-01-01T00:00:00+05",
    "2026-01-01T00:00:00+05:30Z",
    "2026-01-01",
    "12026-01-01T00:00:00Z",
    "+026-01-01T00:00:00Z",
    "2026-1-01T00:00:00Z",
    "2026/01/01T00:00:00Z",
    "2026-01-01T00-00-00Z",
    "２026-01-01T00:00:00Z",
    "",
  ])("refuses the time %j", (time) => {
    expect(parseArchiveName(archiveName({ time }))).toBeUndefined();
  });

  it.each([
    "",
    ".tar",
    "checkpoint-.tar",
    "checkpoint-p.tar",
    "checkpoint-p_a-c.tar",
    "checkpoint-p_-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c_2026-01-02T03:04:05Z.tar",
    "checkpoint-_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p-a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_q_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-P_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p._a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-.p_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p..q_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p-.q_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p.-q_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p-_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint--p_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a.b-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c.d-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_A-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_-a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c--2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a--c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p\u{fffd}_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-ſ-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-\u0660-2026-01-02T03:04:05Z.tar",
    "checkpoint-p/q_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c-2026-01-02T03:04:05Z.tar.gz",
    "checkpoint-p_a-c-2026-01-02T03:04:05Z.tar.keep",
    "checkpoint-p_a-c-2026-01-02T03:04:05Z.TAR",
    "Checkpoint-p_a-c-2026-01-02T03:04:05Z.tar",
    "xcheckpoint-p_a-c-2026-01-02T03:04:05Z.tar",
    "checkpoint-p_a-c-2026-01-02T03:04:05Z.tar\n",
    "checkpoint-p_a-c-2026-01-02T03:04:05Z",
    ".pause",
  ])("takes %j for another file", (file) => {
    expect(parseArchiveName(file)).toBeUndefined();
  });

  it("takes a time in RFC 3339's form alone, whatever character stands in its place", () => {
    // The form and the ranges, but for the days of a month (RFC 3339, section 5.6).
    const form =
      /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?$/;
    const isDate = (time: string) => {
      const days = new Date(Date.UTC(2000, Number(time.slice(5, 7)), 0)).getUTCDate();
      return Number(time.slice(8, 10)) <= days;
    };
    for (const time of [
      "2000-11-20T22:20:17Z",
      "2000-02-29T23:59:59+23:59",
      "2000-01-31T00:00:00-00:00",
      "2000-10-10T19:09:58",
    ]) {
      for (let at = 0; at < time.length; at += 1) {
        for (let code = 0x20; code < 0x7f; code += 1) {
          const changed = time.slice(0, at) + String.fromCharCode(code) + time.slice(at + 1);
          // A year is looked at by its form alone here: one without a 29th of February is another test's.
          if (at < 4 && time.includes("02-29")) continue;
          const isRead = parseArchiveName(archiveName({ time: changed })) !== undefined;
          expect([changed, isRead]).toEqual([changed, form.test(changed) && isDate(changed)]);
        }
      }
    }
  });

  it("never throws, and whatever it accepts is spelled by each of its candidates", () => {
    const pieces = fc.constantFrom(
      "checkpoint-",
      "_",
      "-",
      ".",
      ".tar",
      "a",
      "9",
      "Z",
      "2026-01-02T03:04:05",
      "+05:30",
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: "binary" }),
          fc.array(pieces).map((all) => all.join("")),
        ),
        (file) => {
          const name = parseArchiveName(file);
          for (const { namespace, pod, container } of name?.candidates ?? []) {
            expect(file.startsWith(`checkpoint-${pod}_${namespace}-${container}-`)).toBe(true);
          }
        },
      ),
      { numRuns: soak(2000) },
    );
  });
});
