import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const FIXTURES = new URL("../../../fixtures/", import.meta.url);

/** The archives that a real kubelet, containerd and CRIU left, under their own names. */
export function realArchives(): { file: string; bytes: Buffer }[] {
  return readdirSync(FIXTURES)
    .filter((name) => name.endsWith(".tar.gz"))
    .map((name) => ({
      file: name.slice(0, -".gz".length),
      bytes: gunzipSync(readFileSync(new URL(encodeURIComponent(name), FIXTURES))),
    }));
}
