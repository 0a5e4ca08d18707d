import { describe, expect, it } from "vitest";
import { readKubernetesYaml } from "../../src/crd/kubernetes-yaml.ts";

/** What a plain scalar is read as. The expected values are what sigs.k8s.io/yaml v1.6.0 makes of them. */
function scalar(text: string): unknown {
  const read = readKubernetesYaml(`a: ${text}\n`);
  return read.ok ? (read.documents[0] as { a: unknown }).a : read.problem;
}

describe("a scalar is read as kubectl reads it:", () => {
  it.each<[string, unknown]>([
    ["010", 8],
    ["-010", -8],
    ["0o17", 15],
    ["0_8", 8],
    ["09", 9],
    ["0x1F", 31],
    ["-0x10", -16],
    ["0b101", 5],
    ["0b2", "0b2"],
    ["1_000", 1000],
    ["_1", "_1"],
    ["+5", 5],
    ["1e3", 1000],
    ["1.", 1],
    [".5", 0.5],
    [".5_0", 0.5],
    [".5__0", ".5__0"],
    [".5_", ".5_"],
    ["1e400", "1e400"],
    ["9223372036854775807", 2 ** 63],
    ["18446744073709551616", 2 ** 64],
    ["0x10000000000000000", "0x10000000000000000"],
    ["0777777777777777777777777", Number("777777777777777777777777")],
    ["1:30", "1:30"],
    ["190:20:30", "190:20:30"],
    ["2026-01-01", "2026-01-01"],
    ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"],
    ["y", true],
    ["Yes", true],
    ["on", true],
    ["TRUE", true],
    ["N", false],
    ["no", false],
    ["Off", false],
    ["nO", "nO"],
    ["tRUE", "tRUE"],
    ["", null],
    ["~", null],
    ["Null", null],
    ["nULL", "nULL"],
    ['"010"', "010"],
    ["'no'", "no"],
    ["|-\n  010", "010"],
    ["!!str 010", "010"],
    ["30d", "30d"],
    ["1h30m", "1h30m"],
    ["10Gi", "10Gi"],
    ["no # a comment", false],
  ])("%s", (text, value) => {
    expect(scalar(text)).toEqual(value);
  });
});

describe("readKubernetesYaml", () => {
  const documents = (text: string) => {
    const read = readKubernetesYaml(text);
    return read.ok ? read.documents : read.problem;
  };

  it("makes strings of keys, as JSON needs them", () => {
    expect(documents("010: a\nno: b\n1.5: c\n")).toEqual([{ "8": "a", false: "b", "1.5": "c" }]);
  });

  it("takes merged keys that stand first, the earlier map before the later one", () => {
    const text = "b: &b {a: 2}\nd: &d {a: 3, e: 1}\nc: {<<: [*b, *d], q: 1}\n";
    expect(documents(text)).toMatchObject([{ c: { a: 2, e: 1, q: 1 } }]);
    expect(documents('"<<": 1\n')).toEqual([{ "<<": 1 }]);
  });

  it("leaves out documents without content", () => {
    expect(documents("---\n# nothing\n---\na: 1\n---\n~\n")).toEqual([{ a: 1 }]);
  });

  it("reads a document of 1.1 and refuses one that says it is of another version", () => {
    expect(documents("%YAML 1.1\n---\na: 010\n")).toEqual([{ a: 8 }]);
    expect(documents("%YAML 1.2\n---\na: 010\n")).toBe("its %YAML is 1.2; kubectl reads 1.1");
  });

  it.each([
    ["a: 1\na: 2\n", /^Map keys must be unique/],
    ['1: a\n"1": b\n', /^the key "1" is given twice$/],
    ["~: a\n", /^a key is not a string$/],
    ["? [a]\n: b\n", /^a key is not a string$/],
    ["b: &b {a: 2}\nc: {a: 1, <<: *b}\n", /^<< must be the first key of its map$/],
    ["a: !!int 5\n", /^the tag tag:yaml\.org,2002:int is not known; leave it out$/],
    ["a: !!set {x}\n", /^the tag .*set is not known/],
    ["a: .inf\n", /^\.inf is no number that JSON has; quote it$/],
    ["a: -.Inf\n", /no number that JSON has/],
    ["a: [.NaN]\n", /no number that JSON has/],
  ])("refuses what others read in another way, or not at all: %j", (text, problem) => {
    expect(documents(text)).toMatch(problem);
  });
});
