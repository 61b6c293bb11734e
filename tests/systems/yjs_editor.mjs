// A document of the real Yjs for tests/service/rooms/test_yjs.py: one command for each line of stdin, one answer for each.
//
//   {"new": 1}                                  the document is another one
//   {"insert": [at, text]}, {"erase": [at, n]}  a change of its text
//   {"set": [key, value]}                       a change of its map
//   {"apply": [update, ...]}                    what others have written, in base64
//   {"show": 1}                                 {text, map, waits}: what it has, and whether something waits for a predecessor
//
// Each answer has `updates`: what the command has written, in base64.

import { createInterface } from "node:readline";
import * as Y from "yjs";

let doc, updates;

function begin() {
  doc = new Y.Doc();
  doc.on("update", (update, origin) => {
    if (origin !== "others") updates.push(Buffer.from(update).toString("base64"));
  });
}

function run(command) {
  const text = doc.getText("text");
  const map = doc.getMap("map");
  if (command.new) begin();
  if (command.insert) text.insert(Math.min(command.insert[0], text.length), command.insert[1]);
  if (command.erase && text.length > command.erase[0]) {
    text.delete(command.erase[0], Math.min(command.erase[1], text.length - command.erase[0]));
  }
  if (command.set) map.set(command.set[0], command.set[1]);
  for (const update of command.apply ?? []) Y.applyUpdate(doc, Buffer.from(update, "base64"), "others");
  if (!command.show) return {};
  const waits = doc.store.pendingStructs !== null || doc.store.pendingDs !== null;
  return { text: text.toString(), map: map.toJSON(), waits };
}

begin();
for await (const line of createInterface({ input: process.stdin })) {
  updates = [];
  const answer = run(JSON.parse(line));
  process.stdout.write(`${JSON.stringify({ ...answer, updates })}\n`);
}
