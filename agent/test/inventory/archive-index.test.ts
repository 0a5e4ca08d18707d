import type { ContainerIdentity } from "@cro/shared/policy/govern";
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Archive } from "../../src/archive/archive.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";

const name = fc.constantFrom("a", "b", "c");
const identity = fc.record({ namespace: name, pod: name, container: name });
const step = fc.oneof(
  fc.record({
    kind: fc.constant("put" as const),
    file: fc.nat(9),
    identity: fc.option(identity, { nil: undefined }),
    other: identity,
    walked: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("remove" as const), file: fc.nat(9) }),
);

it("finds by scope exactly what was filed last, and knows which scopes wait for a walk", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), identity, (steps, asked) => {
      const index = createArchiveIndex<Archive>();
      const model = new Map<string, Archive>();
      for (const next of steps) {
        const file = `${next.file}`;
        if (next.kind === "remove") {
          index.remove(file);
          model.delete(file);
          continue;
        }
        // An archive keeps its object while what is known of it changes.
        const archive = model.get(file) ?? ({ file, candidates: [next.other] } as unknown as Archive);
        archive.identity = next.identity;
        archive.walked = next.walked;
        index.put(archive);
        model.set(file, archive);
      }
      const found = (archives: Iterable<Archive>) => [...archives].map(({ file }) => file).sort();
      const { namespace, pod, container } = asked;
      const expected = (fits: (archive: Archive) => boolean) => found([...model.values()].filter(fits));
      const of = (archive: Archive, scope: Partial<typeof asked>) =>
        archive.identity !== undefined &&
        Object.entries(scope).every(([key, value]) => archive.identity?.[key as "pod"] === value);
      expect(index.size).toBe(model.size);
      expect(found(index.all())).toEqual(expected(() => true));
      for (const scope of [{ namespace }, { namespace, pod }, { namespace, pod, container }]) {
        expect(found(index.inScope(scope))).toEqual(expected((archive) => of(archive, scope)));
      }
      const readings = ({ identity: known, candidates }: Archive) => (known ? [...candidates, known] : candidates);
      const waiting = [...model.values()].filter(({ walked }) => !walked);
      expect(index.unwalked).toBe(waiting.length);
      for (const scope of [[namespace], [namespace, pod], [namespace, pod, container]]) {
        const mayBeIn = (one: ContainerIdentity) =>
          [one.namespace, one.pod, one.container].slice(0, scope.length).join("/") === scope.join("/");
        const isBlocked = waiting.some((archive) => readings(archive).some(mayBeIn));
        expect([scope, index.isBlocked(scope.join("/"))]).toEqual([scope, isBlocked]);
      }
    }),
  );
});

const anArchive = (file: string, container: string, walked: boolean) => {
  const known = { namespace: "n", pod: "p", container };
  return { file, candidates: [known], identity: known, walked } as unknown as Archive;
};

it("tells of each scope when the last archive in it that was not walked is walked, filed under another owner or removed", () => {
  const index = createArchiveIndex<Archive>();
  const told: string[] = [];
  index.onUnblocked((scope) => told.push(scope));
  const [first, second, third] = [anArchive("1", "a", false), anArchive("2", "a", false), anArchive("3", "b", false)];
  for (const archive of [first, second, third]) index.put(archive);
  expect(index.get("2")).toBe(second);
  const toldBy = (act: () => void) => {
    told.length = 0;
    act();
    return told.sort();
  };
  const walk = (archive: Archive) => {
    archive.walked = true;
    index.put(archive);
  };
  // To be filed again as it was changes nothing.
  for (const archive of [third, third]) expect(toldBy(() => index.put(archive))).toEqual([]);
  expect(toldBy(() => walk(first))).toEqual([]);
  expect(toldBy(() => walk(first))).toEqual([]);
  expect(toldBy(() => index.remove("2"))).toEqual(["n/p/a"]);
  expect(toldBy(() => index.remove("2"))).toEqual([]);
  expect([index.isBlocked("n/p/a"), index.isBlocked("n/p"), index.unwalked]).toEqual([false, true, 1]);
  expect(toldBy(() => walk(third))).toEqual(["n", "n/p", "n/p/b"]);
  expect(index.unwalked).toBe(0);
});

it("takes another archive of the same name for another one, whatever the first one was", () => {
  const index = createArchiveIndex<Archive>();
  const [first, second] = [anArchive("1", "a", true), anArchive("1", "a", true)];
  index.put(first);
  index.put(second);
  expect([...index.inScope({ namespace: "n" })]).toEqual([second]);
  expect([...index.inScope({ namespace: "n" })][0]).toBe(second);
});

it("goes through the containers that are wanted alone, and names the namespaces that hold something", () => {
  const index = createArchiveIndex<Archive>();
  for (const container of ["a", "b"]) index.put(anArchive(container, container, true));
  const wanted = index.inScope({ namespace: "n" }, ({ namespace, pod, container }) => {
    expect([namespace, pod]).toEqual(["n", "p"]);
    return container === "b";
  });
  expect([...wanted].map(({ file }) => file)).toEqual(["b"]);
  expect([...index.namespaces()]).toEqual(["n"]);
  index.remove("a");
  expect([...index.namespaces()]).toEqual(["n"]);
  index.remove("b");
  expect([...index.namespaces()]).toEqual([]);
});

it("leaves the others where they are when one archive goes, whether its owner is known or not", () => {
  const index = createArchiveIndex<Archive>();
  const files = () => [...index.inScope({ namespace: "n", pod: "p", container: "a" })].map(({ file }) => file);
  for (const file of ["1", "2"]) index.put(anArchive(file, "a", true));
  index.put({ ...anArchive("3", "a", true), identity: undefined });
  index.remove("1");
  index.remove("3");
  expect([files(), index.get("1"), index.size]).toEqual([["2"], undefined, 1]);
  expect([...index.inScope({ namespace: "n", pod: "p", container: "none" })]).toEqual([]);
  expect([...index.inScope({ namespace: "n", pod: "none" })]).toEqual([]);
});
