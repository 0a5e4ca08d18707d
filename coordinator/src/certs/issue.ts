import "reflect-metadata"; // must come before @peculiar/x509, whose containers need it
import { createPrivateKey, KeyObject, type webcrypto } from "node:crypto";
import { AGENT_DNS_NAME, COORDINATOR_DNS_NAME } from "@cro/shared/wire/identities";
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

/** A certificate and its private key (PKCS #8), both PEM. */
export interface KeyedCertificate {
  certificate: string;
  key: string;
}

/** The side that a leaf certificate speaks for. */
export type LeafRole = "agent" | "coordinator";

/** What a certificate is made of beside its role: arguments, so that the same ones make the same certificate. */
export interface IssueOptions {
  /** The moment of issue, in milliseconds since 1970. */
  nowMs: number;
  /** How long from then it is valid; a leaf ends with its authority at the latest. */
  lifetimeMs: number;
  keys: webcrypto.CryptoKeyPair;
  /** 16 random bytes: RFC 5280 wants unique serial numbers of up to 20 octets. */
  serial: Uint8Array;
}

/** What the role's certificate proves: nothing but this one name, for nothing but this one end of a connection. */
export const LEAF_PROFILES = {
  agent: { dnsName: AGENT_DNS_NAME, usage: ExtendedKeyUsage.serverAuth },
  coordinator: { dnsName: COORDINATOR_DNS_NAME, usage: ExtendedKeyUsage.clientAuth },
} as const satisfies Record<LeafRole, { dnsName: string; usage: string }>;

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const MAX_BACKDATE_MS = 5 * 60_000;

/** Makes a new P-256 key pair. */
export function generateKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
}

/**
 * Issues a self-signed certificate authority that may sign leafs only. Its name holds its serial number: during a
 * rotation two authorities are trusted, and each leaf must lead to the right one.
 */
export async function issueAuthority(options: IssueOptions): Promise<KeyedCertificate> {
  const { keys } = options;
  const name = `CN=checkpoint-restore-operator CA ${serialNumber(options.serial).slice(0, 8)}`;
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(options.serial),
    subject: name,
    issuer: name,
    ...validity(options),
    signingAlgorithm: ALGORITHM,
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: `${certificate.toString("pem")}\n`, key: exportKey(keys.privateKey) };
}

/**
 * Issues a leaf: serverAuth only for an agent, clientAuth only for the coordinator, so that neither can pass for the
 * other. Throws where the authority's PEM cannot be read.
 */
export async function issueLeaf(
  role: LeafRole,
  authority: KeyedCertificate,
  options: IssueOptions,
): Promise<KeyedCertificate> {
  const { dnsName, usage } = LEAF_PROFILES[role];
  const parent = new X509Certificate(authority.certificate);
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serialNumber(options.serial),
    subject: `CN=${dnsName}`,
    issuer: parent.subjectName,
    ...validity(options, parent.notAfter.getTime()),
    signingAlgorithm: ALGORITHM,
    publicKey: options.keys.publicKey,
    signingKey: createPrivateKey(authority.key).toCryptoKey(ALGORITHM, false, ["sign"]),
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([usage]),
      new SubjectAlternativeNameExtension([{ type: "dns", value: dnsName }]),
      await SubjectKeyIdentifierExtension.create(options.keys.publicKey),
      ...authorityKeyIdentifier(parent),
    ],
  });
  return { certificate: `${certificate.toString("pem")}\n`, key: exportKey(options.keys.privateKey) };
}

/** The authority's own identifier: one that somebody else made need not be the hash of its key. */
function authorityKeyIdentifier(parent: X509Certificate): AuthorityKeyIdentifierExtension[] {
  const own = parent.getExtension(SubjectKeyIdentifierExtension);
  return own === null ? [] : [new AuthorityKeyIdentifierExtension(own.keyId)];
}

/**
 * Begins some minutes back, for the clocks of the peers may be behind, but not so far back that the backdating would be
 * most of a short life. Certificates know whole seconds.
 */
function validity({ nowMs, lifetimeMs }: IssueOptions, latestEndMs = Number.POSITIVE_INFINITY) {
  const backdateMs = Math.min(MAX_BACKDATE_MS, lifetimeMs / 10);
  return {
    notBefore: new Date(Math.floor((nowMs - backdateMs) / 1000) * 1000),
    notAfter: new Date(Math.floor(Math.min(nowMs + lifetimeMs, latestEndMs) / 1000) * 1000),
  };
}

/** Hex; the first bit is cleared, for a serial number is positive, and the second set, for it must not begin with 0. */
function serialNumber(bytes: Uint8Array): string {
  const positive = Buffer.from(bytes);
  positive[0] = ((positive[0] ?? 0) & 0x7f) | 0x40;
  return positive.toString("hex");
}

function exportKey(key: CryptoKey): string {
  return KeyObject.from(key).export({ type: "pkcs8", format: "pem" }).toString();
}
