// The own publications of a member of a room that are not confirmed. No I/O.
//
//     seq   1 ..... accepted | accepted+1 ....... sent | sent+1 ...... accepted+waiting
//           stored or        written on this           not yet written
//           refused          connection
//
// A seq is given by the place in the line. A publication that is refused has used its seq: it stays in the line until all in front of it are
// confirmed. One that is refused for the rate is put off: it goes to the front of the line again as soon as nothing is on its way. When a later
// one was stored all the same, it is refused for good: sent again it would stand behind what was to follow it.

import type { Change } from "./room_records.js";

/** Publications of one room that may wait for their confirmation, and their bytes. */
const WAITING_MAX = 512;
const WAITING_BYTES_MAX = 1 << 20;
/** How often a publication is put off: for half a minute. */
const TRIES_MAX = 8;
/** Publications on their way at once. */
const WINDOW = 256;

/** The fields behind the seq, and the data of a binary one. */
export interface RoomBody {
  fields: string;
  binary: Uint8Array | null;
}

export interface Waiting {
  /** What the application was given for it. */
  number: number;
  body: RoomBody;
  change: Change | null;
  /** It changes a document that only the room of this epoch has. */
  opaque: boolean;
  refused: boolean;
  /** It is refused now, and goes again. */
  putOff: boolean;
  tries: number;
}

const weight = ({ body }: Waiting): number => body.fields.length + (body.binary?.length ?? 0);

export class Outgoing {
  accepted = 0;
  sent = 0;
  #line: Waiting[] = [];
  /** What goes in front of the line again. */
  #putOff: Waiting[] = [];
  /** How many are to go again, those included that still stand in the line. */
  #again = 0;
  #overtaken: Waiting[] = [];
  #bytes = 0;
  #numbers = 0;
  /** The highest seq that was ever written: the service may have it. */
  #most = 0;

  get length(): number {
    return this.#line.length + this.#putOff.length;
  }

  /** Another publication may be made without waiting. */
  get room(): boolean {
    return this.length < WAITING_MAX && this.#bytes < WAITING_BYTES_MAX;
  }

  /** Take a publication into the line; return its number. */
  add(body: RoomBody, change: Change | null, opaque: boolean): number {
    const waiting: Waiting = { number: ++this.#numbers, body, change, opaque, refused: false, putOff: false, tries: 0 };
    this.#line.push(waiting);
    this.#bytes += weight(waiting);
    return waiting.number;
  }

  /** Something is to be written. */
  get due(): boolean {
    return !this.#again && this.sent - this.accepted < Math.min(this.#line.length, WINDOW);
  }

  /** The seq and the body of the next one to be written, which counts as written; null: nothing is to be written now. */
  next(): [number, RoomBody] | null {
    if (!this.due) return null;
    const { body } = this.#line[this.sent - this.accepted]!;
    this.sent += 1;
    this.#most = Math.max(this.#most, this.sent);
    return [this.sent, body];
  }

  #pop(): Waiting {
    const waiting = this.#line.shift()!;
    this.accepted += 1;
    this.sent = Math.max(this.sent, this.accepted);
    if (waiting.putOff) {
      this.#putOff.push(waiting);
      return waiting;
    }
    this.#bytes -= weight(waiting);
    if (!waiting.refused && this.#putOff.length) {
      for (const one of this.#putOff) this.#bytes -= weight(one);
      this.#again -= this.#putOff.length;
      this.#overtaken.push(...this.#putOff);
      this.#putOff = [];
    }
    return waiting;
  }

  /** Take those up to `seq` out of the line, and return the ones that are stored; null: more than were ever sent. */
  confirm(seq: number): Waiting[] | null {
    if (seq > this.#most) return null;
    const done: Waiting[] = [];
    while (this.accepted < seq && this.#line.length) done.push(this.#pop());
    this.#passOver();
    return done.filter((one) => !one.refused);
  }

  /** Take out the next `count` that are stored: others in the room stand behind them; null: so many were not sent. */
  confirmNext(count: number): Waiting[] | null {
    const done: Waiting[] = [];
    while (done.length < count && this.#line.length && this.accepted < this.#most) {
      const waiting = this.#pop();
      if (!waiting.refused) done.push(waiting);
    }
    this.#passOver();
    return done.length === count ? done : null;
  }

  #at(seq: number): Waiting | null {
    return seq > this.accepted && seq <= this.#most ? (this.#line[seq - this.accepted - 1] ?? null) : null;
  }

  /** Note that one is refused, and return it; null when it is none of those that wait. */
  refuse(seq: number): Waiting | null {
    const waiting = this.#at(seq);
    if (!waiting || waiting.refused) return null;
    waiting.refused = true;
    this.#passOver();
    return waiting;
  }

  /** Note that one is refused for now; false when it is none of those that wait, or was put off too often. */
  putOff(seq: number): boolean {
    const waiting = this.#at(seq);
    if (!waiting) return false;
    if (waiting.refused || waiting.tries >= TRIES_MAX) return waiting.putOff;
    waiting.refused = waiting.putOff = true;
    waiting.tries += 1;
    this.#again += 1;
    this.#passOver();
    return true;
  }

  /** Some were put off, and nothing is on its way. */
  get mayGoAgain(): boolean {
    return this.#putOff.length > 0 && this.sent === this.accepted;
  }

  /** Put those in front of the line that were put off. */
  goAgain(): void {
    this.#line.unshift(...this.#putOff);
    for (const waiting of this.#line) if (waiting.putOff) waiting.refused = waiting.putOff = false;
    this.#putOff = [];
    this.#again = 0;
  }

  /** Those that are refused for good because later ones are stored, each once. */
  overtaken(): Waiting[] {
    return this.#overtaken.splice(0);
  }

  #passOver(): void {
    while (this.#line[0]?.refused) this.#pop();
  }

  /** Send again from `seq` on; false when that cannot be. */
  rewind(seq: number): boolean {
    if (!(this.accepted < seq && seq <= this.#most + 1)) return false;
    this.sent = Math.min(this.sent, seq - 1);
    return true;
  }

  /**
   * Go on at another connection, where `nextSeq` is expected; return those that are stored. `same`: it is the room that has the others. One
   * that does not know them counts anew: all are sent again, but for opaque updates of the document that was lost.
   */
  attach(nextSeq: number, same: boolean): Waiting[] {
    const done = same ? (this.confirm(Math.min(nextSeq - 1, this.#most)) ?? []) : [];
    this.goAgain();
    this.#line = this.#line.filter((one) => !one.refused && (same || !one.opaque));
    this.#bytes = this.#line.reduce((total, one) => total + weight(one), 0);
    this.accepted = this.sent = this.#most = nextSeq - 1;
    return done;
  }

  /** Forget all of them; return them. */
  clear(): Waiting[] {
    const left = [...this.#putOff, ...this.#line];
    this.#line = [];
    this.#putOff = [];
    this.#again = this.#bytes = 0;
    return left;
  }
}
