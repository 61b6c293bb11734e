// Members of one room that draw and chat until SIGTERM: `node draw.mjs MEMBERS URL...`. Prints what was lost, and whether all see the same.

import { WebSocket } from "ws";
import { type Client, connect } from "../src/index.js";
import { type Room, rooms } from "../src/rooms.js";
import { Numbers } from "./numbers.js";

const SHAPES = 40;
const SETTLE_MS = 60_000;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const drawn = (most: number): number => Math.floor(Math.random() * most);

let asking = true;
let dials = 0;
const events: Record<string, number> = {};

class Counted extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    dials += 1;
  }
}

class Member {
  readonly client: Client;
  readonly room: Room;
  said = 0;
  refused = 0;
  /** What each other one has said. */
  readonly heard = new Map<string, Numbers>();

  constructor(
    readonly name: string,
    urls: string[],
  ) {
    this.client = connect({ url: urls, pair: false, backoff: { baseS: 0.1, capS: 1, goingAwayS: 0.2, refusedS: 0.5 }, WebSocket: Counted });
    this.client.on("lifecycle", ({ type }) => (events[type] = (events[type] ?? 0) + 1));
    this.room = rooms(this.client).join("canvas:1", { state: true, presence: { name } });
    this.room.on("event", (event) => {
      events[event.type] = (events[event.type] ?? 0) + 1;
      if (event.type === "refused") this.refused += 1;
      if (event.type !== "publication") return;
      const { from, n } = event.data as { from: string; n: number };
      const numbers = this.heard.get(from) ?? new Numbers();
      this.heard.set(from, numbers);
      numbers.receive(n);
    });
  }

  async draw(): Promise<void> {
    await this.room.ready;
    while (asking) {
      const id = `shape:${drawn(SHAPES)}`;
      const act = drawn(10);
      if (act === 0) await this.room.remove(id);
      else if (act < 4) await this.room.put(id, { x: drawn(1000), by: this.name });
      else await this.room.patch(id, { y: drawn(1000), z: act === 9 ? null : act });
      if (act % 2) await this.room.publish({ from: this.name, n: ++this.said });
      await sleep(150);
    }
    await this.room.flush();
  }
}

const [count, ...urls] = process.argv.slice(2);
const members = Array.from({ length: Number(count) }, (_, number) => new Member(`member ${number}`, urls));
await Promise.all(members.map(({ room }) => room.ready));
process.once("SIGTERM", () => {
  asking = false;
});
const done = Promise.all(members.map((member) => member.draw()));
console.log("talking");

const pairs = (): [Member, Member][] => members.flatMap((one) => members.filter((other) => other !== one).map((other) => [one, other] as [Member, Member]));
const missing = (): number => pairs().reduce((total, [one, other]) => total + other.said - (one.heard.get(other.name)?.arrived ?? 0), 0);
const picture = ({ room }: Member): string => JSON.stringify([...room.records].map(([id, fields]) => [id, Object.entries(fields).sort()]).sort());
const same = (): boolean => members.every((one) => picture(one) === picture(members[0]!));

const until = done.then(async () => {
  while (missing() || !same()) await sleep(50);
  await sleep(500); // what comes twice would come now
  return true;
});
while (asking) await sleep(50);
const settled = await Promise.race([until, sleep(SETTLE_MS).then(() => false)]);
const heard = members.flatMap((one) => [...one.heard.values()]);
console.log(
  JSON.stringify({
    sent: members.reduce((total, { said }) => total + said, 0),
    lost: missing() + members.reduce((total, { refused }) => total + refused, 0),
    duplicated: heard.reduce((total, one) => total + one.duplicated, 0),
    reordered: heard.reduce((total, one) => total + one.reordered, 0),
    texts: { [same() ? "right" : "wrong"]: members.length },
    events,
    connections: [dials],
    settled,
    shapes: members[0]!.room.records.size,
  }),
);
for (const { client } of members) void client.bye();
await Promise.all(members.map(({ client }) => client.closed));
process.exit(0);
