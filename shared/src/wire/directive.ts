import * as Type from "typebox";
import { PolicyDocument } from "../policy/document.ts";
import { Fence } from "./fence.ts";

/** `PUT` of a {@link Directive}; answers the agent's report. */
export const DIRECTIVE_PATH = "/v1/directive";

/** The largest directive an agent reads, in bytes. */
export const MAX_DIRECTIVE_BYTES = 8 * 1024 * 1024;

/**
 * The first version of the protocol whose agents are given proofs. Older ones ask about static pods too, act upon a proof
 * for a minute after they received it, however old it is by then, and cannot be told that it is void.
 */
export const PROTOCOL_WITH_PROOFS = 2;

const time = () => Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z$" });
const name = () => Type.String({ minLength: 1, maxLength: 253 });

/**
 * Proof that a pod, or one container of a living pod, no longer exists. It answers one question of one report, whose
 * boot id and number it repeats, and covers only archives that the agent had listed by then. With a UID it is about the pod of
 * that UID alone, because another pod has its name.
 */
export const OrphanFact = Type.Object(
  {
    bootId: Type.String({ minLength: 1, maxLength: 64 }),
    report: Type.Integer({ minimum: 1 }),
    namespace: name(),
    pod: name(),
    /** Absent where the whole pod is gone. */
    container: Type.Optional(name()),
    /** Of the pod that is gone, where another one has its name. Only whoever asked about UIDs is told. */
    uid: Type.Optional(Type.String({ minLength: 1, maxLength: 64 })),
    /**
     * When the read that proved it was sent, by the coordinator's clock, RFC 3339, and how long, in milliseconds, what it
     * is about had been absent by then at least. Absent from a coordinator of the first protocol.
     */
    provedAt: Type.Optional(time()),
    graceMs: Type.Optional(Type.Number({ minimum: 0 })),
  },
  { additionalProperties: false },
);

/** How many facts a directive carries at most. */
export const MAX_FACTS = 1000;

/** How long a report may be answered, and the answer be acted upon, in milliseconds. */
export const REPORT_LIFETIME_MS = 60_000;

/** All that an agent should do: the whole desired state, never a change to it. */
export const Directive = Type.Object(
  {
    ...Fence.properties,
    /** The node and the pod that it is meant for; an agent that is another refuses it. */
    node: name(),
    podUID: Type.String({ minLength: 1, maxLength: 64 }),
    /** The coordinator's clock on sending, RFC 3339. */
    time: time(),
    /** The policy by the digest of its JSON; the document itself only where the agent asked for it. */
    policy: Type.Object(
      {
        digest: Type.String({ pattern: "^[0-9a-f]{64}$" }),
        document: Type.Optional(PolicyDocument),
        /** The resource, `namespace/name`, for whoever reads logs; from version 2 of the protocol on, where there is one. */
        name: Type.Optional(Type.String({ minLength: 1, maxLength: 512 })),
      },
      { additionalProperties: false },
    ),
    orphans: Type.Array(OrphanFact, { maxItems: MAX_FACTS }),
  },
  { additionalProperties: false },
);

export type OrphanFact = Type.Static<typeof OrphanFact>;
export type Directive = Type.Static<typeof Directive>;

/** Why an agent refused a directive; the JSON body of every answer that is not 200. */
export const Refusal = Type.Object({
  error: Type.String(),
  /** The field at fault, on 422. */
  field: Type.Optional(Type.String()),
  /** The newest directive that the agent has accepted, on 409. */
  term: Type.Optional(Fence.properties.term),
  revision: Type.Optional(Fence.properties.revision),
});
export type Refusal = Type.Static<typeof Refusal>;

/** The statuses an agent answers a directive with, beside 200. */
export const REFUSED = {
  /** Older than what the agent has accepted; {@link Refusal} names that. */
  older: 409,
  /** Meant for another agent; nothing was applied. */
  misdirected: 421,
  /** The schema refuses it; {@link Refusal} names the field. */
  invalid: 422,
  /** The agent does not have the policy of this digest: send it again with the document. */
  documentNeeded: 428,
} as const;
