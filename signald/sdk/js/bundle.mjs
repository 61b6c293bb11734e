// Bundles one program for Node, on what `node build.mjs` has built: `node bundle.mjs SOURCE OUTPUT`. Its packages stay outside, and are found from OUTPUT.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { onDist } from "./built.mjs";

const [source, output] = process.argv.slice(2);
await build({
  absWorkingDir: dirname(fileURLToPath(import.meta.url)),
  entryPoints: [source],
  outfile: output,
  bundle: true,
  format: "esm",
  platform: "node",
  target: "node20",
  external: ["ws"],
  plugins: [onDist],
  sourcemap: "inline",
});
