import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { archiveName, archivesIn, archiveTime, specBytes, tarBytes, writeArchive } from "../support/archives.ts";
import { aFolder, watchDirectory } from "../support/watching.ts";

const until = (condition: () => void) => vi.waitFor(condition, { timeout: 10_000, interval: 20 });

it("an archive without images of CRIU's goes before a whole one, once nobody has written it for long enough", async () => {
  const folder = aFolder();
  const spec = { applyPoliciesImmediately: true, globalPolicy: { maxCheckpointsPerContainer: 2 } };
  const watching = watchDirectory(folder, { spec, incompleteAfterMs: 1000 });
  await until(() => expect(watching.observer.status().isListed).toBe(true));
  const old = [2, 1].map((hours) =>
    writeArchive(folder, { container: "main", time: archiveTime(Date.now() - hours * 3_600_000) }),
  );
  const bare = archiveName({ container: "main", time: archiveTime(Date.now()) });
  const entries = [
    { name: "config.dump", content: Buffer.from("{}") },
    { name: "spec.dump", content: specBytes({ container: "main" }) },
  ];
  writeFileSync(join(folder, bare), tarBytes(entries));
  await until(() => expect(watching.state(bare)).toBe("unsettled"));
  await until(() => expect(watching.deleted).toEqual([{ file: bare, reason: "max_checkpoints" }]));
  expect(archivesIn(folder)).toEqual(old.sort());
});
