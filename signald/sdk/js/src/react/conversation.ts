// The conversation of a client as a page shows it: what was said before, what the page sends, what the worker says. No React.

import type { Client } from "../client.js";
import type { SendOptions } from "../core/session.js";
import type { HistoryEntry, Message, StreamText } from "../events.js";
import { Store } from "./store.js";

/** Lines that are kept. A page that shows more has a history of its own. */
const LINES_MAX = 1000;

export interface ChatLine {
  /** For `key` of React: the same as long as the line is shown. */
  readonly key: string;
  readonly from: "client" | "worker";
  /** What was said; of a stream the text so far. */
  readonly data: unknown;
  readonly kind: string | null;
  /**
   * Of own lines: `kept` while there is no connection, `sent`, `stored` when it cannot be lost any more, `failed` when it will not be. Of the
   * worker: `growing`, or `done`.
   */
  readonly state: "kept" | "sent" | "stored" | "failed" | "growing" | "done";
  /** The stream that the line is. */
  readonly stream: StreamText | null;
}

const conversations = new WeakMap<Client, Conversation>();

/** The conversation of `client`; always the same object. */
export function conversationOf(client: Client): Conversation {
  let found = conversations.get(client);
  if (!found) conversations.set(client, (found = new Conversation(client)));
  return found;
}

export class Conversation extends Store<readonly ChatLine[]> {
  readonly #client: Client;
  #listening = false;
  #begun = false;
  #sent = 0;
  /** Messages of the worker that the history has shown, and that may be replayed. */
  readonly #known = new Set<number>();

  constructor(client: Client) {
    super([]);
    this.#client = client;
  }

  /** Send a message, and show it. @throws Unsendable | SessionGone as `client.send` */
  readonly send = (data: unknown, options: SendOptions = {}): void => {
    const { state, stored } = this.#client.send(data, options);
    const key = `own-${++this.#sent}`;
    this.#put({ key, from: "client", data, kind: options.kind ?? null, state, stream: null });
    stored.then(
      () => this.#settle(key, "stored"),
      () => this.#settle(key, "failed"),
    );
  };

  // From the first watcher on, and as long as the client lives: a line that comes while no component is there is not lost.
  protected override begins(): void {
    if (this.#listening) return;
    this.#listening = true;
    const client = this.#client;
    client.on("state", () => this.#begin());
    client.on("stream", (text) => this.#grown(text));
    client.on("message", (message) => this.#heard(message));
    this.#begin();
    for (const text of client.streams) this.#grown(text);
  }

  /** Take what was said before this page, once. */
  #begin(): void {
    const { state, history } = this.#client;
    if (this.#begun || (state !== "open" && state !== "moving")) return;
    this.#begun = true;
    const before = history.filter(belongs).map((entry, place) => this.#entry(entry, place));
    if (!before.length) return;
    const keys = new Set(before.map(({ key }) => key));
    this.set([...before, ...this.snapshot().filter(({ key }) => !keys.has(key))].slice(-LINES_MAX));
  }

  #entry(entry: HistoryEntry, place: number): ChatLine {
    const { from, seq, data, stream } = entry;
    if (stream !== undefined && from === "worker") {
      const { attempt = 1, outcome = null, kind = null, truncated = false } = entry;
      const text = { stream, attempt, text: String(data), outcome, kind, truncated, seq };
      return lineOf(this.#client.streams.find((one) => one.stream === stream) ?? text);
    }
    if (from === "worker") this.#known.add(seq);
    return { key: `before-${place}`, from, data, kind: entry.kind ?? null, state: from === "client" ? "stored" : "done", stream: null };
  }

  #heard(message: Message): void {
    this.#begin();
    const { seq, data, kind = null } = message;
    const piece = message.stream !== undefined && typeof data === "string"; // `#grown` has it
    if (piece || !isChat(kind) || this.#known.delete(seq)) return;
    this.#put({ key: `worker-${seq}`, from: "worker", data, kind, state: "done", stream: null });
  }

  #grown(text: StreamText): void {
    this.#begin();
    // A stream of pieces that are no text has no text to show.
    if (text.text || this.snapshot().some(({ key }) => key === lineOf(text).key)) this.#put(lineOf(text));
  }

  #settle(key: string, state: "stored" | "failed"): void {
    const line = this.snapshot().find((one) => one.key === key);
    if (line) this.#put({ ...line, state });
  }

  /** Show a line, or show it as it is now. */
  #put(line: ChatLine): void {
    const lines = this.snapshot();
    const known = lines.some(({ key }) => key === line.key);
    this.set(known ? lines.map((one) => (one.key === line.key ? line : one)) : [...lines, line].slice(-LINES_MAX));
  }
}

/** The line of a stream. */
function lineOf(text: StreamText): ChatLine {
  const { stream, kind, outcome } = text;
  return { key: `stream-${stream}`, from: "worker", data: text.text, kind, state: outcome === null ? "growing" : "done", stream: text };
}

/** Messages of other kinds are for the program, and not for its reader. */
const isChat = (kind: string | null): boolean => kind === null || kind === "chat";

const belongs = ({ kind, stream }: HistoryEntry): boolean => stream !== undefined || isChat(kind ?? null);
