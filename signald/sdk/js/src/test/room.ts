// A room of the service of tests: a log of publications, the records that are its fold, and who is there.

import { type Fields, frame } from "./frames.js";
import type { TestSession } from "./session.js";

/** Above what any test says; a room keeps its publications as long as the test lasts. */
const LOG_MAX = 100_000;

interface Publication {
  position: number;
  member: string;
  seq: number;
  /** The fields behind these, in the names of the wire. */
  fields: Fields;
  bytes: Uint8Array | null;
  at: number;
}

interface Member {
  session: TestSession;
  presence: unknown;
  seq: number;
}

export type Records = Record<string, Record<string, unknown>>;

export class TestRoom {
  readonly name: string;
  /** The records as they are now. */
  readonly records = new Map<string, Record<string, unknown>>();
  readonly #epoch = "test";
  readonly #log: Publication[] = [];
  readonly #members = new Map<string, Member>();
  readonly #seqs = new Map<string, number>();

  constructor(name: string) {
    this.name = name;
  }

  /** Member → what others see of it. */
  get members(): ReadonlyMap<string, unknown> {
    return new Map([...this.#members].map(([name, { presence }]) => [name, presence]));
  }

  /** What was published, in its order: JSON values and bytes. Changes of records are not among them. */
  get publications(): readonly { position: number; member: string; kind?: string; data: unknown }[] {
    return this.#log
      .filter(({ fields, bytes }) => bytes !== null || "data" in fields)
      .map(({ position, member, fields, bytes }) => ({
        position,
        member,
        ...(fields["kind"] === undefined ? {} : { kind: fields["kind"] as string }),
        data: bytes ?? fields["data"],
      }));
  }

  /** Publish as a service of the application does. */
  publish(data: unknown, { kind }: { kind?: string } = {}): void {
    this.#add("", 0, { ...(kind === undefined ? {} : { kind }), ...(data instanceof Uint8Array ? {} : { data }) }, data instanceof Uint8Array ? data : null);
  }

  /** Change records as a service of the application does. */
  change(change: { put?: Records; patch?: Records; remove?: string[] }): void {
    this.#add("", 0, change, null);
  }

  // --- members ----------------------------------------------------------------------------------------------------

  /** @internal Take what a member says. */
  hear(session: TestSession, message: Fields, data: unknown): void {
    switch (message["type"]) {
      case "join":
        this.#join(session, message);
        break;
      case "publish":
        this.#published(session, message, data);
        break;
      case "presence":
        this.#present(session, message["presence"]);
        break;
      case "leave":
        this.leave(session);
        this.#say(session, { type: "left", reason: "left" });
    }
  }

  /** @internal A session goes on over another connection. */
  again(session: TestSession, place: Fields): void {
    if (this.#members.has(session.id)) this.#answer(session, place, false);
    else this.#join(session, place);
  }

  /** @internal A member goes. */
  leave(session: TestSession): void {
    if (!this.#members.delete(session.id)) return;
    this.#tell(session, { type: "room_presence", left: [session.id] });
  }

  #join(session: TestSession, message: Fields): void {
    const before = this.#members.get(session.id);
    const member: Member = { session, presence: message["presence"] ?? before?.presence ?? null, seq: this.#seqs.get(session.id) ?? 0 };
    this.#members.set(session.id, member);
    this.#answer(session, message, true);
    const one = { member: session.id, presence: member.presence };
    this.#tell(session, before ? { type: "room_presence", changed: [one] } : { type: "room_presence", joined: [one] });
  }

  #answer(session: TestSession, asked: Fields, joins: boolean): void {
    const position = this.#log.length;
    const recovered = asked["epoch"] === this.#epoch;
    const behind = recovered ? this.#log.slice(asked["received"]) : [];
    const members = [...this.#members].map(([member, { presence }]) => ({ member, presence }));
    const history = joins && asked["history"] ? { history: this.#log.slice(-asked["history"]).map((one) => written(one)) } : {};
    const records = asked["state"] ? { records: Object.fromEntries(this.records), removed: [] } : {};
    const next = (this.#seqs.get(session.id) ?? 0) + 1;
    this.#say(session, {
      type: "joined", epoch: this.#epoch, position, next_seq: next, replaying: behind.length, recovered, wipe: true,
      members, members_count: members.length, ...history, ...records,
    });
    if (!recovered) this.#updates(session);
    for (const one of behind) this.#carry(session, one, true);
  }

  #updates(session: TestSession): void {
    for (const { bytes, fields, position } of this.#log) {
      const kind: unknown = fields["kind"];
      if (bytes !== null && (kind === "update" || kind === "yjs")) this.#say(session, { type: "snapshot", position, kind, update: true }, bytes);
    }
  }

  #published(session: TestSession, message: Fields, data: unknown): void {
    const member = this.#members.get(session.id);
    const seq: number = message["seq"];
    const next = (this.#seqs.get(session.id) ?? 0) + 1;
    if (!member) return this.#say(session, { type: "room_error", seq, code: "forbidden" });
    if (seq > next) return this.#say(session, { type: "room_error", seq, code: "gap", expected: next });
    if (seq < next) return this.#say(session, { type: "published", seq: next - 1, position: this.#log.length });
    const { type: _type, room: _room, seq: _seq, ...fields } = message;
    this.#seqs.set(session.id, seq);
    this.#add(session.id, seq, fields, data instanceof Uint8Array ? data : null);
    this.#say(session, { type: "published", seq, position: this.#log.length });
  }

  #present(session: TestSession, presence: unknown): void {
    const member = this.#members.get(session.id);
    if (!member) return;
    member.presence = presence;
    this.#tell(session, { type: "room_presence", changed: [{ member: session.id, presence }] });
  }

  #add(member: string, seq: number, fields: Fields, bytes: Uint8Array | null): void {
    if (this.#log.length >= LOG_MAX) throw new RangeError("the room is full");
    const publication = { position: this.#log.length + 1, member, seq, fields, bytes, at: Date.now() };
    this.#log.push(publication);
    if (bytes === null) this.#fold(fields);
    for (const one of this.#members.values()) if (one.session.id !== member) this.#carry(one.session, publication, false);
  }

  #fold({ put, patch, remove }: Fields): void {
    for (const [id, fields] of Object.entries((put ?? {}) as Records)) this.records.set(id, fields);
    for (const [id, fields] of Object.entries((patch ?? {}) as Records)) {
      const merged = { ...this.records.get(id), ...fields };
      this.records.set(id, Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== null)));
    }
    for (const id of (remove ?? []) as string[]) this.records.delete(id);
  }

  #carry(session: TestSession, one: Publication, replay: boolean): void {
    const own = replay && one.member === session.id ? { seq: one.seq } : {};
    const { data, ...fields } = one.fields;
    this.#say(session, { type: "room_message", position: one.position, member: one.member, at_ms: one.at, ...fields, ...own }, one.bytes ?? data);
  }

  #tell(but: TestSession, message: Fields): void {
    for (const { session } of this.#members.values()) if (session !== but) this.#say(session, message);
  }

  #say(session: TestSession, { type, ...fields }: Fields, data?: unknown): void {
    session.connection?.send(frame({ type, room: this.name, ...fields }, data));
  }
}

/** A publication as an entry of a history. */
function written({ position, member, at, fields, bytes }: Publication): Fields {
  const packed = bytes === null ? {} : { data_b64: btoa(String.fromCharCode(...bytes)) };
  return { position, member, at_ms: at, ...fields, ...packed };
}
