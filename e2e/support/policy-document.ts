import { compilePolicy } from "@cro/shared/policy/compile";
import type { PolicyDocument } from "@cro/shared/policy/document";

/** What a policy's spec, which must be a valid one, compiles to. */
export function policyDocument(spec: unknown): PolicyDocument {
  const compiled = compilePolicy(spec);
  if (!compiled.ok) throw new Error(JSON.stringify(compiled.problems));
  return compiled.policy.document;
}
