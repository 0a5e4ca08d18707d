import { readFile } from "node:fs/promises";
import { KubeConfig } from "@kubernetes/client-node";
import { Agent, type Dispatcher } from "undici";

/** Where the API server is, and how to be known to it. */
export interface KubeAccess {
  /** `https://HOST:PORT`, and a path where it has one. */
  server: string;
  tls: {
    ca?: string | Buffer;
    cert?: string | Buffer;
    key?: string | Buffer;
    servername?: string;
    rejectUnauthorized?: boolean;
  };
  /** The headers that authenticate a request made now. Rejects where a credential cannot be had. */
  headers(): Promise<Record<string, string>>;
  /** The namespace of the kubeconfig's context, or of the pod that this runs in. */
  namespace?: string;
}

/** A `Status` of the API server (k8s.io/apimachinery/pkg/apis/meta/v1). */
export interface KubeStatus {
  reason?: string;
  message?: string;
  code?: number;
  details?: { name?: string; kind?: string; group?: string; uid?: string; retryAfterSeconds?: number };
}

/** Why a request brought nothing. */
export interface KubeFailure {
  ok: false;
  /**
   * The API server's own reason (`NotFound`, `Conflict`, `Expired` …); `HTTP` where the answer was no Status, so that it
   * need not come from the API server; `Malformed` where a 200 was not what was asked for; `Timeout`, `Aborted` (by the
   * caller's signal) and `Unreachable` where no whole answer came.
   */
  reason: string;
  /** For the log; names the request. */
  message: string;
  /** The HTTP status, where there was one. */
  status?: number;
  /** The Status, where the API server sent one. */
  answer?: KubeStatus;
  /** How long the server asks to be left alone, in milliseconds. */
  retryAfterMs?: number;
}

export type KubeResult<T> = { ok: true; value: T } | KubeFailure;

export interface KubeRequest {
  method?: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** `/api/v1/…`, without a query. */
  path: string;
  query?: Record<string, string | number | boolean | undefined>;
  body?: unknown;
  /** Default `application/json`, and a merge patch for PATCH. */
  contentType?: string;
  accept?: string;
  /** The `kind` that the answer must have; any other 200 is `Malformed`. */
  kind?: string;
  /** How long the whole answer may take. Default 10 s. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** An open answer, of which lines come as long as it lasts. */
export interface KubeStream {
  body: AsyncIterable<Buffer>;
}

export interface KubeClient {
  /** Sends one request and reads its JSON. Never rejects and never repeats a request by itself. */
  request<T>(request: KubeRequest): Promise<KubeResult<T>>;
  /** Opens a stream; timeoutMs covers the time until its headers, the signal its whole life. */
  stream(request: KubeRequest & { signal: AbortSignal }): Promise<KubeResult<KubeStream>>;
  /** Cuts every connection. */
  close(): Promise<void>;
}

/** The parts of an object that every kind has. */
export interface KubeObject {
  apiVersion?: string;
  kind?: string;
  metadata: {
    name: string;
    namespace?: string;
    uid: string;
    resourceVersion: string;
    generation?: number;
    creationTimestamp?: string;
    deletionTimestamp?: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
  };
}

const DEFAULT_TIMEOUT_MS = 10_000;
/** The kubelet renews a token long before it ends; this is how late a new one may be noticed. */
const TOKEN_REREAD_MS = 10_000;
const MERGE_PATCH = "application/merge-patch+json";
/** Of an answer that is no Status, as much goes into a message. */
const MAX_QUOTED_TEXT = 200;

/**
 * Reads the access to the API server: from the kubeconfig file given; or else from the pod that this runs in; or else as
 * kubectl would. Throws where there is none.
 * @param nowMs a monotonic clock
 */
export async function loadKubeAccess({
  kubeconfig,
  serviceAccountRoot = "",
  nowMs,
}: {
  kubeconfig?: string;
  /** What the path of the pod's service account is relative to. */
  serviceAccountRoot?: string;
  nowMs: () => number;
}): Promise<KubeAccess> {
  const config = new KubeConfig();
  const tokenFile = `${serviceAccountRoot}/var/run/secrets/kubernetes.io/serviceaccount/token`;
  if (kubeconfig !== undefined) config.loadFromFile(kubeconfig);
  else if (await readFile(tokenFile).catch(() => undefined)) config.loadFromCluster(serviceAccountRoot);
  else config.loadFromDefault();
  const cluster = config.getCurrentCluster();
  if (!cluster?.server.startsWith("https://")) {
    throw new Error(
      `no access to a Kubernetes API server over HTTPS (${cluster?.server ?? "the kubeconfig names no cluster"}); set KUBECONFIG or run in a pod with a service account`,
    );
  }
  const { ca, cert, key, servername, rejectUnauthorized } = await configuredOptions(config);
  const namespace = config.getContextObject(config.getCurrentContext())?.namespace;
  const mounted = (config.getCurrentUser()?.authProvider?.config as { tokenFile?: string } | undefined)?.tokenFile;
  return {
    server: cluster.server.replace(/\/+$/, ""),
    tls: withoutUndefined({ ca, cert, key, servername, rejectUnauthorized }),
    headers:
      mounted === undefined ? async () => (await configuredOptions(config)).headers : tokenHeaders(mounted, nowMs),
    ...(namespace === undefined ? {} : { namespace }),
  };
}

type ConfiguredOptions = KubeAccess["tls"] & { headers: Record<string, string>; auth?: string };

/** What the library makes of the kubeconfig: TLS options and, from whatever plugin the user has, headers. */
async function configuredOptions(config: KubeConfig): Promise<ConfiguredOptions> {
  const options: ConfiguredOptions = { headers: {} };
  await config.applyToHTTPSOptions(options as Parameters<KubeConfig["applyToHTTPSOptions"]>[0]);
  if (options.auth !== undefined) {
    options.headers.Authorization = `Basic ${Buffer.from(options.auth).toString("base64")}`;
  }
  return options;
}

/**
 * The token of a pod's service account, read again from its file as it is replaced there. The library would do so by
 * the wall clock, which may be set back, and keeps the file's final newline.
 */
function tokenHeaders(file: string, nowMs: () => number): KubeAccess["headers"] {
  let headers: Record<string, string> = {};
  let readAtMs = Number.NEGATIVE_INFINITY;
  return async () => {
    if (nowMs() - readAtMs >= TOKEN_REREAD_MS) {
      headers = { Authorization: `Bearer ${(await readFile(file, "utf8")).trim()}` };
      readAtMs = nowMs();
    }
    return headers;
  };
}

/** A client of one API server. Connections are kept alive; how many requests run at once is up to the callers. */
export function createKubeClient(access: KubeAccess, { userAgent }: { userAgent: string }): KubeClient {
  const agent = new Agent({
    connect: { ...access.tls, keepAlive: true, keepAliveInitialDelay: 15_000, timeout: DEFAULT_TIMEOUT_MS },
    keepAliveTimeout: 30_000,
    // Every request has a deadline of its own, and a watch may be silent for long.
    headersTimeout: 0,
    bodyTimeout: 0,
  });

  async function send(request: KubeRequest, signal: AbortSignal): Promise<Dispatcher.ResponseData> {
    const { method = "GET", path, query = {}, body, accept = "application/json" } = request;
    const url = new URL(access.server + path);
    // A path that means another one than it reads came from no kubePath, and may name what nobody asked for.
    if (!url.href.endsWith(path) || url.search !== "" || url.hash !== "") {
      throw new Error(`${JSON.stringify(path)} is no plain path`);
    }
    for (const [key, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(key, String(value));
    const headers: Record<string, string> = { ...(await access.headers()), accept, "user-agent": userAgent };
    if (body !== undefined) {
      headers["content-type"] = request.contentType ?? (method === "PATCH" ? MERGE_PATCH : "application/json");
    }
    return agent.request({
      origin: url.origin,
      path: url.pathname + url.search,
      method,
      headers,
      signal,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  }

  return {
    async request<T>(request: KubeRequest): Promise<KubeResult<T>> {
      const deadline = AbortSignal.timeout(Math.max(0, Math.ceil(request.timeoutMs ?? DEFAULT_TIMEOUT_MS)));
      try {
        const signal = request.signal === undefined ? deadline : AbortSignal.any([request.signal, deadline]);
        const response = await send(request, signal);
        const text = await response.body.text();
        return isSuccess(response) ? readObject<T>(request, text) : refusal(request, response, text);
      } catch (cause) {
        return noAnswer(request, deadline, cause);
      }
    },

    async stream(request) {
      const deadline = new AbortController();
      const timer = setTimeout(() => deadline.abort(), request.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      try {
        const response = await send(request, AbortSignal.any([request.signal, deadline.signal]));
        if (isSuccess(response)) return { ok: true, value: { body: response.body } };
        return refusal(request, response, await response.body.text());
      } catch (cause) {
        return noAnswer(request, deadline.signal, cause);
      } finally {
        clearTimeout(timer);
      }
    },

    close: () => agent.destroy(),
  };
}

/**
 * A path in which each inserted value is one segment, whatever it holds: names may come from anybody. Throws for what
 * no encoding makes a name: an empty one, `.` and `..`, which every reader of a URL resolves.
 */
export function kubePath(texts: TemplateStringsArray, ...segments: string[]): string {
  return texts.reduce((path, text, index) => {
    const segment = segments[index - 1] ?? "";
    if (segment === "" || segment === "." || segment === "..") {
      throw new Error(`${JSON.stringify(segment)} is no segment of a path`);
    }
    return `${path}${encodeURIComponent(segment)}${text}`;
  });
}

/**
 * Whether an answer proves that an object does not exist: it must be the API server's own word on this very object. A
 * proxy's 404, or one about the whole resource, proves nothing.
 * @param object.kind the resource's plural name, as in `pods`
 */
export function provesAbsence(failure: KubeFailure, object: { kind: string; name: string }): boolean {
  const { status, answer } = failure;
  return (
    status === 404 &&
    answer?.reason === "NotFound" &&
    answer.details?.kind === object.kind &&
    answer.details.name === object.name
  );
}

/** A failure about a request, for checks that the answer did not stand. */
export function malformed(request: Pick<KubeRequest, "method" | "path">, what: string): KubeFailure {
  return { ok: false, reason: "Malformed", message: `${describeRequest(request)}: ${what}` };
}

function isSuccess({ statusCode }: Dispatcher.ResponseData): boolean {
  return statusCode >= 200 && statusCode < 300;
}

function readObject<T>(request: KubeRequest, text: string): KubeResult<T> {
  const value = parseObject(text);
  if (value === undefined) return malformed(request, `the answer is no JSON object: ${quote(text)}`);
  if (request.kind !== undefined && value.kind !== request.kind) {
    return malformed(request, `the answer is a ${JSON.stringify(value.kind)}, not a ${request.kind}`);
  }
  return { ok: true, value: value as T };
}

function refusal(request: KubeRequest, response: Dispatcher.ResponseData, text: string): KubeFailure {
  const object = parseObject(text);
  const answer = object?.kind === "Status" && object.apiVersion === "v1" ? (object as KubeStatus) : undefined;
  const failure: KubeFailure = {
    ok: false,
    reason: answer?.reason || "HTTP",
    message: `${describeRequest(request)}: ${response.statusCode} ${answer?.message ?? quote(text)}`,
    status: response.statusCode,
  };
  if (answer !== undefined) failure.answer = answer;
  const seconds = Number(response.headers["retry-after"] ?? answer?.details?.retryAfterSeconds);
  if (seconds >= 0) failure.retryAfterMs = seconds * 1000;
  return failure;
}

function noAnswer(request: KubeRequest, deadline: AbortSignal, cause: unknown): KubeFailure {
  const reason = request.signal?.aborted ? "Aborted" : deadline.aborted ? "Timeout" : "Unreachable";
  const seen = reason === "Unreachable" ? (cause as Error).message : reason.toLowerCase();
  return { ok: false, reason, message: `${describeRequest(request)}: ${seen}` };
}

function describeRequest({ method = "GET", path }: Pick<KubeRequest, "method" | "path">): string {
  return `${method} ${path}`;
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, MAX_QUOTED_TEXT));
}

function withoutUndefined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as T;
}
