import { describe, expect, it } from "vitest";
import { createHealth } from "../src/health.ts";

function aHealth() {
  const clock = { nowMs: 5000 };
  return { clock, health: createHealth({ nowMs: () => clock.nowMs }) };
}

describe("a coordinator's health", () => {
  it("is not ready before its Lease was read, and as long as it cannot be", () => {
    const { health } = aHealth();
    expect(health.notReady()).toBe("the Lease has not been read yet");
    health.leaseUsed(undefined);
    expect(health.notReady()).toBeUndefined();
    health.leaseUsed("GET lease: 403 forbidden");
    expect(health.notReady()).toBe("GET lease: 403 forbidden");
    health.leaseUsed(undefined);
    expect(health.notReady()).toBeUndefined();
  });

  it("asks of a leader what it needs besides, and of one that leads no more nothing", () => {
    const { health } = aHealth();
    health.leaseUsed(undefined);
    let missing: string | undefined = "the leader does not know all pods";
    health.setLeader(() => missing);
    expect(health.notReady()).toBe("the leader does not know all pods");
    health.leaseUsed("no Lease");
    expect(health.notReady()).toBe("no Lease");
    health.leaseUsed(undefined);
    missing = undefined;
    expect(health.notReady()).toBeUndefined();
    missing = "again";
    health.setLeader(undefined);
    expect(health.notReady()).toBeUndefined();
  });

  it("is alive as long as its election goes on, be it in vain", () => {
    const { health, clock } = aHealth();
    clock.nowMs += 59_999;
    expect(health.notAlive()).toBeUndefined();
    health.leaseUsed("timeout");
    clock.nowMs += 59_999;
    expect(health.notAlive()).toBeUndefined();
    clock.nowMs += 1;
    expect(health.notAlive()).toBe("the election last used its Lease 60 s ago");
    health.leaseUsed(undefined);
    expect(health.notAlive()).toBeUndefined();
  });
});
