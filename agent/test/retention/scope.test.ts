import type { Policy } from "@cro/shared/policy/document";
import { createGovernor } from "@cro/shared/policy/govern";
import { expect, it } from "vitest";
import { scopesOf } from "../../src/retention/scope.ts";
import { aPolicy } from "./builders.ts";

const pod = "web-6f9f8977b7-w28kl";
const main = { namespace: "shop", pod, container: "main" };
const deployment = { namespace: "shop", kind: "Deployment", name: "web" };

it.each([
  ["container", { containerPolicies: [main] }, [`shop/${pod}/main`]],
  ["pod", { podPolicies: [{ namespace: "shop", pod }] }, [`shop/${pod}`]],
  ["workload", { workloadPolicies: [deployment] }, ["shop//Deployment/web"]],
  ["workload", { workloadPolicies: [{ ...deployment, container: "m*" }] }, ["shop//Deployment/web/m*"]],
  ["namespace", { namespacePolicies: [{ namespace: "shop" }] }, ["shop"]],
  ["global", {}, [`shop/${pod}/main`, `shop/${pod}`, "shop"]],
])("an archive that a %s policy governs counts in the scopes of that policy alone", (level, spec, scopes) => {
  const policy: Policy = createGovernor(aPolicy(spec))(main);
  expect(policy.level).toBe(level);
  expect(scopesOf(policy, main)).toEqual(scopes);
});
