// Server-sent events (HTML Living Standard, section 9.2.6) out of bytes that are cut anywhere. No I/O.

import { SignaldError } from "../errors.js";

/** Characters of one event: above the longest that signald says, the end of a job with a result of 16 MiB. */
const EVENT_MAX = 32 * 1024 * 1024;
/** The longest time to come again that is obeyed, and the one before any was said, in milliseconds. */
const RETRY_MAX_MS = 3_600_000;
const RETRY_MS = 1000;

export interface ServerEvent {
  /** `message` where the service names none. */
  readonly event: string;
  readonly data: string;
  /** The last id that was said, up to this event; "" for none. */
  readonly id: string;
}

/** Takes the bytes of one answer after another: `begin` comes before each. */
export class EventParser {
  /** What the next request shows as `Last-Event-ID`: it goes on behind this event. */
  lastId: string;
  retryMs = RETRY_MS;
  #decoder = new TextDecoder();
  /** What has come of a line that is not whole. */
  #rest = "";
  /** The character before was CR: an LF behind it ends no line. */
  #wasReturn = false;
  #event = "";
  #data: string[] = [];
  #size = 0;
  /** The id of this answer so far; it counts once its event is whole. */
  #id: string;

  constructor(lastId = "") {
    this.lastId = this.#id = lastId;
  }

  /** Another answer comes: what was not whole in the one before is forgotten. */
  begin(): void {
    this.#decoder = new TextDecoder();
    this.#rest = "";
    this.#wasReturn = false;
    this.#id = this.lastId;
    this.#clear();
  }

  #clear(): void {
    this.#event = "";
    this.#data = [];
    this.#size = 0;
  }

  /** Take bytes; return the events that are whole with them. @throws SignaldError an event has no end */
  push(bytes: Uint8Array): ServerEvent[] {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return []; // nothing, or a part of a character
    if (this.#wasReturn && text.startsWith("\n")) text = text.slice(1);
    this.#wasReturn = text.endsWith("\r");
    // Only what is new is searched: an event of many MiB comes in thousands of pieces.
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#rest + lines[0]!;
    this.#rest = lines.pop()!;
    const told = lines.flatMap((line) => this.#line(line) ?? []);
    if (this.#size + this.#rest.length > EVENT_MAX) throw new SignaldError("an event without an end");
    return told;
  }

  #line(line: string): ServerEvent | null {
    if (line === "") return this.#dispatched();
    const [, name, value] = /^([^:]*)(?:: ?(.*))?$/s.exec(line)!;
    if (name === "data") {
      this.#data.push(value ?? "");
      this.#size += line.length;
    } else if (name === "event") this.#event = value ?? "";
    else if (name === "id" && !value?.includes("\0")) this.#id = value ?? "";
    else if (name === "retry" && /^\d{1,9}$/.test(value ?? "")) this.retryMs = Math.min(Number(value), RETRY_MAX_MS);
    return null;
  }

  #dispatched(): ServerEvent | null {
    const [event, data] = [this.#event || "message", this.#data];
    this.#clear();
    this.lastId = this.#id;
    return data.length ? { event, data: data.join("\n"), id: this.lastId } : null;
  }
}
