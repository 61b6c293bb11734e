// A `ChatTransport` of the AI SDK over a session: answers go on through deploys, lost workers and reloads, and `stop` stops them.

import type { Client } from "../client.js";
import type { StreamText } from "../events.js";
import { type ErrorText, type Rendering, renderingOf, type UIMessageChunk } from "./chunks.js";

/** What is used of a message of the AI SDK. */
export interface UIMessageLike {
  id: string;
  role: "system" | "user" | "assistant";
  parts: unknown[];
}

export interface SendOptions<MESSAGE> {
  trigger: "submit-message" | "regenerate-message";
  chatId: string;
  messageId: string | undefined;
  messages: MESSAGE[];
  abortSignal: AbortSignal | undefined;
  headers?: unknown;
  body?: object;
  metadata?: unknown;
}

export interface ReconnectOptions {
  chatId: string;
  abortSignal?: AbortSignal;
  headers?: unknown;
  body?: object;
  metadata?: unknown;
}

/** What the worker gets as the data of a message. It answers by a stream of the name `stream`. */
export interface ChatRequest<MESSAGE = UIMessageLike> {
  stream: string;
  chatId: string;
  trigger: SendOptions<MESSAGE>["trigger"];
  messageId?: string;
  /** The last message. The worker has those before it in its chat history. */
  message?: MESSAGE;
  metadata?: unknown;
  body?: object;
}

export interface TransportOptions<MESSAGE> {
  /** Say something else to the worker than a `ChatRequest`; its field `stream` must be in it. A message has 64 KiB at most. */
  prepare?: (request: ChatRequest<MESSAGE>, options: SendOptions<MESSAGE>) => object;
  /** What a reader is told when an answer has `failed` or was `interrupted`. */
  errorText?: ErrorText;
}

/** Streams whose end was asked for; beyond that the oldest is forgotten. */
const CANCELLED_MAX = 256;
const ERROR_TEXT: ErrorText = (outcome) => (outcome === "failed" ? "The answer has failed." : "The answer was interrupted.");

/** The transport of a client, for `useChat` and `Chat`. It reads the messages of the session, so nothing else may iterate over them. */
export function chatTransport<MESSAGE extends UIMessageLike = any>(client: Client, options: TransportOptions<MESSAGE> = {}): SignaldChatTransport<MESSAGE> {
  return new SignaldChatTransport(client, options);
}

export class SignaldChatTransport<MESSAGE extends UIMessageLike = any> {
  readonly #client: Client;
  readonly #options: TransportOptions<MESSAGE>;
  readonly #stops: (() => void)[];
  /** Streams whose end was asked for, and whether this connection has heard of it. */
  readonly #cancelled = new Map<string, boolean>();
  /** Chat → the stream that is to answer the last question of this page. */
  readonly #asked = new Map<string, string>();
  /** Chat → how often it was resumed. */
  readonly #resumes = new Map<string, number>();

  constructor(client: Client, options: TransportOptions<MESSAGE>) {
    this.#client = client;
    this.#options = options;
    this.#stops = [
      client.on("message", () => {}), // pieces of streams are read, or no more of them would come
      client.on("stream", (text) => this.#grown(text)),
      client.on("lifecycle", ({ type }) => (type === "resumed" || type === "handed_over" || type === "replaced") && this.#askAgain()),
    ];
  }

  /** Ask the worker, and read its answer. An abort asks the worker to stop. */
  async sendMessages(options: SendOptions<MESSAGE>): Promise<ReadableStream<UIMessageChunk>> {
    const { trigger, chatId, messageId, messages, abortSignal, body, metadata } = options;
    abortSignal?.throwIfAborted();
    const stream = `${prefixOf(chatId)}${Math.random().toString(36).slice(2, 12)}`;
    const request: ChatRequest<MESSAGE> = { stream, chatId, trigger };
    if (messageId !== undefined) request.messageId = messageId;
    const last = messages.at(-1);
    if (last !== undefined) request.message = last;
    if (metadata !== undefined) request.metadata = metadata;
    if (body !== undefined) request.body = body;
    this.#client.send(this.#options.prepare?.(request, options) ?? request);
    this.#asked.set(chatId, stream);
    return this.#read(stream, chatId, abortSignal);
  }

  /** Read on in the answer that is under way, from its beginning; null: there is none. */
  async reconnectToStream({ chatId, abortSignal }: ReconnectOptions): Promise<ReadableStream<UIMessageChunk> | null> {
    // Before all waiting: the AI SDK aborts the resume before this one, which is no reason to stop the worker.
    const turn = (this.#resumes.get(chatId) ?? 0) + 1;
    this.#resumes.set(chatId, turn);
    await settled(this.#client.ready, abortSignal);
    const stream = this.#resumes.get(chatId) === turn ? this.#underWay(chatId) : null;
    return stream === null ? null : this.#read(stream, chatId, abortSignal);
  }

  /** Ask the worker to end what it answers in this chat, from whatever page. */
  stop(chatId: string): void {
    const stream = this.#underWay(chatId);
    if (stream !== null) this.#cancel(stream);
  }

  /** The messages of the chat, as the chat history of the session has them: for the first messages of a page that was loaded again. */
  messages(chatId: string): MESSAGE[] {
    const prefix = prefixOf(chatId);
    const found = new Map<string, UIMessageLike>();
    for (const entry of this.#client.history) {
      const request = entry.data as Partial<ChatRequest> | string | null;
      if (entry.from === "client" && isRequest(request) && request.stream.startsWith(prefix)) {
        if (request.trigger === "regenerate-message" && request.messageId !== undefined) found.delete(request.messageId);
        if (request.message) found.set(request.message.id, request.message);
      } else if (entry.stream?.startsWith(prefix) && typeof request === "string") {
        // One that is under way is read by `reconnectToStream`.
        const text = this.#client.streams.find(({ stream }) => stream === entry.stream);
        if (text?.outcome != null) found.set(text.stream, { id: text.stream, role: "assistant", parts: [{ type: "text", text: textOf(text), state: "done" }] });
      }
    }
    return [...found.values()] as MESSAGE[];
  }

  /** Read no more of the session. */
  close(): void {
    for (const stop of this.#stops) stop();
  }

  // --- reading ----------------------------------------------------------------------------------------------------

  #read(stream: string, chatId: string, signal: AbortSignal | undefined): ReadableStream<UIMessageChunk> {
    const client = this.#client;
    const resumes = this.#resumes.get(chatId) ?? 0;
    let rendering: Rendering | null = null;
    let leave = (): void => {};
    return new ReadableStream<UIMessageChunk>({
      start: (controller) => {
        const hand = (chunks: UIMessageChunk[], over: boolean): void => {
          for (const chunk of chunks) controller.enqueue(chunk);
          if (!over) return;
          leave();
          controller.close();
        };
        const take = (text: StreamText): void => {
          if (text.stream !== stream) return;
          rendering ??= renderingOf(text, this.#options.errorText ?? ERROR_TEXT);
          hand(rendering.take(text), rendering.over);
        };
        const aborted = (): void => {
          hand([{ type: "abort" }], true);
          // A later resume of the same chat takes this one's place; only what is stopped by a reader ends the answer.
          queueMicrotask(() => (this.#resumes.get(chatId) ?? 0) === resumes && this.#cancel(stream));
        };
        const ended = (state: string): void => {
          // Streams are told of first, so one that is still read has not begun.
          if (state === "closed") hand([{ type: "error", errorText: (this.#options.errorText ?? ERROR_TEXT)("interrupted") }], true);
        };
        const stops = [client.on("stream", take), client.on("state", ended)];
        signal?.addEventListener("abort", aborted);
        leave = () => {
          for (const stop of stops) stop();
          signal?.removeEventListener("abort", aborted);
        };
        const known = client.streams.find((one) => one.stream === stream);
        if (signal?.aborted) aborted();
        else if (known) take(known);
        else ended(client.state);
      },
      cancel: () => leave(), // a reader that goes stops nothing: the page may have been closed
    });
  }

  /** The stream that answers, or will answer, the last question of a chat; null: it has been answered, or there is none. */
  #underWay(chatId: string): string | null {
    const prefix = prefixOf(chatId);
    const { streams, history } = this.#client;
    const open = streams.filter(({ stream, outcome }) => outcome === null && stream.startsWith(prefix)).at(-1);
    if (open) return open.stream;
    const questions = history.map(({ from, data }) => (from === "client" && isRequest(data) && data.stream.startsWith(prefix) ? data.stream : null));
    const last = this.#asked.get(chatId) ?? questions.filter((one) => one !== null).at(-1) ?? null;
    return last === null || streams.some(({ stream }) => stream === last) ? null : last;
  }

  // --- stopping ---------------------------------------------------------------------------------------------------

  /** Ask for the end of a stream until it has ended: a request may be lost with its connection, and of a stream that has not begun nothing is kept. */
  #cancel(stream: string): void {
    const known = this.#client.streams.find((one) => one.stream === stream);
    if (known?.outcome != null || this.#client.state === "closed") return;
    if (this.#cancelled.size >= CANCELLED_MAX) this.#cancelled.delete(this.#cancelled.keys().next().value!);
    this.#cancelled.set(stream, known !== undefined);
    if (known) this.#client.cancel(stream, "stopped");
  }

  #grown({ stream, outcome }: StreamText): void {
    if (outcome !== null) this.#cancelled.delete(stream);
    else if (this.#cancelled.get(stream) === false) this.#cancel(stream);
  }

  #askAgain(): void {
    for (const stream of [...this.#cancelled.keys()]) this.#cancel(stream);
  }
}

/** Names of streams have 64 characters at most, and chats any: a chat is in them by its hash. */
function prefixOf(chatId: string): string {
  // FNV-1a, twice over different beginnings: 64 bits, so that two chats of one session never meet.
  let [one, other] = [0x811c9dc5, 0x01000193];
  for (let place = 0; place < chatId.length; place++) {
    one = Math.imul(one ^ chatId.charCodeAt(place), 0x01000193);
    other = Math.imul(other ^ chatId.charCodeAt(place), 0x85ebca6b);
  }
  return `ai-${(one >>> 0).toString(36)}${(other >>> 0).toString(36)}-`;
}

function isRequest(data: unknown): data is ChatRequest {
  return typeof data === "object" && data !== null && typeof (data as ChatRequest).stream === "string";
}

/** The text of an answer that is over. */
function textOf(text: StreamText): string {
  let found = "";
  for (const chunk of renderingOf(text, () => "").take(text)) if (chunk.type === "text-delta") found += chunk.delta;
  return found;
}

/** Wait for `promise`, or for an abort. */
function settled<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const aborted = (): void => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", aborted));
  });
}
