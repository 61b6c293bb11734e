// A class of sockets whose other end is a service of the same process. No I/O and no timers: what is said arrives in a microtask, in order.

import type { Socket } from "../carrier.js";

export type SocketData = string | Uint8Array;

/** What a service is told of its ends. */
export interface Ends {
  /** A client dials; false: nothing answers there. */
  dialled(end: ServerEnd): boolean;
  heard(end: ServerEnd, data: SocketData): void;
  /** The client has closed, or its connection is cut. */
  gone(end: ServerEnd): void;
}

/** The service's end of one connection. */
export class ServerEnd {
  /** The number of the node that has taken it. */
  node = 0;
  readonly #client: TestSocket;

  constructor(client: TestSocket) {
    this.#client = client;
  }

  send(data: SocketData): void {
    this.#client.arrives(data);
  }

  /** Close it; without a code the connection breaks, as under a node that was killed. */
  close(code = 1006, reason = ""): void {
    this.#client.ends(code, reason);
  }
}

/** The client's end: as much of a WebSocket as the SDK uses. */
export class TestSocket implements Socket {
  binaryType = "arraybuffer";
  readonly protocol = "signald.v1";
  readonly bufferedAmount = 0;
  onopen: ((event: any) => void) | null = null;
  onmessage: ((event: any) => void) | null = null;
  onclose: ((event: any) => void) | null = null;
  onerror: ((event: any) => void) | null = null;
  readonly #ends: Ends;
  readonly #end: ServerEnd;
  #over = false;

  constructor(ends: Ends) {
    this.#ends = ends;
    this.#end = new ServerEnd(this);
    queueMicrotask(() => {
      if (this.#over) return;
      if (ends.dialled(this.#end)) this.onopen?.({});
      else this.ends(1006, "");
    });
  }

  send(data: SocketData): void {
    const copy = typeof data === "string" ? data : data.slice();
    queueMicrotask(() => {
      if (!this.#over) this.#ends.heard(this.#end, copy);
    });
  }

  close(): void {
    this.#finish(1000, "");
  }

  /** @internal */
  arrives(data: SocketData): void {
    const copy = typeof data === "string" ? data : data.slice().buffer;
    queueMicrotask(() => {
      if (!this.#over) this.onmessage?.({ data: copy });
    });
  }

  /** @internal */
  ends(code: number, reason: string): void {
    queueMicrotask(() => this.#finish(code, reason));
  }

  #finish(code: number, reason: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#ends.gone(this.#end);
    this.onclose?.({ code, reason });
  }
}
