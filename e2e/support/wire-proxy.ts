import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";

/** What happens to a chunk of bytes on its way through a connection. */
export type WireFault =
  /** It is lost, and so is all that would follow in its direction; the connection stays open. */
  | { do: "swallow" }
  /** It, and what follows in its direction, comes this much later. */
  | { do: "delay"; delayMs: number }
  /** It comes twice. */
  | { do: "duplicate" }
  /** So many of its bytes come; then the connection ends in both directions, as it does properly. */
  | { do: "truncate"; bytes: number }
  /** Both ends are sent a RST. */
  | { do: "reset" }
  /** One bit of it is another. */
  | { do: "flip"; bit: number }
  /** It is lost, and its direction ends; the other one goes on. */
  | { do: "half-close" };

/** A chunk that comes by. */
export interface WireChunk {
  /** From whoever connected, or to it. */
  direction: "out" | "back";
  bytes: number;
  /** The bytes that went before it in its direction of its connection. */
  offset: number;
}

/** A TCP server between two ends, that does to their bytes what networks do; it understands none of them. */
export interface WireProxy {
  host: string;
  port: number;
  /** Where connections are led that are made from now on. */
  upstream: { host: string; port: number };
  /** Decides on every chunk; undefined lets it pass. */
  fault: (chunk: WireChunk) => WireFault | undefined;
  /** Connections so far. */
  connections: number;
  /** Resets every connection that is open. */
  cut(): void;
  close(): Promise<void>;
}

/** Starts a proxy that listens on that address; port 0 is any. */
export async function startWireProxy(
  listen: { host: string; port: number },
  upstream: { host: string; port: number },
): Promise<WireProxy> {
  const sockets = new Set<Socket>();
  // A half that was ended must not end the other by itself.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
    const far = connect({ ...proxy.upstream, allowHalfOpen: true, noDelay: true });
    const reset = () => {
      near.resetAndDestroy();
      far.resetAndDestroy();
    };
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.once("error", reset);
      socket.once("close", () => sockets.delete(socket));
    }
    proxy.connections += 1;
    lead("out", { from: near, to: far, reset });
    lead("back", { from: far, to: near, reset });
  });

  function lead(
    direction: WireChunk["direction"],
    { from, to, reset }: { from: Socket; to: Socket; reset: () => void },
  ): void {
    let offset = 0;
    let isLost = false;
    /** What is delayed holds up what follows it. */
    let before: Promise<unknown> = Promise.resolve();
    let delays = 0;

    function inTurn(act: () => void, delayMs = 0): void {
      if (delays === 0 && delayMs === 0) {
        act();
        return;
      }
      delays += 1;
      before = Promise.all([before, new Promise((resolve) => setTimeout(resolve, delayMs))]).then(() => {
        delays -= 1;
        act();
      });
    }
    const write = (chunk: Buffer) => {
      if (to.writable) to.write(chunk);
    };

    from.on("data", (chunk: Buffer) => {
      if (isLost) return;
      const fault = proxy.fault({ direction, bytes: chunk.length, offset });
      offset += chunk.length;
      switch (fault?.do) {
        case "swallow":
          isLost = true;
          return;
        case "delay":
          inTurn(() => write(chunk), fault.delayMs);
          return;
        case "duplicate":
          inTurn(() => write(Buffer.concat([chunk, chunk])));
          return;
        case "truncate":
          isLost = true;
          inTurn(() => {
            write(chunk.subarray(0, fault.bytes));
            from.end();
            to.end();
          });
          return;
        case "reset":
          isLost = true;
          inTurn(reset);
          return;
        case "flip": {
          const at = (fault.bit >> 3) % chunk.length;
          chunk[at] = (chunk[at] ?? 0) ^ (1 << (fault.bit & 7));
          inTurn(() => write(chunk));
          return;
        }
        case "half-close":
          isLost = true;
          inTurn(() => to.end());
          return;
        default:
          inTurn(() => write(chunk));
      }
    });
    // A lost direction loses its end, too; whoever waits at the other side finds out by a clock.
    from.once("end", () => {
      if (!isLost) inTurn(() => to.end());
    });
    from.once("close", () => {
      if (!isLost) inTurn(() => to.destroySoon());
    });
  }

  const proxy: WireProxy = {
    ...listen,
    upstream,
    fault: () => undefined,
    connections: 0,
    cut() {
      for (const socket of sockets) socket.resetAndDestroy();
    },
    async close() {
      server.close();
      proxy.cut();
      if (server.listening) await once(server, "close");
    },
  };
  server.listen(listen.port, listen.host);
  await once(server, "listening");
  const address = server.address();
  if (typeof address === "object" && address !== null) proxy.port = address.port;
  return proxy;
}
