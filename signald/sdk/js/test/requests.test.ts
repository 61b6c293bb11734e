// The transcripts of requests over HTTP and of downloads, and the parts of them that no transcript has.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { ApiRefused, BlobFailed } from "../src/api_errors.js";
import { type Asker, succeeded, Tries } from "../src/core/api.js";
import { checkContentType, checkKey, Reading, Sending, targetOf } from "../src/core/blobs.js";
import { Sha256 } from "../src/core/sha256.js";
import { EventParser, type ServerEvent } from "../src/core/sse.js";
import { SessionGone, Unsendable } from "../src/errors.js";

const FILE = join(process.env["SIGNALD_JS"]!, "../../../tests/vectors/transcripts/requests.json");

type Step = Record<string, any>;
interface Vector {
  name: string;
  party: string;
  random: number;
  options: Record<string, any>;
  steps: Step[];
}

interface Player {
  ms: number;
  timer(): number | null;
  play(step: Step): Step[];
}

class RequestPlayer implements Player {
  ms = 0;
  readonly #asker: { -readonly [name in keyof Asker]: Asker[name] };
  readonly #sending: Sending | null;
  readonly #tries: Tries;
  #againAt = -Infinity;
  #isOver = false;

  constructor({ options, random }: Vector) {
    this.#asker = { url: "ws://a.test/v1/client", apiToken: options["api_token"], connected: true, over: null };
    const { upload } = options;
    this.#sending = upload ? new Sending(upload.length, Buffer.from(upload.sha256, "hex"), upload.content_type, upload.key) : null;
    this.#tries = new Tries(this.#asker, (low, high) => low + (high - low) * random);
  }

  timer(): number | null {
    return Number.isFinite(this.#againAt) ? Math.max(this.ms + 1, Math.ceil(this.#againAt * 1000 - 1e-6)) : null;
  }

  play(step: Step): Step[] {
    const asker = this.#asker;
    if ("url" in step) asker.url = step["url"];
    if ("api_token" in step) asker.apiToken = step["api_token"];
    if ("connected" in step) asker.connected = step["connected"];
    if ("over" in step) asker.over = new SessionGone(step["over"], step["reason"]);
    if ("answer" in step) return this.#answered(step["answer"]);
    if (this.ms / 1000 < this.#againAt - 1e-9 || this.#isOver) return [];
    this.#againAt = Infinity;
    const shown = this.#tries.begin();
    return [{ ask: this.#tries.url, headers: { ...shown, ...this.#sending?.headers() } }];
  }

  #answered(said: Step | null): Step[] {
    const answer = said && { status: said["status"], headers: said["headers"] ?? {}, body: Buffer.from(said["body"] ?? "") };
    try {
      if (answer && succeeded(answer)) {
        this.#isOver = true;
        return [{ done: this.#sending === null ? true : this.#sending.kept(answer).id }];
      }
      this.#againAt = this.ms / 1000 + this.#tries.waitS(answer);
      return [];
    } catch (error) {
      this.#isOver = true;
      const told = (this.#sending ? this.#sending.refused(error) : error) as Error;
      return [{ error: told.name, ...(error instanceof ApiRefused && { status: error.status }) }];
    }
  }
}

class ReadingPlayer implements Player {
  ms = 0;
  readonly #options: Record<string, any>;
  readonly #reading: Reading;

  constructor({ options }: Vector) {
    this.#options = options;
    this.#reading = new Reading(options["start"] ?? 0, options["end"] ?? null);
  }

  timer(): number | null {
    return null;
  }

  play(step: Step): Step[] {
    const reading = this.#reading;
    try {
      if ("ask" in step) return [{ get: targetOf(this.#options["blob"]), headers: reading.headers() }];
      if ("head" in step) return [{ brings: reading.begin(step["head"].status, step["head"].headers), size: reading.size }];
      const piece = reading.took(Buffer.from(step["piece"], "base64"));
      return [{ base64: Buffer.from(piece).toString("base64"), over: reading.over }];
    } catch (error) {
      if (error instanceof ApiRefused) return [{ error: error.name, status: error.status }];
      if (error instanceof BlobFailed) return [{ error: error.name, kind: error.reason }];
      throw error;
    }
  }
}

function compare(vector: Vector): void {
  const player: Player = vector.party === "request" ? new RequestPlayer(vector) : new ReadingPlayer(vector);
  for (const step of vector.steps) {
    const due = player.timer();
    if (step["time"]) {
      assert(due !== null && Math.abs(due - step["at"]) <= 1, `due at ${due}, not ${step["at"]}`);
      player.ms = Math.max(due, step["at"]);
    } else {
      assert(due === null || due >= step["at"], `due at ${due}, before ${step["at"]}`);
      player.ms = step["at"];
    }
    assert.deepEqual(player.play(step), step["out"], JSON.stringify(step));
  }
}

test("requests and readings", async (whole) => {
  const vectors: Vector[] = JSON.parse(readFileSync(FILE, "utf8")).vectors;
  // A client names no session.
  const ours = vectors.filter(({ party, options }) => (party === "request" || party === "reading") && !("session" in options));
  for (const vector of ours) await whole.test(vector.name, () => compare(vector));
  assert(ours.length > 30, `${ours.length} vectors`);
});

test("a digest is that of OpenSSL, however the bytes are cut", () => {
  const bytes = Uint8Array.from({ length: 1000 }, (_, place) => (place * 37) & 255);
  for (const length of [0, 1, 3, 55, 56, 57, 63, 64, 65, 119, 128, 1000]) {
    const wanted = createHash("sha256").update(bytes.subarray(0, length)).digest("hex");
    for (const step of [1, 7, 64, 1000]) {
      const hash = new Sha256();
      for (let at = 0; at < length; at += step) hash.update(bytes.subarray(at, Math.min(at + step, length)));
      assert.equal(Buffer.from(hash.digest()).toString("hex"), wanted, `${length} bytes in steps of ${step}`);
    }
  }
});

test("what signald would refuse is refused here", () => {
  for (const key of ["", "a b", "ä", "k".repeat(256)]) assert.throws(() => checkKey(key), Unsendable);
  assert.equal(checkKey("k".repeat(255)), "k".repeat(255));
  for (const type of ["", "audio", "audio/", "a/b\r\nc: d", `a/${"b".repeat(127)}`]) assert.throws(() => checkContentType(type), Unsendable);
  assert.equal(checkContentType('text/plain; charset="utf-8"'), 'text/plain; charset="utf-8"');
  for (const [start, end] of [[-1, null], [0.5, null], [3, 3], [3, 2]] as const) assert.throws(() => new Reading(start, end), RangeError);
});

const STREAM = [
  "\uFEFFretry: 20\r\n\r\n",
  ": a comment\n\n",
  "event: message\nid: 1\ndata: {\"seq\":1}\n\n",
  "data:first\rdata: second\rid: zwei ß\r\r",
  "data\n\n",
  "id: 3\r\n\r\n",
  "event: end\nid: end\ndata: 🙂 is over\nunknown: field\n\n",
  "data: not whole",
].join("");

const EVENTS: ServerEvent[] = [
  { event: "message", id: "1", data: '{"seq":1}' },
  { event: "message", id: "zwei ß", data: "first\nsecond" },
  { event: "message", id: "zwei ß", data: "" },
  { event: "end", id: "end", data: "🙂 is over" },
];

test("events survive a cut at any byte", () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let first = 0; first <= bytes.length; first++) {
    const parser = new EventParser();
    const told = [...parser.push(bytes.subarray(0, first)), ...parser.push(bytes.subarray(first))];
    assert.deepEqual(told, EVENTS, `cut at ${first}`);
    assert.deepEqual([parser.retryMs, parser.lastId], [20, "end"]);
  }
  const parser = new EventParser();
  assert.deepEqual([...bytes].flatMap((byte) => parser.push(Uint8Array.of(byte))), EVENTS);
});

test("an event that is not whole counts for nothing at the next answer", () => {
  const parser = new EventParser("0");
  const encoder = new TextEncoder();
  assert.deepEqual(parser.push(encoder.encode("id: 7\ndata: half")), []);
  assert.equal(parser.lastId, "0");
  parser.begin();
  assert.deepEqual(parser.push(encoder.encode("data: whole\n\n")), [{ event: "message", id: "0", data: "whole" }]);
});
