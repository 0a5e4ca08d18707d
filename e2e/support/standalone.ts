import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { archiveTime, writeArchive } from "../../agent/test/support/archives.ts";
import { aFolder, freePort, type Running, run } from "./processes.ts";

/** A policy resource in a file of its own; JSON is YAML. */
export function aPolicyFile(spec: unknown, folder = aFolder()): string {
  const file = join(folder, "policy.yaml");
  writePolicy(file, spec);
  return file;
}

export function writePolicy(file: string, spec: unknown): void {
  const metadata = { name: "test" };
  writeFileSync(file, JSON.stringify({ apiVersion: "criu.org/v1", kind: "CheckpointRestoreOperator", metadata, spec }));
}

/** So many archives of one container, a minute apart, the oldest first, all of the last hours. */
export function series(folder: string, count: number, parts: { container?: string; startMs?: number } = {}): string[] {
  const { container = "main", startMs = Date.now() - 6 * 3_600_000 } = parts;
  return Array.from({ length: count }, (_, index) => {
    const timeMs = startMs + index * 60_000;
    return writeArchive(folder, { container, time: archiveTime(timeMs), mtimeMs: timeMs });
  });
}

/** Coordinator and agent as processes, on a policy file and a directory, as `npm start` runs them. */
export async function startPair(options: { policy: string; directory: string; coordinatorArgs?: string[] }) {
  const folder = aFolder();
  const [api, agentMetrics, coordinatorMetrics] = [await freePort(), await freePort(), await freePort()];
  for (const name of ["agent", "coordinator"]) mkdirSync(join(folder, name));
  const identity = { node: "node-a", podUID: "pod-a" };
  const startAgent = (how: { prefix?: string[]; args?: string[] } = {}): Running =>
    run(
      "agent",
      [
        "serve",
        ...["--node-name", identity.node, "--pod-uid", identity.podUID],
        ...["--certs-dir", join(folder, "certs/agent"), "--state-dir", join(folder, "agent")],
        ...["--api-address", `127.0.0.1:${api}`, "--metrics-address", `127.0.0.1:${agentMetrics}`],
        ...(how.args ?? []),
      ],
      how,
    );
  const startCoordinator = (): Running =>
    run("coordinator", [
      "serve",
      ...["--policy-file", options.policy, "--directory", options.directory],
      ...["--agent", `https://127.0.0.1:${api}`, "--agent-node", identity.node, "--agent-pod-uid", identity.podUID],
      ...["--state-dir", join(folder, "coordinator"), "--certs-dir", join(folder, "certs")],
      ...["--metrics-address", `127.0.0.1:${coordinatorMetrics}`],
      ...(options.coordinatorArgs ?? []),
    ]);
  return {
    folder,
    certificates: join(folder, "certs"),
    identity,
    startAgent,
    startCoordinator,
    agentApi: `https://127.0.0.1:${api}`,
    apiPort: api,
    agentUrl: `http://127.0.0.1:${agentMetrics}`,
    coordinatorUrl: `http://127.0.0.1:${coordinatorMetrics}`,
  };
}
