import { once } from "node:events";
import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { Clock } from "../clock.ts";
import { startSlice } from "../inventory/slice.ts";

/** Where the agent's own commands reach it, within its state folder. */
export function socketPath(stateDir: string): string {
  return join(stateDir, "agent.sock");
}

/** Further ones are turned away: each may hold all archives' names in memory. */
const MAX_CALLERS = 4;
/** How long a caller may read nothing, in milliseconds. */
const IDLE_MS = 20_000;
/** An answer is written in pieces of about so many characters. */
const PIECE = 32_768;

/** Answers whoever may open the socket. */
export interface LocalServer {
  close(): Promise<void>;
}

/**
 * Tells what the agent knows on a socket of its state folder, to its own user and nobody else (0600). A caller asks nothing
 * and is not listened to: it gets the lines and the end. A folder in which no socket can be made is a problem, and no more.
 */
export async function startLocalServer(
  stateDir: string,
  { clock, lines, onProblem }: { clock: Clock; lines: () => Iterable<string>; onProblem: (cause: Error) => void },
): Promise<LocalServer> {
  const callers = new Set<Socket>();
  const server = createServer((socket) => {
    callers.add(socket);
    socket.on("close", () => callers.delete(socket));
    socket.setTimeout(IDLE_MS, () => socket.destroy());
    socket.resume();
    pipeline(inPieces(lines(), clock), socket).catch((cause: NodeJS.ErrnoException) => {
      // Not that a caller has gone.
      if (cause.code === undefined) onProblem(cause);
    });
  });
  server.maxConnections = MAX_CALLERS;
  server.on("error", onProblem);
  await listenPrivately(server, socketPath(stateDir));
  return {
    async close() {
      if (!server.listening) return;
      for (const socket of callers) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** The socket is bound before `listen` returns, and so under a mask that leaves it to its owner from its first moment. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  try {
    // Of an agent that was killed.
    rmSync(path, { force: true });
  } catch {
    // To listen fails then and says why.
  }
  const mask = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(mask);
  }
  await Promise.race([once(server, "listening"), once(server, "error")]).catch(() => {});
}

/** The lines in pieces, made as they are taken and never for long at a stretch. */
async function* inPieces(lines: Iterable<string>, clock: Clock): AsyncGenerator<string> {
  const slice = startSlice(clock);
  let piece = "";
  for (const line of lines) {
    piece += `${line}\n`;
    if (slice.isOver()) await slice.next();
    if (piece.length < PIECE) continue;
    yield piece;
    piece = "";
  }
  yield piece;
}
