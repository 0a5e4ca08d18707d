/**
 * The DNS names in the certificates of the two sides, each of which the peer checks. They are fixed and name a role, not
 * a host: agents are reached by pod IP, which no certificate could name beforehand.
 */
export const AGENT_DNS_NAME = "agent.checkpoint-restore-operator";
export const COORDINATOR_DNS_NAME = "coordinator.checkpoint-restore-operator";

/** The files of a certificate folder, named as in a Kubernetes TLS Secret. */
export const CERTIFICATE_FILES = { certificate: "tls.crt", key: "tls.key", authority: "ca.crt" } as const;

/** Ports: the agent's API (mTLS), the agent's metrics and probes, the coordinator's metrics and probes. */
export const PORTS = { agentApi: 9810, agentMetrics: 9811, coordinatorMetrics: 9812 } as const;
