// Builds the tests and runs them: `node test.mjs [--tap] [--built] [NAME...]`; with --built on what is built, each the beginning of a file's name in test/.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { onDist } from "./built.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const wanted = process.argv.slice(2).filter((one) => !one.startsWith("--"));
const reporter = process.argv.includes("--tap") ? "tap" : "spec";
const names = readdirSync(join(here, "test")).filter((name) => name.endsWith(".test.ts") && (!wanted.length || wanted.some((one) => name.startsWith(one))));
// Beside the packages, so that `ws` is found from there.
const folder = mkdtempSync(join(here, "node_modules", ".tests-"));
try {
  await build({
    absWorkingDir: here,
    entryPoints: names.map((name) => join("test", name)),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node20",
    external: ["ws", "react", "react-test-renderer"],
    plugins: process.argv.includes("--built") ? [onDist] : [],
    sourcemap: "inline",
  });
  const files = names.map((name) => join(folder, name.replace(/\.ts$/, ".mjs")));
  // Not with --test-force-exit: it cuts what a test file has written, and tests at the end are then missing from the count.
  const flags = ["--test", "--enable-source-maps", "--test-timeout=60000", `--test-reporter=${reporter}`];
  const { status } = spawnSync(process.execPath, [...flags, ...files], { stdio: "inherit", timeout: 300_000, env: { ...process.env, SIGNALD_JS: here } });
  process.exitCode = status ?? 1;
} finally {
  rmSync(folder, { recursive: true, force: true });
}
