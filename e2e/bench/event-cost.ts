import { existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startAgent, untilWalked } from "./support/agent.ts";
import { aSize, type Owner, owners, populate, writeWhole } from "./support/archives.ts";
import type { Benchmark, Figure } from "./support/benchmark.ts";
import { cpuMsOf, readBytesOf } from "./support/process-facts.ts";
import { median } from "./support/stats.ts";

const SIZES = [200, 2000, 20_000];
const EVENTS = 60;
const WARM_UP = 20;
/** What an archive's look, walk, plan and deletion are given, and a complete archive to settle, in milliseconds. */
const REST_MS = { event: 120, settling: 3000 };
const IDLE_SECONDS = 5;
const PER_CONTAINER = 10;

export default {
  title: "Event cost",
  about:
    "one archive more of a container that has its 10 already, so that its oldest goes: CPU time and bytes read of the agent for it, less what it uses at rest; it is moved into the folder, for one written there is walked once or twice, as chance will have it",
  async run(context) {
    const figures: Figure[] = [];
    let yardsticks: { cpu: number[]; bytes: number[] } | undefined;
    for (const count of SIZES) {
      context.note(`${count} archives`);
      const directory = join(context.folder, `${count}`);
      const elsewhere = join(context.folder, `${count}-elsewhere`);
      for (const folder of [directory, elsewhere]) mkdirSync(folder);
      const all = owners(count / PER_CONTAINER);
      populate(directory, { count, of: all });
      const agent = await startAgent(context);
      await agent.apply({ applyPoliciesImmediately: true }, directory);
      await untilWalked(agent, count);
      await sleep(REST_MS.settling);
      const cpu: number[] = [];
      const bytes: number[] = [];
      const startMs = Math.floor(Date.now() / 1000) * 1000 - 600_000;
      const idle = await costAtRest(agent.pid);
      for (let event = 0; event < WARM_UP + EVENTS; event += 1) {
        const owner = all[event % all.length] as Owner;
        const timeMs = startMs + 1000 * event;
        const file = writeWhole(elsewhere, { owner, timeMs, sizeBytes: aSize(event) });
        const cost = await costOf(agent.pid, async () => {
          renameSync(join(elsewhere, file), join(directory, file));
          await agent.linesOf("archive deleted", event + 1);
          await sleep(REST_MS.event);
          if (!existsSync(join(directory, file))) throw new Error(`${file} was deleted, not the oldest`);
        });
        if (event < WARM_UP) continue;
        cpu.push(cost.cpuMs - (idle.cpuMs * cost.durationMs) / 1000);
        bytes.push((cost.readBytes - (idle.readBytes * cost.durationMs) / 1000) / 1024);
      }
      await agent.stop();
      const total = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
      yardsticks ??= { cpu, bytes };
      const what = "in a folder of 200";
      figures.push(
        { what: `${count}: CPU time`, unit: "ms", values: cpu, yardstick: { what, values: yardsticks.cpu } },
        {
          what: `${count}: bytes read`,
          unit: "KiB",
          values: bytes,
          yardstick: { what, values: yardsticks.bytes },
          atMost: { value: 64 },
        },
        { what: `${count}: CPU time, mean`, unit: "ms", values: [total(cpu)] },
      );
    }
    return figures;
  },
} satisfies Benchmark;

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
