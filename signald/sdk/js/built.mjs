// For bundles of programs and tests that are to run on what is built: `../src/NAME.js` is `dist/NAME.js`.
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const dist = join(dirname(fileURLToPath(import.meta.url)), "dist");

export const onDist = {
  name: "on-dist",
  setup(build) {
    build.onResolve({ filter: /^\.\.\/src\/\w+\.js$/ }, ({ path }) => {
      const built = join(dist, path.slice("../src/".length));
      return existsSync(built) ? { path: built } : undefined;
    });
  },
};
