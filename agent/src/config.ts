import { parseDuration } from "@cro/shared/duration";
import { InvalidArgumentError } from "commander";
import { parseMoment } from "./moment.ts";

/** Where a server listens. */
export interface Address {
  host: string;
  port: number;
}

/** What `agent serve` was told. */
export interface ServeConfig {
  nodeName: string;
  podUid: string;
  certsDir: string;
  stateDir: string;
  /** Mounted directories in which a policy's directory must lie; none: any directory will do. */
  checkpointRoots: string[];
  apiAddress: Address;
  metricsAddress: Address;
  metricsGranularity: string;
  incompleteAfterMs: number;
  /** How long a policy that was accepted before this start waits for the coordinator before it acts. */
  waitForCoordinatorMs: number;
  logLevel: string;
}

/** Reads `HOST:PORT`, an IPv6 host in brackets. The error tells what is accepted. */
export function parseAddress(value: string): Address {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(value);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new InvalidArgumentError("Write HOST:PORT, e.g. 0.0.0.0:9810 or [::]:9810.");
  }
  return { host: match[1] ?? match[2] ?? "", port };
}

/** Reads a duration such as `10m`; in milliseconds. */
export function parseMilliseconds(value: string): number {
  const parsed = parseDuration(value);
  if (!parsed.ok) throw new InvalidArgumentError("Write a duration, e.g. 90s or 10m.");
  return parsed.milliseconds;
}

/** Reads a moment such as `2027-01-31` or `2027-01-31T12:00:00Z`; in milliseconds since 1970. */
export function parseTime(value: string): number {
  const timeMs = parseMoment(value);
  if (timeMs !== undefined) return timeMs;
  throw new InvalidArgumentError("Write a date, or a time with its zone, e.g. 2027-01-31 or 2027-01-31T12:00:00Z.");
}

/** Reads an absolute path. */
export function parseAbsolutePath(value: string): string {
  if (!value.startsWith("/")) throw new InvalidArgumentError("The path must be absolute.");
  return value;
}
