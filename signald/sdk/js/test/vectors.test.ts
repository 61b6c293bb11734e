// The transcripts that every SDK replays: tests/vectors/README.md says what is in them.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { type ClientState, ClientCore, type CoreOptions } from "../src/core/client.js";
import { DEFAULT_BOUNDS } from "../src/core/bounds.js";
import type { Frame } from "../src/core/frames.js";
import type { RoomCore } from "../src/core/room.js";
import type { RoomEvent } from "../src/core/room_events.js";
import { ClientJobs } from "../src/core/jobs.js";
import { Rooms } from "../src/core/rooms.js";
import type { Link } from "../src/core/link.js";
import { type SendOptions, SessionCore } from "../src/core/session.js";
import { LinkBroken, Unsendable } from "../src/errors.js";
import type { Lifecycle, Message, StreamText } from "../src/events.js";

const FOLDER = join(process.env["SIGNALD_JS"]!, "../../../tests/vectors/transcripts");
/** Those of a client; jobs and requests over HTTP are to follow. */
const TOPICS = ["codes", "credentials", "jobs", "messages", "moves", "opening", "resume", "rooms", "streams"];
const ROUNDS_MAX = 1000;
const STEPS_MAX = 10_000;

type Json = any;
type Step = Record<string, any>;
interface Vector {
  name: string;
  party: string;
  random: number;
  options: Record<string, any>;
  begins?: string;
  steps: Step[];
}

const bytesOf = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "base64"));
const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
const cameled = (table: Record<string, any> = {}): Record<string, any> => Object.fromEntries(Object.entries(table).map(([name, value]) => [camel(name), value]));

function entry(value: Json): Json {
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString("base64") };
  return value;
}

/** An event by its name and fields as the transcripts have them; those that are null or false are left out. */
function named(event: string, fields: Record<string, Json>): Step {
  const told = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== false);
  return { event, ...Object.fromEntries(told.map(([name, value]) => [name, entry(value)])) };
}

const NAMES: Record<Lifecycle["type"], [string, Record<string, string>?]> = {
  waiting: ["Waiting"],
  paired: ["Paired"],
  peer_away: ["PeerAway"],
  peer_gone: ["PeerGone"],
  replaced: ["Replaced"],
  handed_over: ["HandedOver", { hint: "node_hint" }],
  disconnected: ["Disconnected"],
  resumed: ["Resumed"],
  auth_expiring: ["AuthExpiring", { graceS: "grace_s" }],
  log_lost: ["LogLost", { from: "from_seq", to: "to_seq" }],
  receipt: ["ReceiptUpTo"],
  realtime: ["RealtimeReceived"],
  gone: ["Gone"],
};

function lifecycle(event: Lifecycle): Step {
  const [name, renamed = {}] = NAMES[event.type];
  const { type: _, ...fields } = event;
  return named(name, Object.fromEntries(Object.entries(fields).map(([field, value]) => [renamed[field] ?? field, value])));
}

const messaged = ({ blob, ...message }: Message): Step => named("MessageReceived", { ...message, blob: blob === undefined ? null : { blob } });
const streamed = (text: StreamText): Step => named("StreamText", { ...text });

const ROOM_EVENTS: Record<RoomEvent["type"], string> = {
  publication: "RoomPublication",
  records: "RecordsChanged",
  update: "RoomUpdate",
  members: "MembersChanged",
  refused: "PublicationRefused",
  reset: "RoomReset",
  lagged: "RoomLagged",
};

function ofRoom({ type, ...fields }: RoomEvent): Step {
  return named(ROOM_EVENTS[type], Object.fromEntries(Object.entries(fields).map(([name, value]) => [name === "atMs" ? "at_ms" : name, value])));
}

class Player {
  ms = 0;
  readonly #rooms: Rooms;
  readonly #jobs: ClientJobs;
  readonly #joined = new Map<string, RoomCore>();
  readonly #toldIn = new Set<string>();
  readonly core: ClientCore;
  readonly #connections = new Map<number, { url: string; link: Link | null; waiting: Frame[] }>();
  #dialled = 0;
  #dialling = false;
  #toldOver = false;
  /** What the application's function gives, one after the other, and the last one again and again; null: it has none. */
  readonly #auths: string[] | null;
  #toSend: Step[] = [];
  #wanted = 0;
  #handedOut = 0;
  #out: Step[] = [];

  constructor(vector: Vector) {
    const options = optionsOf(vector);
    this.core = new ClientCore(options.core);
    this.core.extensions.push((this.#rooms = new Rooms(() => this.core)));
    this.#jobs = new ClientJobs(() => this.core.sessionId ?? "");
    if (vector.options["jobs"]) this.core.extensions.push(this.#jobs);
    this.#auths = options.auths;
  }

  get now(): number {
    return this.ms / 1000;
  }

  play(step: Step): Step[] {
    this.#input(step);
    this.#settle();
    const told = this.#out;
    this.#out = [];
    return told;
  }

  timer(): number | null {
    if (this.core.over) return null;
    const timers: number[] = [];
    const attempt = this.#dialling ? null : this.core.plan(this.now);
    if (attempt) timers.push(attempt.at);
    for (const link of this.#standing()) timers.push(this.#due(link), this.core.wakeAt(link, this.now));
    const first = Math.min(Infinity, ...timers);
    return first === Infinity ? null : Math.max(this.ms + 1, Math.ceil(first * 1000 - 1e-6));
  }

  #standing(): Link[] {
    return [...this.#connections.values()].flatMap((one) => (one.link ? [one.link] : []));
  }

  #input(step: Step): void {
    const now = this.now;
    if ("open" in step) {
      const connection = this.#connections.get(step["open"])!;
      this.#dialling = false;
      if (this.#auths) this.core.showNext(this.#fresh());
      connection.link = this.core.opened(connection.url, now);
    } else if ("fail" in step) {
      this.#dialling = false;
      const { url } = this.#connections.get(step["fail"])!;
      this.#connections.delete(step["fail"]);
      this.core.unreachable(now, step["code"] ?? null, step["reason"] ?? "", step["retry_after_ms"] ?? null, url, step["wrong_url"] ?? false);
    } else if ("closed" in step) {
      const link = this.#connections.get(step["on"])!.link!;
      this.#connections.delete(step["on"]);
      this.core.lost(link, step["closed"], step["reason"] ?? "", now);
    } else if ("on" in step) {
      this.#connections.get(step["on"])!.waiting.push(frameOf(step));
    } else if ("call" in step) {
      this.#out.push(...this.#call(step));
    }
  }

  #call(step: Step): Step[] {
    const { core } = this;
    const data = "base64" in step ? bytesOf(step["base64"]) : (step["data"] ?? null);
    try {
      switch (step["call"]) {
        case "send":
          this.#toSend.push(step);
          return [];
        case "read":
          this.#wanted += step["count"];
          return [];
        case "ack":
          if (core.session.finish(step["seq"])) core.changed();
          return [];
        case "bye":
          core.session.bye = step["reason"];
          core.changed();
          return [];
        case "realtime":
          return [{ carried: core.realtime(data) }];
        case "cancel":
          core.cancel(step["stream"], step["reason"]);
          return [];
        case "renew_auth":
          core.renewAuth(step["auth"]);
          return [];
        case "state": {
          const state = core.state()!;
          return [{ session: state.session, received: state.received, next_seq: state.nextSeq, unacked: state.unacked.length, attempts: state.attempts }];
        }
        case "job":
          return [this.#job(step["job"])];
        default:
          return this.#ofARoom(step, data);
      }
    } catch (error) {
      if (error instanceof Unsendable) return [{ error: "ValueError" }];
      throw error;
    }
  }

  #ofARoom(step: Step, data: unknown): Step[] {
    const rooms = this.#rooms;
    const name: string = step["room"];
    if (step["call"] === "join") {
      this.#joined.set(name, rooms.join(name, step["state"], step["history"], step["presence"]));
      this.core.changed();
      return [];
    }
    const room = this.#joined.get(name) ?? rooms.get(name)!;
    let number: number | null = null;
    switch (step["call"]) {
      case "publish":
        number = rooms.publish(room, data, step["kind"]);
        break;
      case "change":
        number = rooms.change(room, step["put"], step["patch"], step["remove"]);
        break;
      case "presence":
        room.setPresence(rooms.presenceOf(step["presence"]));
        break;
      case "snapshot":
        rooms.snapshot(room, step["position"], bytesOf(step["base64"]));
        break;
      case "resync":
        room.resync();
        break;
      case "leave":
        rooms.leave(room);
        break;
      case "look":
        return [{ room: name, records: Object.fromEntries(room.records.all()), members: Object.fromEntries(room.members), unconfirmed: room.out.length }];
      default:
        throw new Error(`a call that this runner does not know: ${step["call"]}`);
    }
    this.core.changed();
    return number === null ? [] : [{ room: name, number }];
  }

  #newsOfRooms(): void {
    const user = this.#rooms.ofTheUser;
    if (user !== null && !this.#joined.has(user.name)) this.#joined.set(user.name, user);
    for (const [name, room] of this.#joined) {
      for (let event = room.news.shift(); event; event = room.news.shift()) this.#out.push({ room: name, ...ofRoom(event) });
      if (room.epoch && !this.#toldIn.has(name)) {
        this.#toldIn.add(name);
        this.#out.push({ room: name, in: true, history: room.history.map(ofRoom) });
      }
    }
    for (const [name, room] of [...this.#joined]) {
      if (room.ended === null) continue;
      this.#joined.delete(name);
      this.#toldIn.delete(name);
      this.#out.push({ room: name, left: room.ended });
    }
  }

  #job(name: string): Step {
    const job = this.#jobs.get(name);
    const parts: Step[] = [];
    for (let part = this.#jobs.take(job); part; part = this.#jobs.take(job)) parts.push({ attempt: part.attempt, data: entry(part.data) });
    return { job: name, state: job.state, attempt: job.attempt, progress: job.progress, over: this.#jobs.isOver(job), parts };
  }

  /** As the front asks `getToken`. */
  #fresh(): string {
    return this.#auths!.length > 1 ? this.#auths!.shift()! : this.#auths![0]!;
  }

  #news(): void {
    const { core } = this;
    for (let event = core.events.shift(); event; event = core.events.shift()) {
      if (event.type === "auth_expiring" && event.graceS !== null && this.#auths) core.renewAuth(this.#fresh());
      else this.#out.push(lifecycle(event));
    }
    for (let text = core.streamNews.shift(); text; text = core.streamNews.shift()) this.#out.push(streamed(text));
    while (this.#toSend.length && (core.session.room || core.session.endedBy !== null)) {
      const step = this.#toSend.shift()!;
      this.#out.push(core.session.endedBy !== null ? { error: "SessionGone" } : this.#send(step));
    }
    while (this.#wanted) {
      if (core.session.finish(this.#handedOut)) core.changed();
      const message = core.session.take();
      if (message === null) break;
      this.#wanted -= 1;
      this.#handedOut = message.seq;
      this.#out.push(messaged(message));
    }
    this.#newsOfRooms();
  }

  #send(step: Step): Step {
    const { at: _at, call: _call, data: _data, base64: _base64, out: _out, ...options } = step;
    try {
      const data = "base64" in step ? bytesOf(step["base64"]) : (step["data"] ?? null);
      const seq = this.core.session.send(data, cameled(options) as SendOptions);
      this.core.changed();
      return { seq };
    } catch (error) {
      if (error instanceof Unsendable) return { error: "ValueError" };
      throw error;
    }
  }

  #settle(): void {
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const said = this.#out.length;
      const read = this.#read();
      this.#news();
      if (this.core.over) {
        this.#over();
        return;
      }
      for (const link of this.#standing()) this.#due(link);
      for (const [number, { link }] of [...this.#connections]) {
        if (link) for (const frame of this.core.write(link, this.now)) this.#out.push({ on: number, ...written(frame) });
      }
      this.#dial();
      if (!read && this.#out.length === said) return;
    }
    throw new Error("the client does not come to rest");
  }

  #read(): boolean {
    let read = false;
    for (const { link, waiting } of [...this.#connections.values()]) {
      if (!link || this.core.over || this.core.blocked() || !waiting.length) continue;
      read = true;
      try {
        this.core.receive(link, waiting.shift()!, this.now);
      } catch (error) {
        this.#cut(link, error);
      }
    }
    return read;
  }

  #due(link: Link): number {
    try {
      return this.core.due(link, this.now);
    } catch (error) {
      this.#cut(link, error);
      return this.now;
    }
  }

  #cut(link: Link, error: unknown): void {
    if (!(error instanceof LinkBroken)) throw error;
    const [number] = [...this.#connections].find(([, one]) => one.link === link)!;
    this.#connections.delete(number);
    this.#out.push(link.state === "retiring" ? { on: number, close: 1000 } : { on: number, cut: true });
    this.core.lost(link, null, error.message, this.now);
  }

  #dial(): void {
    const attempt = this.#dialling ? null : this.core.plan(this.now);
    if (attempt && attempt.at <= this.now + 1e-9) {
      this.#dialling = true;
      this.#dialled += 1;
      this.#connections.set(this.#dialled, { url: attempt.url, link: null, waiting: [] });
      this.#out.push({ dial: this.#dialled, url: attempt.url });
    }
  }

  #over(): void {
    if (this.#toldOver) return;
    this.#toldOver = true;
    for (const [number, { link }] of this.#connections) if (link) this.#out.push({ on: number, close: 1000 });
    const over = this.core.over!;
    this.#out.push({ over: this.core.failure()?.name ?? null, code: over.code, reason: over.reason });
    this.#connections.clear();
  }
}

function optionsOf({ options, random }: Vector): { core: CoreOptions; auths: string[] | null } {
  const uniform = (low: number, high: number): number => low + (high - low) * random;
  const made: CoreOptions = { urls: options["urls"] ?? ["ws://a.test"], uniform };
  if (options["jobs"]) made.api = true;
  for (const name of ["api", "want", "meta", "receipts", "pair", "history"] as const) if (name in options) made[name] = options[name] as never;
  for (const name of ["backoff", "timing", "bounds"] as const) if (name in options) made[name] = cameled(options[name]) as never;
  if ("recovery_token" in options) made.recoveryToken = options["recovery_token"];
  const { auth, state } = options as { auth?: Json; state?: Json };
  if (typeof auth === "string") made.auth = auth;
  if (state) {
    const unacked: Json[] = state.unacked ?? [];
    const before = new SessionCore(uniform, DEFAULT_BOUNDS, state.next_seq - unacked.length);
    for (const { data, kind } of unacked) before.send(data, kind === undefined ? {} : { kind });
    made.state = {
      session: state.session,
      recoveryToken: state.recovery_token,
      received: state.received,
      nextSeq: state.next_seq,
      unacked: before.unacked(),
      limits: null,
      attempts: state.attempts ?? 0,
    } satisfies ClientState;
  }
  return { core: made, auths: auth?.each ? [...auth.each] : null };
}

function frameOf(step: Step): Frame {
  if ("frame" in step) return JSON.stringify(step["frame"]);
  if ("text" in step) return step["text"];
  if ("bytes" in step) return bytesOf(step["bytes"]);
  const head = Buffer.from(JSON.stringify(step["binary"].header));
  return new Uint8Array(Buffer.concat([Buffer.from([head.length >> 8, head.length & 255]), head, bytesOf(step["binary"].base64)]));
}

function written(frame: Frame): Step {
  if (typeof frame === "string") return { frame: JSON.parse(frame) };
  const end = 2 + frame[0]! * 256 + frame[1]!;
  return { binary: { header: JSON.parse(Buffer.from(frame.subarray(2, end)).toString()), base64: Buffer.from(frame.subarray(end)).toString("base64") } };
}

function played(vector: Vector, steps: Step[]): Step[] {
  const player = new Player(vector);
  const done: Step[] = [];
  for (const step of steps) {
    if (step["time"]) continue; // an outcome of the recording
    for (let count = 0; ; count++) {
      assert(count < STEPS_MAX, "timers without end");
      const due = player.timer();
      if (due === null || due >= step["at"]) break;
      player.ms = due;
      const out = player.play({ time: true });
      if (out.length) done.push({ at: due, time: true, out });
    }
    player.ms = step["at"];
    done.push({ ...step, out: player.play(step) });
  }
  return done;
}

/** What is compared in its own order: the frames of each connection, the dials, and all that the application is told. */
function lists(out: Step[]): Record<string, Step[]> {
  const found: Record<string, Step[]> = {};
  for (const one of out) (found["on" in one ? `on ${one["on"]}` : "dial" in one ? "dial" : "application"] ??= []).push(one);
  return found;
}

/** `got` with what a transcript leaves open put in its place: words of an SDK's own, and values that another language cannot hold. */
function masked(got: Json, said: Json): Json {
  if (said === "*" && typeof got === "string") return "*";
  if (said?.unreadable === true) return said;
  if (Array.isArray(got) && Array.isArray(said)) return got.map((one, place) => masked(one, said[place]));
  if (got && said && typeof got === "object" && typeof said === "object") {
    const open = Object.entries(said).filter(([name, value]) => (value as Json)?.unreadable === true && !(name in got));
    return Object.fromEntries([...Object.entries(got), ...open].map(([name, value]) => [name, masked(value, said[name])]));
  }
  return got;
}

function compare(vector: Vector, steps: Step[]): void {
  const got = played(vector, steps);
  for (let number = 0; number < Math.max(got.length, steps.length); number++) {
    const said = steps[number];
    const one = got[number];
    const at = `step ${number}: ${JSON.stringify({ ...(said ?? one), out: undefined })}`;
    assert(said && one, `${at} is on one side only: ${JSON.stringify(one?.["out"])}`);
    assert(Math.abs(one["at"] - said["at"]) <= (said["time"] ? 1 : 0) && !one["time"] === !said["time"], `${at} comes at ${one["at"]}`);
    const wanted = lists(said["out"]);
    assert.deepEqual(masked(lists(one["out"]), wanted), wanted, at);
  }
}

for (const topic of TOPICS) {
  // One test for each file: the runner may end before tests that are not awaited by another one.
  test(topic, async (whole) => {
    const file = JSON.parse(readFileSync(join(FOLDER, `${topic}.json`), "utf8"));
    const vectors = (file.vectors as Vector[]).filter(({ party }) => party === "client");
    for (const vector of vectors) {
      const begins = vector.begins ? file.beginnings[vector.begins] : [];
      await whole.test(vector.name, () => compare(vector, [...begins, ...vector.steps]));
    }
    assert(vectors.length >= 3, `${vectors.length} vectors of clients`);
  });
}
