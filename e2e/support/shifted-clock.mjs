// Preloaded into a process: its clocks run ahead of the machine's by what CLOCK_FILE says at its start and at each SIGUSR2.
// What was taken over last is told in CLOCK_FILE.taken.
import { readFileSync, renameSync, writeFileSync } from "node:fs";

const file = process.env.CLOCK_FILE;
const MachineDate = Date;
const machineMonotonicMs = performance.now.bind(performance);
let shift;

function takeOver() {
  const text = readFileSync(file, "utf8");
  shift = JSON.parse(text);
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, `${file}.taken`);
}

globalThis.Date = class ShiftedDate extends MachineDate {
  constructor(...args) {
    if (args.length === 0) super(ShiftedDate.now());
    else super(...args);
  }
  static now() {
    return MachineDate.now() + shift.wallMs;
  }
};
performance.now = () => machineMonotonicMs() + shift.monotonicMs;

takeOver();
process.on("SIGUSR2", takeOver);
