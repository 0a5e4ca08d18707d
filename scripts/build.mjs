import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { sourceDate } from "./source-date.mjs";
import { listThirdParty, toBillOfMaterials, writeThirdParty } from "./third-party.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The commands: each becomes one self-contained file, dist/NAME.js. */
const commands = ["agent", "coordinator", "standalone"];
/** Those that the image has. */
const shippedCommands = ["agent", "coordinator"];

/**
 * Parts of libraries that nothing uses, and that take memory or time just by being loaded: HTTP/2, checks and serializers
 * made from JSON schemas, requests without a network, logging in another thread, metrics that are pushed or summed over
 * processes; for the agent, which counts each megabyte, the metrics of Node itself. What would use one after all fails
 * with the name of the part.
 */
const unused = [
  {
    of: "fastify",
    modules: /^(node:http2|@fastify\/ajv-compiler|@fastify\/fast-json-stringify-compiler|light-my-request)$/,
  },
  { of: "pino", modules: /^thread-stream$/ },
  { of: "prom-client", modules: /^\.\/lib\/(pushgateway|cluster|summary)$/ },
];
const unusedByAgent = [...unused, { of: "prom-client", modules: /^\.\/lib\/defaultMetrics$/ }];

const leaveOut = (parts) => ({
  name: "leave-out",
  setup(build) {
    for (const { of, modules } of parts) {
      build.onResolve({ filter: modules }, ({ path, importer }) =>
        importer.includes(`/node_modules/${of}/`) ? { path: `${of}: ${path}`, namespace: "unused" } : undefined,
      );
    }
    build.onLoad({ filter: /.*/, namespace: "unused" }, ({ path }) => ({
      contents: `const fail = () => { throw new Error(${JSON.stringify(`${path} is left out of this bundle`)}); };
        module.exports = () => () => fail;`,
    }));
  },
});

/**
 * V8 keeps a program's text for as long as it runs: with a single character beyond ASCII in it, at two bytes for each.
 * esbuild escapes such characters wherever it can, which is not within regular expressions.
 */
async function refuseWideText(name) {
  const found = /.{0,40}[\u0080-\uffff].{0,40}/.exec(await readFile(join(root, "dist", `${name}.js`), "utf8"));
  if (found !== null) throw new Error(`dist/${name}.js: write as \\u…, for the sake of its memory: ${found[0]}`);
}

/** Bundles every command. Takes a fraction of a second, so callers need not ask whether anything changed. */
export async function buildBundles() {
  await mkdir(join(root, "dist", "bin"), { recursive: true });
  // Where the bundles are copied to there is no other package.json to say what they are.
  await writeFile(join(root, "dist", "package.json"), '{ "type": "module" }\n');
  const built = await Promise.all(commands.map(buildBundle));
  await Promise.all(shippedCommands.map(refuseWideText));
  await Promise.all(shippedCommands.map(writeStarter));
  const shipped = built.filter((_, index) => shippedCommands.includes(commands[index])).map(({ metafile }) => metafile);
  const packages = await listThirdParty(shipped, root);
  await writeThirdParty(packages, join(root, "dist", "third-party"));
  const { name, version } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
  const seconds = sourceDate();
  const bill = toBillOfMaterials(packages, {
    project: { name, version },
    lock: await readFile(join(root, "pnpm-lock.yaml"), "utf8"),
    node: process.versions.node,
    timeMs: seconds === undefined ? Date.now() : seconds * 1000,
  });
  await writeFile(join(root, "dist", "sbom.cdx.json"), bill);
}

/**
 * What starts a bundle in the image by its name alone, so that `kubectl exec … -- agent list` does. The image has no shell,
 * and the kernel hands an interpreter one argument: of the agent's flags the one that saves most.
 */
async function writeStarter(name) {
  const file = join(root, "dist", "bin", name);
  await writeFile(file, `#!/usr/local/bin/node --optimize-for-size\nimport("/app/${name}.js");\n`);
  await chmod(file, 0o755);
}

function buildBundle(name) {
  return build({
    absWorkingDir: root,
    entryPoints: [{ in: `${name}/src/main.ts`, out: name }],
    outdir: "dist",
    bundle: true,
    platform: "node",
    target: "node24",
    format: "esm",
    sourcemap: "linked",
    sourcesContent: false,
    metafile: true,
    legalComments: "none",
    // Names stay as they are, for the sake of stack traces.
    minifyWhitespace: true,
    minifySyntax: true,
    plugins: [leaveOut(name === "agent" ? unusedByAgent : unused)],
    // Some libraries are CommonJS and ask for Node's own modules with require.
    banner: {
      js: 'import { createRequire as bundleRequire } from "node:module"; const require = bundleRequire(import.meta.url);',
    },
    logLevel: "warning",
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await buildBundles();
