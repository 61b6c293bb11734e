// A WebSocket as the driver needs it: one that connects within a time, or says why not.

import { FORBIDDEN, REFUSED, UNAUTHENTICATED } from "./core/codes.js";
import type { Frame } from "./core/frames.js";

export const SUBPROTOCOL = "signald.v1";

/** What is used of a WebSocket: that of browsers, of Node, of `ws`, of React Native. */
export interface Socket {
  binaryType: string;
  readonly protocol: string;
  readonly bufferedAmount: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(data: string | Uint8Array): void;
  close(code?: number, reason?: string): void;
  /** Of `ws`: end it without a closing handshake. */
  terminate?(): void;
  /** Of `ws`: read no more for now. A browser reads on. */
  pause?(): void;
  resume?(): void;
  /** Of `ws`: the answer to a handshake that was not taken. */
  on?(event: "unexpected-response", listener: (request: unknown, response: { statusCode: number; headers: Record<string, any> }) => void): void;
}

export type SocketClass = new (url: string, protocols: string[]) => Socket;

/** Why no connection came about. */
export interface Failure {
  code: number | null;
  reason: string;
  retryAfterMs: number | null;
  wrongUrl: boolean;
}

const failed = (reason: string, more: Partial<Failure> = {}): Failure => ({ code: null, reason, retryAfterMs: null, wrongUrl: false, ...more });

/** What a handshake means that was answered with `status`, which is not 101. A browser does not tell it. */
export function refusedHandshake(status: number, retryAfter: string): Failure {
  const reason = `HTTP ${status}`;
  if (status === 401) return failed(reason, { code: UNAUTHENTICATED });
  if (status === 403) return failed(reason, { code: FORBIDDEN });
  if (status === 429 || status === 503) {
    // Seven digits are four months; a longer number is no hint.
    return /^\d{1,6}$/.test(retryAfter) ? failed(reason, { code: REFUSED, retryAfterMs: +retryAfter * 1000 }) : failed(reason);
  }
  // 408 and 425 ask to come again as well.
  return failed(reason, { wrongUrl: status < 500 && status !== 408 && status !== 425 });
}

export interface Events {
  opened(): void;
  failed(failure: Failure): void;
  frame(frame: Frame): void;
  /** After `opened`, once. `code` is null when the peer said none. */
  closed(code: number | null, reason: string): void;
}

/** One connection. Each of its events comes once at most, and none after `cut` or `close`. */
export class Carrier {
  readonly #socket: Socket;
  #events: Events | null;
  #standing = false;
  readonly #timer: ReturnType<typeof setTimeout>;

  constructor(Socket: SocketClass, url: string, connectS: number, events: Events) {
    this.#events = events;
    this.#timer = setTimeout(() => this.#fail(failed("no connection")), connectS * 1000);
    try {
      this.#socket = new Socket(url, [SUBPROTOCOL]);
    } catch (error) {
      clearTimeout(this.#timer);
      throw error;
    }
    const socket = this.#socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = ({ data }) => this.#events?.frame(typeof data === "string" ? data : new Uint8Array(data));
    socket.onclose = ({ code, reason }) => this.#closed(code, String(reason ?? ""));
    // Without a listener `ws` ends the process; a `close` follows each `error`.
    socket.onerror = () => {};
    socket.on?.("unexpected-response", (_, response) => {
      this.#fail(refusedHandshake(response.statusCode, String(response.headers["retry-after"] ?? "")));
    });
  }

  get bufferedAmount(): number {
    return this.#socket.bufferedAmount;
  }

  send(frame: Frame): void {
    this.#socket.send(frame);
  }

  /** Read no more for as long as the application is behind, where a socket can do that. */
  hold(on: boolean): void {
    if (on) this.#socket.pause?.();
    else this.#socket.resume?.();
  }

  /** Say goodbye; nothing more comes. */
  close(): void {
    this.#leave();
    this.#socket.close(1000);
  }

  /** End it at once; nothing more comes. A browser can only begin a closing handshake, and forgets the rest. */
  cut(): void {
    this.#leave();
    if (this.#socket.terminate) this.#socket.terminate();
    else this.#socket.close();
  }

  #leave(): Events | null {
    const events = this.#events;
    this.#events = null;
    clearTimeout(this.#timer);
    return events;
  }

  #opened(): void {
    if (this.#events === null) return;
    clearTimeout(this.#timer);
    if (this.#socket.protocol !== SUBPROTOCOL) {
      this.#fail(failed(`no ${SUBPROTOCOL} there`, { wrongUrl: true }));
      return;
    }
    this.#standing = true;
    this.#events.opened();
  }

  #closed(code: number, reason: string): void {
    const events = this.#leave();
    // 1005 and 1006 are no codes of the peer: it said none.
    const said = code === undefined || code === 1005 || code === 1006 ? null : code;
    if (this.#standing) events?.closed(said, reason);
    else events?.failed(failed(reason || "refused or broken"));
  }

  #fail(failure: Failure): void {
    const events = this.#leave();
    if (events === null) return;
    if (this.#socket.terminate) this.#socket.terminate();
    else this.#socket.close();
    events.failed(failure);
  }
}
