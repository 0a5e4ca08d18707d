import { writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rename, rm, symlink, unlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { CompiledPolicy, FieldProblem } from "@cro/shared/policy/compile";
import { defaultPolicy } from "@cro/shared/policy/compile";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { applyOverrides, followPolicyFile, type PolicyFileOptions } from "../../src/policy/file-source.ts";

let directory: string;
let path: string;
const closes: Array<() => void> = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "policy-"));
  path = join(directory, "policy.yaml");
});
afterEach(async () => {
  for (const close of closes.splice(0)) close();
  await rm(directory, { recursive: true });
});

function aResource(maxCheckpointsPerContainer: number | string): string {
  return [
    "apiVersion: criu.org/v1",
    "kind: CheckpointRestoreOperator",
    `spec: {globalPolicy: {maxCheckpointsPerContainer: ${maxCheckpointsPerContainer}}}`,
  ].join("\n");
}

async function follow(options: Partial<PolicyFileOptions> = {}) {
  const seen: { limits: Array<number | undefined>; refused: FieldProblem[][] } = { limits: [], refused: [] };
  const started = await followPolicyFile({
    path,
    overrides: { directory: undefined, isDryRun: false },
    onPolicy: (policy: CompiledPolicy) => seen.limits.push(policy.document.global.perContainer?.maxCheckpoints),
    onRefused: (problems) => seen.refused.push(problems),
    timings: { pollMs: 10, settleMs: 50 },
    ...options,
  });
  if (started.ok) closes.push(started.close);
  return { started, seen };
}

describe("followPolicyFile", () => {
  it("has the policy when it has started, and says so once", async () => {
    await writeFile(path, aResource(3));
    const { started, seen } = await follow();
    expect(started.ok).toBe(true);
    expect(seen.limits).toEqual([3]);
    await writeFile(path, aResource(4));
    await expect.poll(() => seen.limits).toEqual([3, 4]);
  });

  it.each([
    ["is missing", undefined, /cannot be read: ENOENT/],
    ["is no YAML", "a: [", /is not YAML/],
    ["holds two resources", `${aResource(1)}\n---\n${aResource(2)}`, /holds 2 resources/],
    ["has a bad value", aResource('"many"'), /many/],
  ])("does not start with a file that %s", async (_, text, message) => {
    if (text !== undefined) await writeFile(path, text);
    const { started, seen } = await follow();
    expect(started).toMatchObject({ ok: false, problems: [{ message: expect.stringMatching(message) }] });
    expect(seen).toEqual({ limits: [], refused: [] });
  });

  it("names the field of a bad value", async () => {
    await writeFile(path, aResource(-1));
    const { started } = await follow();
    expect(started).toMatchObject({ problems: [{ field: "spec.globalPolicy.maxCheckpointsPerContainer" }] });
  });

  it("keeps the last good policy while the file is bad, says why once, and takes the next good one", async () => {
    await writeFile(path, aResource(3));
    const { seen } = await follow();
    await writeFile(path, aResource(-1));
    await expect.poll(() => seen.refused).toHaveLength(1);
    expect(seen.limits).toEqual([3]);
    await writeFile(path, aResource(5));
    await expect.poll(() => seen.limits).toEqual([3, 5]);
    expect(seen.refused).toHaveLength(1);
  });

  it("survives an editor that replaces the file, and its deletion and recreation", async () => {
    await writeFile(path, aResource(1));
    const { seen } = await follow();
    for (const limit of [2, 3]) {
      await writeFile(`${path}.new`, aResource(limit));
      await rename(`${path}.new`, path);
      await expect.poll(() => seen.limits.at(-1)).toBe(limit);
    }
    await unlink(path);
    await expect.poll(() => seen.refused.at(-1)?.[0]?.message).toMatch(/ENOENT/);
    await writeFile(path, aResource(3));
    await expect.poll(() => seen.limits).toEqual([1, 2, 3, 3]);
    await rm(directory, { recursive: true });
    await expect.poll(() => seen.refused).toHaveLength(2);
    await mkdir(directory);
    await writeFile(path, aResource(4));
    await expect.poll(() => seen.limits.at(-1)).toBe(4);
  });

  it("follows a link that is led elsewhere, as a mounted ConfigMap's is", async () => {
    for (const limit of [1, 2]) {
      await mkdir(join(directory, `v${limit}`));
      await writeFile(join(directory, `v${limit}`, "policy.yaml"), aResource(limit));
    }
    await symlink("v1", join(directory, "..data"));
    await symlink("..data/policy.yaml", path);
    const { seen } = await follow();
    await symlink("v2", join(directory, "..new"));
    await rename(join(directory, "..new"), join(directory, "..data"));
    await expect.poll(() => seen.limits).toEqual([1, 2]);
  });

  it("does not take half of a file that is being written, which may be a policy too", async () => {
    await writeFile(path, aResource(50));
    const { seen } = await follow({ timings: { pollMs: 5, settleMs: 1000 } });
    const half = aResource(50).split("spec")[0] ?? "";
    await writeFile(path, half);
    let isSeen = false;
    for (let n = 0; n < 20; n++) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      await writeFile(path, `${half}#${"x".repeat(n)}`);
      isSeen ||= seen.limits.length > 1;
    }
    await writeFile(path, aResource(51));
    await expect.poll(() => seen.limits, { timeout: 5000 }).toEqual([50, 51]);
    expect(isSeen).toBe(false);
  });

  it("sees a change made right after the file was read, before anybody watches it", async () => {
    await writeFile(path, aResource(1));
    const limits: Array<number | undefined> = [];
    await follow({
      onPolicy(policy) {
        if (limits.push(policy.document.global.perContainer?.maxCheckpoints) === 1) writeFileSync(path, aResource(2));
      },
    });
    await expect.poll(() => limits).toEqual([1, 2]);
  });

  it("reads no more when it is closed", async () => {
    await writeFile(path, aResource(1));
    const { started, seen } = await follow();
    const other = await follow();
    if (started.ok) started.close();
    await writeFile(path, aResource(2));
    await expect.poll(() => other.seen.limits).toEqual([1, 2]);
    expect(seen.limits).toEqual([1]);
  });
});

describe("applyOverrides", () => {
  it("lets the command line win over the policy's directory and mode, and over nothing else", () => {
    const policy = defaultPolicy();
    expect(applyOverrides(policy, { directory: undefined, isDryRun: false })).toEqual(policy);
    const overridden = applyOverrides(policy, { directory: "/d", isDryRun: true });
    expect(overridden.document).toEqual({ ...policy.document, directory: "/d", mode: "DryRun" });
  });
});
