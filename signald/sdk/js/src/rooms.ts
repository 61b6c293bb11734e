// The entry `signald/rooms`: the rooms of a client, for an application.

import type { Client } from "./client.js";
import type { RoomCore } from "./core/room.js";
import type { Fields, RecordsChanged, RoomEvent, RoomPublication } from "./core/room_events.js";
import { type Records, Rooms as RoomsCore } from "./core/rooms.js";
import { SessionGone } from "./errors.js";

export type { Fields, RecordsChanged, RoomEvent, RoomPublication } from "./core/room_events.js";
export type { Records } from "./core/rooms.js";

/** What a member wants, and says, when it joins. */
export interface JoinOptions {
  /** The records of the room. */
  state?: boolean;
  /** So many of its last publications; at most 1,000. */
  history?: number;
  /** What others see of this member. */
  presence?: unknown;
}

interface Events {
  /** Anything that others do, and what becomes of the own publications, in the order of the room. */
  event: RoomEvent;
  /** Records or members are other ones than before: a reason to draw. */
  change: void;
  /** The membership is over. */
  left: string;
}

const made = new WeakMap<Client, ClientRooms>();

/** The rooms of `client`; always the same object. */
export function rooms(client: Client): ClientRooms {
  let found = made.get(client);
  if (!found) made.set(client, (found = new ClientRooms(client)));
  return found;
}

class ClientRooms {
  /** Called when the room of the user is there or gone. */
  onUserRoom: (room: Room | null) => void = () => {};
  readonly #rooms: RoomsCore;
  readonly #wake: () => void;
  readonly #joined = new Set<Room>();
  #user: Room | null = null;

  constructor(client: Client) {
    let rooms!: RoomsCore;
    let wakeUp!: () => void;
    client.extend((core, wake) => {
      rooms = new RoomsCore(core);
      wakeUp = wake;
      return { extension: rooms, tell: () => this.#tell() };
    });
    this.#rooms = rooms;
    this.#wake = wakeUp;
  }

  /** Join a room, and be in it through everything that happens, until `leave`. @throws Unsendable a wrong name or option */
  join(name: string, { state = false, history = 0, presence }: JoinOptions = {}): Room {
    const room = new Room(this.#rooms.join(name, state, history, presence), this.#rooms, this.#wake);
    this.#joined.add(room);
    this.#wake();
    return room;
  }

  /** The room `user:<subject>`, in which a client with a credential is unasked; null while there is none. */
  get ofTheUser(): Room | null {
    return this.#user;
  }

  #tell(): void {
    const user = this.#rooms.ofTheUser;
    if (user !== (this.#user?.core ?? null)) {
      this.#user = user && new Room(user, this.#rooms, this.#wake);
      if (this.#user) this.#joined.add(this.#user);
      this.onUserRoom(this.#user);
    }
    for (const room of [...this.#joined]) if (room.tell()) this.#joined.delete(room);
  }
}

export type { ClientRooms };

/** A member of one room. */
export class Room {
  /** Resolved when it is in the room for the first time; rejected when it is not let in. */
  readonly ready: Promise<void>;
  /** @internal */
  readonly core: RoomCore;
  readonly #rooms: RoomsCore;
  readonly #wake: () => void;
  readonly #listeners = new Map<keyof Events, Set<(event: any) => void>>();
  #settled: (() => void)[] = [];
  #readyNow!: () => void;
  #neverReady!: (error: Error) => void;
  /** The last event and the epoch that were told. */
  #newest: RoomEvent | null = null;
  #epoch = "";

  constructor(core: RoomCore, rooms: RoomsCore, wake: () => void) {
    this.core = core;
    this.#rooms = rooms;
    this.#wake = wake;
    this.ready = new Promise((resolve, reject) => {
      this.#readyNow = resolve;
      this.#neverReady = reject;
    });
    this.ready.catch(() => {});
  }

  get name(): string {
    return this.core.name;
  }

  /** True while it is a member, as far as it knows. */
  get isIn(): boolean {
    return this.core.isIn;
  }

  /** Why it is no member any more; null while it is, or is on its way. */
  get ended(): string | null {
    return this.core.ended;
  }

  /** The records as they are now, with own changes that are not stored yet. */
  get records(): Map<string, Fields> {
    return this.core.records.all();
  }

  /** One record; undefined: there is none. */
  record(id: string): Fields | undefined {
    return this.core.records.get(id);
  }

  /** Member → what others see of it. At most 10,000; `membersCount` counts all. */
  get members(): ReadonlyMap<string, unknown> {
    return this.core.members;
  }

  get membersCount(): number {
    return Math.max(this.core.membersCount, this.core.members.size);
  }

  /** The publications that the join asked for, oldest first. */
  get history(): readonly (RoomPublication | RecordsChanged)[] {
    return this.core.history;
  }

  /** Publications that are not confirmed. */
  get unconfirmed(): number {
    return this.core.out.length;
  }

  /** Hear of events; the function that is returned ends it. */
  on<E extends keyof Events>(name: E, listener: (event: Events[E]) => void): () => void {
    const all = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, all.add(listener));
    this.#wake();
    return () => void all.delete(listener);
  }

  /** Publish a JSON value or a `Uint8Array`; waits while many are not confirmed. Gives its number. @throws Unsendable | SessionGone */
  async publish(data: unknown, { kind }: { kind?: string } = {}): Promise<number> {
    await this.#room();
    return this.#done(this.#rooms.publish(this.core, data, kind));
  }

  /** Change records in one publication, in the order put, patch, remove; it is shown at once. @throws Unsendable | SessionGone */
  async change({ put, patch, remove }: { put?: Records; patch?: Records; remove?: readonly string[] }): Promise<number> {
    await this.#room();
    return this.#done(this.#rooms.change(this.core, put, patch, remove));
  }

  /** Set a whole record. */
  put(id: string, fields: Fields): Promise<number> {
    return this.change({ put: { [id]: fields } });
  }

  /** Set some properties of a record; null removes one. */
  patch(id: string, fields: Fields): Promise<number> {
    return this.change({ patch: { [id]: fields } });
  }

  /** Remove records. */
  remove(...ids: string[]): Promise<number> {
    return this.change({ remove: ids });
  }

  /** Say what others see of this member; the latest counts. @throws Unsendable */
  setPresence(presence: unknown): void {
    this.core.setPresence(this.#rooms.presenceOf(presence));
    this.#wake();
  }

  /** Let `data` stand for all opaque updates up to `position`. @throws Unsendable */
  snapshot(position: number, data: Uint8Array): void {
    this.#rooms.snapshot(this.core, position, data.slice());
    this.#wake();
  }

  /** Be told everything anew. */
  resync(): void {
    this.core.resync();
    this.#wake();
  }

  /** Resolved when all that was published is stored or refused. */
  async flush(): Promise<void> {
    while (this.core.out.length && this.core.ended === null) await this.#next();
  }

  /** Leave, after everything that was published is confirmed. */
  async leave(): Promise<void> {
    this.#rooms.leave(this.core);
    this.#wake();
    while (this.core.ended === null) await this.#next();
  }

  async #room(): Promise<void> {
    while (this.core.ended === null && !this.core.out.room) await this.#next();
    if (this.core.ended !== null) throw new SessionGone(null, this.core.ended);
  }

  #done(number: number): number {
    this.#wake();
    this.#emit("change", undefined);
    return number;
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#settled.push(resolve));
  }

  #emit<E extends keyof Events>(name: E, event: Events[E]): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        listener(event);
      } catch (error) {
        console.error("signald: an error of the application", error);
      }
    }
  }

  /** @internal Hand on what has happened; true when the membership is over. */
  tell(): boolean {
    const { core } = this;
    if (core.epoch) this.#readyNow();
    const newest = core.news.at(-1) ?? this.#newest;
    const changed = newest !== this.#newest || core.epoch !== this.#epoch;
    this.#newest = newest;
    this.#epoch = core.epoch;
    // Events wait for the first listener: those of the first moments are of use.
    while (core.news.length && this.#listeners.get("event")?.size) this.#emit("event", core.news.shift()!);
    if (changed) this.#emit("change", undefined);
    for (const resolve of this.#settled.splice(0)) resolve();
    if (core.ended === null) return false;
    this.#neverReady(new SessionGone(null, core.ended));
    this.#emit("left", core.ended);
    return true;
  }
}
