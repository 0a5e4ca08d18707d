import { createGovernor } from "@cro/shared/policy/govern";
import { expect, it } from "vitest";
import { archivesOf, type Scope } from "../../src/enforce/attention.ts";
import type { InForce } from "../../src/enforce/in-force.ts";
import { createShortlists, NODE } from "../../src/enforce/shortlist.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { planRetention } from "../../src/retention/plan.ts";
import { anArchive, aPolicy, files, NOW_MS } from "../retention/builders.ts";

const POD: Scope = { namespace: "team", pod: "web" };

/** Shortlists of a policy whose scopes were planned for, and left nothing to do, with these archives of pod web. */
function begin(spec: Record<string, unknown>, archives: Array<Parameters<typeof anArchive>[0]>, { large = 1 } = {}) {
  const document = aPolicy(spec);
  const govern = createGovernor(document);
  const index = createArchiveIndex<Entry>();
  const losses: string[] = [];
  const shortlists = createShortlists({ index, large, onLoss: ({ file }, scope) => losses.push(`${scope} ${file}`) });
  shortlists.setPolicy({ document, govern } as unknown as InForce);
  const put = (options: Parameters<typeof anArchive>[0]) => {
    const entry = anArchive(options) as Entry;
    index.put(entry);
    return entry;
  };
  const entries = archives.map(put);
  shortlists.begin([POD]);
  shortlists.end([POD], true);
  const plan = () => {
    drain(shortlists.prepare(POD));
    const shortlist = shortlists.of(POD);
    const input = { policy: document, govern, nowMs: NOW_MS, orphans: [], isActive: () => true, node: undefined };
    const whole = planRetention({ ...input, archives: archivesOf(POD, { index, govern }) });
    if (shortlist === undefined) return undefined;
    const short = planRetention({ ...input, archives: shortlist.archives, ...shortlist.told });
    expect(files(short.deletions)).toEqual(files(whole.deletions));
    return { known: [...shortlist.archives].map(({ file }) => file), goes: files(short.deletions) };
  };
  const ofNode = (maxTotalBytes: number) => {
    drain(shortlists.prepareNode());
    return shortlists.ofNode(maxTotalBytes);
  };
  return { index, shortlists, losses, put, entries, plan, ofNode };
}

function drain(steps: Generator<void>): number {
  let taken = 0;
  while (!steps.next().done) taken += 1;
  return taken;
}

const perPod = (max: number, rest = {}) => ({ globalPolicy: { maxCheckpointsPerPod: max, ...rest } });
const series = (count: number, options = {}) =>
  Array.from({ length: count }, (_, at) => ({ ...options, file: `old-${at}`, age: 1000 - at }));

it("holds what came, what must go for it, and nothing else", () => {
  const { put, plan } = begin(perPod(50), series(50));
  put({ file: "new", age: 1 });
  expect(plan()).toEqual({ known: ["new", "old-0"], goes: ["old-0"] });
});

it("holds what came alone where no limit is broken", () => {
  const { put, plan } = begin(perPod(60), series(50));
  put({ file: "new", age: 1 });
  expect(plan()).toEqual({ known: ["new"], goes: [] });
});

it("holds what a floor keeps of each container, so that the floor keeps nothing else", () => {
  const { put, plan } = begin(perPod(4, { minCheckpointsPerContainer: 1 }), [
    { container: "side", file: "side-old", age: 900 },
    { container: "side", file: "side-new", age: 100 },
  ]);
  for (const age of [30, 20, 10]) put({ file: `main-${age}`, age });
  expect(plan()?.goes).toEqual(["side-old"]);
});

it("is empty where nothing came", () => {
  const { index, plan } = begin(perPod(50), series(50));
  index.remove("old-3");
  expect(plan()).toEqual({ known: [], goes: [] });
});

it("is none for a scope within the one that its archives are planned for with", () => {
  const { shortlists, plan, put } = begin({ globalPolicy: { maxCheckpointsPerNamespace: 50 } }, series(50));
  expect(plan()).toBeUndefined();
  put({ file: "new", age: 1 });
  shortlists.begin([POD]);
  shortlists.end([POD], true);
  expect(plan()).toBeUndefined();
});

it("is none where nothing is known to be done, or time may ask for more", () => {
  const { shortlists, put, plan, entries } = begin(perPod(50), series(50));
  put({ file: "new", age: 1 });
  shortlists.doubt({ namespace: "ops", pod: "web", container: "main" });
  expect(plan()).toBeDefined();
  shortlists.doubt(entries[0]?.identity as never);
  expect(plan()).toBeUndefined();
  shortlists.begin([POD]);
  shortlists.end([POD], false);
  put({ file: "newer", age: 0 });
  expect(plan()).toBeUndefined();
});

it("is none where very many came, where it could not be shorter, and where pins use a limit up", () => {
  const many = begin(perPod(50), series(50));
  for (let at = 0; at < 65; at += 1) many.put({ file: `new-${at}`, age: 1 });
  expect(many.plan()).toBeUndefined();
  const small = begin(perPod(50), series(50), { large: 51 });
  small.put({ file: "new", age: 1 });
  expect(small.plan()).toBeUndefined();
  const pinned = begin(perPod(2), series(2, { pinned: true }));
  pinned.put({ file: "new", age: 1 });
  expect(pinned.plan()).toBeUndefined();
});

it("tells what counts for less than before in a scope of which it knows the sums alone", () => {
  const { index, losses, put, plan, entries, shortlists } = begin(perPod(50), series(50));
  put({ file: "new", age: 1 });
  plan();
  const [first, second, third, fourth] = entries as [Entry, Entry, Entry, Entry];
  for (const [entry, change] of [
    [first, { size: first.size + 1 }],
    [second, { size: second.size - 1 }],
    [third, { state: "unsettled" }],
    [fourth, { pinned: true }],
  ] as const) {
    Object.assign(entry, change);
    index.put(entry);
  }
  index.remove("old-9");
  // Another file under the same name is another archive.
  put({ file: "old-8", age: 992 });
  expect(losses).toEqual(["old-1", "old-2", "old-3", "old-9", "old-8"].map((file) => `team/web ${file}`));
  losses.length = 0;
  shortlists.clear();
  index.remove("old-7");
  expect(losses).toEqual([]);
});

it("of the node holds the oldest of the namespaces that have the most, and the newest of their containers", () => {
  const { index, ofNode, put, losses } = begin({ nodePolicy: { maxTotalSize: "10Mi" } }, series(6));
  for (const age of [50, 40, 30]) put({ namespace: "ops", file: `ops-${age}`, age, mib: 3 });
  put({ namespace: "ops-b", file: "small", age: 900 });
  const shortlist = ofNode(12 * 1024 * 1024);
  expect([...(shortlist?.archives ?? [])].map(({ file }) => file)).toEqual([
    ...["ops-50", "ops-40", "old-0", "old-1", "old-2", "old-3", "ops-30", "old-5"],
  ]);
  expect(losses).toEqual([]);
  index.remove("small");
  expect(losses).toEqual([`${NODE} small`]);
  put({ file: "torn and pinned", age: 20, state: "incomplete", pinned: true });
  expect(ofNode(12 * 1024 * 1024)).toBeDefined();
  put({ file: "torn", age: 20, state: "incomplete" });
  expect(ofNode(12 * 1024 * 1024)).toBeUndefined();
  const onlyTorn = begin({}, [{ file: "torn and pinned", state: "incomplete", pinned: true }]);
  expect(onlyTorn.ofNode(1)).toBeDefined();
  expect(begin({}, series(3), { large: 4 }).ofNode(1)).toBeUndefined();
});

it("is got ready in steps, and knows in the end what came, changed and went in between", () => {
  const { index, shortlists, put, plan, entries } = begin(perPod(5000), series(5000));
  put({ file: "new", age: 1 });
  const steps = shortlists.prepare(POD);
  const changes = [
    () => put({ file: "newer", age: 0 }),
    () => index.remove("old-4999"),
    () => Object.assign(entries[0] as Entry, { state: "unsettled" }) && index.put(entries[0] as Entry),
    () => put({ file: "torn", age: 2, state: "incomplete" }),
  ];
  let taken = 0;
  for (; !steps.next().done; taken += 1) changes[taken]?.();
  expect(taken).toBeGreaterThan(changes.length);
  // It is there by now.
  expect(drain(shortlists.prepare(POD))).toBe(0);
  expect(plan()?.goes).toEqual(["torn"]);
});
