import {
  appendFileSync,
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import fc from "fast-check";
import { pino } from "pino";
import { afterEach, beforeEach, describe, it, vi } from "vitest";
import { patience, soak } from "../../../shared/test/support/soak.ts";
import { systemClock } from "../../src/clock.ts";
import { createArchiveIndex } from "../../src/inventory/archive-index.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { createObserver } from "../../src/inventory/observer.ts";
import type { Watched } from "../../src/policy/state-folder.ts";
import { archiveBytes, archiveName } from "../support/archives.ts";
import { aFolder } from "../support/watching.ts";

const NAMES = Array.from({ length: 4 }, (_, at) => archiveName({ container: `c${at}` }));
const TORN_BYTES = 3000;
const POLL_MS = 1000;

/** An archive, as far as news goes. */
interface ModelFile {
  isTorn: boolean;
  /** Whether its arrival is still to be told. */
  isNews: boolean;
}

type Step =
  | {
      do: "create" | "finish" | "grow" | "replace" | "rewrite" | "chmod" | "touch" | "pin" | "unpin" | "remove";
      at: number;
    }
  | { do: "create torn"; at: number }
  /** The agent ends, and starts again after these changes and with those while it lists. */
  | { do: "restart"; record: "kept" | "lost"; between: Step[]; during: Step[] }
  /** The directory is away, and comes back after these changes. */
  | { do: "away"; between: Step[]; isReplacedMeanwhile: boolean };

const at = fc.nat({ max: NAMES.length - 1 });
const change: fc.Arbitrary<Step> = fc.record({
  do: fc.constantFrom(
    ...([
      "create",
      "create torn",
      "finish",
      "grow",
      "replace",
      "rewrite",
      "chmod",
      "touch",
      "pin",
      "unpin",
      "remove",
    ] as const),
  ),
  at,
});
const changes = fc.array(change, { maxLength: 6 });
/** What makes events and no news. */
const noise = fc.array(fc.record({ do: fc.constantFrom(...(["chmod", "touch", "pin", "unpin"] as const)), at }), {
  maxLength: 12,
});
const history: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: change },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant("restart" as const),
        record: fc.constantFrom("kept", "kept", "lost"),
        between: changes,
        during: noise,
      }) as fc.Arbitrary<Step>,
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant("away" as const), between: changes, isReplacedMeanwhile: fc.boolean() }),
    },
  ),
  { maxLength: 15 },
);

/** A directory with an agent that watches it, and beside it what a plain model says is news. */
async function live(steps: readonly Step[]): Promise<void> {
  const parent = aFolder();
  const folder = join(parent, "checkpoints");
  mkdirSync(folder);
  const files = new Map<string, ModelFile>();
  const expected: string[] = [];
  const told: string[] = [];
  let index = createArchiveIndex<Entry>();
  let observer = start(undefined);

  function start(watched: Watched | undefined) {
    index = createArchiveIndex<Entry>();
    const started = createObserver({
      index,
      clock: systemClock,
      log: pino({ level: "silent" }),
      incompleteAfterMs: 600_000,
      nodeName: "node-a",
      roots: [],
      on: {
        directory: async () => {},
        listed: () => {},
        looked: () => {},
        changed: ({ file }, isEvent) => void (isEvent && told.push(file)),
        goneMount: () => {},
      },
    });
    started.setPath(folder, watched);
    return started;
  }

  async function until(what: string, condition: () => boolean): Promise<void> {
    const endMs = performance.now() + 60_000;
    while (!condition()) {
      if (performance.now() > endMs) throw new Error(`never: ${what}, but ${JSON.stringify({ told, expected })}`);
      await nextTurn();
    }
  }

  /** Whether the index holds what lies in the directory, all of it walked. */
  function isInStep(): boolean {
    const archives = readdirSync(folder).filter((name) => name.endsWith(".tar"));
    return (
      observer.status().isIdle &&
      archives.length === index.size &&
      archives.every((name) => {
        const entry = index.get(name);
        const { ino, size, mtimeNs } = lstatSync(join(folder, name), { bigint: true });
        return (
          entry !== undefined &&
          entry.inode === ino &&
          BigInt(entry.size) === size &&
          entry.mtimeNs === mtimeNs &&
          entry.walked &&
          entry.state === (files.get(name)?.isTorn ? "unsettled" : "complete")
        );
      })
    );
  }

  /** Waits until the observer is in step, and has told what the model says, no less and no more. */
  async function agree(): Promise<void> {
    for (const [name, file] of files) {
      if (file.isTorn || !file.isNews) continue;
      file.isNews = false;
      expected.push(name);
    }
    await until("in step", () => isInStep() && told.length >= expected.length);
    if (told.toSorted().join() !== expected.toSorted().join()) {
      throw new Error(`told ${JSON.stringify(told)}, not ${JSON.stringify(expected)}`);
    }
  }

  /** Changes the directory and the model; `isWatched`: the observer is there and has listed it. */
  function apply(step: Step & { at: number }, { isWatched, place }: { isWatched: boolean; place: string }): void {
    const name = NAMES[step.at] as string;
    const path = join(place, name);
    const container = `c${step.at}`;
    const file = files.get(name);
    const bytes = archiveBytes({ container });
    if (file === undefined) {
      if (step.do !== "create" && step.do !== "create torn") return;
      const isTorn = step.do === "create torn";
      writeFileSync(path, isTorn ? bytes.subarray(0, TORN_BYTES) : bytes);
      // An old time, as of what is copied with its times: it says nothing.
      utimesSync(path, 1_000_000_000 + step.at, 1_000_000_000);
      files.set(name, { isTorn, isNews: isWatched });
      return;
    }
    const { size } = statSync(path);
    switch (step.do) {
      case "finish":
        if (!file.isTorn) return;
        appendFileSync(path, bytes.subarray(size));
        files.set(name, { isTorn: false, isNews: file.isNews || isWatched });
        return;
      case "grow":
        if (!file.isTorn || size > TORN_BYTES) return;
        appendFileSync(path, bytes.subarray(size, size + 512));
        file.isNews ||= isWatched;
        return;
      case "replace":
        writeFileSync(join(parent, "new"), bytes);
        renameSync(join(parent, "new"), path);
        files.set(name, { isTorn: false, isNews: file.isNews || isWatched });
        return;
      case "rewrite":
        if (file.isTorn) return;
        writeFileSync(path, archiveBytes({ container, pagesBytes: size === bytes.length ? 8192 : 4096 }));
        file.isNews ||= isWatched;
        return;
      case "chmod":
        chmodSync(path, (statSync(path).mode & 0o777) ^ 0o040);
        return;
      case "touch":
        utimesSync(path, 1_100_000_000, statSync(path).mtimeMs / 1000 + 1);
        return;
      case "pin":
        writeFileSync(`${path}.keep`, "");
        return;
      case "unpin":
        rmSync(`${path}.keep`, { force: true });
        return;
      case "remove":
        unlinkSync(path);
        files.delete(name);
    }
  }

  /** The directory is opened: news is what was not there when it was last seen, if that is known. */
  function reopen(before: ReadonlySet<string> | undefined): void {
    for (const [name, file] of files) file.isNews = before !== undefined && !before.has(name);
  }
  const seenNow = () => new Set([...files].filter(([, { isNews }]) => !isNews).map(([name]) => name));

  try {
    await agree();
    for (const step of steps) {
      if (step.do === "restart") {
        const before = seenNow();
        const record = observer.record();
        await observer.stop();
        for (const one of step.between) apply(one as Step & { at: number }, { isWatched: false, place: folder });
        reopen(step.record === "kept" ? before : undefined);
        observer = start(step.record === "kept" ? record : undefined);
        for (const one of step.during) apply(one as Step & { at: number }, { isWatched: false, place: folder });
      } else if (step.do === "away") {
        const before = seenNow();
        const aside = join(parent, "aside");
        renameSync(folder, aside);
        vi.advanceTimersByTime(POLL_MS);
        if (step.isReplacedMeanwhile) {
          mkdirSync(folder);
          vi.advanceTimersByTime(POLL_MS);
          await until("listed", () => observer.status().isListed);
          rmSync(folder, { recursive: true });
        }
        for (const one of step.between) apply(one as Step & { at: number }, { isWatched: false, place: aside });
        renameSync(aside, folder);
        reopen(before);
        vi.advanceTimersByTime(POLL_MS);
        vi.advanceTimersByTime(POLL_MS);
      } else apply(step, { isWatched: true, place: folder });
      await agree();
    }
    // Events come in order: when the last one has been told, all were.
    const last = archiveName({ container: "last" });
    writeFileSync(join(folder, last), archiveBytes({ container: "last" }));
    files.set(last, { isTorn: false, isNews: true });
    await agree();
  } finally {
    await observer.stop();
    rmSync(parent, { recursive: true });
  }
}

describe("whatever happens to archives, their directory and the agent", () => {
  // The observer's poll comes when a step asks for it; all other timers are real.
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] }));
  afterEach(() => void vi.useRealTimers());

  it(
    "news is what was not there when the directory was last seen, told once it is whole, and nothing else is",
    () => fc.assert(fc.asyncProperty(history, live), { numRuns: soak(300) }),
    patience(300_000),
  );
});
