// Server-sent events by `fetch`: with a credential in a header, which `EventSource` cannot show, and through deploys.
//
//     200  events; when the stream ends, the next request goes on behind the last whole one (`Last-Event-ID`)
//     204  the reader has all of them
//     none, 408, 425, 429, 5xx; a stream that is silent   a wait, then another request
//     anything else   ApiRefused

import { asked, type Fetch, sleep, uniform } from "./api.js";
import { ApiRefused, NoAnswer } from "./api_errors.js";
import { delayS, hintedS, refused, retryAfterS } from "./core/api.js";
import { EventParser, type ServerEvent } from "./core/sse.js";

export { ApiRefused } from "./api_errors.js";
export type { ServerEvent } from "./core/sse.js";

/** A stream says something each 15 s; after three times as much silence it is dead. */
const SILENCE_S = 45;
const HEAD_S = 20;
const REFUSAL_BYTES_MAX = 1024 * 1024;
const AGAIN: readonly number[] = [408, 425, 429];

export interface EventsOptions {
  /** A credential for the header `Authorization`, asked for before each request. */
  getToken?: () => string | undefined | Promise<string | undefined>;
  headers?: Record<string, string>;
  /** Go on behind this event. */
  lastEventId?: string;
  signal?: AbortSignal;
  fetch?: Fetch;
  /** Seconds without a byte after which a stream counts as dead. */
  silenceS?: number;
}

/**
 * The events of a stream, each once, until its end (204), or until the loop is left. `url` may be a function: the next node has another one.
 *
 * @throws ApiRefused asking again would not help; the reason of `signal`
 */
export async function* readEvents(url: string | (() => string), options: EventsOptions = {}): AsyncGenerator<ServerEvent, void, undefined> {
  const { signal, silenceS = SILENCE_S } = options;
  const fetch: Fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  const parser = new EventParser(options.lastEventId);
  let failures = 0;
  let waitS = 0;
  for (;;) {
    if (waitS) await sleep(waitS, signal);
    signal?.throwIfAborted();
    const before = parser.lastId;
    try {
      const reply = await asked(fetch, typeof url === "string" ? url : url(), "GET", {
        headers: await headersOf(options, parser.lastId),
        tryS: HEAD_S,
        ...(signal && { signal }),
      });
      try {
        if (reply.status === 204) return;
        if (reply.status !== 200) {
          const answer = { status: reply.status, headers: reply.headers, body: await reply.read(REFUSAL_BYTES_MAX) };
          if (answer.status < 500 && !AGAIN.includes(answer.status)) throw refused(answer);
          const hintS = retryAfterS(answer);
          waitS = hintS === null ? delayS(failures, uniform) : hintedS(hintS, uniform);
          failures += 1;
          continue;
        }
        if (!/^text\/event-stream\b/i.test(reply.headers["content-type"] ?? "")) {
          throw new ApiRefused(200, "about:blank", "not a stream of events", "");
        }
        parser.begin();
        for (let piece = await reply.piece(silenceS); piece.length; piece = await reply.piece(silenceS)) yield* parser.push(piece);
      } finally {
        reply.close();
      }
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      if (!(error instanceof NoAnswer)) throw error;
    }
    // A stream that brings nothing again and again waits longer each time.
    failures = parser.lastId === before ? failures + 1 : 0;
    waitS = hintedS(parser.retryMs / 1000, uniform) + (failures > 1 ? delayS(failures - 1, uniform) : 0);
  }
}

async function headersOf({ getToken, headers }: EventsOptions, lastId: string): Promise<Record<string, string>> {
  const token = await getToken?.();
  return {
    accept: "text/event-stream",
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    // A header holds bytes; those of UTF-8 are what `EventSource` sends.
    ...(lastId ? { "last-event-id": String.fromCharCode(...new TextEncoder().encode(lastId)) } : {}),
    ...headers,
  };
}
