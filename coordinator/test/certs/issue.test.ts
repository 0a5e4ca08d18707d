import { X509Certificate } from "node:crypto";
import { describe, expect, it } from "vitest";
import { issueAuthority } from "../../src/certs/issue.ts";
import { AGENT_DNS_NAME, aLeaf, anAuthority, COORDINATOR_DNS_NAME, issueOptions } from "../support/certificates.ts";
import { handshake, REFUSED_BY_AGENT } from "../support/handshake.ts";

const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";
const CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";

describe("issueAuthority", () => {
  it("makes a certificate that may sign others, and a PKCS #8 key", async () => {
    const authority = await anAuthority();
    const certificate = new X509Certificate(authority.certificate);
    expect(certificate.ca).toBe(true);
    expect(certificate.checkIssued(certificate) && certificate.verify(certificate.publicKey)).toBe(true);
    expect(authority.key).toMatch(/^-----BEGIN PRIVATE KEY-----/);
  });

  it("begins at most five minutes back, and a tenth of its life where that is less", async () => {
    const nowMs = Date.UTC(2030, 0, 1);
    const long = new X509Certificate((await anAuthority({ nowMs, lifetimeMs: 86_400_000 })).certificate);
    expect(long.validFromDate.getTime()).toBe(nowMs - 300_000);
    expect(long.validToDate.getTime()).toBe(nowMs + 86_400_000);
    const short = new X509Certificate((await anAuthority({ nowMs, lifetimeMs: 10_000 })).certificate);
    expect(short.validFromDate.getTime()).toBe(nowMs - 1000);
  });

  it("gives each authority a name of its own, and a serial number that is positive whatever the random bytes", async () => {
    const high = new X509Certificate((await anAuthority({ serial: Buffer.alloc(16, 0xff) })).certificate);
    const zero = new X509Certificate((await anAuthority({ serial: Buffer.alloc(16, 0) })).certificate);
    expect(high.serialNumber).toBe(`7F${"FF".repeat(15)}`);
    expect(zero.serialNumber).toBe(`40${"00".repeat(15)}`);
    expect(high.subject).not.toBe(zero.subject);
  });

  it("holds nothing that its arguments do not determine, but the signature", async () => {
    const options = await issueOptions();
    const strip = (pem: string) => new X509Certificate(pem).toLegacyObject();
    const a = strip((await issueAuthority(options)).certificate);
    const b = strip((await issueAuthority(options)).certificate);
    expect([a.serialNumber, a.subject, a.valid_from, a.valid_to]).toEqual([
      b.serialNumber,
      b.subject,
      b.valid_from,
      b.valid_to,
    ]);
  });
});

describe("issueLeaf", () => {
  it.each([
    ["agent", SERVER_AUTH, AGENT_DNS_NAME],
    ["coordinator", CLIENT_AUTH, COORDINATOR_DNS_NAME],
  ] as const)("makes the %s's leaf for one usage and one name", async (role, usage, dnsName) => {
    const authority = await anAuthority();
    const leaf = new X509Certificate((await aLeaf(role, authority)).certificate);
    expect(leaf.keyUsage).toEqual([usage]);
    expect(leaf.subjectAltName).toBe(`DNS:${dnsName}`);
    expect(leaf.ca).toBe(false);
    expect(leaf.checkIssued(new X509Certificate(authority.certificate))).toBe(true);
  });

  it("never outlives its authority", async () => {
    const authority = await anAuthority({ lifetimeMs: 60_000 });
    const leaf = new X509Certificate((await aLeaf("agent", authority, { lifetimeMs: 600_000 })).certificate);
    expect(leaf.validTo).toBe(new X509Certificate(authority.certificate).validTo);
  });

  it("lets the two sides talk, and refuses either in the other's place", async () => {
    const authority = await anAuthority();
    const agent = { ...(await aLeaf("agent", authority)), authority: authority.certificate };
    const coordinator = { ...(await aLeaf("coordinator", authority)), authority: authority.certificate };
    expect(await handshake(agent, coordinator)).toBeUndefined();
    expect(await handshake(coordinator, coordinator)).toBe("INVALID_PURPOSE");
    expect(await handshake(agent, agent)).toBe(REFUSED_BY_AGENT);
  });

  it("is refused by either side when it is expired, not valid yet, or another authority's", async () => {
    const authority = await anAuthority({ nowMs: Date.now() - 3_000_000 });
    const other = await anAuthority();
    const good = {
      agent: { ...(await aLeaf("agent", authority)), authority: authority.certificate },
      coordinator: { ...(await aLeaf("coordinator", authority)), authority: authority.certificate },
    };
    const expired = { nowMs: Date.now() - 10_000, lifetimeMs: 5000 };
    const early = { nowMs: Date.now() + 60_000, lifetimeMs: 5000 };
    const bundle = { authority: authority.certificate };
    expect(await handshake(good.agent, good.coordinator)).toBeUndefined();
    for (const [options, problem] of [
      [expired, "CERT_HAS_EXPIRED"],
      [early, "CERT_NOT_YET_VALID"],
    ] as const) {
      expect(await handshake({ ...(await aLeaf("agent", authority, options)), ...bundle }, good.coordinator)).toBe(
        problem,
      );
      const client = { ...(await aLeaf("coordinator", authority, options)), ...bundle };
      expect(await handshake(good.agent, client)).toBe(REFUSED_BY_AGENT);
    }
    expect(await handshake({ ...(await aLeaf("agent", other)), ...bundle }, good.coordinator)).toMatch(
      /UNABLE_TO_|SELF_SIGNED/,
    );
    expect(await handshake(good.agent, { ...(await aLeaf("coordinator", other)), ...bundle })).toBe(REFUSED_BY_AGENT);
  });
});
