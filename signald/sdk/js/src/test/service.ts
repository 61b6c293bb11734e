// A service in memory, for the tests of an application: sessions, deploys, kills and workers, without a socket.

import { type Fields, frame, read } from "./frames.js";
import { TestRoom } from "./room.js";
import { TestSession } from "./session.js";
import { type Ends, ServerEnd, type SocketData, TestSocket } from "./socket.js";
import { Desk, type Handler } from "./worker.js";

const LIMITS = { message_bytes: 65536, messages_per_s: 100_000, messages_burst: 100_000, backlog_messages: 1000, json_depth: 32 };
/** How long a client may take to follow a deploy; the test of one that does not is shorter by an option. */
const DEADLINE_MS = 5000;

export interface ServiceOptions {
  /** Serves each session. Without one the test speaks itself, by `session.send`. */
  worker?: Handler;
  /** False: the credential is refused. */
  authorize?: (credential: string | undefined) => boolean;
  deadlineMs?: number;
}

export class TestService {
  /** For `connect`. */
  readonly url = "ws://signald.test";
  /** For `connect`: a class of sockets that lead here. */
  readonly WebSocket: new (url: string, protocols?: string[]) => TestSocket;
  /** The sessions, in the order in which they were begun. */
  readonly sessions: TestSession[] = [];
  /** The credentials that were shown, in their order. */
  readonly credentials: (string | undefined)[] = [];
  /** How many connections were made. */
  connections = 0;
  readonly #options: ServiceOptions;
  readonly #attached = new Map<ServerEnd, TestSession | null>();
  readonly #desks = new Map<TestSession, Desk>();
  readonly #rooms = new Map<string, TestRoom>();
  readonly #moved = new Set<() => void>();
  #node = 1;
  #running = true;
  #workers = 0;
  #tokens = 0;

  constructor(options: ServiceOptions = {}) {
    this.#options = options;
    const ends: Ends = {
      dialled: (end) => this.#dialled(end),
      heard: (end, data) => this.#heard(end, data),
      gone: (end) => this.#gone(end),
    };
    this.WebSocket = class extends TestSocket {
      constructor() {
        super(ends);
      }
    };
  }

  /** The session that was begun last. @throws Error there is none */
  get session(): TestSession {
    const last = this.sessions.at(-1);
    if (!last) throw new Error("no client has come yet");
    return last;
  }

  /** A room by its name, also before anybody is in it. */
  room(name: string): TestRoom {
    let room = this.#rooms.get(name);
    if (!room) this.#rooms.set(name, (room = new TestRoom(name)));
    return room;
  }

  /** What handlers have raised: a test is to look that there is nothing. */
  get errors(): unknown[] {
    return [...this.#desks.values()].flatMap((desk) => desk.errors);
  }

  // --- what may happen --------------------------------------------------------------------------------------------

  /** Another node takes the place of this one. Resolved when all clients have moved there, or the deadline is over. */
  async deploy(): Promise<void> {
    const node = ++this.#node;
    const left = (): ServerEnd[] => [...this.#attached.keys()].filter((end) => end.node < node);
    const deadline = this.#options.deadlineMs ?? DEADLINE_MS;
    for (const end of left()) end.send(frame({ type: "goaway", reason: "deploy", not_before_ms: 0, deadline_ms: deadline, ticket: `ticket-${node}` }));
    if (left().length) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => finish(), deadline);
        const look = (): void => {
          if (!left().length) finish();
        };
        const finish = (): void => {
          clearTimeout(timer);
          this.#moved.delete(look);
          resolve();
        };
        this.#moved.add(look);
      });
    }
    for (const end of left()) end.close(1001, "going away");
  }

  /** The node is lost without a word: all connections break. Clients find the next one at once. */
  kill(): void {
    this.#node += 1;
    for (const end of [...this.#attached.keys()]) end.close();
  }

  /** There is no node until `start`. */
  stop(): void {
    this.#running = false;
    this.kill();
  }

  start(): void {
    this.#running = true;
  }

  /** The worker of a session is lost, or of all; the next one gets what was not done. */
  loseWorker(session?: TestSession): void {
    for (const [one, desk] of this.#desks) if (session === undefined || one === session) desk.begin(this.#nextWorker());
    if (this.#options.worker) return;
    for (const one of this.sessions) if (session === undefined || one === session) one.peerIs("replaced", this.#nextWorker());
  }

  // --- clients ----------------------------------------------------------------------------------------------------

  #nextWorker(): string {
    return `w_${++this.#workers}`;
  }

  #dialled(end: ServerEnd): boolean {
    if (!this.#running) return false;
    this.connections += 1;
    end.node = this.#node;
    this.#attached.set(end, null);
    return true;
  }

  #gone(end: ServerEnd): void {
    const session = this.#attached.get(end);
    this.#attached.delete(end);
    if (session?.connection === end) session.connection = null;
    for (const look of [...this.#moved]) look();
  }

  #heard(end: ServerEnd, said: SocketData): void {
    const [message, data] = read(said);
    const session = this.#attached.get(end) ?? null;
    if (message["type"] === "ping") end.send(frame({ type: "pong" }));
    else if (session === null) this.#opened(end, message);
    else if (session.connection === end) this.#said(session, message, data);
  }

  #opened(end: ServerEnd, message: Fields): void {
    this.credentials.push(message["auth"]);
    if (this.#options.authorize && !this.#options.authorize(message["auth"])) {
      end.send(frame({ type: "error", code: "unauthenticated", message: "no valid credential", fatal: true }));
      end.close(4401, "unauthenticated");
      return;
    }
    const restores = message["type"] === "restore_session";
    const found = restores ? this.sessions.find(({ token, ended }) => token === message["recovery_token"] && ended === null) : undefined;
    if (restores && !found) {
      end.close(4404, "nothing to resume");
      return;
    }
    const session = found ?? this.#begun(message);
    const before = session.connection;
    session.connection = end;
    this.#attached.set(end, session);
    // The token that was shown stays good: an answer may be lost with its connection.
    const answer = { session: session.id, recovery_token: session.token, token_ttl_ms: 300_000, heartbeat_ms: 20_000, limits: LIMITS };
    for (const one of session.answer(restores ? message : null, answer)) end.send(one);
    for (const place of message["rooms"] ?? []) this.room(place["room"]).again(session, place);
    before?.close(before.node < end.node ? 4001 : 4409, "moved");
    if (!found && session.pair) this.#pair(session);
    for (const look of [...this.#moved]) look();
  }

  #begun(message: Fields): TestSession {
    const session = new TestSession(`s_${this.sessions.length + 1}`, message);
    session.token = `${session.id}.${++this.#tokens}`;
    session.left = () => {
      for (const room of this.#rooms.values()) room.leave(session);
    };
    this.sessions.push(session);
    return session;
  }

  #pair(session: TestSession): void {
    if (this.#options.worker) {
      const desk = new Desk(this.#options.worker, session);
      this.#desks.set(session, desk);
      desk.begin(this.#nextWorker());
    } else session.peerIs("paired", this.#nextWorker());
  }

  #said(session: TestSession, message: Fields, data: unknown): void {
    switch (message["type"]) {
      case "message":
        session.take(message, data);
        break;
      case "ack":
        session.acked = Math.max(session.acked, message["seq"]);
        break;
      case "realtime":
        session.realtimes.push(data);
        break;
      case "stream_cancel":
        session.cancel(message["stream"], message["reason"] ?? "");
        break;
      case "auth":
        this.credentials.push(message["auth"]);
        break;
      case "bye":
        session.bye(message["reason"] ?? "");
        break;
      case "join":
      case "publish":
      case "presence":
      case "leave":
        this.room(message["room"]).hear(session, message, data);
    }
  }
}
