import { CERTIFICATE_FILES } from "@cro/shared/wire/identities";
import type { Report } from "@cro/shared/wire/report";
import {
  type AuthorityFacts,
  type CertificateFacts,
  normalizeFingerprint,
  type PlaceFacts,
  readPlace,
} from "./facts.ts";
import { generateKeys, issueAuthority, issueLeaf, type KeyedCertificate, type LeafRole } from "./issue.ts";
import { CERTIFICATE_NAMES, type CertificateName, type CertificateStore, type StoredCertificate } from "./store.ts";

/** How long new certificates live, in milliseconds. */
export interface CertificateLifetimes {
  authorityMs: number;
  leafMs: number;
}

/** What is in the three places. */
export type RotationState = Record<CertificateName, PlaceFacts>;

/** What an agent said of its certificates; undefined for one that has not reported yet. */
export type ReportedCertificates = Report["certificates"] | undefined;

/** The next thing to do, and the authorities that its place's bundle then holds, the signing one first. */
export type RotationAction =
  /** A new authority signs from now on. `trusted` are the ones to be trusted beside it. */
  | { action: "issueAuthority"; trusted: AuthorityFacts[] }
  /** The authority stays, others are trusted beside it. */
  | { action: "writeAuthorities"; trusted: AuthorityFacts[] }
  /** The leaf stays, its bundle becomes the authority's. */
  | { action: "writeBundle"; name: LeafRole }
  | { action: "issueLeaf"; name: LeafRole };

const LEAFS = ["agent", "coordinator"] as const satisfies readonly LeafRole[];
const RENEW_AT = 2 / 3;
/** Where a leaf waits for an agent that does not answer, it waits no longer than this part of its life. */
const RENEW_ANYWAY_AT = 5 / 6;

/**
 * Plans the next step of keeping the three certificates fresh; undefined when there is none. Pure, and planned anew
 * after each step, so that it does not matter who did the last one or where it was interrupted.
 *
 * The order is what keeps everyone able to talk: a new authority is first trusted beside the old one by everybody; only
 * when every agent says that it trusts it do leafs change over; only when every agent says that it shows the new leaf is
 * the old authority forgotten. `reported` has an entry for each agent that there is, and is undefined while nobody knows
 * which there are: then nothing changes over.
 */
export function planRotation(
  state: RotationState,
  nowMs: number,
  reported: readonly ReportedCertificates[] | undefined,
): RotationAction | undefined {
  const authority = state.ca.certificate;
  if (authority === undefined || !isValid(authority, nowMs) || isDue(authority, nowMs, RENEW_AT)) {
    // A lost authority's leafs are still in use, and its certificate is still in the leafs' bundles.
    const known = [state.ca, state.agent, state.coordinator].flatMap(({ bundle }) => bundle);
    return { action: "issueAuthority", trusted: unexpired(unique(known), nowMs) };
  }

  const others = state.ca.bundle.filter(({ fingerprint }) => fingerprint !== authority.fingerprint);
  if (state.ca.bundle.length === others.length) return { action: "writeAuthorities", trusted: others };

  for (const name of LEAFS) {
    const { certificate, bundle } = state[name];
    if (certificate === undefined || !isUsable(certificate, state.ca, nowMs)) return { action: "issueLeaf", name };
    if (!isSameBundle(bundle, state.ca.bundle)) return { action: "writeBundle", name };
  }

  const isTrusted = reported?.every((agent) =>
    agent?.authorities.map(normalizeFingerprint).includes(authority.fingerprint),
  );
  for (const name of LEAFS) {
    const leaf = state[name].certificate as CertificateFacts & { issuer: string };
    const isCurrent = leaf.issuer === authority.fingerprint;
    const isReady = isCurrent ? isDue(leaf, nowMs, RENEW_AT) : isTrusted || isDue(leaf, nowMs, RENEW_ANYWAY_AT);
    if (isReady) return { action: "issueLeaf", name };
  }

  const isInUse =
    !LEAFS.every((name) => state[name].certificate?.issuer === authority.fingerprint) ||
    !reported?.every((agent) => showsLeaf(agent, state.agent.certificate));
  const trusted = isInUse ? unexpired(others, nowMs) : [];
  return trusted.length < others.length ? { action: "writeAuthorities", trusted } : undefined;
}

/** What the coordinator's own end of a connection is made of, PEM. */
export interface TlsMaterial {
  certificate: string;
  key: string;
  /** Every authority that it trusts. */
  authority: string;
}

export interface CertificateKeeper {
  /** Brings the places up to date. Rejects where a place cannot be read or written; nothing is lost, try again. */
  refresh(): Promise<void>;
}

export interface CertificateKeeperOptions {
  store: CertificateStore;
  lifetimes: CertificateLifetimes;
  now: () => number;
  randomBytes: (size: number) => Uint8Array;
  /** See {@link planRotation}. */
  reported: () => readonly ReportedCertificates[] | undefined;
  /** The coordinator's own certificates, at first and whenever they are others than before. */
  onMaterial: (material: TlsMaterial) => void;
  /** When each certificate ends, in milliseconds since 1970. */
  onExpiry: (name: CertificateName, notAfterMs: number) => void;
  log: { info(fields: object, message: string): void };
}

/** Steps of one refresh, beyond which something undoes what it does. A first fill takes 3, a rotation 10 in all. */
const MAX_STEPS = 30;

/** Keeps the three places fresh, one {@link CertificateKeeper.refresh} at a time: see {@link planRotation}. */
export function createCertificateKeeper(options: CertificateKeeperOptions): CertificateKeeper {
  const { store, now } = options;
  let announced: string | undefined;
  let running: Promise<void> | undefined;

  async function refresh(): Promise<void> {
    for (let step = 0; step < MAX_STEPS; step++) {
      const stored = await readAll(store);
      const state = {
        ca: readPlace("ca", stored.ca.files),
        agent: readPlace("agent", stored.agent.files),
        coordinator: readPlace("coordinator", stored.coordinator.files),
      };
      announce(stored, state);
      const action = planRotation(state, now(), options.reported());
      if (action === undefined) return;
      const name = "name" in action ? action.name : "ca";
      const files = await carryOut(action, stored, state);
      if (await store.write(name, files, stored[name].version)) {
        options.log.info({ action: action.action, certificate: name }, "certificates written");
      }
    }
    throw new Error(`the certificates did not settle in ${MAX_STEPS} steps; does another program write them?`);
  }

  async function carryOut(
    action: RotationAction,
    stored: Record<CertificateName, StoredCertificate>,
    state: RotationState,
  ) {
    if (action.action === "issueAuthority") {
      const issued = await issueAuthority(await issueOptions(options.lifetimes.authorityMs));
      return toFiles(issued, issued.certificate + joinBundle(action.trusted));
    }
    const authority = fromFiles(stored.ca);
    if (action.action === "writeAuthorities") {
      return toFiles(authority, authority.certificate + joinBundle(action.trusted));
    }
    const leaf =
      action.action === "writeBundle"
        ? fromFiles(stored[action.name])
        : await issueLeaf(action.name, authority, await issueOptions(options.lifetimes.leafMs));
    return toFiles(leaf, joinBundle(state.ca.bundle));
  }

  async function issueOptions(lifetimeMs: number) {
    return { nowMs: now(), lifetimeMs, keys: await generateKeys(), serial: options.randomBytes(16) };
  }

  function announce(stored: Record<CertificateName, StoredCertificate>, state: RotationState): void {
    for (const name of CERTIFICATE_NAMES) {
      const { certificate } = state[name];
      if (certificate !== undefined) options.onExpiry(name, certificate.notAfterMs);
    }
    if (state.coordinator.certificate === undefined) return;
    const { certificate, key } = fromFiles(stored.coordinator);
    const material = { certificate, key, authority: stored.coordinator.files[CERTIFICATE_FILES.authority] ?? "" };
    const identity = JSON.stringify(material);
    if (identity === announced) return;
    announced = identity;
    options.onMaterial(material);
  }

  return {
    refresh() {
      running ??= refresh().finally(() => {
        running = undefined;
      });
      return running;
    },
  };
}

async function readAll(store: CertificateStore): Promise<Record<CertificateName, StoredCertificate>> {
  const [ca, agent, coordinator] = await Promise.all([
    store.read("ca"),
    store.read("agent"),
    store.read("coordinator"),
  ]);
  return { ca, agent, coordinator };
}

function fromFiles({ files }: StoredCertificate): KeyedCertificate {
  return { certificate: files[CERTIFICATE_FILES.certificate] ?? "", key: files[CERTIFICATE_FILES.key] ?? "" };
}

function toFiles({ certificate, key }: KeyedCertificate, authority: string): Record<string, string> {
  return {
    [CERTIFICATE_FILES.certificate]: certificate,
    [CERTIFICATE_FILES.key]: key,
    [CERTIFICATE_FILES.authority]: authority,
  };
}

function joinBundle(authorities: readonly AuthorityFacts[]): string {
  return authorities.map(({ pem }) => pem).join("");
}

function isValid({ notBeforeMs, notAfterMs }: CertificateFacts, nowMs: number): boolean {
  return notBeforeMs <= nowMs && nowMs < notAfterMs;
}

function isDue({ notBeforeMs, notAfterMs }: CertificateFacts, nowMs: number, part: number): boolean {
  return nowMs >= notBeforeMs + (notAfterMs - notBeforeMs) * part;
}

/** Whether a leaf and the authority that signed it are valid, and everybody who reads the bundle trusts that authority. */
function isUsable(leaf: CertificateFacts & { issuer: string }, ca: PlaceFacts, nowMs: number): boolean {
  const issuer = ca.bundle.find(({ fingerprint }) => fingerprint === leaf.issuer);
  return issuer !== undefined && isValid(issuer, nowMs) && isValid(leaf, nowMs);
}

/** Agents tell their leaf by its end, in whole seconds; two leafs of different authorities never end at the same one. */
function showsLeaf(agent: ReportedCertificates, leaf: CertificateFacts | undefined): boolean {
  return agent?.notAfter !== undefined && leaf !== undefined && Date.parse(agent.notAfter) === leaf.notAfterMs;
}

function isSameBundle(a: readonly AuthorityFacts[], b: readonly AuthorityFacts[]): boolean {
  return a.map(({ fingerprint }) => fingerprint).join() === b.map(({ fingerprint }) => fingerprint).join();
}

function unexpired(authorities: readonly AuthorityFacts[], nowMs: number): AuthorityFacts[] {
  return authorities.filter(({ notAfterMs }) => nowMs < notAfterMs);
}

function unique(authorities: readonly AuthorityFacts[]): AuthorityFacts[] {
  return [...new Map(authorities.map((authority) => [authority.fingerprint, authority])).values()];
}
