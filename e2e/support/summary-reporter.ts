import type { Reporter, TestCase, TestModule } from "vitest/node";

/**
 * Ends the output with what was not run, each by name, and with one line that machines read:
 * `N passed, N failed, N skipped`. With CI=true a test that was not run fails the run. The steps before the tests that
 * failed, a line each in FAILED_BEFORE, are named and counted as failed too.
 */
export default class SummaryReporter implements Reporter {
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
    const before = (process.env.FAILED_BEFORE ?? "").split("\n").filter((step) => step !== "");
    for (const step of before) console.log(`FAILED  before the tests: ${step}; the log above says why`);
    const failed = [inState("failed"), broken, unhandledErrors, before, isIncomplete ? skipped : []].flat().length;
    console.log(`\n${inState("passed").length} passed, ${failed} failed, ${isIncomplete ? 0 : skipped.length} skipped`);
  }
}

function reasonOf(test: TestCase): string {
  const result = test.result();
  return result.state === "skipped" && result.note ? `: ${result.note}` : "";
}
