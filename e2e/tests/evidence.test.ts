import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { digestOf } from "@cro/shared/policy/document";
import { describe, expect, it, onTestFinished } from "vitest";
import { archiveName, archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { aDirective, putDirective, startLoneAgent } from "../support/lone-agent.ts";
import { policyDocument } from "../support/policy-document.ts";
import { aFolder, read, samples, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const DAY_MS = 86_400_000;
const PRELOAD = fileURLToPath(new URL("../support/shifted-clock.mjs", import.meta.url));

const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();

/** A policy as it travels, for a directory; it acts at once only if the spec says so. */
function aPolicy(spec: unknown, directory: string) {
  const document = { ...policyDocument(spec), directory };
  return { digest: digestOf(JSON.stringify(document)), document };
}

/** A node whose agent can be ended and started again, over the same directory, state and clock. */
function aNode() {
  const [root, state] = [aFolder(), aFolder()];
  const clockFile = join(aFolder(), "clock");
  let revision = 0;
  const setClock = (wallMs: number) => writeFileSync(clockFile, JSON.stringify({ wallMs, monotonicMs: 0 }));
  setClock(0);
  return {
    root,
    state,
    setClock,
    start: async (args: string[] = []) => {
      const { agent, port, metricsUrl } = await startLoneAgent({
        agentLeaf,
        authority,
        args: ["--checkpoint-root", root, "--state-dir", state, ...args],
        env: { NODE_OPTIONS: `--import=${PRELOAD}`, CLOCK_FILE: clockFile },
      });
      const metric = async (name: string) => samples((await read(metricsUrl)).body).get(name);
      return {
        agent,
        metric,
        direct: async (spec: unknown, changes: Record<string, unknown> = {}) => {
          revision += 1;
          const body = aDirective({ revision, policy: aPolicy(spec, root), ...changes });
          const answer = await putDirective(port, { authority, coordinatorLeaf }, body);
          expect([answer.status, answer.body]).toEqual([200, expect.anything()]);
          return answer.body;
        },
        /** Steps the clock of the running agent. */
        stepClock: async (wallMs: number) => {
          unlinkIfThere(`${clockFile}.taken`);
          setClock(wallMs);
          agent.process.kill("SIGUSR2");
          await until(() => expect(readFileSync(`${clockFile}.taken`, "utf8")).toContain(`${wallMs}`));
        },
        said: (message: string) => until(() => expect(agent.log().some(({ msg }) => msg === message)).toBe(true)),
        walked: (count: number) =>
          until(async () => expect(await metric('checkpoint_archives_state{state="complete"}')).toBe(count)),
      };
    },
  };
}

function unlinkIfThere(path: string): void {
  if (existsSync(path)) unlinkSync(path);
}

const NO_COORDINATOR = "no coordinator came; the last accepted policy acts";
const agedAndFew = {
  applyPoliciesImmediately: true,
  globalPolicy: { maxAge: "30d", maxCheckpointsPerContainer: 5 },
};

describe("the age of an archive", () => {
  it("is unknown to an agent that has heard no coordinator since its start, however far the clock is ahead or jumps", async () => {
    const node = aNode();
    const files = series(node.root, 5);
    const first = await node.start();
    await first.direct(agedAndFew);
    await first.walked(5);
    await first.agent.kill();
    node.setClock(400 * DAY_MS);
    const second = await node.start(["--wait-for-coordinator", "1s"]);
    await second.said(NO_COORDINATOR);
    await second.walked(5);
    // What needs no clock acts, and with it everything else would have.
    const arrived = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 60_000) });
    await until(() => expect(archivesIn(node.root)).toEqual([...files.slice(1), arrived].sort()));
    await second.agent.kill();
    node.setClock(0);
    const third = await node.start(["--wait-for-coordinator", "1s"]);
    await third.said(NO_COORDINATOR);
    await third.stepClock(400 * DAY_MS);
    const next = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 50_000) });
    await until(() => expect(archivesIn(node.root)).toEqual([...files.slice(2), arrived, next].sort()));
  }, 60_000);

  it("is not reached by a policy that comes while the clock is behind, when the clock is set right", async () => {
    const node = aNode();
    const old = series(node.root, 5, { startMs: Date.now() - 40 * DAY_MS });
    node.setClock(-400 * DAY_MS);
    const { direct, stepClock, walked } = await node.start();
    const aged = { globalPolicy: { maxAge: "30d" } };
    await direct(aged);
    await until(async () => expect((await direct(aged)).archives).toBe(0));
    await stepClock(0);
    await direct(aged);
    await walked(5);
    // It is an event when the next one reaches its age.
    const dying = writeArchive(node.root, {
      container: "dying",
      time: archiveTime(Date.now() - 30 * DAY_MS + 4000),
      mtimeMs: Date.now() - 30 * DAY_MS,
    });
    await until(() => expect(archivesIn(node.root)).not.toContain(dying));
    expect(archivesIn(node.root)).toEqual(old);
  }, 60_000);
});

describe("since when a file is what no other rule may take", () => {
  it("outlives a restart, waits for a coordinator after that however far the clock is ahead, and begins anew with what was touched", async () => {
    const node = aNode();
    const [file, touched] = ["a", "b"].map((container) => {
      const name = archiveName({ container, time: archiveTime(Date.now() - 60_000) });
      writeFileSync(join(node.root, name), "no tar at all".repeat(100));
      return name;
    });
    const found = series(node.root, 2);
    const spec = {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerContainer: 2 },
      nodePolicy: { maxAgeUnmanaged: "90d" },
    };
    const UNREAD = 'checkpoint_archives_state{state="unread"}';
    const first = await node.start();
    await first.direct(spec);
    await until(async () => expect(await first.metric(UNREAD)).toBe(2));
    await first.agent.kill();
    chmodSync(join(node.root, touched as string), 0o644);
    node.setClock(400 * DAY_MS);
    const second = await node.start(["--wait-for-coordinator", "1s"]);
    await second.said(NO_COORDINATOR);
    // What needs no clock acts, and with it everything else would have.
    const arrived = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 50_000) });
    await until(() => expect(archivesIn(node.root)).not.toContain(found[0]));
    expect(archivesIn(node.root)).toEqual([file, touched, found[1], arrived].sort());
    await second.direct(spec, { time: new Date(Date.now() + 400 * DAY_MS).toISOString() });
    await until(() => expect(archivesIn(node.root)).toEqual([touched, found[1], arrived].sort()));
    expect(await second.metric('checkpoint_archives_deleted_total{namespace="shop",reason="max_age_unmanaged"}')).toBe(
      1,
    );
  }, 60_000);
});

describe("the age of what no other rule may take", () => {
  it("does not grow if the clocks of node and coordinator jump together", async () => {
    const node = aNode();
    const file = archiveName({ time: archiveTime(Date.now() - 60_000) });
    writeFileSync(join(node.root, file), "no tar at all".repeat(100));
    const found = series(node.root, 2);
    const spec = {
      applyPoliciesImmediately: true,
      globalPolicy: { maxCheckpointsPerContainer: 2 },
      nodePolicy: { maxAgeUnmanaged: "1h" },
    };
    const { direct, metric, stepClock } = await node.start();
    await direct(spec);
    await until(async () => expect(await metric('checkpoint_archives_state{state="unread"}')).toBe(1));
    await stepClock(400 * DAY_MS);
    await direct(spec, { time: new Date(Date.now() + 400 * DAY_MS).toISOString() });
    const arrived = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 50_000) });
    await until(() => expect(archivesIn(node.root)).toEqual([file, found[1], arrived].sort()));
  }, 60_000);
});

describe("a policy that an agent kept", () => {
  it("waits for the coordinator after a start, whose next policy alone acts", async () => {
    const node = aNode();
    const first = await node.start();
    await first.direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await first.agent.kill();
    const files = series(node.root, 5);
    const second = await node.start(["--wait-for-coordinator", "1h"]);
    await second.walked(5);
    // Else a plan would have been made as soon as the directory was listed.
    expect(await second.metric("checkpoint_enforcement_duration_seconds_count")).toBe(0);
    expect(archivesIn(node.root)).toEqual(files);
    await second.direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 4 } });
    await until(() => expect(archivesIn(node.root)).toEqual(files.slice(1)));
  }, 60_000);
});

describe("a directive", () => {
  it("is acted upon only when it is on disk, or cannot be", async () => {
    const node = aNode();
    const [first, ...files] = series(node.root, 6);
    const { direct, walked, metric, agent } = await node.start();
    await direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 5 } });
    // The oldest goes when it has settled, and with it all others have.
    await until(() => expect(archivesIn(node.root)).not.toContain(first));
    // Writing the state waits until somebody reads.
    const pipe = join(node.state, "accepted.json.new");
    execFileSync("mkfifo", [pipe]);
    const directing = direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    // By then the directive would have been acted upon: an arrival is seen, walked and counted.
    writeArchive(node.root, { container: "other", time: archiveTime(Date.now() - 60_000) });
    await walked(6);
    expect(archivesIn(node.root)).toHaveLength(6);
    expect(await metric("checkpoint_policy_revision")).toBe(1);
    const reader = await open(pipe, "r");
    onTestFinished(() => reader.close());
    const { accepted } = await directing;
    expect(accepted).toMatchObject({ revision: 2 });
    await until(() => expect(archivesIn(node.root).filter((file) => files.includes(file))).toEqual(files.slice(3)));
    expect(agent.process.exitCode).toBeNull();
  }, 60_000);

  it("with another policy ends what the one before does, even while it is not on disk yet", async () => {
    const node = aNode();
    const [first] = series(node.root, 3);
    const { direct, walked, metric, agent } = await node.start();
    const arrived = ({ log }: typeof agent) =>
      log().flatMap(({ msg, archive }) => (msg === "archive arrived" ? [archive] : []));
    await direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } });
    await until(() => expect(archivesIn(node.root)).not.toContain(first));
    const pipe = join(node.state, "accepted.json.new");
    execFileSync("mkfifo", [pipe]);
    const directing = direct({ applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 0 } });
    // So many answers take the agent longer than to begin with the directive, however slow it is.
    for (let answers = 0; answers < 30; answers += 1) await metric("checkpoint_policy_revision");
    // What the policy before would delete once it has settled, and what the next one keeps.
    const more = series(node.root, 3, { startMs: Date.now() - 3_600_000 });
    await walked(5);
    const kept = () => {
      for (const file of more) expect(archivesIn(node.root)).toContain(file);
    };
    await new Promise((resolve) => setTimeout(resolve, 2500)); // archives settle in two seconds
    kept();
    const reader = await open(pipe, "r");
    onTestFinished(() => reader.close());
    expect((await directing).accepted).toMatchObject({ revision: 2 });
    const again = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 30_000) });
    await walked(6);
    await until(() => expect(arrived(agent)).toContain(again));
    kept();
  }, 60_000);
});

describe("an event that was not acted upon to the end", () => {
  const atTwo = { globalPolicy: { maxCheckpointsPerContainer: 2 } };

  /** Two archives are there, and three more come while something keeps them from being acted upon. */
  async function withSomethingDue(node: ReturnType<typeof aNode>, hold: (files: string[]) => void) {
    const found = series(node.root, 2);
    const started = await node.start(["--incomplete-after", "2s"]);
    await started.direct(atTwo);
    await started.walked(2);
    hold(found);
    const arrived = series(node.root, 3, { startMs: Date.now() - 3_600_000 });
    return { ...started, files: [...found, ...arrived] };
  }

  it.each(["SIGTERM", "SIGKILL"] as const)(
    "because of a .pause is, when the pause is lifted after a restart by %s",
    async (signal) => {
      const node = aNode();
      const pause = join(node.root, ".pause");
      const { files, agent, walked, metric } = await withSomethingDue(node, () => writeFileSync(pause, ""));
      await walked(5);
      await until(async () => expect(await metric('checkpoint_archives_planned{reason="max_checkpoints"}')).toBe(3));
      await agent.kill(signal);
      const again = await node.start(["--wait-for-coordinator", "1s"]);
      await again.said(NO_COORDINATOR);
      await until(async () => expect(await again.metric("checkpoint_deletion_paused")).toBe(1));
      await again.walked(5);
      unlinkSync(pause);
      await until(() => expect(archivesIn(node.root)).toEqual(files.slice(3)));
    },
    60_000,
  );

  it("is over once nothing asks for anything any more, and stays so", async () => {
    const node = aNode();
    const pause = join(node.root, ".pause");
    const { files, agent, metric, walked } = await withSomethingDue(node, () => writeFileSync(pause, ""));
    const kept = () => JSON.parse(readFileSync(join(node.state, "watched.json"), "utf8")) as { due?: unknown };
    await walked(5);
    await until(async () => expect(await metric('checkpoint_archives_planned{reason="max_checkpoints"}')).toBe(3));
    await agent.kill("SIGTERM");
    expect(kept()).toHaveProperty("due");
    for (const file of files) writeFileSync(join(node.root, `${file}.keep`), "");
    unlinkSync(pause);
    const again = await node.start(["--wait-for-coordinator", "1s"]);
    await again.said(NO_COORDINATOR);
    await again.walked(5);
    await until(() => expect(kept()).not.toHaveProperty("due"), 30_000);
    expect(archivesIn(node.root)).toEqual(files);
  }, 60_000);

  it("is over although that could not be written at first, and what was seen is kept", async () => {
    const node = aNode();
    const aged = { globalPolicy: { maxAge: "30d" } };
    const { direct, walked, metric } = await node.start();
    await direct(aged);
    await until(async () => expect((await direct(aged)).archives).toBe(0));
    const file = join(node.state, "watched.json");
    const seen = () => existsSync(file) && (JSON.parse(readFileSync(file, "utf8")) as { seen: string }).seen;
    await until(() => expect(seen()).toBe(""));
    writeFileSync(join(node.root, ".pause"), "");
    const dying = writeArchive(node.root, {
      container: "dying",
      time: archiveTime(Date.now() - 30 * DAY_MS + 20_000),
      mtimeMs: Date.now() - 30 * DAY_MS,
    });
    await walked(1);
    await until(() => expect(seen()).toMatch(/./), 30_000);
    // Nothing can be written in the place of a folder.
    mkdirSync(`${file}.new`);
    await until(async () => expect(await metric("checkpoint_agent_state_errors_total")).toBeGreaterThan(0), 30_000);
    await until(() => expect(existsSync(file)).toBe(false), 5000);
    writeFileSync(join(node.root, `${dying}.keep`), "");
    unlinkSync(join(node.root, ".pause"));
    rmdirSync(`${file}.new`);
    await until(() => expect(seen()).toMatch(/./), 30_000);
    expect(archivesIn(node.root)).toEqual([dying]);
  }, 120_000);

  it("because the directory was away is, when it is back", async () => {
    const node = aNode();
    const pause = join(node.root, ".pause");
    const { files, walked, metric } = await withSomethingDue(node, () => writeFileSync(pause, ""));
    await walked(5);
    await until(async () => expect(await metric('checkpoint_archives_planned{reason="max_checkpoints"}')).toBe(3));
    renameSync(node.root, `${node.root}-away`);
    await until(async () => expect(await metric('checkpoint_archives_state{state="complete"}')).toBe(0));
    renameSync(`${node.root}-away`, node.root);
    await walked(5);
    unlinkSync(pause);
    await until(() => expect(archivesIn(node.root)).toEqual(files.slice(3)));
  }, 60_000);

  it("because an archive was still torn is, when the agent that starts again finds nobody writing it any more", async () => {
    const node = aNode();
    const found = series(node.root, 2);
    const { direct, walked, metric, agent } = await node.start();
    await direct(atTwo);
    await walked(2);
    const torn = writeArchive(node.root, { container: "main", time: archiveTime(Date.now() - 60_000) });
    truncateSync(join(node.root, torn), 3000);
    await until(async () => expect(await metric('checkpoint_archives_state{state="unsettled"}')).toBe(1));
    await agent.kill();
    await node.start(["--wait-for-coordinator", "1s", "--incomplete-after", "2s"]);
    await until(() => expect(archivesIn(node.root)).toEqual(found));
  }, 60_000);

  it("because a deletion failed is, when it can be made after a restart", async ({ skip }) => {
    const node = aNode();
    let stuck = "";
    const chattr = (flag: string) => execFileSync("chattr", [flag, stuck], { stdio: "ignore" });
    const { files, agent, metric } = await withSomethingDue(node, ([oldest = ""]) => {
      stuck = join(node.root, oldest);
      try {
        chattr("+i");
      } catch {
        skip("chattr +i cannot be used here");
      }
      onTestFinished(() => (existsSync(stuck) ? void chattr("-i") : undefined));
    });
    await until(async () =>
      expect(await metric('checkpoint_archive_delete_errors_total{code="EPERM"}')).toBeGreaterThan(0),
    );
    await agent.kill();
    chattr("-i");
    await node.start(["--wait-for-coordinator", "1s"]);
    await until(() => expect(archivesIn(node.root)).not.toContain(files[0]));
    expect(archivesIn(node.root).slice(-1)).toEqual(files.slice(-1));
  }, 60_000);
});
