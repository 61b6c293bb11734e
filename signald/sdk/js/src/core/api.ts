// The requests of a client to the HTTP API: what an answer means, and when to ask again. No I/O.
//
//     asked ──2xx──▸ done
//       ├── no answer, 408, 425, 429, 5xx, 409 of a key in use ──▸ a wait, then a retry at the node of the current connection
//       ├── 401 while another API token is on its way ──▸ likewise
//       └── anything else ──▸ ApiRefused

import { ApiRefused } from "../api_errors.js";
import type { Uniform } from "./backoff.js";

/** The waits between requests: short, because the next node of a deploy is there at once. */
const BASE_S = 0.2;
const CAP_S = 5;
const JITTER = 0.25;
/** The longest wait that is obeyed. */
const HINT_MAX_S = 3600;
/** Requests after the end of the session: its node may be gone as well, and no connection finds another one. */
const TRIES_AFTER_END = 5;
const AGAIN: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);
/** Characters of a text that a problem document says. */
const TEXT_MAX = 500;

/** An answer over HTTP; its headers have names in small letters. */
export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** What a request needs of its client. */
export interface Asker {
  /** Where its connection stands, or stood last. */
  readonly url: string;
  readonly apiToken: string;
  readonly connected: boolean;
  /** The error for a session that is over; null while it lives. */
  readonly over: Error | null;
}

/** The JSON of the body as an object; an empty one when it is none. */
export function tableOf(answer: Answer): Record<string, any> {
  try {
    const value: unknown = JSON.parse(new TextDecoder().decode(answer.body));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
  } catch {
    return {};
  }
}

export function succeeded({ status }: Answer): boolean {
  return status >= 200 && status < 300;
}

/** The seconds that an answer asks to wait, at most an hour; null when it names none. */
export function retryAfterS({ headers }: Answer): number | null {
  const said = headers["retry-after"] ?? "";
  return /^\d{1,6}$/.test(said) ? Math.min(Number(said), HINT_MAX_S) : null;
}

/** The same request later may have another answer. */
function isPassing(answer: Answer): boolean {
  const kind = String(tableOf(answer)["type"] ?? "");
  if (answer.status === 409) return kind.endsWith("key-in-use");
  // What is full stays full until the caller has made room.
  return AGAIN.has(answer.status) && !kind.endsWith("-full");
}

/** The error that says what the problem document of `answer` says. */
export function refused(answer: Answer): ApiRefused {
  const problem = tableOf(answer);
  const [type, title, detail] = ["type", "title", "detail"].map((name) => String(problem[name] ?? "").slice(0, TEXT_MAX));
  return new ApiRefused(answer.status, type || "about:blank", title!, detail!);
}

/** The error for an answer of success that says nothing signald would say. */
export function notSignald(status: number): ApiRefused {
  return new ApiRefused(status, "about:blank", "not an answer of signald", "");
}

/** `url` without its path, and without a login. */
export function origin(url: string): string {
  return url.replace(/^(\w+:\/\/)(?:[^/]*@)?([^/]*).*$/, "$1$2");
}

/** The wait before try `tries` (0 is the first) of a request that had no hint, in seconds. */
export function delayS(tries: number, uniform: Uniform): number {
  return uniform(0, Math.min(CAP_S, BASE_S * 2 ** Math.min(tries, 63)));
}

/** A wait that obeys a hint of the service. */
export function hintedS(hintS: number, uniform: Uniform): number {
  return hintS + uniform(0, Math.min(1, hintS * JITTER));
}

/** The tries of one request. Ask as `begin` says; unless the answer is one of success, wait for `waitS`, and begin again. */
export class Tries {
  /** Of those that were of no use. */
  count = 0;
  /** The host that is asked. */
  url = "";
  readonly #asker: Asker;
  readonly #uniform: Uniform;
  #token = "";

  constructor(asker: Asker, uniform: Uniform) {
    this.#asker = asker;
    this.#uniform = uniform;
  }

  /** Set `url`, and return the headers that show who asks. */
  begin(): Record<string, string> {
    this.url = origin(this.#asker.url);
    this.#token = this.#asker.apiToken;
    return { authorization: `Bearer ${this.#token}` };
  }

  /** The last try was of use: the next wait is a short one again. */
  advanced(): void {
    this.count = 0;
  }

  /**
   * The seconds to wait before the next try. `answer` is not one of success; null: there was none.
   *
   * @throws ApiRefused asking again would not help; the error of a session that is over, and of which no node answers
   */
  waitS(answer: Answer | null): number {
    const asker = this.#asker;
    let hintS: number | null = null;
    if (answer !== null) {
      // A token that has run out while there was no connection: the next connection brings another one.
      const isStale = answer.status === 401 && (asker.apiToken !== this.#token || !asker.connected);
      if (!isStale && !isPassing(answer)) throw refused(answer);
      hintS = retryAfterS(answer);
    }
    if (asker.over !== null && this.count >= TRIES_AFTER_END) throw asker.over;
    const waitS = delayS(this.count, this.#uniform);
    this.count += 1;
    return hintS === null ? waitS : hintedS(hintS, this.#uniform);
  }
}
