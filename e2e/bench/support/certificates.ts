import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { AgentClientOptions } from "@cro/coordinator/agents/client";
import { generateKeys, issueAuthority, issueLeaf } from "@cro/coordinator/certs/issue";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";

/** Certificates of both sides: a folder for agents, and what a coordinator holds. */
export async function issueCertificates(
  folder: string,
): Promise<{ agentFolder: string } & Pick<AgentClientOptions, "material">> {
  const options = async () => ({
    nowMs: Date.now(),
    lifetimeMs: 24 * 3_600_000,
    keys: await generateKeys(),
    serial: randomBytes(16),
  });
  const authority = await issueAuthority(await options());
  const agent = await issueLeaf("agent", authority, await options());
  const coordinator = await issueLeaf("coordinator", authority, await options());
  const agentFolder = join(folder, "agent-certificates");
  mkdirSync(agentFolder);
  writeFileSync(join(agentFolder, CERTIFICATE_FILES.certificate), agent.certificate);
  writeFileSync(join(agentFolder, CERTIFICATE_FILES.key), agent.key);
  writeFileSync(join(agentFolder, CERTIFICATE_FILES.authority), authority.certificate);
  return { agentFolder, material: { ...coordinator, authority: authority.certificate } };
}
