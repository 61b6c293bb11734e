// Blobs, histories and events over real sockets, at a server that breaks off, refuses and goes.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import test from "node:test";
import { EventParser } from "../src/core/sse.js";
import { ApiRefused, BlobFailed } from "../src/api_errors.js";
import { blobs } from "../src/blobs.js";
import type { Client } from "../src/client.js";
import { SessionGone, type SignaldError } from "../src/errors.js";
import { historyOf, readHistory } from "../src/history.js";
import { readEvents, type ServerEvent } from "../src/sse.js";

interface Asked {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: Buffer;
}

/** What one request comes to; the last one of a list is played again and again. */
type Play = (response: ServerResponse, asked: Asked) => void;

class Host {
  readonly asked: Asked[] = [];
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(...plays: Play[]): Promise<Host> {
    const host: Host = new Host(
      createServer((request, response) => {
        const pieces: Buffer[] = [];
        request.on("data", (piece: Buffer) => pieces.push(piece));
        request.on("end", () => {
          const { method = "", url = "", headers } = request;
          const asked = { method, url, headers, body: Buffer.concat(pieces) };
          host.asked.push(asked);
          plays[Math.min(host.asked.length, plays.length) - 1]!(response, asked);
        });
      }),
    );
    await new Promise<void>((resolve) => host.#server.listen(0, "127.0.0.1", resolve));
    return host;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** What the entries need of a client. */
class Party {
  readonly ready = Promise.resolve();
  readonly closed: Promise<SignaldError | null>;
  api: { token: string; url: string } | null;
  state = "open";
  sessionId = "s_1";
  end!: (error: SignaldError | null) => void;

  constructor(url: string | null) {
    this.api = url === null ? null : { token: "at_1", url };
    this.closed = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  get client(): Client {
    return this as unknown as Client;
  }
}

const BYTES = Uint8Array.from({ length: 100_000 }, (_, place) => (place * 31) & 255);
const digestOf = (bytes: Uint8Array): Buffer => createHash("sha256").update(bytes).digest();
const reprDigest = (bytes: Uint8Array): string => `sha-256=:${digestOf(bytes).toString("base64")}:`;

const breakOff: Play = (response) => response.destroy();
const say =
  (status: number, body: object = {}, headers: Record<string, string> = {}): Play =>
  (response) =>
    void response.writeHead(status, headers).end(JSON.stringify(body));
const problem = (status: number, type: string): Play => say(status, { type: `urn:signald:problem:${type}`, title: "t", detail: "d" });

/** All bytes, or those of a range; `cut`: the connection breaks behind so many of them. */
const give =
  (bytes: Uint8Array, cut = Infinity, digest = reprDigest(bytes)): Play =>
  (response, { headers }) => {
    const from = Number(/^bytes=(\d+)-/.exec(headers.range ?? "")?.[1] ?? 0);
    const rest = bytes.subarray(from);
    const range = `bytes ${from}-${bytes.length - 1}/${bytes.length}`;
    response.writeHead(from ? 206 : 200, { "content-length": rest.length, "repr-digest": digest, "content-type": "audio/ogg", ...(from && { "content-range": range }) });
    if (cut >= rest.length) response.end(rest);
    else response.write(rest.subarray(0, cut), () => setTimeout(() => response.destroy(), 20));
  };

const kept = (bytes: Uint8Array): Play =>
  say(201, { blob: "b_1", bytes: bytes.length, content_type: "audio/ogg", sha256: digestOf(bytes).toString("hex"), expires_at: "2026-12-30T06:30:00Z" });

async function hosted(plays: Play[], work: (host: Host, party: Party) => Promise<void>): Promise<void> {
  const host = await Host.start(...plays);
  try {
    await work(host, new Party(host.url));
  } finally {
    await host.stop();
  }
}

test("blobs", async (whole) => {
  await whole.test("an upload is made until there is an answer, with one key", () =>
    hosted([breakOff, problem(503, "busy"), problem(409, "key-in-use"), kept(BYTES)], async (host, { client }) => {
      const blob = await blobs(client).upload(new Blob([BYTES], { type: "audio/ogg" }));
      assert.deepEqual([blob.id, blob.size, blob.contentType], ["b_1", BYTES.length, "audio/ogg"]);
      assert.equal(host.asked.length, 4);
      const first = host.asked[0]!.headers;
      for (const { method, url, headers, body } of host.asked) {
        assert.deepEqual([method, url, headers.authorization, headers["content-type"]], ["POST", "/v1/blobs", "Bearer at_1", "audio/ogg"]);
        assert.deepEqual(digestOf(body), digestOf(BYTES));
        assert.equal(headers["content-digest"], reprDigest(BYTES));
        assert.match(String(headers["idempotency-key"]), /^[0-9a-f]{32}$/);
        assert.equal(headers["idempotency-key"], first["idempotency-key"]);
      }
    }));

  await whole.test("an upload that is refused says why", () =>
    hosted([problem(429, "blobs-full")], async (host, { client }) => {
      await assert.rejects(blobs(client).upload("text"), (error: ApiRefused) => error instanceof ApiRefused && error.type.endsWith("blobs-full"));
      assert.equal(host.asked.length, 1);
    }));

  await whole.test("a session that is over and without a node ends an upload", () =>
    hosted([breakOff], async (host, party) => {
      party.end(null);
      await assert.rejects(blobs(party.client).upload(BYTES), SessionGone);
      assert.equal(host.asked.length, 6);
    }));

  await whole.test("a download goes on where it broke off, at the next node", () =>
    hosted([give(BYTES, 30_000), breakOff, give(BYTES, 20_000)], async (first, party) => {
      const second = await Host.start(give(BYTES));
      try {
        const stream = await blobs(party.client).open("b_1", { timeoutS: 20 });
        assert.deepEqual([stream.size, stream.contentType], [BYTES.length, "audio/ogg"]);
        const pieces: Uint8Array[] = [];
        for await (const piece of stream) {
          pieces.push(piece);
          if (stream.position >= 50_000) party.api = { token: "at_2", url: second.url };
        }
        assert.deepEqual(Buffer.concat(pieces), Buffer.from(BYTES));
        assert.deepEqual(first.asked.map(({ headers }) => headers.range), [undefined, "bytes=30000-", "bytes=30000-"]);
        assert.deepEqual(second.asked.map(({ headers }) => [headers.range, headers.authorization]), [["bytes=50000-", "Bearer at_2"]]);
      } finally {
        await second.stop();
      }
    }));

  await whole.test("bytes that are not those of the digest are none", () =>
    hosted([give(BYTES, Infinity, reprDigest(BYTES.subarray(1)))], async (_, { client }) => {
      await assert.rejects(blobs(client).read("b_1"), (error: BlobFailed) => error.reason === "changed");
    }));

  await whole.test("a blob that is too long is not read", () =>
    hosted([give(BYTES)], async (_, { client }) => {
      await assert.rejects(blobs(client).read("b_1", { bytesMax: 10 }), (error: BlobFailed) => error.reason === "too_long");
      assert.equal((await blobs(client).read("b_1", { bytesMax: BYTES.length })).length, BYTES.length);
    }));

  await whole.test("a node that says nothing ends in time, and by a signal", () =>
    hosted([() => {}], async (_, { client }) => {
      await assert.rejects(blobs(client).read("b_1", { timeoutS: 0.05 }), (error: BlobFailed) => error.reason === "late");
      const cut = new AbortController();
      setTimeout(() => cut.abort(new Error("enough")), 20);
      await assert.rejects(blobs(client).read("b_1", { signal: cut.signal }), /enough/);
      await assert.rejects(blobs(client).upload(BYTES, { signal: cut.signal }), /enough/);
    }));

  await whole.test("a node that falls silent in the midst ends in time", () =>
    hosted([(response) => void response.writeHead(200, { "content-length": "10" }).write("01234")], async (_, { client }) => {
      await assert.rejects(blobs(client).read("b_1", { timeoutS: 0.2 }), (error: BlobFailed) => error.reason === "late");
    }));

  await whole.test("a signed URL is followed without the credential", async () => {
    const bucket = await Host.start(give(BYTES));
    const leads: Play = (response) => void response.writeHead(307, { location: `${bucket.url}/bucket/x?signature=1` }).end();
    await hosted([leads], async (host, { client }) => {
      assert.equal((await blobs(client).read("b_1")).length, BYTES.length);
      assert.equal(host.asked[0]!.headers.authorization, "Bearer at_1");
      assert.deepEqual(bucket.asked.map(({ url, headers }) => [url, headers.authorization]), [["/bucket/x?signature=1", undefined]]);
    });
    await bucket.stop();
  });

  await whole.test("a removal whose answer was lost is one", () =>
    hosted([breakOff, problem(404, "unknown-blob")], async (_, { client }) => {
      await blobs(client).delete("b_1");
      await assert.rejects(blobs(client).delete("b_1"), (error: ApiRefused) => error.status === 404);
    }));

  await whole.test("without API tokens there are no blobs", async () => {
    await assert.rejects(blobs(new Party(null).client).read("b_1"), RangeError);
  });
});

test("the history comes page by page", () => {
  const page = (next?: string, ...seqs: number[]): Play => say(200, { entries: seqs.map((seq) => ({ from: "client", seq, at: null })), ...(next && { next }) });
  return hosted([page("3", 3, 4), page(undefined, 1, 2), page("9", 9)], async (host, { client }) => {
    const told: number[] = [];
    for await (const { seq } of historyOf(client, { limit: 2 })) told.push(seq);
    assert.deepEqual(told, [4, 3, 2, 1]);
    assert.deepEqual(host.asked.map(({ url }) => url), ["/v1/sessions/s_1/history?limit=2", "/v1/sessions/s_1/history?limit=2&before=3"]);
    assert.deepEqual(await readHistory(client), { entries: [{ from: "client", seq: 9, at: null }], next: "9" });
  });
});

const HEAD = { "content-type": "text/event-stream; charset=utf-8" };
const stream =
  (text: string, cut = false): Play =>
  (response) => {
    response.writeHead(200, HEAD);
    if (!cut) response.end(text);
    else response.write(text, () => setTimeout(() => response.destroy(), 20));
  };
const spoken: Play = (response) => {
  response.writeHead(200, HEAD).write(event(1));
  setTimeout(() => response.end(event(2)), 50);
};
const event = (seq: number): string => `event: message\nid: ${seq}\ndata: ${seq}\n\n`;

async function all(events: AsyncIterable<ServerEvent>): Promise<string[]> {
  const told: string[] = [];
  for await (const one of events) told.push(one.data);
  return told;
}

test("events", async (whole) => {
  await whole.test("they go on behind the last whole one, each once", () =>
    hosted(
      [
        stream(`retry: 5\n\n${event(1)}${event(2)}event: message\nid: 3\nda`, true),
        problem(503, "busy"),
        stream("retry: 5\n\n"),
        breakOff,
        stream(event(3) + event(4)),
        (response) => void response.writeHead(204).end(),
      ],
      async (host) => {
        let asked = 0;
        const told = await all(readEvents(() => `${host.url}/events`, { getToken: () => `t_${++asked}` }));
        assert.deepEqual(told, ["1", "2", "3", "4"]);
        assert.deepEqual(host.asked.map(({ headers }) => headers["last-event-id"]), [undefined, "2", "2", "2", "2", "4"]);
        assert.deepEqual(host.asked.map(({ headers }) => headers.authorization), [1, 2, 3, 4, 5, 6].map((number) => `Bearer t_${number}`));
      },
    ));

  await whole.test("a character that the network has cut is whole", () => {
    const bytes = new TextEncoder().encode("data: Größe\n\n");
    for (let at = 1; at < bytes.length; at++) {
      const parser = new EventParser();
      assert.deepEqual([...parser.push(bytes.subarray(0, at)), ...parser.push(bytes.subarray(at))].map(({ data }) => data), ["Größe"]);
    }
  });

  await whole.test("a refusal ends them, and so does another type", () =>
    hosted([problem(401, "unauthenticated"), say(200)], async (host) => {
      await assert.rejects(all(readEvents(host.url)), (error: ApiRefused) => error.status === 401);
      await assert.rejects(all(readEvents(host.url)), (error: ApiRefused) => error.status === 200);
      assert.equal(host.asked.length, 2);
    }));

  await whole.test("a stream that is silent is left for another", () =>
    hosted([(response) => void response.writeHead(200, HEAD).write(`retry: 1\n\n${event(1)}`), stream(event(2)), (response) => void response.writeHead(204).end()], async (host) => {
      assert.deepEqual(await all(readEvents(host.url, { silenceS: 0.1 })), ["1", "2"]);
    }));

  await whole.test("a reader that is slow is no silence", () =>
    hosted([spoken, (response) => void response.writeHead(204).end()], async (host) => {
      const told: string[] = [];
      for await (const { data } of readEvents(host.url, { silenceS: 0.2 })) {
        told.push(data);
        if (data === "1") await new Promise((resolve) => setTimeout(resolve, 400));
      }
      assert.deepEqual([told, host.asked.length], [["1", "2"], 2]);
    }));

  await whole.test("a signal ends them, and a reader that leaves ends the connection", () =>
    hosted([(response) => void response.writeHead(200, HEAD).write(event(1))], async (host) => {
      const cut = new AbortController();
      await assert.rejects(async () => {
        for await (const _ of readEvents(host.url, { signal: cut.signal })) cut.abort(new Error("enough"));
      }, /enough/);
      for await (const { id } of readEvents(host.url, { lastEventId: "7" })) {
        assert.equal(id, "1");
        break;
      }
      assert.equal(host.asked[1]!.headers["last-event-id"], "7");
    }));
});
