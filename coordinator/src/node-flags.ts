/**
 * What the coordinator's Node is started with. It makes much garbage that V8 would let lie for long; collecting it sooner
 * saves a third of its memory on a large cluster, for more CPU time. What they save is in docs/performance.md.
 */
export const NODE_FLAGS: readonly string[] = [
  "--max-semi-space-size=4",
  // Collects when the heap has grown by 30 %, and not when it has doubled.
  "--heap-growing-percent=30",
];
