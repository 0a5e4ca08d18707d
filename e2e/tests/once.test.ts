import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { archiveBytes, archiveName, archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { realArchives } from "../../agent/test/support/real-archives.ts";
import { aFolder, ROOT } from "../support/processes.ts";
import { aPolicyFile, series } from "../support/standalone.ts";

/** What a user types: npm, its banner and all. */
function npmStart(...args: string[]) {
  const { status, stdout, stderr } = spawnSync("npm", ["start", "--", ...args], { cwd: ROOT, encoding: "utf8" });
  const lines = stdout.split("\n").filter((line) => line !== "");
  return {
    status,
    stdout,
    stderr,
    lines,
    json: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

/** The same without npm, which takes half a second to do nothing. */
function once(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ["dist/standalone.js", "--once", ...args], {
    cwd: ROOT,
    encoding: "utf8",
  });
  return {
    status,
    stdout,
    stderr,
    json: () =>
      stdout
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line)),
  };
}

const two = { globalPolicy: { maxCheckpointsPerContainer: 2 } };

describe("npm start -- --once --json", () => {
  it("deletes what violates the policy, with one JSON object a line and nothing else on stdout", () => {
    const directory = aFolder();
    const files = series(directory, 3);
    for (const { file, bytes } of realArchives()) writeFileSync(join(directory, file), bytes);
    const result = npmStart("--policy", aPolicyFile(two), "--directory", directory, "--once", "--json");
    expect(result.status).toBe(0);
    const lines = result.json();
    expect(lines).toHaveLength(9);
    for (const line of lines) {
      const keys = ["file", "namespace", "pod", "container", "size", "state", "pinned", "action", "reason"];
      expect(Object.keys(line)).toEqual(keys);
    }
    expect(lines.filter(({ action }) => action === "delete")).toEqual([
      expect.objectContaining({ file: files[0], reason: "max_checkpoints", state: "complete", pinned: false }),
    ]);
    expect(archivesIn(directory)).toHaveLength(8);
    expect(existsSync(join(directory, files[0] ?? ""))).toBe(false);
  }, 60_000);

  it("tells who owns each real archive, and the reason is null where it stays", () => {
    const directory = aFolder();
    for (const { file, bytes } of realArchives()) writeFileSync(join(directory, file), bytes);
    const result = once("--policy", aPolicyFile({}), "--directory", directory, "--json");
    const owners = Object.fromEntries(
      result.json().map(({ file, namespace, pod, container }) => [file, `${namespace}/${pod}/${container}`]),
    );
    expect(Object.values(owners).sort()).toEqual([
      "a-b/p/c",
      "a-b/p/c",
      "default/hostnet/c",
      "default/static.one-node-a/c",
      "team-prod/web-6f9f8977b7-w28kl/main-c",
      "team-prod/web-6f9f8977b7-w28kl/side",
    ]);
    expect(result.json().every(({ action, reason }) => action === "keep" && reason === null)).toBe(true);
  });

  it("keeps what was written in the last two seconds, and takes a torn one for incomplete after ten minutes", () => {
    const directory = aFolder();
    writeArchive(directory, { time: archiveTime(Date.now() - 2000) });
    writeArchive(directory, { time: archiveTime(Date.now() - 1000) });
    const torn = (container: string, ageMs: number) => {
      const file = archiveName({ container });
      writeFileSync(join(directory, file), archiveBytes({ container }).subarray(0, 1024));
      const seconds = (Date.now() - ageMs) / 1000;
      execFileSync("touch", ["-d", `@${seconds}`, join(directory, file)]);
      return file;
    };
    const abandoned = torn("abandoned", 601_000);
    const growing = torn("growing", 590_000);
    const limits = { globalPolicy: { maxCheckpointsPerContainer: 1, maxAge: "1h" } };
    const result = once("--policy", aPolicyFile(limits), "--directory", directory, "--json");
    const byFile = new Map(result.json().map((line) => [line.file, line]));
    expect(byFile.get(abandoned)).toMatchObject({ state: "incomplete", action: "delete", reason: "max_age" });
    expect(byFile.get(growing)).toMatchObject({ state: "unsettled", action: "keep", reason: null });
    expect(archivesIn(directory)).toHaveLength(3);
  });

  it("takes what was torn an hour ago and has no owner by rules of the node alone, and gives it null names", () => {
    const directory = aFolder();
    const names = { namespace: "team", container: "prod-main" };
    const torn = (ageMs: number) => {
      const file = archiveName({ ...names, time: archiveTime(Date.now() - ageMs) });
      writeFileSync(join(directory, file), archiveBytes({ ...names, pagesBytes: 3 << 20 }).subarray(0, 2 << 20));
      execFileSync("touch", ["-d", `@${(Date.now() - ageMs) / 1000}`, join(directory, file)]);
      return file;
    };
    const [abandoned, growing] = [torn(3_601_000), torn(3_500_000)];
    const limits = { maxCheckpointsPerContainer: 1, maxCheckpointSize: "1Mi", maxAge: "1s" };
    const run = (spec: object) => once("--policy", aPolicyFile(spec), "--directory", directory, "--json").json();
    const nobody = { namespace: null, pod: null, container: null };
    expect(run({ globalPolicy: limits })).toMatchObject([
      { ...nobody, file: abandoned, state: "incomplete", action: "keep", reason: null },
      { ...nobody, file: growing, state: "unsettled", action: "keep", reason: null },
    ]);
    expect(run({ nodePolicy: { maxTotalSize: "1Mi" } })).toMatchObject([
      { ...nobody, file: abandoned, action: "delete", reason: "node_max_total_size" },
      { ...nobody, file: growing, action: "keep", reason: null },
    ]);
    expect(archivesIn(directory)).toEqual([growing]);
  });

  it("takes nothing by maxAgeUnmanaged, for it has watched nothing, and says so", () => {
    const directory = aFolder();
    const file = archiveName({ time: archiveTime(Date.now() - 400 * 86_400_000) });
    writeFileSync(join(directory, file), "no tar at all".repeat(100));
    execFileSync("touch", ["-d", "2020-01-01", join(directory, file)]);
    const policy = aPolicyFile({ nodePolicy: { maxAgeUnmanaged: "1h" } });
    const result = once("--policy", policy, "--directory", directory, "--json");
    expect(result.json()).toMatchObject([{ file, state: "unread", action: "keep", reason: null }]);
    expect(result.stderr).toContain("maxAgeUnmanaged takes nothing here: 1 file is unidentified or unread");
    expect(archivesIn(directory)).toEqual([file]);
  });

  it("gives null names to what nobody is known to own", () => {
    const directory = aFolder();
    writeArchive(directory, { namespace: "team", container: "prod-main", spec: null });
    const [line] = once("--policy", aPolicyFile({}), "--directory", directory, "--json").json();
    expect(line).toMatchObject({ namespace: null, pod: null, container: null, state: "unidentified", action: "keep" });
  });
});

describe("nothing is deleted", () => {
  const cases: Array<[string, string[], (directory: string) => void, unknown]> = [
    ["by --dry-run", ["--dry-run"], () => {}, two],
    ["by mode DryRun", [], () => {}, { ...two, mode: "DryRun" }],
    ["under a .pause", [], (directory) => writeFileSync(join(directory, ".pause"), ""), two],
  ];
  it.each(cases)("%s: the plan is printed, the exit code is 0, stderr says so", (_what, args, prepare, spec) => {
    const directory = aFolder();
    const files = series(directory, 3);
    prepare(directory);
    const result = once("--policy", aPolicyFile(spec), "--directory", directory, "--json", ...args);
    expect(result.status).toBe(0);
    expect(result.json().map(({ action }) => action)).toEqual(["delete", "keep", "keep"]);
    expect(result.stderr).toMatch(/nothing was deleted/);
    expect(archivesIn(directory)).toEqual(files);
  });
});

describe("a limit that cannot be reached", () => {
  it("is no bad input: 0, and a line on stderr", () => {
    const directory = aFolder();
    const files = series(directory, 3);
    for (const file of files) writeFileSync(join(directory, `${file}.keep`), "");
    const result = once("--policy", aPolicyFile(two), "--directory", directory, "--json");
    expect(result.status).toBe(0);
    expect(result.stderr).toContain("max_checkpoints of shop/web-0/main cannot be reached: 1 archives over it");
    expect(archivesIn(directory)).toEqual(files);
  });
});

describe("a deletion that fails", () => {
  it("gives 1 and names the archive", ({ skip }) => {
    const directory = aFolder();
    const [stuck = "", ...others] = series(directory, 3);
    try {
      execFileSync("chattr", ["+i", join(directory, stuck)], { stdio: "ignore" });
    } catch {
      skip("chattr +i is not to be had here");
    }
    onTestFinished(() => void execFileSync("chattr", ["-i", join(directory, stuck)]));
    const result = once("--policy", aPolicyFile(two), "--directory", directory, "--json");
    expect(result.status).toBe(1);
    expect(result.stderr).toContain(`${stuck} cannot be deleted: EPERM`);
    expect(archivesIn(directory)).toEqual([stuck, ...others]);
  });
});

describe("bad input gives 2 and one line on stderr", () => {
  const policy = (spec: unknown) => (folder: string) => ["--policy", aPolicyFile(spec, folder)];
  const text = (content: string) => (folder: string) => {
    writeFileSync(join(folder, "p.yaml"), content);
    return ["--policy", join(folder, "p.yaml")];
  };
  const cr = "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {name: a}\n";
  const cases: Array<[string, (folder: string) => string[], RegExp]> = [
    [
      "an unknown field",
      policy({ globalPolicy: { maxCheckpoint: 1 } }),
      /^spec\.globalPolicy\.maxCheckpoint: does not/,
    ],
    [
      "a bad quantity",
      policy({ globalPolicy: { maxTotalSizePerPod: "10 Gigs" } }),
      /^spec\.globalPolicy\.maxTotalSizePerPod: "10 Gigs" is not a Kubernetes quantity; write e\.g\. 10Gi$/m,
    ],
    ["a bad duration", policy({ globalPolicy: { maxAge: "soon" } }), /^spec\.globalPolicy\.maxAge: "soon" is not/],
    [
      "a negative number",
      policy({ globalPolicy: { maxCheckpointsPerPod: -1 } }),
      /^spec\.globalPolicy\.maxCheckpointsPerPod/,
    ],
    ["a missing namespace", policy({ podPolicies: [{ pod: "p" }] }), /^spec\.podPolicies\[0\]\.namespace: is required/],
    ["two resources", text(`${cr}---\n${cr}`), /holds 2 resources/],
    ["no YAML", text("a: [b"), /is not YAML/],
    ["another kind", text("apiVersion: v1\nkind: Pod\n"), /^apiVersion/],
    ["no such policy file", () => ["--policy", "/nowhere.yaml"], /ENOENT.*\/nowhere\.yaml/],
    [
      "a relative directory",
      (folder) => [...policy({})(folder), "--directory", "here"],
      /--directory.*"here".*absolute/,
    ],
    ["a missing directory", (folder) => [...policy({})(folder), "--directory", "/nowhere"], /--directory.*\/nowhere/],
    ["a file for a directory", (folder) => [...policy({})(folder), "--directory", "/etc/passwd"], /is not a directory/],
    ["an unknown flag", () => ["--dryrun"], /unknown option/],
  ];
  it.each(cases)("%s", (_what, args, message) => {
    const folder = aFolder();
    mkdirSync(join(folder, "archives"));
    const result = once("--directory", join(folder, "archives"), ...args(folder));
    expect(result.status).toBe(2);
    expect(result.stdout).toBe("");
    expect(result.stderr).toMatch(message);
    expect(
      result.stderr
        .trim()
        .split("\n")
        .filter((line) => !line.startsWith("(Did you mean")),
    ).toHaveLength(1);
  });
});

describe("what a policy says of places", () => {
  it("is overridden by --directory, and its nodeSelector is not looked at", () => {
    const directory = aFolder();
    series(directory, 3);
    const spec = { ...two, checkpointDirectory: "/nowhere", nodeSelector: { disk: "ssd" } };
    expect(once("--policy", aPolicyFile(spec), "--directory", directory, "--json").status).toBe(0);
    expect(archivesIn(directory)).toHaveLength(2);
    const own = once("--policy", aPolicyFile({ ...two, checkpointDirectory: directory }), "--json");
    expect(own.json()).toHaveLength(2);
  });

  it("tells of sizes without a unit that they were taken as MiB", () => {
    const result = once("--policy", aPolicyFile({ globalPolicy: { maxCheckpointSize: 10 } }), "--directory", aFolder());
    expect(result.stderr).toContain(
      "spec.globalPolicy.maxCheckpointSize: 10 has no unit and is taken as MiB; write 10Mi",
    );
  });
});

describe("the agent's commands", () => {
  const agent = (args: string[], input = "") => {
    const command = ["dist/agent.js", ...args];
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { cwd: ROOT, encoding: "utf8", input });
    return { status, stdout, lines: stdout.split("\n").filter((line) => line !== ""), stderr };
  };

  it.each([["list"], ["plan"], ["explain", archiveName()], ["pin", archiveName()], ["pause"], ["status"], ["history"]])(
    "%s says so in a line, with the way out and code 2, if no agent answers",
    (...args) => {
      const { status, lines, stderr } = agent([...args, "--state-dir", aFolder()]);
      expect([status, lines]).toEqual([2, []]);
      expect(stderr).toMatch(/^agent: no running agent answers at \/.+\/agent\.sock \(.+\); give --directory.*\n$/);
    },
  );

  it("list sorts by namespace, pod, container and time, nobody's last, and tells time and node as JSON", () => {
    const directory = aFolder();
    const write = (parts: object) => writeArchive(directory, parts);
    const nobody = write({ namespace: "a", container: "b-c", spec: null });
    const dash = write({ namespace: "team-a" });
    const [late, early] = ["02", "01"].map((day) => write({ namespace: "team", time: `2026-01-${day}T00:00:00Z` }));
    const { status, lines } = agent(["list", "--directory", directory, "--json"]);
    const told = lines.map((line) => JSON.parse(line));
    expect([status, told.map(({ file }) => file)]).toEqual([0, [early, late, dash, nobody]]);
    expect(told[0]).toMatchObject({ time: "2026-01-01T00:00:00Z", node: process.env.NODE_NAME ?? hostname() });
  });

  it("plan prints what docs/retention.md shows of a workload policy", () => {
    const page = readFileSync(join(ROOT, "docs/retention.md"), "utf8");
    const [, policy = "", shown = ""] =
      /<!-- workload policy -->\n```yaml\n(.*?)```\n\n```console\n\$ agent plan [^\n]*\n(.*?)```/s.exec(page) ?? [];
    const directory = aFolder();
    for (const row of shown.trim().split("\n").slice(1)) {
      const [, , namespace = "", pod = "", container = "", time = ""] = row.split(/ {2,}/);
      writeArchive(directory, { namespace, pod, container, time, mtimeMs: Date.parse(time) });
    }
    expect(archivesIn(directory)).toHaveLength(8);
    const { status, stdout } = agent(["plan", "--policy", "-", "--directory", directory], policy);
    expect([status, stdout]).toEqual([0, shown]);
  });

  it("plan says which limits pinned archives use up", () => {
    const directory = aFolder();
    for (const file of series(directory, 2)) writeFileSync(join(directory, `${file}.keep`), "");
    const { status, stderr } = agent(["plan", "--directory", directory, "--policy", aPolicyFile(two)]);
    expect(status).toBe(0);
    expect(stderr).toMatch(
      /^maxCheckpoints 2 of \S+: 2 archives are pinned, so that each new one goes at once; unpin some, or raise it$/m,
    );
  });

  it("plan reads a policy from stdin, and says what it cannot know and that .pause is there", () => {
    const directory = aFolder();
    const files = series(directory, 3);
    expect(agent(["pause", "--directory", directory]).status).toBe(0);
    const policy = readFileSync(aPolicyFile(two), "utf8");
    const args = ["plan", "--policy", "-", "--directory", directory, "--json"];
    const { status, lines, stderr } = agent(args, policy);
    expect([status, JSON.parse(lines[0] ?? "")]).toMatchObject([0, { file: files[0], action: "delete" }]);
    expect(stderr).toContain("planned from the files alone");
    expect(stderr).toContain(`nothing is deleted now: ${directory}/.pause is there`);
    expect(agent(args, "kind: [").stderr).toMatch(/^agent: stdin /);
    expect(agent(["plan", "--directory", directory])).toMatchObject({
      status: 2,
      stderr: expect.stringMatching(/--policy/),
    });
  });
});
