// The blobs of a session: uploaded and read over HTTP, at the node that its client is connected to.
//
//     upload  counted and hashed first, then sent until there is an answer; a node that goes in between costs another try
//     open    a part of the bytes as they come; when a node goes, another one sends the rest

import { Api, asked, type Fetch, joined, Limit, newKey, REQUEST_S, type Reply, sleep } from "./api.js";
import { ApiRefused, BlobFailed, NoAnswer } from "./api_errors.js";
import type { Client } from "./client.js";
import { type Answer, notSignald, succeeded } from "./core/api.js";
import { checkContentType, checkKey, type KeptBlob, OCTETS, READ_BYTES_MAX, Reading, Sending, targetOf } from "./core/blobs.js";
import { Sha256 } from "./core/sha256.js";

export { ApiRefused, BlobFailed } from "./api_errors.js";
export type { KeptBlob } from "./core/blobs.js";

/** For a whole upload, and for a whole `read`: 10 MiB at 300 kbit/s, or a killed node (whose key is free after 20 s) and a deploy. */
const TRANSFER_S = 300;
/** For the next bytes of a blob that is read as it comes, over all tries: a node that is killed has a successor by then. */
const PIECE_S = 60;
/** What one try of an upload may take beside its bytes, and the slowest rate that a node takes, in bytes each second. */
const UPLOAD_S = 80;
const UPLOAD_BYTES_PER_S = 4096;
const REFUSAL_BYTES_MAX = 1024 * 1024;
/** Bytes of a file that are hashed at once. */
const SLICE_BYTES = 1024 * 1024;

/** What can be uploaded; a `File` is a `Blob`. */
export type Source = Uint8Array | ArrayBuffer | Blob | string;

export interface UploadOptions {
  /** That of a `File`, or else `application/octet-stream`. */
  contentType?: string;
  /** However often an upload is made with one key, one blob is kept: 1 to 255 visible characters. */
  key?: string;
  /** Seconds for all of it. */
  timeoutS?: number;
  signal?: AbortSignal;
}

export interface ReadOptions {
  bytesMax?: number;
  /** Seconds for all of it. */
  timeoutS?: number;
  signal?: AbortSignal;
}

export interface OpenOptions {
  start?: number;
  /** Not included; without it all that follow. */
  end?: number;
  /** Seconds for the head of the answer, and for each piece, over as many requests as it takes. */
  timeoutS?: number;
  signal?: AbortSignal;
}

/** The blobs of a client that was connected with `api: true`. `fetch` is that of the page unless it is given. */
export function blobs(client: Client, { fetch }: { fetch?: Fetch } = {}): Blobs {
  return new Blobs(new Api(client, fetch));
}

export class Blobs {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  /**
   * Upload bytes; a message can name the blob that is returned.
   *
   * @throws ApiRefused | BlobFailed | SessionGone; Unsendable wrong options
   */
  async upload(source: Source, { contentType, key, timeoutS = TRANSFER_S, signal }: UploadOptions = {}): Promise<KeptBlob> {
    const type = checkContentType(contentType ?? ((source instanceof Blob && source.type) || OCTETS));
    const named = key === undefined ? newKey() : checkKey(key);
    const limit = new Limit(timeoutS, new BlobFailed("late", `the upload was not over within ${timeoutS} s`), signal);
    const body = source instanceof ArrayBuffer ? new Uint8Array(source) : typeof source === "string" ? new TextEncoder().encode(source) : source;
    try {
      const length = body instanceof Blob ? body.size : body.length;
      const sending = new Sending(length, await digested(body, limit.signal), type, named);
      const request = { headers: sending.headers(), body, signal: limit.signal, tryS: UPLOAD_S + length / UPLOAD_BYTES_PER_S };
      try {
        return sending.kept(await this.#api.request("POST", targetOf(""), request));
      } catch (error) {
        throw sending.refused(error);
      }
    } finally {
      limit.end();
    }
  }

  /**
   * All bytes of a blob; a break on the way is followed by another request.
   *
   * @throws ApiRefused there is no such blob, or this client may not read it; BlobFailed | SessionGone
   */
  async read(id: string, { bytesMax = READ_BYTES_MAX, timeoutS = TRANSFER_S, signal }: ReadOptions = {}): Promise<Uint8Array> {
    const limit = new Limit(timeoutS, new BlobFailed("late", `the blob was not read within ${timeoutS} s`), signal);
    let stream: BlobStream | null = null;
    try {
      stream = await this.open(id, { timeoutS, signal: limit.signal });
      if (stream.size > bytesMax) throw new BlobFailed("too_long", `the blob has ${stream.size} bytes, above ${bytesMax}`);
      const pieces: Uint8Array[] = [];
      for await (const piece of stream) pieces.push(piece);
      return joined(pieces, stream.size);
    } finally {
      stream?.close();
      limit.end();
    }
  }

  /** Read bytes as they come: the head of the first answer is there. @throws as `read`; RangeError `start` or `end` are none */
  async open(id: string, { start = 0, end, timeoutS = PIECE_S, signal }: OpenOptions = {}): Promise<BlobStream> {
    const stream = new BlobStream(this.#api, targetOf(id), new Reading(start, end ?? null), timeoutS, signal);
    await this.#api.ready();
    await stream.begin();
    return stream;
  }

  /** Remove a blob, for all its readers. @throws ApiRefused there is no such blob, or this client may not remove it; SessionGone */
  async delete(id: string, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#api.ready();
    const tries = this.#api.tries();
    try {
      await this.#api.request("DELETE", targetOf(id), { tries, ...(signal && { signal }) });
    } catch (error) {
      // The answer to an earlier try may be what was lost.
      if (!(error instanceof ApiRefused && error.status === 404 && tries.count)) throw error;
    }
  }
}

async function digested(body: Uint8Array | Blob, signal: AbortSignal): Promise<Uint8Array> {
  const hash = new Sha256();
  if (body instanceof Uint8Array) return hash.update(body).digest();
  for (let at = 0; at < body.size; at += SLICE_BYTES) {
    signal.throwIfAborted();
    hash.update(new Uint8Array(await body.slice(at, at + SLICE_BYTES).arrayBuffer()));
  }
  return hash.digest();
}

/** The bytes of a blob as they come; made by `open`. One reader. */
export class BlobStream implements AsyncIterable<Uint8Array> {
  readonly #api: Api;
  readonly #target: string;
  readonly #reading: Reading;
  readonly #timeoutS: number;
  readonly #signal: AbortSignal | undefined;
  readonly #tries;
  #reply: Reply | null = null;

  constructor(api: Api, target: string, reading: Reading, timeoutS: number, signal?: AbortSignal) {
    this.#api = api;
    this.#target = target;
    this.#reading = reading;
    this.#timeoutS = timeoutS;
    this.#signal = signal;
    this.#tries = api.tries();
  }

  /** How many bytes the whole blob has. */
  get size(): number {
    return this.#reading.size ?? 0;
  }

  /** As its sender gave it; `application/octet-stream` where there are no bytes. */
  get contentType(): string {
    return this.#reading.contentType;
  }

  /** The place in the blob of the next byte. */
  get position(): number {
    return this.#reading.position;
  }

  /** Wait for the head of the first answer. */
  async begin(): Promise<void> {
    await this.#inTime(async (signal) => {
      while (this.#reading.size === null) await this.#ask(signal);
    });
  }

  async *[Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    try {
      while (!this.#reading.over) yield await this.#inTime((signal) => this.#next(signal));
    } finally {
      this.close();
    }
  }

  /** Read no more. */
  close(): void {
    this.#reply?.close();
    this.#reply = null;
  }

  async #inTime<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const limit = new Limit(this.#timeoutS, new BlobFailed("late", `no byte of the blob within ${this.#timeoutS} s`), this.#signal);
    // A reply outlives the piece for which it was asked.
    limit.signal.addEventListener("abort", () => this.#reply?.close());
    try {
      return await work(limit.signal);
    } catch (error) {
      this.close();
      throw limit.signal.aborted ? limit.signal.reason : error;
    } finally {
      limit.end();
    }
  }

  async #next(signal: AbortSignal): Promise<Uint8Array> {
    for (;;) {
      signal.throwIfAborted();
      if (this.#reply === null) await this.#ask(signal);
      else {
        const piece = await this.#piece(this.#reply, signal);
        if (piece.length) return piece;
      }
    }
  }

  /** Bytes of this answer; none when they are before those that are wanted, or when it breaks off. */
  async #piece(reply: Reply, signal: AbortSignal): Promise<Uint8Array> {
    const data = await reply.piece(REQUEST_S).catch((error: unknown) => {
      if (error instanceof NoAnswer) return new Uint8Array();
      throw error;
    });
    if (!data.length) {
      this.close();
      await sleep(this.#tries.waitS(null), signal);
      return data;
    }
    const piece = this.#reading.took(data);
    if (piece.length) this.#tries.advanced();
    return piece;
  }

  /** Ask once; unless the answer brings the bytes, wait before the next try. */
  async #ask(signal: AbortSignal): Promise<void> {
    let refusal: Answer | null = null;
    try {
      refusal = await this.#begin(signal);
    } catch (error) {
      if (!(error instanceof NoAnswer)) throw error;
    }
    if (this.#reply === null) await sleep(this.#tries.waitS(refusal), signal);
  }

  /** Ask; keep the answer when it brings the bytes, and return it when it is a refusal of the node. @throws NoAnswer neither */
  async #begin(signal: AbortSignal): Promise<Answer | null> {
    const headers = { ...this.#tries.begin(), ...this.#reading.headers() };
    const reply = await asked(this.#api.fetch, this.#tries.url + this.#target, "GET", { headers, signal });
    let kept = false;
    try {
      kept = this.#reading.begin(reply.status, reply.headers);
      if (kept) {
        this.#reply = reply.rest();
        return null;
      }
      const answer = { status: reply.status, headers: reply.headers, body: await reply.read(REFUSAL_BYTES_MAX) };
      if (succeeded(answer)) throw notSignald(answer.status);
      if (reply.redirected) throw new NoAnswer("the signed URL is of no use any more");
      return answer;
    } finally {
      if (!kept) reply.close();
    }
  }
}
