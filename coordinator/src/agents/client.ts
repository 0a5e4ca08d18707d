import { type ConnectionOptions, checkServerIdentity, createSecureContext, type PeerCertificate } from "node:tls";
import { DIRECTIVE_PATH, REFUSED, Refusal } from "@cro/shared/wire/directive";
import { AGENT_DNS_NAME } from "@cro/shared/wire/identities";
import { createReportReader, plain } from "@cro/shared/wire/read-report";
import { NOT_MODIFIED, REPORT_PATH, type Report, reportQuery } from "@cro/shared/wire/report";
import { Compile } from "typebox/compile";
import { Agent } from "undici";
import type { TlsMaterial } from "../certs/rotate.ts";
import type { AgentAddress } from "./directive.ts";

/** How a call to an agent ended. */
export type AgentOutcome =
  /** It answered, and it is who it should be. For a directive: it has taken it. `dropped` is what is not believed of it. */
  | { outcome: "accepted"; report: Report; dropped?: readonly string[] }
  /** It has nothing to tell beside the report that its reader has. */
  | { outcome: "unchanged" }
  /** It does not have the policy of that digest. */
  | { outcome: "documentNeeded" }
  /** It has accepted a newer directive, of this place in the order. */
  | { outcome: "older"; term: number; revision: number }
  /** Another agent answers there. */
  | { outcome: "misdirected"; error: string }
  | { outcome: "invalid"; field: string | undefined; error: string }
  /** Not reached, no proper answer, or too late: nothing is known. */
  | { outcome: "failed"; cause: Error };

/** What names a report. */
export type KnownReport = Pick<Report, "bootId" | "number">;

export interface AgentClient {
  /** Puts a directive, whose JSON is `body`. Never rejects. */
  putDirective(address: AgentAddress, body: string, signal: AbortSignal): Promise<AgentOutcome>;
  /** Fetches a report; `known` is the last one, which an agent need not send again. Never rejects. */
  getReport(address: AgentAddress, signal: AbortSignal, known?: KnownReport): Promise<AgentOutcome>;
  /** Uses other certificates from the next call on; calls on the way end undisturbed. */
  reload(material: TlsMaterial): void;
  /** Ends when the calls on the way have ended. */
  close(): Promise<void>;
}

export interface AgentClientOptions {
  material: TlsMaterial;
  /** The longest that a call may take, from connecting to the last byte of the answer. */
  deadlineMs: number;
  /** Milliseconds since 1970: no report is believed about what is still to come. */
  wallMs: () => number;
  /** A connection ended, at rest or in a call; the agent of that origin may have restarted. */
  onDisconnect: (origin: string) => void;
}

/** Of the largest report that the schema has, with the longest names everywhere, this is one and a half times as much. */
const MAX_ANSWER_BYTES = 2 * 1024 * 1024;
/** Longer than the time between two reports, so that the next one finds the connection of the last. */
const KEEP_ALIVE_MS = 65_000;
/** id-kp-serverAuth, RFC 5280 section 4.2.1.12 */
const SERVER_AUTH = "1.3.6.1.5.5.7.3.1";

/**
 * Calls agents over mTLS, one kept-alive connection each. The peer must show a certificate of a trusted authority, for
 * servers, with the agents' DNS name; its IP address is not looked at, for pod addresses are in no certificate.
 */
export function createAgentClient(options: AgentClientOptions): AgentClient {
  const readReport = createReportReader();
  const checkRefusal = Compile(Refusal);
  const closing = new Set<Promise<void>>();
  /** Origins where the last answer was another agent's. The connection may stay with that one for good: none is kept. */
  const strangers = new Set<string>();
  let dispatcher = connectWith(options.material);

  function connectWith(material: TlsMaterial): Agent {
    const agent = new Agent({
      connections: 1,
      allowH2: false,
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: options.deadlineMs,
      bodyTimeout: options.deadlineMs,
      maxResponseSize: MAX_ANSWER_BYTES,
      connect: {
        ...toTlsOptions(material),
        servername: AGENT_DNS_NAME,
        checkServerIdentity: checkAgentIdentity,
        rejectUnauthorized: true,
        timeout: options.deadlineMs,
        // All agents have one name, by which sessions are kept: one agent would be offered another's.
        maxCachedSessions: 0,
      },
    });
    agent.on("disconnect", (origin) => {
      if (agent === dispatcher) options.onDisconnect(new URL(String(origin)).origin);
    });
    return agent;
  }

  function retire(agent: Agent): Promise<void> {
    const closed = agent.close().finally(() => closing.delete(closed));
    closing.add(closed);
    return closed;
  }

  async function call(
    address: AgentAddress,
    request: { method: "GET" | "PUT"; path: string; body?: string },
    signal: AbortSignal,
  ): Promise<AgentOutcome> {
    const { origin } = new URL(address.url);
    try {
      const { statusCode, body } = await dispatcher.request({
        ...request,
        origin,
        reset: strangers.has(origin),
        headers: request.body === undefined ? {} : { "content-type": "application/json" },
        signal: AbortSignal.any([signal, AbortSignal.timeout(options.deadlineMs)]),
      });
      const outcome = readAnswer(address, statusCode, await body.text());
      if (outcome.outcome === "misdirected") strangers.add(origin);
      else strangers.delete(origin);
      return outcome;
    } catch (cause) {
      return { outcome: "failed", cause: cause as Error };
    }
  }

  function readAnswer(address: AgentAddress, status: number, text: string): AgentOutcome {
    if (status === NOT_MODIFIED) return { outcome: "unchanged" };
    const answer = parseJson(text);
    if (status === 200) {
      const read = readReport(answer, options.wallMs());
      if (!read.ok) return fail(`answered no report: ${read.problem}`);
      const { report, dropped } = read;
      if (report.node !== address.node || report.podUID !== address.podUID) {
        const other = plain(`node ${report.node}, pod ${report.podUID}`);
        return { outcome: "misdirected", error: `the agent of ${other}, answered` };
      }
      return { outcome: "accepted", report, dropped };
    }
    if (status === REFUSED.documentNeeded) return { outcome: "documentNeeded" };
    const refusal = checkRefusal.Check(answer) ? answer : undefined;
    const error = plain(refusal?.error ?? "no reason given");
    if (status === REFUSED.misdirected) return { outcome: "misdirected", error };
    if (status === REFUSED.invalid) {
      return { outcome: "invalid", field: refusal?.field === undefined ? undefined : plain(refusal.field), error };
    }
    if (status === REFUSED.older && refusal?.term !== undefined && refusal.revision !== undefined) {
      return { outcome: "older", term: refusal.term, revision: refusal.revision };
    }
    return fail(`answered ${status}: ${error}`);
  }

  return {
    putDirective: (address, body, signal) => call(address, { method: "PUT", path: DIRECTIVE_PATH, body }, signal),
    getReport: (address, signal, known) =>
      call(address, { method: "GET", path: `${REPORT_PATH}${known === undefined ? "" : reportQuery(known)}` }, signal),
    reload(material) {
      const retired = dispatcher;
      dispatcher = connectWith(material);
      void retire(retired);
    },
    async close() {
      await Promise.all([retire(dispatcher), ...closing]);
    },
  };
}

/**
 * One context for all connections: each would else read the certificates anew, and keep what it read. Certificates that
 * cannot be read are given to each connection as they are: then calls fail for them, and not whoever brings them.
 */
function toTlsOptions({ certificate, key, authority }: TlsMaterial): ConnectionOptions {
  const options = { cert: certificate, key, ca: authority, minVersion: "TLSv1.3" } as const;
  try {
    return { secureContext: createSecureContext(options) };
  } catch {
    return options;
  }
}

/** A certificate without any extended key usage would pass for a server's; agents' always have it. */
function checkAgentIdentity(_host: string, certificate: PeerCertificate): Error | undefined {
  const problem = checkServerIdentity(AGENT_DNS_NAME, certificate);
  if (problem !== undefined) return problem;
  if (certificate.ext_key_usage?.includes(SERVER_AUTH)) return undefined;
  return new Error("the agent's certificate is not for servers: it lacks the extended key usage serverAuth");
}

function fail(message: string): AgentOutcome {
  return { outcome: "failed", cause: new Error(message) };
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
