import { randomUUID } from "node:crypto";
import { createServer, type Server } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { DIRECTIVE_PATH, type Directive } from "@cro/shared/wire/directive";
import { compareFences, type Fence } from "@cro/shared/wire/fence";
import { COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { type OrphanScope, REPORT_PATH, type Report } from "@cro/shared/wire/report";

/** How an agent of the fleet answers; a dead one takes connections, as a frozen machine does, and says nothing ever. */
export type Health = "well" | "slow" | "dead";

/** How late a slow one is, in milliseconds: later than half of the fleet takes together. */
const SLOW_MS = 5000;

export interface FleetAgent {
  node: string;
  podUID: string;
  ip: string;
  health: Health;
  /** Pods with archives there: it asks in each report whether they live. */
  scopes: OrphanScope[];
  accepted: (Fence & { digest: string }) | undefined;
  /** When it took a digest that it had not, by performance.now(). */
  acceptedMs: number;
}

/** Many agents in this process: their protocol and TLS are real, archives they have none of. */
export interface Fleet {
  port: number;
  /** Bytes that went either way and calls since the start, TLS not counted. */
  traffic(): { calls: number; bytes: number };
  connections(): number;
  /** Closes every connection, as a network does that was cut. */
  disconnect(): void;
  close(): void;
}

interface Material {
  certificate: string;
  key: string;
  authority: string;
}

/** Serves the agents at their addresses of 127.0.0.0/8: which one is called, the connection's own address tells. */
export async function startFleet(
  agents: readonly FleetAgent[],
  { certificate, key, authority }: Material,
): Promise<Fleet> {
  const byAddress = new Map(agents.map((agent) => [agent.ip, agent]));
  const bootIds = new Map(agents.map(({ ip }) => [ip, randomUUID()]));
  const bodies = new Set<string>();
  const sockets = new Set<Socket>();
  let calls = 0;
  let bytes = 0;
  let reports = 0;

  const agentOf = (socket: Socket) => byAddress.get(socket.localAddress?.replace("::ffff:", "") ?? "");

  function reportOf(agent: FleetAgent): Report {
    reports += 1;
    return {
      node: agent.node,
      podUID: agent.podUID,
      version: "0.1.0",
      bootId: bootIds.get(agent.ip) ?? "",
      number: reports,
      time: new Date().toISOString(),
      ...(agent.accepted && { accepted: agent.accepted }),
      directory: { path: "/var/lib/kubelet/checkpoints", state: "watching" },
      disk: { sizeBytes: 1e12, freeBytes: 5e11 },
      paused: false,
      ...{ archives: 200, bytes: 4e10, pinned: 0, states: { complete: 198, incomplete: 2 } },
      namespaces: Array.from({ length: 20 }, (_, index) => ({ namespace: `team-${index}`, archives: 10, bytes: 2e9 })),
      ...{
        namespacesOmitted: 0,
        orphanScopes: agent.scopes,
        orphanScopesOmitted: 0,
        unreachable: [],
        unreachableOmitted: 0,
      },
      ...{ planned: 0, deletions: [], deletionsOmitted: 0, deleteErrors: 0 },
      certificates: { authorities: [] },
    };
  }

  /** What an agent answers, as in agent/src/http/api.ts. */
  function answer(agent: FleetAgent, method: string, path: string, body: string): [status: number, body: object] {
    if (method === "GET" && path === REPORT_PATH) return [200, reportOf(agent)];
    if (method !== "PUT" || path !== DIRECTIVE_PATH) return [404, { error: "no such call" }];
    const { term, revision, node, podUID, policy } = JSON.parse(body) as Directive;
    if (node !== agent.node || podUID !== agent.podUID) return [421, { error: "meant for another agent" }];
    const fence = { term, revision };
    if (agent.accepted !== undefined && compareFences(fence, agent.accepted) < 0) {
      return [409, { error: "older", term: agent.accepted.term, revision: agent.accepted.revision }];
    }
    const known = `${agent.ip} ${policy.digest}`;
    if (policy.document !== undefined) bodies.add(known);
    if (!bodies.has(known)) return [428, { error: "send the policy" }];
    if (agent.accepted?.digest !== policy.digest) agent.acceptedMs = performance.now();
    agent.accepted = { ...fence, digest: policy.digest };
    return [200, reportOf(agent)];
  }

  const tls = {
    cert: certificate,
    key,
    ca: authority,
    requestCert: true,
    rejectUnauthorized: true,
    minVersion: "TLSv1.3",
  };
  const server: Server = createServer({ ...tls, keepAliveTimeout: 120_000 } as object, (request, response) => {
    const agent = agentOf(request.socket);
    if (agent === undefined) return void request.socket.destroy();
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.once("end", async () => {
      if (agent.health === "slow") await sleep(SLOW_MS);
      const body = Buffer.concat(chunks);
      const [status, content] = answer(agent, request.method ?? "", request.url ?? "", body.toString());
      const text = JSON.stringify(content);
      calls += 1;
      bytes += body.length + text.length;
      response.writeHead(status, { "content-type": "application/json" }).end(text);
    });
  });
  const entrance = createTcpServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    if (agentOf(socket)?.health === "dead") socket.on("error", () => {}).resume();
    else server.emit("connection", socket);
  });
  server.on("secureConnection", (socket) => {
    const { subjectaltname = "" } = socket.getPeerCertificate();
    if (!subjectaltname.includes(COORDINATOR_DNS_NAME)) socket.destroy();
  });
  await new Promise<void>((resolve) => entrance.listen(0, "0.0.0.0", 4096, resolve));
  return {
    port: (entrance.address() as AddressInfo).port,
    traffic: () => ({ calls, bytes }),
    connections: () => sockets.size,
    disconnect() {
      for (const socket of sockets) socket.destroy();
    },
    close() {
      for (const socket of sockets) socket.destroy();
      entrance.close();
    },
  };
}
