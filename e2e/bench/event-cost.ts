import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startAgent, untilWalked } from "./support/agent.ts";
import { type Owner, owners, populate, writeWhole } from "./support/archives.ts";
import type { BenchContext, Benchmark, Figure } from "./support/benchmark.ts";
import { cpuMsOf, readBytesOf } from "./support/process-facts.ts";
import { median } from "./support/stats.ts";

const EVENTS = 60;
const WARM_UP = 20;
/** What an archive's look, walk, plan and deletion are given, and a complete archive to settle, in milliseconds. */
const REST_MS = { event: 120, settling: 3000 };
const IDLE_SECONDS = 5;
const MIB = 1024 * 1024;

/** A folder that is full to its limit, so that each archive more pushes the oldest out. */
interface Full {
  of: readonly Owner[];
  spec: Record<string, unknown>;
}

const team = (count: number) => owners(count / 10).map((owner) => ({ ...owner, namespace: "team" }));
const aPod = () => Array.from({ length: 10 }, (_, at) => ({ ...(owners(1)[0] as Owner), container: `part-${at}` }));

/** What is limited, and what makes so many archives fill that limit. */
const SCOPES: Array<{ name: string; counts: readonly number[]; fill: (count: number) => Full }> = [
  {
    name: "10 of each container",
    counts: [200, 2000, 20_000],
    fill: (count) => ({ of: owners(count / 10), spec: { globalPolicy: { maxCheckpointsPerContainer: 10 } } }),
  },
  {
    name: "one container",
    counts: [200, 20_000],
    fill: (count) => ({ of: owners(1), spec: { globalPolicy: { maxCheckpointsPerContainer: count } } }),
  },
  {
    name: "one pod",
    counts: [200, 20_000],
    fill: (count) => ({
      of: aPod(),
      spec: { globalPolicy: { maxCheckpointsPerContainer: 0, maxCheckpointsPerPod: count } },
    }),
  },
  {
    name: "one namespace",
    counts: [200, 20_000],
    fill: (count) => ({
      of: team(count),
      spec: { globalPolicy: { maxCheckpointsPerContainer: 0, maxCheckpointsPerNamespace: count } },
    }),
  },
  {
    name: "the node's total size",
    counts: [200, 20_000],
    fill: (count) => ({
      of: owners(count / 10),
      spec: { globalPolicy: { maxCheckpointsPerContainer: 0 }, nodePolicy: { maxTotalSize: `${count}Mi` } },
    }),
  },
];

export default {
  title: "Event cost",
  about:
    "one archive more where a limit is reached already, so that the oldest goes: CPU time and bytes read of the agent for it, less what it uses at rest, and the time until the oldest is gone; it is moved into the folder, for one written there is walked once or twice, as chance will have it",
  async run(context) {
    const figures: Figure[] = [];
    for (const { name, counts, fill } of SCOPES) {
      let yardsticks: { cpu: number[]; bytes: number[] } | undefined;
      for (const count of counts) {
        context.note(`${name}, ${count} archives`);
        const { cpu, bytes, latency } = await measure(context, count, fill(count));
        yardsticks ??= { cpu, bytes };
        const what = "in a folder of 200";
        const about = `${name}, ${count}`;
        figures.push(
          {
            what: `${about}: CPU time`,
            unit: "ms",
            values: cpu,
            yardstick: { what, values: yardsticks.cpu },
            ...(count > 200 && { atMost: { times: 2 } }),
          },
          { what: `${about}: CPU time, mean`, unit: "ms", values: [meanOf(cpu)] },
          {
            what: `${about}: bytes read`,
            unit: "KiB",
            values: bytes,
            yardstick: { what, values: yardsticks.bytes },
            atMost: { value: 64 },
          },
          { what: `${about}: event to gone`, unit: "ms", values: latency, atMost: { value: 20 } },
        );
      }
    }
    return figures;
  },
} satisfies Benchmark;

async function measure(context: BenchContext, count: number, { of, spec }: Full) {
  folders += 1;
  const directory = join(context.folder, `${folders}`);
  const elsewhere = join(context.folder, `${folders}-elsewhere`);
  for (const folder of [directory, elsewhere]) mkdirSync(folder);
  populate(directory, { count, of, sizeOf: () => MIB });
  const agent = await startAgent(context);
  await agent.apply({ applyPoliciesImmediately: true, ...spec }, directory);
  await untilWalked(agent, count);
  await sleep(REST_MS.settling);
  const cpu: number[] = [];
  const bytes: number[] = [];
  const latency: number[] = [];
  const startMs = Math.floor(Date.now() / 1000) * 1000 - 600_000;
  const idle = await costAtRest(agent.pid);
  for (let event = 0; event < WARM_UP + EVENTS; event += 1) {
    const owner = of[event % of.length] as Owner;
    const file = writeWhole(elsewhere, { owner, timeMs: startMs + 1000 * event, sizeBytes: MIB });
    let gone = 0;
    const cost = await costOf(agent.pid, async () => {
      const movedMs = performance.now();
      renameSync(join(elsewhere, file), join(directory, file));
      await agent.linesOf("archive deleted", event + 1);
      gone = performance.now() - movedMs;
      await sleep(REST_MS.event);
      if (!existsSync(join(directory, file))) throw new Error(`${file} was deleted, not the oldest`);
    });
    if (event < WARM_UP) continue;
    cpu.push(cost.cpuMs - (idle.cpuMs * cost.durationMs) / 1000);
    bytes.push((cost.readBytes - (idle.readBytes * cost.durationMs) / 1000) / 1024);
    latency.push(gone);
  }
  await agent.stop();
  return { cpu, bytes, latency };
}

let folders = 0;

const meanOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** What a second at rest costs: the median of some, for in one of them V8 may clear up after what was before. */
async function costAtRest(pid: number) {
  const seconds: Array<Awaited<ReturnType<typeof costOf>>> = [];
  for (let second = 0; second < IDLE_SECONDS; second += 1) seconds.push(await costOf(pid, () => sleep(1000)));
  return {
    cpuMs: median(seconds.map(({ cpuMs }) => cpuMs)),
    readBytes: median(seconds.map(({ readBytes }) => readBytes)),
  };
}

async function costOf(pid: number, work: () => Promise<unknown>) {
  const before = { cpuMs: cpuMsOf(pid), readBytes: readBytesOf(pid), atMs: performance.now() };
  await work();
  return {
    cpuMs: cpuMsOf(pid) - before.cpuMs,
    readBytes: readBytesOf(pid) - before.readBytes,
    durationMs: performance.now() - before.atMs,
  };
}
