// The records of a room as a member sees them. No I/O.
//
// Two layers. The *base* is the fold of all publications up to a position. Over it lie the own changes that are not confirmed, in their order.
// An own change goes into the base at its place in the room, so it is shown below a later one of another member as soon as the order is known.

import type { Fields } from "./room_events.js";

/** A change of records: put, then patch, then remove. */
export interface Change {
  puts: ReadonlyMap<string, Fields>;
  patches: ReadonlyMap<string, Fields>;
  removes: readonly string[];
}

const namesOf = ({ puts, patches, removes }: Change): Set<string> => new Set([...puts.keys(), ...patches.keys(), ...removes]);

function applied(change: Change, name: string, known: Fields | undefined): Fields | undefined {
  let fields = change.puts.get(name) ?? known;
  const patch = change.patches.get(name);
  if (patch) fields = Object.fromEntries(Object.entries({ ...fields, ...patch }).filter(([key, value]) => value !== null || !Object.hasOwn(patch, key)));
  return change.removes.includes(name) ? undefined : fields;
}

const sizeOf = (name: string, fields: Fields | undefined): number => (fields ? name.length + JSON.stringify(fields).length : 0);

export class RoomRecords {
  /** Characters of the base. */
  size = 0;
  readonly #base = new Map<string, Fields>();
  /** Id → the own changes of it that are not confirmed, oldest first. */
  readonly #over = new Map<string, Change[]>();

  /** The record `name` as it is shown. */
  get(name: string): Fields | undefined {
    let fields = this.#base.get(name);
    for (const change of this.#over.get(name) ?? []) fields = applied(change, name, fields);
    return fields;
  }

  /** All records, as they are shown now. */
  all(): Map<string, Fields> {
    const found = new Map(this.#base);
    for (const name of this.#over.keys()) {
      const fields = this.get(name);
      if (fields) found.set(name, fields);
      else found.delete(name);
    }
    return found;
  }

  /** Show an own change over all others. */
  show(change: Change): void {
    for (const name of namesOf(change)) this.#over.set(name, [...(this.#over.get(name) ?? []), change]);
  }

  /** Show an own change no longer: it is refused, or goes into the base. */
  hide(change: Change): void {
    for (const name of namesOf(change)) {
      const left = (this.#over.get(name) ?? []).filter((one) => one !== change);
      if (left.length) this.#over.set(name, left);
      else this.#over.delete(name);
    }
  }

  /** Apply what stands next in the room. */
  fold(change: Change): void {
    for (const name of namesOf(change)) this.keep(name, applied(change, name, this.#base.get(name)));
  }

  /** Set a record of the base; undefined: it is removed. */
  keep(name: string, fields: Fields | undefined): void {
    this.size += sizeOf(name, fields) - sizeOf(name, this.#base.get(name));
    if (fields) this.#base.set(name, fields);
    else this.#base.delete(name);
  }

  /** Forget the base. */
  wipe(): void {
    this.#base.clear();
    this.size = 0;
  }
}
