import fc from "fast-check";
import { expect, it } from "vitest";
import { path } from "../../src/kube/client.ts";

it("fills each segment in as one, whatever it holds", () => {
  expect(path`/api/v1/namespaces/${"team-a"}/pods/${"web.0"}`).toBe("/api/v1/namespaces/team-a/pods/web.0");
  expect(path`/api/v1/namespaces/${"../pods?watch=true&x="}/pods`).toBe(
    "/api/v1/namespaces/..%2Fpods%3Fwatch%3Dtrue%26x%3D/pods",
  );
  const arbSegment = fc.string({ minLength: 1, unit: "grapheme" }).filter((text) => ![".", ".."].includes(text));
  fc.assert(
    fc.property(arbSegment, arbSegment, (namespace, pod) => {
      const url = new URL(`https://host${path`/api/v1/namespaces/${namespace}/pods/${pod}`}`);
      expect(url.pathname.split("/").map(decodeURIComponent)).toEqual([
        "",
        "api",
        "v1",
        "namespaces",
        namespace,
        "pods",
        pod,
      ]);
      expect(url.search + url.hash).toBe("");
    }),
  );
});

it.each(["", ".", ".."])("refuses a segment that is no name of anything: %j", (segment) => {
  expect(() => path`/api/v1/namespaces/${segment}/pods`).toThrow("not a segment");
});
