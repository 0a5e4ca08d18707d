// npm run rootfs -- FOLDER: makes the root file system of the image in a folder, for machines without Docker. Node, its libraries,
// and what the Dockerfile copies; `chroot FOLDER node /app/agent.js --help` runs it.
import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { makeRootFileSystem } from "../e2e/support/image.ts";
import { buildBundles } from "./build.mjs";

const [folder, ...rest] = process.argv.slice(2);
if (folder === undefined || rest.length > 0) {
  console.error("usage: npm run rootfs -- FOLDER");
  process.exit(2);
}
if (existsSync(folder) && readdirSync(folder).length > 0) {
  console.error(`${folder} is not empty; name a new folder`);
  process.exit(2);
}
await buildBundles();
mkdirSync(folder, { recursive: true });
const bytes = await makeRootFileSystem(resolve(folder));
console.log(`${folder}: ${(bytes / 1e6).toFixed(1)} MB above its base image`);
