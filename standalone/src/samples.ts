import { type Dirent, readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";

/** A container whose real archives serve as samples: the beginnings of the fixture's name and of each copy's. */
const MAIN = "checkpoint-web-6f9f8977b7-w28kl_team-prod-main-c-";
const SIDE = "checkpoint-web-6f9f8977b7-w28kl_team-prod-side-";
const STATIC = "checkpoint-static.one-node-a_default-c-";
const HOSTNET = "checkpoint-hostnet_default-c-";
const DASHES = "checkpoint-p_a-b-c-";

const HOUR_MS = 3_600_000;

/** What a sample folder begins with: which archive, and how many hours ago it was made. */
const SEEDS: ReadonlyArray<{ of: string; hoursAgo: number; isTorn?: boolean; isPinned?: boolean }> = [
  ...[30, 24, 18, 12, 6].map((hoursAgo) => ({ of: MAIN, hoursAgo })),
  { of: SIDE, hoursAgo: 7 },
  { of: HOSTNET, hoursAgo: 5, isTorn: true },
  ...[9, 8, 4, 3].map((hoursAgo) => ({ of: STATIC, hoursAgo })),
  { of: STATIC, hoursAgo: 20, isPinned: true },
  { of: HOSTNET, hoursAgo: 45 * 24 },
  { of: HOSTNET, hoursAgo: 2 },
  { of: DASHES, hoursAgo: 10 },
  { of: DASHES, hoursAgo: 1 },
];

/**
 * Fills a folder with archives that a real kubelet and CRIU made, under names of the last days: one of them torn as by a
 * full disk, one pinned. Does nothing where the folder holds anything.
 */
export async function seedSamples(folder: string, fixtures: string, nowMs: number): Promise<boolean> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  if ((await readdir(folder)).length > 0) return false;
  for (const { of, hoursAgo, isTorn, isPinned } of SEEDS) {
    const timeMs = nowMs - hoursAgo * HOUR_MS;
    const content = sampleContent(fixtures, of);
    const file = await writeSample(folder, isTorn ? content.subarray(0, content.length >> 1) : content, { of, timeMs });
    if (isPinned) await writeFile(join(folder, `${file}.keep`), "");
  }
  return true;
}

/** Lets one more archive of the busiest sample container arrive, as if it had been made just now. Returns its name. */
export async function addSample(folder: string, fixtures: string, nowMs: number): Promise<string> {
  return writeSample(folder, sampleContent(fixtures, STATIC), { of: STATIC, timeMs: nowMs });
}

async function writeSample(
  folder: string,
  content: Buffer,
  { of, timeMs }: { of: string; timeMs: number },
): Promise<string> {
  const file = `${of}${new Date(timeMs).toISOString().slice(0, 19)}Z.tar`;
  const path = join(folder, file);
  await writeFile(path, content, { mode: 0o600 });
  await utimes(path, timeMs / 1000, timeMs / 1000);
  return file;
}

function sampleContent(fixtures: string, of: string): Buffer {
  const fixture = readdirSync(fixtures, { withFileTypes: true }).find(({ name }: Dirent) => name.startsWith(of));
  if (fixture === undefined) throw new Error(`there is no sample archive ${of}… in ${fixtures}`);
  return gunzipSync(readFileSync(join(fixtures, fixture.name)));
}
