import { boundAnswers, makeRoom, PAGES_ON_THEIR_WAY, STATUS_CONNECTIONS } from "@cro/shared/make-room";
import Fastify from "fastify";
import { PATIENCE } from "./patience.ts";

export interface StatusServer {
  listen(address: { host: string; port: number }): Promise<{ port: number }>;
  close(): Promise<void>;
}

/** Plain HTTP for Prometheus and the kubelet's probes: /metrics, /healthz, /readyz. It tells no archive's name. */
export function createStatusServer(options: {
  metrics: () => Promise<string>;
  /** Why it is not ready; undefined once it is. */
  notReady: () => string | undefined;
}): StatusServer {
  const app = Fastify({
    forceCloseConnections: true,
    requestTimeout: PATIENCE.requestTimeoutMs,
    connectionTimeout: PATIENCE.idleTimeoutMs,
    // Nobody who asks every few seconds needs a connection in between, and nobody can fill one with requests.
    maxRequestsPerSocket: 1,
    bodyLimit: PATIENCE.maxUnwantedBodyBytes,
    http: { headersTimeout: PATIENCE.headersTimeoutMs, connectionsCheckingInterval: PATIENCE.checkEveryMs },
  });
  makeRoom(app.server, STATUS_CONNECTIONS);
  const bound = boundAnswers(PAGES_ON_THEIR_WAY);
  app.get("/metrics", async (_request, reply) => {
    bound(reply.raw);
    return reply.type("text/plain; version=0.0.4; charset=utf-8").send(await options.metrics());
  });
  app.get("/healthz", async () => "ok\n");
  app.get("/readyz", async (_request, reply) => {
    const problem = options.notReady();
    return problem === undefined ? "ok\n" : reply.code(503).send(`${problem}\n`);
  });
  return {
    async listen({ host, port }) {
      await app.listen({ host, port });
      const address = app.server.address();
      return { port: typeof address === "object" && address !== null ? address.port : port };
    },
    close: () => app.close(),
  };
}
