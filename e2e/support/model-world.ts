import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { JOURNAL } from "@cro/agent/journal";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { ARCHIVE_STATES } from "@cro/shared/wire/report";
import { expect } from "vitest";
import { type SeenNames, unpackNames } from "../../agent/src/inventory/seen.ts";
import type { Watched } from "../../agent/src/policy/state-folder.ts";
import { installRelease } from "./cluster.ts";
import { type AnyObject, create, type Kube, remove, unwrap } from "./kube.ts";
import { aDirective, putDirective } from "./lone-agent.ts";
import {
  archivesOf,
  countsInNumber,
  type Deletion,
  heldBack,
  listingOf,
  type NodeModel,
  type Outcome,
} from "./model.ts";
import { aFolder, freePort, type Running, read, samples, until } from "./processes.ts";

/** How long anything may take that needs nobody but the agent, and what needs a leader, in milliseconds. */
const PATIENCE_MS = { agent: 20_000, cluster: 60_000 } as const;
/** When all that was just written has settled and been acted upon, in milliseconds. */
const ALL_SETTLED_MS = 3500;
/** Namespace and pods of containers that live on, whatever happens: without them few pods that go are most of a node. */
const CROWD = { namespace: "team-crowd", pods: 24 } as const;
/** How long a torn archive has to be unchanged: longer than any run lasts. */
export const INCOMPLETE_AFTER_MS = 4 * 60_000;

/** Containers whose archives there are, by placeholders: `team` is another name in each run. */
export const OWNERS: readonly ContainerIdentity[] = [
  { namespace: "team", pod: "web", container: "prod-main" },
  { namespace: "team-prod", pod: "web", container: "main" },
  { namespace: "team-prod", pod: "web", container: "side" },
  { namespace: "team", pod: "web", container: "prod-side" },
  { namespace: "team", pod: "web", container: "main" },
  { namespace: "team", pod: "api", container: "main" },
  { namespace: "team", pod: "roll-6f9f8977b7-w28kl", container: "main" },
  { namespace: "team", pod: "roll-5d4b8c7f9d-x7k2p", container: "main" },
  { namespace: "jobs", pod: "job-0.batch", container: "main" },
];

/** Pods that come and go, as `namespace/pod`. */
export const PODS = [...new Set(OWNERS.map(({ namespace, pod }) => `${namespace}/${pod}`))];

let runs = 0;

/** A node with its agent, coordinators and an API server, and everything that may happen to them, for real. */
export type World = Awaited<ReturnType<typeof startWorld>>;

/** Installs a release of one node, with namespaces and pods of its own, and waits until its agent obeys the default. */
export async function startWorld(kube: Kube) {
  runs += 1;
  const team = `team${runs}`;
  const jobs = `jobs${runs}`;
  /** Placeholders become the names of this run. */
  const named = <T>(value: T): T =>
    JSON.parse(JSON.stringify(value).replaceAll("team", team).replaceAll("jobs", jobs)) as T;
  const clockFile = join(aFolder(), "clock");
  writeFileSync(clockFile, JSON.stringify({ wallMs: 0, monotonicMs: 0 }));
  const preload = fileURLToPath(new URL("./shifted-clock.mjs", import.meta.url));
  const metricsPort = await freePort("127.0.0.2");
  const release = await installRelease(kube, {
    nodes: 1,
    agentArgs: [
      "--incomplete-after",
      `${INCOMPLETE_AFTER_MS / 1000}s`,
      "--wait-for-coordinator",
      "1s",
      "--metrics-address",
      `127.0.0.2:${metricsPort}`,
    ],
    agentEnv: { NODE_OPTIONS: `--import=${preload}`, CLOCK_FILE: clockFile },
  });
  const [node] = release.nodes;
  if (node === undefined) throw new Error("no node");
  const folders = [node.directory, join(release.folder, "other"), release.mounted];
  mkdirSync(folders[1] as string);
  const relay = await startRelay({ port: release.port, to: "127.0.0.2" });
  const podPath = `/api/v1/namespaces/${release.namespace}/pods/${node.podName}/status`;
  const address = { podIP: "127.0.0.1", podIPs: [{ ip: "127.0.0.1" }] };
  unwrap(await kube.client.request({ method: "PATCH", path: podPath, body: { status: address } }));

  const owners = named(OWNERS);
  const crowd = Array.from({ length: CROWD.pods }, (_, index) => ({
    namespace: named(CROWD.namespace),
    pod: `crowd-${index}`,
    container: "main",
  }));
  for (const namespace of new Set([...owners, ...crowd].map((owner) => owner.namespace))) {
    await create(kube.client, "/api/v1/namespaces", { metadata: { name: namespace } });
  }

  async function createPod(key: string): Promise<void> {
    const [namespace, pod] = key.split("/");
    const containers = [...owners, ...crowd]
      .filter((owner) => owner.namespace === namespace && owner.pod === pod)
      .map(({ container }) => ({ name: container, image: "none" }));
    await create(kube.client, `/api/v1/namespaces/${namespace}/pods`, {
      metadata: { name: pod },
      spec: { containers },
    });
  }
  const deletePod = (key: string) =>
    remove(kube.client, `/api/v1/namespaces/${key.split("/")[0]}/pods/${key.split("/")[1]}`);
  await Promise.all([...named(PODS), ...crowd.map(({ namespace, pod }) => `${namespace}/${pod}`)].map(createPod));

  let agent = node.agent;
  const agents = [readerOf(agent)];
  const agentLog = () => agents.at(-1) as LogReader;
  const coordinators: Array<{ running: Running; log: LogReader; isAlive: boolean }> = [];

  async function metrics(): Promise<Map<string, number>> {
    return samples((await read(`http://127.0.0.2:${metricsPort}/metrics`)).body);
  }

  const world = {
    kube,
    release,
    folders,
    owners,
    crowd,
    named,
    relay,
    createPod,
    deletePod,
    baseMs: Math.floor(Date.now() / 1000) * 1000,
    /** What was done so far, in order. */
    trace: [] as string[],
    agentLog,
    agents,
    coordinators,

    /** Makes changes to files; at once: the agent sees none of them before all are made. */
    carryOut(work: () => void, { isAtOnce }: { isAtOnce: boolean }): void {
      if (isAtOnce) agent.process.kill("SIGSTOP");
      try {
        work();
      } finally {
        if (isAtOnce) agent.process.kill("SIGCONT");
      }
    },

    async endAgent(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
      await until(() => {
        const accepted = agentLog().last("directive accepted", "the last accepted policy is in force");
        expect(JSON.parse(readFileSync(join(node.state, "accepted.json"), "utf8")).digest).toBe(accepted?.policy);
      });
      await agent.kill(signal);
    },

    /** What the state folder of the agent, which has ended, tells to have been in that folder; undefined: nothing. */
    keptOf(folder: number): SeenNames | undefined {
      const file = join(node.state, "watched.json");
      if (!existsSync(file)) return undefined;
      const { device, inode, seen } = JSON.parse(readFileSync(file, "utf8")) as Watched;
      const { dev, ino } = statSync(folders[folder] ?? "", { bigint: true });
      return device === `${dev}` && inode === `${ino}` ? unpackNames(seen) : undefined;
    },

    async startAgent(): Promise<void> {
      agent = node.restart();
      const log = readerOf(agent);
      agents.push(log);
      await until(() => expect(log.has("directory listed")).toBe(true), PATIENCE_MS.agent);
    },

    /** The wall and the monotonic clock of the agent are ahead by so much from now on. */
    async shiftClock(shift: { wallMs: number; monotonicMs: number }): Promise<void> {
      const text = JSON.stringify(shift);
      writeFileSync(clockFile, text);
      agent.process.kill("SIGUSR2");
      await until(() => expect(readFileSync(`${clockFile}.taken`, "utf8")).toBe(text));
    },

    /** Mounts a folder over what the agent sees, or takes away what is mounted uppermost. */
    async mount(folder: number | undefined): Promise<void> {
      const mark = agentLog().mark();
      const command =
        folder === undefined
          ? ["umount", "-l", release.mounted]
          : ["mount", "--bind", folders[folder] ?? "", release.mounted];
      const { status, stderr } = spawnSync("nsenter", ["-t", `${agent.process.pid}`, "-m", ...command]);
      if (status !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
      await until(() => expect(agentLog().has("directory listed", mark)).toBe(true), PATIENCE_MS.agent);
    },

    startCoordinator(): void {
      const running = release.startCoordinator("--policy-grace-period", "1s");
      coordinators.push({ running, log: readerOf(running), isAlive: true });
    },

    /** Who leads by its own word, and the last one to do so where there are two. */
    leader() {
      const leading = coordinators.flatMap((one) => {
        const last = one.log.last("leading", "no longer leading");
        return one.isAlive && last?.msg === "leading" ? [{ one, term: Number(last.term) }] : [];
      });
      return leading.sort((a, b) => b.term - a.term)[0]?.one;
    },

    /** The leader sleeps until another leads, and wakes up believing that it leads. */
    async freezeLeader(): Promise<void> {
      const leader = world.leader();
      leader?.running.process.kill("SIGSTOP");
      try {
        await until(() => expect(world.leader() === leader).toBe(false), PATIENCE_MS.cluster);
      } finally {
        leader?.running.process.kill("SIGCONT");
      }
      await until(() => expect(leader?.log.last("leading", "no longer leading")?.msg).toBe("no longer leading"));
    },

    /** Waits until a directive has told the agent the time. */
    async awaitReference(): Promise<void> {
      await until(
        async () => expect((await metrics()).has("checkpoint_directive_age_seconds")).toBe(true),
        PATIENCE_MS.cluster,
      );
    },

    /** How many times somebody has begun to lead. */
    leaderships: () => coordinators.reduce((sum, { log }) => sum + log.all("leading").length, 0),

    async awaitLeader(): Promise<void> {
      await until(() => expect(world.leader() !== undefined).toBe(true), PATIENCE_MS.cluster);
    },

    /** Ends the leader, by its own will or not. */
    async endLeader(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
      const leader = world.leader();
      if (leader === undefined) throw new Error("nobody leads");
      leader.isAlive = false;
      await leader.running.kill(signal);
    },

    /** Waits until the agent obeys this policy. */
    async awaitPolicy(digest: string): Promise<void> {
      await until(() => {
        const accepted = agentLog().last("directive accepted", "the last accepted policy is in force");
        expect(accepted?.policy).toBe(digest);
      }, PATIENCE_MS.cluster);
    },

    /** Sends the agent a directive that its coordinator did not send just now; returns the answer's status. */
    async sendDirective(changes: Record<string, unknown>): Promise<number> {
      const path = `/api/v1/namespaces/${release.namespace}/secrets/checkpoint-restore-operator-coordinator`;
      const { data } = unwrap(await kube.client.request<AnyObject>({ path }));
      const text = (file: string) => Buffer.from(data[file], "base64").toString();
      const authority = { certificate: text("ca.crt"), key: "" };
      const coordinatorLeaf = { certificate: text("tls.crt"), key: text("tls.key") };
      const directive = aDirective({ node: node.name, podUID: node.podUid, ...changes }, release.mounted);
      return (await putDirective(release.port, { authority, coordinatorLeaf }, directive)).status;
    },

    /** Fails at once where an archive is gone that no outcome lacks; settles on the outcome that the folders show. */
    async awaitOutcome(
      outcomes: readonly Outcome[],
      { before, mark, proves }: { before: NodeModel; mark: number; proves: boolean },
    ): Promise<Outcome> {
      const startMs = performance.now();
      const expected = outcomes.map(({ model }) => model.folders.map(listingOf));
      const [first = []] = expected;
      const kept = first.map((names, index) =>
        names.filter((name) => expected.every((one) => one[index]?.includes(name))),
      );
      // Where it may end in several ways, what looks like one end may be on the way to another.
      const fromMs = outcomes.length > 1 ? startMs + ALL_SETTLED_MS : startMs;
      let nudgedAtMs = startMs;
      for (;;) {
        // The model knows archives and marks; the journal is the agent's own.
        const listings = folders.map((folder) =>
          readdirSync(folder)
            .filter((name) => name !== JOURNAL.file)
            .sort(),
        );
        for (const [index, names] of kept.entries()) {
          const lost = names.filter((name) => !listings[index]?.includes(name));
          if (lost.length > 0) {
            await sleep(300);
            world.fail(`gone, but to be kept: ${lost.join(", ")}`, before);
          }
        }
        const found = outcomes.findIndex((_, index) => JSON.stringify(expected[index]) === JSON.stringify(listings));
        const nowMs = performance.now();
        if (found !== -1 && nowMs >= fromMs) {
          const outcome = outcomes[found] as Outcome;
          await world.checkReasons(outcome, { before, mark });
          return outcome;
        }
        if (nowMs - startMs > (proves ? PATIENCE_MS.cluster : PATIENCE_MS.agent)) {
          world.fail(
            `not as expected in time: ${JSON.stringify(listings)}\nexpected ${expected.map((one) => JSON.stringify(one)).join("\nor ")}`,
            before,
          );
        }
        if (proves && nowMs - nudgedAtMs > 1000) {
          // A coordinator whose connection ends asks for a report, and with that come questions about pods.
          relay.cut();
          nudgedAtMs = nowMs;
        }
        await sleep(20);
      }
    },

    /** What was deleted was told, once, and for a reason that there was. */
    async checkReasons(outcome: Outcome, { before, mark }: { before: NodeModel; mark: number }): Promise<void> {
      const wanted = [...outcome.deleted.keys()].sort();
      const seenMs = performance.now();
      const told = () => agentLog().all("archive deleted", mark);
      await until(() => expect(told().length).toBeGreaterThanOrEqual(wanted.length)).catch(() => {});
      const names = told()
        .map(({ archive }) => String(archive))
        .sort();
      if (JSON.stringify(names) !== JSON.stringify(wanted))
        world.fail(`told to be deleted: ${names.join(", ")}; to be told: ${wanted.join(", ")}`, before);
      for (const { archive, reason } of told()) {
        const { reasons, fromMs } = outcome.deleted.get(String(archive)) as Deletion;
        if (!reasons.has(String(reason)))
          world.fail(`${archive} deleted for ${reason}, not for ${[...reasons].join(" or ")}`, before);
        if (seenMs < fromMs) world.fail(`${archive} deleted ${Math.round(fromMs - seenMs)} ms too early`, before);
      }
    },

    /** Waits until the agent's metrics tell what there is. */
    async awaitView(model: NodeModel): Promise<void> {
      const archives = archivesOf(model);
      const expected: Record<string, number> = {
        checkpoint_archives_pinned: archives.filter(({ pinned }) => pinned).length,
      };
      for (const state of ARCHIVE_STATES) {
        expected[`checkpoint_archives_state{state="${state}"}`] = archives.filter((one) => one.state === state).length;
      }
      for (const archive of archives) {
        const { identity, pinned, state, size } = archive;
        if (identity === undefined) continue;
        const isInBytes = pinned ? state !== "unidentified" : state === "complete" || state === "incomplete";
        if (!isInBytes && !countsInNumber(archive)) continue;
        const count = `checkpoint_archives{namespace="${identity.namespace}"}`;
        const bytes = `checkpoint_archive_bytes{namespace="${identity.namespace}"}`;
        expected[count] = (expected[count] ?? 0) + (countsInNumber(archive) ? 1 : 0);
        expected[bytes] = (expected[bytes] ?? 0) + (isInBytes ? size : 0);
      }
      for (const [name, count] of heldBack(model)) expected[name] = count;
      let seen: Record<string, number> = {};
      await until(async () => {
        const isOfInterest = /^checkpoint_archives_state|^checkpoint_archives_pinned|^checkpoint_archive(s|_bytes)\{/;
        const all = await metrics();
        seen = Object.fromEntries([...all].filter(([name]) => isOfInterest.test(name) || name in expected));
        expect(seen).toEqual(expected);
      }, PATIENCE_MS.agent).catch(() => {
        const names = [...new Set([...Object.keys(seen), ...Object.keys(expected)])];
        const differing = names.filter((name) => seen[name] !== expected[name]);
        const told = differing.map((name) => `${name} is ${seen[name]} and not ${expected[name]}`);
        world.fail(`the agent's view: ${told.join(", ")}`, model);
      });
    },

    /** Ends the run with all that one needs to see why. */
    fail(what: string, before: NodeModel): never {
      const files = [...new Set(what.match(/checkpoint-[\w.+:-]+?\.tar/g) ?? [])];
      const log = agents
        .flatMap(({ running }) => running.out)
        .filter((line) => files.some((file) => line.includes(file)) || /"level":"(warn|error|fatal)"/.test(line));
      const last = agentLog().running.out.slice(-15);
      const story = [
        what,
        `policy: ${JSON.stringify(before.policy)}`,
        `active: ${[...before.active].join(" ")}; gone: ${[...before.gone].join(" ")}; clock: ${before.wallShiftMs}`,
        "before:",
        ...archivesOf(before)
          .filter(({ identity }) => identity?.namespace !== named(CROWD.namespace))
          .map(
            ({ file, state, pinned, size, identity }) =>
              `  ${file} ${state}${pinned ? " pinned" : ""} ${size} of ${Object.values(identity ?? {}).join("/")}`,
          ),
        "log about them, and warnings:",
        ...log.slice(-40).map((line) => `  ${line}`),
        "end of the log:",
        ...last.map((line) => `  ${line}`),
        "steps:",
        ...world.trace.map((step, index) => `  ${index + 1}. ${step}`),
      ];
      throw new Error(story.join("\n"));
    },

    /** What must hold whatever happened: nothing was changed, and nobody complained of what is none of their faults. */
    checkEnd(model: NodeModel): void {
      for (const [index, folder] of model.folders.entries()) {
        for (const { file, size, mtimeMs } of folder.files.values()) {
          const stat = statSync(join(folders[index] ?? "", file));
          if (stat.size !== size || stat.mtimeMs !== mtimeMs) world.fail(`${file} was changed`, model);
        }
      }
      const isError = (line: Record<string, unknown>) => ["error", "fatal"].includes(String(line.level));
      for (const { running, all } of agents) {
        const complaints = [
          ...running.err,
          ...all()
            .filter(isError)
            .map((line) => JSON.stringify(line)),
        ];
        if (complaints.length > 0) world.fail(`the agent complains: ${complaints.join("\n")}`, model);
      }
      for (const { running, log } of coordinators) {
        // What an API server that fails has them say.
        const isExpected = ({ msg }: Record<string, unknown>) => msg === "certificates cannot be kept fresh";
        const errors = log.all().filter((line) => isError(line) && !isExpected(line));
        const complaints = [...running.err, ...errors.map((line) => JSON.stringify(line))];
        if (complaints.length > 0) world.fail(`a coordinator complains: ${complaints.join("\n")}`, model);
      }
    },

    async stop(): Promise<void> {
      await Promise.all([release.stop(), relay.close()]);
      // Nobody will ask what a run said that has been judged.
      for (const { running } of [...agents, ...coordinators.map(({ log }) => log)]) {
        running.out.length = 0;
        running.err.length = 0;
      }
    },
  };
  return world;
}

type LogReader = ReturnType<typeof readerOf>;

/** Reads a process's log, each line once. */
function readerOf(running: Running) {
  const lines: Array<Record<string, unknown>> = [];
  let read = 0;
  function take(): void {
    for (; read < running.out.length; read += 1) {
      try {
        lines.push(JSON.parse(running.out[read] ?? ""));
      } catch {
        lines.push({ msg: running.out[read] });
      }
    }
  }
  return {
    running,
    mark(): number {
      take();
      return lines.length;
    },
    all(msg?: string, from = 0): Array<Record<string, unknown>> {
      take();
      return lines.slice(from).filter((line) => msg === undefined || line.msg === msg);
    },
    last(...msgs: string[]): Record<string, unknown> | undefined {
      take();
      return lines.findLast(({ msg }) => msgs.includes(String(msg)));
    },
    has(msg: string, from = 0): boolean {
      take();
      return lines.slice(from).some((line) => line.msg === msg);
    },
  };
}

/** A way to the agent that can be cut. */
async function startRelay({ port, to }: { port: number; to: string }) {
  const sockets = new Set<Socket>();
  let isBlocked = false;
  const server = createServer((near) => {
    if (isBlocked) {
      near.destroy();
      return;
    }
    const far = connect(port, to);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.once("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: (server.address() as AddressInfo).port,
    cut,
    /** Lets nobody through any more, or again. */
    block(blocks: boolean): void {
      isBlocked = blocks;
      if (blocks) cut();
    },
    close(): Promise<void> {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
