import type { Policy } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import { expect, it } from "vitest";
import { scopesOf } from "../../src/retention/scope.ts";
import { aPolicy } from "./builders.ts";

const main = { namespace: "shop", pod: "web", container: "main" };

it.each([
  ["container", { containerPolicies: [main] }, ["shop/web/main"]],
  ["pod", { podPolicies: [{ namespace: "shop", pod: "web" }] }, ["shop/web"]],
  ["namespace", { namespacePolicies: [{ namespace: "shop" }] }, ["shop"]],
  ["global", {}, ["shop/web/main", "shop/web", "shop"]],
])("an archive that a %s policy governs counts in the scopes of that policy alone", (level, spec, scopes) => {
  const policy: Policy = createGovernor(aPolicy(spec))(main);
  expect(policy.level).toBe(level);
  expect(scopesOf(policy, main)).toEqual(scopes);
});
