import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createFolderStore } from "../../src/certs/store.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "store-"));
});
afterEach(() => rm(directory, { recursive: true }));

const files = (text: string) => ({ "tls.crt": `${text} crt`, "tls.key": `${text} key`, "ca.crt": `${text} ca` });

describe("createFolderStore", () => {
  it("has nothing in a place that nobody filled", async () => {
    const store = createFolderStore(join(directory, "not", "there"));
    expect((await store.read("agent")).files).toEqual({});
  });

  it("yields what was written, and lets anyone read it by the names of a Secret's files", async () => {
    const store = createFolderStore(directory);
    expect(await store.write("agent", files("a"), (await store.read("agent")).version)).toBe(true);
    expect((await store.read("agent")).files).toEqual(files("a"));
    expect(await readFile(join(directory, "agent", "tls.key"), "utf8")).toBe("a key");
    expect((await store.read("coordinator")).files).toEqual({});
  });

  it("keeps keys from everyone else", async () => {
    const store = createFolderStore(directory);
    await store.write("ca", files("a"), (await store.read("ca")).version);
    expect((await stat(join(directory, "ca"))).mode & 0o077).toBe(0);
    expect((await stat(join(directory, "ca", "tls.key"))).mode & 0o777).toBe(0o600);
  });

  it("refuses a write on top of a version that is no longer the newest", async () => {
    const store = createFolderStore(directory);
    const { version } = await store.read("ca");
    expect(await store.write("ca", files("a"), version)).toBe(true);
    expect(await store.write("ca", files("b"), version)).toBe(false);
    const second = await store.read("ca");
    expect(await store.write("ca", files("c"), second.version)).toBe(true);
    expect(await store.write("ca", files("d"), (await store.read("ca")).version)).toBe(true);
    expect(await store.write("ca", files("e"), version)).toBe(false);
    expect((await store.read("ca")).files).toEqual(files("d"));
  });

  it("lets exactly one of many simultaneous writers through", async () => {
    for (let round = 0; round < 10; round++) {
      const stores = Array.from({ length: 8 }, () => createFolderStore(directory));
      const read = await Promise.all(stores.map((store) => store.read("ca")));
      const written = await Promise.all(
        stores.map((store, i) => store.write("ca", files(`w${i}`), read[i]?.version ?? "")),
      );
      expect(written.filter((ok) => ok)).toHaveLength(1);
      const winner = written.indexOf(true);
      expect((await createFolderStore(directory).read("ca")).files).toEqual(files(`w${winner}`));
      expect(await readFile(join(directory, "ca", "tls.crt"), "utf8")).toBe(`w${winner} crt`);
    }
  });

  it("never shows a reader the certificate of one generation and the key of another", async () => {
    const store = createFolderStore(directory);
    await store.write("agent", files("g0"), (await store.read("agent")).version);
    let isDone = false;
    const writing = (async () => {
      for (let n = 1; n <= 30; n++) await store.write("agent", files(`g${n}`), (await store.read("agent")).version);
      isDone = true;
    })();
    while (!isDone) {
      const { files: seen } = await createFolderStore(directory).read("agent");
      expect(seen).toEqual(files(seen["tls.crt"]?.split(" ")[0] ?? ""));
    }
    await writing;
  });

  it("publishes what a writer that was killed half-way had already settled", async () => {
    const store = createFolderStore(directory);
    await store.write("agent", files("a"), (await store.read("agent")).version);
    const killed = join(directory, "agent", "..v2");
    await mkdir(killed);
    for (const [name, text] of Object.entries(files("b"))) await writeFile(join(killed, name), text);
    expect((await store.read("agent")).files).toEqual(files("b"));
    expect(await readFile(join(directory, "agent", "tls.crt"), "utf8")).toBe("b crt");
  });

  it("does not pile up old generations, nor drafts", async () => {
    const store = createFolderStore(directory);
    for (let n = 0; n < 5; n++) await store.write("agent", files(`${n}`), (await store.read("agent")).version);
    expect((await readdir(join(directory, "agent"))).sort()).toEqual([
      "..data",
      "..v4",
      "..v5",
      "ca.crt",
      "tls.crt",
      "tls.key",
    ]);
  });

  it("takes plain files that somebody put there as the first content", async () => {
    await mkdir(join(directory, "ca"));
    await writeFile(join(directory, "ca", "tls.crt"), "theirs");
    const store = createFolderStore(directory);
    const { files: found, version } = await store.read("ca");
    expect(found).toEqual({ "tls.crt": "theirs" });
    expect(await store.write("ca", files("a"), version)).toBe(true);
    expect((await store.read("ca")).files).toEqual(files("a"));
  });

  it("rejects, and does not say that a place is empty, where it cannot be read", async () => {
    await mkdir(join(directory, "ca"));
    await symlink("tls.crt", join(directory, "ca", "tls.crt"));
    await expect(createFolderStore(directory).read("ca")).rejects.toThrow(/ELOOP/);
  });
});
