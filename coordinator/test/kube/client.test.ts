import { once } from "node:events";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { createReportReader } from "@cro/shared/wire/read-report";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import { createKubeClient, type KubeClient, kubePath } from "../../src/kube/client.ts";
import { aReport } from "../support/agent-peer.ts";
import { aLeaf, anAuthority } from "../support/certificates.ts";

const HOSTILE = "../pods?watch=true&x=";

describe("kubePath", () => {
  it("makes one segment of each value, whatever it holds", () => {
    const path = kubePath`/api/v1/namespaces/${HOSTILE}/pods/${"a/b#c%2f"}/status`;
    expect(path).toBe("/api/v1/namespaces/..%2Fpods%3Fwatch%3Dtrue%26x%3D/pods/a%2Fb%23c%252f/status");
    expect(kubePath`/api/v1/namespaces/${"team"}/pods/${"web.1"}`).toBe("/api/v1/namespaces/team/pods/web.1");
  });

  it("refuses what no encoding makes a name", () => {
    for (const name of ["", ".", ".."]) expect(() => kubePath`/api/v1/namespaces/${name}/pods`).toThrow("no segment");
  });

  it("means, as a URL, the very path that it reads", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: "grapheme" }), (name) => {
        fc.pre(name !== "." && name !== "..");
        const url = new URL(`https://host${kubePath`/api/${name}/pods`}`);
        expect([url.pathname.split("/").length, url.search, url.hash]).toEqual([4, "", ""]);
        expect(decodeURIComponent(url.pathname.split("/")[2] ?? "")).toBe(name);
      }),
      { numRuns: soak(500) },
    );
  });
});

describe("a client of the API server", () => {
  const requests: string[] = [];
  let client: KubeClient;

  beforeAll(async () => {
    const authority = await anAuthority();
    const leaf = await aLeaf("agent", authority);
    const server = createServer({ cert: leaf.certificate, key: leaf.key }, (request, response) => {
      requests.push(request.url ?? "");
      response.writeHead(404, { "content-type": "application/json" }).end("{}");
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    client = createKubeClient(
      {
        server: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
        tls: { rejectUnauthorized: false },
        headers: async () => ({}),
      },
      { userAgent: "test" },
    );
    afterAll(async () => {
      await client.close();
      server.close();
    });
  });

  it("sends no request whose path means another one than it reads", async () => {
    const paths = [
      `/api/v1/namespaces/${HOSTILE}/pods/web`,
      "/api/v1/../secrets",
      "/api/v1/pods#x",
      "/a/%2e%2e/b",
      "/a\\b",
    ];
    for (const path of paths) {
      expect(await client.request({ path })).toMatchObject({ ok: false, reason: "Unreachable" });
      const stream = await client.stream({ path, signal: new AbortController().signal });
      expect(stream).toMatchObject({ ok: false, reason: "Unreachable" });
    }
    expect(requests).toEqual([]);
    await client.request({ path: "/api/v1/pods", query: { limit: 1 } });
    expect(requests).toEqual(["/api/v1/pods?limit=1"]);
  });

  it("asks about nothing but pods of a namespace, whatever names a report brings", async () => {
    const readReport = createReportReader();
    const arbName = fc.oneof(
      fc.constantFrom(HOSTILE, "..", ".", "team", "web.1", "%2e%2e", "a/../b", "\\..\\x"),
      fc.string(),
      fc.stringMatching(/^[a-z0-9]{1,8}$/),
    );
    await fc.assert(
      fc.asyncProperty(arbName, arbName, async (namespace, pod) => {
        requests.length = 0;
        const read = readReport(aReport({ orphanScopes: [{ namespace, pod, containers: [] }] }), Date.now());
        for (const scope of read.ok ? read.report.orphanScopes : []) {
          await client.request({ path: kubePath`/api/v1/namespaces/${scope.namespace}/pods/${scope.pod}` });
          expect(scope).toMatchObject({ namespace, pod });
        }
        for (const request of requests) expect(request).toBe(`/api/v1/namespaces/${namespace}/pods/${pod}`);
      }),
      { numRuns: soak(200) },
    );
  });
});
