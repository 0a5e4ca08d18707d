import { beforeAll, expect, it } from "vitest";
import { archivesIn, archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { chartRules, installRelease } from "../support/cluster.ts";
import { createNamespace, createPod, describeWithKube, installPolicyDefinition } from "../support/kube.ts";
import { until } from "../support/processes.ts";
import { series } from "../support/standalone.ts";

interface Rule {
  apiGroups: string[];
  resources: string[];
  resourceNames?: string[];
  verbs: string[];
}

/** `verb group/resource[/subresource] [name]` for every right that rules give. */
function rightsOf(rules: Rule[]): string[] {
  return rules.flatMap(({ apiGroups, resources, resourceNames = [""], verbs }) =>
    apiGroups.flatMap((group) =>
      resources.flatMap((resource) =>
        resourceNames.flatMap((name) => verbs.map((verb) => `${verb} ${group}/${resource} ${name}`.trim())),
      ),
    ),
  );
}

/** The right that a request needs, in the same words (kubernetes.io/docs/reference/access-authn-authz/authorization). */
function rightFor(request: string): string {
  const [method = "", url = ""] = request.split(" ");
  const { pathname, searchParams } = new URL(url, "https://api");
  const parts = pathname.split("/").filter(Boolean);
  const group = parts[0] === "api" ? "" : (parts[1] ?? "");
  let rest = parts.slice(parts[0] === "api" ? 2 : 3);
  if (rest[0] === "namespaces" && rest.length > 2) rest = rest.slice(2);
  const [resource = "", name = "", subresource] = rest;
  const isWatch = searchParams.get("watch") === "true" || searchParams.get("watch") === "1";
  const verb =
    method === "GET"
      ? name !== ""
        ? "get"
        : isWatch
          ? "watch"
          : "list"
      : method === "POST"
        ? "create"
        : method.toLowerCase();
  const isByName = resource === "leases" || resource === "secrets";
  return `${verb} ${group}/${resource}${subresource ? `/${subresource}` : ""} ${isByName ? name : ""}`.trim();
}

describeWithKube("the coordinator's rights", (kube) => {
  beforeAll(() => installPolicyDefinition(kube.client), 60_000);

  it("are exactly the chart's: with them all works, and each one of them is used", async () => {
    const release = await installRelease(kube, { nodes: 1 });
    const directory = release.nodes[0]?.directory ?? "";
    const tenant = await createNamespace(kube.client, "rights");
    await createPod(kube.client, { namespace: tenant, name: "lives" });
    const coordinator = release.startCoordinator();
    await release.apply("policy", {
      ...{ applyPoliciesImmediately: true, orphanGracePeriod: "1s" },
      globalPolicy: { maxCheckpointsPerContainer: 2 },
      namespacePolicies: [{ namespace: tenant, retainOrphan: false }],
    });
    const gone = writeArchive(directory, {
      namespace: tenant,
      pod: "gone",
      container: "c",
      time: archiveTime(Date.now() - 3_600_000),
    });
    series(directory, 4);
    await until(() => expect(archivesIn(directory)).toHaveLength(2), 60_000);
    expect(archivesIn(directory)).not.toContain(gone);
    await until(async () => expect((await release.status("policy")).nodes?.applied).toBe(1), 30_000);
    await until(async () => expect((await release.events()).length).toBeGreaterThan(0), 60_000);
    // So many that whether their namespace is gone must be known.
    const mtimeMs = Date.now() - 3_600_000;
    for (let at = 0; at < 12; at += 1) {
      const pod = `gone-${at}`;
      writeArchive(directory, { namespace: tenant, pod, container: "c", time: archiveTime(mtimeMs), mtimeMs });
    }
    await until(() => expect(release.proxy.requests.map(rightFor)).toContain("get /namespaces"), 60_000);

    const given = [
      ...rightsOf(chartRules("coordinator-cluster-role") as Rule[]),
      ...rightsOf(chartRules("coordinator-role") as Rule[]),
    ];
    const used = new Set(release.proxy.requests.map(rightFor));
    expect([...used].sort()).toEqual([...new Set(given)].sort());
    const refused = coordinator.log().filter((line) => /forbidden/i.test(JSON.stringify(line)));
    expect(refused).toEqual([]);
  }, 150_000);
});
