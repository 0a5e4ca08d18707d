import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { type Identification, identify } from "../../src/archive/identity.ts";
import { type ArchiveName, parseArchiveName } from "../../src/archive/name.ts";
import type { SpecFacts } from "../../src/archive/spec.ts";
import type { Verdict } from "../../src/archive/walk.ts";
import { archiveBytes, archiveName, POD_UID, type Runtime, specBytes, tarBytes } from "../support/archives.ts";
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

const ended = (spec: SpecFacts | undefined): Verdict => ({ kind: "ended", hasConfig: true, hasImages: true, spec });
const torn = (spec?: SpecFacts): Verdict => ({ kind: "torn", isResumed: false, spec });
const refused = (spec?: SpecFacts): Verdict => ({ kind: "refused", message: "at byte 0 is no tar header", spec });
const failed: Verdict = { kind: "failed", code: "EIO" };

const identified = (identity: typeof PLAIN, podUID?: string): Identification => ({
  kind: "identified",
  identity,
  podUID,
});
const unidentified = { kind: "unidentified", reason: expect.any(String) };
const undecided: Identification = { kind: "undecided" };

describe("identify", () => {
  it.each(realArchives())("tells whose $file is, and the pod's UID", ({ file, bytes }) => {
    const config = JSON.parse(contentOf(bytes, "config.dump")) as { name: string };
    const [container = "", pod = "", namespace = "", podUID] = config.name.split("_");
    expect(identify(nameOf(file), walkBytes(bytes).verdict)).toEqual(identified({ namespace, pod, container }, podUID));
  });

  it("tells every container's archives apart, whichever runtime wrote them, and guesses none without its word", () => {
    fc.assert(
      fc.property(arbitraryIdentity, fc.constantFrom(...RUNTIMES), (identity, runtime) => {
        const name = nameOf(archiveName(identity));
        const { verdict } = walkBytes(archiveBytes({ ...identity, runtime }));
        expect(identify(name, verdict)).toEqual(identified(identity, POD_UID));
        const silent = walkBytes(archiveBytes({ ...identity, runtime: "none" })).verdict;
        expect(identify(name, silent)).toEqual(name.isAmbiguous ? unidentified : identified(identity));
      }),
    );
  });

  it("never takes an archive for one of a container that its name could not stand for", () => {
    fc.assert(
      fc.property(arbitraryIdentity, arbitraryIdentity, (one, other) => {
        fc.pre(one.namespace !== other.namespace || one.pod !== other.pod);
        fc.pre(archiveName(one) !== archiveName(other));
        const { verdict } = walkBytes(archiveBytes(other));
        expect(identify(nameOf(archiveName(one)), verdict)).toEqual(unidentified);
      }),
    );
  });

  it("takes it for no other's, and never for nobody's, whatever a pod's author annotates under CRI-O", () => {
    const foreign = (writer: Runtime, identity: typeof PLAIN) =>
      JSON.parse(specBytes({ ...identity, runtime: writer, podUID: "0".repeat(32) }).toString()).annotations;
    fc.assert(
      fc.property(arbitraryIdentity, arbitraryIdentity, fc.nat(), (owner, other, at) => {
        const { candidates } = nameOf(archiveName(owner));
        // The best lie is another reading of the same name.
        for (const lie of [other, candidates[at % candidates.length] ?? other]) {
          const marks = { "io.kubernetes.cri-o.ContainerName": lie.container };
          const copied = { ...foreign("containerd", lie), ...foreign("checkpointctl", lie), ...marks };
          const { verdict } = walkBytes(archiveBytes({ ...owner, runtime: "cri-o", copied }));
          expect(identify(nameOf(archiveName(owner)), verdict)).toEqual(identified(owner, POD_UID));
        }
      }),
      { numRuns: soak(300) },
    );
  });

  it("takes what containerd restored for the container's that namespace and pod tell, by whatever name it goes", () => {
    fc.assert(
      fc.property(arbitraryIdentity, fc.constantFrom("containerd", "other", ""), (identity, container) => {
        const name = nameOf(archiveName(identity));
        fc.pre(name.candidates.every((reading) => reading.container !== container));
        const { verdict } = walkBytes(archiveBytes({ ...identity, spec: specBytes({ ...identity, container }) }));
        expect(identify(name, verdict)).toEqual(identified(identity, POD_UID));
      }),
    );
  });

  it("believes a container's name that is another reading's, and then takes nobody for the owner", () => {
    const [first, second] = ambiguous().candidates;
    expect(second).toEqual(AMBIGUOUS);
    for (const spec of [
      { ...AMBIGUOUS, container: `${first?.container}` },
      { namespace: "team-prod", container: `${first?.container}` },
      { namespace: "team", container: "web" },
    ])
      expect(identify(ambiguous(), ended(spec))).toEqual(unidentified);
    expect(identify(ambiguous(), ended({ namespace: "team", container: "containerd" }))).toEqual(
      identified({ ...AMBIGUOUS, namespace: "team", container: "prod-web" }),
    );
    expect(identify(ambiguous(), ended({ pod: "p", container: "containerd" }))).toEqual(unidentified);
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
    [{ namespace: "other", container: "app" }],
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
    expect(reasonOf(plain(), ended({ namespace: "x", container: "y", podUID: "z" }))).toBe(
      'spec.dump names namespace "x", container "y", which the file name cannot stand for',
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
