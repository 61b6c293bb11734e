// Clients that ask a worker until SIGTERM, and count what is lost, doubled or reordered: `node talk.mjs CLIENTS URL...`. Prints JSON at the end.
//
// Each question has a number, and each answer has the number of its question and one of its own; a stream of the same text comes before it.

import { WebSocket } from "ws";
import { connect, type Client, type Message } from "../src/index.js";
import { Numbers } from "./numbers.js";

const WAITING_MAX = 20;
const SETTLE_MS = 60_000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const counts = { texts: {} as Record<string, number>, events: {} as Record<string, number>, connections: [] as number[] };
let asking = true;
let dials = 0;

class Counted extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    dials += 1;
  }
}

class Chat {
  readonly asked = new Numbers();
  readonly heard = new Numbers();
  readonly client: Client;
  stored = 0;
  #said = "";

  constructor(
    readonly name: string,
    urls: string[],
  ) {
    const backoff = { baseS: 0.1, capS: 1, goingAwayS: 0.2, refusedS: 0.5 };
    this.client = connect({ url: urls, meta: { name }, backoff, WebSocket: Counted });
    this.client.on("lifecycle", ({ type }) => (counts.events[type] = (counts.events[type] ?? 0) + 1));
  }

  take(message: Message): void {
    if (message.stream === undefined) {
      const { q, n } = message.data as { q: number; n: number };
      this.asked.receive(q);
      this.heard.receive(n);
      const right = this.#said === String(n).padStart(8, "0") ? "right" : "wrong";
      counts.texts[right] = (counts.texts[right] ?? 0) + 1;
      this.#said = "";
    } else if (typeof message.data === "string") this.#said += message.data;
  }

  async listen(): Promise<void> {
    for await (const message of this.client) this.take(message);
  }

  async run(number: number): Promise<void> {
    // Both ways to read are tried.
    if (number % 2) this.client.on("message", (message) => this.take(message));
    else void this.listen();
    while (asking) {
      if (this.asked.sent - this.heard.arrived < WAITING_MAX) {
        this.asked.sent += 1;
        void this.client.send({ n: this.asked.sent }).stored.then(() => (this.stored += 1));
      }
      await sleep(100);
    }
    while (this.heard.arrived < this.asked.sent || this.stored < this.asked.sent) await sleep(50);
    await sleep(500); // a number that comes twice would come now
    await this.client.bye();
  }
}

const [clients, ...urls] = process.argv.slice(2);
const chats = Array.from({ length: Number(clients) }, (_, number) => new Chat(`client ${number}`, urls));
process.once("SIGTERM", () => {
  asking = false;
});
const done = Promise.all(chats.map((chat, number) => chat.run(number))).then(() => true);
console.log("talking");
while (asking) await sleep(50);
const settled = await Promise.race([done, sleep(SETTLE_MS).then(() => false)]);
const all = chats.flatMap((chat) => [
  { lost: chat.asked.sent - chat.asked.arrived, ...pick(chat.asked) },
  { lost: chat.asked.sent - chat.heard.arrived, ...pick(chat.heard) },
]);
const sum = (name: "lost" | "duplicated" | "reordered"): number => all.reduce((total, one) => total + one[name], 0);
console.log(
  JSON.stringify({
    sent: chats.reduce((total, chat) => total + 2 * chat.asked.sent, 0),
    lost: sum("lost"),
    duplicated: sum("duplicated"),
    reordered: sum("reordered"),
    ...counts,
    connections: [dials],
    settled,
  }),
);
process.exit(0);

function pick({ duplicated, reordered }: Numbers): { duplicated: number; reordered: number } {
  return { duplicated, reordered };
}
