import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["{shared,agent,coordinator,standalone}/test/**/*.test.ts", "e2e/tests/**/*.test.ts"],
    globalSetup: ["e2e/support/build.ts"],
    // Two cores: what spawns processes and measures their reactions must not starve.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    reporters: ["default", "./e2e/support/summary-reporter.ts"],
  },
});
