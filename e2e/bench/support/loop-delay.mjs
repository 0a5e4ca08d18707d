// Preloaded into a process: writes the longest times that its event loop was kept busy to LOOP_DELAY_FILE, on SIGUSR2.
import { writeFileSync } from "node:fs";

const BEAT_MS = 2;
let last = performance.now();
let worst = [];
setInterval(() => {
  const now = performance.now();
  const late = now - last - BEAT_MS;
  if (late > 5) worst.push(late);
  last = now;
}, BEAT_MS).unref();

process.on("SIGUSR2", () => {
  writeFileSync(process.env.LOOP_DELAY_FILE, JSON.stringify(worst.sort((a, b) => b - a).slice(0, 100)));
  worst = [];
});
