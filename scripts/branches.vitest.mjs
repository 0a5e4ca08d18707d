import { defineConfig } from "vitest/config";

/**
 * What leads to a deletion has no branch that no test takes. Only tests in their own process are counted, and of those the
 * ones that need no right of root's and do not wait for real time; what measures time is not slowed by being counted.
 */
export default defineConfig({
  test: {
    include: ["agent/test/clock.test.ts", "agent/test/{archive,enforce,policy,retention}/**/*.test.ts"],
    exclude: ["agent/test/enforce/{enforcer,races}.test.ts"],
    setupFiles: ["shared/test/support/soak.ts"],
    maxWorkers: 2,
    testTimeout: 60_000,
    reporters: [["default", { summary: false }]],
    coverage: {
      enabled: true,
      provider: "v8",
      include: [
        "agent/src/archive/*.ts",
        "agent/src/enforce/*.ts",
        "agent/src/clock.ts",
        "agent/src/policy/{accept,orphan-proofs}.ts",
        "agent/src/retention/{plan,scope}.ts",
      ],
      thresholds: { branches: 100, perFile: true },
      // Names the files with lines where a branch begins that no test takes, and no others.
      reporter: [["text", { skipFull: true }]],
      reportsDirectory: "coverage/branches",
    },
  },
});
