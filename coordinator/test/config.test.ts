import { describe, expect, it } from "vitest";
import { parseArguments } from "../src/config.ts";

const REQUIRED = ["serve", "--policy-file", "p.yaml", "--state-dir", "/s", "--certs-dir", "/c"];
const AGENT = ["--agent", "https://127.0.0.1:9810", "--agent-node", "n", "--agent-pod-uid", "u"];

function parse(...args: string[]) {
  return parseArguments([...REQUIRED, ...AGENT, ...args]);
}

function problem(...args: string[]): string {
  const parsed = parseArguments(args);
  if (parsed.ok) throw new Error("it was accepted");
  expect(parsed.exitCode).toBe(2);
  return parsed.text;
}

describe("parseArguments", () => {
  it("fills in the defaults", () => {
    expect(parse()).toEqual({
      ok: true,
      config: {
        policyFile: "p.yaml",
        directory: undefined,
        isDryRun: false,
        agents: [{ url: "https://127.0.0.1:9810", node: "n", podUID: "u" }],
        stateDirectory: "/s",
        certificatesDirectory: "/c",
        lifetimes: { authorityMs: 730 * 86_400_000, leafMs: 90 * 86_400_000 },
        metricsAddress: { host: "127.0.0.1", port: 9812 },
        logLevel: "info",
      },
    });
  });

  it("reads every flag", () => {
    const parsed = parse(
      ...["--directory", "/archives", "--dry-run", "--metrics-address", "[::1]:0", "--log-level", "warn"],
      ...["--ca-lifetime", "10s", "--certificate-lifetime", "5s"],
      ...["--agent", "https://10.0.0.2:9810/", "--agent-node", "m", "--agent-pod-uid", "v"],
    );
    expect(parsed).toMatchObject({
      ok: true,
      config: {
        directory: "/archives",
        isDryRun: true,
        metricsAddress: { host: "::1", port: 0 },
        logLevel: "warn",
        lifetimes: { authorityMs: 10_000, leafMs: 5000 },
        agents: [{ node: "n" }, { url: "https://10.0.0.2:9810", node: "m", podUID: "v" }],
      },
    });
  });

  it.each([
    [["--directory", "relative"], /--directory "relative" is not accepted; give an absolute path/],
    [["--directory", "/a/../b"], /--directory/],
    [["--metrics-address", "9812"], /--metrics-address "9812" is not accepted; give HOST:PORT/],
    [["--metrics-address", "127.0.0.1:99999"], /--metrics-address/],
    [["--log-level", "loud"], /--log-level "loud" is not accepted; give one of fatal, .*info/],
    [["--ca-lifetime", "soon"], /--ca-lifetime "soon" is not a duration/],
    [["--certificate-lifetime", "1s"], /--certificate-lifetime "1s" is not accepted; give 3s/],
    [["--ca-lifetime", "1d"], /--certificate-lifetime "90d" is not accepted; --ca-lifetime, 1d, must be longer/],
    [["--agent", "http://127.0.0.1:1", "--agent-node", "m", "--agent-pod-uid", "v"], /--agent "http:.*e\.g\. https:/],
    [["--agent", "https://127.0.0.1:1/x", "--agent-node", "m", "--agent-pod-uid", "v"], /--agent "https:/],
    [["--agent", "nonsense", "--agent-node", "m", "--agent-pod-uid", "v"], /--agent "nonsense"/],
    [["--agent", "https://127.0.0.1:1"], /--agent-node is given 1 times and --agent 2/],
    [["--agent", "https://127.0.0.1:1", "--agent-node", "m"], /--agent-pod-uid is given 1 times/],
    [["--agent", "https://127.0.0.1:1", "--agent-node", "m", "--agent-pod-uid", "u"], /--agent-pod-uid "u".*its own/],
    [["--agent", "https://127.0.0.1:1", "--agent-node", "", "--agent-pod-uid", "v"], /--agent-node ""/],
    [["--unknown"], /unknown option '--unknown'/],
    [["excess"], /too many arguments/],
  ])("refuses %j, naming the flag, its value and what is accepted", (args, message) => {
    expect(problem(...REQUIRED, ...AGENT, ...args)).toMatch(message);
  });

  it("names what is missing", () => {
    expect(problem("serve")).toMatch(/--policy-file/);
    expect(problem(...REQUIRED)).toMatch(/--agent is missing/);
    expect(problem()).toMatch(/serve/);
    expect(problem("nonsense")).toMatch(/unknown command 'nonsense'/);
  });

  it("prints its version when it is asked for", () => {
    const version = expect.stringMatching(/^\d+\.\d+\.\d+\n$/);
    expect(parseArguments(["--version"])).toEqual({ ok: false, exitCode: 0, text: version });
  });

  it("prints its help, with examples, when it is asked for", () => {
    expect(parseArguments(["--help"])).toMatchObject({ ok: false, exitCode: 0, text: expect.stringMatching(/serve/) });
    expect(parseArguments(["serve", "--help"])).toMatchObject({
      ok: false,
      exitCode: 0,
      text: expect.stringMatching(/\$ coordinator serve --policy-file/),
    });
  });
});
