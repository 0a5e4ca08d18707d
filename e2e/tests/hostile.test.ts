import { closeSync, ftruncateSync, openSync, readFileSync, symlinkSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import {
  archiveName,
  archivesIn,
  base256Size,
  type Entry,
  octalSize,
  specBytes,
  tarBytes,
  tarHeader,
  writeArchive,
} from "../../agent/test/support/archives.ts";
import { aFolder, read, samples, until } from "../support/processes.ts";
import { aPolicyFile, series, startPair } from "../support/standalone.ts";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
/** Old enough to be the first to go, were it counted. */
const OLD = { namespace: "shop", container: "main", time: "2026-01-01T00:00:00Z" };

/** One of CRIU's, without which an archive is not whole. */
const IMAGE: Entry = { name: "checkpoint/pages-1.img", content: Buffer.alloc(4096) };

/** An archive whose spec.dump says that it is this large, all of it one string; a hole in the file, but for its ends. */
function writeHugeSpec(path: string, sizeBytes: number): void {
  const start = Buffer.from('{"annotations":{"a":"');
  const end = Buffer.from('"}}');
  const descriptor = openSync(path, "w", 0o600);
  try {
    const header = tarHeader({ name: "spec.dump", sizeField: octalSize(sizeBytes) });
    const config = tarBytes([IMAGE, { name: "config.dump", content: Buffer.from("{}") }], new Uint8Array());
    writeSync(descriptor, Buffer.concat([config, header, start]), 0, undefined, 0);
    const specEnd = config.length + header.length + sizeBytes;
    writeSync(descriptor, end, 0, end.length, specEnd - end.length);
    ftruncateSync(descriptor, Math.ceil(specEnd / 512) * 512 + 1024);
  } finally {
    closeSync(descriptor);
  }
}

it("an agent among hostile archives stays small, keeps every one of them, and still does what its policy asks for", async () => {
  const directory = aFolder();
  const config: Entry = { name: "config.dump", content: Buffer.from("{}") };
  const named = (at: number) => join(directory, archiveName({ ...OLD, pod: `hostile-${at}` }));
  const withSpec = (json: string) => tarBytes([IMAGE, config, { name: "spec.dump", content: Buffer.from(json) }]);
  const deep = "[".repeat(10_000) + "]".repeat(10_000);
  const other = JSON.parse(specBytes({ ...OLD, pod: "another" }).toString());
  const key = "io.kubernetes.cri.sandbox-namespace";
  const contents = [
    tarBytes([config, { name: "x", sizeField: base256Size(-1n) }]),
    tarBytes([config, { name: "x", sizeField: base256Size(2n ** 62n) }]),
    tarBytes([config, { name: "x", type: "S", sizeField: octalSize(GIB) }]),
    tarBytes([config, { name: "x", type: "x", sizeField: octalSize(GIB) }]),
    tarBytes([config, { name: "x", type: "L", sizeField: octalSize(GIB) }]),
    tarBytes(
      Array.from({ length: 70_000 }, (): Entry => ({ name: "x", type: "L", content: Buffer.from("spec.dump\0") })),
    ),
    withSpec(`{"annotations":{"${key}":"shop","${key}":"other"}}`),
    withSpec(JSON.stringify(other)),
    withSpec(JSON.stringify({ annotations: { [key]: "\u009b2J\u2028\r\n" } })),
    Buffer.alloc(4 * MIB, "no tar at all "),
  ];
  for (const [at, bytes] of contents.entries()) writeFileSync(named(at), bytes);
  // These name nobody, which a name with a single reading does not need: they are the pod's, and the only one of it.
  writeFileSync(named(100), withSpec(`{"annotations":${deep}}`));
  writeHugeSpec(named(101), GIB);
  writeArchive(directory, { ...OLD, pod: "hostile-102", sparsePagesBytes: 100 * GIB });
  symlinkSync("/dev/zero", named(103));
  const hostile = archivesIn(directory);
  const files = series(directory, 4);
  const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 1 } };
  const pair = await startPair({ policy: aPolicyFile(spec), directory });
  const agent = pair.startAgent();
  pair.startCoordinator();
  await until(() => expect(archivesIn(directory)).toEqual([...hostile, files[3]].sort()), 60_000);
  // And again, so that what was found about each has been acted upon.
  const next = writeArchive(directory, { container: "main", time: new Date().toISOString().slice(0, 19).concat("Z") });
  await until(() => expect(archivesIn(directory)).toEqual([...hostile, next].sort()), 60_000);

  const metrics = samples((await read(`${pair.agentUrl}/metrics`)).body);
  const inState = (state: string) => metrics.get(`checkpoint_archives_state{state="${state}"}`);
  expect([inState("complete"), inState("unidentified"), inState("incomplete")]).toEqual([4, 3, 0]);
  const peak = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${agent.process.pid}/status`, "utf8"))?.[1]) * 1024;
  expect(peak).toBeLessThan(192 * MIB);
  // One line each, and all of them JSON without a control character.
  expect(agent.log()).toHaveLength(agent.out.length);
  for (const line of agent.out) expect(line).toMatch(/^[ -~]+$/);
  expect(agent.err).toEqual([]);
}, 150_000);
