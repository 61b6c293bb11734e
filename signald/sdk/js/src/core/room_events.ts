// What a room tells an application, in the order of the room. No I/O.

/** The properties of a record. */
export type Fields = Readonly<Record<string, unknown>>;

/** What another member or a service (`member` is empty) has published, other than a change of records. */
export interface RoomPublication {
  type: "publication";
  position: number;
  member: string;
  /** When it was stored, in milliseconds since 1970. */
  atMs: number;
  /** A JSON value; a `Uint8Array` where `binary` is true. */
  data: unknown;
  kind?: string;
  binary: boolean;
}

/** Another member or a service has changed records. `room.records` shows it already, below own changes that are not stored yet. */
export interface RecordsChanged {
  type: "records";
  position: number;
  member: string;
  atMs: number;
  put: Readonly<Record<string, Fields>>;
  /** The properties that were set; those that are null were removed. */
  patch: Readonly<Record<string, Fields>>;
  removed: readonly string[];
}

export type RoomEvent =
  | RoomPublication
  | RecordsChanged
  /** A snapshot of opaque updates, or one update behind it: what a member that joins is to apply, in this order. */
  | { type: "update"; position: number; data: Uint8Array; kind?: string; snapshot: boolean }
  | { type: "members"; joined: readonly string[]; changed: readonly string[]; left: readonly string[] }
  /** One of the own publications is not stored, and the others go on. */
  | { type: "refused"; number: number; code: string }
  /** What was missed is not to be had: a state that was made from events begins anew at `position`. `lost`: the store has lost the room. */
  | { type: "reset"; position: number; lost: boolean }
  /** The application was too far behind, and events were dropped here. `room.records` and `room.members` are right all the same. */
  | { type: "lagged"; missed: number; position: number };
