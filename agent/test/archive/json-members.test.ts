import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { MemberScan, type Members } from "../../src/archive/json-members.ts";

const KEYS = new Set(["a", "b", 'é"\\\n', "__proto__"]);

/** What a scan of the text finds, the text cut into pieces of these sizes again and again; undefined: it is not JSON. */
function scan(text: string | Uint8Array, { member, sizes = [1 << 20] }: { member?: string; sizes?: number[] } = {}) {
  const bytes = Buffer.from(text);
  const members = new MemberScan({ ...(member === undefined ? {} : { member }), keys: KEYS });
  for (let at = 0, turn = 0; at < bytes.length; turn += 1) {
    const end = at + (sizes[turn % sizes.length] as number);
    // A copy that is overwritten at once: nothing of a piece may be kept.
    const piece = Uint8Array.from(bytes.subarray(at, end));
    members.take(piece);
    piece.fill(0);
    at = end;
  }
  return members.end();
}

/** The same by JSON.parse. It cannot tell that a key is repeated. */
function parse(text: string | Uint8Array, member?: string): Omit<Members, "repeated"> | undefined {
  let root: unknown;
  try {
    root = JSON.parse(Buffer.from(text).toString());
  } catch {
    return undefined;
  }
  const isObject = (value: unknown): value is object =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  const wanted =
    member === undefined ? root : isObject(root) && Object.hasOwn(root, member) ? root[member as never] : {};
  const entries = isObject(wanted) ? Object.entries(wanted) : [];
  return { values: new Map(entries.filter(([key, value]) => KEYS.has(key) && typeof value === "string")) };
}

const arbText = fc.oneof(fc.constantFrom(...KEYS, "c"), fc.string({ unit: "binary", maxLength: 12 }));
const arbKey = fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...KEYS, "c", "m") }, arbText);

/** A JSON text: numbers as they may be written, escapes in strings, blanks between tokens, the same key again and again. */
const { arbJson, arbObject } = fc.letrec<{ arbJson: string; arbObject: string; arbArray: string }>((tie) => {
  const arbNumber = fc
    .tuple(
      fc.constantFrom("", "-"),
      fc.constantFrom("0", "1", "90"),
      fc.constantFrom("", ".0", ".05", "e3", ".5E+07", "e-1"),
    )
    .map((parts) => parts.join(""));
  const arbBlank = fc.constantFrom("", "", " ", "\n\t", "\r");
  const arbString = fc
    .tuple(arbText, fc.constantFrom("", "", "\\u0041", "\\/", "\\\\", '\\"', "\\ud83d"))
    .map(([text, last]) => `${JSON.stringify(text).slice(0, -1)}${last}"`);
  const arbMember = fc.tuple(
    arbBlank,
    arbKey.map((key) => JSON.stringify(key)),
    arbBlank,
    tie("arbJson"),
  );
  return {
    arbArray: fc.array(tie("arbJson"), { maxLength: 4 }).map((items) => `[${items.join(",")}]`),
    arbObject: fc
      .array(arbMember, { maxLength: 5 })
      .map((members) => `{${members.map(([left, key, right, value]) => `${left}${key}${right}:${value}`).join(",")}}`),
    arbJson: fc
      .tuple(
        arbBlank,
        fc.oneof(
          { depthSize: "small", withCrossShrink: true },
          arbString,
          arbNumber,
          fc.constantFrom("true", "false", "null"),
          tie("arbArray"),
          tie("arbObject"),
        ),
        arbBlank,
      )
      .map((parts) => parts.join("")),
  };
});
const arbDocument = fc.oneof(
  arbJson,
  arbObject,
  fc.tuple(arbObject, arbObject).map(([one, other]) => `{"m":${one},"x":${other}}`),
);
const arbSizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 5 });
const arbMember = fc.constantFrom(undefined, "m");

/** Found and expected must be the same but for keys that are repeated, of which JSON.parse takes the last. */
function expectAsParsed(text: string | Uint8Array, member: string | undefined, sizes: number[]): void {
  const found = scan(text, { ...(member === undefined ? {} : { member }), sizes });
  const expected = parse(text, member);
  if (found === undefined || expected === undefined || found.repeated === undefined) {
    expect(found?.values).toEqual(expected?.values);
  }
}

describe("a scan of JSON for the members of one object", () => {
  it("finds what JSON.parse finds, in pieces of any size", () => {
    fc.assert(
      fc.property(arbDocument, arbMember, arbSizes, (text, member, sizes) => expectAsParsed(text, member, sizes)),
      { numRuns: soak(3000) },
    );
  });

  it("takes for JSON what JSON.parse takes, however the text is damaged", () => {
    const arbDamage = fc.array(
      fc.tuple(fc.nat(), fc.constantFrom(...Buffer.from('{}[]",:\\eE+-.019tu \n\u0001é')), fc.boolean()),
      {
        minLength: 1,
        maxLength: 3,
      },
    );
    fc.assert(
      fc.property(arbDocument, arbMember, arbSizes, arbDamage, (text, member, sizes, damage) => {
        let bytes = [...Buffer.from(text)];
        for (const [at, byte, isReplaced] of damage)
          bytes = bytes.toSpliced(at % (bytes.length + 1), Number(isReplaced), byte);
        expectAsParsed(Uint8Array.from(bytes), member, sizes);
      }),
      { numRuns: soak(5000) },
    );
  });

  it("takes for JSON what JSON.parse takes, cut off anywhere", () => {
    const text = ' {"m" : {"a":"\\u00e9\\n","b":[1.5e-3,-0,true,false,null,{"a":"x"}]},"n":[ ],"o":{ }} ';
    for (let end = 0; end <= text.length; end += 1) expectAsParsed(text.slice(0, end), "m", [1]);
    expect(scan(text, { member: "m" })?.values).toEqual(new Map([["a", "é\n"]]));
  });

  it.each([
    "0",
    "-0",
    "10",
    "1.0",
    "1e5",
    "1E+5",
    "1e-05",
    "-12.50e10",
    "01",
    "-",
    "-01",
    "1.",
    ".5",
    "+1",
    "1e",
    "1e+",
    "1.e1",
    "0x1",
    "1 2",
    "--1",
    "1e1.5",
    "00",
    "0e0",
    "1-",
    "true",
    "tru",
    "truee",
    "nul",
    "nulls",
    "True",
    "falsefalse",
    "NaN",
    "Infinity",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[",
    "]",
    "[]]",
    "[}",
    "{]",
    "{,}",
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    "{1:2}",
    '{"a" "b"}',
    "{a:1}",
    '"',
    '"a',
    '"\\"',
    '"\\x"',
    '"\\u12"',
    '"\\u12g4"',
    '"\\uABcd"',
    '"\t"',
    '"\u007f"',
    "'a'",
    '"a""b"',
    "",
    " ",
    "\u00a0",
    "\ufeff{}",
    "// x",
    "{}{}",
    "{} x",
    '"\u2028"',
    "[[[]]]",
    "[]",
    "{}",
    '{"":""}',
    "[-]",
    "[1e]",
    "[0,1.5]",
    "[1 2",
    "[1:",
    "[1}",
    '{"a":1]',
    '{"a":1 2',
  ])("says as JSON.parse does whether %j is JSON", (text) => {
    for (const around of [text, ` ${text}\n`, `[${text}]`, `{"a":${text}}`]) {
      expect([around, scan(around, { sizes: [1] }) !== undefined]).toEqual([around, parse(around) !== undefined]);
    }
  });

  it("looks into the root object or into the named member of it, and into no other object", () => {
    const inner = '{"a":"1","b":{"a":"2"},"x":{"a":"2"},"y":[{"b":"3"}]}';
    expect(scan(`{"a":"0","m":${inner}}`)?.values).toEqual(new Map([["a", "0"]]));
    expect(scan(`{"a":"0","m":${inner},"b":"9"}`, { member: "m" })?.values).toEqual(new Map([["a", "1"]]));
    for (const other of [
      `{"n":{"m":${inner}}}`,
      `[{"m":${inner}}]`,
      `{"m":[${inner}]}`,
      `{"m":"x","n":${inner}}`,
      `{"M":${inner}}`,
    ])
      expect([other, scan(other, { member: "m" })?.values]).toEqual([other, new Map()]);
    for (const other of [`[${inner}]`, '"a"', "1"]) expect(scan(other)?.values).toEqual(new Map());
  });

  it("tells the first key of interest that is repeated, however it is written and whatever its value is", () => {
    expect(scan('{"a":"1","a":"1"}')?.repeated).toBe("a");
    expect(scan('{"a":1,"\\u0061":null}')?.repeated).toBe("a");
    expect(scan('{"b":"","a":[],"a":{},"b":""}')?.repeated).toBe("a");
    expect(scan('{"m":{},"m":null}', { member: "m" })?.repeated).toBe("m");
    expect(scan(`{"m":{"a":"","a":""},"x":0,"m":{}}`, { member: "m" })?.repeated).toBe("a");
    for (const once of ['{"c":1,"c":2}', '{"a":{"a":1},"b":["a","a"]}', '{"m":{"a":1},"a":1,"a":2}'])
      expect([once, scan(once, { member: "m" })?.repeated]).toEqual([once, undefined]);
    expect(scan('{"a":1,"a":2')).toBeUndefined();
  });

  it("counts a value of over 64 KiB as empty, and knows no key that is as long", () => {
    const most = "x".repeat(65_536);
    for (const sizes of [[1 << 20], [1000]]) {
      expect(scan(JSON.stringify({ a: most, b: `${most}x` }), { sizes })?.values).toEqual(
        new Map([
          ["a", most],
          ["b", ""],
        ]),
      );
      expect(scan(`{"a":"${"\\u0041".repeat(10_923)}"}`, { sizes })?.values).toEqual(new Map([["a", ""]]));
      expect(scan(`{"${"\\u0061".repeat(10_923)}":"1","b":"2"}`, { sizes })?.values).toEqual(new Map([["b", "2"]]));
    }
  });

  it("goes 10,000 levels deep, as Go does, and takes what is deeper for no JSON", () => {
    const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
    expect(scan(nested(10_000))).toBeDefined();
    expect(scan(nested(10_001))).toBeUndefined();
    expect(scan(`{"a":${nested(9999)},"b":"1"}`)?.values).toEqual(new Map([["b", "1"]]));
    expect(scan(`{"b":"1","a":${'{"x":'.repeat(10_000)}1${"}".repeat(10_000)}}`)).toBeUndefined();
  });

  it("reads bytes that are not UTF-8 as Node does, inside of strings alone", () => {
    const wrong = Buffer.from([0xff, 0xc3]);
    const text = Buffer.concat([Buffer.from('{"a":"'), wrong, Buffer.from('"}')]);
    for (const size of [1, 7, 100])
      expect(scan(text, { sizes: [size] })?.values).toEqual(new Map([["a", wrong.toString()]]));
    expect(scan(Buffer.concat([wrong, Buffer.from("{}")]))).toBeUndefined();
  });
});
