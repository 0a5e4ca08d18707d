import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The commands: each becomes one self-contained file, dist/NAME.js. */
const commands = ["agent", "coordinator", "standalone"];

/** Bundles every command. Takes a fraction of a second, so callers need not ask whether anything changed. */
export async function buildBundles() {
  await build({
    absWorkingDir: root,
    entryPoints: commands.map((name) => ({ in: `${name}/src/main.ts`, out: name })),
    outdir: "dist",
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    sourcemap: "linked",
    sourcesContent: false,
    legalComments: "none",
    // Some libraries are CommonJS and ask for Node's own modules with require.
    banner: {
      js: 'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildBundles();
