import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { ROOT } from "../support/processes.ts";

// biome-ignore lint/suspicious/noExplicitAny: read from files whose shape is what is tested here.
type AnyObject = Record<string, any>;

const textOf = (path: string) => readFileSync(join(ROOT, path), "utf8");
const jsonOf = (path: string): AnyObject => JSON.parse(textOf(path));
const workspace: AnyObject = parse(textOf("pnpm-workspace.yaml"));
const lockfile: AnyObject = parse(textOf("pnpm-lock.yaml"));

/** Licences under which a package may be used to build and test; those of what is shipped are narrower. */
const LICENCES = [
  "0BSD",
  "Apache-2.0",
  "BSD-2-Clause",
  "BSD-3-Clause",
  "BlueOak-1.0.0",
  // Data on browsers, to be named where it is passed on: it comes with the tool for mutants, and nothing passes it on.
  "CC-BY-4.0",
  "ISC",
  "MIT",
  "MIT OR Apache-2.0",
  // Weak copyleft, for changes to its own files: a tool that vitest brings, and no part of what is shipped.
  "MPL-2.0",
  "PSF-2.0",
  "Unlicense",
];

/** Every package that is installed, ours left out. */
function installedPackages(): AnyObject[] {
  const store = join(ROOT, "node_modules/.pnpm");
  const folders = readdirSync(store)
    .map((name) => join(store, name, "node_modules"))
    .filter((folder) => existsSync(folder))
    .flatMap((folder) =>
      readdirSync(folder).flatMap((name) =>
        name.startsWith("@")
          ? readdirSync(join(folder, name)).map((rest) => join(folder, name, rest))
          : [join(folder, name)],
      ),
    );
  const packages = new Map<string, AnyObject>();
  for (const folder of folders) {
    const file = join(folder, "package.json");
    if (!existsSync(file)) continue;
    const described: AnyObject = JSON.parse(readFileSync(file, "utf8"));
    if (!described.name.startsWith("@cro/")) packages.set(`${described.name}@${described.version}`, described);
  }
  return [...packages.values()];
}

/** The packages of which anything is in a bundle, as its source map has it. */
function bundledPackages(command: string): string[] {
  const { sources } = jsonOf(`dist/${command}.js.map`);
  const names = (sources as string[]).map((path) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

describe("dependencies", () => {
  const importers = Object.keys(lockfile.importers as object);

  it("are named by one exact version each, the one in the lockfile", () => {
    expect(importers.sort()).toEqual([".", ...workspace.packages].sort());
    for (const importer of importers) {
      const { dependencies = {}, devDependencies = {} } = jsonOf(join(importer, "package.json"));
      for (const [name, version] of Object.entries<string>({ ...dependencies, ...devDependencies })) {
        expect([importer, name, version]).toEqual([
          importer,
          name,
          expect.stringMatching(/^(\d+\.\d+\.\d+|workspace:\*)$/),
        ]);
        const locked = {
          ...lockfile.importers[importer].dependencies,
          ...lockfile.importers[importer].devDependencies,
        };
        expect([importer, name, locked[name]?.specifier]).toEqual([importer, name, version]);
      }
    }
  });

  it("come from the registry alone, each by its SHA-512", () => {
    const resolutions = Object.entries<AnyObject>(lockfile.packages);
    expect(resolutions.length).toBeGreaterThan(100);
    for (const [name, { resolution }] of resolutions) {
      expect([name, resolution]).toEqual([name, { integrity: expect.stringMatching(/^sha512-[A-Za-z0-9+/]{86}==$/) }]);
    }
  });

  it("are installed as the lockfile has them, or not at all", () => {
    for (const file of [
      "scripts/run.mjs",
      ...workflows().map((name) => `.github/workflows/${name}`),
      "Dockerfile",
      ".ci/run",
    ]) {
      const installs = textOf(file).match(/\bp?npm\b[^\n]* (install|ci|add|i)( [^\n]*|$)/gm) ?? [];
      for (const line of installs) expect([file, line]).toEqual([file, expect.stringContaining("--frozen-lockfile")]);
    }
    expect(textOf("scripts/run.mjs")).toContain('"--frozen-lockfile"');
  });

  it("run scripts when they are installed only where they are named, and no others have any", () => {
    const withScripts = installedPackages().filter(({ scripts = {} }) =>
      ["preinstall", "install", "postinstall"].some((when) => when in scripts),
    );
    expect([...new Set(withScripts.map(({ name }) => name))].sort()).toEqual(Object.keys(workspace.allowBuilds).sort());
    expect(Object.keys(workspace.allowBuilds).sort()).toEqual(["esbuild", "node"]);
  });

  it("have licences that somebody has looked at", () => {
    const packages = installedPackages();
    expect(packages.length).toBeGreaterThan(100);
    const others = packages.filter(({ license }) => !LICENCES.includes(license));
    expect(others.map(({ name, version, license }) => [name, version, license])).toEqual([]);
  });

  it("are looked up among known advisories by CI, which fails from high severity on", () => {
    const { jobs } = parse(textOf(".github/workflows/verify.yaml"));
    expect(jobs.advisories.steps.map(({ run }: AnyObject) => run)).toContain("npm run advisories");
    expect(textOf("scripts/run.mjs")).toContain('"audit", "--audit-level", "high"');
  });
});

describe("the agent's bundle", () => {
  const told = [...textOf("docs/security.md").matchAll(/^\| `([^`]+)` \| (.+) \| (.+) \|$/gm)].map(
    ([, name = "", by = "", why = ""]) => ({ name, by, why }),
  );

  it("holds the packages that docs/security.md names with what each is for, and no other", () => {
    expect(bundledPackages("agent")).toEqual(told.map(({ name }) => name).sort());
    for (const { why } of told) expect(why.length).toBeGreaterThan(10);
  });

  it("has few that were chosen, and all others because of those", () => {
    const chosen = { ...jsonOf("agent/package.json").dependencies, ...jsonOf("shared/package.json").dependencies };
    delete chosen["@cro/shared"];
    expect(told.filter(({ by }) => by === "chosen").map(({ name }) => name)).toEqual(Object.keys(chosen).sort());
    expect(Object.keys(chosen).length).toBeLessThanOrEqual(8);
    const names = new Set(told.map(({ name }) => `\`${name}\``));
    for (const { by } of told) if (by !== "chosen") for (const one of by.split(", ")) expect(names).toContain(one);
  });

  it("holds nothing that talks to an API server or calls anybody", () => {
    const bundled = bundledPackages("agent");
    for (const name of ["@kubernetes/client-node", "undici", "ws", "openid-client"])
      expect(bundled).not.toContain(name);
    expect(bundledPackages("coordinator")).toContain("@kubernetes/client-node");
  });
});

function workflows(): string[] {
  return readdirSync(join(ROOT, ".github/workflows"));
}

describe("what docs say of tests", () => {
  it.each(["docs/security.md", "docs/testing.md"])("%s names tests that there are", (file) => {
    const named = [...textOf(file).matchAll(/`([\w./-]+\.test\.ts)` ›\s+"([^"]+)"/g)];
    expect(named.length).toBeGreaterThan(15);
    for (const [, path = "", name = ""] of named) {
      const text = existsSync(join(ROOT, path)) ? textOf(path) : "";
      expect([path, name, text.includes(name)]).toEqual([path, name, true]);
    }
    // A test's file that is named without a test in it is a slip of the pen.
    const files = textOf(file).match(/`[\w./-]+\.test\.ts`/g) ?? [];
    expect(files.length).toBe(named.length);
  });

  it("what never happens are ten things, each with the code that ensures it, as it stands there, and a test", () => {
    const [, section = ""] = /^## What never happens\n(.+?)^## /ms.exec(textOf("docs/testing.md")) ?? [];
    const [, ...things] = section.split(/^\| \*\*(?=\d+\. )/m);
    expect(things.map((thing) => Number.parseInt(thing, 10))).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for (const thing of things) {
      const [title = "", ...rows] = thing.trim().split("\n");
      expect([title, rows.length]).toEqual([title, expect.toSatisfy((count) => count >= 4)]);
      for (const row of rows) {
        const [, what, by = "", removed = "", test] = row.split(/(?<!\\)\|/).map((cell) => cell.trim());
        const places = [...by.matchAll(/`([^`]+)` › `([^`]+)`/g)].map(([, path = "", name = ""]) => ({ path, name }));
        expect([what, places.length, test]).toEqual([
          what,
          expect.toSatisfy((count) => count > 0),
          expect.stringContaining(".test.ts"),
        ]);
        for (const { path, name } of places)
          expect([what, path, textOf(path).includes(name)]).toEqual([what, path, true]);
        const code = places.map(({ path }) => textOf(path)).join("");
        for (const [, snippet = ""] of removed.replaceAll("\\|", "|").matchAll(/`([^`]+)`/g)) {
          expect([what, snippet, code.includes(snippet)]).toEqual([what, snippet, true]);
        }
      }
    }
  });
});
