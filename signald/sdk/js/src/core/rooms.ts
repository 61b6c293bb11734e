// The rooms of one session: who is asked to join, and to which room a frame goes. No I/O.
//
// The core gives it the frames of the current connection only: behind the answer on a new one, each room is told again what was missed.

import { LinkBroken, Unsendable } from "../errors.js";
import type { Bounds } from "./bounds.js";
import type { Extension } from "./client.js";
import { fits, isKnown, isTable, type Wire } from "./frames.js";
import { RoomCore } from "./room.js";
import type { Fields } from "./room_events.js";
import type { RoomBody } from "./room_outgoing.js";
import { type Batch, type SessionCore, sizeOf } from "./session.js";
import { checkText, HISTORY_MAX, KIND_MAX, SEQ_MAX, write } from "./values.js";

const ROOMS_MAX = 64;
const PRESENCE_BYTES_MAX = 4096;
const ID_MAX = 128;
const SNAPSHOT_HEAD_MAX = 512;
/** Kinds of binary publications that are updates of a document. */
const OPAQUE = ["update", "yjs"];
/** How the name of a room begins that the service joins unasked. */
const USER_ROOM = "user:";

export type Records = Readonly<Record<string, Fields>>;

export const SHAPES: Readonly<Record<string, string>> = {
  joined:
    "room text epoch text position position next_seq seq replaying position recovered bool wipe bool members list members_count position history? list records? table removed? list more? bool",
  published: "room text seq seq position position",
  room_message: "room text position seq member text at_ms position seq? seq kind? text put? table patch? table remove? list",
  snapshot: "room text position seq kind? text update? bool more? bool",
  room_error: "room text seq seq code text expected? seq",
  room_presence: "room text joined? list changed? list left? list",
  left: "room text reason text",
};

/** Members and records of a message are what they should be. @throws LinkBroken */
function checkInside(message: Wire): void {
  const members = ["members", "joined", "changed"].flatMap((name) => message[name] ?? []);
  const records = ["records", "put", "patch"].flatMap((name) => Object.values(message[name] ?? {}));
  if (!members.every((one) => fits(one, "member text")) || !records.every(isTable)) throw new LinkBroken(`a bad \`${message.type}\``);
}

export class Rooms implements Extension {
  /** The room `user:<subject>`, in which a client is unasked. */
  ofTheUser: RoomCore | null = null;
  /** A callback of the driver: `ofTheUser` is there, or a room is gone. */
  changed: () => void = () => {};
  readonly #of: () => { session: SessionCore; bounds: Bounds };
  readonly #rooms = new Map<string, RoomCore>();
  /** The rooms that the last opening message has named. */
  #listed: ReadonlySet<string> = new Set();
  #slowUntil = -Infinity;
  /** Rooms in which the client is only because it was in them as its opening message was written. */
  #named: string[] = [];
  /** Those of them whose `leave` is written, and not answered on this connection. */
  readonly #takenBack = new Set<string>();

  /** `of`: the session and the bounds as they are now. */
  constructor(of: () => { session: SessionCore; bounds: Bounds }) {
    this.#of = of;
  }

  get #bounds(): Bounds {
    return this.#of().bounds;
  }

  get(name: string): RoomCore | undefined {
    return this.#rooms.get(name);
  }

  // --- what the application does ----------------------------------------------------------------------------------

  /** @throws Unsendable no room can have this name, the client is in it or in too many, or an option is wrong */
  join(name: string, state = false, history = 0, presence?: unknown): RoomCore {
    if (!/^[A-Za-z0-9_.:~-]{1,128}$/.test(name)) throw new Unsendable("the name of a room has 1 to 128 characters of A-Za-z0-9_.:~-");
    if (this.#rooms.has(name)) throw new Unsendable(`already in the room ${name}`);
    if (this.#rooms.size >= ROOMS_MAX) throw new Unsendable(`a session is in at most ${ROOMS_MAX} rooms`);
    if (!(Number.isInteger(history) && history >= 0 && history <= HISTORY_MAX)) throw new Unsendable(`\`history\` is 0 to ${HISTORY_MAX}`);
    const room = new RoomCore(name, state, history, presence == null ? null : this.presenceOf(presence));
    this.#rooms.set(name, room);
    return room;
  }

  /** A presence as JSON. @throws Unsendable */
  presenceOf(presence: unknown): string {
    const said = write(presence, this.#bounds.jsonDepthMax - 1);
    if (sizeOf(said) > PRESENCE_BYTES_MAX) throw new Unsendable(`a presence may have at most ${PRESENCE_BYTES_MAX} bytes`);
    return said;
  }

  /** Publish a JSON value, or bytes; return the number of the publication. @throws Unsendable nothing was published */
  publish(room: RoomCore, data: unknown, kind?: string): number {
    checkText("kind", kind, KIND_MAX);
    const named = kind === undefined ? "" : `"kind":${JSON.stringify(kind)}`;
    if (data instanceof Uint8Array) return this.#publish(room, { fields: named, binary: data.slice() }, OPAQUE.includes(kind ?? ""));
    return this.#publish(room, { fields: `${named && `${named},`}"data":${write(data, this.#bounds.jsonDepthMax - 1)}`, binary: null });
  }

  /** Change records, in the order put, patch, remove; return the number of the publication. @throws Unsendable as `publish`; or it changes nothing */
  change(room: RoomCore, put: Records = {}, patch: Records = {}, remove: readonly string[] = []): number {
    const depth = this.#bounds.jsonDepthMax - 1;
    const said = Object.entries({ put, patch }).filter(([, records]) => Object.keys(records).length);
    if (!said.length && !remove.length) throw new Unsendable("nothing is changed");
    for (const name of [...Object.keys(put), ...Object.keys(patch), ...remove]) checkText("id", name, ID_MAX, 1);
    for (const one of [...Object.values(put), ...Object.values(patch)]) {
      if (typeof one !== "object" || one === null || Array.isArray(one)) throw new Unsendable("a record is a map of properties");
    }
    const fields = said.map(([name, records]) => `"${name}":${write(records, depth)}`);
    if (remove.length) fields.push(`"remove":${JSON.stringify(remove)}`);
    const text = fields.join(",");
    // JSON.stringify writes half of a surrogate pair as an escape.
    if (/\\ud[89a-f]/i.test(text)) throw new Unsendable("half of a surrogate pair in a record");
    // As they are said: what is changed later by the application changes nothing here.
    const { put: puts = {}, patch: patches = {} } = JSON.parse(`{${text}}`) as { put?: Records; patch?: Records };
    const change = { puts: new Map(Object.entries(puts)), patches: new Map(Object.entries(patches)), removes: [...remove] };
    this.#check(room, { fields: text, binary: null });
    return room.publish({ fields: text, binary: null }, change);
  }

  #publish(room: RoomCore, body: RoomBody, opaque = false): number {
    this.#check(room, body);
    return room.publish(body, null, opaque);
  }

  #check(room: RoomCore, body: RoomBody): void {
    const size = sizeOf(room.framed(SEQ_MAX, body));
    const most = this.#bounds.messageBytesMax;
    if (size > most) throw new Unsendable(`a publication of ${size} bytes, at most ${most}`);
  }

  /** Let `data` stand for all updates up to `position`. @throws Unsendable longer than the service takes, or of a position to come */
  snapshot(room: RoomCore, position: number, data: Uint8Array): void {
    const most = this.#bounds.messageBytesMax - SNAPSHOT_HEAD_MAX;
    if (data.length > most) throw new Unsendable(`a snapshot may have at most ${most} bytes`);
    if (!(position >= 1 && position <= room.at)) throw new Unsendable(`a snapshot stands for a position from 1 to ${room.at}`);
    room.snapshot(position, data);
  }

  /** Leave a room, after everything that was published is confirmed. */
  leave(room: RoomCore): void {
    room.leave();
    this.#sweep(room);
  }

  // --- connections ------------------------------------------------------------------------------------------------

  opens(): object {
    const rooms = [...this.#rooms.values()].map((room) => room.position()).filter((said) => said !== null);
    this.#listed = new Set(rooms.map((said) => said["room"] as string));
    return rooms.length ? { rooms } : {};
  }

  /** No message of the worker is of a room. */
  isOwn(): boolean {
    return false;
  }

  attach(): void {
    const listed = this.#listed;
    this.#slowUntil = -Infinity;
    // `left` came on the connection before while the answer was under way, and the service gives the seat again to a client that names it.
    this.#named = [...listed].filter((name) => !this.#rooms.has(name)).sort();
    this.#takenBack.clear();
    // One that was joined meanwhile is not the one that was named: its position and its options are other ones.
    for (const [name, room] of this.#rooms) room.attach(listed.has(name) && room.epoch !== "");
  }

  receive(message: Wire, binary: Uint8Array | null, size: number, now: number): void {
    if (!isKnown(message, SHAPES)) return;
    checkInside(message);
    const name: string = message["room"];
    const { type } = message;
    if (this.#takenBack.has(name) && !(type === "left" && message["reason"] !== "left")) {
      // In front of the answer all is of the membership that ends, also where the application has joined again.
      if (type === "left") this.#takenBack.delete(name);
      return;
    }
    const room = this.#rooms.get(name) ?? (type === "joined" && name.startsWith(USER_ROOM) ? this.#user(name) : null);
    if (room === null) return; // the client is not in it any more
    if (type === "room_message") room.message(message, binary, now);
    else if (type === "published") room.published(message, now);
    else if (type === "joined") room.joined(message, size, now);
    else if (type === "room_presence") room.presence(message);
    else if (type === "snapshot") room.update(message, binary);
    else if (type === "room_error") room.refused(message, now);
    else room.left(message, now);
    this.#sweep(room);
  }

  #user(name: string): RoomCore | null {
    if (this.ofTheUser !== null || this.#rooms.size >= ROOMS_MAX) return null;
    const room = new RoomCore(name, false, 0, null);
    room.attach(true);
    this.#rooms.set(name, room);
    this.ofTheUser = room;
    this.changed();
    return room;
  }

  #sweep(room: RoomCore): void {
    if (room.ended === null || this.#rooms.get(room.name) !== room) return;
    this.#rooms.delete(room.name);
    if (room === this.ofTheUser) this.ofTheUser = null;
    this.changed();
  }

  /** End them all: the session is over for this client. */
  end(reason: string): void {
    for (const room of [...this.#rooms.values()]) {
      room.end(reason);
      this.#sweep(room);
    }
  }

  // --- writing ----------------------------------------------------------------------------------------------------

  /** Put what is due into `batch`. Rooms with much to publish take turns. */
  write(now: number, batch: Batch): void {
    for (let name = this.#named.pop(); name !== undefined; name = this.#named.pop()) {
      if (this.#rooms.has(name)) continue;
      this.#takenBack.add(name);
      batch.add(JSON.stringify({ type: "leave", room: name }));
    }
    for (const room of [...this.#rooms.values()]) for (const frame of room.write(now)) batch.add(frame);
    const { pace } = this.#of().session;
    for (let busy = this.#busy(); busy.length; busy = busy.filter((room) => room.hasMore)) {
      for (const room of busy) {
        if (batch.budget <= 0) return;
        const waitS = pace?.take(now) ?? 0;
        if (waitS > 0) {
          this.#slowUntil = now + waitS;
          return;
        }
        const frame = room.writeNext();
        if (frame !== null) batch.add(frame);
      }
    }
  }

  #busy(): RoomCore[] {
    return [...this.#rooms.values()].filter((room) => room.hasMore);
  }

  wakeAt(now: number): number {
    const at = Math.min(Infinity, ...[...this.#rooms.values()].map((room) => room.wakeAt(now)));
    return this.#slowUntil > now && this.#busy().length ? Math.min(at, this.#slowUntil) : at;
  }
}
