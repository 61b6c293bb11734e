// One session of the service of tests: what its client has said, what its worker has, and the worker's side of it.

import type { HistoryEntry } from "../events.js";
import { type Fields, frame } from "./frames.js";
import type { ServerEnd, SocketData } from "./socket.js";

/** As many as a service keeps by default. */
const HISTORY_MAX = 100;

/** What a message may have beside its data, in the names of the wire. */
export interface Said {
  kind?: string;
  history?: boolean;
  trace?: string;
  stream?: string;
  attempt?: number;
  fold?: "text";
  end?: boolean;
  outcome?: string;
  error?: { code: string; message: string };
  blob?: string;
}

/** A message of the client, as its worker sees it. */
export interface Heard extends Said {
  readonly seq: number;
  /** A JSON value, or a `Uint8Array`. */
  readonly data: unknown;
}

/** A stream of an earlier worker that is open. */
export interface OpenStream {
  readonly stream: string;
  readonly attempt: number;
  readonly text: string;
  /** Its client has asked for its end. */
  readonly cancelled: boolean;
}

interface StreamState {
  attempt: number;
  text: string;
  outcome: string | null;
  cancel: string | null;
  abort: AbortController;
}

/** The session was taken from this worker. */
export class WorkerLost extends Error {
  override name = "WorkerLost";
}

/** A session as the service keeps it. */
export class TestSession {
  readonly id: string;
  /** What the client has said of itself. */
  readonly meta: unknown;
  readonly want: Record<string, string>;
  /** The messages of the client that are stored, in their order. */
  readonly heard: Heard[] = [];
  /** Realtime data of the client. */
  readonly realtimes: unknown[] = [];
  /** The last message of the worker that the client's application is done with. */
  acked = 0;
  /** Why it has ended; null while it lives. */
  ended: string | null = null;
  /** @internal */
  token = "";
  /** @internal */
  connection: ServerEnd | null = null;
  /** @internal False: no worker, and none to come. */
  readonly pair: boolean;
  /** @internal The worker's state and id, as the client is told. */
  peer: { state: string; id: string | null };
  /** @internal Called when there is something new for a worker. */
  changed: () => void = () => {};
  /** @internal Called when the session has ended. */
  left: () => void = () => {};
  /** @internal The last message that the worker is done with. */
  done = 0;
  readonly #said: { seq: number; data: unknown; fields: Said }[] = [];
  readonly #history: HistoryEntry[] = [];
  readonly #streams = new Map<string, StreamState>();

  /** @internal */
  constructor(id: string, opening: Fields) {
    this.id = id;
    this.meta = opening["meta"] ?? null;
    this.want = opening["want"] ?? {};
    this.pair = opening["pair"] !== false;
    this.peer = { state: this.pair ? "waiting" : "none", id: null };
  }

  /** The client is connected. */
  get attached(): boolean {
    return this.connection !== null;
  }

  /** The chat history, oldest first. */
  get chatHistory(): readonly HistoryEntry[] {
    return this.#history;
  }

  /** The streams of the worker that have not ended. */
  get openStreams(): OpenStream[] {
    return [...this.#streams]
      .filter(([, state]) => state.outcome === null)
      .map(([stream, { attempt, text, cancel }]) => ({ stream, attempt, text, cancelled: cancel !== null }));
  }

  /** Send the client a message, as its worker. */
  send(data: unknown, fields: Said = {}): void {
    if (this.ended !== null) throw new Error(`the session is over: ${this.ended}`);
    const message = { seq: this.#said.length + 1, data, fields };
    this.#said.push(message);
    this.#keep("worker", message.seq, data, fields);
    this.connection?.send(frame({ type: "message", seq: message.seq, ...fields }, data));
  }

  /** Send the client data that it gets now or not at all. */
  realtime(data: unknown): void {
    this.connection?.send(frame({ type: "realtime" }, data));
  }

  /** Say a text that grows; `check` is called before each piece. `attempt` is 1, or one more than that of an open stream of this name. */
  stream(name: string, { kind, attempt }: { kind?: string; attempt?: number } = {}, check: () => void = () => {}): TestStream {
    const found = this.#streams.get(name);
    if (found && found.outcome !== null) throw new Error(`the stream ${name} is over`);
    const state: StreamState = {
      attempt: attempt ?? (found ? found.attempt + 1 : 1),
      text: "",
      outcome: null,
      cancel: found?.cancel ?? null,
      abort: new AbortController(),
    };
    if (found && state.attempt === found.attempt) state.text = found.text;
    if (state.cancel !== null) state.abort.abort(state.cancel);
    this.#streams.set(name, state);
    const fields: Said = { stream: name, fold: "text", attempt: state.attempt, ...(kind === undefined ? {} : { kind }) };
    return new TestStream(name, state.abort.signal, (text, end) => {
      check();
      if (this.#streams.get(name) !== state || state.outcome !== null) throw new Error(`the stream ${name} is over`);
      state.text += text;
      if (end) state.outcome = end.outcome ?? "complete";
      this.send(text, { ...fields, ...end });
    });
  }

  /** End the session. */
  end(reason = "ended"): void {
    this.#over(reason, 4410);
  }

  /** @internal The client ends it. */
  bye(reason: string): void {
    this.#over(reason || "bye", 1000);
  }

  #over(reason: string, code: number): void {
    if (this.ended !== null) return;
    this.ended = reason;
    if (code !== 1000) this.connection?.send(frame({ type: "peer", state: "gone", id: null }));
    this.connection?.send(frame({ type: "session_ended", reason }));
    this.connection?.close(code, reason);
    this.changed();
    this.left();
  }

  // --- the service ------------------------------------------------------------------------------------------------

  /** @internal Take a message of the client. */
  take(message: Fields, data: unknown): void {
    const seq: number = message["seq"];
    const next = this.heard.length + 1;
    if (!this.pair) this.connection?.send(frame({ type: "error", code: "no_peer", message: "no worker" }));
    else if (seq > next) this.connection?.send(frame({ type: "error", code: "gap", message: "a gap", expected: next }));
    else {
      if (seq === next) {
        const { type: _type, seq: _seq, data: _data, ...fields } = message;
        this.heard.push({ ...fields, seq, data });
        this.#keep("client", seq, data, fields);
      }
      this.connection?.send(frame({ type: "ack", seq: this.heard.length }));
      this.changed();
    }
  }

  /** @internal The client asks for the end of a stream; nothing is kept of one that has not begun. */
  cancel(name: string, reason: string): void {
    const state = this.#streams.get(name);
    if (!state || state.outcome !== null) return;
    state.cancel = reason;
    state.abort.abort(reason);
  }

  /** @internal Tell the client of its worker. */
  peerIs(state: string, id: string | null): void {
    this.peer = { state: state === "replaced" ? "paired" : state, id };
    this.connection?.send(frame({ type: "peer", state, id }));
  }

  /** @internal The answer to an opening message, and what follows it. */
  answer(restored: Fields | null, common: Fields): SocketData[] {
    const peer = this.peer;
    if (restored === null) return [frame({ type: "session_started", ...common, peer, next_seq: 1 })];
    const received: number = restored["received"] ?? this.acked;
    this.acked = Math.max(this.acked, received);
    const behind = this.#said.filter(({ seq }) => seq > received);
    const history = restored["history"] ? { chat_history: this.#history.slice(-restored["history"]) } : {};
    const answer = { type: "session_restored", ...common, peer, accepted: this.heard.length, replaying: behind.length, ...history };
    return [frame(answer), ...behind.map(({ seq, data, fields }) => frame({ type: "message", seq, ...fields }, data))];
  }

  #keep(from: "client" | "worker", seq: number, data: unknown, fields: Said): void {
    const usual = fields.fold === "text" || fields.kind === undefined || fields.kind === "chat";
    if (data instanceof Uint8Array || !(fields.history ?? usual) || (fields.stream !== undefined && fields.fold !== "text")) return;
    const { history: _history, fold: _fold, end, ...kept } = fields;
    const before = fields.stream === undefined ? undefined : this.#history.find((one) => one.from === from && one.stream === fields.stream);
    if (fields.stream !== undefined) {
      const attempt = fields.attempt ?? 1;
      const same = before !== undefined && before.attempt === attempt;
      const text = (same ? String(before.data) : "") + String(data);
      const state = end ? { outcome: fields.outcome ?? "complete" } : { open: true };
      const entry = { ...kept, from, seq, attempt, data: text, ...state };
      if (before) this.#history[this.#history.indexOf(before)] = entry;
      else this.#history.push(entry);
    } else this.#history.push({ from, seq, data, ...kept });
    if (this.#history.length > HISTORY_MAX) this.#history.shift();
  }
}

/** A text that the worker says piece by piece. */
export class TestStream {
  readonly name: string;
  /** Aborted when the client has asked for the end. */
  readonly cancelled: AbortSignal;
  readonly #say: (text: string, end: Said | null) => void;

  /** @internal */
  constructor(name: string, cancelled: AbortSignal, say: (text: string, end: Said | null) => void) {
    this.name = name;
    this.cancelled = cancelled;
    this.#say = say;
  }

  /** Say the next piece. @throws Error it is over, or another worker has begun it anew */
  write(text: string): void {
    this.#say(text, null);
  }

  /** End it: `complete`, `cancelled`, `failed` or `interrupted`. */
  end(outcome = "complete", error?: { code: string; message: string }): void {
    this.#say("", { end: true, outcome, ...(error ? { error } : {}) });
  }
}
