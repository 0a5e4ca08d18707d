import { readdirSync, readFileSync } from "node:fs";
import { get } from "node:http";
import { createConnection, type Socket } from "node:net";
import { connect } from "node:tls";
import { AGENT_DNS_NAME } from "@cro/shared/wire/identities";
import { describe, expect, it, onTestFinished } from "vitest";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { soak } from "../../shared/test/support/soak.ts";
import { startLoneAgent } from "../support/lone-agent.ts";
import { aFolder, type Running, read, until } from "../support/processes.ts";
import { aPolicyFile, startPair } from "../support/standalone.ts";

const MIB = 1024 * 1024;
/** Far above what the servers allow, far below what Node does where nobody says anything. */
const HUNG_UP_MS = 25_000;

const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();

const startAgent = () => startLoneAgent({ agentLeaf, authority });

/** Follows a connection: what came, and whether it is over. */
function follow<S extends Socket>(socket: S) {
  const caller = { socket, received: "", isOpen: true };
  socket.on("data", (chunk) => {
    caller.received += chunk.toString("latin1");
  });
  // To be hung up on is what is asked for here.
  socket.on("error", () => {});
  socket.on("close", () => {
    caller.isOpen = false;
  });
  onTestFinished(() => void socket.destroy());
  return caller;
}

const asCoordinator = (port: number) =>
  follow(
    connect({
      ...{ host: "127.0.0.1", port, servername: AGENT_DNS_NAME, ca: authority.certificate },
      ...{ cert: coordinatorLeaf.certificate, key: coordinatorLeaf.key },
    }),
  );

const asAnyone = (port: number, localAddress = "127.0.0.1") =>
  follow(createConnection({ host: "127.0.0.1", port, localAddress }));

/** What the agent answers to a request that is written as it stands, once it has hung up. */
async function answerTo(port: number, request: Iterable<string>): Promise<string> {
  const caller = asCoordinator(port);
  const over = new Promise<void>((resolve) => caller.socket.once("close", () => resolve()));
  for (const part of request) {
    if (!caller.isOpen) break;
    if (caller.socket.write(part)) continue;
    await Promise.race([over, new Promise<void>((resolve) => caller.socket.once("drain", resolve))]);
  }
  await until(() => expect(caller.isOpen).toBe(false), HUNG_UP_MS);
  return caller.received;
}

const REPORT = "GET /v1/report HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const PUT = "PUT /v1/directive HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n";

/** Memory that a process has in use, in bytes. */
function residentBytes({ process: child }: Running): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${child.pid}/status`, "utf8"))?.[1]) * 1024;
}

/** How many files and sockets a process has open. */
const openCount = ({ process: child }: Running): number => readdirSync(`/proc/${child.pid}/fd`).length;

describe("the agent's API, called with the coordinator's certificate", () => {
  it("hangs up on whoever drips headers or a body, and serves others meanwhile", async () => {
    const { port } = await startAgent();
    const slow = [
      "PUT /v1/directive HTTP/1.1\r\nHost: a\r\nX-Slow: ",
      `${PUT}Content-Length: 1000000\r\n\r\n{"term": `,
      `${PUT}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n`,
    ].map((start) => {
      const caller = asCoordinator(port);
      caller.socket.write(start);
      const dripping = setInterval(
        () => caller.isOpen && caller.socket.write(start.endsWith("\n{\r\n") ? "1\r\n \r\n" : " "),
        500,
      );
      onTestFinished(() => clearInterval(dripping));
      return caller;
    });
    expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
    await until(() => expect(slow.map(({ isOpen }) => isOpen)).toEqual([false, false, false]), 2 * HUNG_UP_MS);
    expect(slow.map(({ received }) => received.slice(0, 12))).not.toContain("HTTP/1.1 200");
    expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
  }, 90_000);

  it("reads no more of headers than Node's 16 KiB, and no more of a body than 8 MiB, whatever length is claimed", async () => {
    const { agent, port } = await startAgent();
    const before = residentBytes(agent);
    const header = `X-Flood: ${"x".repeat(1000)}\r\n`;
    const floods: Array<[string, Iterable<string>, RegExp]> = [
      ["headers", [REPORT.slice(0, -2), ...Array(2000).fill(header)], /^(HTTP\/1\.1 431 |$)/],
      [
        "a body without a length",
        [`${PUT}Transfer-Encoding: chunked\r\n\r\n`, ...Array(64).fill(`80000\r\n${"x".repeat(0x80000)}\r\n`)],
        /^(HTTP\/1\.1 413 |$)/,
      ],
      [
        "a body of a claimed length",
        [`${PUT}Content-Length: ${10 ** 12}\r\n\r\n`, ...Array(32).fill("x".repeat(MIB))],
        /^(HTTP\/1\.1 413 |$)/,
      ],
    ];
    for (const [what, request, answer] of floods)
      expect([what, await answerTo(port, request)]).toEqual([what, expect.stringMatching(answer)]);
    expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(residentBytes(agent) - before).toBeLessThan(64 * MIB);
  }, 90_000);

  it("refuses any JSON that is no directive, however deep, and stays what it is", async () => {
    const { port } = await startAgent();
    const deep = 1_000_000;
    const bodies: Array<[string, string]> = [
      ["400", "[".repeat(deep)],
      ["422", `${"[".repeat(deep)}${"]".repeat(deep)}`],
      ["422", `${'{"a":'.repeat(deep)}1${"}".repeat(deep)}`],
      ["400", '{"__proto__": {"term": 1}}'],
      ["400", '{"constructor": {"prototype": {"term": 1}}}'],
      ["422", JSON.stringify(Array.from({ length: 300_000 }, () => ({})))],
      ["422", JSON.stringify({ orphans: Array.from({ length: 100_000 }, () => ({ bootId: 1 })) })],
    ];
    for (const [status, body] of bodies) {
      const answer = await answerTo(port, [`${PUT}Content-Length: ${body.length}\r\n\r\n`, body]);
      expect([body.slice(0, 40), answer.slice(0, 12)]).toEqual([body.slice(0, 40), `HTTP/1.1 ${status}`]);
      // The reason names the field, and does not send the body back.
      expect(answer.length).toBeLessThan(4096);
    }
    expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
  }, 90_000);
});

/** Asks as the kubelet does, on a connection of its own. Returns the status, or what went wrong. */
function probe(port: number, path: string): Promise<number | string> {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port, path, agent: false, timeout: HUNG_UP_MS }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.once("timeout", () => request.destroy(new Error("no answer")));
    request.once("error", (error) => resolve(error.message));
  });
}

describe("probes of a process whose port others hold", () => {
  const PAGE = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
  /** What somebody may do with a connection, none of which ends it. */
  type Hold = (socket: Socket) => unknown;
  const HOLDS: Hold[] = [
    () => {},
    (socket) => socket.write("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"),
    (socket) => socket.write("GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: "),
    (socket) => socket.pause() && socket.write(PAGE.repeat(20)),
  ];

  /** Holds 300 connections in every way, opens them again when they are closed, and 900 more once. */
  function attack(port: number, { holds = HOLDS, from = "127.0.0.1" } = {}) {
    const callers = new Set<Socket>();
    let isOver = false;
    const call = (how: number, isStubborn: boolean) => {
      if (isOver) return;
      const { socket } = asAnyone(port, from);
      callers.add(socket);
      socket.once("connect", () => holds[how % holds.length]?.(socket));
      socket.once("close", () => {
        callers.delete(socket);
        if (isStubborn) setTimeout(call, 100, how, true);
      });
    };
    for (let how = 0; how < 300; how += 1) call(how, true);
    for (let how = 0; how < 900; how += 1) call(how, false);
    return () => {
      isOver = true;
      for (const socket of callers) socket.destroy();
    };
  }

  const held = async (target: Running, port: number) => {
    const before = openCount(target);
    const stop = attack(port);
    onTestFinished(stop);
    await until(() => expect(openCount(target) - before).toBeGreaterThan(250));
    for (let round = 0; round < soak(10); round += 1) {
      expect(await probe(port, "/healthz")).toBe(200);
      expect([200, 503]).toContain(await probe(port, "/readyz"));
      expect(await probe(port, "/metrics")).toBe(200);
    }
    stop();
    await until(() => expect(openCount(target)).toBeLessThanOrEqual(before + 2), HUNG_UP_MS);
    expect(await probe(port, "/healthz")).toBe(200);
  };

  it("are answered by the agent, during the attack and after it", async () => {
    const { agent, metricsPort } = await startAgent();
    await held(agent, metricsPort);
  }, 120_000);

  it("are answered by the coordinator, during the attack and after it", async () => {
    const pair = await startPair({ policy: aPolicyFile({}), directory: aFolder() });
    const coordinator = pair.startCoordinator();
    await until(async () => expect((await read(`${pair.coordinatorUrl}/metrics`)).status).toBe(200));
    await held(coordinator, Number(new URL(pair.coordinatorUrl).port));
  }, 120_000);

  it("do not matter to the coordinator's own calls: the agent's API takes them while others hold its port", async () => {
    const { agent, port } = await startAgent();
    const known = asCoordinator(port);
    known.socket.write("GET /v1/report HTTP/1.1\r\nHost: a\r\n\r\n");
    await until(() => expect(known.received).toMatch(/^HTTP\/1\.1 200 OK/));
    const before = openCount(agent);
    // Anything but silence is no TLS, and ends at once. Whoever holds the port has another address than the coordinator.
    onTestFinished(attack(port, { holds: [() => {}], from: "127.0.0.9" }));
    await until(() => expect(openCount(agent) - before).toBeGreaterThan(100));
    for (let round = 0; round < soak(5); round += 1)
      expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(known.isOpen).toBe(true);
  }, 120_000);
});

describe("whoever merely reaches a port", () => {
  const flooded = async (agent: Running, port: number, most: number) => {
    const before = { bytes: residentBytes(agent), open: openCount(agent) };
    // As many more as this process may have open.
    const count = Math.min(soak(1400), 4000);
    for (let at = 0; at < count; at += 1) asAnyone(port);
    let mostOpen = before.open;
    // Looked at from the agent: a caller that the kernel had no room for may never hear of it.
    await until(() => {
      mostOpen = Math.max(mostOpen, openCount(agent));
      expect(mostOpen - before.open).toBeGreaterThan(most / 2);
    });
    await until(() => {
      mostOpen = Math.max(mostOpen, openCount(agent));
      expect(openCount(agent)).toBeLessThanOrEqual(before.open + 2);
    }, 2 * HUNG_UP_MS);
    // One that is hung up on at once is open for a moment, too.
    expect(mostOpen - before.open).toBeLessThanOrEqual(most + 16);
    expect(residentBytes(agent) - before.bytes).toBeLessThan(64 * MIB);
  };

  it("cannot hold the agent's API: connections that shake no hands are few, and soon over", async () => {
    const { agent, port } = await startAgent();
    await flooded(agent, port, 128);
    expect(await answerTo(port, [REPORT])).toMatch(/^HTTP\/1\.1 200 OK/);
  }, 90_000);

  it("cannot hold the agent's metrics and probes: silent connections are few, and soon over", async () => {
    const { agent, metricsPort, metricsUrl } = await startAgent();
    await flooded(agent, metricsPort, 1024);
    expect((await read(metricsUrl)).status).toBe(200);
    const dripping = asAnyone(metricsPort);
    dripping.socket.write("GET /metrics HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    const flooding = asAnyone(metricsPort);
    flooding.socket.write(`GET /metrics HTTP/1.1\r\n${`X-Flood: ${"x".repeat(1000)}\r\n`.repeat(100)}`);
    const large = asAnyone(metricsPort);
    large.socket.write(`POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: ${10 ** 12}\r\n\r\n`);
    await until(
      () => expect([dripping, flooding, large].map(({ isOpen }) => isOpen)).toEqual([false, false, false]),
      2 * HUNG_UP_MS,
    );
    expect(flooding.received).toMatch(/^(HTTP\/1\.1 431 |$)/);
    expect(large.received).not.toMatch(/^HTTP\/1\.1 200/);
    expect((await read(metricsUrl)).status).toBe(200);
  }, 90_000);

  it("cannot hold the coordinator's metrics and probes either", async () => {
    const pair = await startPair({ policy: aPolicyFile({}), directory: aFolder() });
    const coordinator = pair.startCoordinator();
    await until(async () => expect((await read(`${pair.coordinatorUrl}/metrics`)).status).toBe(200));
    await flooded(coordinator, Number(new URL(pair.coordinatorUrl).port), 1024);
    expect((await read(`${pair.coordinatorUrl}/healthz`)).status).toBe(200);
  }, 90_000);
});
