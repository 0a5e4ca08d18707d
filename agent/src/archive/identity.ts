import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { ArchiveName } from "./name.ts";
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
 * is empty or no string. All sources are gathered, and two of them that disagree are a conflict.
 *
 * The keys come from containerd (internal/cri/annotations/annotations.go), from CRI-O (pkg/annotations/internal.go, whose
 * Labels annotation holds the kubelet's labels of pkg/kubelet/types/labels.go as JSON) and from checkpointctl
 * (lib/annotations.go).
 */
export function readSpec(bytes: Uint8Array): SpecFacts {
  const annotations = asRecord(
    asRecord(parseJson(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString())).annotations,
  );
  const labels = asRecord(parseJson(annotations[CRIO_LABELS]));
  const facts: SpecFacts = {};
  for (const field of FIELDS) {
    for (const source of [...KEYS[field].map((key) => annotations[key]), labels[KUBELET_LABELS[field]]]) {
      if (typeof source !== "string" || source === "") continue;
      facts[field] ??= source;
      if (facts[field] !== source) {
        return { conflict: `spec.dump names two values for ${field}: ${quote(facts[field])} and ${quote(source)}` };
      }
    }
  }
  return facts;
}

/**
 * Decides whose an archive is from its name and from what its walk has seen so far; no verdict is a walk not yet tried.
 * spec.dump may contradict any name, but a name with several readings is decided by nothing else.
 */
export function identify(name: ArchiveName, verdict: Verdict | undefined): Identification {
  const spec = verdict === undefined || verdict.kind === "failed" ? undefined : verdict.spec;
  const isOver = verdict?.kind === "ended" || verdict?.kind === "refused";
  if (spec?.conflict !== undefined) return { kind: "unidentified", reason: spec.conflict };

  const identity = name.candidates.find((candidate) =>
    FIELDS.every((field) => spec?.[field] === undefined || spec[field] === candidate[field]),
  );
  if (identity === undefined) {
    const named = FIELDS.filter((field) => spec?.[field] !== undefined).map(
      (field) => `${field} ${quote(spec?.[field])}`,
    );
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

/** Kubernetes allows 253 characters; what is longer must not fill a log. */
function quote(value: string | undefined): string {
  return JSON.stringify((value ?? "").slice(0, 253));
}
