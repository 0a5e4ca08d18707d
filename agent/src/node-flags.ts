/**
 * What the agent's Node is started with. An agent lies on every node and mostly waits: memory matters more there than
 * speed. V8 takes these only on its command line for certain; what is changed once it runs may do nothing, or harm
 * (nodejs.org/api/v8.html, v8.setFlagsFromString). What they save is in docs/performance.md.
 */
export const NODE_FLAGS: readonly string[] = [
  "--optimize-for-size",
  "--max-semi-space-size=1",
  // Collects when the heap has grown by a fifth, and not when it has doubled.
  "--heap-growing-percent=20",
  // Without the last of its compilers, the largest: the one before makes most of the speed.
  "--no-opt",
];

/**
 * What the agent's Node has in its environment. One arena of glibc's allocator serves all threads; each would else keep
 * for itself what it was given once (mallopt(3), M_ARENA_MAX). Other libraries do not read it.
 */
export const NODE_ENVIRONMENT: Readonly<Record<string, string>> = { MALLOC_ARENA_MAX: "1" };
