import { describe, expect, it } from "vitest";
import { createHealth } from "../src/health.ts";

function aHealth() {
  const clock = { nowMs: 5000 };
  return { clock, health: createHealth({ nowMs: () => clock.nowMs }) };
}

describe("the health of a coordinator", () => {
  it("is not ready before it has used the Lease, while that fails, and while its leader lacks something", () => {
    const { health } = aHealth();
    expect(health.notReady()).toBe("the Lease has not been read yet");
    health.leaseUsed(undefined);
    expect(health.notReady()).toBeUndefined();
    health.setLeader(() => "no certificates");
    expect(health.notReady()).toBe("no certificates");
    health.leaseUsed("the Lease is gone");
    expect(health.notReady()).toBe("the Lease is gone");
    health.leaseUsed(undefined);
    health.setLeader(undefined);
    expect(health.notReady()).toBeUndefined();
  });

  it("is not alive when the election has not used the Lease for a minute, and says for how long", () => {
    const { health, clock } = aHealth();
    clock.nowMs += 59_999;
    expect(health.notAlive()).toBeUndefined();
    clock.nowMs += 1;
    expect(health.notAlive()).toBe("the election last used its Lease 60 s ago");
    health.leaseUsed("it fails");
    expect(health.notAlive()).toBeUndefined();
  });

  it("complains once a minute of what has been missing for a minute, and begins anew once it was ready", () => {
    const { health, clock } = aHealth();
    const complaints: Array<[number, string]> = [];
    const pass = (seconds: number) => {
      for (let second = 0; second < seconds; second += 1) {
        const problem = health.complaint();
        if (problem !== undefined) complaints.push([clock.nowMs - 5000, problem]);
        clock.nowMs += 1000;
      }
    };
    health.leaseUsed("the Lease is gone");
    pass(150);
    expect(complaints).toEqual([
      [60_000, "the Lease is gone"],
      [120_000, "the Lease is gone"],
    ]);
    health.leaseUsed(undefined);
    pass(10);
    health.leaseUsed("the Lease is gone");
    pass(60);
    expect(complaints).toHaveLength(2);
    pass(1);
    expect(complaints).toHaveLength(3);
  });
});
