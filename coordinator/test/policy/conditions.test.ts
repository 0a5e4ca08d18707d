import { describe, expect, it } from "vitest";
import { acceptedCondition, unitlessCondition } from "../../src/policy/conditions.ts";

describe("the conditions of a policy", () => {
  it("accept what has no problem", () => {
    expect(acceptedCondition([])).toMatchObject({ type: "Accepted", status: "True" });
    expect(unitlessCondition([])).toMatchObject({ type: "UnitlessQuantity", status: "False" });
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
    expect(unitlessCondition(problems.slice(0, 1))).toMatchObject({ status: "True", message: "spec.mode: is wrong" });
  });
});
