// The handler of a session, as it runs under a service of tests.

import type { HistoryEntry } from "../events.js";
import { type Heard, type OpenStream, type Said, type TestSession, type TestStream, WorkerLost } from "./session.js";

/** Serves one session; returning ends it. After the loss of a worker it is called again, for the next one. */
export type Handler = (session: WorkerSession) => Promise<unknown>;

/** A session in the hands of one worker. */
export class WorkerSession implements AsyncIterable<Heard> {
  readonly id: string;
  readonly meta: unknown;
  /** The id of the worker. */
  readonly worker: string;
  /** How many workers have had the session, this one included. */
  readonly attempt: number;
  /** Streams of an earlier worker that are open. */
  readonly openStreams: readonly OpenStream[];
  /** The chat history, as it was at the beginning. */
  readonly chatHistory: readonly HistoryEntry[];
  /** Aborted when the session is taken away. */
  readonly signal: AbortSignal;
  readonly #session: TestSession;

  /** @internal */
  constructor(session: TestSession, worker: string, attempt: number, signal: AbortSignal) {
    this.#session = session;
    this.id = session.id;
    this.meta = session.meta;
    this.worker = worker;
    this.attempt = attempt;
    this.openStreams = session.openStreams;
    this.chatHistory = [...session.chatHistory];
    this.signal = signal;
  }

  /** Send the client a message. @throws WorkerLost */
  send(data: unknown, fields: Said = {}): void {
    this.#check();
    this.#session.send(data, fields);
  }

  /** Send data that is carried now or not at all. */
  realtime(data: unknown): void {
    this.#check();
    this.#session.realtime(data);
  }

  /** Say a text that grows; of a stream that was found open the attempt is one more. */
  stream(name: string, options: { kind?: string; attempt?: number } = {}): TestStream {
    this.#check();
    return this.#session.stream(name, options, () => this.#check());
  }

  /** The messages of the client. A message counts as done when the next one is asked for. @throws WorkerLost */
  async *[Symbol.asyncIterator](): AsyncIterator<Heard> {
    const session = this.#session;
    for (;;) {
      this.#check();
      const next = session.heard[session.done];
      if (next !== undefined) {
        yield next;
        this.#check();
        session.done = Math.max(session.done, next.seq);
      } else if (session.ended !== null) return;
      else await new Promise<void>((resolve) => (session.changed = resolve));
    }
  }

  #check(): void {
    if (this.signal.aborted) throw new WorkerLost(this.worker);
  }
}

/** Hands a session to one worker after the other. */
export class Desk {
  /** What handlers have raised. */
  readonly errors: unknown[] = [];
  readonly #handler: Handler;
  readonly #session: TestSession;
  #attempt = 0;
  #abort: AbortController | null = null;

  constructor(handler: Handler, session: TestSession) {
    this.#handler = handler;
    this.#session = session;
  }

  /** Have a worker serve the session, in place of the one before. */
  begin(worker: string): void {
    const session = this.#session;
    this.#abort?.abort();
    session.changed();
    if (session.ended !== null) return;
    const abort = (this.#abort = new AbortController());
    this.#attempt += 1;
    session.peerIs(this.#attempt === 1 ? "paired" : "replaced", worker);
    void this.#serve(new WorkerSession(session, worker, this.#attempt, abort.signal), abort.signal);
  }

  async #serve(session: WorkerSession, signal: AbortSignal): Promise<void> {
    try {
      await this.#handler(session);
      if (!signal.aborted) this.#session.end("done");
    } catch (error) {
      if (signal.aborted || this.#session.ended !== null) return;
      // No next worker: a fault of a handler would be met again and again, and hide itself behind a test that waits.
      this.errors.push(error);
      this.#session.end("the handler has failed");
    }
  }
}
