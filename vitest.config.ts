import { defineConfig } from "vitest/config";

const soak = Math.max(1, Number(process.env.SOAK ?? 1) || 1);

export default defineConfig({
  test: {
    include: ["{shared,agent,coordinator,standalone}/test/**/*.test.ts", "e2e/tests/**/*.test.ts"],
    globalSetup: ["e2e/support/build.ts"],
    // Two cores: what spawns processes and measures their reactions must not starve.
    maxWorkers: 2,
    setupFiles: ["shared/test/support/soak.ts"],
    testTimeout: 30_000 * soak,
    hookTimeout: 60_000,
    // Where `npm test` runs everything: what leads to a deletion has no branch that no test takes. Processes are not counted.
    coverage: {
      provider: "v8",
      include: [
        "agent/src/archive/*.ts",
        "agent/src/enforce/*.ts",
        "agent/src/policy/{accept,clock-trust,orphan-proofs}.ts",
        "agent/src/retention/{plan,scope}.ts",
      ],
      thresholds: { branches: 100 },
      // The summary names what is missing; the folder is only for the time of the run.
      reporter: [],
      reportsDirectory: "coverage/branches",
    },
    reporters: ["default", "./e2e/support/summary-reporter.ts"],
  },
});
