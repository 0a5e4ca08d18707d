import type { TLSSocket } from "node:tls";
import { makeRoom } from "@cro/shared/make-room";
import { DIRECTIVE_PATH, MAX_DIRECTIVE_BYTES, type Refusal } from "@cro/shared/wire/directive";
import { COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { NOT_MODIFIED, REPORT_PATH, type Report } from "@cro/shared/wire/report";
import Fastify from "fastify";
import type { Certificates } from "./certificates.ts";
import { PATIENCE } from "./patience.ts";

/** extendedKeyUsage of a TLS client (RFC 5280, 4.2.1.12). */
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

export interface Api {
  listen(address: { host: string; port: number }): Promise<{ port: number }>;
  /** Uses other certificates for connections from now on; those that are open stay. */
  setCertificates(certificates: Certificates): void;
  close(): Promise<void>;
}

/**
 * The agent's API over mutual TLS. Whoever does not show a certificate of the coordinator, by authority, purpose and
 * name, is cut off before a byte of HTTP is read or written.
 */
export function createApi(options: {
  certificates: Certificates;
  /** Takes in the body of a directive. */
  directive: (body: unknown) => Promise<{ ok: true } | { ok: false; status: number; refusal: Refusal }>;
  report: () => Report;
  /** Whether a report tells anything that the reader of this one does not know. */
  hasNews: (known: { bootId: string; number: number }) => boolean;
}): Api {
  const { certificates, directive, report, hasNews } = options;
  const app = Fastify({
    bodyLimit: MAX_DIRECTIVE_BYTES,
    requestTimeout: PATIENCE.requestTimeoutMs,
    // Longer than the coordinator's rest between two reports, so that its connections stay.
    keepAliveTimeout: 120_000,
    forceCloseConnections: true,
    https: {
      ...secureContext(certificates),
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: "TLSv1.3",
      handshakeTimeout: PATIENCE.handshakeTimeoutMs,
      headersTimeout: PATIENCE.headersTimeoutMs,
      connectionsCheckingInterval: PATIENCE.checkEveryMs,
    },
  });
  const room = makeRoom(app.server, PATIENCE.maxStrangers);
  app.server.prependListener("secureConnection", (socket: TLSSocket) => {
    if (isCoordinator(socket)) room.spare(socket);
    else socket.destroy();
  });
  // A handshake that fails is the caller's failure; without a listener it would be nobody's.
  app.server.on("tlsClientError", (_error, socket) => socket.destroy());

  app.put(DIRECTIVE_PATH, async (request, reply) => {
    const result = await directive(request.body);
    return result.ok ? report() : reply.code(result.status).send(result.refusal);
  });
  app.get<{ Querystring: { boot?: string; after?: string } }>(REPORT_PATH, async ({ query }, reply) => {
    const known = { bootId: String(query.boot), number: Number(query.after) };
    if (hasNews(known)) return report();
    // Most of what an agent at rest ever says: it says no more than it must. HTTP/1.1 keeps the connection by itself.
    reply.raw.sendDate = false;
    reply.raw.removeHeader("connection");
    return reply.code(NOT_MODIFIED).send();
  });
  app.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ error: `${request.method} ${request.url} does not exist` }),
  );
  app.setErrorHandler((error: { statusCode?: number; message: string }, _request, reply) =>
    reply.code(error.statusCode ?? 500).send({ error: error.message }),
  );

  return {
    async listen({ host, port }) {
      await app.listen({ host, port });
      const address = app.server.address();
      return { port: typeof address === "object" && address !== null ? address.port : port };
    },
    setCertificates: (next) => app.server.setSecureContext(secureContext(next)),
    close: () => app.close(),
  };
}

function secureContext({ certificate, key, authority }: Certificates) {
  return { cert: certificate, key, ca: authority };
}

function isCoordinator(socket: TLSSocket): boolean {
  const certificate = socket.authorized ? socket.getPeerX509Certificate() : undefined;
  return (
    certificate !== undefined &&
    certificate.checkHost(COORDINATOR_DNS_NAME, { subject: "never", wildcards: false }) !== undefined &&
    // OpenSSL accepts a certificate without any purpose for every purpose; here it must be named.
    (certificate.keyUsage ?? []).includes(CLIENT_AUTH)
  );
}
