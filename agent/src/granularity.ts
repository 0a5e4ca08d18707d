/** How finely archives are told apart in metrics: each step adds a label, and so as many series as there are names. */
export const GRANULARITIES = ["namespace", "pod", "container"] as const;
export type Granularity = (typeof GRANULARITIES)[number];
