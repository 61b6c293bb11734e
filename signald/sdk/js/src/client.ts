// The front: it carries the core over WebSockets and timers, and is what an application holds.

import { Carrier, type Socket, type SocketClass } from "./carrier.js";
import { ClientCore, type CoreOptions, type Extension, type Timing } from "./core/client.js";
import type { Backoff } from "./core/backoff.js";
import type { Bounds } from "./core/bounds.js";
import type { Frame } from "./core/frames.js";
import type { Link } from "./core/link.js";
import type { Body, SendOptions } from "./core/session.js";
import { SessionGone, type SignaldError, Unsendable } from "./errors.js";
import type { HistoryEntry, Lifecycle, Message, StreamText } from "./events.js";
import { watchPage } from "./page.js";
import { Keeper, type KeyValueStore } from "./storage.js";

/** Bytes that may wait in a socket before the next write; and for how long they may not become less. */
const BUFFERED_MAX = 1 << 20;
const BUFFERED_POLL_MS = 50;
const STUCK_MS = 10_000;
/** Frames that wait while the application is behind. An honest service lets 1,000 messages wait. */
const WAITING_MAX = 10_000;
/** Messages that have no number yet: of a page that is away for long. */
const EARLY_MAX = 10_000;
/** A timer of JavaScript cannot wait for longer. */
const TIMER_MAX_MS = 2 ** 31 - 1;

export interface ConnectOptions {
  /** Where signald is, as `wss://chat.example`. Several are tried in their order. */
  url: string | readonly string[];
  /** A credential; or give `getToken`, which is asked for a fresh one before each connection, and when one runs out. */
  token?: string;
  getToken?: () => string | undefined | Promise<string | undefined>;
  /** The labels that the worker must have. */
  want?: Record<string, string>;
  /** Anything that the worker is told with the session. */
  meta?: unknown;
  /** False: a session without a worker, for rooms and jobs. */
  pair?: boolean;
  /** Entries of the chat history that a resume brings along; at most 1,000. */
  history?: number;
  /** Ask for `receipt` events. */
  receipts?: boolean;
  /** Ask for tokens of the HTTP API. */
  api?: boolean;
  /** Where the session is kept for a reload; null: nowhere. The default is the page's `sessionStorage`, if there is one. */
  storage?: KeyValueStore | null;
  /** The name in `storage`. Two clients of one page need two. */
  storageKey?: string;
  /** A class of sockets, for instance that of `ws`. */
  WebSocket?: unknown;
  backoff?: Partial<Backoff>;
  timing?: Partial<Timing>;
  bounds?: Partial<Bounds>;
}

/** `connecting`: never connected yet; `open`; `moving`: to another node, while the old one serves; `offline`: connects again; `closed`. */
export type State = "connecting" | "open" | "moving" | "offline" | "closed";

/** What became of a message. */
export interface Sent {
  /** `sent`: it is on its way; `kept`: it leaves when there is a connection, also after a reload. */
  readonly state: "sent" | "kept";
  /** Resolved when signald has stored it: from then on it cannot be lost. Rejected when the session ends before that. */
  readonly stored: Promise<void>;
}

export interface ClientEvents {
  message: Message;
  /** A stream has grown or ended. */
  stream: StreamText;
  /** What happens to the session. */
  lifecycle: Lifecycle;
  state: State;
  /** A listener has thrown, or `getToken` has. */
  error: unknown;
}

type Listener<E extends keyof ClientEvents> = (event: ClientEvents[E]) => unknown;

interface Waiting {
  body: Body;
  seq: number | null;
  resolve: () => void;
  reject: (error: Error) => void;
}

const monotonic = (): number => performance.now() / 1000;
const uniform = (low: number, high: number): number => low + (high - low) * Math.random();

/** Begin, or go on with, a session. It connects by itself, and again after each break. @throws Unsendable | RangeError wrong options */
export function connect(options: ConnectOptions): Client {
  return new Client(options);
}

export class Client implements AsyncIterable<Message> {
  /** Resolved when the session is there for the first time; rejected when it never will be. */
  readonly ready: Promise<void>;
  /** Resolved when the client is closed for good: null after an orderly end, or else the error. */
  readonly closed: Promise<SignaldError | null>;
  #core: ClientCore;
  readonly #options: ConnectOptions;
  readonly #Socket: SocketClass;
  readonly #keeper: Keeper;
  readonly #listeners = new Map<keyof ClientEvents, Set<Listener<any>>>();
  readonly #carriers = new Map<Link, Carried>();
  readonly #early: Waiting[] = [];
  readonly #unstored: Waiting[] = [];
  readonly #stopWatching: () => void;
  #dialling: { carrier: Carrier | null } | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #stepDue = false;
  #started = false;
  #paused = false;
  #told: State = "connecting";
  #delivering = false;
  #iterating = false;
  #wake: () => void = () => {};
  #readyNow!: () => void;
  #neverReady!: (error: Error) => void;
  #closedNow!: (error: SignaldError | null) => void;
  #ended = false;
  readonly #tellMore: (() => void)[] = [];

  constructor(options: ConnectOptions) {
    this.#options = options;
    const Socket = (options.WebSocket ?? (globalThis as { WebSocket?: unknown }).WebSocket) as SocketClass | undefined;
    if (Socket === undefined) throw new RangeError("no `WebSocket`");
    this.#Socket = Socket;
    this.#core = this.#watched(new ClientCore(this.#coreOptions()));
    this.#keeper = new Keeper(options.storage === undefined ? pageStorage() : options.storage, options.storageKey ?? "signald");
    this.ready = new Promise((resolve, reject) => {
      this.#readyNow = resolve;
      this.#neverReady = reject;
    });
    this.ready.catch(() => {}); // an application that does not wait for it hears of the end by `closed`
    this.closed = new Promise((resolve) => {
      this.#closedNow = resolve;
    });
    this.#stopWatching = watchPage({ leaves: (kept) => this.#leaves(kept), back: () => this.#back(), awake: () => this.#awake() });
    void this.#start();
  }

  // --- what an application sees -----------------------------------------------------------------------------------

  get state(): State {
    const core = this.#core;
    if (core.over !== null) return "closed";
    if (core.current !== null) return core.isMoving ? "moving" : "open";
    return core.established || core.token !== null ? "offline" : "connecting";
  }

  /** The id of the session; null before there is one. */
  get sessionId(): string | null {
    return this.#core.sessionId;
  }

  /** The state of the worker, and its id. */
  get peer(): { readonly state: string; readonly id: string | null } {
    return this.#core.peer;
  }

  /** The entries that the last resume brought along. */
  get history(): readonly HistoryEntry[] {
    return this.#core.chatHistory;
  }

  /** The streams of the worker, as far as they have come, in the order in which they began. */
  get streams(): readonly StreamText[] {
    return this.#core.streams.all();
  }

  /** What the core server says for the session. */
  get settings(): unknown {
    return this.#core.settings;
  }

  /** The token of the HTTP API, and where that is asked; null before there is one. */
  get api(): { readonly token: string; readonly url: string } | null {
    const { apiToken, url } = this.#core;
    return apiToken === null ? null : { token: apiToken, url: url.replace(/^ws/, "http").replace(/(:\/\/[^/]+).*/, "$1") };
  }

  /** Messages that signald has not confirmed as stored. */
  get unstored(): number {
    return this.#early.length + this.#core.session.unacked().length;
  }

  /**
   * Hear of events; the function that is returned ends it. A message counts as done when all its listeners have returned, and their
   * promises are resolved; only then the next one comes.
   */
  on<E extends keyof ClientEvents>(name: E, listener: Listener<E>): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    if (name === "message") this.#deliver();
    return () => void all.delete(listener);
  }

  /** The messages, each once, until the session ends. A message counts as done when the next one is asked for. */
  async *[Symbol.asyncIterator](): AsyncIterator<Message> {
    if (this.#iterating || this.#listeners.get("message")?.size) throw new Error("one reader");
    this.#iterating = true;
    let done = 0;
    try {
      for (;;) {
        if (this.#core.session.finish(done)) this.#soon();
        const message = this.#core.session.take();
        if (message !== null) {
          done = message.seq;
          this.#soon(); // frames may have waited for the room
          yield message;
        } else if (this.#ended) {
          const failure = this.#core.failure();
          if (failure !== null) throw failure;
          return;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      }
    } finally {
      this.#iterating = false;
    }
  }

  /**
   * Send a message to the worker, exactly once, whatever happens meanwhile. `data` is a JSON value or a `Uint8Array`.
   *
   * @throws Unsendable the service would refuse it; SessionGone the session is over
   */
  send(data: unknown, options: SendOptions = {}): Sent {
    const core = this.#core;
    if (core.over !== null) throw core.failure() ?? new SessionGone(core.over.code, core.over.reason);
    const body = core.session.body(data, options);
    if (this.#early.length >= EARLY_MAX) throw new Unsendable("too many wait");
    let waiting!: Waiting;
    const stored = new Promise<void>((resolve, reject) => {
      waiting = { body, seq: null, resolve, reject };
    });
    stored.catch(() => {}); // an application need not wait for it
    this.#early.push(waiting);
    const state = core.established && core.current !== null && core.session.room && this.#early.length === 1 ? "sent" : "kept";
    this.#number();
    this.#save();
    this.#soon();
    return { state, stored };
  }

  /** Send data that is carried now or not at all; false when it was dropped. @throws Unsendable */
  realtime(data: unknown): boolean {
    return this.#core.realtime(data);
  }

  /** Ask the worker to end a stream. @throws Unsendable */
  cancel(stream: string, reason = ""): void {
    this.#core.cancel(stream, reason);
  }

  /** Show another credential. @throws Unsendable */
  renewAuth(token: string): void {
    this.#core.renewAuth(token);
  }

  /** End the session for good, once all that was sent is stored. Resolved when signald has ended it. */
  async bye(reason = ""): Promise<void> {
    this.#core.session.bye = reason;
    this.#core.changed();
    this.#soon();
    await this.closed;
  }

  /** Leave the session as it is: it can be resumed from `storage`, or by its state, until it expires. */
  close(): void {
    this.#save(true);
    this.#core.finish({ code: null, reason: "closed", orderly: true });
    this.#end(false);
  }

  /** For `signald/rooms` and `signald/jobs`: `make` is given the core as it is at the moment, and a function that wakes the client. */
  extend(make: (core: () => ClientCore, wake: () => void) => { extension: Extension; tell: () => void }): void {
    const wake = (): void => {
      this.#core.changed();
      this.#soon();
    };
    const { extension, tell } = make(() => this.#core, wake);
    this.#core.extensions.push(extension);
    this.#tellMore.push(tell);
  }

  // --- beginning --------------------------------------------------------------------------------------------------

  #coreOptions(): CoreOptions {
    const { url, token } = this.#options;
    return { ...this.#options, urls: typeof url === "string" ? [url] : url, uniform, ...(token === undefined ? {} : { auth: token }) };
  }

  #watched(core: ClientCore): ClientCore {
    core.replan = () => this.#soon();
    core.session.changed = () => this.#soon();
    core.session.dropped = (seq) => this.#dropped(seq);
    return core;
  }

  async #start(): Promise<void> {
    const saved = await this.#keeper.load();
    if (this.#ended) return;
    if (saved?.state) {
      const { extensions } = this.#core;
      this.#core = this.#watched(new ClientCore({ ...this.#coreOptions(), state: saved.state }));
      this.#core.extensions = extensions;
    }
    // What was kept before this page comes before what the application has sent since.
    const before = (saved?.early ?? []).map((body) => ({ body, seq: null, resolve: () => {}, reject: () => {} }));
    this.#early.unshift(...before);
    this.#started = true;
    this.#soon();
  }

  // --- one step: whatever has changed, all that is due is done ------------------------------------------------------

  #soon(): void {
    if (this.#stepDue) return;
    this.#stepDue = true;
    queueMicrotask(() => {
      this.#stepDue = false;
      this.#step();
    });
  }

  #step(): void {
    if (!this.#started || this.#ended) return;
    const core = this.#core;
    let next = Infinity;
    const now = monotonic();
    for (const [link, carried] of [...this.#carriers]) this.#read(link, carried, now);
    this.#number();
    this.#settleStored();
    if (core.over !== null) {
      this.#end(true);
      return;
    }
    this.#save();
    for (const [link, carried] of [...this.#carriers]) next = Math.min(next, this.#due(link, carried, now), this.#write(link, carried, now));
    const attempt = this.#dialling || this.#paused ? null : core.plan(now);
    if (attempt !== null && attempt.at <= now) void this.#dial(attempt.url);
    else if (attempt !== null) next = Math.min(next, attempt.at);
    this.#tell();
    this.#deliver();
    if (this.#timer !== null) clearTimeout(this.#timer);
    // A little later than asked: a timer that goes off early would turn in a circle.
    const wait = Math.min(Math.max((next - monotonic()) * 1000 + 1, 1), TIMER_MAX_MS);
    this.#timer = next === Infinity ? null : setTimeout(() => this.#step(), wait);
  }

  #read(link: Link, carried: Carried, now: number): void {
    const core = this.#core;
    while (carried.waiting.length && link.state !== "closed" && core.over === null && !core.blocked()) {
      try {
        core.receive(link, carried.waiting.shift()!, now);
      } catch (error) {
        this.#cut(link, error, now);
      }
    }
    if (core.blocked() !== carried.held) {
      carried.held = core.blocked();
      carried.carrier.hold(carried.held);
    }
    if (carried.waiting.length > WAITING_MAX) this.#cut(link, new Error("a flood"), now);
  }

  #due(link: Link, carried: Carried, now: number): number {
    if (link.state === "closed") return Infinity;
    try {
      return this.#core.due(link, now);
    } catch (error) {
      if (link.state === "retiring") carried.carrier.close();
      this.#cut(link, error, now);
      return now;
    }
  }

  #write(link: Link, carried: Carried, now: number): number {
    if (link.state === "closed") return Infinity;
    const { carrier } = carried;
    if (carrier.bufferedAmount > BUFFERED_MAX) {
      if (carrier.bufferedAmount < carried.buffered) carried.stuckAt = now;
      carried.buffered = carrier.bufferedAmount;
      if ((now - carried.stuckAt) * 1000 > STUCK_MS) this.#cut(link, new Error("stuck"), now);
      return now + BUFFERED_POLL_MS / 1000;
    }
    carried.buffered = Infinity;
    carried.stuckAt = now;
    const frames = this.#core.write(link, now);
    if (frames.length) this.#save(); // an ack that leaves must not be forgotten by a page that is reloaded now
    for (const frame of frames) carrier.send(frame);
    return frames.length ? now : this.#core.wakeAt(link, now);
  }

  #cut(link: Link, error: unknown, now: number): void {
    this.#carriers.get(link)?.carrier.cut();
    this.#carriers.delete(link);
    this.#core.lost(link, null, error instanceof Error ? error.message : String(error), now);
  }

  // --- connections ------------------------------------------------------------------------------------------------

  async #dial(url: string): Promise<void> {
    const core = this.#core;
    const dialling: { carrier: Carrier | null } = { carrier: null };
    this.#dialling = dialling;
    const over = (): boolean => this.#dialling !== dialling || core.over !== null || this.#paused;
    const unreachable = (code: number | null, reason: string, retryAfterMs: number | null = null, wrongUrl = false): void => {
      this.#dialling = null;
      core.unreachable(monotonic(), code, reason, retryAfterMs, url, wrongUrl);
      this.#soon();
    };
    try {
      if (this.#options.getToken) core.showNext(await this.#options.getToken());
    } catch (error) {
      this.#report(error);
      if (!over()) unreachable(null, "no token");
      return;
    }
    if (over()) {
      if (this.#dialling === dialling) this.#dialling = null;
      return;
    }
    let link: Link | null = null;
    try {
      const carrier = new Carrier(this.#Socket, url, core.timing.connectS, {
        opened: () => {
          this.#dialling = null;
          link = core.opened(url, monotonic());
          link.changed = link.turned = () => this.#soon();
          this.#carriers.set(link, { carrier, waiting: [], held: false, buffered: Infinity, stuckAt: monotonic() });
          this.#soon();
        },
        failed: ({ code, reason, retryAfterMs, wrongUrl }) => unreachable(code, reason, retryAfterMs, wrongUrl),
        frame: (frame) => {
          this.#carriers.get(link!)?.waiting.push(frame);
          this.#step();
        },
        closed: (code, reason) => {
          const now = monotonic();
          const carried = this.#carriers.get(link!);
          if (carried) this.#read(link!, carried, now);
          this.#carriers.delete(link!);
          core.lost(link!, code, reason, now);
          this.#step();
        },
      });
      dialling.carrier = carrier;
    } catch (error) {
      // A page of https: may open no ws:, and no retry mends that.
      unreachable(null, error instanceof Error ? error.message : String(error), null, true);
    }
  }

  #leaves(kept: boolean): void {
    if (this.#ended) return;
    this.#save(true);
    if (!kept) return;
    this.#paused = true;
    this.#dialling?.carrier?.cut();
    this.#dialling = null;
    for (const [link] of [...this.#carriers]) this.#cut(link, "page kept", monotonic());
    this.#save(true);
  }

  #back(): void {
    if (this.#ended || !this.#paused) return;
    this.#paused = false;
    this.#save();
    this.#awake();
  }

  #awake(): void {
    const core = this.#core;
    const now = monotonic();
    if (core.current !== null) core.probe(core.current, now);
    else if (core.opening === null) {
      // A connection that hangs since before the network went is not waited for.
      this.#dialling?.carrier?.cut();
      this.#dialling = null;
      core.hurry(now);
    }
    this.#soon();
  }

  // --- messages ---------------------------------------------------------------------------------------------------

  /** Give a number to what was sent, as far as there is room. */
  #number(): void {
    const core = this.#core;
    while (core.established && core.over === null && this.#early.length && core.session.room) {
      const waiting = this.#early.shift()!;
      waiting.seq = core.session.restoreUnacked(waiting.body);
      this.#unstored.push(waiting);
      core.changed();
    }
  }

  #settleStored(): void {
    const { accepted } = this.#core.session;
    while (this.#unstored.length && this.#unstored[0]!.seq! <= accepted) this.#unstored.shift()!.resolve();
  }

  #dropped(seq: number): void {
    const place = this.#unstored.findIndex((one) => one.seq === seq);
    if (place >= 0) this.#unstored.splice(place, 1)[0]!.reject(new Unsendable("signald refuses this message"));
    for (const one of this.#unstored) if (one.seq! > seq) one.seq! -= 1;
  }

  /** Hand on what has come, one message after the other. */
  #deliver(): void {
    if (this.#iterating) {
      this.#wake();
      return;
    }
    if (this.#delivering || !this.#listeners.get("message")?.size || !this.#core.session.inbox.length) return;
    this.#delivering = true;
    void this.#deliverAll();
  }

  async #deliverAll(): Promise<void> {
    const { session } = this.#core;
    for (;;) {
      const listeners = this.#listeners.get("message");
      const message = listeners?.size ? session.take() : null;
      if (message === null) break;
      const results = [...listeners!].map(async (listener) => listener(message));
      for (const result of await Promise.allSettled(results)) if (result.status === "rejected") this.#report(result.reason);
      if (session.finish(message.seq)) this.#core.changed();
      this.#soon();
    }
    this.#delivering = false;
  }

  #emit<E extends keyof ClientEvents>(name: E, event: ClientEvents[E]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        this.#report(error);
      }
    }
  }

  /** A fault of the application's own code ends nothing here. */
  #report(error: unknown): void {
    try {
      const listeners = this.#listeners.get("error");
      if (!listeners?.size) throw error;
      for (const listener of [...listeners]) listener(error);
    } catch (again) {
      console.error("signald:", again);
    }
  }

  #tell(): void {
    const core = this.#core;
    if (core.established) this.#readyNow();
    for (let text = core.streamNews.shift(); text; text = core.streamNews.shift()) this.#emit("stream", text);
    for (let event = core.events.shift(); event; event = core.events.shift()) {
      if (event.type === "auth_expiring" && event.graceS !== null && this.#options.getToken) void this.#renew();
      else this.#emit("lifecycle", event);
    }
    for (const tell of this.#tellMore) tell();
    if (this.state !== this.#told) {
      this.#told = this.state;
      this.#emit("state", this.#told);
    }
  }

  async #renew(): Promise<void> {
    try {
      const token = await this.#options.getToken!();
      if (token !== undefined && !this.#ended) this.#core.renewAuth(token);
    } catch (error) {
      this.#report(error);
    }
  }

  #save(free = false): void {
    if (!this.#started || !this.#keeper.store) return;
    this.#keeper.save({ state: this.#core.state(), early: this.#early.map((one) => one.body) }, free || this.#paused);
  }

  // --- the end ----------------------------------------------------------------------------------------------------

  #end(forget: boolean): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stopWatching();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#dialling?.carrier?.cut();
    this.#dialling = null;
    for (const { carrier } of this.#carriers.values()) carrier.close();
    this.#carriers.clear();
    this.#keeper.end(forget);
    const failure = this.#core.failure();
    const { code, reason } = this.#core.over!;
    for (const one of [...this.#unstored, ...this.#early]) one.reject(failure ?? new SessionGone(code, reason));
    this.#unstored.length = this.#early.length = 0;
    this.#tell();
    this.#neverReady(failure ?? new SessionGone(code, reason));
    this.#closedNow(failure);
    this.#deliver();
    this.#wake();
  }
}

interface Carried {
  carrier: Carrier;
  /** Frames that have come and were not read: the application is behind. */
  waiting: Frame[];
  held: boolean;
  buffered: number;
  stuckAt: number;
}

function pageStorage(): KeyValueStore | null {
  try {
    return (globalThis as { sessionStorage?: KeyValueStore }).sessionStorage ?? null;
  } catch {
    return null; // a page that may keep nothing
  }
}

export type { Socket };
