// A client's side of its session: its ledgers of messages sent and of messages received. No I/O.
//
//     outgoing    1 ..... accepted | accepted+1 ....... sent | sent+1 ...... nextSeq-1
//                 stored by signald   written on this         not yet written
//                 (forgotten here)    connection, unacked
//
//     incoming    1 ..... finished | finished+1 .. received | (nothing: seqs are dense)
//                 acked: the app      in the inbox
//                 asked for more
//
// A resume reports `finished`, not `received`: the service takes the reported position for acked and deletes everything up to it.

import { LinkBroken, Unsendable } from "../errors.js";
import type { Message } from "../events.js";
import type { Uniform } from "./backoff.js";
import type { Bounds, Pace } from "./bounds.js";
import { binaryFrame, type Frame, type Wire } from "./frames.js";
import { BLOB_MAX, bytesOf, checkText, KIND_MAX, REASON_MAX, SEQ_MAX, STREAM_MAX, TRACE_MAX, write } from "./values.js";

/** Errors that mean: not now. The refused messages are sent again, from the first one on. */
export const PAUSES: ReadonlySet<string> = new Set(["rate", "backlog", "store_unavailable"]);

/** Errors that mean, with `expected`: never. That one message is dropped. */
export const STREAM_REFUSALS: ReadonlySet<string> = new Set(["stream_over", "stream_superseded", "bad_message"]);

/** How long the ack of a piece of a stream waits for more, how many pieces are acked at once, and the size that is acked at once. */
const ACK_PIECES_S = 0.25;
const ACK_PIECES = 8;
const ACK_PIECE_BYTES = 16384;

const LOST_RANGES_MAX = 16;
const GAP_QUIET_S = 1;
const PAUSE_MIN_S = 0.005;
const PAUSE_MAX_S = 60;
const WINDOW_MAX = 1 << 20;
const WINDOW_AFTER_REFUSAL = 16;

/** What a message may have beside its data. */
export interface SendOptions {
  kind?: string;
  /** False: it is left out of the chat history; true: it is in it, whatever its kind. */
  history?: boolean;
  trace?: string;
  stream?: string;
  attempt?: number;
  fold?: "text";
  contentType?: string;
  end?: boolean;
  outcome?: string;
  error?: { code?: string; message?: string };
  blob?: string;
}

/** A message that is not stored yet, without its number: the fields behind it, and the data. */
export interface Body {
  fields: string;
  data: string | Uint8Array;
}

const HEAD = '{"type":"message","seq":';

function frameOf(seq: number, body: Body): Frame {
  if (typeof body.data === "string") return `${HEAD}${seq}${body.fields},"data":${body.data}}`;
  return binaryFrame(`${HEAD}${seq}${body.fields}}`, body.data);
}

export function sizeOf(frame: Frame): number {
  return typeof frame === "string" ? bytesOf(frame) : frame.length;
}

/** The frames of one write. The budget keeps a long resend from delaying acks. */
export class Batch {
  readonly frames: Frame[] = [];
  budget = 65536;

  add(frame: Frame): void {
    this.frames.push(frame);
    this.budget -= sizeOf(frame);
  }
}

export class SessionCore {
  /** Called when the inbox, the room to send or `endedBy` changed. */
  changed: () => void = () => {};
  /** Called with the seq of a message that the service will not take; those behind it have one less from now on. */
  dropped: (seq: number) => void = () => {};
  /** Why the session ended; null while it lives. */
  endedBy: string | null = null;
  /** The session has no worker, and will have none. */
  alone = false;
  /** The reason to end it with, once everything sent is stored. */
  bye: string | null = null;
  nextSeq: number;
  accepted: number;
  sent: number;
  received: number;
  finished: number;
  pace: Pace | null = null;
  readonly inbox: { wire: Wire; binary: Uint8Array | null; size: number }[] = [];
  #byeSent = false;
  #bounds: Bounds;
  readonly #uniform: Uniform;
  readonly #unacked = new Map<number, Body>();
  #unackedBytes = 0;
  #window = WINDOW_MAX;
  #pausedUntil = -Infinity;
  #slowUntil = -Infinity;
  #rewoundTo = 0;
  #rewoundAt = -Infinity;
  /** A client without its former state does not know how far it came: the first message says where it begins. */
  #anchored: boolean;
  #ackTold: number;
  #ackAt = Infinity;
  /** Up to here messages have come whose ack does not wait: it takes along the ack of pieces before them. */
  #promptTo = 0;
  #inboxBytes = 0;
  readonly #lost: [number, number][] = [];
  /** Messages that never come to the application, and are finished with in their turn. */
  readonly #own = new Set<number>();

  constructor(uniform: Uniform, bounds: Bounds, nextSeq = 1, received: number | null = 0) {
    this.#uniform = uniform;
    this.#bounds = bounds;
    this.nextSeq = nextSeq;
    this.accepted = this.sent = nextSeq - 1;
    this.#anchored = received !== null;
    this.received = this.finished = this.#ackTold = received ?? 0;
  }

  /** Begin at the seq that the service names for a new session. */
  begin(nextSeq: number): void {
    this.nextSeq = nextSeq;
    this.accepted = this.sent = nextSeq - 1;
  }

  bound(bounds: Bounds): void {
    this.#bounds = bounds;
  }

  // --- outgoing ---------------------------------------------------------------------------------------------------

  /** Another message may be sent without waiting. */
  get room(): boolean {
    return this.#unacked.size < this.#bounds.unackedMessagesMax && this.#unackedBytes < this.#bounds.unackedBytesMax;
  }

  /** What the service has not confirmed as stored, oldest first. */
  unacked(): Body[] {
    return [...this.#unacked.values()];
  }

  /**
   * The message as it is kept until it is stored.
   *
   * @throws Unsendable larger or deeper than the service takes, not JSON, or for a session without a worker
   */
  body(data: unknown, options: SendOptions = {}): Body {
    checkText("kind", options.kind, KIND_MAX);
    checkText("trace", options.trace, TRACE_MAX);
    this.checkPeer();
    checkPiece(data, options);
    if (this.nextSeq > SEQ_MAX) throw new Unsendable("no number is left");
    // The object of the message itself is the first level.
    const body: Body = {
      fields: fieldsOf(options),
      data: data instanceof Uint8Array ? data.slice() : write(data, this.#bounds.jsonDepthMax - 1),
    };
    this.checkSize(frameOf(this.nextSeq, body));
    return body;
  }

  /** @throws Unsendable there is no worker, and will be none */
  checkPeer(): void {
    if (this.alone) throw new Unsendable("the session has no worker");
  }

  /** @throws Unsendable larger than the service takes */
  checkSize(frame: Frame): void {
    const size = sizeOf(frame);
    const most = this.#bounds.messageBytesMax;
    if (size > most) throw new Unsendable(`${size} bytes, at most ${most} are taken`);
  }

  /** Take a message into the ledger; return its seq. @throws Unsendable as `body`; nothing was sent */
  send(data: unknown, options: SendOptions = {}): number {
    return this.restoreUnacked(this.body(data, options));
  }

  /** Take a body as the next message; return its seq. */
  restoreUnacked(body: Body): number {
    this.#unacked.set(this.nextSeq, body);
    this.#unackedBytes += weight(this.nextSeq, body);
    return this.nextSeq++;
  }

  /** Note that the service has stored everything up to `seq`; true when there may be more to write because of it. */
  acked(seq: number): boolean {
    if (seq >= this.nextSeq) throw new LinkBroken(`ack ${seq} of ${this.nextSeq - 1}`);
    if (seq <= this.accepted) return false;
    const hadRoom = this.room;
    for (let done = this.accepted + 1; done <= seq; done++) {
      this.#unackedBytes -= weight(done, this.#unacked.get(done)!);
      this.#unacked.delete(done);
    }
    this.accepted = seq;
    this.sent = Math.max(this.sent, seq);
    this.#rewoundTo = 0;
    const heldBack = this.#window < WINDOW_MAX;
    this.#window = Math.min(this.#window * 2, WINDOW_MAX);
    if (!hadRoom || this.#unacked.size === 0) this.changed();
    return heldBack || this.bye !== null;
  }

  /** Note that the service refused messages: they are sent again, at once after a gap, later after a refusal. */
  refused(error: Wire, now: number): void {
    // It may have stored more than it told: never resend below `accepted`, never skip above the last message held.
    const expected = Math.min(Math.max(error["expected"] ?? this.accepted + 1, this.accepted + 1), this.nextSeq);
    if (PAUSES.has(error["code"])) {
      const hintS = clamp(error["retry_after_ms"] != null ? error["retry_after_ms"] / 1000 : this.#bounds.pauseS, PAUSE_MIN_S, PAUSE_MAX_S);
      this.#pausedUntil = now + hintS + this.#uniform(0, Math.min(1, hintS * 0.25));
      // The whole window was refused with the first of it; the next try is a small one, growing with the acks.
      this.#window = WINDOW_AFTER_REFUSAL;
    } else if (this.#rewoundTo === expected && now - this.#rewoundAt < GAP_QUIET_S) {
      return; // a refusal of a message that was already under way; the resend is under way too
    }
    this.sent = expected - 1;
    this.#rewoundTo = expected;
    this.#rewoundAt = now;
  }

  /** Note that the service refuses one message for good: what is behind it is numbered anew. */
  turnedDown(error: Wire): void {
    const expected: number = error["expected"];
    if (!(this.accepted < expected && expected < this.nextSeq)) return;
    const behind: Body[] = [];
    for (let seq = expected; seq < this.nextSeq; seq++) {
      const body = this.#unacked.get(seq)!;
      behind.push(body);
      this.#unackedBytes -= weight(seq, body);
      this.#unacked.delete(seq);
    }
    this.nextSeq = expected;
    this.sent = expected - 1;
    this.#rewoundTo = 0;
    for (const body of behind.slice(1)) this.restoreUnacked(body);
    this.dropped(expected);
    this.changed();
  }

  // --- incoming ---------------------------------------------------------------------------------------------------

  /** The inbox is at its bound. */
  get full(): boolean {
    return this.inbox.length >= this.#bounds.inboxMessagesMax || this.#inboxBytes >= this.#bounds.inboxBytesMax;
  }

  /**
   * Take a message of the worker; false when it is a duplicate. `own`: it is of an extension, and not for the inbox.
   *
   * @throws LinkBroken a message is missing before this one, and the service did not say that it is lost
   */
  receive(wire: Wire, binary: Uint8Array | null, size: number, own: boolean): boolean {
    const seq: number = wire["seq"];
    if (!this.#anchored) {
      this.#anchored = true;
      this.received = this.finished = this.#ackTold = seq - 1;
    }
    if (seq <= this.received) {
      // The sender of a duplicate has not seen our ack, or the ack was for an older claim.
      this.ackAgain();
      return false;
    }
    if (seq !== this.received + 1) throw new LinkBroken(`message ${seq} came after ${this.received}`);
    this.received = this.#behindLost(seq);
    if (own) this.#own.add(seq);
    else {
      this.inbox.push({ wire, binary, size });
      this.#inboxBytes += size;
    }
    if (wire["stream"] == null || wire["end"] === true || size > ACK_PIECE_BYTES) this.#promptTo = seq;
    this.#skip();
    this.changed();
    return true;
  }

  #skip(): void {
    while (this.#own.delete(this.finished + 1)) this.finished = this.#behindLost(this.finished + 1);
  }

  #behindLost(seq: number): number {
    for (const [low, high] of [...this.#lost].sort((one, two) => one[0] - two[0] || one[1] - two[1])) {
      if (low <= seq + 1) seq = Math.max(seq, high);
    }
    return seq;
  }

  /** Note that the store lost these seqs. Incoming ones are acked as if received: only the ack shows that this client knows. */
  logLost(low: number, high: number, incoming: boolean): void {
    if (!incoming) return;
    if (!this.#anchored) {
      this.#anchored = true;
      this.received = this.finished = this.#ackTold = low - 1;
    }
    this.#lost.push([low, high]);
    if (this.#lost.length > LOST_RANGES_MAX) this.#lost.shift();
    this.#promptTo = high;
    this.received = this.#behindLost(this.received);
    this.finished = this.#behindLost(this.finished);
  }

  /** Hand the next message to the application, or null. */
  take(): Message | null {
    const wasFull = this.full;
    const next = this.inbox.shift();
    if (next === undefined) return null;
    this.#inboxBytes -= next.size;
    if (wasFull) this.changed();
    return messageOf(next.wire, next.binary);
  }

  /** Note that the application has finished with everything up to `seq`; true when there is an ack to be written. */
  finish(seq: number): boolean {
    if (seq > this.finished) this.finished = this.#behindLost(Math.min(seq, this.received));
    this.#skip();
    return this.finished > this.#ackTold;
  }

  /** Repeat the last ack: it may not have counted. */
  ackAgain(): void {
    this.#ackTold = Math.min(this.#ackTold, this.finished - 1);
    this.#promptTo = Math.max(this.#promptTo, this.finished);
  }

  // --- connections ------------------------------------------------------------------------------------------------

  /** Continue over another connection; the service has everything up to `accepted`. */
  attach(accepted: number): void {
    if (accepted >= this.nextSeq) {
      if (this.#unacked.size) throw new LinkBroken(`ack ${accepted} of ${this.nextSeq - 1}`);
      // A restored state may not have the last messages of its former holder: continue after them.
      this.nextSeq = accepted + 1;
      this.accepted = this.sent = accepted;
    }
    this.acked(accepted);
    this.sent = this.accepted;
    this.#pausedUntil = this.#slowUntil = -Infinity;
    this.#window = WINDOW_MAX;
    this.pace?.reset();
    this.#rewoundTo = 0;
    this.#byeSent = false;
    // Acks written on the old connection may have come too late to count.
    this.ackAgain();
    this.changed();
  }

  /** Put what is due into `batch`. */
  write(now: number, batch: Batch): void {
    if (this.finished > this.#ackTold && this.finished > 0 && this.#ackIsDue(now)) {
      this.#ackTold = this.finished;
      this.#ackAt = Infinity;
      batch.add(`{"type":"ack","seq":${this.finished}}`);
    }
    if (now >= this.#pausedUntil) {
      while (this.sent + 1 < this.nextSeq && this.sent - this.accepted < this.#window) {
        if (batch.budget <= 0) return;
        const waitS = this.pace?.take(now) ?? 0;
        if (waitS > 0) {
          this.#slowUntil = now + waitS;
          break;
        }
        this.sent += 1;
        batch.add(frameOf(this.sent, this.#unacked.get(this.sent)!));
      }
    }
    if (this.bye !== null && this.#unacked.size === 0 && !this.#byeSent) {
      this.#byeSent = true;
      batch.add(JSON.stringify({ type: "bye", reason: [...this.bye].slice(0, REASON_MAX).join("") }));
    }
  }

  /** Only the ack of a few pieces of a stream waits, and rides with what else is written. */
  #ackIsDue(now: number): boolean {
    const pieces = Math.min(ACK_PIECES, Math.max(1, Math.floor(this.#bounds.unackedMessagesMax / 2)));
    if (this.#promptTo > this.#ackTold || this.finished - this.#ackTold >= pieces) return true;
    if (this.bye !== null || (now >= this.#pausedUntil && this.sent + 1 < this.nextSeq)) return true;
    if (this.#ackAt === Infinity) this.#ackAt = now + ACK_PIECES_S;
    return now >= this.#ackAt;
  }

  /** When a pause or a wait ends that keeps something from being written, or Infinity. */
  wakeAt(now: number): number {
    const until = Math.max(this.#pausedUntil, this.#slowUntil);
    return Math.min(this.sent + 1 < this.nextSeq && until > now ? until : Infinity, this.#ackAt);
  }

  /** End the session; messages in the inbox can still be taken. */
  end(reason: string): void {
    if (this.endedBy === null) {
      this.endedBy = reason;
      this.changed();
    }
  }
}

/** The bytes that an unacked message counts for: those that the service keeps of it. */
function weight(seq: number, body: Body): number {
  return sizeOf(frameOf(seq, body)) - '{"type":"message",'.length + 1;
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

function checkPiece(data: unknown, { stream, attempt, fold, end, outcome, error, blob }: SendOptions): void {
  checkText("blob", blob, BLOB_MAX, 1);
  checkText("stream", stream, STREAM_MAX, 1);
  if (fold) checkText("data", data ?? 0, Infinity);
  const isPiece = attempt !== undefined || fold || end || outcome || error;
  if (stream === undefined ? isPiece : !((attempt ?? 1) >= 1) || (!end && (outcome || error))) {
    throw new Unsendable("a piece of a stream has a `stream`, and `outcome` and `error` go with `end`");
  }
}

/** The fields of a message, and those of its `error`; what else an application gives is left out. */
const FIELDS = ["kind", "history", "trace", "stream", "attempt", "fold", "content_type", "end", "outcome", "error", "code", "message", "blob"];

function fieldsOf(options: SendOptions): string {
  const text = JSON.stringify({ ...options, content_type: options.contentType }, FIELDS);
  return text === "{}" ? "" : `,${text.slice(1, -1)}`;
}

function messageOf(wire: Wire, binary: Uint8Array | null): Message {
  const message: Message = {
    seq: wire["seq"],
    data: binary ?? wire["data"] ?? null,
    binary: binary !== null,
    attempt: wire["attempt"] || 1,
    end: wire["end"] === true,
  };
  for (const name of ["kind", "trace", "stream", "outcome", "blob"] as const) {
    if (wire[name] != null) message[name] = wire[name];
  }
  return message;
}
