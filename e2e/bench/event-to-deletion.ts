import { existsSync, mkdirSync, watch } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { startAgent, untilWalked } from "./support/agent.ts";
import { aSize, chance, nameOf, type Owner, owners, startWriting, writeWhole } from "./support/archives.ts";
import type { BenchContext, Benchmark, Figure } from "./support/benchmark.ts";

const MIB = 1024 * 1024;
const LIMIT = 10;
const SETTLING_MS = 3000;

/** A folder of archives of these containers, up to their limit, and the agent that keeps it there. */
async function begin(
  context: BenchContext,
  { of, perContainer = LIMIT, spec, denseBytes }: Setting & { of: readonly Owner[] },
) {
  folders += 1;
  const directory = join(context.folder, `folder-${folders}`);
  mkdirSync(directory);
  const startMs = Math.floor(Date.now() / 1000) * 1000 - 200_000_000;
  const queues = of.map((owner, which) =>
    Array.from({ length: perContainer }, (_, index) => {
      const sizeBytes = denseBytes ?? aSize(which + index);
      return writeWhole(directory, {
        owner,
        timeMs: startMs + 1000 * (index * of.length + which),
        sizeBytes,
        isDense: denseBytes !== undefined,
      });
    }),
  );
  const agent = await startAgent(context);
  await agent.apply({ applyPoliciesImmediately: true, ...spec }, directory);
  await untilWalked(agent, of.length * perContainer);
  await sleep(SETTLING_MS);

  const waiting = new Map<string, () => void>();
  const watcher = watch(directory, (type, file) => {
    if (type !== "rename" || file === null || !waiting.has(file) || existsSync(join(directory, file))) return;
    waiting.get(file)?.();
    waiting.delete(file);
  });
  let events = 0;

  /** Lets an archive arrive, written for so long; the milliseconds from its last byte until the oldest is gone. */
  async function arrive(which: number, writingMs: number, victimOf = which): Promise<number> {
    events += 1;
    const owner = of[which] as Owner;
    const draft = {
      owner,
      timeMs: Date.now() - 3_600_000 + 1000 * events,
      sizeBytes: denseBytes ?? aSize(events),
      isDense: denseBytes !== undefined,
    };
    const victim = queues[victimOf]?.shift() ?? "";
    queues[which]?.push(nameOf(draft));
    const gone = new Promise<number>((resolve) => waiting.set(victim, () => resolve(performance.now())));
    const writing = startWriting(directory, draft);
    for (let written = 0; written < writingMs; written += 10) {
      await sleep(10);
      if (denseBytes !== undefined) writing.grow();
    }
    const writtenMs = writing.finish();
    const late = sleep(30_000, undefined, { ref: false }).then(() => {
      throw new Error(`${victim} is still there`);
    });
    return (await Promise.race([gone, late])) - writtenMs;
  }

  return {
    directory,
    arrive,
    async end() {
      watcher.close();
      await agent.stop();
    },
  };
}

interface Setting {
  perContainer?: number;
  spec?: Record<string, unknown>;
  denseBytes?: number;
}

let folders = 0;

/** One arrival after the other, each written for up to 0.2 s. */
async function inTurn(
  context: BenchContext,
  {
    of,
    events,
    victimOf,
    ...setting
  }: Setting & { of: readonly Owner[]; events: number; victimOf?: (event: number) => number },
): Promise<number[]> {
  const folder = await begin(context, { of, ...setting });
  const times: number[] = [];
  for (let event = 0; event < events; event += 1) {
    const which = event % of.length;
    times.push(await folder.arrive(which, Math.floor(200 * chance(event)), victimOf?.(event)));
  }
  await folder.end();
  return times;
}

async function inBurst(context: BenchContext, { of, events }: { of: readonly Owner[]; events: number }) {
  const folder = await begin(context, { of });
  const arrivals: Promise<number>[] = [];
  for (let event = 0; event < events; event += 1) {
    arrivals.push(folder.arrive(event % of.length, 10));
    if (event % 2 === 1) await sleep(3);
  }
  const times = await Promise.all(arrivals);
  await folder.end();
  return times;
}

async function whileOthersGrow(context: BenchContext, { of, events }: { of: readonly Owner[]; events: number }) {
  const folder = await begin(context, { of });
  const [first] = of;
  const growing = Array.from({ length: 8 }, (_, index) =>
    startWriting(folder.directory, {
      owner: { ...(first as Owner), container: `growing${index}` },
      timeMs: Date.now() - 7_200_000,
      sizeBytes: 4096 * MIB,
    }),
  );
  const timer = setInterval(() => {
    for (const archive of growing) archive.grow();
  }, 20);
  const times: number[] = [];
  for (let event = 0; event < events; event += 1) {
    times.push(await folder.arrive(event % of.length, Math.floor(200 * chance(event))));
  }
  clearInterval(timer);
  await folder.end();
  return times;
}

export default {
  title: "Event to deletion",
  about: "from the last byte of an archive written, over up to 0.2 s, until the oldest of its scope is gone",
  async run(context) {
    const figures: Figure[] = [];
    const add = async (what: string, measure: Promise<number[]>, isTarget = true) => {
      context.note(what);
      const values = await measure;
      figures.push({ what, unit: "ms", values, ...(isTarget && { atMost: { value: 100 } }) });
    };
    const events = context.isFull ? 1000 : 200;
    await add("one container, sparse archives", inTurn(context, { of: owners(1), events }));
    await add(
      "one container, 64 MiB written each",
      inTurn(context, { of: owners(1), events: 40, denseBytes: 64 * MIB }),
    );
    await add("1,000 containers", inTurn(context, { of: owners(1000), events }));
    await add(
      "100 containers, 8 others growing by 50 MiB/s each",
      whileOthersGrow(context, { of: owners(100), events }),
    );
    await add("burst of 500 in a second, 100 containers", inBurst(context, { of: owners(100), events: 500 }), false);
    const team = owners(2000).map((owner) => ({ ...owner, namespace: "team" }));
    await add(
      "namespace limit over 20,000",
      inTurn(context, {
        of: team,
        events: 60,
        spec: { globalPolicy: { maxCheckpointsPerContainer: 0, maxCheckpointsPerNamespace: 20_000 } },
      }),
      false,
    );
    return figures;
  },
} satisfies Benchmark;
