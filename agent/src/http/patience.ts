/**
 * How much the agent's servers put up with from anyone who can reach their ports: a connection that is merely opened, or
 * dripped into, must end before many of them cost the memory that the agent has. In milliseconds, where named so.
 */
export const PATIENCE = {
  /** Until TLS is agreed upon. */
  handshakeTimeoutMs: 5000,
  /** Until a request's headers are there. */
  headersTimeoutMs: 5000,
  /** Until a request is there with its body: a directive of 8 MiB takes that long at 3 Mbit/s. */
  requestTimeoutMs: 20_000,
  /** How often requests that take too long are looked for. */
  checkEveryMs: 1000,
  /** Until a connection of the status server is closed on which nothing moves, such as one whose answer is not read. */
  idleTimeoutMs: 20_000,
  /** Connections to the API at a time that have not shown a certificate of the coordinator. Further ones end the oldest. */
  maxStrangers: 128,
  /** The largest body that is read where none is wanted. */
  maxUnwantedBodyBytes: 1024,
} as const;
