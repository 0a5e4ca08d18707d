import type { ContainerIdentity } from "@cro/shared/policy/govern";
import { MemberScan, type Members } from "./json-members.ts";

/** What spec.dump tells of its owner: none, some or all of it, or that it contradicts itself. */
export type SpecFacts = Partial<ContainerIdentity> & { podUID?: string; conflict?: string };

/**
 * Reads the annotations of an OCI runtime spec that name the container. The spec comes in pieces, for it may be megabytes
 * long. If it cannot be parsed it names nobody; neither does an annotation that is empty or not a string.
 *
 * Only the keys of the runtime that wrote the archive count. A pod's author may annotate the pod with keys of another one,
 * and CRI-O copies those into every container's spec. So CRI-O's own keys, which it writes over what it copied, come first.
 * containerd copies no annotation unless its configuration names it (`pod_annotations`), and writes its own over them.
 */
export class SpecScan {
  readonly #scan = new MemberScan({ member: "annotations", keys: KEYS });

  /** Takes in the next piece. It is not kept. */
  take(bytes: Uint8Array): void {
    this.#scan.take(bytes);
  }

  /** What all the pieces tell. */
  facts(): SpecFacts {
    const annotations = this.#scan.end();
    if (annotations === undefined) return {};
    const { values, repeated } = annotations;
    if (repeated !== undefined) return repeatedKey(repeated);
    if (CRIO_MARKS.some((key) => values.has(key))) return crioFacts(values);
    const isContainerd = Object.values(CONTAINERD_KEYS).some((key) => values.has(key));
    return factsOf([values], isContainerd ? CONTAINERD_KEYS : CHECKPOINTCTL_KEYS);
  }
}

/**
 * A text in quotes, for a reason that people read. Kubernetes allows 253 characters; what is longer must not fill a log.
 * Everything but printable ASCII is escaped, because the text may be made up to be read by a terminal.
 */
export function quote(value: string): string {
  return JSON.stringify(value.slice(0, 253)).replace(
    /[^ -~]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

const FIELDS = ["namespace", "pod", "container", "podUID"] as const;

type Keys = Readonly<Record<(typeof FIELDS)[number], string>>;

/** containerd's (internal/cri/annotations/annotations.go). It sets them from the pod and the container themselves. */
const CONTAINERD_KEYS: Keys = {
  namespace: "io.kubernetes.cri.sandbox-namespace",
  pod: "io.kubernetes.cri.sandbox-name",
  container: "io.kubernetes.cri.container-name",
  podUID: "io.kubernetes.cri.sandbox-uid",
};

/** The labels that the kubelet gives every container (pkg/kubelet/types/labels.go). */
const KUBELET_LABELS: Keys = {
  namespace: "io.kubernetes.pod.namespace",
  pod: "io.kubernetes.pod.name",
  container: "io.kubernetes.container.name",
  podUID: "io.kubernetes.pod.uid",
};

/** What tools write that make archives or change them (checkpointctl's lib/annotations.go). */
const CHECKPOINTCTL_KEYS: Keys = {
  namespace: "org.criu.checkpoint.pod.namespace",
  pod: "org.criu.checkpoint.pod.name",
  container: "org.criu.checkpoint.container.name",
  podUID: "org.criu.checkpoint.pod.uid",
};

/** CRI-O (pkg/annotations/internal.go) keeps the kubelet's labels as JSON in here, and each as an annotation besides. */
const CRIO_LABELS = "io.kubernetes.cri-o.Labels";
const CRIO_MARKS = ["io.kubernetes.cri-o.ContainerName", CRIO_LABELS];

const LABEL_KEYS: ReadonlySet<string> = new Set(Object.values(KUBELET_LABELS));
const KEYS: ReadonlySet<string> = new Set([
  ...CRIO_MARKS,
  ...LABEL_KEYS,
  ...Object.values(CONTAINERD_KEYS),
  ...Object.values(CHECKPOINTCTL_KEYS),
]);

function crioFacts(annotations: Members["values"]): SpecFacts {
  const scan = new MemberScan({ keys: LABEL_KEYS });
  scan.take(Buffer.from(annotations.get(CRIO_LABELS) ?? ""));
  const labels = scan.end();
  if (labels?.repeated !== undefined) return repeatedKey(labels.repeated);
  return factsOf(labels === undefined ? [annotations] : [annotations, labels.values], KUBELET_LABELS);
}

function factsOf(sources: readonly Members["values"][], keys: Keys): SpecFacts {
  const facts: SpecFacts = {};
  for (const field of FIELDS) {
    for (const source of sources) {
      const value = source.get(keys[field]);
      if (value === undefined || value === "") continue;
      facts[field] ??= value;
      const first = facts[field];
      if (first !== value) {
        return { conflict: `spec.dump names two values for ${field}: ${quote(first)} and ${quote(value)}` };
      }
    }
  }
  return facts;
}

function repeatedKey(key: string): SpecFacts {
  return { conflict: `spec.dump has ${quote(key)} more than once` };
}
