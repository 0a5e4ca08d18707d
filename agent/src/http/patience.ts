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
  /** Connections of one port at a time. Prometheus, probes and the coordinator need some five; further ones are hung up on. */
  maxConnections: 128,
  /** The largest body that is read where none is wanted. */
  maxUnwantedBodyBytes: 1024,
} as const;
