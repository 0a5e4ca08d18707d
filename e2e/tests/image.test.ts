import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { NODE_ENVIRONMENT, NODE_FLAGS } from "@cro/agent/node-flags";
import { NODE_FLAGS as COORDINATOR_FLAGS } from "@cro/coordinator/node-flags";
import { VERSION } from "@cro/shared/version";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";
import { afterAll, beforeAll, describe, expect, it, onTestFailed, onTestFinished } from "vitest";
import { parseAllDocuments } from "yaml";
import { archivesIn, writeArchive } from "../../agent/test/support/archives.ts";
import { realArchives } from "../../agent/test/support/real-archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { type Container, findContainers, type Mount, runContainer } from "../support/container.ts";
import { fetchNode } from "../support/foreign-node.ts";
import { findSyft, findUmoci } from "../support/go-tools.ts";
import { makeRootFileSystem, readImageFiles } from "../support/image.ts";
import type { AnyObject } from "../support/kube.ts";
import { aDirective, putDirective } from "../support/lone-agent.ts";
import { writeImageArchive } from "../support/oci-archive.ts";
import { aFolder, freePort, ROOT, type Running, read, samples, show, until } from "../support/processes.ts";
import { aPolicyFile } from "../support/standalone.ts";
import { describeWith } from "../support/tools.ts";

const MAX_BYTES = 10_000_000;
/** Those that let a bundle be passed on with their text beside it. */
const LICENCES = ["MIT", "ISC", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "Unlicense"];
/** Who the image's processes are where nobody says otherwise. */
const NOBODY = 65_532;

const dockerfile = readFileSync(join(ROOT, "Dockerfile"), "utf8").replaceAll(/\\\n\s*/g, "");
const lines = dockerfile.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
const finalStage = lines.slice(lines.findLastIndex((line) => line.startsWith("FROM ")));
const containers = await findContainers();
const umoci = await findUmoci();
const syft = await findSyft();

/** A component's container, as the manifest has it. */
function containerOf(kind: "DaemonSet" | "Deployment"): AnyObject {
  const objects = parseAllDocuments(readFileSync(join(ROOT, "config/install.yaml"), "utf8"));
  const found = objects.map((document): AnyObject => document.toJS()).find((object) => object?.kind === kind);
  return found.spec.template.spec.containers[0];
}

const commandOf = (kind: "DaemonSet" | "Deployment"): string[] => containerOf(kind).command;

describe("the Dockerfile", () => {
  it("takes the Node that the project is tested with, by a name that every registry's mirror has", () => {
    const { devDependencies } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const [major] = devDependencies.node.split(".");
    expect(lines[0]).toMatch(new RegExp(`^ARG NODE_IMAGE=node:${major}-[a-z]+-slim$`));
    expect(lines.filter((line) => line.startsWith("FROM "))).toEqual([
      // Bundles are of no architecture: nothing is built under emulation.
      "FROM --platform=$BUILDPLATFORM $" + "{NODE_IMAGE} AS build",
      "FROM $" + "{NODE_IMAGE}",
    ]);
  });

  it("runs nothing in the stage that becomes the image, so that no architecture needs emulation", () => {
    expect(finalStage.filter((line) => line.startsWith("RUN "))).toEqual([]);
  });

  it("has its processes run as a number that is not root's, which runAsNonRoot asks for", () => {
    expect(finalStage).toContain(`USER ${NOBODY}:${NOBODY}`);
  });

  it("labels the image as OCI has it", () => {
    const label = finalStage.find((line) => line.startsWith("LABEL ")) ?? "";
    const keys = [...label.matchAll(/org\.opencontainers\.image\.(\w+)=/g)].map(([, key]) => key);
    expect(keys).toEqual(expect.arrayContaining(["title", "description", "licenses", "version", "revision"]));
  });

  it("is not sent what a build must not depend on", () => {
    const ignored = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n");
    expect(ignored).toEqual(expect.arrayContaining([".git", "**/node_modules", "**/dist"]));
  });

  it("copies what the manifest's containers start, and what says what it is", async () => {
    const files = (await readImageFiles()).map(({ to }) => to);
    expect(files).toEqual(expect.arrayContaining(["/app/LICENSE", "/app/package.json"]));
    expect(commandOf("DaemonSet")).toEqual(["node", ...NODE_FLAGS, "/app/agent.js"]);
    const environment = Object.entries(NODE_ENVIRONMENT).map(([name, value]) => ({ name, value }));
    expect(containerOf("DaemonSet").env).toEqual(expect.arrayContaining(environment));
    expect(commandOf("Deployment")).toEqual(["node", ...COORDINATOR_FLAGS, "/app/coordinator.js"]);
    for (const kind of ["DaemonSet", "Deployment"] as const) expect(files).toContain(commandOf(kind).at(-1));
  });
});

describeWith("the image's root file system", containers, () => {
  const folder = mkdtempSync(join(tmpdir(), "cro-image-"));
  const rootFileSystem = join(folder, "rootfs");
  let added = 0;
  beforeAll(async () => {
    mkdirSync(rootFileSystem);
    added = await makeRootFileSystem(rootFileSystem);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** Runs a command in it, its root read-only, until the test is over. */
  async function start(container: Pick<Container, "command"> & Partial<Container>): Promise<Running> {
    const standard = { mounts: [], env: {}, uid: NOBODY, gid: NOBODY };
    const running = await runContainer({ rootFileSystem, isRootReadOnly: true, ...standard, ...container });
    onTestFailed(() => show(running));
    onTestFinished(async () => {
      await running.kill("SIGKILL");
    });
    return running;
  }

  /** A folder of this machine, and where a container sees it. */
  function aMount(target: string, { uid = 0, isReadOnly = false } = {}): Mount {
    const source = aFolder();
    chownSync(source, uid, uid);
    return { source, target, isReadOnly };
  }

  it("adds under 10 MB to Node's: two bundles and no node_modules", () => {
    expect(added).toBeGreaterThan(1_000_000);
    expect(added).toBeLessThan(MAX_BYTES);
    const names = readdirSync(join(rootFileSystem, "app"), { recursive: true }) as string[];
    expect(names.filter((name) => name.endsWith(".js")).sort()).toEqual(["agent.js", "coordinator.js"]);
    expect(names.filter((name) => /node_modules|\.map$/.test(name))).toEqual([]);
    expect(existsSync(join(rootFileSystem, "bin"))).toBe(false);
  });

  it.each(["agent", "coordinator"])("runs %s by its name alone, as kubectl exec does", async (name) => {
    const helped = await start({ command: [name, "--help"] });
    expect([await helped.exited, helped.err]).toEqual([0, []]);
    expect(helped.out[0]).toContain(`Usage: ${name}`);
  });

  it("is not built where a package has no text of its licence with it", () => {
    const folder = aFolder();
    writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "bare", version: "1.0.0", license: "MIT" }));
    const script = 'import { readPackage } from "./scripts/third-party.mjs"; await readPackage(process.argv[1]);';
    const read = () => spawnSync(process.execPath, ["--input-type=module", "-e", script, folder], { cwd: ROOT });
    expect(read().status).toBe(1);
    expect(`${read().stderr}`).toContain("bare 1.0.0 has no text of its licence, MIT, with it");
    writeFileSync(join(folder, "LICENSE"), "Do as you like.");
    expect(read().status).toBe(0);
  });

  it("carries the licence of each package in its bundles, all of which allow that, and lists them for scanners", () => {
    const bill = JSON.parse(readFileSync(join(rootFileSystem, "app/sbom.cdx.json"), "utf8"));
    const components = bill.components.filter(({ type }: AnyObject) => type === "library");
    const names = components.map(({ name }: AnyObject) => name);
    expect(names).toEqual(expect.arrayContaining(["fastify", "pino", "prom-client", "undici", "@peculiar/x509"]));
    for (const tool of ["esbuild", "typescript", "vitest"]) expect(names).not.toContain(tool);
    // What NTIA asks of a bill of materials.
    const { timestamp, authors, component } = bill.metadata;
    expect(Math.abs(Date.now() - Date.parse(timestamp))).toBeLessThan(86_400_000);
    expect([authors.length, component.name, component.version]).toEqual([1, "checkpoint-restore-operator", VERSION]);
    const [node] = bill.components.filter(({ type }: AnyObject) => type === "platform");
    expect(node).toMatchObject({ name: "node", version: process.versions.node });
    const refs = bill.components.map((one: AnyObject) => one["bom-ref"]);
    expect(new Set(refs).size).toBe(refs.length);
    const [ofAll, ...ofEach] = bill.dependencies;
    expect(ofAll).toEqual({ ref: component["bom-ref"], dependsOn: refs });
    expect(ofEach.map(({ ref }: AnyObject) => ref)).toEqual(refs);
    expect(bill.compositions).toEqual([{ aggregate: "unknown", dependencies: refs }]);
    for (const { hashes } of components)
      expect(hashes).toEqual([{ alg: "SHA-512", content: expect.stringMatching(/^[0-9a-f]{128}$/) }]);
    const folderOf = ({ name, version }: AnyObject) => join(rootFileSystem, "app/third-party", `${name}@${version}`);
    for (const { name, version, purl, licenses } of components) {
      const [{ expression }] = licenses;
      expect(LICENCES, `${name}: a licence that nobody has looked at yet`).toContain(expression);
      const own = JSON.parse(readFileSync(join(folderOf({ name, version }), "package.json"), "utf8"));
      expect(own).toEqual({ name, version, license: expression });
      expect(readFileSync(join(folderOf({ name, version }), "LICENSE"), "utf8").length).toBeGreaterThan(200);
      expect(purl).toMatch(/^pkg:npm\/(%40[a-z0-9-]+\/)?[a-z0-9.-]+@\d+\.\d+\.\d+$/);
    }
    const fastify = components.find(({ name }: AnyObject) => name === "fastify");
    const text = readFileSync(join(folderOf(fastify), "LICENSE"), "utf8");
    expect(text).toContain("Copyright (c) 2016-present The Fastify team");
  });

  it.each([
    ["agent", "DaemonSet"],
    ["coordinator", "Deployment"],
  ] as const)(
    "is started as the manifest starts the %s, and tells its usage without a shell, to nobody in particular",
    async (name, kind) => {
      const helped = await start({ command: [...commandOf(kind), "--help"] });
      expect(await helped.exited).toBe(0);
      expect(helped.out.join("\n")).toContain(`Usage: ${name}`);
      expect(helped.err).toEqual([]);
      if (name !== "agent") return;
      const asked = await start({ command: [...commandOf(kind), "--version"] });
      await asked.exited;
      expect(asked.out).toEqual([VERSION]);
    },
  );

  it("lists real archives for root without a capability, and for nobody else", async () => {
    const checkpoints = aMount("/checkpoints", { isReadOnly: true });
    for (const { file, bytes } of realArchives()) writeFileSync(join(checkpoints.source, file), bytes, { mode: 0o600 });
    const command = [...commandOf("DaemonSet"), "list", "--directory", "/checkpoints", "--json"];
    const root = await start({ command, mounts: [checkpoints], uid: 0, gid: 0 });
    expect(await root.exited).toBe(0);
    expect(root.out.map((line) => JSON.parse(line).file).sort()).toEqual(archivesIn(checkpoints.source));
    const other = await start({ command, mounts: [checkpoints] });
    expect(await other.exited).not.toBe(0);
    expect(other.out).toEqual([]);
  });

  it("answers the commands of docs/kubectl.md, in the container that the manifest describes, as the page says", async () => {
    const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();
    const [api, metrics] = [await freePort(), await freePort()];
    const root = "/var/lib/kubelet/checkpoints";
    const [checkpoints, certificates, state] = [
      aMount(root),
      aMount("/certificates", { isReadOnly: true }),
      aMount("/state"),
    ];
    writeFileSync(join(certificates.source, CERTIFICATE_FILES.certificate), agentLeaf.certificate);
    writeFileSync(join(certificates.source, CERTIFICATE_FILES.key), agentLeaf.key);
    writeFileSync(join(certificates.source, CERTIFICATE_FILES.authority), authority.certificate);
    for (const [namespace, pod, days] of [
      ["shop", "web-0", [1, 2, 3]],
      ["shop-eu", "db-0", [4]],
    ] as const) {
      for (const day of days) {
        const time = `2026-01-0${day}T00:00:00Z`;
        writeArchive(checkpoints.source, { namespace, pod, time, mtimeMs: Date.parse(time) });
      }
    }
    const inContainer = {
      mounts: [checkpoints, certificates, state],
      uid: 0,
      gid: 0,
      env: { NODE_NAME: "node-a", POD_UID: "pod-a" },
    };
    const { args } = containerOf("DaemonSet");
    const addresses = ["--api-address", `127.0.0.1:${api}`, "--metrics-address", `127.0.0.1:${metrics}`];
    const agent = await start({ ...inContainer, command: [...commandOf("DaemonSet"), ...args, ...addresses] });
    await until(() => expect(agent.log().map(({ msg }) => msg)).toContain("waiting for the coordinator"), 60_000);
    const spec = { globalPolicy: { maxCheckpointsPerContainer: 2 } };
    const directive = aDirective({ spec }, root);
    expect((await putDirective(api, { authority, coordinatorLeaf }, directive)).status).toBe(200);
    const deleted = await until(() => {
      const line = agent.log().find(({ msg }) => msg === "archive deleted");
      expect(line).toBeDefined();
      return line;
    }, 60_000);
    expect(deleted).toMatchObject({
      ...{ level: "info", time: expect.stringMatching(/^\d{4}-.+T.+Z$/), reason: "max_checkpoints" },
      ...{ entry: "global policy", limit: "maxCheckpointsPerContainer 2" },
    });

    const policyFile = readFileSync(aPolicyFile({ globalPolicy: { maxCheckpointsPerContainer: 1 } }), "utf8");
    /** Runs a line of the page as kubectl would; what is typed after `--` is all that reaches the container. */
    const execute = async (line: string) => {
      const [, words = "", input] =
        /^\$ kubectl -n NAMESPACE exec (?:-i )?ds\/NAME-agent -- (.+?)( <policy\.yaml)?$/.exec(line) ?? [];
      const command = [...words.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? "");
      const running = await start({ ...inContainer, command });
      if (input !== undefined) running.process.stdin?.end(policyFile);
      const code = await running.exited;
      return { code, lines: [...running.out, ...running.err] };
    };
    /** What is another one each time. */
    const masked = (text: string) =>
      text
        .replaceAll(/(?<=^|time: +)\d{4}-\d\d-\d\dT[\d:.]+Z/gm, "TIME")
        .replaceAll(/[0-9a-f]{12}(?=, term)/g, "DIGEST")
        .replaceAll(/\d+ s ago/g, "N s ago")
        .replaceAll(/(version: +)\S+/g, "$1VERSION");
    const page = readFileSync(join(ROOT, "docs/kubectl.md"), "utf8");
    const blocks = [...page.matchAll(/^```console\n(.+?)^```$/gms)].map(([, block = ""]) => block);
    const commands = blocks.flatMap((block) => block.split(/^(?=\$ )/m));
    for (const command of commands) {
      const [line = "", ...output] = command.trimEnd().split("\n");
      const asWritten = [0, masked(output.join("\n"))];
      const answer = async () => {
        const { code, lines: told } = await execute(line);
        expect([line, code, masked(told.join("\n"))]).toEqual([line, ...asWritten]);
      };
      // The agent may not yet have seen what the command before did. A mark is made only once.
      if (/ agent (pin|unpin|pause|resume) /.test(`${line} `)) await answer();
      else await until(answer, 30_000);
    }
    expect(commands.length).toBeGreaterThan(8);
    expect(await agent.kill("SIGTERM")).toBe(0);
  }, 240_000);

  it("runs a coordinator as nobody that directs an agent, over mutual TLS, to keep real archives within a policy", async () => {
    const [api, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
    const checkpoints = aMount("/checkpoints");
    for (const { file, bytes } of realArchives()) writeFileSync(join(checkpoints.source, file), bytes, { mode: 0o600 });
    const before = archivesIn(checkpoints.source);
    const issued = aMount("/certificates", { uid: NOBODY });
    const agentCertificates = aMount("/certificates", { isReadOnly: true });
    const policy = aMount("/policy", { uid: NOBODY, isReadOnly: true });
    const spec = { applyPoliciesImmediately: true, podPolicies: [{ namespace: "a-b", pod: "p", maxCheckpoints: 1 }] };
    chownSync(aPolicyFile(spec, policy.source), NOBODY, NOBODY);

    const agent = await start({
      command: [
        ...commandOf("DaemonSet"),
        ...["serve", "--node-name", "node-a", "--pod-uid", "pod-a", "--checkpoint-root", "/checkpoints"],
        ...["--certs-dir", "/certificates", "--state-dir", "/state"],
        ...["--api-address", `127.0.0.1:${api}`, "--metrics-address", `127.0.0.1:${agentMetrics}`],
      ],
      mounts: [checkpoints, agentCertificates, aMount("/state")],
      uid: 0,
      gid: 0,
    });
    // Alive, though it has no certificates yet and so is not ready.
    const status = async (page: string) => (await read(`http://127.0.0.1:${agentMetrics}/${page}`)).status;
    await until(async () => expect(await status("healthz")).toBe(200), 60_000);
    expect(await status("readyz")).toBe(503);

    const coordinator = await start({
      command: [
        ...commandOf("Deployment"),
        ...["serve", "--policy-file", "/policy/policy.yaml", "--directory", "/checkpoints"],
        ...["--agent", `https://127.0.0.1:${api}`, "--agent-node", "node-a", "--agent-pod-uid", "pod-a"],
        ...["--certs-dir", "/certificates", "--state-dir", "/state"],
        ...["--metrics-address", `127.0.0.1:${coordinatorMetrics}`],
      ],
      mounts: [issued, policy, aMount("/state", { uid: NOBODY })],
    });
    // As the kubelet does with a Secret: the files are root's.
    const files = Object.values(CERTIFICATE_FILES);
    await until(() => {
      for (const file of files) expect(existsSync(join(issued.source, "agent", file))).toBe(true);
    }, 60_000);
    for (const file of files) {
      writeFileSync(join(agentCertificates.source, file), readFileSync(join(issued.source, "agent", file)), {
        mode: 0o400,
      });
    }

    const surplus = before.find((file) => file.includes("p_a-b-c-2026-11-22T22:20:17Z"));
    const kept = before.filter((file) => file !== surplus);
    await until(() => expect(archivesIn(checkpoints.source)).toEqual(kept), 90_000);
    expect(await status("readyz")).toBe(200);
    const page = await read(`http://127.0.0.1:${coordinatorMetrics}/metrics`);
    expect(samples(page.body).get('checkpoint_coordinator_agents{state="applied"}')).toBe(1);
    for (const running of [agent, coordinator]) expect(await running.kill("SIGTERM")).toBe(0);
  }, 240_000);
});

describeWith("an image archive", containers, () => {
  const folder = mkdtempSync(join(tmpdir(), "cro-archive-"));
  const archive = join(folder, "image.tar");
  beforeAll(() => write(archive), 120_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  /** What `npm run image` does when the bundles are built: they are not built anew while other tests run them. */
  async function write(file: string): Promise<void> {
    const rootFileSystem = mkdtempSync(join(folder, "rootfs-"));
    await makeRootFileSystem(rootFileSystem);
    const name = `localhost/checkpoint-restore-operator:${VERSION}`;
    await writeImageArchive(file, {
      rootFileSystem,
      name,
      version: VERSION,
      architecture: "amd64",
      seconds: 1_800_000_000,
    });
  }

  /** What a user types, without npm. */
  function image(...args: string[]) {
    return spawnSync(process.execPath, ["scripts/image.mjs", ...args], { cwd: ROOT, encoding: "utf8" });
  }

  it("is the same, byte for byte, when a root file system is packed twice", async () => {
    const again = join(folder, "again.tar");
    await write(again);
    const digestOf = (file: string) => createHash("sha256").update(readFileSync(file)).digest("hex");
    expect(digestOf(again)).toBe(digestOf(archive));
  }, 120_000);

  it("is not written over a file, and tells how it is used", () => {
    expect(image(archive)).toMatchObject({ status: 2, stderr: expect.stringContaining("is there already") });
    const helped = image("--help");
    expect([helped.status, helped.stdout]).toEqual([
      0,
      expect.stringContaining("ctr --namespace k8s.io images import"),
    ]);
    expect(image()).toMatchObject({ status: 2, stdout: "" });
    expect(existsSync(join(ROOT, "--help"))).toBe(false);
  });

  it("is known by the name that the chart of a checkout is given, and says what it is", () => {
    const read = (file: string) =>
      JSON.parse(execFileSync("tar", ["-xOf", archive, file], { encoding: "utf8", maxBuffer: 1 << 26 }));
    const blob = ({ digest }: AnyObject) => read(`blobs/${digest.replace(":", "/")}`);
    const [manifest] = read("index.json").manifests;
    expect(manifest.annotations["io.containerd.image.name"]).toBe(containerOf("DaemonSet").image);
    const { config } = blob(blob(manifest).config);
    expect(config).toMatchObject({
      User: `${NOBODY}:${NOBODY}`,
      Entrypoint: ["node"],
      Cmd: ["/app/agent.js", "--help"],
    });
    expect(config.Labels).toMatchObject({ "org.opencontainers.image.version": VERSION });
  });

  it("of another architecture has Node and every library of that one, and says so", async () => {
    const rootFileSystem = mkdtempSync(join(folder, "arm64-"));
    await makeRootFileSystem(rootFileSystem, await fetchNode("arm64", process.versions.node));
    const EM_AARCH64 = 183; // elf.h
    const machineOf = (path: string) => {
      const head = readFileSync(path).subarray(0, 20);
      return head.subarray(1, 4).toString() === "ELF" ? head.readUInt16LE(18) : undefined;
    };
    const files = readdirSync(rootFileSystem, { recursive: true, withFileTypes: true }).filter((one) => one.isFile());
    const machines = files.flatMap(({ parentPath, name }) => machineOf(join(parentPath, name)) ?? []);
    expect(machines.length).toBeGreaterThan(6);
    expect(new Set(machines)).toEqual(new Set([EM_AARCH64]));
    expect(files.map(({ name }) => name)).toEqual(
      expect.arrayContaining(["node", "libc.so.6", "ld-linux-aarch64.so.1"]),
    );
    expect(image(join(folder, "other.tar"), "--arch", "riscv64")).toMatchObject({
      status: 2,
      stderr: expect.stringContaining("give amd64 or arm64"),
    });
  }, 120_000);

  describeWith("unpacked by umoci", umoci, (tool) => {
    it("runs both commands", async () => {
      const [layout, bundle] = [join(folder, "layout"), join(folder, "bundle")];
      mkdirSync(layout);
      execFileSync("tar", ["-xf", archive, "-C", layout]);
      execFileSync(tool, ["unpack", "--image", `${layout}:${VERSION}`, bundle], { stdio: "pipe" });
      for (const name of ["agent", "coordinator"]) {
        const rootFileSystem = join(bundle, "rootfs");
        const command = ["node", `/app/${name}.js`, "--version"];
        const running = await runContainer({
          rootFileSystem,
          isRootReadOnly: true,
          command,
          mounts: [],
          env: {},
          uid: NOBODY,
          gid: NOBODY,
        });
        await running.exited;
        expect(running.out).toEqual([VERSION]);
      }
    }, 120_000);
  });

  describeWith("looked into by syft", syft, (tool) => {
    it("has every package of the bundles, with its licence, and Node", () => {
      const found = JSON.parse(
        execFileSync(tool, ["scan", `oci-archive:${archive}`, "--output", "syft-json", "--quiet"], {
          encoding: "utf8",
          maxBuffer: 1 << 28,
          env: { ...process.env, SYFT_CHECK_FOR_APP_UPDATE: "false" },
        }),
      );
      const bill = JSON.parse(readFileSync(join(ROOT, "dist/sbom.cdx.json"), "utf8"));
      const keyOf = ({ name, version }: AnyObject) => `${name}@${version}`;
      const artifacts: AnyObject[] = found.artifacts.filter(({ type }: AnyObject) => type === "npm");
      const libraries = bill.components.filter(({ type }: AnyObject) => type === "library");
      expect(libraries.length).toBeGreaterThan(50);
      expect(new Set(artifacts.map(keyOf))).toEqual(new Set(libraries.map(keyOf)));
      for (const { name, licenses } of artifacts) expect(licenses.length, name).toBeGreaterThan(0);
      expect(found.artifacts).toContainEqual(expect.objectContaining({ name: "node", version: process.versions.node }));
    }, 300_000);
  });
});
