import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { boundAnswers, makeRoom } from "../src/make-room.ts";

const until = (condition: () => void) => vi.waitFor(condition, { timeout: 15_000, interval: 10 });

/** A server that keeps what connects, and a way to connect to it from any loopback address. */
async function aServer(most: number) {
  const accepted: Socket[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    accepted.push(socket);
  });
  const room = makeRoom(server, most);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const callers: Socket[] = [];
  onTestFinished(() => {
    for (const socket of callers) socket.destroy();
    server.close();
  });
  async function call(localAddress = "127.0.0.1") {
    const before = accepted.length;
    const socket = connect({ host: "127.0.0.1", port, localAddress });
    socket.on("error", () => {});
    socket.resume();
    callers.push(socket);
    await until(() => expect(accepted.length).toBe(before + 1));
    return socket;
  }
  return { room, call, accepted };
}

const areOpen = (sockets: Socket[]) => sockets.map(({ closed }) => !closed);

describe("makeRoom", () => {
  it("ends the oldest connection for one over the limit, and takes the new one", async () => {
    const { call } = await aServer(3);
    const sockets = [await call(), await call(), await call()];
    expect(areOpen(sockets)).toEqual([true, true, true]);
    sockets.push(await call(), await call());
    await until(() => expect(areOpen(sockets)).toEqual([false, false, true, true, true]));
  });

  it("ends one of the address that has most, however old others are", async () => {
    const { call } = await aServer(4);
    const old = await call("127.0.0.2");
    const many = [await call(), await call(), await call()];
    const late = await call("127.0.0.3");
    await until(() => expect(areOpen([old, ...many, late])).toEqual([true, false, true, true, true]));
  });

  it("counts what closes by itself no more", async () => {
    const { call, accepted } = await aServer(2);
    const sockets = [await call(), await call()];
    sockets[1]?.destroy();
    await until(() => expect(accepted[1]?.closed).toBe(true));
    sockets.push(await call());
    expect(areOpen(sockets)).toEqual([true, false, true]);
  });

  it("neither counts nor ends what it was told to spare", async () => {
    const { room, call, accepted } = await aServer(2);
    const known = await call();
    room.spare(accepted[0] as Socket);
    const sockets = [await call(), await call(), await call()];
    await until(() => expect(areOpen([known, ...sockets])).toEqual([true, false, true, true]));
  });
});

describe("boundAnswers", () => {
  it("ends the oldest answer that is not read for one over the limit, and counts no answer that was read", async () => {
    const bound = boundAnswers(2);
    let asked = 0;
    const page = Buffer.alloc(32 * 1024 * 1024);
    const server = createHttpServer((request, response) => {
      asked += 1;
      bound(response);
      response.end(request.url === "/short" ? "short" : page);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    onTestFinished(() => void server.close());
    const ask = async (path: string) => {
      const before = asked;
      const socket = connect({ host: "127.0.0.1", port });
      socket.on("error", () => {});
      onTestFinished(() => void socket.destroy());
      if (path === "/short") socket.resume();
      socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
      await until(() => expect(asked).toBe(before + 1));
      return socket;
    };
    const unread = [await ask("/"), await ask("/")];
    const connections = () => new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)));
    await vi.waitFor(async () => expect(await connections()).toBe(2), 15_000);
    const ended = once(unread[0] as Socket, "close");
    unread.push(await ask("/"));
    await vi.waitFor(async () => expect(await connections()).toBe(2), 15_000);
    unread[0]?.resume();
    await ended;
    expect(unread[0]?.bytesRead).toBeLessThan(page.length);
    const short = await ask("/short");
    if (!short.closed) await once(short, "close");
    expect(short.bytesRead).toBeGreaterThan(5);
  });
});
