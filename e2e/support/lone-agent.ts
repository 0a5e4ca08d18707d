import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";
import { expect } from "vitest";
import { aFolder, freePort, run, until } from "./processes.ts";

interface Keyed {
  certificate: string;
  key: string;
}

/** A real agent with certificates, no coordinator and no policy, once it waits for a coordinator; `args` are further flags. */
export async function startLoneAgent({
  agentLeaf,
  authority,
  args = [],
}: {
  agentLeaf: Keyed;
  authority: Keyed;
  args?: string[];
}) {
  const folder = aFolder();
  const certs = join(folder, "certs");
  mkdirSync(certs);
  writeFileSync(join(certs, CERTIFICATE_FILES.certificate), agentLeaf.certificate);
  writeFileSync(join(certs, CERTIFICATE_FILES.key), agentLeaf.key);
  writeFileSync(join(certs, CERTIFICATE_FILES.authority), authority.certificate);
  const [port, metricsPort] = [await freePort(), await freePort()];
  const agent = run("agent", [
    "serve",
    ...["--node-name", "node-a", "--pod-uid", "pod-a", "--certs-dir", certs, "--state-dir", join(folder, "state")],
    ...["--api-address", `127.0.0.1:${port}`, "--metrics-address", `127.0.0.1:${metricsPort}`],
    ...args,
  ]);
  await until(() => expect(agent.log().some(({ msg }) => msg === "waiting for the coordinator")).toBe(true));
  return { agent, port, metricsPort, metricsUrl: `http://127.0.0.1:${metricsPort}/metrics` };
}
