import { type FieldProblem, formatProblems } from "@cro/shared/policy/compile";

/** A condition of a policy resource, as Kubernetes knows them, without what only the writer of a status knows. */
export interface PolicyCondition {
  type: "Accepted" | "UnitlessQuantity";
  status: "True" | "False";
  reason: string;
  message: string;
}

/** Whether a policy is in force as it stands, and why not. */
export function acceptedCondition(problems: readonly FieldProblem[]): PolicyCondition {
  if (problems.length === 0) {
    return { type: "Accepted", status: "True", reason: "Valid", message: "the policy is in force" };
  }
  const message = formatProblems(problems);
  return { type: "Accepted", status: "False", reason: "Invalid", message };
}

/** Whether sizes were taken as MiB for want of a unit, which of them, and how to write them. */
export function unitlessCondition(unitless: readonly FieldProblem[]): PolicyCondition {
  if (unitless.length === 0) {
    return { type: "UnitlessQuantity", status: "False", reason: "AllHaveUnits", message: "every size has a unit" };
  }
  const message = formatProblems(unitless);
  return { type: "UnitlessQuantity", status: "True", reason: "TakenAsMiB", message };
}
