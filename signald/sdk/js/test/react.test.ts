// The hooks, drawn by React's own renderer for tests, over the service of tests.

import assert from "node:assert/strict";
import test from "node:test";
import { createElement as h, type ReactNode, StrictMode } from "react";
// @ts-expect-error it has no types
import TestRenderer, { act } from "react-test-renderer";
import { type Client, connect, type ConnectOptions, type KeyValueStore } from "../src/index.js";
import { type ChatLine, type RoomView, SignaldProvider, useConnectionState, useIsAway, useMessages, usePresence, useRoom, useSignald, useStream } from "../src/react/index.js";
import { rooms } from "../src/rooms.js";
import { type ServiceOptions, TestService } from "../src/test/index.js";
import { sleep, until } from "./waits.js";

const complain = console.error;
console.error = (...words: unknown[]) => String(words[0]).startsWith("react-test-renderer is deprecated") || complain(...words);
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

const TURNS_MAX = 4000;

interface Drawn {
  unmount(): void;
}

class Scene {
  readonly service: TestService;
  readonly clients: Client[] = [];
  readonly #drawn: Drawn[] = [];

  constructor(options: ServiceOptions = {}) {
    this.service = new TestService(options);
  }

  open(more: Partial<ConnectOptions> = {}): Client {
    const { url, WebSocket } = this.service;
    const client = connect({ url, WebSocket, storage: null, backoff: { baseS: 0.001, capS: 0.01 }, ...more });
    this.clients.push(client);
    return client;
  }

  /** Draw `Component` under a provider, twice mounted as React does it to find faults. */
  async draw(client: Client, Component: () => ReactNode): Promise<Drawn> {
    let drawn!: Drawn;
    await act(async () => {
      drawn = TestRenderer.create(h(StrictMode, null, h(SignaldProvider, { client }, h(Component))));
    });
    this.#drawn.push(drawn);
    return drawn;
  }

  /** Wait until `holds` is true, and let React draw meanwhile. */
  async until(holds: () => boolean, why: string): Promise<void> {
    // What is changed within an `act` is drawn behind it.
    for (let turns = 0; !holds(); turns++) {
      assert(turns < TURNS_MAX, why);
      await act(() => sleep(5));
    }
  }

  async close(): Promise<void> {
    await act(async () => {
      for (const drawn of this.#drawn) drawn.unmount();
    });
    for (const client of this.clients) client.close();
    assert.deepEqual(this.service.errors, []);
  }
}

async function scene(body: (scene: Scene) => Promise<void>, options: ServiceOptions = {}): Promise<void> {
  const all = new Scene(options);
  try {
    await body(all);
  } finally {
    await all.close();
  }
}

test("hooks", async (whole) => {
  await whole.test("a component without a provider is told so", async () => {
    const quiet = console.error;
    console.error = () => {};
    try {
      const Lost = (): ReactNode => (useSignald(), null);
      await assert.rejects(async () => act(async () => TestRenderer.create(h(Lost))), /SignaldProvider/);
    } finally {
      console.error = quiet;
    }
  });

  await whole.test("the state is drawn, and only a long absence is told", () =>
    scene(async (all) => {
      const client = all.open();
      const states: string[] = [];
      let away = false;
      await all.draw(client, () => {
        states.push(useConnectionState());
        away = useIsAway(300);
        return null;
      });
      await all.until(() => states.at(-1) === "open", "open");
      await act(() => all.service.deploy());
      await all.until(() => states.at(-1) === "open", "moved");
      assert.equal(away, false);
      assert(!states.includes("offline"));
      all.service.stop();
      await all.until(() => states.at(-1) === "offline", "offline");
      assert.equal(away, false);
      await all.until(() => away, "away");
      all.service.start();
      await all.until(() => states.at(-1) === "open" && !away, "back");
    }),
  );

  await whole.test("own lines go from kept to stored, and streams grow in their place", () =>
    scene(
      async (all) => {
        const client = all.open();
        let lines: readonly ChatLine[] = [];
        let send!: (data: unknown) => void;
        let last: string | undefined;
        await all.draw(client, () => {
          ({ messages: lines, send } = useMessages());
          last = useStream()?.text;
          return null;
        });
        all.service.stop();
        await all.until(() => client.state !== "open", "away");
        await act(async () => send({ text: "hello" }));
        assert.deepEqual(lines.map(({ state }) => state), ["kept"]);
        all.service.start();
        await all.until(() => lines.length === 3 && lines[2]!.state === "done" && lines[0]!.state === "stored", "answered");
        assert.deepEqual(lines.map(({ data }) => data), [{ text: "hello" }, "plain", "as you say"]);
        assert.equal(new Set(lines.map(({ key }) => key)).size, 3);
        assert.equal(last, "as you say");
        const before = lines;
        await act(() => sleep(20));
        assert.equal(lines, before, "nothing is drawn that has not changed");
      },
      {
        worker: async (session) => {
          for await (const { seq } of session) {
            session.send("plain");
            session.send({ candidate: 1 }, { kind: "signal" });
            const out = session.stream(`answer-to-${seq}`, { kind: "tokens" });
            for (const word of ["as ", "you ", "say"]) out.write(word);
            out.end();
          }
        },
      },
    ),
  );

  await whole.test("a page that is loaded again shows what was said before, once, and goes on", () => {
    let go!: () => void;
    const waits = new Promise<void>((resolve) => (go = resolve));
    const values = new Map<string, string>();
    const storage: KeyValueStore = {
      getItem: (key) => values.get(key) ?? null,
      setItem: (key, value) => void values.set(key, value),
      removeItem: (key) => void values.delete(key),
    };
    return scene(
      async (all) => {
        let lines: readonly ChatLine[] = [];
        let send!: (data: unknown) => void;
        const Chat = (): ReactNode => {
          ({ messages: lines, send } = useMessages());
          return null;
        };
        const before = all.open({ storage, history: 50 });
        const page = await all.draw(before, Chat);
        await act(async () => send("question"));
        await all.until(() => lines.at(-1)?.data === "half ", "half");
        await act(async () => page.unmount());
        before.close();
        await all.draw(all.open({ storage, history: 50 }), Chat);
        await all.until(() => lines.length === 3, "shown again");
        assert.deepEqual(lines.map(({ data }) => data), ["question", "hello", "half "]);
        go();
        await all.until(() => lines.at(-1)?.state === "done", "done");
        await act(async () => send("another"));
        await all.until(() => lines.length === 6 && lines.at(-1)!.state === "done", "another");
        assert.deepEqual(lines.map(({ data }) => data), ["question", "hello", "half answer", "another", "hello", "half answer"]);
        all.service.kill();
        await all.until(() => all.service.connections >= 3 && all.clients.at(-1)!.state === "open", "back");
        assert.equal(lines.length, 6, "the history of a resume is not shown again");
      },
      {
        worker: async (session) => {
          for await (const { seq } of session) {
            session.send("hello");
            const out = session.stream(`answer-${seq}`);
            out.write("half ");
            await waits;
            out.write("answer");
            out.end();
          }
        },
      },
    );
  });

  await whole.test("components share one membership of a room, which outlives a remount and ends behind the last one", () =>
    scene(async (all) => {
      const client = all.open({ pair: false });
      let view!: RoomView;
      let members: ReadonlyMap<string, unknown> = new Map();
      let show!: (presence: unknown) => void;
      const Board = (): ReactNode => {
        view = useRoom("canvas", { presence: { name: "Ada" } });
        [members, show] = usePresence("canvas");
        return null;
      };
      const joins = (): number => all.service.room("canvas").members.size;
      const page = await all.draw(client, Board);
      await all.until(() => view.status === "in", "in");
      assert.equal(joins(), 1);
      assert.deepEqual([...members.values()], [{ name: "Ada" }]);
      const other = rooms(all.open({ pair: false })).join("canvas", { state: true, presence: { name: "Bob" } });
      await act(() => other.ready);
      await act(() => other.patch("shape", { x: 1 }));
      await all.until(() => view.records.size === 1 && members.size === 2, "seen");
      await act(async () => {
        await view.room!.patch("shape", { y: 2 });
        show({ name: "Ada", at: 7 });
      });
      assert.deepEqual(view.records.get("shape"), { x: 1, y: 2 });
      await all.until(() => JSON.stringify([...other.members.values()]).includes('"at":7'), "presence is seen");
      const room = view.room;
      await act(async () => page.unmount());
      await all.draw(client, Board);
      assert.equal(view.room, room, "the same membership");
      all.service.kill();
      await act(() => other.put("title", { text: "T" }));
      await all.until(() => view.records.size === 2, "goes on behind a kill");
    }),
  );

  await whole.test("a room without components is left, and joined again by the next one", () =>
    scene(async (all) => {
      const client = all.open({ pair: false });
      let view!: RoomView;
      const Board = (): ReactNode => {
        view = useRoom("canvas");
        return null;
      };
      const page = await all.draw(client, Board);
      await all.until(() => view.status === "in", "in");
      await act(async () => page.unmount());
      await until(() => all.service.room("canvas").members.size === 0, "left");
      await all.draw(client, Board);
      await all.until(() => view.status === "in" && all.service.room("canvas").members.size === 1, "in again");
    }),
  );

  await whole.test("a room that cannot be is said to be left, with the reason", () =>
    scene(async (all) => {
      let view!: RoomView;
      await all.draw(all.open({ pair: false }), () => {
        view = useRoom("no room!");
        return null;
      });
      await all.until(() => view.status === "left", "left");
      assert.match(view.reason!, /name of a room/);
    }),
  );
});
