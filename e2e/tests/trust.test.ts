import { mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { archivesIn, writeArchive } from "../../agent/test/support/archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { aDirective, putDirective, startLoneAgent } from "../support/lone-agent.ts";
import { aFolder, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();

/** An agent that was given this root, and one that tells it what to do. */
async function startAgentIn(root: string) {
  const { port, agent } = await startLoneAgent({ agentLeaf, authority, args: ["--checkpoint-root", root] });
  let revision = 0;
  const direct = (directory: string, changes: Record<string, unknown> = {}) => {
    revision += 1;
    return putDirective(port, { authority, coordinatorLeaf }, aDirective({ revision, ...changes }, directory));
  };
  return { agent, direct };
}

describe("a policy whose directory is not the agent's to touch", () => {
  it("deletes nothing there, however it names the place, and works again when it names one inside", async () => {
    const [root, outside] = [aFolder(), aFolder()];
    const kept = series(outside, 12);
    const inside = join(root, "inside");
    mkdirSync(inside);
    const files = series(inside, 12);
    symlinkSync(outside, join(root, "link"));
    symlinkSync("/", join(root, "all"));
    symlinkSync("loop", join(root, "loop"));
    const { direct, agent } = await startAgentIn(root);
    for (const directory of [
      "/",
      "/etc",
      outside,
      join(root, "link"),
      join(root, "all"),
      `${root}/all${outside}`,
      `${root}/inside/../../../etc`,
      `${root}/link/.`,
      `${root}x`,
      `${root}/loop`,
    ]) {
      const { status, body } = await direct(directory);
      expect([directory, status]).toEqual([directory, expect.toSatisfy((code) => code === 200 || code === 422)]);
      if (status === 200)
        expect([directory, (body.directory as { state: string }).state]).toEqual([
          directory,
          expect.stringMatching(/^(not_mounted|unreadable)$/),
        ]);
    }
    expect(archivesIn(outside)).toEqual(kept);
    expect((await direct(inside)).status).toBe(200);
    await until(() => expect(archivesIn(inside)).toEqual(files.slice(2)));
    expect(archivesIn(outside)).toEqual(kept);
    expect(agent.process.exitCode).toBeNull();
  }, 60_000);
});

describe("directives that come again, late, out of order or at the wrong door", () => {
  it("are obeyed at most once, and only the newest: what was deleted is what that one asks for", async () => {
    const root = aFolder();
    const files = series(root, 12);
    const { direct } = await startAgentIn(root);
    const strict = { globalPolicy: { maxCheckpointsPerContainer: 1 } };
    // The newest asks for nothing; before and after it come strict ones that are older, foreign or of an older term.
    expect(
      (await direct(root, { term: 7, revision: 7, spec: { globalPolicy: { maxCheckpointsPerContainer: 0 } } })).status,
    ).toBe(200);
    const refused: Array<[Record<string, unknown>, number]> = [
      [{ term: 7, revision: 6 }, 409],
      [{ term: 7, revision: 7 }, 409],
      [{ term: 6, revision: 1000 }, 409],
      [{ term: 8, revision: 1, node: "node-b" }, 421],
      [{ term: 8, revision: 1, podUID: "pod-b" }, 421],
    ];
    for (let round = 0; round < 3; round++) {
      for (const [changes, status] of refused) {
        expect([changes, (await direct(root, { ...changes, spec: strict })).status]).toEqual([changes, status]);
      }
    }
    const report = await direct(root, {
      term: 7,
      revision: 8,
      spec: { globalPolicy: { maxCheckpointsPerContainer: 0 } },
    });
    expect(report.body).toMatchObject({ accepted: { term: 7, revision: 8 }, archives: 12, deletions: [] });
    expect(archivesIn(root)).toEqual(files);
  }, 60_000);

  it("are refused also by an agent that was restarted since it obeyed a newer one", async () => {
    const root = aFolder();
    const files = series(root, 12);
    const stateDir = aFolder();
    const args = ["--checkpoint-root", root, "--state-dir", stateDir];
    const keepAll = { globalPolicy: { maxCheckpointsPerContainer: 0 } };
    const first = await startLoneAgent({ agentLeaf, authority, args });
    const put = (port: number, changes: Record<string, unknown>) =>
      putDirective(port, { authority, coordinatorLeaf }, aDirective(changes, root));
    expect((await put(first.port, { term: 7, revision: 7, spec: keepAll })).status).toBe(200);
    await first.agent.kill("SIGKILL");
    const { port } = await startLoneAgent({ agentLeaf, authority, args });
    for (const fence of [
      { term: 7, revision: 6 },
      { term: 6, revision: 1000 },
    ]) {
      expect([fence, await put(port, fence)]).toMatchObject([fence, { status: 409, body: { term: 7, revision: 7 } }]);
    }
    expect((await put(port, { term: 7, revision: 8, spec: keepAll })).body).toMatchObject({ archives: 12 });
    expect(archivesIn(root)).toEqual(files);
  }, 60_000);
});

describe("proofs about static pods", () => {
  it("delete nothing of them, and were not asked for: the API server may know nothing of what the kubelet runs", async () => {
    const root = aFolder();
    const pods = [
      { pod: "etcd-node-a", podUID: "db95e7e2e0ab3b170ce0094239084f5c" },
      { pod: "no-uid-node-a", podUID: null },
      { pod: "web-node-a", podUID: "fdf34e56-aa3b-412e-bbc9-24cb28140505" },
      { pod: "web-0", podUID: null },
    ];
    const time = new Date(Date.now() - 60_000).toISOString().slice(0, 19).concat("Z");
    const [etcd = "", noUid = "", ...others] = pods.map((parts) => writeArchive(root, { ...parts, time }));
    const { direct } = await startAgentIn(root);
    const spec = { globalPolicy: { retainOrphan: false } };
    let revision = 3;
    const put = async (orphans: unknown[]) => {
      revision += 1;
      return (await direct(root, { revision, spec, orphans })).body as {
        bootId: string;
        number: number;
        archives: number;
        orphanScopes: Array<{ namespace: string; pod: string }>;
      };
    };
    await until(async () => expect((await put([])).archives).toBe(pods.length));
    const { bootId, number: report, orphanScopes } = await put([]);
    expect(orphanScopes.map(({ pod }) => pod).sort()).toEqual(["web-0", "web-node-a"]);
    await put(pods.map(({ pod }) => ({ bootId, report, namespace: "shop", pod })));
    await until(() => expect(archivesIn(root)).toEqual([etcd, noUid].sort()));
    expect(others).toHaveLength(2);
    expect((await put([])).orphanScopes).toEqual([]);
  }, 60_000);
});

describe("a directive whose time is far from the node's", () => {
  it("makes no archive too old: either clock may have jumped; the next one that agrees does", async () => {
    const root = aFolder();
    const files = series(root, 3);
    const { direct } = await startAgentIn(root);
    const aged = { spec: { globalPolicy: { maxAge: "1m", maxCheckpointsPerContainer: 2 } } };
    const HOUR_MS = 3_600_000;
    for (const offMs of [-HOUR_MS, HOUR_MS]) {
      expect((await direct(root, { ...aged, time: new Date(Date.now() + offMs).toISOString() })).status).toBe(200);
      // What needs no clock goes on.
      await until(() => expect(archivesIn(root)).toEqual(files.slice(1)));
    }
    expect((await direct(root, aged)).status).toBe(200);
    await until(() => expect(archivesIn(root)).toEqual([]));
  }, 60_000);
});
