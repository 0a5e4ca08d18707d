import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { digestOf } from "@cro/shared/policy/document";
import { describe, expect, it, onTestFinished } from "vitest";
import { archiveBytes, archiveName, archivesIn, archiveTime } from "../../agent/test/support/archives.ts";
import { aPki } from "../../coordinator/test/support/agent-peer.ts";
import { aDirective, putDirective, startLoneAgent } from "../support/lone-agent.ts";
import { policyDocument } from "../support/policy-document.ts";
import { aFolder, read, samples, until } from "../support/processes.ts";

const CONTAINERS = 5;
const OF_EACH = 2001;
const PATIENCE_MS = 120_000;

const { authority, agent: agentLeaf, coordinator: coordinatorLeaf } = await aPki();

function aWrittenArchive(directory: string, container: string, timeMs: number): string {
  const file = archiveName({ container, time: archiveTime(timeMs) });
  writeFileSync(join(directory, file), archiveBytes({ container, pagesBytes: 0 }));
  return file;
}

/** Runs `chmod -R` over and over until it is ended. */
function chmodForEver(directory: string) {
  const script = 'while :; do chmod -R u=rwX,g=r,o= "$0"; chmod -R u=rwX,g=,o= "$0"; done';
  const child = spawn("sh", ["-c", script, directory], { stdio: "ignore" });
  const exited = once(child, "exit");
  const end = async () => {
    child.kill("SIGKILL");
    await exited;
  };
  onTestFinished(end);
  return { end };
}

describe("an agent that starts over 10,005 archives, under a policy that does not act at once", () => {
  it(
    "deletes none of them while chmod -R runs over and over, and then only what an arrival makes due",
    async () => {
      const root = aFolder();
      const startMs = Date.now() - 86_400_000;
      for (let container = 0; container < CONTAINERS; container += 1) {
        for (let at = 0; at < OF_EACH; at += 1) aWrittenArchive(root, `c${container}`, startMs + at * 1000);
      }
      const found = archivesIn(root);
      const document = { ...policyDocument({}), directory: root };
      const policy = { digest: digestOf(JSON.stringify(document)), document };
      const { port, metricsUrl } = await startLoneAgent({
        agentLeaf,
        authority,
        args: ["--checkpoint-root", root],
      });
      const changing = chmodForEver(root);
      expect((await putDirective(port, { authority, coordinatorLeaf }, aDirective({ policy }))).status).toBe(200);
      const isReady = async () => expect((await read(metricsUrl.replace("metrics", "readyz"))).status).toBe(200);
      await until(isReady, PATIENCE_MS);
      await changing.end();
      const isComplete = async () => {
        const seen = samples((await read(metricsUrl)).body);
        expect(seen.get('checkpoint_archives_state{state="complete"}')).toBe(found.length);
      };
      await until(isComplete, PATIENCE_MS);
      const arrived = aWrittenArchive(root, "c3", Date.now());
      const left = found.filter((file) => !file.includes("-c3-"));
      const newest = found.filter((file) => file.includes("-c3-")).slice(-9);
      // Plans are made one after the other: this one shows that those before deleted nothing.
      await until(() => expect(archivesIn(root)).toEqual([...left, ...newest, arrived].sort()), PATIENCE_MS);
    },
    3 * PATIENCE_MS,
  );
});
