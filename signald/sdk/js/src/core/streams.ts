// Streams as a client holds them: at any time a prefix of what the worker has said, and all of it after the end. No I/O.

import type { HistoryEntry, StreamText } from "../events.js";
import type { Wire } from "./frames.js";

/** Texts that are kept; the oldest that is over is forgotten, as the service does. */
const STREAMS_MAX = 256;

const none = (stream: string, attempt: number, kind: string | null = null): StreamText => ({
  stream,
  attempt,
  text: "",
  outcome: null,
  kind,
  truncated: false,
  seq: 0,
});

/** The streams of a client's worker, by name. */
export class StreamTexts {
  readonly #texts = new Map<string, StreamText>();

  /** All of them, in the order in which they began. */
  all(): StreamText[] {
    return [...this.#texts.values()];
  }

  get(name: string): StreamText | undefined {
    return this.#texts.get(name);
  }

  /** Take a message in its turn; `text` is its data if that is one. Returns what has changed, or null. */
  message(message: Wire, text: string | null): StreamText | null {
    const stream: string | undefined = message["stream"] ?? undefined;
    if (stream === undefined) return null;
    let known = this.#texts.get(stream);
    const attempt: number = message["attempt"] ?? 1;
    const kind: string | null = message["kind"] ?? known?.kind ?? null;
    if (known && (message["seq"] <= known.seq || attempt < known.attempt)) return null;
    if (!known || attempt > known.attempt) known = none(stream, attempt, kind);
    const grown = message["fold"] != null && text !== null ? known.text + text : known.text;
    const outcome: string | null = message["end"] ? (message["outcome"] ?? "complete") : null;
    return this.#keep({ ...known, text: grown, seq: message["seq"], outcome, kind });
  }

  /** Take an entry of the chat history, which may be ahead of the messages. */
  entry(entry: HistoryEntry): StreamText | null {
    const { stream, data, attempt = 1, truncated = false, seq } = entry;
    const outcome = entry.outcome ?? null;
    if (entry.from !== "worker" || typeof stream !== "string" || typeof data !== "string") return null;
    const known = this.#texts.get(stream);
    if (known && seq <= known.seq && !(outcome !== null && known.outcome === null)) return null;
    // The messages to come bring the rest, and nothing is lost in front.
    if (known && truncated && attempt === known.attempt) return null;
    return this.#keep({ stream, attempt, text: data, outcome, kind: entry.kind ?? null, truncated, seq });
  }

  /** Take the end that the service has made of a stream. */
  state(state: Wire): StreamText | null {
    const known = this.#texts.get(state["stream"]) ?? none(state["stream"], state["attempt"]);
    return known.outcome === null ? this.#keep({ ...known, outcome: state["outcome"] }) : null;
  }

  /** The session is over: what is open is interrupted. */
  end(): StreamText[] {
    return this.all()
      .filter((one) => one.outcome === null)
      .map((one) => this.#keep({ ...one, outcome: "interrupted" }));
  }

  #keep(text: StreamText): StreamText {
    if (!this.#texts.has(text.stream) && this.#texts.size >= STREAMS_MAX) {
      const over = this.all().find((one) => one.outcome !== null) ?? this.all()[0]!;
      this.#texts.delete(over.stream);
    }
    this.#texts.set(text.stream, text);
    return text;
  }
}
