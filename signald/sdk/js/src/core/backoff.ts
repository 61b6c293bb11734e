// When and where to connect next: full jitter, hints of the service, and an ordered list of URLs. No I/O.
//
// A wait is between 0 and min(cap, base * 2^n), from the first try on: thousands of clients may lose a node together, and must not come
// back together. `n` returns to zero when an opening message was answered.

import { GOING_AWAY, REFUSED } from "./codes.js";

/** Gives a number between `low` and `high`. */
export type Uniform = (low: number, high: number) => number;

/** The waits between connections, in seconds. */
export interface Backoff {
  baseS: number;
  capS: number;
  /** After close 1001 that no goaway announced. */
  goingAwayS: number;
  /** After close 1013 that names no time. */
  refusedS: number;
  /** A hint of N is waited for N to N * (1 + hintJitter), at most a second more. */
  hintJitter: number;
  /** Failed tries in a row after which the client gives up; null: never. */
  triesMax: number | null;
}

export const DEFAULT_BACKOFF: Backoff = {
  baseS: 0.25,
  capS: 20,
  goingAwayS: 5,
  refusedS: 10,
  hintJitter: 0.25,
  triesMax: null,
};

/** The longest hint that is obeyed: a longer one, by a wrong number, would as good as lose the client. */
const HINT_MAX_S = 3600;

/** A connection of use for less than so many seconds is a quick one; further quick ones in a row wait like failures. */
const STEADY_S = 5;
const QUICK_MAX = 3;

/** The wait before a goaway is followed, when the connections before were quick ones; after so many of these, waits grow. */
const MOVE_REST_S = 1;
const MOVES_MAX = 120;

/** `retry_after_ms` of a close reason such as `{"retry_after_ms":500}`, or null. */
export function hintMs(reason: string): number | null {
  if (!reason.startsWith("{")) return null;
  try {
    const hint: unknown = JSON.parse(reason).retry_after_ms;
    return Number.isInteger(hint) && (hint as number) >= 0 ? (hint as number) : null;
  } catch {
    return null;
  }
}

/**
 * `url` with `path` when it names no path of its own.
 *
 * @throws RangeError not a ws: or wss: URL with a host, or one with a query or a fragment (a token in it would end up in logs)
 */
export function endpoint(url: string, path: string): string {
  const [, head, own] = /^(wss?:\/\/[!-.0-~]+)(\/[!-~]*)?$/i.exec(url) ?? [];
  try {
    const { port, hostname } = new URL(url);
    if (head && hostname && port !== "0" && !/[?#]/.test(url) && !/[^.]{64}/.test(hostname)) {
      return head.replace(/^\w+/, (scheme) => scheme.toLowerCase()) + (own?.replaceAll("/", "") ? own : path);
    }
  } catch {
    // told below
  }
  throw new RangeError(`no URL of signald: ${url}`);
}

/** `url` as it may be shown: a user's name and password before its host are left out. */
export function withoutLogin(url: string): string {
  return url.replace(/^(\w+:\/\/)[^/]*@/, "$1");
}

/** The next attempt: its time and its URL. */
export class Schedule {
  /** Failed tries since the last usable session. */
  tries = 0;
  /** The next attempt is not made before this time. */
  at = -Infinity;
  readonly urls: readonly string[];
  readonly #path: string;
  readonly #backoff: Backoff;
  readonly #uniform: Uniform;
  #index = 0;
  #target: string | null = null;
  #targetUntil = 0;
  #usableAt = -Infinity;
  #quick = 0;
  #quickMoves = 0;
  #restUntil = -Infinity;

  constructor(urls: readonly string[], path: string, backoff: Backoff, uniform: Uniform) {
    if (!urls.length) throw new RangeError("no URL to connect to");
    this.#path = path;
    this.urls = urls.map((url) => endpoint(url, path));
    this.#backoff = backoff;
    this.#uniform = uniform;
  }

  /** Where the next attempt goes. */
  url(now: number): string {
    return this.#target !== null && now < this.#targetUntil ? this.#target : this.urls[this.#index]!;
  }

  get exhausted(): boolean {
    return this.#backoff.triesMax !== null && this.tries >= this.#backoff.triesMax;
  }

  /** Follow a goaway: connect again, at the target first, at the earliest after `notBeforeS`. */
  moving(now: number, notBeforeS: number, deadlineS: number, target: string | null): void {
    this.#quickMoves = now - this.#usableAt < STEADY_S ? this.#quickMoves + 1 : 0;
    this.#restUntil = now + this.#moveRestS();
    this.at = Math.max(now + notBeforeS, this.#restUntil);
    this.tries = 0;
    this.#target = target ? this.#resolve(target) : null;
    this.#targetUntil = now + deadlineS;
    // Without a target the node that goes away is the one URL that is certainly wrong, if there is another.
    this.#index = target === null ? (this.#index + 1) % this.urls.length : 0;
  }

  #resolve(target: string): string | null {
    const current = this.urls[this.#index]!;
    try {
      return endpoint(target.includes("://") ? target : `${current.slice(0, current.indexOf("://"))}://${target}`, this.#path);
    } catch {
      return null; // a hint that cannot be followed is no hint
    }
  }

  /** A usable connection ended; `announced`: after a goaway, so nothing has to be waited for. */
  broken(now: number, code: number | null, reason: string, announced: boolean): void {
    const hint = hintMs(reason);
    if (hint !== null) this.at = now + this.#hintedS(hint);
    else if (announced) this.at = this.tries ? Math.max(now, this.at) : now;
    else this.at = now + this.#waitS(code);
    this.at = Math.max(this.at, announced ? this.#restUntil : now + this.#restS(now));
    if (!announced) this.#index = 0;
  }

  /** How long to wait because the connection that is to be replaced was a quick one, like those before it. */
  #restS(now: number): number {
    this.#quick = now - this.#usableAt < STEADY_S ? this.#quick + 1 : 0;
    return this.#quick >= QUICK_MAX ? this.#delayS(this.#quick - QUICK_MAX) : 0;
  }

  #moveRestS(): number {
    if (this.#quickMoves < QUICK_MAX) return 0;
    return this.#quickMoves < MOVES_MAX ? MOVE_REST_S : this.#delayS(this.#quickMoves - MOVES_MAX);
  }

  #delayS(tries: number): number {
    return this.#uniform(0, Math.min(this.#backoff.capS, this.#backoff.baseS * 2 ** Math.min(tries, 63)));
  }

  #jitteredS(hintS: number): number {
    return hintS + this.#uniform(0, Math.min(1, hintS * this.#backoff.hintJitter));
  }

  #hintedS(hint: number): number {
    const hintS = Math.min(Math.max(hint, 0) / 1000, HINT_MAX_S);
    const waitS = this.#jitteredS(hintS);
    // A hint to come at once is none: failures in a row keep their growing waits.
    return hintS >= this.#backoff.baseS ? waitS : Math.max(waitS, this.#delayS(this.tries));
  }

  /** An attempt brought no usable session; `hint` is in milliseconds. */
  failed(now: number, code: number | null, hint: number | null): void {
    if (this.#target !== null) {
      // After a failure the hinted target is forgotten: back to the configured URLs, in order, at once.
      this.#target = null;
      this.#index = 0;
      this.tries += 1;
      this.at = now + this.#uniform(0, Math.min(0.05, this.#backoff.baseS));
      return;
    }
    this.at = now + (hint !== null ? this.#hintedS(hint) : this.#waitS(code));
    this.tries += 1;
    this.#index = (this.#index + 1) % this.urls.length;
  }

  #waitS(code: number | null): number {
    if (code === GOING_AWAY) return this.#jitteredS(this.#backoff.goingAwayS);
    if (code === REFUSED) return this.#jitteredS(this.#backoff.refusedS);
    // The exponent grows once for each round through the list: the second URL is not punished for the first.
    return this.#delayS(Math.floor(this.tries / this.urls.length));
  }

  /** An opening message was answered. */
  usable(now: number): void {
    this.#usableAt = now;
    this.tries = 0;
    this.#target = null;
  }
}
