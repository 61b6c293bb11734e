// What is built shortens names of the core. None of them may be a name that an application uses.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { mangleProps } from "../internal.mjs";

const SOURCES = join(process.env["SIGNALD_JS"]!, "src");
/** All that an application imports, and what it is given by that. */
const PUBLIC = [
  "client", "errors", "events", "storage", "api_errors", "rooms", "core/room_events", "jobs", "blobs", "core/blobs", "history", "sse", "core/sse",
];
/** Members of public classes that only the package itself uses. */
const INTERNAL = new Set(["extend", "core", "tell", "begin", "load", "save"]);
/** Classes and interfaces of these files that no application sees. */
const HIDDEN = ["Keeper", "Saved", "Stored", "Waiting", "Carried", "Sending", "Reading", "EventParser", "LinkBroken"];

function publicNames(file: string): string[] {
  const source = readFileSync(join(SOURCES, `${file}.ts`), "utf8");
  // A declaration begins at the margin; its members, and the forms of its events, are two blanks behind it.
  const parts = source.split(/^(?=\S)/m).filter((part) => {
    const [, name] = /^(?:export )?(?:interface|class|type) (\w+)/.exec(part) ?? [];
    return name !== undefined && !HIDDEN.includes(name);
  });
  const lines = parts.flatMap((part) => part.split("\n")).filter((line) => /^ {2}(?!readonly #)[^ #]/.test(line));
  return lines.flatMap((line) => [...line.matchAll(/(?:^ {2}|[{;,] )(?:readonly |get |async )*([a-z]\w*)\??(?:<[^(]*>)?[:(]/g)].map(([, name]) => name!));
}

test("no name of an application is shortened", () => {
  const names = PUBLIC.flatMap(publicNames).filter((name) => !INTERNAL.has(name));
  for (const name of ["send", "on", "ended", "left", "timeoutS", "expiresAt", "lastEventId", "next", "records"]) assert(names.includes(name), name);
  assert.deepEqual(names.filter((name) => mangleProps.test(name)), []);
});
