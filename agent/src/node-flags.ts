/**
 * What the agent's Node is started with. An agent lies on every node and mostly waits: memory matters more there than
 * speed. V8 takes these only on its command line for certain; what is changed once it runs may do nothing, or harm
 * (nodejs.org/api/v8.html, v8.setFlagsFromString). What each of them saves is in docs/performance.md.
 */
export const NODE_FLAGS: readonly string[] = [
  "--optimize-for-size",
  "--max-semi-space-size=1",
  // Collects when the heap has grown by a twentieth, and not when it has doubled.
  "--heap-growing-percent=5",
];
