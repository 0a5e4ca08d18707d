import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createServer as createTcpServer } from "node:net";
import { defaultPolicy } from "@cro/shared/policy/compile";
import { AGENT_DNS_NAME, COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { ASKED_CONTAINERS, REPORT_LIMITS } from "@cro/shared/wire/report";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type AgentClient, type AgentOutcome, createAgentClient } from "../../src/agents/client.ts";
import { serializePolicy, writeDirective } from "../../src/agents/directive.ts";
import { type AgentPeer, answer, aPki, aReport, startAgentPeer } from "../support/agent-peer.ts";
import { aLeaf, anAuthority, anOddLeaf } from "../support/certificates.ts";
import type { End } from "../support/handshake.ts";

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
const policy = serializePolicy(defaultPolicy().document);
const never = new AbortController().signal;

let pki: Awaited<ReturnType<typeof aPki>>;
let peer: AgentPeer;
let client: AgentClient;
let disconnects: string[];
beforeAll(async () => {
  pki = await aPki();
});
beforeEach(async () => {
  peer = await startAgentPeer(pki.agent);
  disconnects = [];
  client = newClient(pki.coordinator);
});
afterEach(async () => {
  await peer.close();
  await client.close();
});

function newClient(material: End, deadlineMs = 10_000): AgentClient {
  return createAgentClient({
    material,
    deadlineMs,
    wallMs: Date.now,
    onDisconnect: (origin) => disconnects.push(origin),
  });
}

function body({ withDocument = true, term = 1, revision = 1, address = peer.address } = {}): string {
  return writeDirective({
    fence: { term, revision },
    address,
    timeMs: 0,
    policy,
    withDocument,
    orphans: [],
    protocol: 2,
  });
}

function failure(outcome: AgentOutcome): string {
  if (outcome.outcome !== "failed") throw new Error(`it did not fail: ${outcome.outcome}`);
  const { cause } = outcome;
  return `${(cause as NodeJS.ErrnoException).code ?? ""} ${cause.message}`;
}

describe("createAgentClient", () => {
  it("puts a directive and yields the report that it was answered with", async () => {
    const outcome = await client.putDirective(peer.address, body({ term: 3, revision: 7 }), never);
    expect(outcome).toMatchObject({
      outcome: "accepted",
      report: { accepted: { term: 3, revision: 7, digest: policy.digest } },
    });
    expect(peer.calls[0]?.directive?.policy.document).toEqual(defaultPolicy().document);
  });

  it("makes all calls to an agent over one connection, for the agents' name", async () => {
    for (let n = 0; n < 5; n++) expect((await client.getReport(peer.address, never)).outcome).toBe("accepted");
    expect(peer.serverNames).toEqual([AGENT_DNS_NAME]);
  });

  it("names the report that it knows, and yields that nothing has changed since", async () => {
    peer.interfere = (_call, response) => {
      response.writeHead(304).end();
      return true;
    };
    const known = { bootId: "a&b", number: 7 };
    expect(await client.getReport(peer.address, never, known)).toEqual({ outcome: "unchanged" });
    expect(peer.calls.at(-1)?.url).toBe("/v1/report?boot=a%26b&after=7");
    peer.interfere = undefined;
    expect((await client.getReport(peer.address, never)).outcome).toBe("accepted");
    expect(peer.calls.at(-1)?.url).toBe("/v1/report");
  });

  it("yields each refusal as what it is", async () => {
    expect(await client.putDirective(peer.address, body({ withDocument: false }), never)).toEqual({
      outcome: "documentNeeded",
    });
    await client.putDirective(peer.address, body({ term: 5, revision: 2 }), never);
    expect(await client.putDirective(peer.address, body({ term: 4 }), never)).toEqual({
      outcome: "older",
      term: 5,
      revision: 2,
    });
    const other = { ...peer.address, podUID: "uid-b" };
    expect(await client.putDirective(other, body({ address: other }), never)).toEqual({
      outcome: "misdirected",
      error: "this is node-a",
    });
    peer.interfere = (_, response) => {
      response.writeHead(422).end();
      return true;
    };
    expect(await client.putDirective(peer.address, body(), never)).toEqual({
      outcome: "invalid",
      field: undefined,
      error: "no reason given",
    });
    peer.interfere = (_, response) => {
      answer(response, 422, { error: "must be an integer", field: "/term" });
      return true;
    };
    expect(await client.putDirective(peer.address, body(), never)).toEqual({
      outcome: "invalid",
      field: "/term",
      error: "must be an integer",
    });
  });

  it("takes no report for an agent's that names another one", async () => {
    for (const address of [
      { ...peer.address, podUID: "uid-b" },
      { ...peer.address, node: "node-b" },
    ]) {
      expect(await client.getReport(address, never)).toEqual({
        outcome: "misdirected",
        error: "the agent of node node-a, pod uid-a, answered",
      });
    }
  });

  it("keeps no connection to another agent than the one it calls, until the right one answers again", async () => {
    const connections = () => peer.serverNames.length;
    const wrong = { ...peer.address, podUID: "uid-b" };
    const call = (address: typeof wrong) => client.getReport(address, never);
    await call(wrong);
    expect(connections()).toBe(1);
    // The first one was kept before it was known whose it is.
    for (let calls = 0; calls < 3; calls += 1) await call(wrong);
    expect(connections()).toBeGreaterThanOrEqual(3);
    await call(peer.address);
    await call(peer.address);
    const settled = connections();
    for (let calls = 0; calls < 3; calls += 1) await call(peer.address);
    expect(connections()).toBe(settled);
  });

  it("says what a directive is, and nothing of the body of a question", async () => {
    const types: Array<string | undefined> = [];
    peer.interfere = (_call, _response, { headers }) => {
      types.push(headers["content-type"]);
      return false;
    };
    await client.putDirective(peer.address, body(), never);
    await client.getReport(peer.address, never);
    expect(types).toEqual(["application/json", undefined]);
  });

  it.each<[string, (response: ServerResponse) => unknown, RegExp]>([
    ["text that is no JSON", (response) => response.end("hello"), /answered no report/],
    ["JSON that is no report", (response) => response.end('{"node":"node-a"}'), /answered no report/],
    [
      "a report with a wrong field",
      (response) => response.end(JSON.stringify({ ...aReport(), archives: -1 })),
      /\/archives/,
    ],
    ["an error", (response) => response.writeHead(500).end(), /answered 500/],
    ["a redirect", (response) => response.writeHead(302, { location: "/v1/report" }).end(), /answered 302/],
    ["an empty 409", (response) => response.writeHead(409).end(), /answered 409: no reason given/],
    [
      "a 409 without a revision",
      (response) => response.writeHead(409).end('{"error":"older","term":3}'),
      /answered 409: older/,
    ],
    [
      "a 400 that names a place in the order",
      (response) => response.writeHead(400).end('{"error":"odd","term":3,"revision":1}'),
      /answered 400: odd/,
    ],
    [
      "half an answer",
      (response) => {
        response.writeHead(200, { "content-length": "1000" });
        response.write("{", () => response.destroy());
      },
      /UND_ERR_SOCKET|ECONNRESET/,
    ],
    ["a reset", (response) => response.destroy(), /UND_ERR_SOCKET|ECONNRESET/],
    [
      "an endless answer",
      (response) => {
        const chunk = Buffer.alloc(1 << 20, " ");
        const write = () => {
          while (!response.destroyed && response.write(chunk));
        };
        response.on("drain", write);
        write();
      },
      /UND_ERR_RES_EXCEEDED_MAX_SIZE/,
    ],
  ])("knows nothing from %s", async (_, respond, problem) => {
    peer.interfere = (_call, response) => {
      respond(response);
      return true;
    };
    expect(failure(await client.getReport(peer.address, never))).toMatch(problem);
    peer.interfere = undefined;
    expect((await client.getReport(peer.address, never)).outcome).toBe("accepted");
  });

  it("reads the largest report that there can be, and none that is twice as large", async () => {
    const name = (prefix: string, index: number, length: number) => `${prefix}${index}-`.padEnd(length, "x");
    const names = { namespace: name("n", 0, 63), pod: name("p", 0, 253), container: name("c", 0, 63) };
    const of = <T>(length: number, make: (index: number) => T) => Array.from({ length }, (_, index) => make(index));
    const large = aReport({
      ...peer.report,
      namespaces: of(REPORT_LIMITS.namespaces, (index) => ({
        ...{ namespace: name("n", index, 63), archives: 2 ** 53 - 1, bytes: 2 ** 53 - 1 },
      })),
      orphanScopes: of(REPORT_LIMITS.orphanScopes, (index) => ({
        namespace: names.namespace,
        pod: name("p", index, 253),
        containers: of(ASKED_CONTAINERS.perReport / REPORT_LIMITS.orphanScopes, (n) => name("c", n, 63)),
      })),
      unreachable: of(REPORT_LIMITS.unreachable, () => ({
        ...{ ...names, limit: "node_max_total_size", wanted: 2 ** 53 - 1, freed: 2 ** 53 - 1, unit: "archives" },
      })),
      deletions: of(REPORT_LIMITS.deletions, (index) => ({
        ...{ ...names, number: index + 1, time: "2026-01-01T00:00:00.000Z", file: "f".repeat(255) },
        ...{ bytes: 2 ** 53 - 1, reason: "node_max_total_size" },
      })),
      documentFields: of(1000, (index) => name("f", index, 50).replace("-", "")),
      certificates: { authorities: of(100, () => "AB:".repeat(31).concat("AB")) },
    });
    peer.interfere = (_, response) => {
      response.end(JSON.stringify(large));
      return true;
    };
    const outcome = await client.getReport(peer.address, never);
    expect(outcome).toMatchObject({ outcome: "accepted", dropped: [] });
    peer.interfere = (_, response) => {
      response.end(JSON.stringify({ ...large, more: JSON.stringify(large) }));
      return true;
    };
    expect(failure(await client.getReport(peer.address, never))).toMatch(/size/i);
  });

  it("gives up at the deadline, whether the agent is silent or drips", async () => {
    await client.close();
    client = newClient(pki.coordinator, 200);
    peer.interfere = () => true;
    expect(failure(await client.getReport(peer.address, never))).toMatch(/timeout/i);
    peer.interfere = (_, response) => {
      response.writeHead(200);
      const dripping = setInterval(() => response.write(" "), 20);
      response.once("close", () => clearInterval(dripping));
      return true;
    };
    expect(failure(await client.getReport(peer.address, never))).toMatch(/timeout/i);
  });

  it("gives up at the deadline where nobody shakes hands", async () => {
    const silent = createTcpServer(() => {}).listen(0, "127.0.0.1");
    await once(silent, "listening");
    await client.close();
    client = newClient(pki.coordinator, 200);
    const url = `https://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    expect(failure(await client.getReport({ ...peer.address, url }, never))).toMatch(/timeout/i);
    silent.close();
  });

  it("breaks a call off when its caller says so", async () => {
    const abort = new AbortController();
    peer.interfere = () => {
      abort.abort();
      return true;
    };
    expect(failure(await client.getReport(peer.address, abort.signal))).toMatch(/abort/i);
  });

  it("tells that nobody listens", async () => {
    await peer.close();
    expect(failure(await client.getReport(peer.address, never))).toMatch(/ECONNREFUSED/);
  });

  it("trusts no agent whose certificate is expired, another authority's, for clients, for nothing, or of another name", async () => {
    const other = await anAuthority();
    const cases: Array<[Awaited<ReturnType<typeof aLeaf>>, RegExp]> = [
      [await aLeaf("agent", pki.authority, { nowMs: Date.now() - 20_000, lifetimeMs: 10_000 }), /CERT_HAS_EXPIRED/],
      [await aLeaf("agent", other), /UNABLE_TO|SELF_SIGNED/],
      [pki.coordinator, /INVALID_PURPOSE|ERR_TLS_CERT_ALTNAME_INVALID/],
      [await anOddLeaf(pki.authority, { usage: CLIENT_AUTH }), /INVALID_PURPOSE/],
      [await anOddLeaf(pki.authority, {}), /serverAuth/],
      [await anOddLeaf(pki.authority, { usage: SERVER_AUTH, dnsName: COORDINATOR_DNS_NAME }), /ALTNAME_INVALID/],
      [await anOddLeaf(pki.authority, { usage: SERVER_AUTH, dnsName: "127.0.0.1" }), /ALTNAME_INVALID/],
    ];
    for (const [leaf, problem] of cases) {
      const impostor = await startAgentPeer({ ...leaf, authority: pki.authority.certificate });
      expect(failure(await client.getReport(impostor.address, never))).toMatch(problem);
      expect(impostor.calls).toEqual([]);
      await impostor.close();
    }
    const good = await anOddLeaf(pki.authority, { usage: SERVER_AUTH });
    const agent = await startAgentPeer({ ...good, authority: pki.authority.certificate });
    expect((await client.getReport(agent.address, never)).outcome).toBe("accepted");
    await agent.close();
  });

  it("finds the agents' name in the certificate, whatever host the address names", async () => {
    const url = peer.address.url.replace("127.0.0.1", "localhost");
    expect((await client.getReport({ ...peer.address, url }, never)).outcome).toBe("accepted");
  });

  it("shows its own certificate, and gets no word from an agent that does not trust it", async () => {
    const stranger = await aPki();
    const strange = newClient({ ...stranger.coordinator, authority: pki.authority.certificate });
    failure(await strange.getReport(peer.address, never));
    expect(peer.calls).toEqual([]);
    await strange.close();
  });

  it("fails each call while its own certificates cannot be read, and goes on with ones that can", async () => {
    for (const broken of [{ key: "no key" }, { certificate: "no certificate" }, { key: pki.agent.key }]) {
      const material = { ...pki.coordinator, ...broken };
      client.reload(material);
      failure(await client.getReport(peer.address, never));
      const other = newClient(material);
      failure(await other.getReport(peer.address, never));
      await other.close();
    }
    expect(peer.calls).toEqual([]);
    client.reload(pki.coordinator);
    expect((await client.getReport(peer.address, never)).outcome).toBe("accepted");
  });

  it("uses new certificates from the next call on, and lets calls on the way end", async () => {
    const next = await aPki();
    const authority = pki.authority.certificate + next.authority.certificate;
    const successor = await startAgentPeer({ ...next.agent, authority });
    expect(failure(await client.getReport(successor.address, never))).toMatch(/UNABLE_TO|SELF_SIGNED/);
    let release = () => {};
    const entered = new Promise<void>((resolve) => {
      peer.interfere = (_, response) => {
        release = () => answer(response, 200, peer.report);
        resolve();
        return true;
      };
    });
    const onTheWay = client.getReport(peer.address, never);
    await entered;
    client.reload({ ...next.coordinator, authority });
    expect((await client.getReport(successor.address, never)).outcome).toBe("accepted");
    release();
    expect((await onTheWay).outcome).toBe("accepted");
    await successor.close();
  });

  it("tells when an agent's connection ends, but not when it ends one itself", async () => {
    await client.getReport(peer.address, never);
    client.reload(pki.coordinator);
    await client.getReport(peer.address, never);
    expect(disconnects).toEqual([]);
    await peer.restart();
    await expect.poll(() => disconnects).toEqual([peer.address.url]);
  });
});
