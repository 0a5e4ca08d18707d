import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { OwnerName } from "./name.ts";
import { quote } from "./spec.ts";
import type { Verdict } from "./walk.ts";

/** Whose an archive is. Undecided may still turn out to be any of the name's candidates. */
export type Identification =
  | {
      kind: "identified";
      identity: ContainerIdentity;
      /** The UID of the very pod; undefined if the archive does not tell. */
      podUID: string | undefined;
    }
  | { kind: "unidentified"; reason: string }
  | { kind: "undecided" };

/**
 * Decides whose an archive is from its name and from what its walk has seen so far; no verdict is a walk not yet tried.
 * spec.dump may contradict any name, but a name with several readings is decided by nothing else.
 *
 * Namespace and pod decide. The container's name only counts if it is that of a reading: containerd writes its own name in
 * its place when it restores a container.
 */
export function identify(name: OwnerName, verdict: Verdict | undefined): Identification {
  const spec = verdict === undefined || verdict.kind === "failed" ? undefined : verdict.spec;
  const isOver = verdict?.kind === "ended" || verdict?.kind === "refused";
  if (spec?.conflict !== undefined) return { kind: "unidentified", reason: spec.conflict };

  const fits = name.candidates.filter(
    ({ namespace, pod }) =>
      (spec?.namespace === undefined || spec.namespace === namespace) && (spec?.pod === undefined || spec.pod === pod),
  );
  // Where one name ends and the other begins differs from reading to reading: no two have a namespace or container alike.
  const named = name.candidates.find(({ container }) => container === spec?.container);
  const identity = named ?? fits[0];
  if (identity === undefined || !fits.includes(identity)) {
    const said = FIELDS.flatMap((field) => (spec?.[field] === undefined ? [] : `${field} ${quote(spec[field])}`));
    return {
      kind: "unidentified",
      reason: `spec.dump names ${said.join(", ")}, which the file name cannot stand for`,
    };
  }
  const isDecided = !name.isAmbiguous || spec?.namespace !== undefined || named !== undefined;
  if (isDecided) return { kind: "identified", identity, podUID: spec?.podUID };
  if (!isOver) return { kind: "undecided" };
  const lack = spec === undefined ? "there is no spec.dump to decide" : "spec.dump does not decide";
  return { kind: "unidentified", reason: `the file name has more than one reading, and ${lack}` };
}

const FIELDS = ["namespace", "pod", "container"] as const;
