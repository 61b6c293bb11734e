// The transport of the AI SDK: what a message shows, through deploys, lost workers, reloads and stops. `Shown` takes chunks as its version 7 does.

import assert from "node:assert/strict";
import test from "node:test";
import { type ChatRequest, chatTransport, CHUNKS_KIND, type SignaldChatTransport, type UIMessageChunk } from "../src/ai_sdk/index.js";
import { RenderedText } from "../src/ai_sdk/chunks.js";
import { type Client, connect, type KeyValueStore } from "../src/index.js";
import { type OpenStream, TestService, type WorkerSession } from "../src/test/index.js";
import { sleep, until } from "./waits.js";

const CHAT = "a chat";

/** A message, as `processUIMessageStream` of the AI SDK makes it of chunks. */
class Shown {
  readonly chunks: UIMessageChunk[] = [];
  parts: { type: string; id?: string; text?: string }[] = [];
  id = "";
  error: string | null = null;
  over = false;
  readonly #open = new Map<string, { type: string; text?: string }>();

  get text(): string {
    return this.parts.map(({ text = "" }) => text).join("");
  }

  get types(): string[] {
    return this.chunks.map(({ type }) => type);
  }

  take(chunk: UIMessageChunk): void {
    this.chunks.push(chunk);
    switch (chunk.type) {
      case "start":
        this.id = chunk.messageId;
        break;
      case "start-step":
        this.parts.push({ type: "step-start" });
        break;
      case "text-start":
        this.parts.push({ type: "text", id: chunk.id, text: "" });
        this.#open.set(chunk.id, this.parts.at(-1)!);
        break;
      case "text-delta":
        assert(this.#open.has(chunk.id), "a delta without a start");
        this.#open.get(chunk.id)!.text! += chunk.delta;
        break;
      case "text-end":
        assert(this.#open.delete(chunk.id), "an end without a start");
        break;
      case "reset-step":
        this.#open.clear();
        this.parts.splice(this.parts.map(({ type }) => type).lastIndexOf("step-start") + 1);
        break;
      case "finish-step":
        this.#open.clear();
        break;
      case "error":
        this.error = chunk.errorText;
    }
  }

  async read(stream: ReadableStream<UIMessageChunk> | null): Promise<this> {
    assert(stream, "there is a stream");
    for await (const chunk of stream as unknown as AsyncIterable<UIMessageChunk>) this.take(chunk);
    this.over = true;
    return this;
  }
}

class Storage implements KeyValueStore {
  readonly values = new Map<string, string>();
  getItem = (key: string): string | null => this.values.get(key) ?? null;
  setItem = (key: string, value: string): void => void this.values.set(key, value);
  removeItem = (key: string): void => void this.values.delete(key);
}

/** A page: a client, and its transport. */
class Page {
  readonly client: Client;
  readonly transport: SignaldChatTransport;

  constructor(service: TestService, storage: KeyValueStore) {
    const { url, WebSocket } = service;
    this.client = connect({ url, WebSocket, storage, history: 100, backoff: { baseS: 0.001, capS: 0.01 } });
    this.transport = chatTransport(this.client);
  }

  ask(text: string, abortSignal?: AbortSignal): Promise<ReadableStream<UIMessageChunk>> {
    const messages = [{ id: `m-${text}`, role: "user" as const, parts: [{ type: "text", text }] }];
    return this.transport.sendMessages({ trigger: "submit-message", chatId: CHAT, messageId: undefined, messages, abortSignal });
  }
}

type Answer = (name: string, session: WorkerSession, text: string, found: OpenStream | undefined) => Promise<void>;

async function scene(answer: Answer, body: (service: TestService, open: () => Page) => Promise<void>): Promise<void> {
  const service = new TestService({
    worker: async (session) => {
      const open = new Map(session.openStreams.map((found) => [found.stream, found]));
      for await (const { data } of session) {
        const { stream, message } = data as ChatRequest;
        await answer(stream, session, (message!.parts[0] as { text: string }).text, open.get(stream));
      }
    },
  });
  const storage = new Storage();
  const pages: Page[] = [];
  try {
    await body(service, () => {
      pages.at(-1)?.client.close(); // as a page that is loaded again
      pages.push(new Page(service, storage));
      return pages.at(-1)!;
    });
    assert.deepEqual(service.errors, []);
  } finally {
    for (const { client } of pages) client.close();
  }
}

/** A gate that a test opens. */
function gate(): { wait: Promise<void>; open: () => void } {
  let open!: () => void;
  const wait = new Promise<void>((resolve) => (open = resolve));
  return { wait, open };
}

const untilCancelled = (signal: AbortSignal): Promise<unknown> =>
  signal.aborted ? Promise.resolve() : new Promise((resolve) => signal.addEventListener("abort", resolve));

/** Says half, waits for a cancel, and ends. */
const stoppable: Answer = async (name, session) => {
  const out = session.stream(name, { kind: "tokens" });
  out.write("half");
  await untilCancelled(out.cancelled);
  out.end("cancelled");
};

test("the transport of the AI SDK", async (whole) => {
  await whole.test("an answer is one message with one step", () =>
    scene(
      async (name, session, text) => {
        const out = session.stream(name);
        for (const word of ["as ", "you ", `say: ${text}`]) out.write(word);
        out.end();
      },
      async (service, open) => {
        const shown = await new Shown().read(await open().ask("hello"));
        assert.equal(shown.text, "as you say: hello");
        assert.deepEqual([...new Set(shown.types)], ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]);
        const request = service.session.heard[0]!.data as ChatRequest;
        assert.equal(request.stream, shown.id);
        assert.equal(request.chatId, CHAT);
        assert.equal(request.message!.id, "m-hello");
      },
    ),
  );

  await whole.test("deploys and kills in an answer show nothing twice", () => {
    const middle = [gate(), gate()];
    return scene(
      async (name, session) => {
        const out = session.stream(name);
        out.write("one ");
        await middle[0]!.wait;
        out.write("two ");
        await middle[1]!.wait;
        out.write("three");
        out.end();
      },
      async (service, open) => {
        const page = open();
        const shown = new Shown();
        const read = shown.read(await page.ask("count"));
        await until(() => shown.text === "one ", "one");
        await service.deploy();
        middle[0]!.open();
        await until(() => shown.text === "one two ", "two");
        service.kill();
        middle[1]!.open();
        await read;
        assert.equal(shown.text, "one two three");
        assert.equal(shown.types.filter((type) => type === "text-start").length, 1);
      },
    );
  });

  await whole.test("the other words of another worker take the place of the first ones, and the same words stay", async () => {
    for (const [second, resets] of [["another answer", 1], ["half an answer", 0]] as const) {
      await scene(
        async (name, session) => {
          const out = session.stream(name);
          if (session.attempt === 1) {
            out.write("half");
            return untilCancelled(session.signal).then(() => {});
          }
          for (const letter of second) out.write(letter);
          out.end();
        },
        async (service, open) => {
          const shown = new Shown();
          const read = shown.read(await open().ask("go"));
          await until(() => shown.text === "half", "half");
          service.loseWorker();
          await read;
          assert.equal(shown.text, second);
          assert.equal(shown.types.filter((type) => type === "reset-step").length, resets);
        },
      );
    }
  });

  await whole.test("an abort stops the worker: while it answers, before it has begun, and without a connection", async () => {
    const began = gate();
    await scene(stoppable, async (service, open) => {
      const page = open();
      const abort = new AbortController();
      const shown = new Shown();
      const read = shown.read(await page.ask("one", abort.signal));
      await until(() => shown.text === "half", "half");
      abort.abort();
      await read;
      assert.equal(shown.types.at(-1), "abort");
      await until(() => page.client.streams[0]!.outcome === "cancelled", "stopped");
      // Without a connection.
      const later = new AbortController();
      const again = new Shown();
      void again.read(await page.ask("two", later.signal));
      await until(() => again.text === "half", "half again");
      service.stop();
      await until(() => page.client.state === "offline", "offline");
      later.abort();
      service.start();
      await until(() => page.client.streams[1]!.outcome === "cancelled", "stopped behind the break");
    });
    const late: Answer = async (name, session, text, found) => {
      await began.wait;
      await stoppable(name, session, text, found);
    };
    await scene(late, async (_service, open) => {
      const page = open();
      const abort = new AbortController();
      const shown = new Shown();
      const read = shown.read(await page.ask("early", abort.signal));
      await until(() => page.client.unstored === 0, "asked");
      abort.abort();
      await read;
      began.open();
      await until(() => page.client.streams[0]?.outcome === "cancelled", "stopped when it began");
    });
  });

  await whole.test("a page that is loaded again reads the whole answer, and its stop stops the worker", () =>
    scene(stoppable, async (_service, open) => {
      const before = open();
      const first = new Shown();
      void first.read(await before.ask("long"));
      await until(() => first.text === "half", "half");
      const page = open();
      const abort = new AbortController();
      const shown = new Shown();
      const read = shown.read(await page.transport.reconnectToStream({ chatId: CHAT, abortSignal: abort.signal }));
      await until(() => shown.text === "half", "whole again");
      assert.equal(shown.id, first.id);
      assert.deepEqual(page.transport.messages(CHAT).map(({ id }) => id), ["m-long"]);
      abort.abort();
      await read;
      await until(() => page.client.streams[0]!.outcome === "cancelled", "stopped");
      const last = open();
      assert.equal(await last.transport.reconnectToStream({ chatId: CHAT }), null);
      assert.equal(await last.transport.reconnectToStream({ chatId: "another" }), null);
      assert.deepEqual(last.transport.messages(CHAT).map(({ role, parts }) => [role, parts[0].text]), [["user", "long"], ["assistant", "half"]]);
    }),
  );

  await whole.test("an answer that had not begun before a reload is read", () => {
    const began = gate();
    return scene(
      async (name, session) => {
        await began.wait;
        const out = session.stream(name);
        out.write("late");
        out.end();
      },
      async (_service, open) => {
        const before = open();
        await before.ask("slow");
        await until(() => before.client.unstored === 0, "asked");
        const stream = await open().transport.reconnectToStream({ chatId: CHAT });
        began.open();
        assert.equal((await new Shown().read(stream)).text, "late");
      },
    );
  });

  await whole.test("a resume that another one takes the place of does not stop the worker", () =>
    scene(stoppable, async (_service, open) => {
      const before = open();
      const first = new Shown();
      void first.read(await before.ask("long"));
      await until(() => first.text === "half", "half");
      const page = open();
      const [one, other] = [new AbortController(), new AbortController()];
      const old = new Shown().read(await page.transport.reconnectToStream({ chatId: CHAT, abortSignal: one.signal }));
      one.abort(); // as `Chat` does it, in this order
      const shown = new Shown();
      const read = shown.read(await page.transport.reconnectToStream({ chatId: CHAT, abortSignal: other.signal }));
      await old;
      await sleep(50);
      assert.equal(page.client.streams[0]!.outcome, null);
      assert.equal(shown.text, "half");
      other.abort();
      await read;
      await until(() => page.client.streams[0]!.outcome === "cancelled", "stopped");
    }),
  );

  await whole.test("a reader that goes stops nothing, and `stop` of the transport does", () =>
    scene(stoppable, async (_service, open) => {
      const page = open();
      const stream = await page.ask("long");
      await until(() => page.client.streams.length === 1, "begun");
      await stream.cancel();
      await sleep(30);
      assert.equal(page.client.streams[0]!.outcome, null);
      page.transport.stop(CHAT);
      await until(() => page.client.streams[0]!.outcome === "cancelled", "stopped");
    }),
  );

  await whole.test("an answer that fails, or is cut off by the end of the session, is an error", async () => {
    await scene(
      async (name, session) => session.stream(name).end("failed"),
      async (service, open) => {
        const page = open();
        const shown = await new Shown().read(await page.ask("fail"));
        assert.equal(shown.error, "The answer has failed.");
        const pending = new Shown().read(await page.ask("fail again"));
        service.session.end("over");
        assert.match((await pending).error ?? "", /The answer (has failed|was interrupted)\./);
        await assert.rejects(page.ask("too late"));
      },
    );
  });

  await whole.test("a worker may say chunks, and another worker goes on behind the steps that were shown", () => {
    const say = (out: { write: (text: string) => void }, ...chunks: object[]): void => {
      for (const chunk of chunks) for (const half of [JSON.stringify(chunk).slice(0, 9), `${JSON.stringify(chunk).slice(9)}\n`]) out.write(half);
    };
    const text = (id: string, delta: string): object[] => [{ type: "text-start", id }, { type: "text-delta", id, delta }];
    return scene(
      async (name, session) => {
        const out = session.stream(name, { kind: CHUNKS_KIND });
        const other = session.attempt > 1;
        say(out, { type: "start" }, { type: "start-step" }, ...text("a", other ? "first, said otherwise" : "first"), { type: "text-end", id: "a" }, { type: "finish-step" });
        say(out, { type: "start-step" }, ...text("b", other ? "second, by another" : "sec"));
        if (!other) return untilCancelled(session.signal).then(() => {});
        say(out, { type: "text-end", id: "b" }, { type: "finish-step" }, { type: "finish", finishReason: "stop" });
        out.end();
      },
      async (service, open) => {
        const shown = new Shown();
        const read = shown.read(await open().ask("steps"));
        await until(() => shown.text === "firstsec", "begun");
        service.loseWorker();
        await read;
        assert.deepEqual(shown.parts.map(({ type, text: said }) => said ?? type), ["step-start", "first", "step-start", "second, by another"]);
        assert.equal(shown.types.filter((type) => type === "finish").length, 1);
        assert.equal(shown.types.filter((type) => type === "start").length, 1);
      },
    );
  });

  await whole.test("the same text told twice shows nothing twice, nor does a late one of a lower attempt", () => {
    const rendering = new RenderedText("name", () => "");
    const shown = new Shown();
    const one = { stream: "name", kind: null, truncated: false, seq: 1, outcome: null };
    const texts = [[1, "a"], [1, "ab"], [1, "ab"], [1, "a"], [2, ""], [2, "a"], [1, "abc"], [2, "ax"], [2, "ax"]] as const;
    for (const [attempt, text] of texts) for (const chunk of rendering.take({ ...one, attempt, text })) shown.take(chunk);
    assert.equal(shown.text, "ax");
    assert.deepEqual(shown.types.filter((type) => type === "reset-step").length, 1);
    for (let times = 0; times < 2; times++) for (const chunk of rendering.take({ ...one, attempt: 2, text: "ax!", outcome: "complete" })) shown.take(chunk);
    assert.equal(shown.text, "ax!");
    assert.equal(shown.types.filter((type) => type === "finish").length, 1);
  });
});
