import { statSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { InputError } from "../../src/errors.ts";
import { askAgent } from "../../src/local/ask.ts";
import { socketPath, startLocalServer } from "../../src/local/socket.ts";
import { aFolder } from "../support/watching.ts";

const head = {
  ...{ node: "node-a", version: "0.0.0", time: "2026-11-22T12:00:00Z", directory: "/checkpoints", state: "watching" },
  ...{ archives: 0, held: [], deleted: 0, deleteErrors: 0, unreachable: [] },
};
const whole = [JSON.stringify(head), '{"end":true}'];

/** A server in a folder; `problems` is what it could not do. */
async function serve(folder: string, lines: () => Iterable<string> = () => whole) {
  const problems: string[] = [];
  const server = await startLocalServer(folder, {
    clock: systemClock,
    lines,
    onProblem: (cause) => problems.push(cause.message),
  });
  onTestFinished(() => server.close());
  return { server, problems };
}

describe("the agent's own socket", () => {
  it("tells its owner, and nobody else can open it", async () => {
    const folder = aFolder();
    await serve(folder);
    expect(statSync(socketPath(folder)).mode & 0o777).toBe(0o600);
    expect((await askAgent(folder)).head).toEqual(head);
  });

  it("takes the place of one that a killed agent left", async () => {
    const folder = aFolder();
    writeFileSync(socketPath(folder), "");
    await serve(folder);
    expect((await askAgent(folder)).archives).toEqual([]);
  });

  it("tells very much to a caller that reads on, and is not kept by one that goes", async () => {
    const folder = aFolder();
    const many = Array.from({ length: 50_000 }, () => "x".repeat(100));
    await serve(folder, () => many);
    const leaving = createConnection(socketPath(folder));
    await new Promise((resolve) => leaving.once("data", resolve));
    leaving.destroy();
    const { promise, resolve } = Promise.withResolvers<number>();
    let bytes = 0;
    createConnection(socketPath(folder))
      .on("data", (piece) => {
        bytes += piece.length;
      })
      .on("end", () => resolve(bytes));
    expect(await promise).toBe(50_000 * 101);
  });

  it("is missed, and no more, where none can be made", async () => {
    const folder = join(aFolder(), "x".repeat(120));
    const { problems, server } = await serve(folder);
    expect(problems).toHaveLength(1);
    await server.close();
  });

  it("cuts off the answer that it cannot make to its end, which nobody believes", async () => {
    const folder = aFolder();
    const { problems } = await serve(folder, function* () {
      yield whole[0] ?? "";
      throw new Error("no more");
    });
    await expect(askAgent(folder)).rejects.toThrow("cut off");
    expect(problems).toEqual(["no more"]);
  });

  it("that nobody listens on is told with the way out", async () => {
    const folder = aFolder();
    await expect(askAgent(folder)).rejects.toThrow(InputError);
    await expect(askAgent(folder)).rejects.toThrow(/no running agent answers at .*agent\.sock .*give --directory/);
  });
});
