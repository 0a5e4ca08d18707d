import { randomUUID } from "node:crypto";
import { createServer, type Server } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "@cro/agent/clock";
import { createReportNews } from "@cro/agent/report-news";
import { DOCUMENT_FIELDS } from "@cro/shared/policy/document-fields";
import { DIRECTIVE_PATH, type Directive } from "@cro/shared/wire/directive";
import { compareFences, type Fence } from "@cro/shared/wire/fence";
import { COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { NOT_MODIFIED, type OrphanScope, PROTOCOL, REPORT_PATH, type Report } from "@cro/shared/wire/report";

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
  /** Archives beside those that every agent has. */
  more: number;
  paused: boolean;
  accepted: (Fence & { digest: string }) | undefined;
  /** When it took a digest that it had not, by performance.now(). */
  acceptedMs: number;
}

/** Many agents in this process: their protocol and TLS are real, archives they have none of. */
export interface Fleet {
  port: number;
  /** Bytes that went either way, TLS and all, and calls since the start. */
  traffic(): { calls: number; bytes: number };
  connections(): number;
  /** Something has changed that this agent's report tells of. */
  changed(agent: FleetAgent): void;
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
  const starts = new Map(
    agents.map((agent) => {
      const bootId = randomUUID();
      return [agent, { bootId, news: createReportNews({ bootId, clock: systemClock }) }] as const;
    }),
  );
  const bodies = new Set<string>();
  const sockets = new Set<Socket>();
  let calls = 0;
  /** Of connections that are over. */
  let bytes = 0;
  let reports = 0;

  const agentOf = (socket: Socket) => byAddress.get(socket.localAddress?.replace("::ffff:", "") ?? "");

  function reportOf(agent: FleetAgent): Report {
    reports += 1;
    const start = starts.get(agent);
    const report: Report = {
      protocol: PROTOCOL,
      documentFields: [...DOCUMENT_FIELDS],
      node: agent.node,
      podUID: agent.podUID,
      version: "0.1.0",
      bootId: start?.bootId ?? "",
      number: reports,
      time: new Date().toISOString(),
      ...(agent.accepted && { accepted: agent.accepted }),
      directory: { path: "/var/lib/kubelet/checkpoints", state: "watching" },
      disk: { sizeBytes: 1e12, freeBytes: 5e11, usedBytes: 5e11 },
      paused: agent.paused,
      ...{ archives: 200 + agent.more, bytes: 4e10, pinned: 0, states: { complete: 198, incomplete: 2 } },
      namespaces: Array.from({ length: 20 }, (_, index) => ({ namespace: `team-${index}`, archives: 10, bytes: 2e9 })),
      ...{
        namespacesOmitted: 0,
        orphanScopes: agent.scopes,
        orphanScopesOmitted: 0,
        unreachable: [],
        unreachableOmitted: 0,
      },
      ...{ planned: 0, plan: { bytes: 0, byReason: {} }, deleted: {}, deletions: [], deletionsOmitted: 0 },
      ...{ deleteErrors: 0, failing: { archives: 0, codes: [] } },
      certificates: { authorities: [] },
    };
    start?.news.told(report);
    return report;
  }

  /** What an agent answers, as in agent/src/http/api.ts. */
  function answer(
    agent: FleetAgent,
    method: string,
    path: string,
    body: string,
  ): [status: number, body: object | undefined] {
    const [route, query] = path.split("?");
    if (method === "GET" && route === REPORT_PATH) {
      const asked = new URLSearchParams(query);
      const known = { bootId: String(asked.get("boot")), number: Number(asked.get("after")) };
      return starts.get(agent)?.news.isNewTo(known) ? [200, reportOf(agent)] : [NOT_MODIFIED, undefined];
    }
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
      const text = content === undefined ? "" : JSON.stringify(content);
      calls += 1;
      response.writeHead(status, { "content-type": "application/json" }).end(text);
    });
  });
  const entrance = createTcpServer((socket) => {
    sockets.add(socket);
    socket.once("close", () => {
      sockets.delete(socket);
      bytes += socket.bytesRead + socket.bytesWritten;
    });
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
    traffic: () => ({
      calls,
      bytes: [...sockets].reduce((sum, socket) => sum + socket.bytesRead + socket.bytesWritten, bytes),
    }),
    connections: () => sockets.size,
    changed: (agent) => starts.get(agent)?.news.raise(),
    disconnect() {
      for (const socket of sockets) socket.destroy();
    },
    close() {
      for (const socket of sockets) socket.destroy();
      entrance.close();
    },
  };
}
