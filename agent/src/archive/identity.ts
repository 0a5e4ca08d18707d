import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { OwnerName } from "./name.ts";
import type { Verdict } from "./walk.ts";

/** What spec.dump tells of its owner: none, some or all of the three names, or that it contradicts itself. */
export type SpecFacts = Partial<ContainerIdentity> & { conflict?: string };

/** Whose an archive is. Undecided may still turn out to be any of the name's candidates. */
export type Identification =
  | { kind: "identified"; identity: ContainerIdentity }
  | { kind: "unidentified"; reason: string }
  | { kind: "undecided" };

/**
 * Reads the annotations of an OCI runtime spec that name the container. What cannot be parsed names nobody; so does what
 * is empty or no string. All sources are gathered, and two of them that disagree are a conflict; so is a key of theirs
 * that stands there twice, of which JSON.parse would take the last and others perhaps the first.
 *
 * The keys come from containerd (internal/cri/annotations/annotations.go), from CRI-O (pkg/annotations/internal.go, whose
 * Labels annotation holds the kubelet's labels of pkg/kubelet/types/labels.go as JSON) and from checkpointctl
 * (lib/annotations.go).
 */
export function readSpec(bytes: Uint8Array): SpecFacts {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString();
  const parsed = parseJson(text);
  const annotations = asRecord(asRecord(parsed).annotations);
  const labelsText = annotations[CRIO_LABELS];
  const parsedLabels = parseJson(labelsText);
  const labels = asRecord(parsedLabels);
  // What cannot be parsed says nothing, and nothing in it counts.
  const repeated =
    findRepeatedKey(parsed === undefined ? undefined : text) ??
    findRepeatedKey(parsedLabels === undefined ? undefined : labelsText);
  if (repeated !== undefined) return { conflict: `spec.dump has ${quote(repeated)} more than once` };
  const facts: SpecFacts = {};
  for (const field of FIELDS) {
    for (const source of [...KEYS[field].map((key) => annotations[key]), labels[KUBELET_LABELS[field]]]) {
      if (typeof source !== "string" || source === "") continue;
      facts[field] ??= source;
      const first = facts[field];
      if (first !== source) {
        return { conflict: `spec.dump names two values for ${field}: ${quote(first)} and ${quote(source)}` };
      }
    }
  }
  return facts;
}

/**
 * Decides whose an archive is from its name and from what its walk has seen so far; no verdict is a walk not yet tried.
 * spec.dump may contradict any name, but a name with several readings is decided by nothing else.
 */
export function identify(name: OwnerName, verdict: Verdict | undefined): Identification {
  const spec = verdict === undefined || verdict.kind === "failed" ? undefined : verdict.spec;
  const isOver = verdict?.kind === "ended" || verdict?.kind === "refused";
  if (spec?.conflict !== undefined) return { kind: "unidentified", reason: spec.conflict };

  const identity = name.candidates.find((candidate) =>
    FIELDS.every((field) => spec?.[field] === undefined || spec[field] === candidate[field]),
  );
  if (identity === undefined) {
    const named = FIELDS.flatMap((field) => (spec?.[field] === undefined ? [] : `${field} ${quote(spec[field])}`));
    return {
      kind: "unidentified",
      reason: `spec.dump names ${named.join(", ")}, which the file name cannot stand for`,
    };
  }
  // Namespace or container, either tells where the one ends and the other begins: a single candidate fits.
  const isDecided = !name.isAmbiguous || spec?.namespace !== undefined || spec?.container !== undefined;
  if (isDecided) return { kind: "identified", identity };
  if (!isOver) return { kind: "undecided" };
  const lack = spec === undefined ? "there is no spec.dump to decide" : "spec.dump does not decide";
  return { kind: "unidentified", reason: `the file name has more than one reading, and ${lack}` };
}

const FIELDS = ["namespace", "pod", "container"] as const;

const KUBELET_LABELS = {
  namespace: "io.kubernetes.pod.namespace",
  pod: "io.kubernetes.pod.name",
  container: "io.kubernetes.container.name",
} as const;

const KEYS = {
  namespace: ["io.kubernetes.cri.sandbox-namespace", KUBELET_LABELS.namespace, "org.criu.checkpoint.pod.namespace"],
  pod: ["io.kubernetes.cri.sandbox-name", KUBELET_LABELS.pod, "org.criu.checkpoint.pod.name"],
  container: ["io.kubernetes.cri.container-name", KUBELET_LABELS.container, "org.criu.checkpoint.container.name"],
} as const;

const CRIO_LABELS = "io.kubernetes.cri-o.Labels";

const OWNER_KEYS: ReadonlySet<string> = new Set([
  "annotations",
  CRIO_LABELS,
  ...Object.values(KEYS).flat(),
  ...Object.values(KUBELET_LABELS),
]);

/** The first key about the owner that stands more than once in a text that JSON.parse takes. Costs one pass of it. */
function findRepeatedKey(text: unknown): string | undefined {
  if (typeof text !== "string") return undefined;
  const seen = new Set<string>();
  let end: number;
  for (let start = text.indexOf('"'); start !== -1; start = text.indexOf('"', end + 1)) {
    end = endOfString(text, start);
    if (!isKey(text, end)) continue;
    const written = text.slice(start + 1, end);
    const key = written.includes("\\") ? String(parseJson(`"${written}"`)) : written;
    if (!OWNER_KEYS.has(key)) continue;
    if (seen.has(key)) return key;
    seen.add(key);
  }
  return undefined;
}

/** Where the string that starts here ends: at the next quote that no backslash stands for. */
function endOfString(text: string, start: number): number {
  let end = start;
  let backslashes: number;
  do {
    end = text.indexOf('"', end + 1);
    backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
  } while (backslashes % 2 === 1);
  return end;
}

/** Whether the string that ends here is a key. */
function isKey(text: string, end: number): boolean {
  let at = end + 1;
  while (text.charCodeAt(at) <= SPACE) at++;
  return text[at] === ":";
}

const BACKSLASH = 0x5c;
const SPACE = 0x20;

function parseJson(text: unknown): unknown {
  if (typeof text !== "string") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function asRecord(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/**
 * Kubernetes allows 253 characters; what is longer must not fill a log. Whatever is no printable ASCII is escaped: the
 * name may be made up to be read by a terminal.
 */
function quote(value: string): string {
  return JSON.stringify(value.slice(0, 253)).replace(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
