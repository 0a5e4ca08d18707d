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
