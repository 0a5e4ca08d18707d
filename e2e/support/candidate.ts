// A candidate in a process of its own, for tests that freeze it: candidate.ts KUBECONFIG NAMESPACE LEASE IDENTITY.
// Prints a line of JSON for everything it does; while it believes that it leads, one each 50 ms.
import { setTimeout as sleep } from "node:timers/promises";
import { createKubeClient, loadKubeAccess } from "@cro/coordinator/kube/client";
import { runElection } from "@cro/coordinator/leader/election";

const [kubeconfig = "", namespace = "", name = "", identity = ""] = process.argv.slice(2);
const nowMs = () => performance.now();
const say = (line: object) => process.stdout.write(`${JSON.stringify({ atMs: Date.now(), ...line })}\n`);
const shutdown = new AbortController();
process.once("SIGTERM", () => shutdown.abort());

const client = createKubeClient(await loadKubeAccess({ kubeconfig, nowMs }), { userAgent: "candidate" });
await runElection({
  client,
  lease: { namespace, name },
  identity,
  signal: shutdown.signal,
  nowMs,
  now: () => new Date(),
  random: Math.random,
  log: { info: () => {}, warn: () => {} },
  async lead({ term, holds, signal }) {
    say({ event: "leading", term });
    while (!signal.aborted) {
      // What a real leader does before it acts.
      if (holds()) say({ event: "acting", term });
      await sleep(50);
    }
    say({ event: "stopped", term, reason: signal.reason });
  },
});
await client.close();
