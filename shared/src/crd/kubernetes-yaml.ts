import {
  type Document,
  isAlias,
  isMap,
  isScalar,
  type ParsedNode,
  parseAllDocuments,
  type ScalarTag,
  visit,
} from "yaml";

export type ReadYamlResult = { ok: true; documents: unknown[] } | { ok: false; problem: string };

/** The plain words that are no strings in YAML 1.1, as go-yaml knows them: https://github.com/yaml/go-yaml, v2, resolve.go. */
const WORDS = new Map<string, boolean | number | null>();
for (const word of ["y", "yes", "true", "on"]) addWord(word, true);
for (const word of ["n", "no", "false", "off"]) addWord(word, false);
for (const word of ["~", "null"]) addWord(word, null);
WORDS.set("", null);
for (const word of [".inf", "+.inf"]) addWord(word, Number.POSITIVE_INFINITY);
addWord("-.inf", Number.NEGATIVE_INFINITY);
for (const word of [".nan", ".NaN", ".NAN"]) WORDS.set(word, Number.NaN);

function addWord(word: string, value: boolean | number | null): void {
  const capital = word.replace(/[a-z]/, (letter) => letter.toUpperCase());
  for (const form of [word, capital, word.toUpperCase()]) WORDS.set(form, value);
}

/** Which digits follow the sign; `0o` and a mere leading 0 are both octal. */
const INTEGERS: ReadonlyArray<{ digits: RegExp; prefix: string }> = [
  { digits: /^(0|[1-9]\d*)$/, prefix: "" },
  { digits: /^0x([\da-f]+)$/i, prefix: "0x" },
  { digits: /^0o?([0-7]+)$/i, prefix: "0o" },
  { digits: /^0b([01]+)$/i, prefix: "0b" },
];
const FLOAT = /^[-+]?(\.\d+|\d+(\.\d*)?)(e[-+]?\d+)?$/i;

/** A number as Go's strconv.ParseInt with base 0 and then ParseUint read it; undefined if it is none of 64 bits. */
function parseInteger(text: string): number | undefined {
  const sign = /^[-+]/.exec(text)?.[0] ?? "";
  for (const { digits, prefix } of INTEGERS) {
    const found = digits.exec(text.slice(sign.length))?.[1];
    if (found === undefined) continue;
    const size = BigInt(prefix + found);
    const most = sign === "" ? 2n ** 64n - 1n : sign === "-" ? 2n ** 63n : 2n ** 63n - 1n;
    return size > most ? undefined : Number(sign === "-" ? -size : size);
  }
  return undefined;
}

function parseDecimal(text: string): number | undefined {
  const value = FLOAT.test(text) ? Number(text) : Number.NaN;
  return Number.isFinite(value) ? value : undefined;
}

/** What a plain scalar stands for. It knows neither times nor numbers to the base of 60: those are strings. */
function resolvePlain(text: string): unknown {
  const word = WORDS.get(text);
  if (word !== undefined) return word;
  // Go's strconv.ParseFloat takes a _ between two digits.
  if (text.startsWith(".")) return parseDecimal(text.replace(/(?<=\d)_(?=\d)/g, "")) ?? text;
  if (!/^[-+\d]/.test(text)) return text;
  const digits = text.replaceAll("_", "");
  return parseInteger(digits) ?? parseDecimal(digits) ?? text;
}

const PLAIN: ScalarTag = {
  tag: "tag:criu.org,2026:plain",
  default: true,
  test: /^$|^[-+.~\dyYnNtTfFoO]/,
  identify: () => false,
  resolve: resolvePlain,
};

/** Tags that change nothing. Others are refused: no policy needs them, and what they do differs between libraries. */
const HARMLESS_TAGS = ["tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"];

/**
 * Reads YAML as kubectl and the API server do, by sigs.k8s.io/yaml: YAML 1.1 with the scalars of go-yaml (`010` is 8, `no` is
 * false, `1:30` is a string), keys turned into strings. What they read in a way of their own, such as a key given twice,
 * is refused: nobody surely means it. Documents without content are left out.
 */
export function readKubernetesYaml(text: string): ReadYamlResult {
  const parsed = parseAllDocuments(text, {
    version: "1.1",
    schema: "failsafe",
    customTags: [PLAIN],
    merge: true,
    prettyErrors: true,
    uniqueKeys: true,
  });
  const documents: unknown[] = [];
  for (const document of parsed) {
    const [error] = document.errors;
    if (error !== undefined) return { ok: false, problem: error.message.split("\n")[0]?.replace(/:$/, "") ?? "" };
    const problem = findAmbiguity(document as Document.Parsed);
    if (problem !== undefined) return { ok: false, problem };
    try {
      documents.push(document.toJS({ maxAliasCount: 100 }) as unknown);
    } catch (cause) {
      return { ok: false, problem: (cause as Error).message };
    }
  }
  return { ok: true, documents: documents.filter((one) => one !== null && one !== undefined) };
}

function findAmbiguity(document: Document.Parsed): string | undefined {
  const { explicit, version } = document.directives.yaml;
  if (explicit && version !== "1.1") return `its %YAML is ${version}; kubectl reads 1.1`;
  let problem: string | undefined;
  visit(document, {
    Node(_key, node) {
      problem = isAlias(node) ? undefined : findValueProblem(node as ParsedNode);
      return problem === undefined ? undefined : visit.BREAK;
    },
    Map(_key, node) {
      problem = findValueProblem(node as ParsedNode);
      if (problem !== undefined) return visit.BREAK;
      const { items } = node;
      const keys = new Set<string>();
      for (const [index, { key }] of items.entries()) {
        problem = findKeyProblem(key as ParsedNode, { index, keys });
        if (problem !== undefined) return visit.BREAK;
      }
      return undefined;
    },
  });
  return problem;
}

function findValueProblem(node: ParsedNode): string | undefined {
  if (node.tag !== undefined && !HARMLESS_TAGS.includes(node.tag))
    return `the tag ${node.tag} is not known; leave it out`;
  const isInfinite = isScalar(node) && typeof node.value === "number" && !Number.isFinite(node.value);
  return isInfinite ? `${node.source} is no number that JSON has; quote it` : undefined;
}

function findKeyProblem(node: ParsedNode, { index, keys }: { index: number; keys: Set<string> }): string | undefined {
  const isMergeKey = isScalar(node) && node.type === "PLAIN" && node.source === "<<";
  // go-yaml lets what is merged win over the keys before it, others do not.
  if (isMergeKey) return index === 0 ? undefined : "<< must be the first key of its map";
  if (isMap(node) || !isScalar(node) || node.value === null) return "a key is not a string";
  const key = String(node.value);
  if (keys.has(key)) return `the key ${JSON.stringify(key)} is given twice`;
  keys.add(key);
  return undefined;
}
