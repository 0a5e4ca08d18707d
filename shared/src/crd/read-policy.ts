import { isObject } from "../is-object.ts";
import { type CompiledPolicy, type CompileOptions, compilePolicy, type FieldProblem } from "../policy/compile.ts";
import { readKubernetesYaml } from "./kubernetes-yaml.ts";
import { POLICY_API_VERSION, POLICY_KIND } from "./schema.ts";

export type ReadPolicyResult = { ok: true; policy: CompiledPolicy } | { ok: false; problems: FieldProblem[] };

/**
 * Reads the YAML (or JSON) of exactly one policy resource, as `kubectl apply` takes it, or of a list that holds just one,
 * as `kubectl get -o yaml` writes it. Bad YAML, another kind, a second resource and every problem of the spec are returned
 * as problems; a problem of the file as a whole has an empty field.
 */
export function readPolicy(text: string, options?: CompileOptions): ReadPolicyResult {
  const read = readKubernetesYaml(text);
  if (!read.ok) return refuse("", `is not YAML: ${read.problem}`);
  const resources = read.documents.flatMap(itemsOf);
  if (resources.length !== 1) {
    return refuse("", `holds ${resources.length} resources; exactly one ${POLICY_KIND} is wanted`);
  }
  const resource = resources[0];
  if (!isObject(resource)) {
    return refuse("", `holds no Kubernetes resource; it begins with apiVersion: ${POLICY_API_VERSION}`);
  }
  const { apiVersion, kind, spec, ...rest } = resource;
  if (apiVersion !== POLICY_API_VERSION) {
    return refuse("apiVersion", `${JSON.stringify(apiVersion) ?? "missing"} is not ${POLICY_API_VERSION}`);
  }
  if (kind !== POLICY_KIND) return refuse("kind", `${JSON.stringify(kind) ?? "missing"} is not ${POLICY_KIND}`);
  const unknown = Object.keys(rest).find((key) => key !== "metadata" && key !== "status");
  if (unknown !== undefined) return refuse(unknown, "does not exist; policy fields stand under spec");
  return compilePolicy(spec ?? {}, options);
}

/** What a list holds: `v1` List is what kubectl writes, the kind's own List what the API server answers. */
function itemsOf(resource: unknown): unknown[] {
  if (!isObject(resource) || !Array.isArray(resource.items)) return [resource];
  const { apiVersion, kind, items } = resource;
  const isList =
    (apiVersion === "v1" && kind === "List") || (apiVersion === POLICY_API_VERSION && kind === `${POLICY_KIND}List`);
  return isList ? items : [resource];
}

function refuse(field: string, message: string): ReadPolicyResult {
  return { ok: false, problems: [{ field, message }] };
}
