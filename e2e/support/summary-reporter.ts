import { relative } from "node:path";
import type { Reporter, TestCase, TestModule } from "vitest/node";

/** What is read of istanbul's coverage map. */
interface CoverageMap {
  files(): string[];
  fileCoverageFor(file: string): {
    branchMap: Record<string, { locations: Array<{ start: { line?: number } }>; loc: { start: { line: number } } }>;
    b: Record<string, number[]>;
  };
}

/**
 * Ends the output with what was not run, each by name, and with one line that machines read:
 * `N passed, N failed, N skipped`. With CI=true a test that was not run fails the run. Where all tests pass and coverage
 * is measured, the branches that none of them takes are named, and are one failure more.
 */
export default class SummaryReporter implements Reporter {
  private missed: string[] = [];

  onCoverage(coverage: unknown): void {
    this.missed = missedBranches(coverage as CoverageMap);
  }

  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const inState = (state: string) => tests.filter((test) => test.result().state === state);
    const broken = modules.filter((module) => module.state() === "failed" && module.errors().length > 0);
    const skipped = inState("skipped");
    for (const test of skipped) console.log(`NOT RUN  ${test.fullName}${reasonOf(test)}`);
    const isIncomplete = process.env.CI === "true" && skipped.length > 0;
    if (isIncomplete) {
      console.log("With CI=true a test that cannot run is a failure.");
      process.exitCode = 1;
    }
    const failures =
      inState("failed").length + broken.length + unhandledErrors.length + (isIncomplete ? skipped.length : 0);
    const hasMissed = failures === 0 && this.missed.length > 0;
    if (hasMissed) {
      for (const branch of this.missed) console.log(`NO TEST TAKES  ${branch}`);
      console.log("What leads to a deletion is tested in every branch: test these, or do without them.");
    }
    const failed = failures + (hasMissed ? 1 : 0);
    console.log(`\n${inState("passed").length} passed, ${failed} failed, ${isIncomplete ? 0 : skipped.length} skipped`);
  }
}

function reasonOf(test: TestCase): string {
  const result = test.result();
  return result.state === "skipped" && result.note ? `: ${result.note}` : "";
}

/** Each place, as `FILE:LINE`, where a branch begins that was not taken. */
function missedBranches(coverage: CoverageMap): string[] {
  const places = coverage.files().flatMap((file) => {
    const { branchMap, b } = coverage.fileCoverageFor(file);
    return Object.entries(branchMap).flatMap(([id, { locations, loc }]) =>
      locations
        .filter((_, at) => b[id]?.[at] === 0)
        // An else that is not written begins nowhere.
        .map(({ start }) => `${relative(process.cwd(), file)}:${start.line ?? loc.start.line}`),
    );
  });
  return [...new Set(places)];
}
