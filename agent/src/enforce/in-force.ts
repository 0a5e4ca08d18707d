import type { Policy } from "@cro/shared/policy/document";
import type { ContainerIdentity } from "@cro/shared/policy/govern";
import type { AcceptedPolicy } from "../policy/accept.ts";

/** The policy in force, with the lookup of what governs whom. */
export type InForce = AcceptedPolicy & { govern: (identity: ContainerIdentity) => Policy };
