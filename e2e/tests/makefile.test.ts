import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { findHelm } from "../support/helm.ts";
import { type AnyObject, aPolicy, create, describeWithKube, policyPath, unwrap } from "../support/kube.ts";
import { packageRelease } from "../support/package.ts";
import { anchorsOf } from "../support/pages.ts";
import { aFolder, ROOT, until } from "../support/processes.ts";
import { describeWith, type Found, findExecutable } from "../support/tools.ts";

const execute = promisify(execFile);
const NAME = "checkpoint-restore-operator";
const helm = await findHelm();
const path = await findExecutable("make");
const tool: Found<string> =
  path === undefined ? { found: false, why: "make is missing; install it" } : { found: true, value: path };

const MANIFESTS = ["crds", "install"].map((name) => join(ROOT, `config/${name}.yaml`));

const objectsOf = (text: string): AnyObject[] =>
  parseAllDocuments(text)
    .map((document) => document.toJS())
    .filter((object) => object !== null);
const imagesOf = (objects: AnyObject[]): string[] =>
  objects.flatMap(({ spec }) => (spec?.template?.spec?.containers ?? []).map(({ image }: AnyObject) => image));

describeWith("make", tool, (make) => {
  const run = async (args: string[], env: NodeJS.ProcessEnv = {}) =>
    (await execute(make, args, { cwd: ROOT, env: { ...process.env, ...env }, maxBuffer: 1 << 26 })).stdout;

  it("without a target shows every target with what it does", async () => {
    const text = readFileSync(join(ROOT, "Makefile"), "utf8");
    const targets = [...text.matchAll(/^([a-z-]+):/gm)].map(([, target]) => target);
    const shown = (await run([])).split("\n").filter((line) => line !== "");
    expect(
      shown.map((line) =>
        line
          .trim()
          .split(/\s{2,}|\s(?=[A-Z])/)[0]
          ?.trim(),
      ),
    ).toEqual(targets);
    const [, phony = ""] = /^\.PHONY: (.*)$/m.exec(text) ?? [];
    expect(phony.split(" ").sort()).toEqual([...targets].sort());
    for (const wanted of [
      "install",
      "uninstall",
      "deploy",
      "undeploy",
      "docker-build",
      "docker-push",
      "run",
      "manifests",
    ])
      expect(targets).toContain(wanted);
  });

  it("runs scripts that there are", () => {
    const { scripts } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const text = readFileSync(join(ROOT, "Makefile"), "utf8");
    const asked = [...text.matchAll(/^\tnpm (?:run )?(\w+)/gm)].map(([, name]) => name as string);
    expect(asked.length).toBeGreaterThan(4);
    expect(Object.keys(scripts)).toEqual(expect.arrayContaining(asked));
  });

  it("builds and pushes the image by the name given, or by the project's version", async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const args = ["--dry-run", "docker-build", "docker-push"];
    const named = await run([...args, "IMG=registry.example/team/cro:1", "CONTAINER_TOOL=podman"]);
    expect(named).toMatch(/^podman build .*--tag registry\.example\/team\/cro:1 \.$/m);
    expect(named).toMatch(/^podman push registry\.example\/team\/cro:1$/m);
    expect(await run(args)).toContain(`docker push localhost/${NAME}:${version}\n`);
  });

  describeWith("with kubectl", helm, ({ kubectl }) => {
    describeWithKube("on a real API server", (kube) => {
      let kubeconfig = "";
      // What kubectl learns of one API server must not be taken for another's.
      const home = mkdtempSync(join(tmpdir(), "cro-kubectl-"));
      afterAll(() => rmSync(home, { recursive: true, force: true }));
      beforeAll(async () => {
        kubeconfig = await kube.writeKubeconfig();
      });
      const makeHere = (...args: string[]) =>
        run([...args, `KUBECTL=${kubectl}`], { KUBECONFIG: kubeconfig, KUBECACHEDIR: home });
      const definition = `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/checkpointrestoreoperators.criu.org`;
      const exists = async (url: string) => (await kube.client.request({ path: url })).ok;

      /** Every object that the manifest made, by kind and name, as kubectl finds it now. */
      async function found(): Promise<string[]> {
        const { stdout } = await execute(
          kubectl,
          ["get", "--ignore-not-found", "-o", "json", ...MANIFESTS.flatMap((path) => ["-f", path])],
          { env: { ...process.env, KUBECONFIG: kubeconfig, KUBECACHEDIR: home }, maxBuffer: 1 << 26 },
        );
        if (stdout === "") return [];
        const answer = JSON.parse(stdout) as AnyObject;
        return (answer.items ?? [answer]).map(({ kind, metadata }: AnyObject) => `${kind} ${metadata.name}`).sort();
      }

      it("has a kustomization that is install.yaml and crds.yaml, and takes another image", async () => {
        const kustomize = async (folder: string) =>
          objectsOf((await execute(kubectl, ["kustomize", folder], { maxBuffer: 1 << 26 })).stdout);
        const namesOf = (objects: AnyObject[]) =>
          objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort();
        const whole = MANIFESTS.flatMap((path) => objectsOf(readFileSync(path, "utf8")));
        expect(namesOf(await kustomize(join(ROOT, "config")))).toEqual(namesOf(whole));
        const own = mkdtempSync(join(home, "overlay-"));
        cpSync(join(ROOT, "config"), join(own, "config"), { recursive: true });
        const images = [{ name: `localhost/${NAME}`, newName: "registry.example/team/cro", newTag: "2" }];
        writeFileSync(join(own, "kustomization.yaml"), JSON.stringify({ resources: ["config"], images }));
        expect(imagesOf(await kustomize(own))).toEqual(Array(2).fill("registry.example/team/cro:2"));
      }, 60_000);

      it("install makes policies possible, and uninstall removes them", async () => {
        await makeHere("install");
        await until(async () => expect(await exists(policyPath("default"))).toBe(true));
        await create(kube.client, policyPath("default"), aPolicy({}));
        await makeHere("uninstall");
        await until(async () => expect(await exists(definition)).toBe(false));
        // A second time there is nothing to do.
        await makeHere("uninstall");
      }, 60_000);

      it("deploy runs the image given; undeploy leaves nothing but definition, policies and namespace", async () => {
        const wanted = MANIFESTS.flatMap((path) => objectsOf(readFileSync(path, "utf8")));
        await makeHere("deploy", "IMG=localhost:5001/team/cro:dev");
        expect(await found()).toEqual(wanted.map(({ kind, metadata }) => `${kind} ${metadata.name}`).sort());
        const apps = `/apis/apps/v1/namespaces/${NAME}`;
        const [agents, coordinators] = await Promise.all(
          ["daemonsets", "deployments"].map(async (plural) =>
            unwrap(await kube.client.request<AnyObject>({ path: `${apps}/${plural}` })),
          ),
        );
        const images = imagesOf([...(agents?.items ?? []), ...(coordinators?.items ?? [])]);
        expect(images).toEqual(Array(2).fill("localhost:5001/team/cro:dev"));

        await until(async () => expect(await exists(policyPath(NAME))).toBe(true));
        await create(kube.client, policyPath(NAME), aPolicy({}));
        // Again, as after a change: what others wrote stays.
        const ca = `/api/v1/namespaces/${NAME}/secrets/${NAME}-ca`;
        await kube.client.request({ method: "PATCH", path: ca, body: { data: { "ca.crt": "YQ==" } } });
        await makeHere("deploy", "IMG=localhost:5001/team/cro:dev2");
        expect(unwrap(await kube.client.request<AnyObject>({ path: ca })).data).toEqual({ "ca.crt": "YQ==" });

        await makeHere("undeploy");
        await until(async () =>
          expect(await found()).toEqual(
            [`CustomResourceDefinition checkpointrestoreoperators.criu.org`, `Namespace ${NAME}`].sort(),
          ),
        );
        expect(await exists(policyPath(NAME, "policy"))).toBe(true);
        await makeHere("undeploy");
      }, 120_000);
    });
  });
});

describeWith("a release", helm, (tools) => {
  const DIGEST = `sha256:${"5".repeat(64)}`;

  it("is a chart and a manifest that take the image from where it was pushed, and are else the same", async () => {
    const destination = join(aFolder(), "release");
    const image = { registry: "registry.example", repository: "team/cro", digest: DIGEST };
    const [chart = "", crds = "", manifest = ""] = await packageRelease(tools.helm, image, destination);
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    expect(chart).toBe(join(destination, `${NAME}-${version}.tgz`));
    const released = `registry.example/team/cro@${DIGEST}`;

    const objects = objectsOf(readFileSync(manifest, "utf8"));
    expect(imagesOf(objects)).toEqual([released, released]);
    const without = (text: string) => text.replaceAll(/image: .*|^#.*\n/gm, "");
    for (const path of [crds, manifest]) {
      const ofCheckout = readFileSync(join(ROOT, "config", basename(path)), "utf8");
      expect(without(readFileSync(path, "utf8"))).toBe(without(ofCheckout));
    }
    // Deleting the one leaves what the other is about.
    expect(objects.map(({ kind }) => kind)).not.toEqual(
      expect.arrayContaining([expect.stringMatching(/^(Namespace|CustomResourceDefinition)$/)]),
    );
    expect(objectsOf(readFileSync(crds, "utf8")).map(({ kind }) => kind)).toEqual([
      "Namespace",
      "CustomResourceDefinition",
    ]);

    const { stdout } = await execute(tools.helm, ["template", NAME, chart], { maxBuffer: 1 << 26 });
    expect(imagesOf(objectsOf(stdout))).toEqual([released, released]);
    const show = async (what: string) =>
      (await execute(tools.helm, ["show", what, chart], { maxBuffer: 1 << 26 })).stdout;
    const source = parse(readFileSync(join(ROOT, "charts", NAME, "values.yaml"), "utf8"));
    expect(parse(await show("values"))).toEqual({ ...source, image: { ...source.image, ...image } });
    expect(await show("readme")).toContain(`| \`"${DIGEST}"\` |`);
    await execute(tools.helm, ["lint", "--strict", chart]);
  }, 60_000);

  it("is the same, byte for byte, when a commit is packaged twice", async () => {
    const image = { registry: "registry.example", repository: "team/cro", digest: DIGEST };
    const digests = [];
    for (const turn of ["first", "second"]) {
      const paths = await packageRelease(tools.helm, image, join(aFolder(), turn));
      digests.push(paths.map((path) => createHash("sha256").update(readFileSync(path)).digest("hex")));
      // A file's time counts whole seconds in the package.
      const packed = Math.floor(Date.now() / 1000);
      await until(() => expect(Math.floor(Date.now() / 1000)).toBeGreaterThan(packed));
    }
    expect(digests[1]).toEqual(digests[0]);
  }, 60_000);

  it("tells in its chart how it is installed, and has links that lead somewhere, with none to the checkout", async () => {
    const source = "https://git.example/team/cro";
    const image = { registry: "registry.example", repository: "team/cro", digest: DIGEST };
    const shown = async (more: object) => {
      const [chart = ""] = await packageRelease(tools.helm, { ...image, ...more }, join(aFolder(), "release"));
      return (await execute(tools.helm, ["show", "readme", chart])).stdout;
    };
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const readme = await shown({ source });
    expect(readme.indexOf(`helm install ${NAME} oci://registry.example/team/charts/${NAME} --version ${version}`)).toBe(
      readme.indexOf("helm install"),
    );
    expect(readme).toContain("kubectl apply -f crds.yaml -f install.yaml");
    expect(readme).not.toMatch(/<!-- \/?(release|checkout)|charts\/checkpoint-restore-operator \\|config\/install/);
    const links = [...readme.matchAll(/\]\(([^)]+)\)/g)].map(([, link = ""]) => link);
    expect(links.length).toBeGreaterThan(3);
    for (const link of links) {
      if (link.startsWith("#")) expect(anchorsOf(readme), link).toContain(link.slice(1));
      else if (link.startsWith(source)) {
        const [, path = "", anchor] = /\/blob\/v[^/]+\/([^#]+)(?:#(.*))?$/.exec(link) ?? [];
        expect(existsSync(join(ROOT, path)), link).toBe(true);
        if (anchor !== undefined) expect(anchorsOf(readFileSync(join(ROOT, path), "utf8")), link).toContain(anchor);
      } else expect(link).toMatch(/^https:\/\//);
    }
    expect(await shown({})).not.toMatch(/\]\(\.\./);
  }, 60_000);

  it("is not packaged without a registry", async () => {
    const destination = join(aFolder(), "release");
    const script = [join(ROOT, "scripts/package.mjs"), "--repository", "cro", "--destination", destination];
    await expect(execute(process.execPath, script)).rejects.toMatchObject({ code: 2 });
    expect(existsSync(destination)).toBe(false);
  });
});

describe("the manifest for kubectl", () => {
  it("names the image that `make deploy` puts another in the place of, and no other", () => {
    const text = readFileSync(join(ROOT, "config/install.yaml"), "utf8");
    expect(text.match(/^ *image: /gm)).toHaveLength(2);
    expect(text.match(/^ *image: "localhost\/checkpoint-restore-operator:[^"]+"$/gm)).toHaveLength(2);
  });
});
