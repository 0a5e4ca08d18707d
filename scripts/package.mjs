// npm run package: what a release is made of, the chart's package and manifests for kubectl, with the image that was pushed.
import { parseArgs } from "node:util";
import { findHelm } from "../e2e/support/helm.ts";
import { packageRelease } from "../e2e/support/package.ts";

const flags = Object.fromEntries(
  ["registry", "repository", "digest", "source", "destination"].map((name) => [name, { type: "string" }]),
);
const USAGE = `usage: npm run package -- --registry HOST --repository PATH --destination FOLDER [--digest sha256:…] [--source URL]

  --registry HOST      where the image was pushed
  --repository PATH    the image's repository there
  --destination FOLDER where the chart's package, crds.yaml and install.yaml are written
  --digest DIGEST      of the image; without it, it is taken by its version
  --source URL         the repository's page, which the chart's links lead to

Example: npm run package -- --registry localhost --repository checkpoint-restore-operator --destination release`;

const { registry, repository, digest, source, destination, help } = parseArgs({
  options: { ...flags, help: { type: "boolean" } },
}).values;
if (help || !registry || !repository || !destination) {
  (help ? console.log : console.error)(USAGE);
  process.exit(help ? 0 : 2);
}
const tools = await findHelm();
if (!tools.found) throw new Error(tools.why);
for (const path of await packageRelease(tools.value.helm, { registry, repository, digest, source }, destination)) {
  console.log(path);
}
