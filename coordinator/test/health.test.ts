import { describe, expect, it } from "vitest";
import { createHealth } from "../src/health.ts";

function aHealth() {
  const clock = { nowMs: 5000 };
  return { clock, health: createHealth({ nowMs: () => clock.nowMs }) };
}

/** A Lease that could be used, and was led at that moment. */
const led = (ledAtMs: number) => ({ problem: undefined, ledAtMs });

describe("the health of a coordinator", () => {
  it("is not ready when nobody has led for a minute, says why, and complains of it at once and then once a minute", () => {
    const { health, clock } = aHealth();
    health.leaseUsed(led(4000));
    clock.nowMs += 59_999;
    health.leaseUsed({ problem: undefined, ledAtMs: undefined });
    expect([health.notReady(), health.complaint()]).toEqual([undefined, undefined]);
    clock.nowMs += 1;
    expect(health.notReady()).toBe("no coordinator has been seen to lead for 60 s");
    expect(health.complaint()).toBe("no coordinator has been seen to lead for 60 s");
    health.leaseUsed({ problem: "it may not be written", ledAtMs: undefined });
    clock.nowMs += 59_999;
    expect(health.complaint()).toBeUndefined();
    clock.nowMs += 1;
    expect(health.complaint()).toBe("no coordinator has been seen to lead for 120 s: it may not be written");
    health.leaseUsed(led(clock.nowMs - 2000));
    expect([health.notReady(), health.complaint()]).toEqual([undefined, undefined]);
  });

  it("is not ready before it has used the Lease, while that fails, and while its leader lacks something", () => {
    const { health, clock } = aHealth();
    expect(health.notReady()).toBe("the Lease has not been read yet");
    health.leaseUsed(led(clock.nowMs));
    expect(health.notReady()).toBeUndefined();
    health.setLeader(() => "no certificates");
    expect(health.notReady()).toBe("no certificates");
    health.leaseUsed({ problem: "the Lease is gone", ledAtMs: clock.nowMs });
    expect(health.notReady()).toBe("the Lease is gone");
    health.leaseUsed(led(clock.nowMs));
    health.setLeader(undefined);
    expect(health.notReady()).toBeUndefined();
  });

  it("is not alive when the election has not used the Lease for a minute, and says for how long", () => {
    const { health, clock } = aHealth();
    clock.nowMs += 59_999;
    expect(health.notAlive()).toBeUndefined();
    clock.nowMs += 1;
    expect(health.notAlive()).toBe("the election last used its Lease 60 s ago");
    health.leaseUsed({ problem: "it fails", ledAtMs: clock.nowMs });
    expect(health.notAlive()).toBeUndefined();
  });

  it("complains once a minute of what has been missing for a minute, and begins anew once it was ready", () => {
    const { health, clock } = aHealth();
    const complaints: Array<[number, string]> = [];
    const pass = (seconds: number) => {
      for (let second = 0; second < seconds; second += 1) {
        health.leaseUsed(led(clock.nowMs));
        const problem = health.complaint();
        if (problem !== undefined) complaints.push([clock.nowMs - 5000, problem]);
        clock.nowMs += 1000;
      }
    };
    health.setLeader(() => "no certificates");
    pass(150);
    expect(complaints).toEqual([
      [60_000, "no certificates"],
      [120_000, "no certificates"],
    ]);
    health.setLeader(undefined);
    pass(10);
    health.setLeader(() => "no certificates");
    pass(60);
    expect(complaints).toHaveLength(2);
    pass(1);
    expect(complaints).toHaveLength(3);
  });
});
