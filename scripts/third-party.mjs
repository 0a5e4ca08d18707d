import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The folder of a package, of a file in it: what stands after the last node_modules. */
const PACKAGE = /^.*\/?node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;

/**
 * The packages of which something is in these bundles, as esbuild's metafiles have it, in the order of their names: name,
 * version, licence (SPDX) and the licence's text.
 * @throws Error if a package has no text of its licence with it, and {@link TEXTS} has none either
 */
export async function listThirdParty(metafiles, root) {
  const outputs = metafiles.flatMap((metafile) => Object.values(metafile.outputs));
  const files = outputs.flatMap(({ inputs }) => Object.keys(inputs).filter((path) => inputs[path].bytesInOutput > 0));
  const folders = new Set(files.flatMap((path) => PACKAGE.exec(path)?.[0] ?? []));
  const packages = await Promise.all([...folders].map((folder) => readPackage(join(root, folder))));
  const byName = new Map(packages.map((one) => [`${one.name}@${one.version}`, one]));
  return [...byName.keys()].sort().map((key) => byName.get(key));
}

/** Texts for packages that name their licence and leave its text out. */
const TEXTS = new Map([
  // Its Readme links to jsumners.mit-license.org.
  ["abstract-logging", mitLicence("James Sumners")],
]);

export async function readPackage(folder) {
  const { name, version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const found = (await readdir(folder))
    .filter((file) => /^((un)?licen[sc]e|copying|notice)(\.|-|$)/i.test(file))
    .sort();
  const texts = await Promise.all(found.map((file) => readFile(join(folder, file), "utf8")));
  const text = texts.map((one) => one.trim()).join("\n\n") || TEXTS.get(name);
  if (text === undefined) {
    throw new Error(
      `${name} ${version} has no text of its licence, ${license}, with it; name it in ${import.meta.filename}`,
    );
  }
  return { name, version, license, text };
}

/** https://spdx.org/licenses/MIT.html */
function mitLicence(holder) {
  return `MIT License

Copyright (c) ${holder}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;
}

/**
 * Writes a folder for each package, `NAME@VERSION`, with the text of its licence, which most licences ask for with every copy, and
 * a package.json, by which scanners find what bundles hide from them.
 */
export async function writeThirdParty(packages, folder) {
  await rm(folder, { recursive: true, force: true });
  for (const { name, version, license, text } of packages) {
    const own = join(folder, `${name}@${version}`);
    await mkdir(own, { recursive: true });
    await writeFile(join(own, "package.json"), `${JSON.stringify({ name, version, license }, null, 2)}\n`);
    await writeFile(join(own, "LICENSE"), `${text}\n`);
  }
}

/**
 * A bill of materials (CycloneDX 1.5), for those who ask for one. It
 * has what NTIA's "Minimum Elements for a Software Bill of Materials" asks for: author, time, names, versions, identifiers,
 * and what depends on what. The bundles depend on all packages; what these depend on among each other is told as unknown.
 * @param packages as {@link listThirdParty} has them
 * @param options.project name and version of what the bundles are of
 * @param options.lock the content of pnpm-lock.yaml, which knows the packages' digests
 * @param options.node version of Node that runs the bundles
 * @param options.timeMs when this was made, in milliseconds since 1970
 */
export function toBillOfMaterials(packages, { project, lock, node, timeMs }) {
  // `'@scope/name@1.2.3':` and, in the next line, `resolution: {integrity: sha512-…}`.
  const digests = lock.matchAll(/^ {2}'?([^\s']+@[^\s']+?)'?:\n {4}resolution: \{integrity: sha512-([^},]+)/gm);
  const locked = new Map([...digests].map(([, key, digest]) => [key, Buffer.from(digest, "base64").toString("hex")]));
  const components = packages.map(({ name, version, license }) => {
    const purl = `pkg:npm/${name.replace("@", "%40")}@${version}`;
    const content = locked.get(`${name}@${version}`);
    if (content === undefined) throw new Error(`pnpm-lock.yaml has no digest of ${name}@${version}`);
    const hashes = [{ alg: "SHA-512", content }];
    return { type: "library", "bom-ref": purl, name, version, purl, hashes, licenses: [{ expression: license }] };
  });
  const runtime = { type: "platform", "bom-ref": `pkg:generic/node@${node}`, name: "node", version: node };
  const root = `pkg:generic/${project.name}@${project.version}`;
  const all = [{ ...runtime, purl: runtime["bom-ref"], licenses: [{ expression: "MIT" }] }, ...components];
  const bill = {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {
      timestamp: new Date(timeMs).toISOString(),
      authors: [{ name: `the developers of ${project.name}` }],
      component: { type: "application", "bom-ref": root, ...project },
    },
    components: all,
    dependencies: [
      { ref: root, dependsOn: all.map((one) => one["bom-ref"]) },
      ...all.map((one) => ({ ref: one["bom-ref"], dependsOn: [] })),
    ],
    // Without it an empty list says that a package depends on nothing.
    compositions: [{ aggregate: "unknown", dependencies: all.map((one) => one["bom-ref"]) }],
  };
  return `${JSON.stringify(bill, null, 2)}\n`;
}
