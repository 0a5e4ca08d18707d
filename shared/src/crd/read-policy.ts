import { type CompiledPolicy, compilePolicy, type FieldProblem } from "../policy/compile.ts";
import { readKubernetesYaml } from "./kubernetes-yaml.ts";
import { POLICY_API_VERSION, POLICY_KIND } from "./schema.ts";

export type ReadPolicyResult = { ok: true; policy: CompiledPolicy } | { ok: false; problems: FieldProblem[] };

/**
 * Reads the YAML (or JSON) of exactly one policy resource, as `kubectl apply` takes it. Bad YAML, another kind, a second
 * resource and every problem of the spec are returned as problems; a problem of the file as a whole has an empty field.
 */
export function readPolicy(text: string): ReadPolicyResult {
  const read = readKubernetesYaml(text);
  if (!read.ok) return refuse("", `is not YAML: ${read.problem}`);
  const { documents: resources } = read;
  if (resources.length !== 1) {
    return refuse("", `holds ${resources.length} resources; exactly one ${POLICY_KIND} is wanted`);
  }
  const resource = resources[0];
  if (typeof resource !== "object" || resource === null || Array.isArray(resource)) {
    return refuse("", `holds no Kubernetes resource; it begins with apiVersion: ${POLICY_API_VERSION}`);
  }
  const { apiVersion, kind, spec, ...rest } = resource as Record<string, unknown>;
  if (apiVersion !== POLICY_API_VERSION) {
    return refuse("apiVersion", `${JSON.stringify(apiVersion) ?? "missing"} is not ${POLICY_API_VERSION}`);
  }
  if (kind !== POLICY_KIND) return refuse("kind", `${JSON.stringify(kind) ?? "missing"} is not ${POLICY_KIND}`);
  const unknown = Object.keys(rest).find((key) => key !== "metadata" && key !== "status");
  if (unknown !== undefined) return refuse(unknown, "does not exist; policy fields stand under spec");
  return compilePolicy(spec ?? {});
}

function refuse(field: string, message: string): ReadPolicyResult {
  return { ok: false, problems: [{ field, message }] };
}
