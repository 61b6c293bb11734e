// The gate of the size: what a page loads of the entry `.`, minified and gzipped. The status is 1 above the limit.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { mangleProps } from "./internal.mjs";

/** Of the whole client: a third of what the smallest bundle of a comparable service has. */
const MOST = 12 * 1024;

const { outputFiles } = await build({
  absWorkingDir: dirname(fileURLToPath(import.meta.url)),
  entryPoints: ["src/index.ts"],
  bundle: true,
  minify: true,
  write: false,
  format: "esm",
  target: "es2022",
  platform: "neutral",
  mangleProps,
});
const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
console.log(JSON.stringify({ minified: outputFiles[0].contents.length, gzip: size, most: MOST }));
process.exitCode = size > MOST ? 1 : 0;
