// Waits of tests.

import assert from "node:assert/strict";

const WAIT_MS = 20_000;
const POLL_MS = 5;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until `holds` is true. */
export async function until(holds: () => boolean, why: string | (() => string)): Promise<void> {
  for (let waited = 0; !holds(); waited += POLL_MS) {
    assert(waited < WAIT_MS, typeof why === "string" ? why : why());
    await sleep(POLL_MS);
  }
}
