import type { ServerResponse } from "node:http";
import type { Server, Socket } from "node:net";
import { getOrMake } from "./get-or-make.ts";

/**
 * How many connections a port of metrics and probes holds at a time. That is more than may wait to be accepted, 511 in Node,
 * so that a burst does not push out a probe that was accepted with it and was not read yet.
 */
export const STATUS_CONNECTIONS = 1024;

/** How many pages of metrics may be on their way at a time. Each is held in memory until its reader has taken it. */
export const PAGES_ON_THEIR_WAY = 64;

/** Bounds the answers on their way: call it for each; the oldest ends for one over `most`. */
export function boundAnswers(most: number): (answer: ServerResponse) => void {
  const onTheirWay = new Set<ServerResponse>();
  return (answer) => {
    onTheirWay.add(answer);
    answer.once("close", () => onTheirWay.delete(answer));
    const [oldest] = onTheirWay;
    if (onTheirWay.size > most) oldest?.destroy();
  };
}

/**
 * Bounds the connections of a server and never refuses a new one: for each over `most`, the oldest connection ends of the
 * remote address that has most of them. An address that holds many takes them from itself, and a probe gets its own.
 */
export function makeRoom(
  server: Server,
  most: number,
): {
  /** Counts a connection no more: its peer proved who it is. */
  spare(peer: Pick<Socket, "remoteAddress" | "remotePort">): void;
} {
  /** By remote address, the oldest first. */
  const counted = new Map<string, Set<Socket>>();
  let count = 0;

  function forget(address: string, socket: Socket): void {
    const sockets = counted.get(address);
    if (!sockets?.delete(socket)) return;
    count -= 1;
    if (sockets.size === 0) counted.delete(address);
  }

  function endOldest(): void {
    let largest: [string, Set<Socket>] | undefined;
    for (const one of counted) if (largest === undefined || one[1].size > largest[1].size) largest = one;
    const [oldest] = largest?.[1] ?? [];
    if (largest === undefined || oldest === undefined) return;
    forget(largest[0], oldest);
    oldest.destroy();
  }

  server.on("connection", (socket: Socket) => {
    const { remoteAddress: address = "" } = socket;
    getOrMake(counted, address, () => new Set<Socket>()).add(socket);
    count += 1;
    socket.once("close", () => forget(address, socket));
    if (count > most) endOldest();
  });

  return {
    spare({ remoteAddress: address = "", remotePort }) {
      for (const socket of counted.get(address) ?? []) {
        if (socket.remotePort === remotePort) return forget(address, socket);
      }
    },
  };
}
