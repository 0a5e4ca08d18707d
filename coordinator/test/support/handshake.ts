import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer } from "node:tls";
import { AGENT_DNS_NAME } from "@cro/shared/wire/identities";
import type { KeyedCertificate } from "../../src/certs/issue.ts";

/** One end of a connection: its own certificate, and the authorities it trusts. */
export interface End extends KeyedCertificate {
  authority: string;
}

/** In TLS 1.3 a client learns that its certificate is refused after the handshake: it is hung up on. */
export const REFUSED_BY_AGENT = "refused by the agent";

/**
 * Lets a coordinator call an agent over real TLS with both sides verifying, and yields why either refused; undefined
 * where a byte got through.
 */
export async function handshake(agent: End, coordinator: End): Promise<string | undefined> {
  const server = createServer(
    {
      cert: agent.certificate,
      key: agent.key,
      ca: agent.authority,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (socket) => socket.end("hello"),
  );
  server.on("tlsClientError", () => {});
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    return await new Promise((resolve) => {
      const socket = connect({
        host: "127.0.0.1",
        port: (server.address() as AddressInfo).port,
        servername: AGENT_DNS_NAME,
        cert: coordinator.certificate,
        key: coordinator.key,
        ca: coordinator.authority,
      });
      let received = "";
      socket.on("data", (chunk) => {
        received += chunk;
      });
      socket.on("error", (error: NodeJS.ErrnoException) =>
        resolve(isReset(error.code) ? REFUSED_BY_AGENT : error.code),
      );
      socket.on("close", () => resolve(received === "hello" ? undefined : REFUSED_BY_AGENT));
    });
  } finally {
    server.close();
  }
}

function isReset(code: string | undefined): boolean {
  return code === "ECONNRESET" || code === "EPIPE" || code?.startsWith("ERR_SSL") === true;
}
