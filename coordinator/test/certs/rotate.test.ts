import { randomBytes, X509Certificate } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { soak } from "../../../shared/test/support/soak.ts";
import type { AuthorityFacts, PlaceFacts } from "../../src/certs/facts.ts";
import {
  type CertificateLifetimes,
  createCertificateKeeper,
  planRotation,
  type ReportedCertificates,
  type RotationState,
  type TlsMaterial,
} from "../../src/certs/rotate.ts";
import {
  type CertificateFiles,
  type CertificateName,
  type CertificateStore,
  createFolderStore,
  guardStore,
} from "../../src/certs/store.ts";
import { type End, handshake } from "../support/handshake.ts";

const DAY = 86_400_000;
const NOW = Date.UTC(2030, 0, 1);

/** Facts of an authority that lives 300 days, a third of which are over. */
function anAuthorityFact(name: string, facts: Partial<AuthorityFacts> = {}): AuthorityFacts {
  return { fingerprint: name, notBeforeMs: NOW - 100 * DAY, notAfterMs: NOW + 200 * DAY, pem: name, ...facts };
}

/** A leaf that lives 90 days, a third of which are over. */
function aLeafFact(issuer: string, facts: Partial<NonNullable<PlaceFacts["certificate"]>> = {}) {
  return {
    fingerprint: `leaf of ${issuer}`,
    notBeforeMs: NOW - 30 * DAY,
    notAfterMs: NOW + 60 * DAY,
    issuer,
    ...facts,
  };
}

const A = anAuthorityFact("a");
const B = anAuthorityFact("b");

/** All is well: one authority, both leafs signed by it. */
function aState(state: Partial<RotationState> = {}): RotationState {
  return {
    ca: { certificate: { ...A, issuer: "a" }, bundle: [A] },
    agent: { certificate: aLeafFact("a"), bundle: [A] },
    coordinator: { certificate: aLeafFact("a"), bundle: [A] },
    ...state,
  };
}

/** B signs, A's leafs are still out, and everybody's bundle has both. */
function aTransition(state: Partial<RotationState> = {}): RotationState {
  return {
    ca: { certificate: { ...B, issuer: "b" }, bundle: [B, A] },
    agent: { certificate: aLeafFact("a"), bundle: [B, A] },
    coordinator: { certificate: aLeafFact("a"), bundle: [B, A] },
    ...state,
  };
}

const trusting = (...authorities: string[]): ReportedCertificates => ({
  authorities,
  notAfter: new Date(aLeafFact("a").notAfterMs).toISOString(),
});

describe("planRotation", () => {
  it("does nothing while everything is fresh", () => {
    expect(planRotation(aState(), NOW, [trusting("a")])).toBeUndefined();
    expect(planRotation(aState(), NOW, undefined)).toBeUndefined();
  });

  it("fills empty places, the authority first", () => {
    const empty = { bundle: [] };
    const state = { ca: empty, agent: empty, coordinator: empty };
    expect(planRotation(state, NOW, [])).toEqual({ action: "issueAuthority", trusted: [] });
    expect(planRotation(aState({ agent: empty }), NOW, [])).toEqual({ action: "issueLeaf", name: "agent" });
    expect(planRotation(aState({ coordinator: empty }), NOW, [])).toEqual({ action: "issueLeaf", name: "coordinator" });
  });

  it("replaces a leaf at two thirds of its life, and not before", () => {
    const early = aState({ agent: { certificate: aLeafFact("a", { notBeforeMs: NOW - 119 * DAY }), bundle: [A] } });
    const due = aState({ agent: { certificate: aLeafFact("a", { notBeforeMs: NOW - 120 * DAY }), bundle: [A] } });
    expect(planRotation(early, NOW, [])).toBeUndefined();
    expect(planRotation(due, NOW, [])).toEqual({ action: "issueLeaf", name: "agent" });
  });

  it("leaves the authority alone before two thirds of its life", () => {
    const young = anAuthorityFact("a", { notBeforeMs: NOW - 399 * DAY });
    const state = aState({ ca: { certificate: { ...young, issuer: "a" }, bundle: [young] } });
    expect(planRotation(state, NOW, [])).toBeUndefined();
  });

  it("replaces the authority at two thirds of its life, and trusts the old one on", () => {
    const old = anAuthorityFact("a", { notBeforeMs: NOW - 400 * DAY });
    const ca = { certificate: { ...old, issuer: "a" }, bundle: [old] };
    const leaf = { certificate: aLeafFact("a"), bundle: [old] };
    expect(planRotation({ ca, agent: leaf, coordinator: leaf }, NOW, [])).toEqual({
      action: "issueAuthority",
      trusted: [old],
    });
  });

  it("trusts on whom the leafs trust where the authority itself is lost, but nobody who has expired", () => {
    const expired = anAuthorityFact("e", { notAfterMs: NOW });
    const state = aState({ ca: { bundle: [] }, agent: { certificate: aLeafFact("a"), bundle: [A, expired] } });
    expect(planRotation(state, NOW, [])).toEqual({ action: "issueAuthority", trusted: [A] });
  });

  it("lets everybody trust the new authority before anything else", () => {
    const state = aTransition({ agent: { certificate: aLeafFact("a"), bundle: [A] } });
    expect(planRotation(state, NOW, [trusting("a", "b")])).toEqual({ action: "writeBundle", name: "agent" });
    const next = aTransition({ coordinator: { certificate: aLeafFact("a"), bundle: [A] } });
    expect(planRotation(next, NOW, [trusting("a", "b")])).toEqual({ action: "writeBundle", name: "coordinator" });
  });

  it("changes no leaf over until every agent says that it trusts the new authority", () => {
    for (const reported of [undefined, [undefined], [trusting("a")], [trusting("a", "b"), trusting("a")]]) {
      expect(planRotation(aTransition(), NOW, reported)).toBeUndefined();
    }
    const all = [trusting("a", "b"), trusting("B", "A")];
    expect(planRotation(aTransition(), NOW, all)).toEqual({ action: "issueLeaf", name: "agent" });
    expect(planRotation(aTransition(), NOW, [])).toEqual({ action: "issueLeaf", name: "agent" });
  });

  it("waits for a silent agent until five sixths of the leaf's life, no longer", () => {
    const leaf = (notBeforeMs: number) =>
      aTransition({ coordinator: { certificate: aLeafFact("a", { notBeforeMs }), bundle: [B, A] } });
    expect(planRotation(leaf(NOW - 299 * DAY), NOW, [undefined])).toBeUndefined();
    expect(planRotation(leaf(NOW - 300 * DAY), NOW, [undefined])).toEqual({ action: "issueLeaf", name: "coordinator" });
  });

  it("forgets the old authority only when every agent shows the new leaf", () => {
    const state = aTransition({
      agent: { certificate: aLeafFact("b", { notAfterMs: NOW + 70 * DAY }), bundle: [B, A] },
      coordinator: { certificate: aLeafFact("b"), bundle: [B, A] },
    });
    const showsOld = trusting("a", "b");
    const showsNew = { authorities: ["a", "b"], notAfter: new Date(NOW + 70 * DAY).toISOString() };
    for (const reported of [undefined, [undefined], [showsOld], [showsNew, showsOld]]) {
      expect(planRotation(state, NOW, reported)).toBeUndefined();
    }
    expect(planRotation(state, NOW, [showsNew, showsNew])).toEqual({ action: "writeAuthorities", trusted: [] });
  });

  it("keeps the old authority while a leaf of it is in its place, whatever agents say", () => {
    const state = aTransition({ agent: { certificate: aLeafFact("b"), bundle: [B, A] } });
    const showsNew = { authorities: ["a"], notAfter: new Date(aLeafFact("b").notAfterMs).toISOString() };
    expect(planRotation(state, NOW, [showsNew])).toBeUndefined();
  });

  it("forgets an expired authority in any case, and issues its leafs anew", () => {
    const gone = anAuthorityFact("a", { notAfterMs: NOW - 1 });
    const state = aTransition({ ca: { certificate: { ...B, issuer: "b" }, bundle: [B, gone] } });
    expect(planRotation(state, NOW, [undefined])).toEqual({ action: "issueLeaf", name: "agent" });
    const reissued = aTransition({
      ca: { certificate: { ...B, issuer: "b" }, bundle: [B, gone] },
      agent: { certificate: aLeafFact("b"), bundle: [B, gone] },
      coordinator: { certificate: aLeafFact("b"), bundle: [B, gone] },
    });
    expect(planRotation(reissued, NOW, [undefined])).toEqual({ action: "writeAuthorities", trusted: [] });
  });

  it("issues anew what is not valid yet, as after a clock that was ahead", () => {
    const future = { notBeforeMs: NOW + DAY };
    expect(planRotation(aState({ agent: { certificate: aLeafFact("a", future), bundle: [A] } }), NOW, [])).toEqual({
      action: "issueLeaf",
      name: "agent",
    });
    const ahead = anAuthorityFact("a", future);
    const state = aState({ ca: { certificate: { ...ahead, issuer: "a" }, bundle: [ahead] } });
    expect(planRotation(state, NOW, [])?.action).toBe("issueAuthority");
  });

  it("adds an authority that its own bundle lacks", () => {
    const state = aState({ ca: { certificate: { ...A, issuer: "a" }, bundle: [B] } });
    expect(planRotation(state, NOW, [])).toEqual({ action: "writeAuthorities", trusted: [B] });
  });
});

const LIFETIMES: CertificateLifetimes = { authorityMs: 60 * DAY, leafMs: 30 * DAY };

function aKeeper(store: CertificateStore, options: Partial<Parameters<typeof createCertificateKeeper>[0]> = {}) {
  const seen: { material: TlsMaterial | undefined; expiry: Map<CertificateName, number> } = {
    material: undefined,
    expiry: new Map(),
  };
  const keeper = createCertificateKeeper({
    store,
    lifetimes: LIFETIMES,
    now: Date.now,
    randomBytes,
    reported: () => [],
    onMaterial: (material) => {
      seen.material = material;
    },
    onExpiry: (name, notAfterMs) => seen.expiry.set(name, notAfterMs),
    log: { info: () => {} },
    ...options,
  });
  return { keeper, seen };
}

async function withFolder<T>(run: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "rotate-"));
  try {
    return await run(directory);
  } finally {
    await rm(directory, { recursive: true });
  }
}

function toEnd(files: CertificateFiles): End {
  return {
    certificate: files["tls.crt"] ?? "",
    key: files["tls.key"] ?? "",
    authority: files["ca.crt"] ?? "",
  };
}

function report({ certificate, authority }: End): ReportedCertificates {
  const pems = authority.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? [];
  return {
    authorities: pems.map((pem) => new X509Certificate(pem).fingerprint256.replaceAll(":", "").toLowerCase()),
    notAfter: new X509Certificate(certificate).validToDate.toISOString(),
  };
}

describe("createCertificateKeeper", () => {
  it("fills empty places so that the two sides can talk, and then leaves them alone", () =>
    withFolder(async (directory) => {
      const store = createFolderStore(directory);
      const { keeper, seen } = aKeeper(store);
      await keeper.refresh();
      const agent = await store.read("agent");
      const coordinator = await store.read("coordinator");
      expect(await handshake(toEnd(agent.files), toEnd(coordinator.files))).toBeUndefined();
      expect(seen.material).toEqual(toEnd(coordinator.files));
      expect([...seen.expiry.keys()]).toEqual(["ca", "agent", "coordinator"]);
      await keeper.refresh();
      expect(await store.read("agent")).toEqual(agent);
      expect(await store.read("coordinator")).toEqual(coordinator);
    }));

  it("fills the places once when several replicas start at the same moment", () =>
    withFolder(async (directory) => {
      const replicas = Array.from({ length: 4 }, () => aKeeper(createFolderStore(directory)));
      await Promise.all(replicas.map(({ keeper }) => keeper.refresh()));
      const store = createFolderStore(directory);
      const places = [await store.read("ca"), await store.read("agent"), await store.read("coordinator")];
      expect(places.map(({ version }) => version)).toEqual(["1", "1", "1"]);
      for (const { seen } of replicas) expect(seen.material).toEqual(toEnd(places[2]?.files ?? {}));
    }));

  it.each([
    ["garbage instead of a certificate", { "tls.crt": "garbage" }],
    ["another certificate's key", { "tls.key": "other" }],
    ["nothing at all", { "tls.crt": "", "tls.key": "" }],
  ])("replaces a leaf that is unreadable: %s", (_, damage) =>
    withFolder(async (directory) => {
      const store = createFolderStore(directory);
      await aKeeper(store).keeper.refresh();
      const { files, version } = await store.read("agent");
      const otherKey = (await store.read("coordinator")).files["tls.key"] ?? "";
      const damaged = {
        ...files,
        ...damage,
        ...("tls.key" in damage && damage["tls.key"] === "other" ? { "tls.key": otherKey } : {}),
      };
      expect(await store.write("agent", damaged as Record<string, string>, version)).toBe(true);
      await aKeeper(store).keeper.refresh();
      const agent = toEnd((await store.read("agent")).files);
      expect(await handshake(agent, toEnd((await store.read("coordinator")).files))).toBeUndefined();
    }),
  );

  it("replaces a leaf that is the other side's", () =>
    withFolder(async (directory) => {
      const store = createFolderStore(directory);
      await aKeeper(store).keeper.refresh();
      const { version } = await store.read("agent");
      await store.write("agent", (await store.read("coordinator")).files as Record<string, string>, version);
      await aKeeper(store).keeper.refresh();
      const agent = toEnd((await store.read("agent")).files);
      expect(await handshake(agent, toEnd((await store.read("coordinator")).files))).toBeUndefined();
    }));

  it("writes nothing where a place cannot be read", async () => {
    const written: string[] = [];
    const store: CertificateStore = {
      read: (name) =>
        name === "ca" ? Promise.reject(new Error("server down")) : Promise.resolve({ files: {}, version: "" }),
      write: async (name) => {
        written.push(name);
        return true;
      },
    };
    await expect(aKeeper(store).keeper.refresh()).rejects.toThrow("server down");
    expect(written).toEqual([]);
  });

  it("ends at once, without a write, when the leadership that it works for ends during a step", async () => {
    const calls: string[] = [];
    let isLeading = true;
    const store: CertificateStore = {
      read: async (name) => {
        calls.push(`read ${name}`);
        if (calls.length === 3) isLeading = false;
        return { files: {}, version: "" };
      },
      write: async (name) => {
        calls.push(`write ${name}`);
        return true;
      },
    };
    const { keeper } = aKeeper(guardStore(store, () => isLeading));
    await expect(keeper.refresh()).rejects.toThrow("no longer the leader");
    expect(calls).toEqual(["read ca", "read agent", "read coordinator"]);
    await expect(keeper.refresh()).rejects.toThrow("no longer the leader");
    expect(calls.length).toBe(3);
  });

  it("gives up, and says so, where what it writes does not stay", async () => {
    const store: CertificateStore = {
      read: () => Promise.resolve({ files: {}, version: "" }),
      write: () => Promise.resolve(true),
    };
    await expect(aKeeper(store).keeper.refresh()).rejects.toThrow(/did not settle/);
  });

  /**
   * The clock runs from the past up to now, so that everything that is in use around the authority's rotation is valid
   * now, when the connections are made: the authority is 40 of its 60 days old, the leafs 20 of their 30.
   */
  it("never parts any agent from the coordinator while the authority is rotated, however slow each of them is", async () => {
    const arbEvents = fc.array(fc.nat({ max: 8 }), { minLength: 0, maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(arbEvents, async (events) => {
        const results = new Map<string, Promise<string | undefined>>();
        const talk = (agent: End, coordinator: End) => {
          const key = [agent.certificate, agent.authority, coordinator.certificate, coordinator.authority].join();
          let result = results.get(key);
          if (result === undefined) {
            result = handshake(agent, coordinator);
            results.set(key, result);
          }
          return result;
        };
        let now = Date.now() - 40 * DAY - 60_000;
        const places = new Map<CertificateName, { files: CertificateFiles; version: string }>();
        const read = (name: CertificateName) => places.get(name) ?? { files: {}, version: "0" };
        const held: { agents: End[]; reported: ReportedCertificates[] } = { agents: [], reported: [] };

        async function check(): Promise<void> {
          if (held.agents.length === 0 || seen.material === undefined) return;
          const agents = [...held.agents, toEnd(read("agent").files)];
          const coordinators = [seen.material, toEnd(read("coordinator").files)];
          for (const agent of agents) {
            for (const coordinator of coordinators) expect(await talk(agent, coordinator)).toBeUndefined();
          }
        }
        const store: CertificateStore = {
          read: async (name) => read(name),
          async write(name, files, version) {
            expect(version).toBe(read(name).version);
            places.set(name, { files, version: String(Number(version) + 1) });
            await check();
            return true;
          },
        };
        const { keeper, seen } = aKeeper(store, { now: () => now, reported: () => held.reported });
        const reload = (i: number) => {
          held.agents[i] = toEnd(read("agent").files);
        };
        const tell = (i: number) => {
          held.reported[i] = report(held.agents[i] as End);
        };

        await keeper.refresh();
        const first = seen.material?.authority ?? "";
        now += 20 * DAY;
        await keeper.refresh();
        for (const i of [0, 1, 2]) {
          reload(i);
          tell(i);
        }
        now = Date.now() - 30_000;
        const act = async (event: number) => {
          if (event < 3) reload(event);
          else if (event < 6) tell(event - 3);
          else await keeper.refresh();
          await check();
        };
        await act(6);
        for (const event of events) await act(event);
        for (let round = 0; round < 4; round++) for (let event = 0; event < 7; event++) await act(event);

        const end = read("ca").files;
        expect(end["ca.crt"]).toBe(end["tls.crt"]);
        expect(end["ca.crt"]).not.toBe(first);
        for (const agent of held.agents) expect(agent.authority).toBe(end["ca.crt"]);
        expect(seen.material?.authority).toBe(end["ca.crt"]);
      }),
      { numRuns: soak(25) },
    );
  });
});
