// The membership of a page in a room, for all components that look at the room. No React.

import type { Client } from "../client.js";
import { type Fields, type JoinOptions, type Room, rooms } from "../rooms.js";
import { Store } from "./store.js";

/** How long a room is stayed in without a component: a page that is left and entered again, or mounted twice, joins once. */
const LEAVE_MS = 1000;

export interface RoomView {
  /** For publications and changes; null before the room is joined. */
  readonly room: Room | null;
  /** `joining`, also while the room is joined again; `in`; `left`, for good, with its `reason`. */
  readonly status: "joining" | "in" | "left";
  readonly reason: string | null;
  readonly records: ReadonlyMap<string, Fields>;
  /** Member → what others see of it. */
  readonly members: ReadonlyMap<string, unknown>;
}

export const NO_ROOM: RoomView = { room: null, status: "joining", reason: null, records: new Map(), members: new Map() };

const memberships = new WeakMap<Client, Map<string, Membership>>();

/** The membership of `client` in a room; always the same object. */
export function membershipOf(client: Client, name: string): Membership {
  let all = memberships.get(client);
  if (!all) memberships.set(client, (all = new Map()));
  let found = all.get(name);
  if (!found) all.set(name, (found = new Membership(client, name)));
  return found;
}

export class Membership extends Store<RoomView> {
  /** What the next join says. */
  options: JoinOptions = {};
  readonly #client: Client;
  readonly #name: string;
  #room: Room | null = null;
  #leaving: Promise<void> | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;

  constructor(client: Client, name: string) {
    super(NO_ROOM);
    this.#client = client;
    this.#name = name;
  }

  protected override begins(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    // Behind the effects of all components of the page, so that all their options count.
    queueMicrotask(() => this.#join());
  }

  protected override ends(): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#leave();
    }, LEAVE_MS);
  }

  #join(): void {
    if (this.#room !== null || this.#leaving !== null || !this.watched) return;
    let room: Room;
    try {
      room = this.#room = rooms(this.#client).join(this.#name, { state: true, ...this.options });
    } catch (error) {
      this.set({ ...NO_ROOM, status: "left", reason: error instanceof Error ? error.message : String(error) });
      return;
    }
    room.on("change", () => this.#show(room));
    room.on("left", (reason) => {
      if (this.#room !== room) return;
      this.#room = null;
      this.set({ ...this.snapshot(), status: "left", reason });
    });
    room.ready.then(
      () => this.#show(room),
      () => {},
    );
    this.#show(room);
  }

  #show(room: Room): void {
    if (this.#room !== room) return;
    const status = room.isIn ? "in" : "joining";
    this.set({ room, status, reason: null, records: room.records, members: new Map(room.members) });
  }

  #leave(): void {
    const room = this.#room;
    if (room === null) return;
    this.#room = null;
    this.set(NO_ROOM);
    // One that waits for a connection to say so has left as far as this page is concerned; the name is free when it is done.
    this.#leaving = room.leave().finally(() => {
      this.#leaving = null;
      this.#join();
    });
  }
}
