const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * Settles once this process is asked to end, with what asked: a signal, or "parent gone". The latter is for a process that
 * was started with an IPC channel, as `npm start` starts it: the channel closes however its parent ends, by SIGKILL too.
 */
export function whenAskedToStop(): Promise<NodeJS.Signals | "parent gone"> {
  return new Promise((resolve) => {
    // Not once: Ctrl-C in a terminal reaches every process of a chain, and each of them passes it on.
    for (const signal of SIGNALS) process.on(signal, resolve);
    if (process.connected === undefined) return;
    if (!process.connected) return resolve("parent gone");
    process.once("disconnect", () => resolve("parent gone"));
    // The listener alone would keep the process running.
    process.channel?.unref();
  });
}
