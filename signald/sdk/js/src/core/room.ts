// A member of one room: what it publishes, what it has of the room, and how it comes back. No I/O.
//
//     ABSENT ── join, or an opening message that names the room ──▶ JOINING ── joined ──▶ IN
//        ▲                                                                                 │
//        └── another connection; left (slow, unavailable); out of step ────────────────────┘
//
//     each state ── left for another reason, or the session is over ──▶ ended
//
// `at` is the cursor in the room on this connection: everything up to there was shown and is in the records. A `room_message` that leaves
// positions out says that those are own publications, in order of seq: they are stored. When positions do not fit, the member is *out of step*:
// it joins anew as if it had nothing, and tells its application (`reset`).

import { binaryFrame, type Frame, type Wire } from "./frames.js";
import type { Fields, RecordsChanged, RoomEvent, RoomPublication } from "./room_events.js";
import { Outgoing, type RoomBody, type Waiting } from "./room_outgoing.js";
import { type Change, RoomRecords } from "./room_records.js";

/** What a room may hold here: far above what the service lets it have. */
const ROOM_BYTES_MAX = 64 * 1024 * 1024;
const MEMBERS_MAX = 10_000;
/** Events that wait for the application: four times the history of a room. */
const EVENTS_MAX = 4096;
/** Seconds between two presences. */
const PRESENCE_S = 0.05;
/** The pause before another `join` doubles while joins are followed by `left` at once. */
const REJOIN_MIN_S = 0.5;
const REJOIN_MAX_S = 30;
const STEADY_S = 10;
const GAP_QUIET_S = 1;
/** The pause before those go again that were refused for the rate; it doubles until one is stored. */
const AGAIN_MIN_S = 0.5;
const AGAIN_MAX_S = 8;
const COME_AGAIN = ["slow", "unavailable"];

export class RoomCore {
  /** Why it is no member any more; null while it is, or is on its way. */
  ended: string | null = null;
  leaving = false;
  /** Empty until it is in the room for the first time. */
  epoch = "";
  at = 0;
  readonly records = new RoomRecords();
  /** Member → what others see of it. */
  members = new Map<string, unknown>();
  /** How many there are, those that are not known included. */
  membersCount = 0;
  /** The events for the application. */
  readonly news: RoomEvent[] = [];
  history: (RoomPublication | RecordsChanged)[] = [];
  readonly out = new Outgoing();
  #state: "absent" | "joining" | "in" = "absent";
  #joinAt = -Infinity;
  #joinedAt = -Infinity;
  #pauseS = REJOIN_MIN_S;
  #leftSaid = false;
  /** It joins as if it had nothing. */
  #anew = false;
  #shown = 0;
  #recordsAt = 0;
  #pages: Wire[] = [];
  #pagesBytes = 0;
  #pieces: Uint8Array[] = [];
  #piecesBytes = 0;
  #presence: string | null;
  #presenceDue = false;
  #presenceAt = -Infinity;
  #snapshot: [number, Uint8Array] | null = null;
  #againAt = -Infinity;
  #againS = AGAIN_MIN_S;
  #rewoundTo = 0;
  #rewoundAt = -Infinity;

  constructor(
    readonly name: string,
    readonly wantsRecords: boolean,
    readonly wantsHistory: number,
    presence: string | null,
  ) {
    this.#presence = presence;
  }

  get isIn(): boolean {
    return this.#state === "in";
  }

  // --- what the application does ----------------------------------------------------------------------------------

  /** Take a publication, and show its change at once; return its number. */
  publish(body: RoomBody, change: Change | null, opaque = false): number {
    if (change && this.wantsRecords) this.records.show(change);
    return this.out.add(body, change, opaque);
  }

  /** Say what others see from now on; the latest counts. */
  setPresence(presence: string): void {
    this.#presence = presence;
    this.#presenceDue = true;
  }

  /** Let `data` stand for all updates up to `position`; the latest counts. */
  snapshot(position: number, data: Uint8Array): void {
    this.#snapshot = [position, data];
  }

  /** Leave, after everything that was published is confirmed. */
  leave(): void {
    this.leaving = true;
    if (this.#state === "absent" && !this.epoch && !this.out.length) this.end("left");
  }

  /** Join anew, as if nothing were known. */
  resync(): void {
    if (this.ended !== null) return;
    this.#state = "absent";
    this.#anew = true;
    this.#joinAt = -Infinity;
  }

  /** End the membership. Events can still be taken. */
  end(reason: string): void {
    if (this.ended !== null) return;
    this.ended = reason;
    for (const { change } of this.out.clear()) if (change) this.records.hide(change);
    this.#pages = [];
    this.#forgetPieces();
  }

  // --- connections ------------------------------------------------------------------------------------------------

  /** What an opening message says of the room; null: it is joined behind the answer. */
  position(): Record<string, unknown> | null {
    if (!this.epoch || this.#anew) return null;
    const said = { room: this.name, received: this.at, epoch: this.epoch };
    return this.wantsRecords ? { ...said, state: true } : said;
  }

  /** Go on over another connection; `listed`: its opening message has named the room. */
  attach(listed: boolean): void {
    if (this.ended !== null) return;
    this.#state = listed ? "joining" : "absent";
    this.#joinAt = -Infinity;
    this.#leftSaid = false;
    this.#pages = [];
    this.#pagesBytes = 0;
    this.#forgetPieces();
    // What was written last on the connection before may have been lost with it.
    this.#presenceDue = this.#presence !== null && this.epoch !== "";
  }

  /** What is to be written before publications: a join, a presence, a snapshot, or a leave. */
  write(now: number): Frame[] {
    if (this.ended !== null) return [];
    if (this.#state === "absent") {
      if (now < this.#joinAt) return [];
      this.#state = "joining";
      return [this.#join()];
    }
    if (this.#state !== "in") return [];
    if (this.out.mayGoAgain && now >= this.#againAt) this.out.goAgain();
    const frames: Frame[] = [];
    if (this.#presenceDue && this.#presence !== null && now >= this.#presenceAt + PRESENCE_S) {
      this.#presenceDue = false;
      this.#presenceAt = now;
      frames.push(this.#said("presence", `,"presence":${this.#presence}}`));
    }
    if (this.#snapshot !== null) {
      const [position, data] = this.#snapshot;
      this.#snapshot = null;
      frames.push(binaryFrame(this.#said("snapshot", `,"position":${position}}`), data));
    }
    if (this.leaving && !this.out.length && !this.#leftSaid) {
      this.#leftSaid = true;
      frames.push(this.#said("leave", "}"));
    }
    return frames;
  }

  #said(type: string, rest: string): string {
    return `{"type":"${type}","room":${JSON.stringify(this.name)}${rest}`;
  }

  /** A publication is to be written. */
  get hasMore(): boolean {
    return this.#state === "in" && this.ended === null && this.out.due;
  }

  /** The next publication to be written, or null. */
  writeNext(): Frame | null {
    const found = this.hasMore ? this.out.next() : null;
    return found && this.framed(...found);
  }

  /** The frame of a publication. */
  framed(seq: number, { fields, binary }: RoomBody): Frame {
    const header = this.#said("publish", `,"seq":${seq}${fields && `,${fields}`}}`);
    return binary ? binaryFrame(header, binary) : header;
  }

  /** When `write` has more because a pause ends, or Infinity. */
  wakeAt(now: number): number {
    if (this.ended !== null) return Infinity;
    if (this.#state === "absent") return Math.max(now, this.#joinAt);
    if (this.#state !== "in") return Infinity;
    return Math.min(this.out.mayGoAgain ? this.#againAt : Infinity, this.#presenceDue ? this.#presenceAt + PRESENCE_S : Infinity);
  }

  #join(): string {
    let said = "";
    if (this.epoch && !this.#anew) said += `,"received":${this.at},"epoch":${JSON.stringify(this.epoch)}`;
    else if (this.wantsHistory && !this.epoch) said += `,"history":${this.wantsHistory}`;
    if (this.#presence !== null) {
      said += `,"presence":${this.#presence}`;
      this.#presenceDue = false;
    }
    return this.#said("join", `${said}${this.wantsRecords ? ',"state":true' : ""}}`);
  }

  // --- joined -----------------------------------------------------------------------------------------------------

  /** Take a page of the answer to a join, of `size` bytes. */
  joined(message: Wire, size: number, now: number): void {
    if (this.ended !== null) return;
    this.#pages.push(message);
    this.#pagesBytes += size;
    if (this.#pagesBytes > ROOM_BYTES_MAX) return this.#giveUp();
    if (message["more"]) return;
    const pages = this.#pages;
    this.#pages = [];
    this.#pagesBytes = 0;
    const first = !this.epoch;
    const same = first || this.epoch === message["epoch"];
    const recovered = !first && same && message["recovered"] && !this.#anew;
    const position: number = message["position"];
    const beginsAt: number = position - message["replaying"];
    if (recovered && beginsAt > this.#shown) return this.outOfStep(now); // a hole that the service does not admit
    for (const stored of this.out.attach(message["next_seq"], same)) this.#settle(stored, null);
    if (!same) this.#snapshot = null; // of a document that is lost: in the next room it would bring all of it back
    this.epoch = message["epoch"];
    this.at = recovered ? beginsAt : position;
    this.#shown = recovered ? Math.max(this.#shown, this.at) : position;
    this.#state = "in";
    this.#joinedAt = now;
    this.#anew = false;
    if (this.wantsRecords) this.#readRecords(pages);
    if (!first && !recovered) {
      this.#tell({ type: "reset", position, lost: !same });
      this.#presenceDue = this.#presence !== null;
    }
    this.#begin(pages, first);
    if (pages.some((page) => page["history"] != null)) this.history = pages.flatMap((page) => page["history"] ?? []).flatMap(kept);
  }

  #readRecords(pages: Wire[]): void {
    const last = pages.at(-1)!;
    if (last["wipe"]) this.records.wipe();
    for (const page of pages) {
      for (const [name, fields] of Object.entries(page["records"] ?? {})) this.records.keep(name, fields as Fields);
      for (const name of page["removed"] ?? []) this.records.keep(name, undefined);
    }
    this.#recordsAt = last["position"];
    this.#checkSize();
  }

  #begin(pages: Wire[], first: boolean): void {
    const before = this.members;
    this.members = new Map();
    for (const page of pages) for (const one of page["members"]) this.#keep(one);
    this.membersCount = Math.max(pages.at(-1)!["members_count"], this.members.size);
    const changed = (name: string): boolean => before.has(name) && JSON.stringify(before.get(name)) !== JSON.stringify(this.members.get(name));
    const names = [...this.members.keys()];
    const left = [...before.keys()].filter((name) => !this.members.has(name));
    if (!first) this.#tellMembers(names.filter((name) => !before.has(name)), names.filter(changed), left);
  }

  #keep({ member, presence }: { member: string; presence?: unknown }): void {
    if (this.members.size < MEMBERS_MAX || this.members.has(member)) this.members.set(member, presence ?? null);
  }

  // --- what follows -----------------------------------------------------------------------------------------------

  /** Take a publication of the room. */
  message(message: Wire, binary: Uint8Array | null, now: number): void {
    const position: number = message["position"];
    if (this.#state !== "in" || this.ended !== null || position <= this.at) return;
    const own = this.out.confirmNext(position - 1 - this.at);
    if (own === null) return this.outOfStep(now);
    for (const stored of own) this.#settle(stored, this.at + 1);
    this.at = position;
    const isNew = position > this.#shown;
    this.#shown = Math.max(this.#shown, position);
    const event = told(message, binary);
    if (event.type === "records") {
      this.#fold({ puts: new Map(Object.entries(event.put)), patches: new Map(Object.entries(event.patch)), removes: event.removed }, position);
    }
    if (isNew && message["seq"] == null) this.#tell(event);
  }

  /** Take a confirmation. */
  published(message: Wire, now: number): void {
    if (this.#state !== "in" || this.ended !== null || message["seq"] <= this.out.accepted) return;
    const stored = this.out.confirm(message["seq"]);
    if (stored === null || (stored.length && message["position"] - this.at !== stored.length)) {
      for (const one of stored ?? []) this.#settle(one, null);
      return this.outOfStep(now);
    }
    for (const one of stored) this.#settle(one, this.at + 1);
  }

  /** Take the refusal of a publication. */
  refused(error: Wire, now: number): void {
    if (this.ended !== null) return;
    if (error["code"] === "gap") {
      const expected: number = error["expected"] ?? this.out.accepted + 1;
      if (expected === this.#rewoundTo && now - this.#rewoundAt < GAP_QUIET_S) return;
      this.#rewoundTo = expected;
      this.#rewoundAt = now;
      if (this.#state === "in" && !this.out.rewind(expected)) this.outOfStep(now);
      return;
    }
    if (error["code"] === "rate" && this.out.putOff(error["seq"])) {
      if (now >= this.#againAt) {
        this.#againAt = now + this.#againS;
        this.#againS = Math.min(this.#againS * 2, AGAIN_MAX_S);
      }
      return;
    }
    const waiting = this.out.refuse(error["seq"]);
    if (waiting !== null) this.#tellRefused(waiting, error["code"]);
  }

  #tellRefused({ change, number }: Waiting, code: string): void {
    if (change) this.records.hide(change);
    this.#tell({ type: "refused", number, code });
  }

  /** Take who has come, has changed and has left. */
  presence(message: Wire): void {
    if (this.#state !== "in" || this.ended !== null) return;
    const joined: { member: string }[] = message["joined"] ?? [];
    const both = [...joined, ...(message["changed"] ?? [])];
    const left: string[] = message["left"] ?? [];
    const come = joined.map(({ member }) => member).filter((name) => !this.members.has(name));
    for (const one of both) this.#keep(one);
    for (const name of left) this.members.delete(name);
    this.membersCount = Math.max(this.membersCount + come.length - left.length, this.members.size);
    this.#tellMembers(come, both.map(({ member }) => member).filter((name) => !come.includes(name)), left);
  }

  #tellMembers(joined: string[], changed: string[], left: string[]): void {
    if (joined.length || changed.length || left.length) this.#tell({ type: "members", joined, changed, left });
  }

  #tell(event: RoomEvent): void {
    const last = this.news.at(-1);
    // The gap goes on until the application has seen it: one gap, not many.
    if (last?.type === "lagged") this.news[this.news.length - 1] = { type: "lagged", missed: last.missed + 1, position: this.#shown };
    else this.news.push(this.news.length < EVENTS_MAX ? event : { type: "lagged", missed: 1, position: this.#shown });
  }

  /** Take a snapshot, a piece of one, or an update behind it. */
  update(message: Wire, binary: Uint8Array | null): void {
    if (this.#state !== "in" || this.ended !== null || binary === null) return;
    this.#pieces.push(binary);
    this.#piecesBytes += binary.length;
    if (this.#piecesBytes > ROOM_BYTES_MAX) return this.#giveUp();
    if (message["more"]) return;
    const data = new Uint8Array(this.#piecesBytes);
    let at = 0;
    for (const piece of this.#pieces) {
      data.set(piece, at);
      at += piece.length;
    }
    this.#forgetPieces();
    const kind = message["kind"] == null ? {} : { kind: message["kind"] as string };
    this.#tell({ type: "update", position: message["position"], data, ...kind, snapshot: !message["update"] });
  }

  #forgetPieces(): void {
    this.#pieces = [];
    this.#piecesBytes = 0;
  }

  /** Take the end of the membership; some reasons ask for another join. */
  left(message: Wire, now: number): void {
    if (this.ended !== null) return;
    if (!COME_AGAIN.includes(message["reason"]) || (this.leaving && !this.out.length)) this.end(this.leaving ? "left" : message["reason"]);
    else this.#joinLater(now);
  }

  #joinLater(now: number): void {
    this.#state = "absent";
    this.#forgetPieces();
    this.#pauseS = now - this.#joinedAt >= STEADY_S ? REJOIN_MIN_S : Math.min(this.#pauseS * 2, REJOIN_MAX_S);
    this.#joinAt = now + this.#pauseS;
  }

  /** Join anew after a pause, because the positions contradict each other. What is told until then is void. */
  outOfStep(now: number): void {
    this.#anew = true;
    this.#joinLater(now);
  }

  #giveUp(): void {
    this.leaving = true;
    this.end("too_big");
  }

  /** Note that an own publication is stored at `position`; null: the records of the answer have it. */
  #settle({ change }: Waiting, position: number | null): void {
    if (change) this.records.hide(change);
    this.#againS = AGAIN_MIN_S;
    for (const overtaken of this.out.overtaken()) this.#tellRefused(overtaken, "rate");
    if (position === null) return;
    this.at = position;
    this.#shown = Math.max(this.#shown, position);
    if (change) this.#fold(change, position);
  }

  #fold(change: Change, position: number): void {
    if (!this.wantsRecords || position <= this.#recordsAt) return;
    this.#recordsAt = position;
    this.records.fold(change);
    this.#checkSize();
  }

  #checkSize(): void {
    if (this.records.size > ROOM_BYTES_MAX) this.#giveUp();
  }
}

/** A publication as an event. */
function told(message: Wire, binary: Uint8Array | null): RoomPublication | RecordsChanged {
  const place = { position: message["position"], member: message["member"], atMs: message["at_ms"] };
  const { put, patch, remove } = message;
  if (binary === null && (put != null || patch != null || remove != null)) {
    return { type: "records", ...place, put: put ?? {}, patch: patch ?? {}, removed: remove ?? [] };
  }
  const kind = message["kind"] == null ? {} : { kind: message["kind"] as string };
  return { type: "publication", ...place, data: binary ?? message["data"] ?? null, ...kind, binary: binary !== null };
}

/** An entry of the history; one that cannot be read is left out. */
function kept(entry: Wire): (RoomPublication | RecordsChanged)[] {
  if (typeof entry !== "object" || entry === null || !Number.isSafeInteger(entry["position"])) return [];
  const whole = { ...entry, member: entry["member"] ?? "", at_ms: entry["at_ms"] ?? 0 };
  const packed: unknown = entry["data_b64"];
  if (typeof packed !== "string") return [told("data" in whole ? { ...whole, put: null, patch: null, remove: null } : whole, null)];
  return [told(whole, Uint8Array.from(atob(packed), (one) => one.charCodeAt(0)))];
}
