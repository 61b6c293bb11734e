// Builds the entries that use the client and are no part of it: `signald/react`, `signald/ai-sdk`, `signald/webrtc` and `signald/test`.
// They stand apart from the build of the client, because they touch objects of others, whose properties must keep their names.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

export const SUBPATHS = ["react", "ai_sdk", "webrtc", "test"];

export async function buildSubpaths(outdir) {
  await build({
    absWorkingDir: dirname(fileURLToPath(import.meta.url)),
    entryPoints: SUBPATHS.map((name) => `src/${name}/index.ts`),
    outbase: "src",
    outdir,
    bundle: true,
    // The rooms of a client are known to one module only.
    external: ["react", "../rooms.js"],
    format: "esm",
    target: "es2022",
    platform: "neutral",
    sourcemap: "linked",
    sourcesContent: false,
  });
}
