import { connect } from "node:tls";
import { AGENT_DNS_NAME, COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import { describe, expect, it } from "vitest";
import { archivesIn } from "../../agent/test/support/archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { aLeaf, anAuthority, anOddLeaf } from "../../coordinator/test/support/certificates.ts";
import { aDirective, putDirective, startLoneAgent } from "../support/lone-agent.ts";
import { aFolder, read, until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();
const foreignAuthority = await anAuthority();

/** Every byte that the agent sends to a caller who asks for its report. */
function bytesFor(port: number, identity: Partial<typeof authority>): Promise<string> {
  return new Promise((resolve) => {
    let received = "";
    const socket = connect({
      host: "127.0.0.1",
      port,
      servername: AGENT_DNS_NAME,
      ca: authority.certificate,
      ...(identity.certificate === undefined ? {} : { cert: identity.certificate, key: identity.key }),
    });
    socket.on("secureConnect", () => socket.write("GET /v1/report HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    socket.on("data", (chunk) => {
      received += chunk.toString();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(received));
  });
}

const put = (port: number, body: unknown) => putDirective(port, { authority, coordinatorLeaf }, body);

describe("the agent's API", () => {
  it("gives not one byte of HTTP to whoever does not show the coordinator's certificate", async () => {
    const { port, agent } = await startLoneAgent({ agentLeaf, authority });
    const callers: Record<string, Partial<typeof authority>> = {
      "no certificate": {},
      expired: await aLeaf("coordinator", authority, { nowMs: Date.now() - 7_200_000, lifetimeMs: 3_600_000 }),
      "another authority's": await aLeaf("coordinator", foreignAuthority),
      "the agent's own": agentLeaf,
      "the right authority's without clientAuth": await anOddLeaf(authority, {
        dnsName: COORDINATOR_DNS_NAME,
        usage: SERVER_AUTH,
      }),
      "the right authority's for no purpose at all": await anOddLeaf(authority, { dnsName: COORDINATOR_DNS_NAME }),
      "the right authority's under another name": await anOddLeaf(authority, {
        dnsName: `x.${COORDINATOR_DNS_NAME}`,
        usage: CLIENT_AUTH,
      }),
    };
    for (const [who, identity] of Object.entries(callers))
      expect([who, await bytesFor(port, identity)]).toEqual([who, ""]);
    const plain = await fetch(`http://127.0.0.1:${port}/v1/report`).then(
      (response) => response.status,
      () => "nothing",
    );
    expect(plain).toBe("nothing");
    expect(await bytesFor(port, coordinatorLeaf)).toMatch(/^HTTP\/1\.1 200 OK/);
    expect(agent.process.exitCode).toBeNull();
  });

  it("takes a directive, and refuses what is older, for another, malformed, unknown or too large", async () => {
    const { port, metricsUrl } = await startLoneAgent({ agentLeaf, authority });
    const directory = aFolder();
    const files = series(directory, 12);
    const accepted = await put(port, aDirective({}, directory));
    expect(accepted.status).toBe(200);
    expect(accepted.body).toMatchObject({ node: "node-a", accepted: { term: 5, revision: 3 } });
    await until(() => expect(archivesIn(directory)).toEqual(files.slice(2)));

    for (const fence of [
      { term: 5, revision: 2 },
      { term: 4, revision: 9 },
    ]) {
      expect(await put(port, aDirective(fence))).toMatchObject({ status: 409, body: { term: 5, revision: 3 } });
    }
    expect(await put(port, aDirective({}, "/elsewhere"))).toMatchObject({ status: 409, body: { term: 5 } });
    for (const other of [{ node: "node-b" }, { podUID: "pod-b" }]) {
      expect((await put(port, aDirective({ ...other, term: 9 }))).status).toBe(421);
    }
    const { policy } = aDirective();
    const invalid: Array<[Record<string, unknown>, string]> = [
      [{ term: -1 }, "term"],
      [{ extra: 1 }, "extra"],
      [{ orphans: [{ bootId: "b", report: 0, namespace: "n", pod: "p" }] }, "orphans.0.report"],
      [{ policy: { ...policy, document: { ...policy.document, mode: "Off" } } }, "policy.document.mode"],
      [{ policy: { ...policy, digest: "f".repeat(64) }, term: 8 }, "policy.digest"],
      [{ time: "yesterday" }, "time"],
    ];
    for (const [changes, field] of invalid) {
      const refused = await put(port, aDirective(changes));
      expect([refused.status, refused.body.field]).toEqual([422, field]);
    }
    const unknown = aDirective({ term: 6, policy: { digest: "a".repeat(64) } });
    expect((await put(port, unknown)).status).toBe(428);
    expect((await put(port, "{")).status).toBe(400);
    // It answers without reading on, so that the caller may see the answer or only that nobody listens.
    const huge = await put(port, JSON.stringify({ a: "x".repeat(9 * 1024 * 1024) })).then(
      ({ status }) => status,
      (cause: NodeJS.ErrnoException) => cause.code,
    );
    expect([413, "EPIPE", "ECONNRESET", "UND_ERR_SOCKET"]).toContain(huge);

    const report = await put(
      port,
      aDirective(
        {
          term: 5,
          revision: 4,
          policy: { digest: accepted.body.accepted && (accepted.body.accepted as { digest: string }).digest },
        },
        directory,
      ),
    );
    expect(report.body).toMatchObject({ accepted: { term: 5, revision: 4 }, archives: 10, deletionsOmitted: 0 });
    expect(report.body.deletions).toHaveLength(2);
    expect((await read(metricsUrl)).body).toContain("checkpoint_policy_term 5");
  }, 40_000);
});

describe("the agent's plain port", () => {
  it("tells no archive's name, and takes no directive", async () => {
    const { port, metricsUrl } = await startLoneAgent({
      ...{ agentLeaf, authority },
      args: ["--metrics-granularity", "container"],
    });
    const directory = aFolder();
    const files = series(directory, 3);
    const strict = aDirective({ spec: { globalPolicy: { maxCheckpointsPerContainer: 1 } } }, directory);
    const plain = new URL("/", metricsUrl).href;
    const direct = await fetch(`${plain}v1/directive`, {
      method: "PUT",
      body: JSON.stringify(strict),
      headers: { "content-type": "application/json" },
    });
    expect(direct.status).toBe(404);
    // Not one of its answers, whatever the agent knows by now.
    expect((await put(port, aDirective({}, directory))).status).toBe(200);
    await until(async () => expect((await read(metricsUrl)).body).toContain('container="main"} 3'));
    for (const path of ["metrics", "healthz", "readyz", "v1/report", ""]) {
      const { body } = await read(`${plain}${path}`);
      expect([path, files.filter((file) => body.includes(file)), body.includes(".tar")]).toEqual([path, [], false]);
    }
    expect(archivesIn(directory)).toEqual(files);
  }, 40_000);
});
