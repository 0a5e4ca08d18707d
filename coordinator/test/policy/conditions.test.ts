import { describe, expect, it } from "vitest";
import { acceptedCondition, unitlessCondition } from "../../src/policy/conditions.ts";

describe("the conditions of a policy", () => {
  it("accept what has no problem", () => {
    expect(acceptedCondition([])).toEqual({
      type: "Accepted",
      status: "True",
      reason: "Valid",
      message: "the policy is in force",
    });
    expect(unitlessCondition([])).toEqual({
      type: "UnitlessQuantity",
      status: "False",
      reason: "AllHaveUnits",
      message: "every size has a unit",
    });
  });

  it("name every field and what is wrong with it", () => {
    const problems = [
      { field: "spec.mode", message: "is wrong" },
      { field: "", message: "cannot be read" },
    ];
    expect(acceptedCondition(problems)).toEqual({
      type: "Accepted",
      status: "False",
      reason: "Invalid",
      message: "spec.mode: is wrong; cannot be read",
    });
    expect(unitlessCondition(problems.slice(0, 1))).toEqual({
      type: "UnitlessQuantity",
      status: "True",
      reason: "TakenAsMiB",
      message: "spec.mode: is wrong",
    });
  });
});
