// A program on Node 20: each line of the standard input is a message, and each answer a line of the output. `echo_worker.py` answers.
//
//     node ask.mjs [URL ...]          TOKEN in the environment, where the nodes ask for one

import { createInterface } from "node:readline";
import { connect } from "signald";
import { WebSocket } from "ws"; // Node 20 has no WebSocket of its own

const urls = process.argv.slice(2);
const client = connect({
  url: urls.length ? urls : "ws://127.0.0.1:8080",
  want: { app: "echo" },
  WebSocket,
  ...(process.env.TOKEN && { token: process.env.TOKEN }),
});
let open = 0; // questions without an answer
client.on("message", ({ data }) => {
  console.log(data.text);
  open -= 1;
});
// What a reader of the log may want to know; a deploy is "handed_over".
client.on("lifecycle", ({ type }) => console.error(type));

for await (const line of createInterface({ input: process.stdin })) {
  client.send({ text: line });
  open += 1;
}
while (open > 0) await new Promise((resolve) => setTimeout(resolve, 50));
await client.bye();
