import { describe, expect, it } from "vitest";
import type { KubeClient, KubeRequest, KubeResult } from "../../src/kube/client.ts";
import { MEMO_ANNOTATION, MEMO_TERM_ANNOTATION, readLease, TERM_ANNOTATION } from "../../src/leader/lease.ts";

/** Reads a Lease with these annotations; tells what was asked for, too. */
async function read(annotations: Record<string, string>, reference = { namespace: "n", name: "leader" }) {
  const paths: string[] = [];
  const client: KubeClient = {
    async request<T>({ path }: KubeRequest) {
      paths.push(path);
      const metadata = { name: "leader", uid: "u", resourceVersion: "1", annotations };
      return { ok: true, value: { metadata } } as KubeResult<T>;
    },
    stream: () => Promise.reject(new Error("nothing is watched here")),
    close: async () => {},
  };
  const answer = await readLease(client, reference, { timeoutMs: 1, defaultDurationMs: 15_000 });
  return { term: answer.ok ? answer.value.term : undefined, memo: answer.ok ? answer.value.memo : "no Lease", paths };
}

describe("the term of a Lease", () => {
  it.each([
    ["7", 7],
    [String(2 ** 52), 2 ** 52],
    [String(2 ** 52 + 1), 0],
    [String(Number.MAX_SAFE_INTEGER), 0],
    ["1e300", 0],
    ["-1", 0],
    ["1.5", 0],
    ["many", 0],
  ])("written as %j is %d", async (text, term) => {
    expect((await read({ [TERM_ANNOTATION]: text })).term).toBe(term);
  });

  it("is 0 where none is written, and read from the very Lease that is named", async () => {
    expect(await read({}, { namespace: "a/b", name: "?x" })).toEqual({
      term: 0,
      memo: undefined,
      paths: ["/apis/coordination.k8s.io/v1/namespaces/a%2Fb/leases/%3Fx"],
    });
  });
});

describe("what a leader left on a Lease", () => {
  const term = { [TERM_ANNOTATION]: "7" };
  const memoTerm = { [MEMO_TERM_ANNOTATION]: "7" };
  const memo = { [MEMO_ANNOTATION]: "text" };

  it.each<[string, Record<string, string>, string | undefined]>([
    ["is nothing where nobody has led", {}, undefined],
    ["is the text of the present term", { ...term, ...memoTerm, ...memo }, "text"],
    [
      "is nothing while the first leader has left nothing",
      { ...term, ...memoTerm, [MEMO_ANNOTATION]: "none" },
      undefined,
    ],
    ["is lost if a leader of version 0.1.0 led", term, ""],
    ["is lost if one led after it", { ...term, [MEMO_TERM_ANNOTATION]: "6", ...memo }, ""],
    ["is lost if the text was removed", { ...term, ...memoTerm }, ""],
    ["is lost if the term was removed", { ...memoTerm, ...memo }, ""],
    ["is lost if both terms were removed", memo, ""],
  ])("%s", async (_, annotations, expected) => {
    expect((await read(annotations)).memo).toBe(expected);
  });
});
