// A stream of the session as chunks of the AI SDK (7, `UIMessageChunk`). No I/O.
//
// What a stream shows is at any time the beginning of what the worker has said under one attempt. So the chunks follow from the text alone:
// the same text, told twice or anew after a reload, gives the same message, because its id is the name of the stream.

import type { StreamText } from "../events.js";

/** The chunks that are made here. A worker that says chunks itself may say any other. */
export type UIMessageChunk =
  | { type: "start"; messageId: string }
  | { type: "start-step" }
  | { type: "text-start"; id: string }
  | { type: "text-delta"; id: string; delta: string }
  | { type: "text-end"; id: string }
  | { type: "reset-step" }
  | { type: "finish-step" }
  | { type: "finish"; finishReason?: "stop" }
  | { type: "abort"; reason?: string }
  | { type: "error"; errorText: string };

/** The kind of a stream whose text is chunks: one JSON object a line. */
export const CHUNKS_KIND = "ui-message-stream";

/** What a reader is told of an answer that is half: the words of the service are none for a reader. */
export type ErrorText = (outcome: string) => string;

export interface Rendering {
  /** The stream has ended, and its last chunks were given. */
  readonly over: boolean;
  /** Take the stream as it is now; the chunks to be handed on. */
  take(text: StreamText): UIMessageChunk[];
}

/** A rendering that fits the kind of `text`. */
export function renderingOf(text: StreamText, errorText: ErrorText): Rendering {
  return text.kind === CHUNKS_KIND ? new RenderedChunks(text.stream, errorText) : new RenderedText(text.stream, errorText);
}

/** A text becomes one step with one part. */
export class RenderedText implements Rendering {
  over = false;
  readonly #name: string;
  readonly #errorText: ErrorText;
  #attempt = 0;
  /** The text that was handed on. */
  #shown = "";
  #partOpen = false;

  constructor(name: string, errorText: ErrorText) {
    this.#name = name;
    this.#errorText = errorText;
  }

  take({ attempt, text, outcome }: StreamText): UIMessageChunk[] {
    if (this.over || attempt < this.#attempt) return [];
    const id = this.#name;
    const chunks: UIMessageChunk[] = this.#attempt ? [] : [{ type: "start", messageId: id }, { type: "start-step" }];
    this.#attempt = attempt;
    if (!text.startsWith(this.#shown)) {
      // Another attempt says other words. While it says the same ones, what is shown stays.
      if (outcome === null && this.#shown.startsWith(text)) return chunks;
      chunks.push({ type: "reset-step" });
      this.#shown = "";
      this.#partOpen = false;
    }
    const delta = text.slice(this.#shown.length);
    if (delta) {
      if (!this.#partOpen) chunks.push({ type: "text-start", id });
      this.#partOpen = true;
      chunks.push({ type: "text-delta", id, delta });
      this.#shown = text;
    }
    if (outcome === null) return chunks;
    this.over = true;
    if (this.#partOpen) chunks.push({ type: "text-end", id });
    return [...chunks, { type: "finish-step" }, ...ending(outcome, this.#errorText)];
  }
}

/** Lines become the chunks that they are. */
export class RenderedChunks implements Rendering {
  over = false;
  readonly #name: string;
  readonly #errorText: ErrorText;
  #attempt = 0;
  /** The lines that were handed on, each as it was said. */
  #shown: string[] = [];
  #finished = false;

  constructor(name: string, errorText: ErrorText) {
    this.#name = name;
    this.#errorText = errorText;
  }

  take({ attempt, text, outcome }: StreamText): UIMessageChunk[] {
    if (this.over || attempt < this.#attempt) return [];
    const chunks: UIMessageChunk[] = this.#attempt ? [] : [{ type: "start", messageId: this.#name }];
    this.#attempt = attempt;
    const whole = text.split("\n");
    const rest = whole.pop()!;
    if (outcome !== null && rest) whole.push(rest);
    let from = 0;
    while (from < this.#shown.length && whole[from] === this.#shown[from]) from += 1;
    if (from < this.#shown.length) {
      if (outcome === null && from === whole.length) return chunks; // another attempt, which has said the same so far
      const behind = behindStep(whole, this.#shown.filter(beginsStep).length);
      if (behind === null && outcome === null) return chunks; // it has not come to the step that is shown
      chunks.push({ type: "reset-step" });
      this.#finished = false;
      from = behind ?? whole.length;
    }
    for (const line of whole.slice(from)) chunks.push(...this.#chunk(line));
    this.#shown = whole;
    if (outcome === null) return chunks;
    this.over = true;
    return outcome === "complete" && this.#finished ? chunks : [...chunks, ...ending(outcome, this.#errorText)];
  }

  #chunk(line: string): UIMessageChunk[] {
    const chunk = parsed(line);
    if (chunk === null) return [];
    if (chunk.type === "start" && !("messageMetadata" in chunk)) return [];
    if (chunk.type === "start") return [{ ...chunk, messageId: this.#name }];
    this.#finished ||= chunk.type === "finish";
    return [chunk];
  }
}

/** The last chunks of a stream. */
function ending(outcome: string, errorText: ErrorText): UIMessageChunk[] {
  if (outcome === "complete") return [{ type: "finish", finishReason: "stop" }];
  if (outcome === "cancelled") return [{ type: "abort" }];
  return [{ type: "error", errorText: errorText(outcome) }];
}

/** Behind which line the step `number` has begun; steps before it were shown whole, and stand. Null: it has not. */
function behindStep(lines: readonly string[], number: number): number | null {
  if (number === 0) return 0;
  let steps = 0;
  for (const [place, line] of lines.entries()) {
    if (beginsStep(line)) steps += 1;
    if (steps === number) return place + 1;
  }
  return null;
}

const beginsStep = (line: string): boolean => parsed(line)?.type === "start-step";

/** The chunk of a line; null: it is none, and is passed over. */
function parsed(line: string): UIMessageChunk | null {
  try {
    const chunk: unknown = JSON.parse(line);
    return typeof (chunk as { type?: unknown } | null)?.type === "string" ? (chunk as UIMessageChunk) : null;
  } catch {
    return null;
  }
}
