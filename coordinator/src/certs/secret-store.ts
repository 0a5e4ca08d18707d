import { type KubeClient, type KubeObject, kubePath } from "../kube/client.ts";
import type { CertificateName, CertificateStore } from "./store.ts";

interface Secret extends KubeObject {
  data?: Record<string, string>;
}

/**
 * Keeps certificates in Secrets that exist already: they are read and patched by name, never created. A write carries the
 * version that was read, so that of two replicas that fill an empty Secret only one succeeds. Rejects where the API
 * server does not answer as it should.
 */
export function createSecretStore(
  client: KubeClient,
  options: {
    namespace: string;
    names: Readonly<Record<CertificateName, string>>;
    /** Ends requests on their way. */
    signal: AbortSignal;
  },
): CertificateStore {
  const { namespace, names, signal } = options;
  const pathOf = (name: CertificateName) => kubePath`/api/v1/namespaces/${namespace}/secrets/${names[name]}`;
  return {
    async read(name) {
      const answer = await client.request<Secret>({ path: pathOf(name), kind: "Secret", signal });
      if (!answer.ok) throw new Error(`Secret ${namespace}/${names[name]}: ${answer.message}`);
      const { data = {}, metadata } = answer.value;
      const texts = Object.entries(data).map(([file, value]) => [file, Buffer.from(value, "base64").toString("utf8")]);
      return { files: Object.fromEntries(texts), version: metadata.resourceVersion };
    },
    async write(name, files, version) {
      const data = Object.fromEntries(
        Object.entries(files).map(([file, text]) => [file, Buffer.from(text).toString("base64")]),
      );
      const body = { metadata: { resourceVersion: version }, data };
      const request = { method: "PATCH", path: pathOf(name), body, kind: "Secret", signal } as const;
      const answer = await client.request<Secret>(request);
      if (answer.ok) return true;
      if (answer.status === 409) return false;
      throw new Error(`Secret ${namespace}/${names[name]}: ${answer.message}`);
    },
  };
}
