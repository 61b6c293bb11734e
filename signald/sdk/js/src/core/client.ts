// A client: one session over its connections. No I/O: the core decides, and a driver carries; docs/sdk-driver.md is their contract.
//
// At most one link is *current*: new messages and acks go there. While a goaway is followed, another link is *opening* beside it. When its
// opening message is answered, it becomes current, and the old one is *retiring*: still read, not written any more, closed by the service.

import { LinkBroken, Refused, SessionGone, type SignaldError } from "../errors.js";
import type { HistoryEntry, Lifecycle, StreamText } from "../events.js";
import { type Backoff, DEFAULT_BACKOFF, hintMs, Schedule, type Uniform, withoutLogin } from "./backoff.js";
import { type Bounds, DEFAULT_BOUNDS, Pace } from "./bounds.js";
import { final, MOVED, NORMAL, NOTHING_TO_RESUME, SUPERSEDED } from "./codes.js";
import { binaryFrame, decode, type Frame, type Wire } from "./frames.js";
import { Link } from "./link.js";
import { Batch, type Body, PAUSES, SessionCore, sizeOf, STREAM_REFUSALS } from "./session.js";
import { StreamTexts } from "./streams.js";
import { checkText, REASON_MAX, SECRET_MAX, STREAM_MAX, write } from "./values.js";

const PATH = "/v1/client";
const PING = '{"type":"ping"}';
const PONG = '{"type":"pong"}';

/** More opening messages than a process sends after it has last said its state. */
const ATTEMPTS_UNKNOWN = 1 << 20;
/** Events that wait for the application; beyond that the oldest are dropped: they tell, they do not carry. */
const EVENTS_MAX = 1000;
/** Realtime messages are dropped while so many frames wait for a writer; a service that asks for more answers, and reads none, is cut. */
const CONTROL_MAX = 256;
const FLOOD_MAX = 100_000;
/** Left connections that wait for the service to close them. */
const RETIRING_MAX = 2;
const HEARTBEAT_MIN_S = 0.05;
const HEARTBEAT_MAX_S = 300;
const DEADLINE_MAX_S = 86_400;
/** Words about the credential that are acted on: more of them would make the application fetch tokens without end. */
const AUTH_TOLD_EVERY_S = 1;

/** How long the SDK waits for others, in seconds. */
export interface Timing {
  connectS: number;
  /** The answer to the opening message: above the service's own 5 s, so that its refusal is heard first. */
  answerS: number;
  /** Silence after an unanswered ping before the connection counts as dead. */
  pongTimeoutS: number;
  closeS: number;
  /** How long a left connection may stay open for the service to close it. */
  retireS: number;
}

export const DEFAULT_TIMING: Timing = { connectS: 5, answerS: 10, pongTimeoutS: 10, closeS: 2, retireS: 10 };

/** The state with which another page or process continues a session: as secret as the token in it. */
export interface ClientState {
  session: string;
  recoveryToken: string;
  received: number;
  nextSeq: number;
  unacked: Body[];
  limits: Wire | null;
  /** Opening messages that the client has sent; the next one continues well above it. */
  attempts: number;
}

export interface CoreOptions {
  urls: readonly string[];
  uniform: Uniform;
  backoff?: Partial<Backoff>;
  timing?: Partial<Timing>;
  bounds?: Partial<Bounds>;
  /** The credential of opening messages; see `showNext`. */
  auth?: string;
  api?: boolean;
  want?: Record<string, string>;
  meta?: unknown;
  receipts?: boolean;
  pair?: boolean;
  history?: number;
  state?: ClientState;
  recoveryToken?: string;
}

/** Why the client's life ended. */
export interface Over {
  code: number | null;
  reason: string;
  /** It ended as sessions are meant to: by `bye`, or by the service saying so. */
  orderly: boolean;
}

/** What a client may have besides its session: rooms, jobs. */
export interface Extension {
  /** What the opening message of another connection says of it, as fields. */
  opens(): object;
  /** Go on over that connection, with its answer. */
  attach(answer: Wire): void;
  /** The message of the worker is for it, and not for the application. */
  isOwn(message: Wire): boolean;
  /** Take such a message, or one of a type that the core does not know. @throws LinkBroken its fields are not those of its type */
  receive(message: Wire, binary: Uint8Array | null, size: number, now: number): void;
  write(now: number, batch: Batch): void;
  wakeAt(now: number): number;
  end(reason: string): void;
}

export class ClientCore {
  extensions: Extension[] = [];
  readonly schedule: Schedule;
  readonly timing: Timing;
  bounds: Bounds;
  /** The newest recovery token held. An older one is forgotten only when the answer with a newer one is here. */
  token: string | null = null;
  current: Link | null = null;
  opening: Link | null = null;
  retiring: Link[] = [];
  /** The URL of the last link that was current: where the HTTP API is asked. */
  url = "";
  over: Over | null = null;
  sessionId: string | null = null;
  apiToken: string | null = null;
  settings: unknown = undefined;
  peer: { state: string; id: string | null } = { state: "waiting", id: null };
  chatHistory: HistoryEntry[] = [];
  session: SessionCore;
  readonly streams = new StreamTexts();
  /** What the driver must empty after `receive`, `lost`, `unreachable` and `finish`. */
  readonly events: Lifecycle[] = [];
  readonly streamNews: StreamText[] = [];
  /** A callback of the driver: `plan` must be called again, or `over` is set. */
  replan: () => void = () => {};
  readonly #uniform: Uniform;
  readonly #options: CoreOptions;
  readonly #ownBounds: Bounds;
  readonly #meta: string | null;
  #auth: string | undefined;
  #authToldAt = -Infinity;
  #attempts: number | null = 0;
  #limits: Wire | null = null;
  #move: Wire | null = null;
  /** How the old connection ended while the answer of the new one was still expected. */
  #movedAway: [number | null, string] | null = null;
  #everCurrent = false;
  #toldPeer = false;
  /** What is not signald, of the URLs that were tried before the client was taken; and why. */
  readonly #wrongUrls = new Map<string, string>();

  /** @throws Unsendable | RangeError when an option is what the service would refuse */
  constructor(options: CoreOptions) {
    this.#options = options;
    this.#uniform = options.uniform;
    this.schedule = new Schedule(options.urls, PATH, { ...DEFAULT_BACKOFF, ...options.backoff }, options.uniform);
    this.timing = { ...DEFAULT_TIMING, ...options.timing };
    this.bounds = this.#ownBounds = { ...DEFAULT_BOUNDS, ...options.bounds };
    this.showNext(options.auth);
    checkText("recoveryToken", options.recoveryToken, SECRET_MAX, 1);
    this.#meta = options.meta == null ? null : write(options.meta, this.bounds.jsonDepthMax - 1);
    this.session = new SessionCore(this.#uniform, this.bounds);
    if (options.state) this.#restore(options.state);
    else if (options.recoveryToken !== undefined) {
      this.token = options.recoveryToken;
      this.session = new SessionCore(this.#uniform, this.bounds, 1, null);
      this.#attempts = null;
    }
  }

  #restore(state: ClientState): void {
    this.token = state.recoveryToken;
    this.sessionId = state.session;
    this.session = new SessionCore(this.#uniform, this.#ownBounds, state.nextSeq - state.unacked.length, state.received);
    for (const body of state.unacked) this.session.restoreUnacked(body);
    if (state.limits) this.#limit(state.limits);
    this.#attempts = state.attempts + ATTEMPTS_UNKNOWN;
  }

  get #writers(): (SessionCore | Extension)[] {
    return [this.session, ...this.extensions];
  }

  /** The session exists and this client has been attached to it. */
  get established(): boolean {
    return this.#everCurrent;
  }

  /** True while the client has been told to go and has not come to another node yet. */
  get isMoving(): boolean {
    return this.#move !== null;
  }

  /** What another page or process needs to go on from here; null: there is no session yet. */
  state(): ClientState | null {
    if (this.sessionId === null || this.token === null) return null;
    const { finished, nextSeq } = this.session;
    return {
      session: this.sessionId,
      recoveryToken: this.token,
      received: finished,
      nextSeq,
      unacked: this.session.unacked(),
      limits: this.#limits,
      attempts: this.#attempts ?? 0,
    };
  }

  // --- connecting -------------------------------------------------------------------------------------------------

  /** The next connection to open, and when; null: none now. It changes nothing. */
  plan(now: number): { at: number; url: string } | null {
    if (this.over !== null || this.opening !== null) return null;
    if (this.current !== null && this.#move === null) return null;
    return { at: Math.max(now, this.schedule.at), url: this.schedule.url(now) };
  }

  /** Something says that the network is back: the next attempt is made at once. */
  hurry(now: number): void {
    if (this.over === null && this.current === null && this.opening === null) {
      this.schedule.at = now;
      this.replan();
    }
  }

  /** Note that a connection stands; its opening message is the first thing to write. */
  opened(url: string, now: number): Link {
    const link = new Link(url, now, this.current !== null, this.token);
    if (this.#attempts !== null) this.#attempts += 1;
    link.control.push(this.#said(link.token, this.#auth));
    this.opening = link;
    if (this.current !== null) this.current.moving = true; // its being moved away or superseded is our own doing from here on
    return link;
  }

  #said(token: string | null, auth: string | undefined): string {
    const { want, receipts, pair, history, api } = this.#options;
    // A field without a value is not said.
    const said =
      token === null
        ? { type: "connect", want: Object.keys(want ?? {}).length ? want : undefined, receipts: receipts || undefined, pair: pair === false ? false : undefined }
        : {
            type: "restore_session",
            recovery_token: token,
            received: this.session.finished,
            "acked": this.session.accepted, // in quotes: a method has this name, and is shortened
            attempt: this.#attempts ?? undefined,
            history: history || undefined,
            ticket: this.#move?.["ticket"] ?? undefined,
          };
    const text = JSON.stringify(Object.assign(said, ...this.extensions.map((one) => one.opens()), { api: api || undefined, auth }));
    return token === null && this.#meta !== null ? `${text.slice(0, -1)},"meta":${this.#meta}}` : text;
  }

  /** Note that no connection came about. `wrongUrl`: the other side has answered, and is not signald. */
  unreachable(now: number, code: number | null, reason: string, retryAfterMs: number | null, url: string, wrongUrl = false): void {
    if (!this.#everCurrent) this.#judgeUrl(url, reason, wrongUrl);
    this.#attemptFailed(now, code, reason, retryAfterMs, null);
  }

  #judgeUrl(url: string, reason: string, wrong: boolean): void {
    if (!wrong) {
      this.#wrongUrls.delete(url);
      return;
    }
    this.#wrongUrls.set(url, reason);
    if (this.schedule.urls.every((one) => this.#wrongUrls.has(one))) {
      const found = [...this.#wrongUrls].map(([one, why]) => `${withoutLogin(one)}: ${why}`).join("; ");
      this.finish({ code: null, reason: `no URL is that of signald: ${found}`, orderly: false });
    }
  }

  #attemptFailed(now: number, code: number | null, reason: string, retryAfterMs: number | null, link: Link | null): void {
    if (this.over !== null) return;
    if (this.#movedAway !== null) {
      this.#disconnected(...this.#movedAway);
      this.#movedAway = null;
    }
    // While the old connection serves, no answer of another node ends the session: a new release that refuses every client must not
    // cost more than the move.
    const ends = this.current === null && code !== null && code !== MOVED && code !== NORMAL;
    const why = final(code, reason);
    if (ends && code === NOTHING_TO_RESUME && link?.token != null) {
      this.#nothingToResume();
    } else if (ends && why !== null) {
      this.finish({ code, reason: why, orderly: false });
    } else {
      this.schedule.failed(now, code, retryAfterMs ?? hintMs(reason));
      if (this.schedule.exhausted && this.current === null) {
        this.finish({ code, reason: `${this.schedule.tries} tries: ${reason}`, orderly: false });
      }
    }
    this.replan();
  }

  // --- a connection's life ----------------------------------------------------------------------------------------

  /** Take one whole frame. @throws LinkBroken the driver must cut the connection, and call `lost` without a code */
  receive(link: Link, frame: Frame, now: number): void {
    link.lastReceivedAt = now;
    link.pingedAt = null;
    if (link.control.length > FLOOD_MAX) throw new LinkBroken("a flood");
    if (this.over === null) this.#dispatch(link, frame, now);
  }

  /** The application is so far behind that nothing may be read until its inbox has room again. */
  blocked(): boolean {
    return this.session.full && this.session.endedBy === null;
  }

  /** The frames to write on `link` now, in order. Each is returned once for the same link. */
  write(link: Link, now: number): Frame[] {
    const batch = new Batch();
    for (const one of link.control) batch.add(one);
    link.control = [];
    if (link === this.current) for (const one of this.#writers) one.write(now, batch);
    return batch.frames;
  }

  /** When `write` may have more without a call of `changed`, because a pause ends. */
  wakeAt(link: Link, now: number): number {
    return link === this.current ? Math.min(...this.#writers.map((one) => one.wakeAt(now))) : Infinity;
  }

  /** Do what the clock asks for (a ping); return when to call again. @throws LinkBroken as `receive` */
  due(link: Link, now: number): number {
    let deadline: number;
    if (link.state === "opening") {
      deadline = link.openedAt + this.timing.answerS;
      if (now >= deadline) throw new LinkBroken("no answer to the opening message");
      return deadline;
    }
    if (link.state === "retiring") {
      deadline = link.retiredAt + this.timing.retireS;
      if (now >= deadline) throw new LinkBroken("left, and not closed");
      return deadline;
    }
    if (this.blocked()) return now + this.timing.pongTimeoutS; // nothing is read, so silence says nothing
    if (link.pingedAt !== null) {
      deadline = link.pingedAt + this.timing.pongTimeoutS;
      if (now >= deadline) throw new LinkBroken("no sign of life after a ping");
      return deadline;
    }
    deadline = link.lastReceivedAt + link.heartbeatS;
    if (now < deadline) return deadline;
    this.probe(link, now);
    return now + this.timing.pongTimeoutS;
  }

  /** Ask the other side for a sign of life, if that is not done. */
  probe(link: Link, now: number): void {
    if (link.state === "current" && link.pingedAt === null) {
      link.pingedAt = now;
      this.#say(link, PING);
      link.turned();
    }
  }

  /** Note that `link` has ended: closed with `code` by the peer, or broken (null). A second call does nothing. */
  lost(link: Link, code: number | null, reason: string, now: number): void {
    const was = link.state;
    link.state = "closed";
    if (was === "closed") return;
    const { refusal } = link;
    if (refusal !== null && hintMs(reason) === null) reason = `${refusal["code"]}: ${refusal["message"]}`;
    if (was === "retiring") {
      this.retiring.splice(this.retiring.indexOf(link), 1);
    } else if (was === "opening") {
      this.opening = null;
      this.#attemptFailed(now, code, reason, refusal?.["retry_after_ms"] ?? null, link);
    } else {
      this.current = null;
      this.#lostCurrent(link, code, reason, now);
    }
    this.replan();
  }

  #lostCurrent(link: Link, code: number | null, reason: string, now: number): void {
    if (this.over !== null) return;
    const announced = this.#move !== null || link.moving;
    if (code === NORMAL) {
      this.finish({ code, reason: reason || "ended", orderly: true });
      return;
    }
    const ours = link.moving && (code === MOVED || code === SUPERSEDED);
    if (ours && this.opening !== null) {
      // The claim was granted and its answer is on the way, on another socket: this is no interruption yet.
      this.#movedAway = [code, reason];
      return;
    }
    if (code === NOTHING_TO_RESUME) {
      this.#nothingToResume();
      return;
    }
    const why = final(code, reason);
    if (!ours && why !== null) {
      this.finish({ code, reason: why, orderly: false });
      return;
    }
    this.schedule.broken(now, code, reason, announced);
    this.#disconnected(code, reason);
  }

  #promote(link: Link, answer: Wire, now: number): boolean {
    this.token = answer["recovery_token"];
    this.opening = null;
    for (const one of this.extensions) one.attach(answer);
    const old = this.current;
    if (old !== null) {
      old.state = "retiring";
      old.retiredAt = now;
      this.retiring.push(old);
      old.turned();
      for (const one of this.retiring.slice(0, -RETIRING_MAX)) {
        one.retiredAt = -Infinity; // its clock cuts it
        one.turned();
      }
    }
    this.current = link;
    this.url = link.url;
    const handedOver = old !== null || this.#movedAway !== null;
    this.#move = null;
    this.#movedAway = null;
    this.#everCurrent = true;
    this.#attempts ??= 0; // the service knows of none of another process any more
    link.state = "current";
    link.moving = false;
    // A spread of a tenth, so that clients that came together stop pinging together.
    link.heartbeatS = Math.min(Math.max(answer["heartbeat_ms"] / 1000, HEARTBEAT_MIN_S), HEARTBEAT_MAX_S) * this.#uniform(0.9, 1);
    this.schedule.usable(now);
    link.changed();
    link.turned();
    this.replan();
    return handedOver;
  }

  #say(link: Link | null, text: string): void {
    if (link === null) return;
    link.control.push(text);
    link.changed();
  }

  // --- receiving --------------------------------------------------------------------------------------------------

  #dispatch(link: Link, frame: Frame, now: number): void {
    const [message, binary] = decode(frame);
    const type = message.type;
    const answer = type === "session_started" || type === "session_restored";
    if (link.state === "opening" && !answer && type !== "error") {
      throw new LinkBroken("no answer came first");
    }
    switch (type) {
      case "message":
        this.#message(message, binary, sizeOf(frame), now);
        break;
      case "ack":
        if (this.session.acked(message["seq"])) this.changed();
        break;
      case "session_started":
      case "session_restored":
        if (link.state !== "opening" || (link.token === null) !== (type === "session_started")) {
          throw new LinkBroken("not asked for");
        }
        if (type === "session_started") this.#started(link, message, now);
        else this.#restored(link, message, now);
        break;
      case "ping":
        if (!link.control.includes(PONG)) this.#say(link, PONG); // several at once are answered once
        break;
      case "api_token":
        if (link === this.current) this.apiToken = message["api_token"];
        break;
      case "error":
        this.#error(link, message, now);
        break;
      case "goaway":
        this.#goaway(link, message, now);
        break;
      case "stream_state":
        this.#grown(this.streams.state(message));
        break;
      case "peer":
        if (link === this.current) this.#peerIs(message["state"], message["id"] ?? null);
        break;
      case "receipt":
        this.#tell({ type: "receipt", seq: message["seq"] });
        break;
      case "realtime":
        this.#tell({ type: "realtime", data: binary ?? message["data"] ?? null });
        break;
      case "session_ended":
        // If it has ended, the current connection says so too.
        if (link.state !== "retiring") this.finish({ code: null, reason: message["reason"], orderly: true });
        break;
      default:
        if (link === this.current) {
          for (const one of this.extensions) one.receive(message, binary, sizeOf(frame), now);
          this.changed();
        }
    }
  }

  #message(message: Wire, binary: Uint8Array | null, size: number, now: number): void {
    const owner = this.extensions.find((one) => one.isOwn(message));
    const isNew = this.session.receive(message, binary, size, owner !== undefined);
    if (!isNew || owner) this.changed(); // an ack is due, perhaps again
    if (!isNew) return;
    if (owner) owner.receive(message, binary, size, now);
    else this.#grown(this.streams.message(message, typeof message["data"] === "string" && binary === null ? message["data"] : null));
  }

  #started(link: Link, message: Wire, now: number): void {
    this.sessionId = message["session"];
    this.#learn(message);
    this.#limit(message["limits"]);
    this.session.begin(message["next_seq"]);
    this.#promote(link, message, now);
    this.#peerIs(message["peer"].state, message["peer"].id ?? null);
  }

  #restored(link: Link, message: Wire, now: number): void {
    const hint: string | null = this.#move?.["target"] ?? null;
    this.sessionId = message["session"];
    this.session.attach(message["accepted"]);
    this.#learn(message);
    if (message["limits"] != null) this.#limit(message["limits"]);
    if (message["chat_history"] != null) {
      this.chatHistory = message["chat_history"];
      for (const entry of this.chatHistory) if (typeof entry === "object" && entry !== null) this.#grown(this.streams.entry(entry));
    }
    const handedOver = this.#promote(link, message, now);
    this.#tell(handedOver ? { type: "handed_over", hint } : { type: "resumed" });
    this.#peerIs(message["peer"].state, message["peer"].id ?? null);
  }

  #learn(message: Wire): void {
    if (message["settings"] !== undefined) this.settings = message["settings"]; // an answer without them takes nothing back
    if (message["api_token"] != null) this.apiToken = message["api_token"];
  }

  #limit(limits: Wire): void {
    this.#limits = limits;
    this.bounds = {
      ...this.bounds,
      messageBytesMax: limits["message_bytes"],
      jsonDepthMax: limits["json_depth"] ?? DEFAULT_BOUNDS.jsonDepthMax,
      unackedMessagesMax: Math.min(this.#ownBounds.unackedMessagesMax, Math.max(1, limits["backlog_messages"])),
    };
    this.session.bound(this.bounds);
    this.session.pace = new Pace(limits["messages_per_s"], limits["messages_burst"]);
  }

  #goaway(link: Link, message: Wire, now: number): void {
    if (link !== this.current || this.#move !== null) return;
    this.#move = message;
    const deadlineS = Math.min(Math.max(message["deadline_ms"] / 1000, 0), DEADLINE_MAX_S);
    const notBeforeS = Math.min(Math.max((message["not_before_ms"] ?? 0) / 1000, 0), deadlineS);
    this.schedule.moving(now, notBeforeS, deadlineS, message["target"] ?? null);
    this.replan();
  }

  #error(link: Link, error: Wire, now: number): void {
    const code: string = error["code"];
    const fatal = error["fatal"] === true;
    if (code === "log_lost" && error["lost_from"] != null && error["lost_to"] != null) {
      this.session.logLost(error["lost_from"], error["lost_to"], error["direction"] === "received");
      this.#tell({ type: "log_lost", from: error["lost_from"], to: error["lost_to"] });
      this.changed();
    } else if (STREAM_REFUSALS.has(code) && !fatal && error["expected"] != null) {
      this.session.turnedDown(error);
      this.changed();
    } else if (code === "auth_expiring" || code === "auth_refused") {
      // On a connection that is being left it says nothing: the one that is opened shows its own.
      if (link === this.current) this.#doubted(error, now);
    } else if (fatal) {
      link.refusal = error;
    } else if (link === this.current && (code === "gap" || PAUSES.has(code) || error["retry_after_ms"] != null)) {
      this.session.refused(error, now);
      link.changed();
    }
  }

  #doubted(error: Wire, now: number): void {
    if (now < this.#authToldAt + AUTH_TOLD_EVERY_S) return;
    this.#authToldAt = now;
    const graceS = error["code"] === "auth_expiring" ? Math.min(Math.max((error["retry_after_ms"] ?? 0) / 1000, 0), DEADLINE_MAX_S) : null;
    this.#tell({ type: "auth_expiring", graceS });
  }

  #peerIs(state: string, id: string | null): void {
    const before = this.peer;
    // Without a worker the last one is remembered: the next worker replaces it.
    this.peer = { state, id: id ?? before.id };
    if (this.#toldPeer && this.peer.state === before.state && this.peer.id === before.id) return;
    this.#toldPeer = true;
    this.session.alone = state === "none";
    const another = before.id !== null && this.peer.id !== before.id;
    const worker = this.peer.id ?? "";
    if (state === "paired" || state === "replaced") this.#tell({ type: another ? "replaced" : state, worker });
    else if (state === "waiting") this.#tell({ type: state });
    else if (state !== "none") this.#tell({ type: state === "away" ? "peer_away" : "peer_gone" });
  }

  #grown(text: StreamText | null): void {
    if (text === null) return;
    this.streamNews.push(text);
    if (this.streamNews.length > EVENTS_MAX) this.streamNews.shift();
  }

  #tell(event: Lifecycle): void {
    this.events.push(event);
    if (this.events.length > EVENTS_MAX) this.events.shift();
  }

  #disconnected(code: number | null, reason: string): void {
    this.#tell({ type: "disconnected", code, reason });
  }

  #nothingToResume(): void {
    this.finish({ code: NOTHING_TO_RESUME, reason: "nothing_to_resume", orderly: false });
  }

  // --- the application --------------------------------------------------------------------------------------------

  /** There may be something to write on the current link. */
  changed(): void {
    this.current?.changed();
  }

  /** Send data that is carried now or not at all; false when it was dropped. @throws Unsendable as a message */
  realtime(data: unknown): boolean {
    this.session.checkPeer();
    const frame: Frame =
      data instanceof Uint8Array
        ? binaryFrame('{"type":"realtime"}', data)
        : `{"type":"realtime","data":${write(data, this.bounds.jsonDepthMax - 1)}}`;
    this.session.checkSize(frame);
    const link = this.current;
    if (link === null || link.control.length >= CONTROL_MAX) return false;
    link.control.push(frame);
    link.changed();
    return true;
  }

  /** Ask the worker to end a stream. @throws Unsendable a text that the service does not take */
  cancel(stream: string, reason: string): void {
    checkText("stream", stream, STREAM_MAX, 1);
    checkText("reason", reason, REASON_MAX);
    this.#say(this.current, JSON.stringify({ type: "stream_cancel", stream, reason }));
  }

  /** Have the next opening message show `auth`. @throws Unsendable */
  showNext(auth: string | undefined): void {
    checkText("auth", auth, SECRET_MAX, 1);
    this.#auth = auth;
  }

  /** Show `auth` on the current connection, and on each one to come. @throws Unsendable */
  renewAuth(auth: string): void {
    this.showNext(auth ?? "");
    this.#say(this.current, JSON.stringify({ type: "auth", auth }));
  }

  // --- the end ----------------------------------------------------------------------------------------------------

  finish(over: Over): void {
    if (this.over !== null) return;
    this.over = over;
    this.streamNews.push(...this.streams.end());
    for (const one of this.#writers) one.end(over.reason);
    this.#tell({ type: "gone", reason: over.reason });
    this.replan();
  }

  /** The error an application is to see; null after an orderly end, or while there was none. */
  failure(): SignaldError | null {
    if (this.over === null || this.over.orderly) return null;
    const { code, reason } = this.over;
    return !this.#everCurrent && code !== NOTHING_TO_RESUME ? new Refused(code, reason) : new SessionGone(code, reason);
  }
}
