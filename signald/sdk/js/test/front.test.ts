// The front on real sockets: what is kept for a reload, what a duplicated tab does, the life of a page, credentials, and listeners that fail.

import assert from "node:assert/strict";
import test from "node:test";
import { WebSocket } from "ws";
import { type Client, connect, type ConnectOptions, type KeyValueStore, Refused, SessionGone, Unsendable } from "../src/index.js";
import { Service } from "./service.js";

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function until(holds: () => boolean, why: string): Promise<void> {
  for (let waited = 0; !holds(); waited += 5) {
    assert(waited < 20_000, why);
    await sleep(5);
  }
}

/** What a page has; a duplicated tab gets a copy. */
class Storage implements KeyValueStore {
  constructor(readonly values = new Map<string, string>()) {}
  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.values.set(key, value);
  }
  removeItem(key: string): void {
    this.values.delete(key);
  }
  copy(): Storage {
    return new Storage(new Map(this.values));
  }
}

/** A service and its clients, for the time of `body`. */
async function scene(body: (service: Service, open: (options?: Partial<ConnectOptions>) => Client) => Promise<void>): Promise<void> {
  const service = await Service.start();
  const clients: Client[] = [];
  try {
    await body(service, (options = {}) => {
      const client = connect({ url: service.url, WebSocket, storage: null, backoff: { baseS: 0.02, capS: 0.1 }, ...options });
      clients.push(client);
      return client;
    });
  } finally {
    for (const client of clients) client.close();
    await service.stop();
  }
}

test("the front", async (whole) => {
  await whole.test("what is sent before there is a session leaves with it, and is stored once", () =>
    scene(async (service, open) => {
      const client = open();
      const first = client.send("a");
      assert.equal(first.state, "kept");
      await first.stored;
      assert.equal(client.send("b").state, "sent");
      await until(() => service.sessions[0]!.stored.length === 2, "stored");
      assert.deepEqual(service.sessions[0]!.stored, ["a", "b"]);
    }),
  );

  await whole.test("a reload goes on, with what was not stored", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const before = open({ storage });
      await before.send(1).stored;
      service.stores = false;
      before.send(new Uint8Array([7]));
      before.send(2);
      before.close(); // as a page that leaves
      service.stores = true;
      const heard: unknown[] = [];
      const after = open({ storage });
      after.on("message", ({ data }) => heard.push(data));
      await after.ready;
      assert.equal(service.sessions.length, 1);
      await until(() => after.unstored === 0, "sent again");
      assert.deepEqual(service.sessions[0]!.stored, [1, [7], 2]);
      service.say(service.sessions[0]!, "hello");
      await until(() => heard.length === 1, "heard");
      assert.deepEqual(heard, ["hello"]);
      assert.equal(service.openings[1]!["type"], "restore_session");
      assert.equal(service.openings[1]!["acked"], 1);
    }),
  );

  await whole.test("what was sent before there was a session is not lost with a reload", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const before = open({ storage, url: "ws://127.0.0.1:1" });
      before.send("early");
      before.send(new Uint8Array([1, 2]));
      await sleep(20);
      before.close();
      const after = open({ storage });
      after.send("late");
      await until(() => service.sessions[0]?.stored.length === 3, "stored");
      assert.deepEqual(service.sessions[0]!.stored, ["early", [1, 2], "late"]);
    }),
  );

  await whole.test("a page that leaves says so, and the next one waits for no answer of it", () =>
    scene(async (_, open) => {
      const storage = new Storage();
      const before = open({ storage });
      await before.ready;
      assert.equal(JSON.parse(storage.getItem("signald")!).free, false);
      before.close();
      assert.equal(JSON.parse(storage.getItem("signald")!).free, true);
    }),
  );

  await whole.test("a message is kept as done before its ack leaves", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const kept: number[] = [];
      class Watched extends WebSocket {
        override send(data: any): void {
          if (String(data).includes('"ack"')) kept.push(JSON.parse(storage.getItem("signald")!).state.received);
          super.send(data);
        }
      }
      const client = open({ storage, WebSocket: Watched });
      client.on("message", () => {});
      await client.ready;
      for (const data of [1, 2, 3]) {
        service.say(service.sessions[0]!, data);
        await until(() => service.sessions[0]!.acked === data, "acked");
      }
      assert.deepEqual(kept, [1, 2, 3]);
    }),
  );

  await whole.test("a message that is done is not given to the page behind a reload", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const before = open({ storage });
      const heard: unknown[] = [];
      before.on("message", ({ data }) => heard.push(data));
      await before.ready;
      service.say(service.sessions[0]!, 1);
      await until(() => service.sessions[0]!.acked === 1, "acked");
      before.close();
      service.say(service.sessions[0]!, 2);
      open({ storage }).on("message", ({ data }) => heard.push(data));
      await until(() => heard.length === 2, "heard");
      assert.deepEqual(heard, [1, 2]);
    }),
  );

  await whole.test("a message whose listener has not returned comes again behind a reload", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const before = open({ storage });
      let hold!: () => void;
      let began = false;
      before.on("message", () => {
        began = true;
        return new Promise<void>((resolve) => (hold = resolve));
      });
      await before.ready;
      service.say(service.sessions[0]!, 1);
      await until(() => began, "begun");
      before.close();
      const heard: unknown[] = [];
      open({ storage }).on("message", ({ data }) => heard.push(data));
      await until(() => heard.length === 1, "again");
      hold();
    }),
  );

  await whole.test("a duplicated tab has a session of its own, and the first one keeps its own", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const first = open({ storage });
      await first.ready;
      const second = open({ storage: storage.copy() });
      await second.ready;
      assert.notEqual(first.sessionId, second.sessionId);
      assert.equal(service.sessions.length, 2);
      assert.equal(first.state, "open");
    }),
  );

  await whole.test("the state of a page that has crashed is taken up", () =>
    scene(async (service, open) => {
      const storage = new Storage();
      const crashed = open({ storage });
      await crashed.ready;
      const left = storage.copy(); // not marked as free
      crashed.close();
      const next = open({ storage: left });
      await next.ready;
      assert.equal(next.sessionId, service.sessions[0]!.id);
    }),
  );

  await whole.test("a storage that is full, or holds another program's text, costs nothing but the reload", () =>
    scene(async (service, open) => {
      const storage = new Storage(new Map([["signald", "{no json"]]));
      storage.setItem = () => {
        throw new Error("QuotaExceededError");
      };
      await open({ storage }).send(1).stored;
      assert.equal(service.sessions.length, 1);
    }),
  );

  await whole.test("a fresh credential is asked for before each connection; one that fails is told, and asked for again", () =>
    scene(async (service, open) => {
      let asked = 0;
      const told: unknown[] = [];
      const client = open({
        getToken: async () => {
          asked += 1;
          if (asked === 1) throw new Error("the login is away");
          return `jwt-${asked}`;
        },
      });
      client.on("error", (error) => told.push((error as Error).message));
      await client.ready;
      service.cut();
      await until(() => service.openings.length === 2, "again");
      assert.deepEqual(service.openings.map(({ auth }) => auth), ["jwt-2", "jwt-3"]);
      assert.deepEqual(told, ["the login is away"]);
    }),
  );

  await whole.test("a credential that runs out is renewed on the connection", () =>
    scene(async (service, open) => {
      let asked = 0;
      const client = open({ getToken: async () => `jwt-${++asked}` });
      await client.ready;
      service.sessions[0]!.socket!.send('{"type":"error","code":"auth_expiring","message":"soon","fatal":false,"retry_after_ms":60000}');
      await until(() => service.shown.length === 1, "shown");
      assert.deepEqual(service.shown, ["jwt-2"]);
      assert.equal(service.openings.length, 1);
    }),
  );

  await whole.test("requests show the token of the newest connection", () =>
    scene(async (service, open) => {
      const client = open({ api: true });
      await client.ready;
      assert.equal(client.api?.token, "api-1");
      service.cut();
      await until(() => service.openings.length === 2 && client.state === "open", "again");
      assert.equal(client.api?.token, "api-2");
    }),
  );

  await whole.test("a listener that fails is told, and the next message comes", () =>
    scene(async (service, open) => {
      const client = open();
      const told: unknown[] = [];
      const heard: unknown[] = [];
      client.on("error", (error) => told.push((error as Error).message));
      client.on("message", ({ data }) => {
        heard.push(data);
        if (data === 1) throw new Error("a fault");
      });
      await client.ready;
      service.say(service.sessions[0]!, 1);
      service.say(service.sessions[0]!, 2);
      await until(() => service.sessions[0]!.acked === 2, "acked");
      assert.deepEqual([heard, told], [[1, 2], ["a fault"]]);
    }),
  );

  await whole.test("a loop over the messages acks one when it asks for the next, and ends with the session", () =>
    scene(async (service, open) => {
      const client = open();
      await client.ready;
      const session = service.sessions[0]!;
      service.say(session, 1);
      service.say(session, 2);
      const heard: unknown[] = [];
      for await (const { data } of client) {
        heard.push(data);
        if (heard.length === 1) {
          await sleep(30);
          assert.equal(session.acked, 0);
        } else void client.bye();
      }
      assert.deepEqual(heard, [1, 2]);
      assert.equal(client.state, "closed");
      assert.equal(await client.closed, null);
      assert.throws(() => client.send(3), SessionGone);
    }),
  );

  await whole.test("what waits at the end is rejected", () =>
    scene(async (service, open) => {
      const client = open();
      await client.ready;
      service.stores = false;
      const { stored } = client.send(1);
      service.sessions[0]!.socket!.close(4401, "no");
      await assert.rejects(stored, SessionGone);
      assert.equal((await client.closed)?.name, "SessionGone");
    }),
  );

  await whole.test("a place that is not signald is said", () =>
    scene(async (service, open) => {
      const client = open({ url: `${service.url}/other`, WebSocket: class extends WebSocket {} });
      service.sessions.length = 0;
      await client.ready; // the small service takes any path
      const nowhere = open({ url: "wss://127.0.0.1:1", backoff: { baseS: 0.01, capS: 0.01, triesMax: 2 } });
      assert.ok((await nowhere.closed) instanceof Refused);
      await assert.rejects(nowhere.ready, Refused);
    }),
  );

  await whole.test("what the service would refuse is refused here, and nothing else is hurt", () =>
    scene(async (service, open) => {
      const client = open();
      const circle: Record<string, unknown> = {};
      circle["self"] = circle;
      for (const data of [undefined, Number.NaN, () => 0, 1n, { bytes: new Uint8Array(1) }, circle, "x".repeat(70_000)]) {
        assert.throws(() => client.send(data), Unsendable, String(typeof data));
      }
      assert.throws(() => client.send(1, { kind: "k".repeat(65) }), Unsendable);
      assert.throws(() => client.send(1, { kind: "\ud800" }), Unsendable);
      await client.send({ at: new Date(0), none: undefined }).stored;
      assert.deepEqual(service.sessions[0]!.stored, [{ at: "1970-01-01T00:00:00.000Z" }]);
    }),
  );

  await whole.test("a page that is kept for later closes its socket, and is back at once when it is shown", async () => {
    const page = Object.assign(new EventTarget(), { visibilityState: "visible" });
    const events = (name: string, persisted = true): Event => Object.assign(new Event(name), { persisted });
    const browser = globalThis as { window?: unknown; document?: unknown };
    [browser.window, browser.document] = [page, page];
    try {
      await scene(async (service, open) => {
        const client = open();
        await client.ready;
        page.dispatchEvent(events("pagehide"));
        await sleep(300); // a page that is asleep must not dial: its socket would throw it out of the cache
        assert.equal(service.openings.length, 1);
        assert.equal(client.state, "offline");
        page.dispatchEvent(events("pageshow"));
        await until(() => client.state === "open", "shown again");
      });
      await scene(async (service, open) => {
        const client = open({ backoff: { baseS: 30, capS: 30 } }); // only at once, or not within this test
        await client.ready;
        page.dispatchEvent(events("pagehide"));
        await until(() => client.state === "offline", "closed");
        const { stored } = client.send("while away");
        await sleep(50);
        assert.equal(service.openings.length, 1);
        page.dispatchEvent(events("pageshow"));
        await stored;
        assert.equal(service.sessions.length, 1);
        service.cut();
        await until(() => client.state === "offline", "cut");
        page.dispatchEvent(new Event("online"));
        await until(() => client.state === "open", "online again");
      });
    } finally {
      delete browser.window;
      delete browser.document;
    }
  });
});
