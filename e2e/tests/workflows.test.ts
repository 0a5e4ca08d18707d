import { execFile, execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { DEFAULT_CHECKPOINT_DIRECTORY } from "@cro/shared/crd/schema";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { findActionlint } from "../support/go-tools.ts";
import type { AnyObject } from "../support/kube.ts";
import { aFolder, ROOT } from "../support/processes.ts";
import { describeWith } from "../support/tools.ts";

const execute = promisify(execFile);
const FOLDER = join(ROOT, ".github/workflows");
const FILES = readdirSync(FOLDER);
const textOf = (file: string) => readFileSync(join(FOLDER, file), "utf8");
const workflowOf = (file: string): AnyObject => parse(textOf(file));
const stepsOf = (file: string): AnyObject[] =>
  Object.values<AnyObject>(workflowOf(file).jobs).flatMap(({ steps = [] }) => steps);
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
    const { release, verify } = workflowOf("release.yaml").jobs;
    expect(verify.permissions).toEqual({ contents: "read" });
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

describe("the release workflow", () => {
  const { jobs, defaults } = workflowOf("release.yaml");
  const { env, steps } = jobs.release;
  const indexOf = (name: string) => steps.findIndex((step: AnyObject) => step.name?.startsWith(name));

  it("releases nothing before all of verify has passed, which also runs each week", () => {
    expect(jobs.release.needs).toBe("verify");
    expect(jobs.verify.uses).toBe("./.github/workflows/verify.yaml");
    const { on } = workflowOf("verify.yaml");
    expect(Object.keys(on)).toEqual(expect.arrayContaining(["workflow_call", "schedule", "pull_request"]));
    expect(on.schedule).toEqual([{ cron: expect.stringMatching(/^\d+ \d+ \* \* \d$/) }]);
  });

  it("needs no stored password, and pushes below the name of whoever forked it", () => {
    expect(env.REGISTRY).toBe("$" + "{{ vars.REGISTRY || 'ghcr.io' }}");
    expect(env.REGISTRY_NAMESPACE).toBe("$" + "{{ vars.REGISTRY_NAMESPACE || github.repository_owner }}");
    for (const [, otherwise] of textOf("release.yaml").matchAll(/secrets\.REGISTRY_\w+ \|\| (\S+) /g)) {
      expect(["github.actor", "github.token"]).toContain(otherwise);
    }
    expect(textOf("release.yaml").match(/secrets\./g)).toHaveLength(4);
    expect(textOf("release.yaml").match(/secrets\.REGISTRY_\w+ \|\| github\./g)).toHaveLength(4);
  });

  /** Runs the script of a step as the runner does. */
  function run(name: string, variables: Record<string, string>) {
    const files = Object.fromEntries(["GITHUB_OUTPUT", "GITHUB_ENV"].map((file) => [file, join(aFolder(), file)]));
    const script = steps[indexOf(name)].run;
    // As GitHub documents it for `shell: bash`.
    const flags = defaults.run.shell === "bash" ? ["--noprofile", "--norc", "-eo", "pipefail"] : ["-e"];
    const environment = { PATH: process.env.PATH ?? "", ...files, ...variables };
    const { status, stdout } = spawnSync("bash", [...flags, "-c", script], {
      cwd: ROOT,
      env: environment,
      encoding: "utf8",
    });
    const told = Object.values(files).map((file) => (existsSync(file) ? readFileSync(file, "utf8") : ""));
    return { status, stdout, told: told.join("") };
  }

  it("names what it pushes in lower case, and stops where the tag is not the version", () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const name = "See that the tag is this version";
    expect(run(name, { GITHUB_REF_NAME: `v${version}`, REGISTRY_NAMESPACE: "Some-One" })).toMatchObject({
      status: 0,
      told: `version=${version}\nREPOSITORY=some-one/checkpoint-restore-operator\nCHARTS=some-one/charts\n`,
    });
    expect(run(name, { GITHUB_REF_NAME: "v0.0.0-other", REGISTRY_NAMESPACE: "a" })).toMatchObject({
      status: 1,
      stdout: expect.stringContaining("the tag v0.0.0-other is not the version"),
    });
  });

  it("ends where any command of a pipe fails, and overwrites no version", () => {
    expect(defaults.run.shell).toBe("bash");
    expect(indexOf("See that nothing has this version yet")).toBeGreaterThan(0);
    expect(indexOf("See that nothing has this version yet")).toBeLessThan(indexOf("Build the image and push it"));
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
