// Imported before anything else, for it is the loading of the rest that it makes smaller. An agent lies on every node and
// mostly waits: memory matters more there than speed. What each line saves is in docs/performance.md.
import { setFlagsFromString } from "node:v8";

setFlagsFromString("--optimize-for-size");
setFlagsFromString("--max-semi-space-size=1");
// Collects when the heap has grown by a twentieth, and not when it has doubled.
setFlagsFromString("--heap-growing-percent=5");
