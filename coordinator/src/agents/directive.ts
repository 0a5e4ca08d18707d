import { digestOf, type PolicyDocument } from "@cro/shared/policy/document";
import { fieldsOfDocument } from "@cro/shared/policy/document-fields";
import { type OrphanFact, PROTOCOL_WITH_PROOFS } from "@cro/shared/wire/directive";
import type { Fence } from "@cro/shared/wire/fence";

/** A policy as it travels: its JSON, made once however many agents get it, and the digest that names it. */
export interface SerializedPolicy {
  digest: string;
  json: string;
  /** The members of the document, which an agent must know to be sent it. */
  fields: readonly string[];
  /** The resource that it comes from, `namespace/name`; undefined if it comes from none. */
  name: string | undefined;
}

/** Where an agent is reached and which one it must be. */
export interface AgentAddress {
  node: string;
  /** Tells an agent from every other, before and after it. */
  podUID: string;
  /** `https://10.0.0.7:9810` */
  url: string;
  /** Whether its pod is about to end. It still runs, and so it is still called. */
  isLeaving?: boolean;
}

export interface DirectiveParts {
  fence: Fence;
  address: AgentAddress;
  timeMs: number;
  policy: SerializedPolicy;
  /** Whether the document itself goes along, and not its digest only. */
  withDocument: boolean;
  orphans: readonly OrphanFact[];
  /** The agent's protocol: before the second one it is given no proof, and no name of the policy. */
  protocol: number;
}

export function serializePolicy(document: PolicyDocument, name?: string): SerializedPolicy {
  const json = JSON.stringify(document);
  return { digest: digestOf(json), json, fields: fieldsOfDocument(document), name };
}

/** The JSON of a Directive, put together around the policy's own JSON, which is not made again for each agent. */
export function writeDirective(parts: DirectiveParts): string {
  const { fence, address, timeMs, policy, withDocument, protocol } = parts;
  const isSecond = protocol >= PROTOCOL_WITH_PROOFS;
  const orphans = isSecond ? parts.orphans : [];
  const name = isSecond && policy.name !== undefined ? `,"name":${JSON.stringify(policy.name)}` : "";
  const head = JSON.stringify({
    term: fence.term,
    revision: fence.revision,
    node: address.node,
    podUID: address.podUID,
    time: new Date(timeMs).toISOString(),
  });
  const document = withDocument ? `,"document":${policy.json}` : "";
  return `${head.slice(0, -1)},"policy":{"digest":"${policy.digest}"${name}${document}},"orphans":${JSON.stringify(orphans)}}`;
}
