import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectory } from "../../src/inventory/directory.ts";
import { archiveTime, writeArchive } from "../support/archives.ts";
import { aSeries, driveEnforcer, keepOne } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

describe("a directory that is left for another", () => {
  it("is let go of only when the deletion under way has ended", async () => {
    const folder = aFolder();
    const order: string[] = [];
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => order.push("deleted"),
      // Asked for an archive's path, the enforcer is about to delete it: there the directory is taken from it.
      isStuck: (file) => {
        if (order.length === 0 && file.endsWith(".tar")) {
          order.push("left");
          void driven.enforcer.setDirectory(undefined).then(() => order.push("let go of"));
        }
        return false;
      },
    });
    for (const file of aSeries(folder, 3)) driven.see(file);
    driven.enforcer.listed();
    await expect.poll(() => order).toEqual(["left", "deleted", "let go of"]);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it("takes along which scopes its policy acts on: nothing goes in the next one before something happens there", async () => {
    const folder = aFolder();
    const next = aFolder();
    const policy = anAcceptedPolicy({ globalPolicy: { maxCheckpointsPerContainer: 1 } }, folder);
    const driven = driveEnforcer(folder, { policy });
    driven.enforcer.listed();
    const [arrived = ""] = aSeries(folder, 1);
    driven.see(arrived, { isEvent: true });
    await driven.calm();
    driven.index.remove(arrived);
    const opened = openDirectory(next, []);
    if (!opened.ok) throw new Error(opened.problem.message);
    onTestFinished(() => opened.directory.close());
    await driven.enforcer.setDirectory(opened.directory);
    // Written twice, because the driven enforcer looks for them in its first directory.
    const found = Array.from({ length: 3 }, (_, at) => ({
      container: "main",
      time: archiveTime(Date.now() - 7_200_000 + at * 1000),
      mtimeMs: Date.now() - 7_200_000,
    }));
    for (const parts of found) {
      writeArchive(next, parts);
      driven.see(writeArchive(folder, parts));
    }
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    expect(readdirSync(join(next))).toHaveLength(3);
  });
});
