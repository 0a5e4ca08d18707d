import { describe, expect, it } from "vitest";
import { createSecretStore } from "../../src/certs/secret-store.ts";
import type { KubeClient, KubeFailure, KubeRequest, KubeResult } from "../../src/kube/client.ts";

/** A store on an API server that gives this answer to each request. */
function aStore(answer: KubeFailure | { ok: true; value: unknown }) {
  const requests: KubeRequest[] = [];
  const client: KubeClient = {
    async request<T>(request: KubeRequest) {
      requests.push(request);
      return answer as KubeResult<T>;
    },
    stream: () => Promise.reject(new Error("nothing is watched here")),
    close: async () => {},
  };
  const { signal } = new AbortController();
  const names = { ca: "the-ca", agent: "a/b", coordinator: "the-coordinator" };
  return { store: createSecretStore(client, { namespace: "n", names, signal }), requests, signal };
}

const metadata = { name: "the-ca", uid: "u", resourceVersion: "7" };
const DENIED: KubeFailure = { ok: false, reason: "Forbidden", message: "not allowed", status: 403 };

describe("createSecretStore", () => {
  it("reads a Secret's files and its version, by the Secret's own name", async () => {
    const data = { "tls.crt": Buffer.from("crt ü").toString("base64"), "tls.key": "" };
    const { store, requests, signal } = aStore({ ok: true, value: { metadata, data } });
    expect(await store.read("agent")).toEqual({ files: { "tls.crt": "crt ü", "tls.key": "" }, version: "7" });
    expect(requests).toEqual([{ path: "/api/v1/namespaces/n/secrets/a%2Fb", kind: "Secret", signal }]);
  });

  it("takes a Secret without data for an empty place", async () => {
    expect(await aStore({ ok: true, value: { metadata } }).store.read("ca")).toEqual({ files: {}, version: "7" });
  });

  it("writes on the version that was read, and only what it is given", async () => {
    const { store, requests, signal } = aStore({ ok: true, value: { metadata } });
    expect(await store.write("ca", { "tls.crt": "crt ü" }, "7")).toBe(true);
    const data = { "tls.crt": Buffer.from("crt ü").toString("base64") };
    const path = "/api/v1/namespaces/n/secrets/the-ca";
    const body = { metadata: { resourceVersion: "7" }, data };
    expect(requests).toEqual([{ method: "PATCH", path, body, kind: "Secret", signal }]);
  });

  it("tells that another one wrote since", async () => {
    const { store } = aStore({ ok: false, reason: "Conflict", message: "changed", status: 409 });
    expect(await store.write("ca", {}, "7")).toBe(false);
  });

  it("rejects, naming the Secret, where it can be neither read nor written: it must not pass for an empty one", async () => {
    const { store } = aStore(DENIED);
    await expect(store.read("ca")).rejects.toThrow("Secret n/the-ca: not allowed");
    await expect(store.write("coordinator", {}, "7")).rejects.toThrow("Secret n/the-coordinator: not allowed");
  });
});
