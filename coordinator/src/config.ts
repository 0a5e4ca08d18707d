import { hostname } from "node:os";
import { anyHost } from "@cro/shared/any-host";
import { DEFAULT_CHECKPOINT_DIRECTORY } from "@cro/shared/crd/schema";
import { parseDuration } from "@cro/shared/duration";
import { VERSION } from "@cro/shared/version";
import { PORTS } from "@cro/shared/wire/identities";
import { Command, CommanderError, Option } from "commander";
import type { AgentAddress } from "./agents/directive.ts";
import type { CertificateLifetimes } from "./certs/rotate.ts";
import type { CertificateName } from "./certs/store.ts";

export const LOG_LEVELS = ["fatal", "error", "warn", "info", "debug", "trace", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

/** A host and a port to listen on. */
export interface ListenAddress {
  host: string;
  port: number;
}

/** All that a coordinator is told at its start. */
export interface Config {
  policyFile: string;
  /** Wins over the policy's checkpointDirectory. */
  directory: string | undefined;
  /** Wins over the policy's mode. */
  isDryRun: boolean;
  agents: AgentAddress[];
  stateDirectory: string;
  certificatesDirectory: string;
  lifetimes: CertificateLifetimes;
  metricsAddress: ListenAddress;
  logLevel: LogLevel;
}

/** All that a coordinator of a cluster is told at its start. */
export interface ClusterConfig {
  /** The release's namespace: its Lease, its Secrets, its agents. */
  namespace: string;
  leaseName: string;
  /** Who holds the Lease, for its readers. */
  identity: string;
  kubeconfig: string | undefined;
  /** Label selector of the agents' pods, and the port of their API. */
  agentSelector: string;
  agentPort: number;
  secrets: Record<CertificateName, string>;
  /** Whether the Secrets are filled and rotated here, and not by somebody else. */
  areCertificatesManaged: boolean;
  certificatesCheckMs: number;
  lifetimes: CertificateLifetimes;
  policyNamespaces: string[] | undefined;
  policyGraceMs: number;
  defaultPolicyFile: string | undefined;
  /** Where the archives are if a policy does not say. */
  defaultDirectory: string;
  metricsAddress: ListenAddress;
  logLevel: LogLevel;
}

/** What `check` is told: where the release is, and how long it may take to be well, in milliseconds. */
export interface CheckConfig extends Pick<ClusterConfig, "namespace" | "leaseName" | "agentSelector" | "kubeconfig"> {
  timeoutMs: number;
}

/** `exit`: what to print instead, and the exit code; code 0 is the help that was asked for. */
export type ParsedArguments =
  | { ok: true; config: Config }
  | { ok: true; cluster: ClusterConfig }
  | { ok: true; check: CheckConfig }
  | { ok: false; exitCode: 0 | 2; text: string };

const EXAMPLES = `
Examples:
  Keep the archives of the agent on this machine within a policy:
    $ coordinator serve --policy-file policy.yaml --state-dir /var/lib/coordinator --certs-dir /etc/checkpoint-certs \\
        --agent https://127.0.0.1:9810 --agent-node node-a --agent-pod-uid agent-a
  The same, deleting nothing:
    $ coordinator serve … --dry-run

The agents find their certificates in CERTS-DIR/agent. --agent, --agent-node and --agent-pod-uid are given once for each
agent, in the same order.`;

interface ServeOptions {
  policyFile: string;
  directory?: string;
  dryRun: boolean;
  agent: string[];
  agentNode: string[];
  agentPodUid: string[];
  stateDir: string;
  certsDir: string;
  caLifetime: string;
  certificateLifetime: string;
  metricsAddress: string;
  logLevel: string;
}

/** Reads the command line, the program's own name excluded. Pure: it says what to print, and prints nothing. */
export function parseArguments(argv: readonly string[]): ParsedArguments {
  let text = "";
  let parsed: ParsedArguments | undefined;
  const output = {
    writeOut: (chunk: string) => {
      text += chunk;
    },
    writeErr: (chunk: string) => {
      text += chunk;
    },
  };
  const collect = (value: string, values: string[]) => [...values, value];
  const program = new Command("coordinator")
    .description("Directs the agents that keep checkpoint archives within a policy.")
    .version(VERSION)
    .exitOverride()
    .configureOutput(output);
  program
    .command("serve")
    .description("Brings the agents to what the policy in a file says, and keeps them there.")
    .requiredOption("--policy-file <file>", "YAML of one CheckpointRestoreOperator; read again whenever it changes")
    .option("--directory <path>", "checkpoint directory, instead of the policy's")
    .option("--dry-run", "delete nothing, whatever the policy's mode", false)
    .option("--agent <url>", "address of an agent, e.g. https://127.0.0.1:9810", collect, [])
    .option("--agent-node <name>", "the node that this agent is on", collect, [])
    .option("--agent-pod-uid <uid>", "what this agent was given as its pod's UID", collect, [])
    .requiredOption("--state-dir <path>", "where the term is kept; one folder for each coordinator")
    .requiredOption("--certs-dir <path>", "where certificates are kept, made when they are missing")
    .option("--ca-lifetime <duration>", "how long a new certificate authority lives", "730d")
    .option("--certificate-lifetime <duration>", "how long a new certificate lives", "90d")
    .option("--metrics-address <host:port>", "for /metrics, /healthz, /readyz", `127.0.0.1:${PORTS.coordinatorMetrics}`)
    .option("--log-level <level>", LOG_LEVELS.join(", "), "info")
    .addHelpText("after", EXAMPLES)
    .allowExcessArguments(false)
    .action((options: ServeOptions) => {
      parsed = { ok: true, config: readOptions(options) };
    });
  /** A command about a release on a cluster, which it has to find. */
  const releaseCommand = (name: string) =>
    program
      .command(name)
      .addOption(
        new Option("--namespace <name>", "namespace of the release").env("POD_NAMESPACE").makeOptionMandatory(),
      )
      .option("--kubeconfig <file>", "access to the API server (default: the pod's own)")
      .option("--lease <name>", "the Lease; it must exist", "checkpoint-restore-operator")
      .option("--agent-selector <labels>", "labels of the agents' pods", "app.kubernetes.io/component=agent");
  releaseCommand("cluster")
    .description("Brings the agents of a cluster to what its policy resources say, while it holds the Lease.")
    .addOption(
      new Option("--identity <name>", "who holds the Lease").env("POD_NAME").default(hostname(), "the host's name"),
    )
    .option("--agent-port <port>", "the port of the agents' API", `${PORTS.agentApi}`)
    .option("--ca-secret <name>", "Secret of the certificate authority", "checkpoint-restore-operator-ca")
    .option("--agent-secret <name>", "Secret that the agents mount", "checkpoint-restore-operator-agent")
    .option("--coordinator-secret <name>", "Secret of the coordinator", "checkpoint-restore-operator-coordinator")
    .option("--existing-certificates", "read the Secrets only: somebody else fills them", false)
    .option("--ca-lifetime <duration>", "how long a new certificate authority lives", "730d")
    .option("--certificate-lifetime <duration>", "how long a new certificate lives", "90d")
    .option("--policy-namespaces <names>", "obey only resources of these namespaces, separated by commas")
    .option("--policy-grace-period <duration>", "how long a node rests if its policy went away", "10m")
    .option("--default-policy <file>", "policy resource for nodes that none is for (default: the built-in defaults)")
    .option(
      "--default-directory <path>",
      "where the archives are if a policy does not say: the first directory that the agents mount",
      DEFAULT_CHECKPOINT_DIRECTORY,
    )
    .option("--metrics-address <host:port>", "for /metrics, /healthz, /readyz", `:${PORTS.coordinatorMetrics}`)
    .option("--log-level <level>", LOG_LEVELS.join(", "), "info")
    .addHelpText(
      "after",
      "\nExample:\n    $ coordinator cluster --namespace checkpoint-system --policy-namespaces platform",
    )
    .allowExcessArguments(false)
    .action((options: ClusterOptions) => {
      parsed = { ok: true, cluster: readClusterOptions(options) };
    });
  releaseCommand("check")
    .description(
      "Says whether a release works: a coordinator leads, agents run where they should, policies are obeyed.",
    )
    .option("--timeout <duration>", "how long it may take until all is well", "2m")
    .addHelpText(
      "after",
      "\nExit codes: 0 all is well, 1 it is not, 2 bad input.\n\nExample:\n    $ coordinator check --namespace checkpoint-system",
    )
    .allowExcessArguments(false)
    .action((options: CheckOptions) => {
      parsed = { ok: true, check: readCheckOptions(options) };
    });
  try {
    program.parse(argv as string[], { from: "user" });
  } catch (cause) {
    if (cause instanceof InvalidFlag) return { ok: false, exitCode: 2, text: `error: ${cause.message}\n` };
    if (!(cause instanceof CommanderError)) throw cause;
    return { ok: false, exitCode: cause.exitCode === 0 ? 0 : 2, text };
  }
  if (parsed === undefined) throw new Error("a command was chosen");
  return parsed;
}

/** Where a release is found. */
interface ReleaseOptions {
  namespace: string;
  kubeconfig?: string;
  lease: string;
  agentSelector: string;
}

interface ClusterOptions extends ReleaseOptions {
  identity: string;
  agentPort: string;
  caSecret: string;
  agentSecret: string;
  coordinatorSecret: string;
  existingCertificates: boolean;
  caLifetime: string;
  certificateLifetime: string;
  policyNamespaces?: string;
  policyGracePeriod: string;
  defaultPolicy?: string;
  defaultDirectory: string;
  metricsAddress: string;
  logLevel: string;
}

interface CheckOptions extends ReleaseOptions {
  timeout: string;
}

function readCheckOptions({ lease, timeout, ...rest }: CheckOptions): CheckConfig {
  const limit = parseDuration(timeout);
  if (!limit.ok) throw new InvalidFlag(`--timeout ${limit.problem}`);
  return { kubeconfig: undefined, ...rest, leaseName: lease, timeoutMs: limit.milliseconds };
}

function readDirectory(path: string): string {
  if (isPlainAbsolutePath(path)) return path;
  return refuse("--default-directory", path, "give an absolute path without . or ..");
}

function readClusterOptions(options: ClusterOptions): ClusterConfig {
  const lifetimes = readLifetimes(options);
  const grace = parseDuration(options.policyGracePeriod);
  if (!grace.ok) throw new InvalidFlag(`--policy-grace-period ${grace.problem}`);
  const port = Number(options.agentPort);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) refuse("--agent-port", options.agentPort, "give a port");
  const namespaces = options.policyNamespaces?.split(",").map((name) => name.trim());
  if (namespaces?.includes("")) refuse("--policy-namespaces", options.policyNamespaces ?? "", "give names, e.g. a,b");
  return {
    namespace: options.namespace,
    leaseName: options.lease,
    identity: options.identity,
    kubeconfig: options.kubeconfig,
    agentSelector: options.agentSelector,
    agentPort: port,
    secrets: { ca: options.caSecret, agent: options.agentSecret, coordinator: options.coordinatorSecret },
    areCertificatesManaged: !options.existingCertificates,
    certificatesCheckMs: Math.min(60_000, lifetimes.leafMs / 30),
    lifetimes,
    policyNamespaces: namespaces,
    policyGraceMs: grace.milliseconds,
    defaultPolicyFile: options.defaultPolicy,
    defaultDirectory: readDirectory(options.defaultDirectory),
    metricsAddress: readListenAddress("--metrics-address", options.metricsAddress),
    logLevel: readLogLevel(options.logLevel),
  };
}

function readLogLevel(value: string): LogLevel {
  if (!LOG_LEVELS.includes(value as LogLevel)) refuse("--log-level", value, `give one of ${LOG_LEVELS.join(", ")}`);
  return value as LogLevel;
}

/** Carries a message about one flag through commander, which knows errors only as exceptions. */
class InvalidFlag extends Error {}

function refuse(flag: string, value: string, accepted: string): never {
  throw new InvalidFlag(`${flag} ${JSON.stringify(value)} is not accepted; ${accepted}`);
}

function readOptions(options: ServeOptions): Config {
  if (options.directory !== undefined && !isPlainAbsolutePath(options.directory)) {
    refuse("--directory", options.directory, "give an absolute path without . or ..");
  }
  const logLevel = readLogLevel(options.logLevel);
  const lifetimes = readLifetimes(options);
  return {
    policyFile: options.policyFile,
    directory: options.directory,
    isDryRun: options.dryRun,
    agents: readAgents(options),
    stateDirectory: options.stateDir,
    certificatesDirectory: options.certsDir,
    lifetimes,
    metricsAddress: readListenAddress("--metrics-address", options.metricsAddress),
    logLevel,
  };
}

function readLifetimes(options: Pick<ServeOptions, "caLifetime" | "certificateLifetime">): CertificateLifetimes {
  const lifetimes = {
    authorityMs: readLifetime("--ca-lifetime", options.caLifetime),
    leafMs: readLifetime("--certificate-lifetime", options.certificateLifetime),
  };
  if (lifetimes.leafMs > lifetimes.authorityMs) {
    refuse(
      "--certificate-lifetime",
      options.certificateLifetime,
      `--ca-lifetime, ${options.caLifetime}, must be longer`,
    );
  }
  return lifetimes;
}

function readAgents({ agent, agentNode, agentPodUid }: ServeOptions): AgentAddress[] {
  if (agent.length === 0) throw new InvalidFlag("--agent is missing; give the address of each agent");
  for (const [flag, values] of [
    ["--agent-node", agentNode],
    ["--agent-pod-uid", agentPodUid],
  ] as const) {
    if (values.length !== agent.length) {
      throw new InvalidFlag(`${flag} is given ${values.length} times and --agent ${agent.length}; give one for each`);
    }
    const empty = values.find((value) => value === "");
    if (empty !== undefined) refuse(flag, empty, "it must not be empty");
  }
  const twin = agentPodUid.find((uid, index) => agentPodUid.indexOf(uid) !== index);
  if (twin !== undefined) refuse("--agent-pod-uid", twin, "each agent needs its own");
  return agent.map((url, index) => ({
    url: readAgentUrl(url),
    node: agentNode[index] as string,
    podUID: agentPodUid[index] as string,
  }));
}

function readAgentUrl(value: string): string {
  const url = URL.canParse(value) ? new URL(value) : undefined;
  const isOrigin = url?.protocol === "https:" && url.pathname === "/" && url.search === "" && url.username === "";
  return isOrigin ? url.origin : refuse("--agent", value, `give e.g. https://127.0.0.1:${PORTS.agentApi}`);
}

function readLifetime(flag: string, value: string): number {
  const parsed = parseDuration(value);
  if (!parsed.ok) throw new InvalidFlag(`${flag} ${parsed.problem}`);
  // Certificates know whole seconds, and are renewed at two thirds of their life.
  return parsed.milliseconds >= 3000 ? parsed.milliseconds : refuse(flag, value, "give 3s at least");
}

function readListenAddress(flag: string, value: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65_535) return refuse(flag, value, "give HOST:PORT, e.g. 127.0.0.1:9812 or [::]:9812");
  return { host: match[1] ?? (match[2] || anyHost()), port };
}

function isPlainAbsolutePath(path: string): boolean {
  return path.startsWith("/") && !path.includes("\0") && !path.split("/").some((part) => part === "." || part === "..");
}
