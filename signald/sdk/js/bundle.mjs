// Bundles one program for Node: `node bundle.mjs SOURCE OUTPUT`. Its packages stay outside, and are found from OUTPUT.
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

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
  sourcemap: "inline",
});
