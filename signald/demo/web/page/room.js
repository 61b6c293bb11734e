// A room as a member sees it: records, who is there, and publications that are sent again until signald has confirmed them.
// Own changes are shown at once, over those of others, until their place in the order of the room is known.

import { Emitter } from "./emitter.js";

export class Room extends Emitter {
  /** The records with own changes over them. */
  records = new Map();
  members = new Map();
  /** The records as the store has them, up to `#position`. */
  #stored = new Map();
  #position = 0;
  #epoch = null;
  /** Own publications that are not confirmed. One that is `stored` has its place in `#stored` already. */
  #out = [];
  #seq = null;
  #presence;
  #resolve;

  constructor(client, name, { presence, state = false } = {}) {
    super();
    this.client = client;
    this.name = name;
    this.wantsState = state;
    this.#presence = presence;
    this.entered = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  get member() {
    return this.client.sessionId;
  }

  /** What a resume needs to go on here; null before the first join was answered. */
  get seat() {
    if (this.#epoch === null) return null;
    return { room: this.name, received: this.#position, epoch: this.#epoch, state: this.wantsState };
  }

  enter() {
    this.client.say({ type: "join", room: this.name, presence: this.#presence, state: this.wantsState });
  }

  // --- what the page calls -------------------------------------------------------------------------------------------

  put(id, record) {
    this.#publish({ put: { [id]: record } });
  }

  patch(id, properties) {
    this.#publish({ patch: { [id]: properties } });
  }

  remove(...ids) {
    if (ids.length) this.#publish({ remove: ids });
  }

  publish(data, { kind } = {}) {
    this.#publish({ data, kind });
  }

  setPresence(presence) {
    this.#presence = presence;
    this.client.say({ type: "presence", room: this.name, presence });
  }

  #publish(content) {
    const own = { seq: this.#seq === null ? null : this.#seq++, content, stored: false };
    this.#out.push(own);
    if (own.seq !== null) this.#say(own);
    this.#show();
  }

  #say({ seq, content }) {
    this.client.say({ type: "publish", room: this.name, seq, ...content });
  }

  // --- frames --------------------------------------------------------------------------------------------------------

  hear(frame) {
    switch (frame.type) {
      case "joined":
        this.#joined(frame);
        break;
      case "room_message":
        this.#message(frame);
        break;
      case "published":
        this.#settle((own) => own.seq <= frame.seq);
        this.#position = Math.max(this.#position, frame.position ?? 0);
        break;
      case "room_error":
        this.#refused(frame);
        break;
      case "room_presence":
        for (const { member, presence } of [...(frame.joined ?? []), ...(frame.changed ?? [])]) this.members.set(member, presence);
        for (const member of frame.left ?? []) this.members.delete(member);
        this.emit("members");
        break;
      case "left":
        // Too slow for a moment, or the store did not answer: the seat is still there.
        if (frame.reason === "slow" || frame.reason === "unavailable") setTimeout(() => this.enter(), 1000);
    }
  }

  #joined(frame) {
    if (frame.wipe) this.#stored = new Map();
    for (const [id, record] of Object.entries(frame.records ?? {})) this.#stored.set(id, record);
    for (const id of frame.removed ?? []) this.#stored.delete(id);
    for (const { member, presence } of frame.members ?? []) this.members.set(member, presence);
    if (frame.more) return;
    const first = this.#seq === null;
    this.#epoch = frame.epoch;
    // Publications that are replayed follow behind this frame.
    this.#position = frame.replaying ? frame.position - frame.replaying : frame.position;
    this.#out = this.#out.filter(({ seq }) => seq === null || seq >= frame.next_seq);
    this.#seq = first ? frame.next_seq : Math.max(this.#seq, frame.next_seq);
    for (const own of this.#out) {
      own.seq ??= this.#seq++;
      own.stored = false;
      this.#say(own);
    }
    this.#show();
    this.emit("members");
    this.#resolve(this);
  }

  #message(frame) {
    if (frame.position <= this.#position) return;
    // Positions are dense: those between are own ones, in the order of their seqs, whose confirmation is still to come.
    let between = frame.position - this.#position - 1;
    for (const own of this.#out) {
      if (between === 0) break;
      if (own.stored) continue;
      own.stored = true;
      apply(this.#stored, own.content);
      between -= 1;
    }
    this.#position = frame.position;
    apply(this.#stored, frame);
    if (frame.seq !== undefined) this.#out = this.#out.filter(({ seq }) => seq !== frame.seq);
    this.#show();
    if (frame.data !== undefined) this.emit("publication", frame);
  }

  #refused(frame) {
    if (frame.code === "gap" && frame.expected !== undefined) {
      for (const own of this.#out) if (own.seq >= frame.expected) this.#say(own);
      return;
    }
    this.#out = this.#out.filter(({ seq }) => seq !== frame.seq);
    this.#show();
    this.emit("refused", frame.code);
  }

  #settle(confirmed) {
    for (const own of this.#out) if (confirmed(own) && !own.stored) apply(this.#stored, own.content);
    this.#out = this.#out.filter((own) => !confirmed(own));
    this.#show();
  }

  #show() {
    this.records = new Map(this.#stored);
    for (const own of this.#out) if (!own.stored) apply(this.records, own.content);
    this.emit("change");
  }
}

/** Change records as a publication says: put, then patch, then remove. */
function apply(records, { put, patch, remove }) {
  for (const [id, record] of Object.entries(put ?? {})) records.set(id, record);
  for (const [id, properties] of Object.entries(patch ?? {})) {
    const record = { ...records.get(id) };
    for (const [key, value] of Object.entries(properties)) {
      if (value === null) delete record[key];
      else record[key] = value;
    }
    records.set(id, record);
  }
  for (const id of remove ?? []) records.delete(id);
}
