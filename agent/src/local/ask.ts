import { createConnection } from "node:net";
import { createInterface } from "node:readline";
import { InputError } from "../errors.ts";
import { type Facts, parseFacts } from "./facts.ts";
import { socketPath } from "./socket.ts";

/** How long the agent may say nothing, in milliseconds. */
const PATIENCE_MS = 10_000;

/** Asks the running agent what it knows. Throws an {@link InputError} if none answers, with the way out. */
export async function askAgent(stateDir: string): Promise<Facts> {
  const path = socketPath(stateDir);
  const lines: string[] = [];
  try {
    const socket = createConnection(path);
    socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error("it does not answer")));
    const { promise: failed, reject } = Promise.withResolvers<never>();
    socket.on("error", reject);
    const reading = (async () => {
      for await (const line of createInterface({ input: socket })) lines.push(line);
    })();
    await Promise.race([reading, failed]);
  } catch (cause) {
    const way = "give --directory, or the agent's --state-dir";
    throw new InputError(`no running agent answers at ${path} (${(cause as Error).message}); ${way}`);
  }
  const facts = parseFacts(lines);
  if (facts === undefined) throw new InputError(`${path}: the answer was cut off or is of another version; try again`);
  return facts;
}
