import { expect, it, vi } from "vitest";
import { writeArchive } from "../support/archives.ts";
import { aFolder, watchDirectory } from "../support/watching.ts";

it("a listing's archives are walked first where the most archives lie, by namespace and then by container", async () => {
  const folder = aFolder();
  const counts = { "few/a": 2, "many/b": 3, "many/c": 9, "many/d": 5, "some/e": 8 };
  const startMs = Date.parse("2026-01-01T00:00:00Z");
  const files = Object.entries(counts).flatMap(([scope, count], which) => {
    const [namespace, container] = scope.split("/");
    return Array.from({ length: count }, (_, at) => {
      const time = new Date(startMs + (at * 10 + which) * 1000).toISOString().replace(/\.\d+Z/, "Z");
      return { scope, file: writeArchive(folder, { namespace, container, time }) };
    });
  });
  const watching = watchDirectory(folder);
  const [listed, changed] = [vi.spyOn(watching.enforcer, "listed"), vi.spyOn(watching.enforcer, "changed")];
  await vi.waitFor(() => expect(watching.observer.status().isIdle).toBe(true), { timeout: 30_000, interval: 20 });
  const [listedAt = 0] = listed.mock.invocationCallOrder;
  const walked = changed.mock.calls.filter((_, at) => (changed.mock.invocationCallOrder[at] ?? 0) > listedAt);
  // One of them may have been under way when all names were known.
  const scopes = walked.slice(1).map(([{ file }]) => files.find((one) => one.file === file)?.scope);
  expect([...new Set(scopes)]).toEqual(["many/c", "many/d", "many/b", "some/e", "few/a"]);
});
