// What an application is told.

/** A message of the worker. */
export interface Message {
  seq: number;
  /** A JSON value; a `Uint8Array` where `binary` is true. */
  data: unknown;
  kind?: string;
  binary: boolean;
  trace?: string;
  /** The stream that this message is a piece of. */
  stream?: string;
  attempt: number;
  end: boolean;
  outcome?: string;
  /** The id of the blob that it names. */
  blob?: string;
}

/** A stream of the worker as it is at one moment. */
export interface StreamText {
  readonly stream: string;
  readonly attempt: number;
  readonly text: string;
  /** `complete`, `failed`, `cancelled` or `interrupted`; null while it goes on. */
  readonly outcome: string | null;
  readonly kind: string | null;
  /** Something is missing in front of `text`. */
  readonly truncated: boolean;
  /** The last piece that is in it. */
  readonly seq: number;
}

/** An entry of the chat history, as the service tells it. */
export interface HistoryEntry {
  seq: number;
  from: "client" | "worker";
  data?: unknown;
  kind?: string;
  at_ms?: number;
  stream?: string;
  attempt?: number;
  outcome?: string;
  truncated?: boolean;
  [name: string]: unknown;
}

/** What happens to the session beside its messages. */
export type Lifecycle =
  | { type: "waiting" }
  | { type: "paired"; worker: string }
  | { type: "peer_away" }
  | { type: "peer_gone" }
  /** Another worker serves the session: what was not finished comes again, to that worker. */
  | { type: "replaced"; worker: string }
  /** The session is on another node, without a gap. */
  | { type: "handed_over"; hint: string | null }
  | { type: "disconnected"; code: number | null; reason: string }
  | { type: "resumed" }
  /** The credential runs out in `graceS` seconds, or was refused (null): give another one with `renewAuth`. */
  | { type: "auth_expiring"; graceS: number | null }
  /** The store of the service has lost these messages. */
  | { type: "log_lost"; from: number; to: number }
  /** The worker has everything up to `seq`. */
  | { type: "receipt"; seq: number }
  | { type: "realtime"; data: unknown }
  | { type: "gone"; reason: string };
