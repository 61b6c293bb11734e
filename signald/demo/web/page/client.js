// A client of signald.v1 for this page: one session that goes on over any number of connections. docs/protocol.md is its contract.
// It has what the page needs and no more; its surface is that of the JavaScript SDK, which takes its place.

import { Emitter } from "./emitter.js";
import { Room } from "./room.js";

const SUBPROTOCOL = "signald.v1";
/** Waits between tries: rand(0, min(cap, base · 2^n)), so that the pages of a lost node do not come back as one. */
const BASE_MS = 250;
const CAP_MS = 20_000;
/** No answer to an opening message after so long: the connection is given up. */
const ANSWER_MS = 10_000;
/** Acks of pieces that come in short order ride together. */
const ACK_MS = 100;
/** A reload lets its lock go when the old page is gone. A tab that was duplicated has this long to find that the session is not its own. */
const LOCK_MS = 400;
/** Closes that end the session for this page; 4404, nothing to resume, begins another one. */
const FINAL = new Set([1000, 4001, 4400, 4401, 4403]);
const NOTHING_TO_RESUME = 4404;

/** Return the client of this tab when it is known whether it goes on with a session; it connects by itself. */
export async function connect(options) {
  const client = new Client(options);
  await client.begin();
  return client;
}

class Client extends Emitter {
  state = "connecting";
  sessionId = null;
  /** How many connections have been opened. */
  connections = 0;
  streams = new Map();
  #current = null;
  #next = null;
  #tries = 0;
  #token = null;
  #attempt = 0;
  /** What has no ack yet, in order of seq; all of it survives a reload. */
  #out = [];
  #seq = 0;
  #acked = 0;
  #received = null;
  #ackTimer = null;
  #retry = null;
  #rooms = new Map();

  constructor(options) {
    super();
    this.options = options;
    this.rooms = { join: (name, joining) => this.#join(name, joining) };
  }

  async begin() {
    await this.#recall();
    addEventListener("online", () => this.#hurry());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#hurry());
    this.#dial();
  }

  // --- what the page calls -------------------------------------------------------------------------------------------

  /** Send a message; it is kept, and sent again, until signald has stored it. */
  send(data, { kind, history } = {}) {
    const said = { type: "message", seq: ++this.#seq, data, kind, history };
    const kept = { said, done: null };
    const acked = new Promise((resolve) => {
      kept.done = resolve;
    });
    this.#out.push(kept);
    this.#keep();
    const sent = this.say(said);
    return { state: sent ? "sent" : "kept", acked };
  }

  cancel(stream, reason) {
    this.say({ type: "stream_cancel", stream, reason });
  }

  /** Write a frame on the current connection; false where there is none. */
  say(frame) {
    if (this.state === "connecting" || this.#current?.readyState !== WebSocket.OPEN) return false;
    this.#current.send(JSON.stringify(frame));
    return true;
  }

  #join(name, joining) {
    const room = new Room(this, name, joining);
    this.#rooms.set(name, room);
    if (this.#current) room.enter();
    return room.entered;
  }

  // --- connections ---------------------------------------------------------------------------------------------------

  #dial(ticket) {
    clearTimeout(this.#retry);
    this.#retry = null;
    const socket = new WebSocket(`${this.options.url}/v1/client`, [SUBPROTOCOL]);
    this.#next = socket;
    this.connections += 1;
    const late = setTimeout(() => socket.close(), ANSWER_MS);
    socket.onopen = () => socket.send(JSON.stringify(this.#opening(ticket)));
    socket.onmessage = ({ data }) => {
      const frame = JSON.parse(data);
      if (frame.type === "session_started" || frame.type === "session_restored") clearTimeout(late);
      this.#hear(socket, frame);
    };
    // A refused connection is told by `onclose` as well.
    socket.onerror = () => {};
    socket.onclose = ({ code }) => {
      clearTimeout(late);
      this.#closed(socket, code);
    };
  }

  #opening(ticket) {
    if (this.#token === null) return { type: "connect", want: this.options.want, meta: this.options.metadata };
    this.#attempt += 1;
    this.#keep();
    const opening = { type: "restore_session", recovery_token: this.#token, acked: this.#acked, attempt: this.#attempt, ticket };
    if (this.#received === null) opening.history = this.options.history;
    else opening.received = this.#received;
    opening.rooms = [...this.#rooms.values()].flatMap((room) => room.seat ?? []);
    return opening;
  }

  #closed(socket, code) {
    if (socket === this.#next) this.#next = null;
    else if (socket !== this.#current) return; // one that has served its time
    if (socket === this.#current) this.#current = null;
    if (code === NOTHING_TO_RESUME) {
      this.#forget();
      location.reload();
      return;
    }
    if (FINAL.has(code)) {
      this.#forget();
      this.#become("closed");
      return;
    }
    if (this.#next === null && this.state !== "closed") this.#later();
  }

  #later() {
    // While the old connection serves, a failed try to move is no interruption.
    if (this.#current === null) this.#become(this.sessionId === null ? "connecting" : "waiting");
    const wait = Math.random() * Math.min(CAP_MS, BASE_MS * 2 ** this.#tries);
    this.#tries += 1;
    this.#retry = setTimeout(() => this.#dial(), wait);
  }

  /** The network is back, or somebody looks: no reason to wait any longer. */
  #hurry() {
    if (this.#retry !== null) this.#dial();
  }

  #become(state) {
    if (state === this.state) return;
    this.state = state;
    this.emit("state", state);
  }

  // --- frames --------------------------------------------------------------------------------------------------------

  #hear(socket, frame) {
    switch (frame.type) {
      case "session_started":
      case "session_restored":
        this.#opened(socket, frame);
        break;
      case "goaway":
        if (socket !== this.#current || this.#next !== null) break;
        this.#become("moving");
        setTimeout(() => this.#next === null && socket === this.#current && this.#dial(frame.ticket), frame.not_before_ms);
        break;
      case "ack":
        this.#acknowledged(frame.seq);
        break;
      case "message":
        this.#message(frame);
        break;
      case "stream_state":
        this.#streamEnded(frame);
        break;
      case "session_ended":
        this.#forget();
        this.#become("closed");
        break;
      case "error":
        this.#refused(frame);
        break;
      default:
        // Of a room the new connection tells all; what the old one still brings comes again there.
        if (frame.room !== undefined && socket === this.#current) this.#rooms.get(frame.room)?.hear(frame);
    }
  }

  #opened(socket, frame) {
    this.#current = socket;
    if (socket === this.#next) this.#next = null;
    this.#tries = 0;
    this.#token = frame.recovery_token;
    this.sessionId = frame.session;
    if (frame.type === "session_restored") {
      this.#acknowledged(frame.accepted);
      this.#seq = Math.max(this.#seq, frame.accepted);
      if (this.#received === null) this.#remember(frame);
    } else this.#received = 0;
    this.#become("open");
    this.#resend(0);
    this.#keep();
    for (const room of this.#rooms.values()) if (room.seat === null) room.enter();
  }

  #resend(from) {
    for (const { said } of this.#out) if (said.seq >= from) this.say(said);
  }

  #acknowledged(seq) {
    this.#acked = Math.max(this.#acked, seq);
    while (this.#out.length && this.#out[0].said.seq <= seq) this.#out.shift().done();
    this.#keep();
  }

  #refused(frame) {
    if (frame.expected === undefined || frame.room !== undefined || frame.stream !== undefined) return;
    setTimeout(() => this.#resend(frame.expected), frame.retry_after_ms ?? 0);
  }

  #message(frame) {
    if (frame.seq <= this.#received) return; // it came on the other connection too
    this.#received = frame.seq;
    this.#ackTimer ??= setTimeout(() => {
      this.#ackTimer = null;
      this.say({ type: "ack", seq: this.#received });
    }, ACK_MS);
    if (frame.stream !== undefined) this.#piece(frame);
    else this.emit("message", frame);
  }

  // --- streams -------------------------------------------------------------------------------------------------------

  #piece({ stream, attempt = 1, seq, data, end, outcome }) {
    let text = this.streams.get(stream);
    if (text !== undefined && (attempt < text.attempt || seq <= text.upTo)) return;
    if (text === undefined || attempt > text.attempt) text = { name: stream, attempt, text: "", outcome: null, upTo: 0 };
    text.text += data ?? "";
    if (end) text.outcome = outcome ?? "complete";
    this.streams.set(stream, text);
    this.emit("stream", { ...text });
  }

  #streamEnded({ stream, attempt, outcome }) {
    const text = this.streams.get(stream);
    if (text === undefined || text.attempt !== attempt || text.outcome !== null) return;
    text.outcome = outcome;
    this.emit("stream", { ...text });
  }

  /** What was said before the page was loaded again. Pieces of its texts that come again are in them already. */
  #remember(frame) {
    this.#received = (frame.next_received ?? 1) - 1;
    const entries = frame.chat_history ?? [];
    for (const { stream, attempt = 1, data, seq, open, outcome } of entries) {
      if (stream === undefined) continue;
      this.streams.set(stream, { name: stream, attempt, text: data, outcome: open ? null : (outcome ?? "complete"), upTo: seq });
    }
    this.emit("history", entries);
  }

  // --- over a reload -------------------------------------------------------------------------------------------------

  #keep() {
    if (this.#token === null || this.state === "closed") return;
    const kept = { session: this.sessionId, token: this.#token, attempt: this.#attempt, seq: this.#seq, out: this.#out.map(({ said }) => said) };
    sessionStorage.setItem(this.options.storageKey, JSON.stringify(kept));
    this.#hold(this.sessionId);
  }

  #forget() {
    sessionStorage.removeItem(this.options.storageKey);
  }

  async #recall() {
    const text = sessionStorage.getItem(this.options.storageKey);
    if (text === null) return;
    const kept = JSON.parse(text);
    // A tab that was duplicated has a copy of this: the session is the other tab's, and this one begins its own.
    if (!(await this.#hold(kept.session))) {
      this.#forget();
      return;
    }
    this.#token = kept.token;
    this.#attempt = kept.attempt;
    this.#seq = kept.seq;
    this.#out = kept.out.map((said) => ({ said, done: () => {} }));
  }

  /** Hold the lock of the session as long as the page lives; false when another tab has it. */
  #hold(session) {
    if (this.held === session) return true;
    this.held = session;
    return new Promise((resolve) => {
      const held = () => {
        resolve(true);
        return new Promise(() => {});
      };
      const signal = AbortSignal.timeout(LOCK_MS);
      navigator.locks.request(`signald ${session}`, { signal }, held).catch(() => {
        this.held = null;
        resolve(false);
      });
    });
  }
}
