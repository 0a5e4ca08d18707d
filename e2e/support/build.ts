import { buildBundles } from "../../scripts/build.mjs";

/** Bundles the commands once, so that tests run what is shipped. */
export async function setup(): Promise<void> {
  await buildBundles();
}
