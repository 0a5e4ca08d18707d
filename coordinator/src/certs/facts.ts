import { createPrivateKey, X509Certificate } from "node:crypto";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";
import { LEAF_PROFILES, type LeafRole } from "./issue.ts";
import type { CertificateFiles, CertificateName } from "./store.ts";

/** What decisions about one certificate rest on. */
export interface CertificateFacts {
  /** SHA-256, lower-case hex without separators. */
  fingerprint: string;
  notBeforeMs: number;
  notAfterMs: number;
}

/** An authority that somebody trusts. */
export interface AuthorityFacts extends CertificateFacts {
  /** The certificate itself, PEM. */
  pem: string;
}

/** What was found in one of the places. */
export interface PlaceFacts {
  /** Undefined where the place is empty, cannot be parsed, or its key is another's: then it is to be filled. */
  certificate?: CertificateFacts & {
    /** Fingerprint of the authority in this place's own bundle that signed it; its own, for an authority. */
    issuer: string;
  };
  /** The authorities of its ca.crt, in their order. */
  bundle: AuthorityFacts[];
}

const CERTIFICATE_PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Reads what a place's files prove. Whatever does not hold together counts as absent. Pure. */
export function readPlace(name: CertificateName, files: CertificateFiles): PlaceFacts {
  const bundle = readBundle(files[CERTIFICATE_FILES.authority] ?? "");
  const certificate = readKeyedCertificate(files);
  if (certificate === undefined) return { bundle };
  const facts = describe(certificate);
  if (name === "ca") {
    const canSign = certificate.ca && certificate.publicKey.asymmetricKeyDetails?.namedCurve === "prime256v1";
    return canSign ? { certificate: { ...facts, issuer: facts.fingerprint }, bundle } : { bundle };
  }
  const issuer = bundle.find(({ pem }) => isIssuedBy(certificate, new X509Certificate(pem)));
  if (issuer === undefined || !fitsRole(certificate, name)) return { bundle };
  return { certificate: { ...facts, issuer: issuer.fingerprint }, bundle };
}

/** The fingerprint as this program compares it: lower case, without separators. */
export function normalizeFingerprint(fingerprint: string): string {
  return fingerprint.replaceAll(":", "").toLowerCase();
}

function readBundle(text: string): AuthorityFacts[] {
  return (text.match(CERTIFICATE_PEM) ?? []).flatMap((pem) => {
    try {
      const certificate = new X509Certificate(pem);
      return certificate.ca ? [{ ...describe(certificate), pem: `${pem}\n` }] : [];
    } catch {
      return [];
    }
  });
}

function readKeyedCertificate(files: CertificateFiles): X509Certificate | undefined {
  try {
    const certificate = new X509Certificate(files[CERTIFICATE_FILES.certificate] ?? "");
    const key = createPrivateKey(files[CERTIFICATE_FILES.key] ?? "");
    return certificate.checkPrivateKey(key) ? certificate : undefined;
  } catch {
    return undefined;
  }
}

function describe(certificate: X509Certificate): CertificateFacts {
  return {
    fingerprint: normalizeFingerprint(certificate.fingerprint256),
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
  };
}

function isIssuedBy(certificate: X509Certificate, authority: X509Certificate): boolean {
  return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
}

function fitsRole(certificate: X509Certificate, role: LeafRole): boolean {
  const { dnsName, usage } = LEAF_PROFILES[role];
  return certificate.checkHost(dnsName) !== undefined && (certificate.keyUsage ?? []).includes(usage);
}
