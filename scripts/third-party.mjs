import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

/** The folder of a package, of a file in it: what stands after the last node_modules. */
const PACKAGE = /^.*\/?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;

/**
 * The packages of which something is in these bundles, as esbuild's metafiles have it, in the order of their names: name,
 * version, licence (SPDX) and the licence's text, empty where the package has none with it.
 */
export async function listThirdParty(metafiles, root) {
  const outputs = metafiles.flatMap((metafile) => Object.values(metafile.outputs));
  const files = outputs.flatMap(({ inputs }) => Object.keys(inputs).filter((path) => inputs[path].bytesInOutput > 0));
  const folders = new Set(files.flatMap((path) => PACKAGE.exec(path)?.[0] ?? []));
  const packages = await Promise.all([...folders].map((folder) => readPackage(join(root, folder))));
  const byName = new Map(packages.map((one) => [`${one.name}@${one.version}`, one]));
  return [...byName.keys()].sort().map((key) => byName.get(key));
}

async function readPackage(folder) {
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const found = (await readdir(folder)).filter((file) => /^(licen[sc]e|copying|notice)(\.|-|$)/i.test(file)).sort();
  const texts = await Promise.all(found.map((file) => readFile(join(folder, file), "utf8")));
  return { name, version, license, text: texts.map((text) => text.trim()).join("\n\n") };
}

/** What most licences ask for: their text with every copy. */
export function toLicenceTexts(packages) {
  const parts = packages.map(({ name, version, license, text }) => `${name} ${version} (${license})\n\n${text}`.trim());
  const rule = `\n\n${"-".repeat(80)}\n\n`;
  return `The bundles beside this file contain parts of the following packages.${rule}${parts.join(rule)}\n`;
}

/** A bill of materials (CycloneDX 1.5), which scanners of images find by its name: bundles hide from them what is in them. */
export function toBillOfMaterials(packages) {
  const components = packages.map(({ name, version, license }) => ({
    type: "library",
    name,
    version,
    purl: `pkg:npm/${name.replace("@", "%40")}@${version}`,
    licenses: [{ expression: license }],
  }));
  return `${JSON.stringify({ bomFormat: "CycloneDX", specVersion: "1.5", version: 1, components }, null, 2)}\n`;
}
