// Writes the files that are generated from the schemas in shared/src/crd.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { renderManifests } from "../shared/src/crd/manifest.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
for (const [path, content] of Object.entries(renderManifests())) {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), content);
  console.log(path);
}
