// The HTTP API as a client reaches it: by `fetch`, at the node of its connection, asked again at the next node where one has gone.

import { NoAnswer } from "./api_errors.js";
import type { Client } from "./client.js";
import { type Answer, type Asker, succeeded, Tries } from "./core/api.js";
import { SessionGone } from "./errors.js";

export type Fetch = typeof globalThis.fetch;

/** For a whole request, and for a silence within a transfer: above the time in which a node answers that its store is away (503). */
export const REQUEST_S = 20;
/** The longest answer that is read: a result of 16 MiB (the highest `jobs.result_bytes_max`), and the job around it. */
const ANSWER_BYTES_MAX = 20 * 1024 * 1024;

export const uniform = (low: number, high: number): number => low + (high - low) * Math.random();

/** A key that no other request has. `crypto.randomUUID` is there in a secure context only. */
export function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Aborts after `seconds` with `late`, or with `outer`; `end` must be called. */
export class Limit {
  readonly #cut = new AbortController();
  readonly #outer: AbortSignal | undefined;
  readonly #follow = (): void => this.#cut.abort(this.#outer!.reason);
  readonly #late: Error;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(seconds: number, late: Error, outer?: AbortSignal) {
    this.#late = late;
    this.#outer = outer;
    if (outer?.aborted) this.#follow();
    outer?.addEventListener("abort", this.#follow);
    this.again(seconds);
  }

  get signal(): AbortSignal {
    return this.#cut.signal;
  }

  /** The time begins anew. */
  again(seconds: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = seconds === Infinity ? null : setTimeout(() => this.cut(this.#late), seconds * 1000);
  }

  cut(reason: Error): void {
    this.#cut.abort(reason);
  }

  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#outer?.removeEventListener("abort", this.#follow);
  }
}

/** Wait. @throws the reason of the signal */
export function sleep(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason);
      return;
    }
    const cut = (): void => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", cut);
      resolve();
    }, seconds * 1000);
    signal?.addEventListener("abort", cut, { once: true });
  });
}

/** An answer as it comes. */
export class Reply {
  readonly status: number;
  /** By names in small letters. */
  readonly headers: Readonly<Record<string, string>>;
  /** It came of another host, which the node has named. */
  readonly redirected: boolean;
  readonly #limit: Limit;
  readonly #response: Response;
  #reader: ReadableStreamDefaultReader<Uint8Array> | null | undefined;

  constructor(response: Response, limit: Limit) {
    this.status = response.status;
    this.headers = Object.fromEntries(response.headers);
    this.redirected = response.redirected;
    this.#response = response;
    this.#limit = limit;
  }

  /** The bytes come when the reader asks for them: no time runs until then. */
  rest(): this {
    this.#limit.again(Infinity);
    return this;
  }

  /** The next bytes of the body; none at its end. @throws NoAnswer it breaks off, or nothing comes for `silenceS`; the reason of the signal */
  async piece(silenceS?: number): Promise<Uint8Array> {
    if (silenceS === undefined) return this.#piece();
    this.#limit.again(silenceS);
    const piece = await this.#piece();
    this.rest();
    return piece;
  }

  async #piece(): Promise<Uint8Array> {
    try {
      if (this.#reader === undefined) this.#reader = this.#response.body?.getReader() ?? null;
      if (this.#reader !== null) {
        for (;;) {
          const { value, done } = await this.#reader.read();
          if (done || value.length) return value ?? new Uint8Array();
        }
      }
      // React Native has no bodies that come in pieces.
      const whole = this.#response.bodyUsed ? new ArrayBuffer(0) : await this.#response.arrayBuffer();
      return new Uint8Array(whole);
    } catch (error) {
      throw this.#limit.signal.aborted ? this.#limit.signal.reason : new NoAnswer(`the answer breaks off: ${error}`);
    }
  }

  /** The whole body. @throws NoAnswer it breaks off, or is too long */
  async read(bytesMax = ANSWER_BYTES_MAX): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let size = 0;
    for (let piece = await this.piece(); piece.length; piece = await this.piece()) {
      pieces.push(piece);
      size += piece.length;
      if (size > bytesMax) throw new NoAnswer(`the answer has more than ${bytesMax} bytes`);
    }
    return joined(pieces, size);
  }

  /** Read no more. */
  close(): void {
    this.#limit.end();
    this.#limit.cut(new NoAnswer("closed"));
  }
}

export function joined(pieces: readonly Uint8Array[], size: number): Uint8Array {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export interface Request {
  headers?: Record<string, string>;
  body?: Uint8Array | string | Blob;
  signal?: AbortSignal;
  /** Seconds for the whole of one try, or for its head and each silence when the answer is read as it comes. */
  tryS?: number;
  tries?: Tries;
}

/** Ask once; the head of the answer is there, and the reply must be closed. @throws NoAnswer there is none; the reason of the signal */
export async function asked(fetch: Fetch, url: string, method: string, { headers, body, signal, tryS = REQUEST_S }: Request): Promise<Reply> {
  const limit = new Limit(tryS, new NoAnswer(`no whole answer within ${tryS} s`), signal);
  try {
    const response = await fetch(url, {
      method,
      headers: headers ?? {},
      // A cookie would make a request of another kind of it; the token says who asks.
      credentials: "omit",
      signal: limit.signal,
      ...(body === undefined ? {} : { body: body as BodyInit }),
    });
    if (url.startsWith("https:") && response.url.startsWith("http:")) throw new Error("out of TLS");
    return new Reply(response, limit);
  } catch (error) {
    limit.end();
    const { aborted, reason } = limit.signal;
    limit.cut(new NoAnswer("failed"));
    throw aborted ? reason : new NoAnswer(`no answer: ${error}`);
  }
}

export class Api {
  readonly client: Client;
  readonly fetch: Fetch;
  #over: Error | null = null;

  constructor(client: Client, fetch?: Fetch) {
    this.client = client;
    this.fetch = fetch ?? ((input, init) => globalThis.fetch(input, init));
    void client.closed.then((error) => {
      this.#over = error ?? new SessionGone(null, "ended");
    });
  }

  /** Wait for the session. @throws RangeError the client asks for no API tokens; what `client.ready` throws */
  async ready(): Promise<void> {
    await this.client.ready;
    if (this.client.api === null) throw new RangeError("this needs an API token: connect with `api: true`");
  }

  /** What begins and judges the tries of one request. */
  tries(): Tries {
    const { client } = this;
    const over = (): Error | null => this.#over;
    const asker: Asker = {
      get url() {
        return client.api?.url ?? "";
      },
      get apiToken() {
        return client.api?.token ?? "";
      },
      get connected() {
        return client.state === "open" || client.state === "moving";
      },
      get over() {
        return over();
      },
    };
    return new Tries(asker, uniform);
  }

  /**
   * Ask until there is an answer of success.
   *
   * @throws ApiRefused it is another one, and asking again would not help; SessionGone the session is over, and no node answers
   */
  async request(method: string, target: string, request: Request = {}): Promise<Answer> {
    await this.ready();
    const tries = request.tries ?? this.tries();
    for (;;) {
      const shown = tries.begin();
      const answer = await this.#once(tries.url + target, method, { ...request, headers: { ...shown, ...request.headers } });
      if (answer !== null && succeeded(answer)) return answer;
      await sleep(tries.waitS(answer), request.signal);
    }
  }

  async #once(url: string, method: string, request: Request): Promise<Answer | null> {
    let reply: Reply | null = null;
    try {
      reply = await asked(this.fetch, url, method, request);
      return { status: reply.status, headers: reply.headers, body: await reply.read() };
    } catch (error) {
      if (request.signal?.aborted) throw request.signal.reason;
      if (error instanceof NoAnswer) return null;
      throw error;
    } finally {
      reply?.close();
    }
  }
}
