// Writes the files that are generated: from the schemas in shared/src/crd, and from the chart.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { renderChartFiles } from "../e2e/support/chart-files.ts";
import { findHelm } from "../e2e/support/helm.ts";
import { renderManifests } from "../shared/src/crd/manifest.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

function write(files) {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
    console.log(path);
  }
}

write(renderManifests());
const tools = await findHelm();
if (!tools.found) throw new Error(tools.why);
write(await renderChartFiles(tools.value.helm));
