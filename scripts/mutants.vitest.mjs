import { defineConfig } from "vitest/config";
import { BaseSequencer } from "vitest/node";

/** The quickest files first: most mutants are noticed by them, and the first test that fails ends the run. */
class QuickestFirst extends BaseSequencer {
  async sort(files) {
    const durationOf = (file) => this.ctx.cache.getTestSpecificationResult(file)?.duration ?? 0;
    return files.toSorted((a, b) => durationOf(a) - durationOf(b));
  }
}

/** How Stryker runs the tests: in its copy of the project, where nothing is bundled. */
export default defineConfig({
  // What is installed leads to the packages of the project itself, whose code is not changed.
  resolve: { alias: [{ find: /^@cro\/(\w+)\/(.+)$/, replacement: `${process.cwd()}/$1/src/$2.ts` }] },
  test: {
    include: ["**/*.test.ts"],
    // These wait for real time, nearly a minute for each mutant that they do not notice: what they alone notice is not counted.
    exclude: [
      "**/{enforcer,races}.test.ts",
      ...(process.env.MUTANTS_TIMED ? [] : ["**/{prover,observer,news,news.model}.test.ts"]),
    ],
    setupFiles: ["shared/test/support/soak.ts"],
    sequence: { sequencer: QuickestFirst },
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
