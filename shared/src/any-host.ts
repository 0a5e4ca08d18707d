import { networkInterfaces } from "node:os";

/**
 * The host to listen on for every address of this machine: `::`, which takes IPv4 connections as well, so that it does on
 * clusters of either family; `0.0.0.0` where there is no IPv6 at all.
 */
export function anyHost(): "::" | "0.0.0.0" {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []);
  return addresses.some(({ family }) => family === "IPv6") ? "::" : "0.0.0.0";
}
