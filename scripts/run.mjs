// The two commands of a newcomer, `npm start` and `npm test`, on a machine with nothing but git, Node 20 and npm.
// Plain JavaScript without dependencies, because it is what installs them.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";

const OLDEST_NODE = 24;
const root = fileURLToPath(new URL("..", import.meta.url));
const bin = join(root, "node_modules", ".bin");
const ownNode = join(root, "node_modules", "node", "bin", "node");

/** How often to look whether npm is still there, in milliseconds. */
const LOOK_MS = 250;

/** npm, which `exec` in package.json makes our parent; undefined if it is not npm that runs this. */
const npm = process.env.npm_lifecycle_event === undefined ? undefined : process.ppid;
/** Whether npm ended and did not tell us: it passes on SIGINT and SIGTERM alone. */
const isAlone = () => npm !== undefined && process.ppid !== npm;

/**
 * Runs a command in the project's folder. Returns its exit code, 128 + n if signal n ended it. A signal that ends this
 * process ends the command first, and so does the end of npm; nothing more is run then.
 */
function run(command, args, { stdio = "inherit" } = {}) {
  const env = { ...process.env, PATH: `${bin}${delimiter}${process.env.PATH}` };
  const child = spawn(command, args, { cwd: root, stdio, env });
  return new Promise((resolve) => {
    let isStopped = false;
    const stop = (signal) => {
      isStopped = true;
      child.kill(signal);
    };
    const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
    for (const signal of signals) process.on(signal, stop);
    const looking = setInterval(() => isAlone() && stop("SIGTERM"), LOOK_MS);
    const ended = (code) => {
      clearInterval(looking);
      for (const signal of signals) process.off(signal, stop);
      if (isStopped) process.exit(code);
      resolve(code);
    };
    child.once("error", (error) => {
      console.error(`cannot run ${command}: ${error.message}`);
      ended(1);
    });
    child.once("exit", (code, signal) => ended(code ?? 128 + constants.signals[signal]));
  });
}

/** Installs exactly what the lockfile names, when it is not installed yet. */
async function install() {
  const stamp = join(root, "node_modules", ".installed");
  const wanted = createHash("sha256")
    .update(readFileSync(join(root, "pnpm-lock.yaml")))
    .update(process.platform + process.arch)
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted) return;
  const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  console.error(`Installing dependencies with ${packageManager} (once, about half a minute) …`);
  const pnpm = ["--yes", "--loglevel=error", packageManager, "install", "--frozen-lockfile", "--loglevel=error"];
  // Its output goes to stderr: stdout belongs to the command that was asked for.
  const code = await run("npx", pnpm, { stdio: ["ignore", 2, 2] });
  if (code !== 0) {
    console.error("The installation failed; the lines above say why. It can simply be tried again.");
    process.exit(code);
  }
  writeFileSync(stamp, wanted);
}

function node() {
  return Number(process.versions.node.split(".")[0]) >= OLDEST_NODE ? process.execPath : ownNode;
}

async function check() {
  return (await run(join(bin, "tsc"), ["-b"])) || run(join(bin, "biome"), ["check", "--error-on-warnings", "."]);
}

async function test(args) {
  // Everything runs even where something before it fails: all results are wanted. All tests come last, with their summary.
  const failed = [];
  if (await check()) failed.push("types and lint");
  if (args.length === 0 && (await takeBranches())) failed.push("branches that tests must take");
  // The summary at the end counts them: it may be all that is left of a long log.
  process.env.FAILED_BEFORE = failed.join("\n");
  return (await runTests(args)) || (failed.length > 0 ? 1 : 0);
}

function runTests(args) {
  return run(node(), [join(root, "node_modules", "vitest", "vitest.mjs"), "run", ...args]);
}

/** Whether tests take every branch of what leads to a deletion; names the files and lines where not. */
async function takeBranches() {
  const failed = await runTests(["--config", "scripts/branches.vitest.mjs"]);
  if (failed) {
    console.error(
      "Tests must pass and take every branch of the files in scripts/branches.vitest.mjs, all of which lead to a",
    );
    console.error("deletion: test what is named above, or do without it.");
  }
  return failed;
}

/** What longer runs find that short ones do not; the shape of the tests is the same. */
function soak(args) {
  process.env.SOAK ??= "20";
  return runTests(args);
}

/** Asks the registry whether any dependency, tools too, has a known hole; high ones fail. Needs no installation. */
function lookUpAdvisories() {
  const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return run("npx", ["--yes", packageManager, "audit", "--audit-level", "high"]);
}

/** Which changes to the code no test notices; its folders of tests one after the other. */
function mutants(files) {
  return run(node(), ["scripts/mutants.mjs", ...files]);
}

const [command, ...args] = process.argv.slice(2);
if (command !== "advisories") await install();
switch (command) {
  case "check":
    process.exit(await check());
    break;
  case "test":
    process.exit(await test(args));
    break;
  case "advisories":
    process.exit(await lookUpAdvisories());
    break;
  case "soak":
    process.exit(await soak(args));
    break;
  case "mutants":
    process.exit(await mutants(args));
    break;
  case "build":
    process.exit(await run(node(), ["scripts/build.mjs"]));
    break;
  case "bench":
    process.exit(await run(node(), ["e2e/bench/run.ts", ...args]));
    break;
  case "manifests":
  case "package":
  case "rootfs":
  case "image":
    process.exit(await run(node(), [`scripts/${command}.mjs`, ...args]));
    break;
  case "start": {
    const { buildBundles } = await import("./build.mjs");
    await buildBundles();
    // It ends when its IPC channel closes, even if this process is killed.
    const stdio = ["inherit", "inherit", "inherit", "ipc"];
    process.exit(await run(node(), ["--enable-source-maps", "dist/standalone.js", ...args], { stdio }));
    break;
  }
  default:
    console.error(
      `usage: run.mjs start | test | soak | mutants | check | advisories | build | bench | manifests | package | rootfs | image`,
    );
    process.exit(2);
}
