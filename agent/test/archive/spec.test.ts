import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SpecScan } from "../../src/archive/spec.ts";
import { POD_UID, type Runtime, specBytes } from "../support/archives.ts";
import { readSpec } from "../support/walks.ts";

const RUNTIMES: Runtime[] = ["containerd", "cri-o", "checkpointctl"];
const OWNER = { namespace: "team-prod", pod: "p", container: "web" };
const LABELS = {
  "io.kubernetes.pod.namespace": "team-prod",
  "io.kubernetes.pod.name": "p",
  "io.kubernetes.container.name": "web",
};

const specOf = (annotations: unknown) => readSpec(Buffer.from(JSON.stringify({ annotations })));

describe("what spec.dump tells", () => {
  it.each(RUNTIMES)(
    "is namespace, pod, container and the pod's UID, as %s wrote them, in pieces of any size",
    (runtime) => {
      const bytes = specBytes({ ...OWNER, runtime });
      for (let size = 1; size <= bytes.length; size += 1) {
        const scan = new SpecScan();
        for (let at = 0; at < bytes.length; at += size) scan.take(bytes.subarray(at, at + size));
        expect(scan.facts()).toEqual({ ...OWNER, podUID: POD_UID });
      }
      expect(readSpec(specBytes({ ...OWNER, runtime, podUID: null }))).toEqual(OWNER);
    },
  );

  it.each<[Runtime, Runtime]>([
    ["cri-o", "containerd"],
    ["cri-o", "checkpointctl"],
    ["containerd", "checkpointctl"],
  ])("is what %s wrote alone, whatever there is of %s's keys", (writer, other) => {
    const lie = { namespace: "other", pod: "other-0", container: "x", podUID: "f".repeat(32) };
    const copied = JSON.parse(specBytes({ ...lie, runtime: other }).toString()).annotations;
    expect(readSpec(specBytes({ ...OWNER, runtime: writer, copied }))).toEqual({ ...OWNER, podUID: POD_UID });
    // Nor does the other fill in what the writer left out.
    expect(readSpec(specBytes({ ...OWNER, runtime: writer, copied, podUID: null }))).toEqual(OWNER);
  });

  it("is CRI-O's word as soon as one of its own two keys is there, and then no other's", () => {
    const names = { "io.kubernetes.cri.sandbox-namespace": "shop", "org.criu.checkpoint.pod.name": "web-0" };
    expect(specOf(names)).toEqual({ namespace: "shop" });
    for (const mark of ["io.kubernetes.cri-o.ContainerName", "io.kubernetes.cri-o.Labels"]) {
      for (const value of ["app", "", "{}"]) expect(specOf({ ...names, [mark]: value })).toEqual({});
      expect(specOf({ ...names, [mark]: "x", "io.kubernetes.pod.name": "web-1" })).toEqual({ pod: "web-1" });
    }
  });

  it.each(["sandbox-namespace", "sandbox-name", "container-name", "sandbox-uid"])(
    "is containerd's word as soon as its %s is there, and then no tool's",
    (key) => {
      const tool = JSON.parse(specBytes({ ...OWNER, runtime: "checkpointctl" }).toString()).annotations;
      const facts = specOf({ ...tool, [`io.kubernetes.cri.${key}`]: "x" });
      expect(Object.values(facts)).toEqual(["x"]);
    },
  );

  it("is nothing by the kubelet's labels alone, which anybody may have copied there", () => {
    expect(specOf(LABELS)).toEqual({});
    const annotations = JSON.parse(specBytes(OWNER).toString()).annotations;
    expect(specOf({ ...LABELS, ...annotations })).toEqual({ ...OWNER, podUID: POD_UID });
  });

  it("is read from CRI-O's labels or from the same annotations beside them", () => {
    const labels = JSON.stringify(LABELS);
    const [first = "", ...rest] = Object.keys(LABELS);
    expect(specOf({ "io.kubernetes.cri-o.Labels": labels })).toEqual(OWNER);
    expect(specOf({ "io.kubernetes.cri-o.Labels": "{}", ...LABELS })).toEqual(OWNER);
    const split = JSON.stringify({ [first]: LABELS[first as keyof typeof LABELS] });
    expect(rest).toHaveLength(2);
    expect(specOf({ "io.kubernetes.cri-o.Labels": split, ...LABELS })).toEqual(OWNER);
  });

  it.each([
    ["namespace", "io.kubernetes.pod.namespace"],
    ["pod", "io.kubernetes.pod.name"],
    ["container", "io.kubernetes.container.name"],
    ["podUID", "io.kubernetes.pod.uid"],
  ])("is a conflict where CRI-O's labels and its annotations differ over the %s", (field, key) => {
    const labels = (value: string) => ({ "io.kubernetes.cri-o.Labels": JSON.stringify({ [key]: value }) });
    expect(specOf({ ...labels("a"), [key]: "b" })).toEqual({
      conflict: `spec.dump names two values for ${field}: "b" and "a"`,
    });
    expect(specOf({ ...labels("a"), [key]: "a" })).toEqual({ [field]: "a" });
    expect(specOf({ ...labels(""), [key]: "b" })).toEqual({ [field]: "b" });
  });

  it.each([
    ["nothing", Buffer.alloc(0)],
    ["half a spec", specBytes().subarray(0, 100)],
    ["a compressed spec", gzipSync(specBytes())],
    ["text", Buffer.from("namespace: shop")],
    ["null", Buffer.from("null")],
    ["a string", Buffer.from('"annotations"')],
    ["annotations that are a list", Buffer.from('{"annotations":["io.kubernetes.pod.name"]}')],
    ["annotations that are null", Buffer.from('{"annotations":null}')],
    ["an array of a million levels", Buffer.alloc(1024 * 1024, "[")],
    ["objects of 10,000 levels", Buffer.from(`{"annotations":${'{"a":'.repeat(10_000)}1${"}".repeat(10_000)}}`)],
    [
      "names of other types",
      Buffer.from('{"annotations":{"io.kubernetes.pod.name":{},"io.kubernetes.pod.namespace":1}}'),
    ],
    ["empty names", Buffer.from('{"annotations":{"io.kubernetes.pod.name":""}}')],
    ["labels that cannot be parsed", Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":"{\\"io.kub"}}')],
    [
      "labels that are an object",
      Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":{"io.kubernetes.pod.name":"p"}}}'),
    ],
    [
      "labels that are in a list",
      Buffer.from('{"annotations":{"io.kubernetes.cri-o.Labels":["{\\"io.kubernetes.pod.name\\":\\"p\\"}"]}}'),
    ],
    ["bytes that are not UTF-8", Buffer.from([0xff, 0xfe, 0x7b, 0x7d])],
    ["names in a prototype", Buffer.from('{"annotations":{"__proto__":{"io.kubernetes.pod.name":"p"}}}')],
  ])("reads nobody's name from %s", (_, bytes) => {
    expect(readSpec(bytes)).toEqual({});
  });

  it("looks for keys that stand twice among keys alone, whatever quotes and backslashes strings hold", () => {
    const annotations = { "io.kubernetes.cri.sandbox-name": "web-0" };
    const harmless = ['"annotations": "x"', 'a" : {"annotations', "\\", '\\"', '"\\\\"annotations":', "annotations"];
    for (const args of [...harmless.map((text) => [text]), harmless]) {
      const text = JSON.stringify({ args, annotations, more: args }, null, 1);
      expect([text, readSpec(Buffer.from(text))]).toEqual([text, { pod: "web-0" }]);
    }
    for (const text of harmless) {
      const twice = `{"args":[${JSON.stringify(text)}],"annotations":{},"annotations":${JSON.stringify(annotations)}}`;
      expect(readSpec(Buffer.from(twice))).toEqual({ conflict: 'spec.dump has "annotations" more than once' });
    }
  });

  it.each(["null", "[]", '"none"', "{}"])("finds annotations twice where the last of them are %s", (last) => {
    const spec = `{"annotations":{"io.kubernetes.cri.sandbox-name":"web-0"},"annotations":${last}}`;
    expect(readSpec(Buffer.from(spec))).toEqual({ conflict: 'spec.dump has "annotations" more than once' });
  });

  it("takes what cannot be parsed for saying nothing, even twice", () => {
    const key = '"io.kubernetes.pod.name":"web-0"';
    expect(readSpec(Buffer.from(`{"annotations":{${key},${key}`))).toEqual({});
    const labels = { "io.kubernetes.cri-o.Labels": `{${key},${key}` };
    expect(specOf(labels)).toEqual({});
    expect(readSpec(Buffer.from(`{"annotations":{"annotations`))).toEqual({});
    expect(specOf({ "io.kubernetes.cri-o.Labels": `{${key},${key}}` })).toEqual({
      conflict: 'spec.dump has "io.kubernetes.pod.name" more than once',
    });
  });

  it("never throws", () => {
    const keys = fc.constantFrom(
      "io.kubernetes.pod.name",
      "io.kubernetes.cri-o.Labels",
      "io.kubernetes.cri.sandbox-name",
    );
    fc.assert(fc.property(fc.dictionary(keys, fc.jsonValue()), (annotations) => void specOf(annotations)));
    fc.assert(fc.property(fc.uint8Array(), (bytes) => void readSpec(bytes)));
  });
});
