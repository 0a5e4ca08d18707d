import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createSecureContext } from "node:tls";
import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";

/** How often the folder is looked at for new certificates, in milliseconds. */
const RELOAD_MS = 2000;

/** An agent's own certificate and key, and the authorities by which it knows its coordinator; PEM. */
export interface Certificates {
  certificate: string;
  key: string;
  authority: string;
  /** SHA-256 fingerprints of the authorities, in lower-case hex without colons. */
  authorityFingerprints: string[];
  notAfterMs: number;
}

/**
 * Reads the certificates of a folder laid out as a mounted TLS Secret. The problem says what is missing or does not fit;
 * halves of an update under way do not fit each other and are such a problem.
 */
export function readCertificates(
  folder: string,
): { ok: true; certificates: Certificates } | { ok: false; problem: string } {
  const read = (file: string) => readFileSync(join(folder, file), "utf8");
  try {
    const certificate = read(CERTIFICATE_FILES.certificate);
    const key = read(CERTIFICATE_FILES.key);
    const authority = read(CERTIFICATE_FILES.authority);
    if (certificate === "" || key === "" || authority === "") return { ok: false, problem: `${folder} is still empty` };
    createSecureContext({ cert: certificate, key, ca: authority });
    const authorities = authority.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
    return {
      ok: true,
      certificates: {
        certificate,
        key,
        authority,
        authorityFingerprints: authorities.map((pem) => fingerprint(new X509Certificate(pem))),
        notAfterMs: new X509Certificate(certificate).validToDate.getTime(),
      },
    };
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    return { ok: false, problem: code === "ENOENT" ? `${folder} is still empty` : `${folder}: ${message}` };
  }
}

function fingerprint(certificate: X509Certificate): string {
  return certificate.fingerprint256.replaceAll(":", "").toLowerCase();
}

/** Calls back with the first certificates and with every change of them; with the problem whenever that changes. */
export function watchCertificates(
  folder: string,
  on: { certificates: (certificates: Certificates) => void; problem: (problem: string) => void },
): { stop: () => void } {
  let last: string | undefined;
  const look = () => {
    const result = readCertificates(folder);
    const seen = result.ok ? result.certificates.certificate + result.certificates.authority : result.problem;
    if (seen === last) return;
    last = seen;
    if (result.ok) on.certificates(result.certificates);
    else on.problem(result.problem);
  };
  look();
  const timer = setInterval(look, RELOAD_MS);
  return { stop: () => clearInterval(timer) };
}
