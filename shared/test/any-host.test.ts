import { once } from "node:events";
import { connect, createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { expect, it } from "vitest";
import { anyHost } from "../src/any-host.ts";

it("takes connections to every loopback address that the machine has, of both families", async () => {
  const server = createServer((socket) => socket.end()).listen(0, anyHost());
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const loopbacks = (networkInterfaces().lo ?? []).map(({ address }) => address);
  expect(loopbacks).toContain("127.0.0.1");
  for (const host of loopbacks) await once(connect({ host, port }), "connect");
  server.close();
});
