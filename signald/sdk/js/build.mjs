// Builds dist/: one file of ESM for each entry, and its types.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { mangleProps } from "./internal.mjs";
import { buildSubpaths } from "./subpaths.mjs";

/** Of one build, so that the client and its parts share each class. */
const ENTRIES = ["index", "rooms", "jobs", "blobs", "history", "sse"];

const here = dirname(fileURLToPath(import.meta.url));
rmSync(join(here, "dist"), { recursive: true, force: true });
const common = {
  absWorkingDir: here,
  outdir: "dist",
  bundle: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  platform: "neutral",
  sourcemap: "linked",
  sourcesContent: false,
};
await build({ ...common, entryPoints: ENTRIES.map((entry) => `src/${entry}.ts`), mangleProps });
await buildSubpaths("dist");
const tsc = join(dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");
execFileSync(process.execPath, [tsc, "-p", join(here, "tsconfig.json")], { stdio: "inherit" });
