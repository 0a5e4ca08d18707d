import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { createGovernor } from "@cro/shared/policy/govern";
import { expect, it, onTestFinished } from "vitest";
import { systemClock } from "../src/clock.ts";
import { scanDirectory } from "../src/once.ts";
import { buildReport, type ReportHead } from "../src/report.ts";
import { explainPlan } from "../src/retention/explain.ts";
import { planRetention } from "../src/retention/plan.ts";
import { anInput } from "./retention/builders.ts";
import { realArchives } from "./support/real-archives.ts";
import { aFolder } from "./support/watching.ts";

it("the real archive of a static pod stays whatever is proved of it, nobody is asked about it, and others go", async () => {
  const folder = aFolder();
  for (const { file, bytes } of realArchives()) writeFileSync(join(folder, file), bytes);
  const { directory, entries } = await scanDirectory(folder, systemClock, 600_000);
  onTestFinished(() => directory.close());
  const gone = entries.flatMap(({ identity }) => (identity === undefined ? [] : [{ ...identity, listedUpTo: 1000 }]));
  const [statics, others] = [true, false].map((wanted) =>
    entries.filter(({ file }) => file.startsWith("checkpoint-static.one-node-a_") === wanted),
  );
  expect([statics?.length, others?.length]).toEqual([1, entries.length - 1]);

  const release = { globalPolicy: { retainOrphan: false } };
  const settled = entries.map((entry) => ({ ...entry, settled: true }));
  const input = anInput(settled, release, { orphans: gone });
  const plan = planRetention(input);
  const filesOf = (some: readonly { file: string }[] | undefined) => some?.map(({ file }) => file).sort();
  expect(filesOf(plan.deletions.map(({ archive }) => archive))).toEqual(filesOf(others));
  const kept = explainPlan(plan, input).filter(({ action }) => action === "keep");
  expect(kept.map(({ why }) => why)).toEqual([expect.stringContaining("its pod may be a static one")]);

  const { report } = buildReport({
    head: { node: "node-a" } as ReportHead,
    archives: entries,
    govern: createGovernor(input.policy),
    isByUid: true,
    unreachable: [],
    pinnedLimits: [],
    planned: {},
    deletions: { last: [], total: 0, sums: {} },
    orphanCursor: 0,
  });
  const asked = report.orphanScopes.map(({ namespace, pod }) => `${namespace}/${pod}`).sort();
  const named = others?.map(({ identity }) => `${identity?.namespace}/${identity?.pod}`);
  expect(asked).toEqual([...new Set(named)].sort());
});
