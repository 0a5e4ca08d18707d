import { expect, it } from "vitest";
import { parseArchiveName } from "../../src/archive/name.ts";
import { startWalk, type Verdict, type Walk } from "../../src/archive/walk.ts";
import { createSharing } from "../../src/inventory/sharing.ts";
import { archiveName } from "../support/archives.ts";

const parse = (parts: Parameters<typeof archiveName>[0]) => {
  const name = parseArchiveName(archiveName(parts));
  if (name === undefined) throw new Error("a name");
  return name;
};
const aWalk = (verdict: Verdict | undefined): Walk => ({ ...startWalk(), verdict });
const spec = { namespace: "team", pod: "web-0", container: "prod-app" };

it("gives two archives of a container the same name of their owner", () => {
  const sharing = createSharing();
  const older = sharing.name(parse({ namespace: "team-prod", time: "2026-01-02T03:04:05Z" }));
  const newer = sharing.name(parse({ namespace: "team-prod", time: "2026-01-02T03:04:06Z" }));
  expect(newer).toBe(older);
});

it("keeps apart what differs in pod, namespace or container", () => {
  const sharing = createSharing();
  for (const parts of [{}, { pod: "web-1" }, { namespace: "store" }, { container: "other" }]) {
    const name = parse(parts);
    const { pod, candidates, isAmbiguous } = name;
    expect(sharing.name(name)).toEqual({ pod, candidates, isAmbiguous });
  }
});

it("shares what it holds also when it holds as much as it may, and begins anew with the next", () => {
  const sharing = createSharing();
  const first = sharing.name(parse({ pod: "web-0" }));
  for (let pod = 1; pod < 50_000; pod += 1) sharing.name({ pod: `web-${pod}`, candidates: [], isAmbiguous: false });
  expect(sharing.name(parse({ pod: "web-0" }))).toBe(first);
  sharing.name(parse({ pod: "one-more" }));
  expect(sharing.name(parse({ pod: "web-0" }))).not.toBe(first);
});

it("makes one of two walks that ended with the same of the same container", () => {
  const sharing = createSharing();
  const first = sharing.walk(spec, aWalk({ kind: "ended", hasConfig: true, hasImages: true, spec }));
  expect(sharing.walk(spec, aWalk({ kind: "ended", hasConfig: true, hasImages: true, spec: { ...spec } }))).toBe(first);
  const other = aWalk({ kind: "ended", hasConfig: false, hasImages: true, spec });
  expect(sharing.walk(spec, other)).toBe(other);
});

it("leaves walks alone that go on, failed, or are nobody's", () => {
  const sharing = createSharing();
  for (const verdict of [
    undefined,
    { kind: "torn", isResumed: false, spec },
    { kind: "failed", code: "EIO" },
  ] as const) {
    sharing.walk(spec, aWalk(verdict));
    const walk = aWalk(verdict);
    expect(sharing.walk(spec, walk)).toBe(walk);
  }
  const ended = { kind: "ended", hasConfig: true, hasImages: true, spec } as const;
  sharing.walk(undefined, aWalk(ended));
  const walk = aWalk(ended);
  expect(sharing.walk(undefined, walk)).toBe(walk);
});
