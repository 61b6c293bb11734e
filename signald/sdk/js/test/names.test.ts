// What is built shortens names of the core. None of them may be a name that an application uses, that a page stores, or that a message has.

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
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

/** The members of an interface: another build of the package reads what this one has stored. */
function stored(file: string, name: string): string[] {
  const [, body] = new RegExp(`^(?:export )?interface ${name} [^{]*\\{\\n(.*?)^\\}`, "ms").exec(readFileSync(join(SOURCES, `${file}.ts`), "utf8"))!;
  return [...body!.matchAll(/^ {2}(\w+)\??:/gm)].map(([, member]) => member!);
}

test("no name of what a page stores is shortened", () => {
  const names = [...stored("core/client", "ClientState"), ...stored("core/session", "Body"), ...stored("storage", "Saved"), ...stored("storage", "Stored")];
  for (const name of ["recoveryToken", "nextSeq", "fields", "early", "owner", "free"]) assert(names.includes(name), name);
  assert.deepEqual(names.filter((name) => mangleProps.test(name)), []);
});

/** Names of messages that the core has for something of its own, too: where a message is meant they stand in quotes, which are not shortened. */
const QUOTED = ["accepted", "acked", "load"];

test("no name of a message is shortened", () => {
  const names = new Set<string>();
  const look = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [name, inner] of Object.entries(value)) {
      if (!Array.isArray(value)) names.add(name);
      look(inner);
    }
  };
  const seek = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [name, inner] of Object.entries(value)) (name === "frame" || name === "header" ? look : seek)(inner);
  };
  const folder = join(SOURCES, "../../../../tests/vectors/transcripts");
  for (const file of readdirSync(folder)) if (file.endsWith(".json")) seek(JSON.parse(readFileSync(join(folder, file), "utf8")));
  for (const name of ["type", "recovery_token", "heartbeat_ms", "members_count", "deadline_ms"]) assert(names.has(name), name);
  assert.deepEqual([...names].filter((name) => mangleProps.test(name)).sort(), QUOTED);
  const own = QUOTED.join("|");
  // A key of an object is followed by a comma, a brace or a comment; a member of a class by a semicolon or a body.
  const unquoted = new RegExp(`(?:(?:^|[{,])\\s*(?:${own}): [^;{]*?[,}](?: //.*)?$|\\b(?:message|answer|wire|told)\\.(?:${own})\\b)`, "m");
  for (const file of readdirSync(join(SOURCES, "core"))) assert.doesNotMatch(readFileSync(join(SOURCES, "core", file), "utf8"), unquoted, file);
});
