import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { patience, soak } from "../../../shared/test/support/soak.ts";
import { identify } from "../../src/archive/identity.ts";
import { parseArchiveName } from "../../src/archive/name.ts";
import { advanceWalk, nextRead, startWalk } from "../../src/archive/walk.ts";
import { archiveName, base256Size, type Entry, octalSize, specBytes, tarBytes } from "../support/archives.ts";
import { readSpec, walkBytes } from "../support/walks.ts";

const MIB = 1024 * 1024;
const OWNER = { namespace: "team", pod: "web-0", container: "prod-main" };
const KEYS = [
  "io.kubernetes.cri.sandbox-namespace",
  "io.kubernetes.cri.sandbox-name",
  "io.kubernetes.cri.container-name",
  "io.kubernetes.pod.namespace",
  "io.kubernetes.pod.name",
  "io.kubernetes.container.name",
  "org.criu.checkpoint.pod.namespace",
  "org.criu.checkpoint.pod.name",
  "org.criu.checkpoint.container.name",
  "io.kubernetes.cri.sandbox-uid",
  "io.kubernetes.pod.uid",
  "org.criu.checkpoint.pod.uid",
  "io.kubernetes.cri-o.ContainerName",
];

function nameOf(parts: { namespace: string; pod: string; container: string }) {
  const name = parseArchiveName(archiveName(parts));
  if (name === undefined) throw new Error("no archive's name");
  return name;
}
const ended = (spec: ReturnType<typeof readSpec>) => ({
  kind: "ended" as const,
  hasConfig: true,
  hasImages: true,
  spec,
});
const identifyBy = (json: string) => identify(nameOf(OWNER), ended(readSpec(Buffer.from(json))));

/** A record of an extended header, its own length in front. */
const arbPaxRecord = fc
  .tuple(fc.constantFrom("path", "size", "GNU.sparse.major", "x".repeat(300)), fc.string({ maxLength: 40 }))
  .map(([key, value]) => {
    const rest = ` ${key}=${value}\n`;
    return `${rest.length + String(rest.length + 3).length}${rest}`;
  });

/** An entry whose parts contradict each other, each as tars may spell it. */
const arbEntry: fc.Arbitrary<Entry> = fc.record(
  {
    name: fc.oneof(fc.constantFrom("spec.dump", "config.dump", "./spec.dump", "a/"), fc.string({ maxLength: 120 })),
    type: fc.constantFrom("0", "\0", "1", "2", "5", "7", "g", "x", "L", "K", "S", "V", "M", "D"),
    content: fc.oneof(
      fc.uint8Array({ maxLength: 3000 }),
      fc.array(arbPaxRecord, { maxLength: 5 }).map((records) => Buffer.from(records.join(""))),
      fc.constant(specBytes(OWNER)),
    ),
    sizeField: fc.oneof(
      fc.nat(5 * MIB).map(octalSize),
      fc.bigInt({ min: -(2n ** 95n), max: 2n ** 95n - 1n }).map(base256Size),
      fc.uint8Array({ minLength: 12, maxLength: 12 }),
    ),
    prefix: fc.string({ maxLength: 10 }),
  },
  { requiredKeys: ["name"] },
);

describe("a hostile tar", () => {
  it(
    "costs reads that only lead further, of 64 KiB at most, and names nobody that its name could not stand for",
    () => {
      fc.assert(
        fc.property(fc.array(arbEntry, { maxLength: 12 }), fc.boolean(), (entries, isEnded) => {
          const bytes = tarBytes(entries, isEnded ? undefined : new Uint8Array());
          const { verdict, reads } = walkBytes(bytes, startWalk());
          for (const [at, { offset, length }] of reads.entries()) {
            expect(length).toBeLessThanOrEqual(64 * 1024);
            expect(Number.isSafeInteger(offset + length)).toBe(true);
            if (at > 0) expect(offset).toBeGreaterThanOrEqual(reads[at - 1]?.offset ?? 0);
          }
          expect(reads.length).toBeLessThanOrEqual(2 * (bytes.length / 512) + 2);
          const identified = identify(nameOf(OWNER), verdict);
          if (identified.kind === "identified") expect(nameOf(OWNER).candidates).toContainEqual(identified.identity);
        }),
        { numRuns: soak(3000) },
      );
    },
    patience(60_000),
  );

  it("of nothing but extension headers, one before the other, comes to an end", () => {
    const long = (type: string): Entry => ({ name: "x", type, content: Buffer.from("spec.dump\0") });
    const chain = Array.from({ length: 40_000 }, (_, at) => long("LKxg"[at % 2] ?? "L"));
    expect(walkBytes(tarBytes(chain)).verdict.kind).toBe("ended");
  }, 60_000);

  it("costs no more than 512 MiB of reads, be it an endless row of small headers or of large ones", () => {
    for (const extensionBytes of [512, 64 * 1024]) {
      const entry = tarBytes([{ name: "x", type: "L", content: Buffer.alloc(extensionBytes, "n") }], new Uint8Array());
      // As if nearly all that a walk may read had been read already.
      const walk = { ...startWalk(), readBytes: 510 * MIB };
      let readBytes = 510 * MIB;
      for (let read = nextRead(walk); read !== undefined; read = nextRead(walk)) {
        readBytes += read.length;
        const at = read.offset % entry.length;
        advanceWalk(walk, entry.subarray(at, at + read.length));
      }
      expect(walk.verdict).toEqual({
        kind: "refused",
        message: expect.stringMatching(/^at byte [0-9]+ the walk gives up: it has read more than 536870912 bytes$/),
        spec: undefined,
      });
      expect(readBytes).toBeGreaterThan(512 * MIB);
      expect(readBytes).toBeLessThanOrEqual(512 * MIB + 64 * 1024);
    }
  }, 60_000);
});

describe("a hostile spec.dump", () => {
  it.each<[string, string]>([
    ["10,000 arrays in each other", `{"annotations":${"[".repeat(10_000)}${"]".repeat(10_000)}}`],
    ["half a million objects in each other", `${'{"annotations":'.repeat(60_000)}1${"}".repeat(60_000)}`],
    ["a mebibyte of one string", JSON.stringify({ annotations: { a: "x".repeat(MIB - 40) } })],
    ["a mebibyte of backslashes", JSON.stringify({ annotations: { a: "\\".repeat(MIB / 2 - 40) } })],
    ["a mebibyte of quotes", JSON.stringify({ annotations: { a: '"'.repeat(MIB / 2 - 40) } })],
    ["a mebibyte of blanks", `{"annotations"${" ".repeat(MIB - 40)}:{}}`],
    [
      "a hundred thousand keys",
      JSON.stringify(Object.fromEntries(Array.from({ length: 50_000 }, (_, at) => [`k${at}`, at]))),
    ],
    ["half of one", '{"annotations":{"io.kubernetes.pod.namespace":"team'],
    ["nothing but nulls", "\0".repeat(1000)],
  ])("of %s names nobody", (_, json) => {
    expect(readSpec(Buffer.from(json))).not.toMatchObject({ namespace: expect.anything() });
    expect(identifyBy(json).kind).toBe("unidentified");
  });

  it("names nobody by a value that is no string", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom(...KEYS, "io.kubernetes.cri-o.Labels"), fc.jsonValue()),
        (annotations) => {
          const facts = readSpec(Buffer.from(JSON.stringify({ annotations })));
          for (const field of ["namespace", "pod", "container"] as const)
            expect(typeof (facts[field] ?? "")).toBe("string");
          const given = Object.values(annotations).filter((value) => typeof value === "string");
          const named = [facts.namespace, facts.pod, facts.container].filter((value) => value !== undefined);
          // Only what stands there as a text, or in the text of CRI-O's labels.
          for (const name of named) expect(given.some((value) => value.includes(name))).toBe(true);
        },
      ),
      { numRuns: soak(1000) },
    );
  });

  it.each(KEYS)("that has %s twice is nobody's, whichever of the two others would take", (key) => {
    const rest = '"io.kubernetes.cri.container-name":"main"';
    for (const [first, second] of [
      ["team", "team-prod"],
      ["team-prod", "team"],
      ["team", "team"],
    ]) {
      const twice = `{"annotations":{${JSON.stringify(key)}:"${first}",${rest.includes(key) ? '"a":"b"' : rest},${JSON.stringify(key)} :"${second}"}}`;
      expect(identifyBy(twice)).toMatchObject({
        kind: "unidentified",
        reason: expect.stringContaining("more than once"),
      });
    }
  });

  it("that has its annotations twice, or a key spelled with escapes, is nobody's either", () => {
    const one = '{"io.kubernetes.pod.namespace":"team"}';
    expect(identifyBy(`{"annotations":${one},"annotations":{}}`).kind).toBe("unidentified");
    const escaped = '"io.kubernetes.pod.\\u006eamespace":"team-prod"';
    expect(identifyBy(`{"annotations":{"io.kubernetes.pod.namespace":"team",${escaped}}}`).kind).toBe("unidentified");
    const labels = JSON.stringify('{"io.kubernetes.pod.namespace":"team","io.kubernetes.pod.namespace":"team-prod"}');
    expect(identifyBy(`{"annotations":{"io.kubernetes.cri-o.Labels":${labels}}}`).kind).toBe("unidentified");
  });

  it("may have the words of a key in its values as often as it likes", () => {
    const words = KEYS.map((key) => `"${key}":"other"`).join(",");
    const spec = { annotations: { "io.kubernetes.cri.sandbox-namespace": "team", words, more: words }, args: KEYS };
    expect(identifyBy(JSON.stringify(spec))).toEqual({ kind: "identified", identity: OWNER });
  });

  it("puts nothing but printable ASCII into a reason, and no more of it than fits a line", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 400 }), (text) => {
        const hostile = `\u001b[2J\u009b31m\u2028\u202e\r\n${text}`;
        const identified = identifyBy(JSON.stringify({ annotations: { "io.kubernetes.cri.sandbox-name": hostile } }));
        expect(identified).toMatchObject({ kind: "unidentified", reason: expect.stringMatching(/^[ -~]{1,2000}$/) });
      }),
      { numRuns: soak(500) },
    );
  });
});
