import { execFile, execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { DEFAULT_CHECKPOINT_DIRECTORY } from "@cro/shared/crd/schema";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { findActionlint } from "../support/actionlint.ts";
import type { AnyObject } from "../support/kube.ts";
import { ROOT } from "../support/processes.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const FOLDER = join(ROOT, ".github/workflows");
const FILES = readdirSync(FOLDER);
const textOf = (file: string) => readFileSync(join(FOLDER, file), "utf8");
const workflowOf = (file: string): AnyObject => parse(textOf(file));
const stepsOf = (file: string): AnyObject[] =>
  Object.values<AnyObject>(workflowOf(file).jobs).flatMap(({ steps }) => steps);
const actionlint = await findActionlint();

describeWith("actionlint", actionlint, (path) => {
  /** What it says of a workflow. */
  async function lint(file: string, text: string): Promise<string> {
    // What a machine has of shellcheck and pyflakes must not decide.
    const running = execute(path, ["-shellcheck=", "-pyflakes=", "-stdin-filename", file, "-"]);
    running.child.stdin?.end(text);
    return running.then(
      ({ stdout }) => stdout,
      ({ stdout, stderr }) => stdout + stderr,
    );
  }

  it.each(FILES)("has nothing against %s", async (file) => {
    expect(await lint(file, textOf(file))).toBe("");
  });

  it.each(FILES)(
    "has nothing against what %s gives to actions, whose inputs it knows by major version",
    async (file) => {
      expect(await lint(file, textOf(file).replaceAll(/(uses: .+@v\d+)\.[\d.]+/g, "$1"))).toBe("");
    },
  );

  it("finds an unknown input, where there is one", async () => {
    const steps = "      - uses: docker/login-action@v4\n        with:\n          user: a\n";
    const text = `on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n${steps}`;
    expect(await lint("a.yaml", text)).toContain('input "user" is not defined');
  });
});

describe("the workflows", () => {
  it.each(FILES)("%s runs actions of one version alone, and keeps its token from what it runs", (file) => {
    const used = stepsOf(file).filter(({ uses }) => uses !== undefined);
    for (const { uses } of used) expect(uses).toMatch(/@v\d+\.\d+\.\d+$/);
    for (const { uses, with: inputs } of used)
      if (uses.startsWith("actions/checkout@")) expect(inputs).toMatchObject({ "persist-credentials": false });
  });

  it("have no right but to read, save for the release's, which its job names", () => {
    const rights = Object.fromEntries(FILES.map((file) => [file, workflowOf(file).permissions]));
    expect(rights).toEqual({
      "kind.yaml": { contents: "read" },
      "release.yaml": {},
      "verify.yaml": { contents: "read" },
    });
    const { release } = workflowOf("release.yaml").jobs;
    expect(release.permissions).toEqual({ contents: "write", packages: "write", "id-token": "write" });
    for (const file of ["kind.yaml", "verify.yaml"])
      for (const job of Object.values<AnyObject>(workflowOf(file).jobs)) expect(job.permissions).toBeUndefined();
  });

  it.each(FILES)("%s puts nothing that an outsider may choose into a script", (file) => {
    for (const { run = "" } of stepsOf(file)) expect(run).not.toMatch(/\$\{\{(?! *matrix\.)/);
  });

  it("try the oldest Kubernetes that the chart admits", () => {
    const chart = parse(readFileSync(join(ROOT, "charts/checkpoint-restore-operator/Chart.yaml"), "utf8"));
    const [, oldest = "?"] = /^>=(\d+\.\d+)\./.exec(chart.kubeVersion) ?? [];
    const [tried] = workflowOf("kind.yaml").jobs.install.strategy.matrix.kubernetes;
    expect(tried).toMatch(new RegExp(`^v${oldest.replace(".", "\\.")}\\.`));
  });
});

describe("the kind cluster", () => {
  const config = parse(readFileSync(join(ROOT, "e2e/kind/cluster.yaml"), "utf8"));

  it("has every node's checkpoint directory where the workflow looks for it", () => {
    const roles: Record<string, number> = {};
    for (const { role, extraMounts } of config.nodes) {
      roles[role] = (roles[role] ?? 0) + 1;
      // As kind names its containers, and so the nodes.
      const name = `${config.name}-${role}${roles[role] === 1 ? "" : roles[role]}`;
      expect(extraMounts).toEqual([
        { hostPath: `/tmp/checkpoint-nodes/${name}`, containerPath: DEFAULT_CHECKPOINT_DIRECTORY },
      ]);
    }
    const { run } = stepsOf("kind.yaml").find(({ run: script }) => script?.includes("E2E_NODES")) as AnyObject;
    expect(run).toContain(`kind get nodes --name ${config.name} | sed 's|.*|&=/tmp/checkpoint-nodes/&|'`);
  });

  it("is made by a script that bash understands", () => {
    execFileSync("bash", ["-n", join(ROOT, "e2e/kind/up.sh")]);
  });

  it("is given an image by the name that its nodes know the registry by", () => {
    const script = readFileSync(join(ROOT, "e2e/kind/up.sh"), "utf8");
    const [, port] = /^port=(\d+)$/m.exec(script) ?? [];
    expect(workflowOf("kind.yaml").jobs.install.env.REGISTRY).toBe(`localhost:${port}`);
    expect(script).toContain(`cluster=${config.name}\n`);
  });
});
