import { linkSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { openDirectory } from "../../src/inventory/directory.ts";
import type { Entry } from "../../src/inventory/entry.ts";
import { aSeries, driveEnforcer, keepOne } from "../support/driven.ts";
import { aFolder, anAcceptedPolicy } from "../support/watching.ts";

describe("a directory that is left for another", () => {
  it("is released only when the deletion under way has ended", async () => {
    const folder = aFolder();
    const order: string[] = [];
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      onDeleted: () => order.push("deleted"),
      // Asked for an archive's path, the enforcer is about to delete it: there the directory is taken from it.
      isStuck: (file) => {
        if (order.length === 0 && file.endsWith(".tar")) {
          order.push("left");
          void driven.enforcer.setDirectory(undefined).then(() => order.push("released"));
        }
        return false;
      },
    });
    for (const file of aSeries(folder, 3)) driven.see(file);
    driven.enforcer.listed();
    await expect.poll(() => order).toEqual(["left", "deleted", "released"]);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it("leaves nothing to be tried again where a deletion failed in it", async () => {
    const folder = aFolder();
    let isLeft = false;
    const driven = driveEnforcer(folder, {
      policy: anAcceptedPolicy(keepOne, folder),
      isStuck: (file) => {
        if (!isLeft && file.endsWith(".tar")) {
          isLeft = true;
          void driven.enforcer.setDirectory(undefined);
        }
        return isLeft;
      },
    });
    for (const file of aSeries(folder, 2)) driven.see(file, { isTold: false });
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.failed).toHaveLength(1);
    expect(driven.logged.filter(({ level }) => level === 50)).toEqual([]);
    expect(readdirSync(folder)).toHaveLength(2);
  });

  it("does not make its policy act on the next one before something happens there", async () => {
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
    // The driven enforcer's test looks in its first directory: the same files lie in both.
    const found = aSeries(folder, 4).slice(1);
    for (const file of found) {
      linkSync(join(folder, file), join(next, file));
      driven.see(file);
    }
    driven.enforcer.listed();
    await driven.calm();
    expect(driven.files()).toEqual([]);
    expect(readdirSync(next).sort()).toEqual(found);
    // An arrival there makes them go.
    driven.enforcer.changed(driven.index.get(found[2] ?? "") as Entry, true);
    await driven.calm();
    expect(driven.files()).toEqual(found.slice(0, 2));
  });
});
