// The service of tests, with the real client on it: an application's test believes what it does.

import assert from "node:assert/strict";
import test from "node:test";
import { type Client, connect, type ConnectOptions, Refused } from "../src/index.js";
import { rooms } from "../src/rooms.js";
import { type Handler, type ServiceOptions, TestService, WorkerLost, type WorkerSession } from "../src/test/index.js";
import { until } from "./waits.js";

type Open = (options?: Partial<ConnectOptions>) => Client;

async function scene(options: ServiceOptions, body: (service: TestService, open: Open) => Promise<void>): Promise<void> {
  const service = new TestService(options);
  const clients: Client[] = [];
  try {
    await body(service, (more = {}) => {
      const client = connect({ url: service.url, WebSocket: service.WebSocket, storage: null, backoff: { baseS: 0.001, capS: 0.01 }, ...more });
      clients.push(client);
      return client;
    });
    assert.deepEqual(service.errors, []);
  } finally {
    for (const client of clients) client.close();
  }
}

/** Kill the node, and wait until the client is back. */
async function killed(service: TestService, client: Client): Promise<void> {
  let back = false;
  const stop = client.on("lifecycle", ({ type }) => (back ||= type === "resumed"));
  service.kill();
  await until(() => back, "back");
  stop();
}

const echo: Handler = async (session: WorkerSession) => {
  for await (const { data } of session) session.send({ echo: data });
};

test("the service of tests", async (whole) => {
  await whole.test("a worker answers, through deploys and kills, each message once and in order", () =>
    scene({ worker: echo }, async (service, open) => {
      const client = open();
      const heard: unknown[] = [];
      const events: string[] = [];
      client.on("message", ({ data }) => heard.push((data as { echo: unknown }).echo));
      client.on("lifecycle", ({ type }) => events.push(type));
      await client.ready;
      const asked: number[] = [];
      for (let number = 0; number < 60; number++) {
        client.send(number);
        asked.push(number);
        if (number % 20 === 5) await service.deploy();
        if (number % 20 === 12) {
          const back = killed(service, client);
          client.send((asked[asked.length] = number + 0.5));
          await back;
        }
      }
      await until(() => heard.length === asked.length, () => `${heard.length} of ${asked.length}`);
      assert.deepEqual(heard, asked);
      assert.deepEqual(service.session.heard.map(({ data }) => data), asked);
      assert.equal(events.filter((one) => one === "handed_over").length, 3);
      assert.equal(events.filter((one) => one === "resumed").length, 3);
      assert.equal(service.sessions.length, 1);
    }),
  );

  await whole.test("a deploy is no gap, and ends when all have moved", () =>
    scene({}, async (service, open) => {
      const client = open();
      await client.ready;
      const states: string[] = [];
      client.on("state", (state) => states.push(state));
      await service.deploy();
      await until(() => client.state === "open", "moved");
      assert.deepEqual(states, ["moving", "open"]);
      assert.equal(service.connections, 2);
    }),
  );

  await whole.test("while there is no node messages are kept, and leave with the next one", () =>
    scene({ worker: echo }, async (service, open) => {
      const client = open();
      await client.ready;
      service.stop();
      await until(() => client.state === "offline", "offline");
      const kept = client.send("later");
      assert.equal(kept.state, "kept");
      service.start();
      await kept.stored;
      assert.deepEqual(service.session.heard.map(({ data }) => data), ["later"]);
    }),
  );

  await whole.test("a stream grows, is read on after a kill, and its end is asked for", () =>
    scene(
      {
        worker: async (session) => {
          for await (const { data } of session) {
            const out = session.stream("answer", { kind: "tokens" });
            out.write(String(data));
            await new Promise((resolve) => out.cancelled.addEventListener("abort", resolve));
            out.end("cancelled");
          }
        },
      },
      async (service, open) => {
        const client = open({ history: 10 });
        client.on("message", () => {});
        client.send("once upon");
        await until(() => client.streams[0]?.text === "once upon", "grown");
        await killed(service, client);
        assert.equal(client.streams[0]!.outcome, null);
        client.cancel("answer", "enough");
        await until(() => client.streams[0]!.outcome === "cancelled", "cancelled");
        assert.deepEqual(service.session.chatHistory.map(({ data }) => data), ["once upon", "once upon"]);
      },
    ),
  );

  await whole.test("the worker after a lost one gets what was not done, and the half answer", () => {
    const attempts: [number, string[]][] = [];
    return scene(
      {
        worker: async (session) => {
          attempts.push([session.attempt, session.openStreams.map(({ text }) => text)]);
          for await (const { seq } of session) {
            const out = session.stream(`answer-to-${seq}`);
            out.write(session.attempt === 1 ? "half" : "whole");
            if (session.attempt === 1) {
              await new Promise((resolve) => session.signal.addEventListener("abort", resolve));
              assert.throws(() => session.send("too late"), WorkerLost);
            }
            out.end();
          }
        },
      },
      async (service, open) => {
        const client = open();
        const events: string[] = [];
        client.on("message", () => {});
        client.on("lifecycle", ({ type }) => events.push(type));
        client.send("question");
        await until(() => client.streams[0]?.text === "half", "half");
        service.loseWorker();
        await until(() => client.streams[0]!.outcome !== null, "whole");
        assert.deepEqual(client.streams.map(({ text, attempt }) => [text, attempt]), [["whole", 2]]);
        assert.deepEqual(attempts, [[1, []], [2, ["half"]]]);
        assert(events.includes("replaced"));
      },
    );
  });

  await whole.test("bytes, realtime data and a credential arrive as they are", () =>
    scene({ authorize: (credential) => credential === "good" }, async (service, open) => {
      const client = open({ token: "good" });
      const heard: unknown[] = [];
      client.on("message", ({ data }) => heard.push(data));
      client.on("lifecycle", (event) => event.type === "realtime" && heard.push(event.data));
      await client.send(new Uint8Array([1, 2])).stored;
      client.realtime({ x: 1 });
      service.session.send(new Uint8Array([3]));
      service.session.realtime({ y: 2 });
      await until(() => heard.length === 2 && service.session.realtimes.length === 1, "heard");
      assert.deepEqual(service.session.heard[0]!.data, new Uint8Array([1, 2]));
      assert.deepEqual(heard.filter((one) => one instanceof Uint8Array), [new Uint8Array([3])]);
      assert.deepEqual(heard.filter((one) => !(one instanceof Uint8Array)), [{ y: 2 }]);
      await assert.rejects(open({ token: "bad" }).ready, Refused);
      assert.deepEqual(service.credentials, ["good", "bad"]);
    }),
  );

  await whole.test("a bye ends a session for its worker, and an end for its client", () => {
    let ended = 0;
    const worker: Handler = async (session) => {
      for await (const _ of session);
      ended += 1;
    };
    return scene({ worker }, async (service, open) => {
      const first = open();
      await first.ready;
      await first.bye("enough");
      assert.equal(service.session.ended, "enough");
      await until(() => ended === 1, "the handler has returned");
      const second = open();
      await second.ready;
      service.session.end("closed for today");
      assert.equal(await second.closed, null);
    });
  });

  await whole.test("members of a room have the same records, through a kill, and see who is there", () =>
    scene({}, async (service, open) => {
      const joined = ["Ada", "Bob"].map((name) => rooms(open({ pair: false })).join("canvas", { state: true, presence: { name } }));
      await Promise.all(joined.map(({ ready }) => ready));
      const [one, other] = joined as [(typeof joined)[0], (typeof joined)[0]];
      const heard: unknown[] = [];
      other.on("event", (event) => event.type === "publication" && heard.push(event.data));
      await one.patch("shape", { x: 1 });
      await one.publish("hello");
      await until(() => heard.length === 1 && other.members.size === 2, "heard");
      service.kill();
      await one.patch("shape", { y: 2 });
      await one.publish("again");
      await other.remove("nothing");
      service.room("canvas").change({ put: { title: { text: "T" } } });
      await one.flush();
      await other.flush();
      await until(() => heard.length === 2 && one.records.size === 2 && other.records.size === 2, "same");
      assert.deepEqual(heard, ["hello", "again"]);
      for (const room of [one, other]) assert.deepEqual(room.records, service.room("canvas").records);
      await one.leave();
      await until(() => other.members.size === 1, "left");
    }),
  );

  await whole.test("a presence that was said while there was no connection is seen when there is one again", () =>
    scene({}, async (service, open) => {
      const client = open({ pair: false });
      const room = rooms(client).join("canvas", { presence: { at: 1 } });
      await room.ready;
      const other = rooms(open({ pair: false })).join("canvas", { presence: { name: "Bob" } });
      await until(() => other.members.size === 2, "both");
      const back = killed(service, client);
      room.setPresence({ at: 2 });
      await back;
      await until(() => JSON.stringify([...other.members.values()]).includes('"at":2'), "presence is seen");
    }),
  );
});
