import manifest from "../package.json" with { type: "json" };

/** The version of the whole project: its packages, image and chart share it. */
export const VERSION: string = manifest.version;
