import { digestOf, type PolicyDocument } from "@cro/shared/policy/document";
import { Directive, REFUSED, type Refusal } from "@cro/shared/wire/directive";
import { compareFences, type Fence } from "@cro/shared/wire/fence";
import { Check, Errors } from "typebox/value";

/** The policy in force, and the directive that put it there. */
export interface AcceptedPolicy {
  fence: Fence;
  digest: string;
  document: PolicyDocument;
  /** The resource that it comes from, `namespace/name`; undefined if it comes from none, or the coordinator does not tell. */
  name?: string | undefined;
  /**
   * When this policy was accepted, by a time that could be trusted, in milliseconds since 1970: ages reached before are no
   * news to it. Undefined while no such time is known.
   */
  acceptedAtTrustedMs?: number | undefined;
}

export type Verdict =
  | { ok: true; directive: Directive; accepted: AcceptedPolicy }
  | { ok: false; status: number; refusal: Refusal };

/**
 * Decides on the body of a directive. It must be well-formed, meant for this very agent, not older than what was last
 * accepted, and its policy must be known or be sent along. What is refused changes nothing.
 */
export function acceptDirective(
  body: unknown,
  context: { node: string; podUID: string; current: AcceptedPolicy | undefined },
): Verdict {
  const { node, podUID, current } = context;
  const refuse = (status: number, refusal: Refusal): Verdict => ({ ok: false, status, refusal });
  if (!Check(Directive, body)) {
    // What does not pass the check has an error.
    const error = Errors(Directive, body)[0] as ReturnType<typeof Errors>[number];
    const field = error.instancePath.split("/").slice(1).join(".");
    const missing = error.keyword === "required" ? error.params.requiredProperties.join(", ") : undefined;
    const path = [field, missing].filter(Boolean).join(".") || "body";
    return refuse(REFUSED.invalid, { error: `${path}: ${error.message}`, field: path });
  }
  if (body.node !== node || body.podUID !== podUID) {
    return refuse(REFUSED.misdirected, {
      error: `this is the agent ${podUID} of node ${node}, the directive is for ${body.podUID} of ${body.node}`,
    });
  }
  const { digest, document, name } = body.policy;
  if (current !== undefined) {
    const { term, revision } = current.fence;
    const order = compareFences(body, current.fence);
    if (order < 0) {
      const error = `term ${body.term} revision ${body.revision} is older than term ${term} revision ${revision}, accepted before`;
      return refuse(REFUSED.older, { error, term, revision });
    }
    if (order === 0 && digest !== current.digest) {
      const error = `term ${term} revision ${revision} was accepted before with another policy`;
      return refuse(REFUSED.older, { error, term, revision });
    }
  }
  const fence = { term: body.term, revision: body.revision };
  const named = name === undefined ? {} : { name };
  if (current?.digest === digest) {
    const { name: _, ...before } = current;
    return { ok: true, directive: body, accepted: { ...before, fence, ...named } };
  }
  if (document === undefined) {
    return refuse(REFUSED.documentNeeded, { error: `the policy ${digest} is not known here; send its document` });
  }
  if (digestOf(JSON.stringify(document)) !== digest) {
    return refuse(REFUSED.invalid, { error: "policy.digest: is not that of policy.document", field: "policy.digest" });
  }
  return { ok: true, directive: body, accepted: { fence, digest, document, ...named } };
}
