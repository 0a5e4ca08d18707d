// npm run package -- --registry HOST --repository PATH [--digest sha256:…] --destination FOLDER: what a release is made of, the
// chart's package and a manifest for kubectl, with the image that was pushed there.
import { parseArgs } from "node:util";
import { findHelm } from "../e2e/support/helm.ts";
import { packageRelease } from "../e2e/support/package.ts";

const flags = Object.fromEntries(
  ["registry", "repository", "digest", "destination"].map((name) => [name, { type: "string" }]),
);
const { registry, repository, digest, destination } = parseArgs({ options: flags }).values;
if (!registry || !repository || !destination) {
  console.error("usage: npm run package -- --registry HOST --repository PATH [--digest sha256:…] --destination FOLDER");
  process.exit(2);
}
const tools = await findHelm();
if (!tools.found) throw new Error(tools.why);
for (const path of await packageRelease(tools.value.helm, { registry, repository, digest }, destination)) {
  console.log(path);
}
