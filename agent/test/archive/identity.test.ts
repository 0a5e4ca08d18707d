import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { type Identification, identify, readSpec, type SpecFacts } from "../../src/archive/identity.ts";
import { type ArchiveName, parseArchiveName } from "../../src/archive/name.ts";
import type { Verdict } from "../../src/archive/walk.ts";
import { archiveBytes, archiveName, type Runtime, specBytes, tarBytes } from "../support/archives.ts";
import { arbitraryIdentity } from "../support/identities.ts";
import { realArchives } from "../support/real-archives.ts";
import { walkBytes } from "../support/walks.ts";

const RUNTIMES: Runtime[] = ["containerd", "cri-o", "checkpointctl"];
const PLAIN = { namespace: "shop", pod: "web-0", container: "app" };
const AMBIGUOUS = { namespace: "team-prod", pod: "p", container: "web" };

function nameOf(file: string): ArchiveName {
  const name = parseArchiveName(file);
  if (name === undefined) throw new Error(`${file} is no archive's name`);
  return name;
}
const plain = () => nameOf(archiveName(PLAIN));
const ambiguous = () => nameOf(archiveName(AMBIGUOUS));

const ended = (spec: SpecFacts | undefined): Verdict => ({ kind: "ended", hasConfig: true, spec });
const torn = (spec?: SpecFacts): Verdict => ({ kind: "torn", isResumed: false, spec });
const refused = (spec?: SpecFacts): Verdict => ({ kind: "refused", message: "at byte 0 is no tar header", spec });
const failed: Verdict = { kind: "failed", code: "EIO" };

const specOf = (annotations: unknown) => readSpec(Buffer.from(JSON.stringify({ annotations })));
const identified = (identity: typeof PLAIN): Identification => ({ kind: "identified", identity });
const unidentified = { kind: "unidentified", reason: expect.any(String) };
const undecided: Identification = { kind: "undecided" };

describe("readSpec", () => {
  it.each(RUNTIMES)("reads namespace, pod and container that %s wrote", (runtime) => {
    expect(readSpec(specBytes({ ...AMBIGUOUS, runtime }))).toEqual(AMBIGUOUS);
  });

  it("reads CRI-O's labels where they alone name the container, and its annotations where those do", () => {
    const labels = {
      "io.kubernetes.pod.namespace": "shop",
      "io.kubernetes.pod.name": "web-0",
      "io.kubernetes.container.name": "app",
    };
    expect(specOf({ "io.kubernetes.cri-o.Labels": JSON.stringify(labels) })).toEqual(PLAIN);
    expect(specOf(labels)).toEqual(PLAIN);
  });

  it.each([
    ["namespace", "io.kubernetes.cri.sandbox-namespace", "org.criu.checkpoint.pod.namespace"],
    ["namespace", "io.kubernetes.pod.namespace", "io.kubernetes.cri.sandbox-namespace"],
    ["pod", "io.kubernetes.cri.sandbox-name", "org.criu.checkpoint.pod.name"],
    ["pod", "io.kubernetes.pod.name", "org.criu.checkpoint.pod.name"],
    ["container", "io.kubernetes.cri.container-name", "org.criu.checkpoint.container.name"],
    ["container", "io.kubernetes.container.name", "io.kubernetes.cri.container-name"],
  ])("finds two sources of the %s in conflict when they differ, and not when they agree", (field, one, other) => {
    expect(specOf({ [one]: "a", [other]: "b" })).toEqual({ conflict: expect.stringContaining(field) });
    expect(specOf({ [one]: "a", [other]: "a" })).toEqual({ [field]: "a" });
  });

  it.each(["namespace", "name"])("finds CRI-O's labels in conflict with its annotations over the pod's %s", (what) => {
    const labels = JSON.stringify({ [`io.kubernetes.pod.${what}`]: "a" });
    const annotations = { "io.kubernetes.cri-o.Labels": labels, [`io.kubernetes.pod.${what}`]: "b" };
    expect(specOf(annotations)).toEqual({ conflict: expect.any(String) });
  });

  it.each([
    ["nothing", Buffer.alloc(0)],
    ["half a spec", specBytes().subarray(0, 100)],
    ["a compressed spec", gzipSync(specBytes())],
    ["text", Buffer.from("namespace: shop")],
    ["null", Buffer.from("null")],
    ["a string", Buffer.from('"annotations"')],
    ["annotations that are a list", Buffer.from('{"annotations":["io.kubernetes.pod.name"]}')],
    ["annotations that are null", Buffer.from('{"annotations":null}')],
    ["an array of a million levels", Buffer.alloc(1024 * 1024, "[")],
    ["objects of 10,000 levels", Buffer.from(`{"annotations":${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}}`)],
    [
      "names of other types",
      Buffer.from('{"annotations":{"io.kubernetes.pod.name":{},"io.kubernetes.pod.namespace":1}}'),
    ],
    ["empty names", Buffer.from('{"annotations":{"io.kubernetes.pod.name":""}}')],
    ["labels that cannot be parsed", Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":"{\\"io.kub"}}')],
    [
      "labels that are an object",
      Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":{"io.kubernetes.pod.name":"p"}}}'),
    ],
    [
      "labels that are in a list",
      Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":["{\\"io.kubernetes.pod.name\\":\\"p\\"}"]}}'),
    ],
    ["bytes that are not UTF-8", Buffer.from([0xff, 0xfe, 0x7b, 0x7d])],
    ["names in a prototype", Buffer.from('{"annotations":{"__proto__":{"io.kubernetes.pod.name":"p"}}}')],
  ])("reads nobody's name from %s", (_, bytes) => {
    expect(readSpec(bytes)).toEqual({});
  });

  it("looks for keys that stand twice among keys alone, whatever quotes and backslashes strings hold", () => {
    const annotations = { "io.kubernetes.cri.sandbox-name": "web-0" };
    const harmless = ['"annotations": "x"', 'a" : {"annotations', "\\", '\\"', '"\\\\"annotations":', "annotations"];
    for (const args of [...harmless.map((text) => [text]), harmless]) {
      const text = JSON.stringify({ args, annotations, more: args }, null, 1);
      expect([text, readSpec(Buffer.from(text))]).toEqual([text, { pod: "web-0" }]);
    }
    for (const text of harmless) {
      const twice = `{"args":[${JSON.stringify(text)}],"annotations":{},"annotations":${JSON.stringify(annotations)}}`;
      expect(readSpec(Buffer.from(twice))).toEqual({ conflict: 'spec.dump has "annotations" more than once' });
    }
  });

  it.each(["null", "[]", '"none"', "{}"])("finds annotations twice where the last of them are %s", (last) => {
    const spec = `{"annotations":{"io.kubernetes.pod.name":"web-0"},"annotations":${last}}`;
    expect(readSpec(Buffer.from(spec))).toEqual({ conflict: 'spec.dump has "annotations" more than once' });
  });

  it("takes what cannot be parsed for saying nothing, even twice", () => {
    const key = '"io.kubernetes.pod.name":"web-0"';
    expect(readSpec(Buffer.from(`{"annotations":{${key},${key}`))).toEqual({});
    const labels = { "io.kubernetes.cri-o.Labels": `{${key},${key}` };
    expect(specOf(labels)).toEqual({});
    expect(readSpec(Buffer.from(`{"annotations":{"annotations`))).toEqual({});
  });

  it("never throws", () => {
    const keys = fc.constantFrom(
      "io.kubernetes.pod.name",
      "io.kubernetes.cri-o.Labels",
      "io.kubernetes.cri.sandbox-name",
    );
    fc.assert(fc.property(fc.dictionary(keys, fc.jsonValue()), (annotations) => void specOf(annotations)));
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void readSpec(bytes)));
  });
});

describe("identify", () => {
  it.each(realArchives())("tells whose $file is", ({ file, bytes }) => {
    const config = JSON.parse(contentOf(bytes, "config.dump")) as { name: string };
    const [container = "", pod = "", namespace = ""] = config.name.split("_");
    expect(identify(nameOf(file), walkBytes(bytes).verdict)).toEqual(identified({ namespace, pod, container }));
  });

  it("tells every container's archives apart, whichever runtime wrote them, and guesses none without its word", () => {
    fc.assert(
      fc.property(arbitraryIdentity, fc.constantFrom(...RUNTIMES), (identity, runtime) => {
        const name = nameOf(archiveName(identity));
        const { verdict } = walkBytes(archiveBytes({ ...identity, runtime }));
        expect(identify(name, verdict)).toEqual(identified(identity));
        const silent = walkBytes(archiveBytes({ ...identity, runtime: "none" })).verdict;
        expect(identify(name, silent)).toEqual(name.isAmbiguous ? unidentified : identified(identity));
      }),
    );
  });

  it("never takes an archive for one of a container that its name could not stand for", () => {
    fc.assert(
      fc.property(arbitraryIdentity, arbitraryIdentity, (one, other) => {
        fc.pre(archiveName(one) !== archiveName(other));
        const { verdict } = walkBytes(archiveBytes(other));
        expect(identify(nameOf(archiveName(one)), verdict)).toEqual(unidentified);
      }),
    );
  });

  it("names no other than a candidate, however the archive is damaged", () => {
    const arbitraryDamage = fc.array(fc.record({ at: fc.nat(5000), byte: fc.nat(255) }), { maxLength: 10 });
    fc.assert(
      fc.property(arbitraryDamage, fc.boolean(), (damage, isAmbiguous) => {
        const name = isAmbiguous ? ambiguous() : plain();
        const bytes = archiveBytes({ ...(isAmbiguous ? AMBIGUOUS : PLAIN), pagesBytes: 0 });
        for (const { at, byte } of damage) bytes[at % bytes.length] = byte;
        const found = identify(name, walkBytes(bytes).verdict);
        if (found.kind === "identified") expect(name.candidates).toContain(found.identity);
      }),
      { numRuns: soak(1000) },
    );
  });

  it.each([undefined, failed, torn(), refused(), ended(undefined), ended({}), torn({})])(
    "takes a name of one reading as it is when spec.dump says nothing: %j",
    (verdict) => {
      expect(identify(plain(), verdict)).toEqual(identified(PLAIN));
    },
  );

  it.each([
    [{ pod: "other" }],
    [{ namespace: "other" }],
    [{ container: "other" }],
    [{ ...PLAIN, pod: "web-1" }],
    [{ namespace: "SHOP" }],
  ])("takes nobody for the owner when spec.dump contradicts the name with %j, torn or not", (spec) => {
    for (const verdict of [ended(spec), torn(spec), refused(spec)])
      expect(identify(plain(), verdict)).toEqual(unidentified);
  });

  it("names in its reason what spec.dump said, and no more, or that it says nothing", () => {
    const reasonOf = (name: ArchiveName, verdict: Verdict) => {
      const found = identify(name, verdict);
      return found.kind === "unidentified" ? found.reason : found.kind;
    };
    expect(reasonOf(plain(), ended({ namespace: "shop", pod: "web-1" }))).toBe(
      'spec.dump names namespace "shop", pod "web-1", which the file name cannot stand for',
    );
    expect(reasonOf(plain(), ended({ container: "x" }))).toBe(
      'spec.dump names container "x", which the file name cannot stand for',
    );
    expect(reasonOf(plain(), torn({ conflict: "says two things" }))).toBe("says two things");
    expect(reasonOf(ambiguous(), ended(undefined))).toBe(
      "the file name has more than one reading, and there is no spec.dump to decide",
    );
    expect(reasonOf(ambiguous(), ended({ pod: "p" }))).toBe(
      "the file name has more than one reading, and spec.dump does not decide",
    );
  });

  it("shows in its reason what is no printable ASCII by its code, and of a long name the first 253 characters", () => {
    const rest = "which the file name cannot stand for";
    expect(identify(plain(), ended({ pod: '\u009b"é\n\u2028' }))).toEqual({
      kind: "unidentified",
      reason: `spec.dump names pod "\\u009b\\"\\u00e9\\n\\u2028", ${rest}`,
    });
    expect(identify(plain(), ended({ pod: "x".repeat(1000) }))).toEqual({
      kind: "unidentified",
      reason: `spec.dump names pod "${"x".repeat(253)}", ${rest}`,
    });
  });

  it("takes nobody for the owner when spec.dump contradicts itself or is there twice", () => {
    for (const name of [plain(), ambiguous()]) expect(identify(name, torn({ conflict: "two" }))).toEqual(unidentified);
    const entry = { name: "spec.dump", content: specBytes(PLAIN) };
    expect(identify(plain(), walkBytes(tarBytes([entry, entry])).verdict)).toEqual(unidentified);
  });

  it.each([undefined, failed, torn(), torn({}), torn({ pod: "p" })])(
    "leaves a name of several readings undecided while more may come: %j",
    (verdict) => {
      expect(identify(ambiguous(), verdict)).toEqual(undecided);
    },
  );

  it.each([refused(), ended(undefined), ended({}), refused({}), ended({ pod: "p" })])(
    "takes nobody for the owner of a name of several readings when the walk is over without an answer: %j",
    (verdict) => {
      expect(identify(ambiguous(), verdict)).toEqual(unidentified);
    },
  );

  it.each([{ namespace: "team-prod" }, { container: "web" }, AMBIGUOUS])(
    "decides between several readings by %j alone, also in an archive torn behind it",
    (spec) => {
      for (const verdict of [ended(spec), torn(spec), refused(spec)]) {
        expect(identify(ambiguous(), verdict)).toEqual(identified(AMBIGUOUS));
      }
    },
  );

  it("wants spec.dump's word even where a double dash leaves one reading only", () => {
    const identity = { namespace: "a", pod: "p", container: "b--c" };
    const name = nameOf(archiveName(identity));
    expect(identify(name, ended(undefined))).toEqual(unidentified);
    expect(identify(name, ended({ pod: "p" }))).toEqual(unidentified);
    expect(identify(name, torn())).toEqual(undecided);
    expect(identify(name, ended({ namespace: "a" }))).toEqual(identified(identity));
  });
});

/** The content of a small entry, found by its header. */
function contentOf(bytes: Buffer, entry: string): string {
  const header = bytes.indexOf(`${entry}\0`);
  const size = Number.parseInt(bytes.toString("latin1", header + 124, header + 135), 8);
  return bytes.toString("utf8", header + 512, header + 512 + size);
}
