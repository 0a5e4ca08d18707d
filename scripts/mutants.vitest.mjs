import { defineConfig } from "vitest/config";

/** How Stryker runs the tests: in its copy of the project, where nothing is bundled. */
export default defineConfig({
  // What is installed leads to the packages of the project itself, whose code is not changed.
  resolve: { alias: [{ find: /^@cro\/(\w+)\/(.+)$/, replacement: `${process.cwd()}/$1/src/$2.ts` }] },
  test: {
    include: ["**/*.test.ts"],
    setupFiles: ["shared/test/support/soak.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
