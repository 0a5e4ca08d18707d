import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "@cro/shared/policy/document";
import { AGENT_DNS_NAME, CERTIFICATE_FILES } from "@cro/shared/wire/identities";
import { Agent, request } from "undici";
import { expect } from "vitest";
import { policyDocument } from "./policy-document.ts";
import { aFolder, freePort, run, until } from "./processes.ts";

interface Keyed {
  certificate: string;
  key: string;
}

/** A real agent with certificates and no coordinator, once it waits for one; `args` are further flags. */
export async function startLoneAgent({
  agentLeaf,
  authority,
  args = [],
  env = {},
}: {
  agentLeaf: Keyed;
  authority: Keyed;
  args?: string[];
  env?: NodeJS.ProcessEnv;
}) {
  const folder = aFolder();
  const certs = join(folder, "certs");
  mkdirSync(certs);
  writeFileSync(join(certs, CERTIFICATE_FILES.certificate), agentLeaf.certificate);
  writeFileSync(join(certs, CERTIFICATE_FILES.key), agentLeaf.key);
  writeFileSync(join(certs, CERTIFICATE_FILES.authority), authority.certificate);
  const [port, metricsPort] = [await freePort(), await freePort()];
  const flags = [
    ...["--node-name", "node-a", "--pod-uid", "pod-a", "--certs-dir", certs, "--state-dir", join(folder, "state")],
    ...["--api-address", `127.0.0.1:${port}`, "--metrics-address", `127.0.0.1:${metricsPort}`],
  ];
  const agent = run("agent", ["serve", ...flags, ...args], { env });
  await until(() => expect(agent.log().some(({ msg }) => msg === "waiting for the coordinator")).toBe(true));
  return { agent, port, metricsPort, metricsUrl: `http://127.0.0.1:${metricsPort}/metrics` };
}

/** A directive for that agent: the default policy, or that of `spec`, at once, on a directory; `changes` are fields of it. */
export function aDirective(
  { spec = {}, ...changes }: Record<string, unknown> & { spec?: unknown } = {},
  directory = "/nowhere",
) {
  const document = { ...policyDocument(spec), directory, applyImmediately: true };
  const digest = digestOf(JSON.stringify(document));
  const time = new Date().toISOString();
  const policy = { digest, document };
  return { term: 5, revision: 3, node: "node-a", podUID: "pod-a", time, policy, orphans: [], ...changes };
}

/** Puts a body to that agent as its coordinator would. */
export async function putDirective(
  port: number,
  { authority, coordinatorLeaf }: { authority: Keyed; coordinatorLeaf: Keyed },
  body: unknown,
) {
  const dispatcher = new Agent({
    connect: {
      ca: authority.certificate,
      cert: coordinatorLeaf.certificate,
      key: coordinatorLeaf.key,
      servername: AGENT_DNS_NAME,
    },
  });
  try {
    const answer = await request(`https://127.0.0.1:${port}/v1/directive`, {
      method: "PUT",
      body: typeof body === "string" ? body : JSON.stringify(body),
      headers: { "content-type": "application/json" },
      dispatcher,
    });
    return { status: answer.statusCode, body: (await answer.body.json()) as Record<string, unknown> };
  } finally {
    await dispatcher.close();
  }
}
