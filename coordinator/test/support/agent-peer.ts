import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { type Directive, REFUSED, type Refusal } from "@cro/shared/wire/directive";
import { compareFences } from "@cro/shared/wire/fence";
import { PROTOCOL, type Report } from "@cro/shared/wire/report";
import type { AgentAddress } from "../../src/agents/directive.ts";
import { aLeaf, anAuthority } from "./certificates.ts";
import type { End } from "./handshake.ts";

/** A report as an agent with an empty directory makes it. */
export function aReport(report: Partial<Report> = {}): Report {
  return {
    node: "node-a",
    podUID: "uid-a",
    version: "0.1.0",
    protocol: PROTOCOL,
    bootId: "boot-1",
    number: 1,
    time: "2026-01-01T00:00:00Z",
    directory: { path: "/archives", state: "watching" },
    paused: false,
    archives: 0,
    bytes: 0,
    pinned: 0,
    states: {},
    namespaces: [],
    namespacesOmitted: 0,
    orphanScopes: [],
    orphanScopesOmitted: 0,
    unreachable: [],
    unreachableOmitted: 0,
    planned: 0,
    deletions: [],
    deletionsOmitted: 0,
    deleteErrors: 0,
    certificates: { authorities: [] },
    ...report,
  };
}

/** Both ends' certificates of one authority. */
export async function aPki(): Promise<{
  agent: End;
  coordinator: End;
  authority: Awaited<ReturnType<typeof anAuthority>>;
}> {
  const authority = await anAuthority();
  const trust = { authority: authority.certificate };
  return {
    authority,
    agent: { ...(await aLeaf("agent", authority)), ...trust },
    coordinator: { ...(await aLeaf("coordinator", authority)), ...trust },
  };
}

export interface Call {
  method: string;
  url: string;
  directive: Directive | undefined;
}

/** A peer that speaks the agents' protocol over real TLS, and misbehaves as told. */
export interface AgentPeer {
  address: AgentAddress;
  report: Report;
  /** All calls, in their order, finished or not. */
  calls: Call[];
  /** The server names that the connections so far asked for. */
  serverNames: unknown[];
  /** Answers in place of the protocol where it returns true. */
  interfere: ((call: Call, response: ServerResponse, request: IncomingMessage) => boolean) | undefined;
  /** As a new process of the same pod: nothing is remembered but the accepted directive. */
  restart(): Promise<void>;
  close(): Promise<void>;
}

export async function startAgentPeer(
  tls: End,
  { node = "node-a", podUID = "uid-a" }: { node?: string; podUID?: string } = {},
): Promise<AgentPeer> {
  const policies = new Set<string>();
  const sockets = new Set<Socket>();
  let boots = 1;
  let server: Server;

  const peer: AgentPeer = {
    address: { node, podUID, url: "" },
    report: aReport({ node, podUID, bootId: `${podUID}-boot-1` }),
    calls: [],
    serverNames: [],
    interfere: undefined,
    async restart() {
      const port = Number(new URL(peer.address.url).port);
      await peer.close();
      peer.report = { ...peer.report, bootId: `${podUID}-boot-${++boots}` };
      policies.clear();
      await listen(port);
    },
    async close() {
      server.close();
      for (const socket of sockets) socket.destroy();
      if (server.listening) await once(server, "close");
    },
  };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    const call: Call = {
      method: request.method ?? "",
      url: request.url ?? "",
      directive: body === "" ? undefined : JSON.parse(body),
    };
    peer.calls.push(call);
    if (peer.interfere?.(call, response, request)) return;
    const { directive } = call;
    if (directive !== undefined) {
      const { accepted } = peer.report;
      if (directive.node !== node || directive.podUID !== podUID) {
        return answer(response, REFUSED.misdirected, { error: `this is ${node}` });
      }
      if (accepted !== undefined && compareFences(directive, accepted) < 0) {
        const { term, revision } = accepted;
        return answer(response, REFUSED.older, { error: "older", term, revision });
      }
      if (directive.policy.document !== undefined) policies.add(directive.policy.digest);
      if (!policies.has(directive.policy.digest)) {
        return answer(response, REFUSED.documentNeeded, { error: "send the document" });
      }
      const { term, revision } = directive;
      peer.report = { ...peer.report, accepted: { term, revision, digest: directive.policy.digest } };
    }
    peer.report = { ...peer.report, number: peer.report.number + 1 };
    answer(response, 200, peer.report);
  }

  async function listen(port: number): Promise<void> {
    server = createServer(
      { cert: tls.certificate, key: tls.key, ca: tls.authority, requestCert: true, rejectUnauthorized: true },
      (request, response) => void handle(request, response).catch(() => response.destroy()),
    );
    server.on("secureConnection", ({ servername }) => peer.serverNames.push(servername));
    server.on("connection", (socket: Socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    peer.address = { ...peer.address, url: `https://127.0.0.1:${(server.address() as AddressInfo).port}` };
  }

  await listen(0);
  return peer;
}

export function answer(response: ServerResponse, status: number, body: Report | Refusal): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}
