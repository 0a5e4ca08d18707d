import "reflect-metadata";
import { createPrivateKey, KeyObject, randomBytes, X509Certificate } from "node:crypto";
import { AGENT_DNS_NAME, COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import {
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  SubjectAlternativeNameExtension,
  X509CertificateGenerator,
} from "@peculiar/x509";
import {
  generateKeys,
  type IssueOptions,
  issueAuthority,
  issueLeaf,
  type KeyedCertificate,
  type LeafRole,
} from "../../src/certs/issue.ts";

export async function issueOptions(options: Partial<IssueOptions> = {}): Promise<IssueOptions> {
  return { nowMs: Date.now(), lifetimeMs: 3_600_000, keys: await generateKeys(), serial: randomBytes(16), ...options };
}

export async function anAuthority(options: Partial<IssueOptions> = {}): Promise<KeyedCertificate> {
  return issueAuthority(await issueOptions(options));
}

export async function aLeaf(
  role: LeafRole,
  authority: KeyedCertificate,
  options: Partial<IssueOptions> = {},
): Promise<KeyedCertificate> {
  return issueLeaf(role, authority, await issueOptions(options));
}

/** A leaf as only somebody else would issue it. */
export async function anOddLeaf(
  authority: KeyedCertificate,
  { dnsName = AGENT_DNS_NAME, usage = undefined as string | undefined },
): Promise<KeyedCertificate> {
  const keys = await generateKeys();
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const certificate = await X509CertificateGenerator.create({
    serialNumber: randomBytes(8).toString("hex"),
    subject: `CN=${dnsName}`,
    issuer: new X509Certificate(authority.certificate).subject,
    notBefore: new Date(Date.now() - 60_000),
    notAfter: new Date(Date.now() + 60_000),
    signingAlgorithm: algorithm,
    publicKey: keys.publicKey,
    signingKey: createPrivateKey(authority.key).toCryptoKey(algorithm, false, ["sign"]),
    extensions: [
      new SubjectAlternativeNameExtension([{ type: "dns", value: dnsName }]),
      ...(usage === undefined ? [] : [new ExtendedKeyUsageExtension([usage])]),
    ],
  });
  return {
    certificate: certificate.toString("pem"),
    key: KeyObject.from(keys.privateKey).export({ type: "pkcs8", format: "pem" }).toString(),
  };
}

export { AGENT_DNS_NAME, COORDINATOR_DNS_NAME, ExtendedKeyUsage };
