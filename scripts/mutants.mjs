// Mutation testing: changes the code in every small way that Stryker knows, and sees whether a test notices.
// usage: mutants.mjs [FILE…]; without one, all the files of docs/testing.md.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Stryker } from "@stryker-mutator/core";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

/** What decides, and what deletes. */
const FILES = [
  "agent/src/archive/archive.ts",
  "agent/src/archive/identity.ts",
  "agent/src/archive/json-members.ts",
  "agent/src/archive/name.ts",
  "agent/src/archive/spec.ts",
  "agent/src/archive/state.ts",
  "agent/src/archive/walk-file.ts",
  "agent/src/archive/walk.ts",
  "agent/src/clock.ts",
  "agent/src/enforce/ages.ts",
  "agent/src/enforce/attention.ts",
  "agent/src/enforce/carry-out.ts",
  "agent/src/enforce/disk.ts",
  "agent/src/enforce/enforcer.ts",
  "agent/src/enforce/failures.ts",
  "agent/src/enforce/remove.ts",
  "agent/src/enforce/watermark.ts",
  "agent/src/inventory/agenda.ts",
  "agent/src/inventory/archive-index.ts",
  "agent/src/inventory/directory.ts",
  "agent/src/inventory/entry.ts",
  "agent/src/inventory/observer.ts",
  "agent/src/inventory/read-ahead.ts",
  "agent/src/inventory/seen.ts",
  "agent/src/inventory/sharing.ts",
  "agent/src/inventory/slice.ts",
  "agent/src/policy/accept.ts",
  "agent/src/policy/orphan-proofs.ts",
  "agent/src/retention/explain.ts",
  "agent/src/retention/plan.ts",
  "agent/src/retention/scope.ts",
  "coordinator/src/agents/client.ts",
  "coordinator/src/agents/directive.ts",
  "coordinator/src/agents/discover.ts",
  "coordinator/src/agents/nodes.ts",
  "coordinator/src/agents/push.ts",
  "coordinator/src/agents/step.ts",
  "coordinator/src/certs/facts.ts",
  "coordinator/src/certs/issue.ts",
  "coordinator/src/certs/rotate.ts",
  "coordinator/src/certs/secret-store.ts",
  "coordinator/src/certs/store.ts",
  "coordinator/src/leader/election.ts",
  "coordinator/src/leader/lease.ts",
  "coordinator/src/leader/step.ts",
  "coordinator/src/liveness/hold.ts",
  "coordinator/src/liveness/pods.ts",
  "coordinator/src/liveness/prover.ts",
  "coordinator/src/liveness/step.ts",
  "coordinator/src/policy/conditions.ts",
  "coordinator/src/policy/in-force.ts",
  "coordinator/src/policy/judge.ts",
  "coordinator/src/policy/record.ts",
  "coordinator/src/policy/rest.ts",
  "coordinator/src/policy/ruling.ts",
  "shared/src/duration.ts",
  "shared/src/policy/govern.ts",
  "shared/src/policy/workload.ts",
  "shared/src/quantity.ts",
  "shared/src/wire/read-report.ts",
];

/** Their tests wait for real time when they fail, so that they are not run for other files. */
const TIMED = ["agent/src/inventory/observer.ts", "coordinator/src/liveness/prover.ts"];

/** Less is a reason to look: the command fails. */
const LOWEST_SCORE = 90;

/** Has the tests of one folder, which mirrors the files' own, notice what they can. Returns the rows of the table. */
async function mutate(name, files) {
  const folder = dirname(files[0]);
  const report = join("coverage/mutants", `${name.replaceAll("/", "-")}.json`);
  process.env.MUTANTS_TIMED = TIMED.includes(name) ? "1" : "";
  forgetWhatLived(report);
  await new Stryker({
    mutate: files,
    testRunner: "vitest",
    plugins: ["@stryker-mutator/vitest-runner"],
    // Not testFiles, with which Stryker 10.1 forgets to put in place the mutants of what a module computes once.
    vitest: { configFile: "scripts/mutants.vitest.mjs", dir: folder.replace("/src", "/test") },
    coverageAnalysis: "perTest",
    ignorePatterns: [
      "/*",
      "!/agent",
      "!/coordinator",
      "!/shared",
      "!/charts",
      "!/config",
      "!/fixtures",
      "!/scripts",
      "!/package.json",
      "!/tsconfig.base.json",
    ],
    // Stryker would rewrite the project's with an interface that TypeScript 7 no longer has; tests need none.
    tsconfigFile: "none",
    cleanTempDir: "always",
    incremental: true,
    incrementalFile: report,
    reporters: ["clear-text", "progress-append-only"],
    clearTextReporter: { allowColor: false, logTests: false, reportTests: false, reportScoreTable: false },
    allowConsoleColors: false,
    concurrency: Number(process.env.MUTANTS_CONCURRENCY ?? 1),
    // A mutant that runs for ever is killed by time alone: never by that of a machine that is busy.
    timeoutMS: 20_000,
    timeoutFactor: 4,
  }).runMutationTest();
  const results = JSON.parse(readFileSync(report, "utf8")).files;
  return files.map((file) => toRow(file, results[file].mutants));
}

/** Only what was noticed need not be tried again: new tests may notice the rest, and Stryker does not always see that. */
function forgetWhatLived(report) {
  if (!existsSync(report)) return;
  const content = JSON.parse(readFileSync(report, "utf8"));
  for (const file of Object.values(content.files))
    file.mutants = file.mutants.filter(({ status }) => status === "Killed" || status === "Timeout");
  writeFileSync(report, JSON.stringify(content));
}

function toRow(file, mutants) {
  const having = (...states) => mutants.filter(({ status }) => states.includes(status)).length;
  const killed = having("Killed", "Timeout");
  const all = killed + having("Survived", "NoCoverage");
  return { file, mutants: all, killed, score: all === 0 ? 100 : (100 * killed) / all };
}

// What only many random cases notice deserves a sentence of its own, and everything is over sooner.
process.env.SOAK ??= "0.1";
const asked = process.argv.slice(2);
const unknown = asked.filter((file) => !FILES.includes(file));
if (unknown.length > 0) {
  console.error(`${unknown.join(", ")}: not among the files whose mutants are looked at, in scripts/mutants.mjs`);
  process.exit(2);
}
const rows = [];
const groupOf = (file) => (TIMED.includes(file) ? file : dirname(file));
for (const [name, files] of Map.groupBy(asked.length > 0 ? asked : FILES, groupOf))
  rows.push(...(await mutate(name, files)));
console.log("\n| file | mutants | killed | score |\n|---|---|---|---|");
for (const { file, mutants, killed, score } of rows)
  console.log(`| \`${file}\` | ${mutants} | ${killed} | ${Math.floor(score)} % |`);
process.exit(rows.every(({ score }) => score >= LOWEST_SCORE) ? 0 : 1);
