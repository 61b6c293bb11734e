// Where a page keeps its session, so that a reload goes on with it.
//
// A duplicated tab has a copy of the storage of the tab that it was made of, whose page still lives and holds the session. A page that leaves
// marks its state as free. A state that is not free has a living page, or one that has crashed: a page that still lives answers when asked.

import type { ClientState } from "./core/client.js";
import type { Body } from "./core/session.js";

/** The part of `sessionStorage` that is used. */
export interface KeyValueStore {
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** What is kept: the state of the session, and messages that have no number yet. */
export interface Saved {
  state: ClientState | null;
  early: Body[];
}

interface Stored extends Saved {
  format: 1;
  owner: string;
  /** The page that has written it has left. */
  free: boolean;
}

/** How long a page that lives may take for its answer. A new session would cost a history; a wait is a quarter of a second, once after a crash. */
const ANSWER_MS = 250;

/** Bytes stand in a storage as base64. */
function packed(body: Body): unknown {
  if (typeof body.data === "string") return body;
  let text = "";
  for (const byte of body.data) text += String.fromCharCode(byte);
  return { fields: body.fields, bytes: btoa(text) };
}

function unpacked(body: Body | { fields: string; bytes: string }): Body {
  if (!("bytes" in body)) return body;
  return { fields: body.fields, data: Uint8Array.from(atob(body.bytes), (one) => one.charCodeAt(0)) };
}

export class Keeper {
  readonly store: KeyValueStore | null;
  readonly #key: string;
  readonly #owner = Math.random().toString(36).slice(2);
  #channel: BroadcastChannel | null = null;
  #answered: (owner: string) => void = () => {};
  #last = "";

  constructor(store: KeyValueStore | null, key: string) {
    this.store = store;
    this.#key = key;
  }

  /** What the page before has left, if no living page holds it. */
  async load(): Promise<Saved | null> {
    const stored = this.#read();
    if (stored === null) return null;
    if (!stored.free && (await this.#lives(stored.owner))) return null;
    return { state: stored.state && { ...stored.state, unacked: stored.state.unacked.map(unpacked) }, early: stored.early.map(unpacked) };
  }

  /** Keep `saved`. `free`: this page leaves. A storage that is full or forbidden keeps nothing, and the session goes on without it. */
  save(saved: Saved, free = false): void {
    if (this.store === null) return;
    const state = saved.state && { ...saved.state, unacked: saved.state.unacked.map(packed) };
    const text = JSON.stringify({ format: 1, owner: this.#owner, free, state, early: saved.early.map(packed) });
    if (text === this.#last) return;
    try {
      this.store.setItem(this.#key, text);
      this.#last = text;
      this.#listen();
    } catch {
      // QuotaExceededError, or a page without storage.
    }
  }

  /** This page holds the session no more. `forget`: it is over, and nothing is to be taken up. */
  end(forget: boolean): void {
    this.#channel?.close();
    this.#channel = null;
    try {
      if (forget && this.#last) this.store?.removeItem(this.#key);
    } catch {
      // as in `save`
    }
  }

  #read(): Stored | null {
    try {
      const text = this.store?.getItem(this.#key);
      const stored: Stored | null = text ? JSON.parse(text) : null;
      return stored?.format === 1 ? stored : null;
    } catch {
      return null; // what another program has written there is no state
    }
  }

  /** Hear of the other pages with this key, and answer one that asks whether this page lives. */
  #listen(): BroadcastChannel | null {
    if (this.#channel === null && typeof BroadcastChannel !== "undefined") {
      this.#channel = new BroadcastChannel(`signald:${this.#key}`);
      (this.#channel as { unref?: () => void }).unref?.();
      this.#channel.onmessage = ({ data: { asks, lives } }) => {
        if (asks === this.#owner) this.#channel?.postMessage({ lives: asks });
        this.#answered(lives);
      };
    }
    return this.#channel;
  }

  #lives(owner: string): Promise<boolean> {
    return new Promise((resolve) => {
      this.#answered = (other) => other === owner && resolve(true);
      this.#listen()?.postMessage({ asks: owner });
      setTimeout(() => resolve(false), ANSWER_MS);
    });
  }
}
