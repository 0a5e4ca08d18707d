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
    reporters: ["default", "./e2e/support/summary-reporter.ts"],
  },
});
