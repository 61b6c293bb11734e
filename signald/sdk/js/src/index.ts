export { connect, Client } from "./client.js";
export type { ClientEvents, ConnectOptions, Sent, Socket, State } from "./client.js";
export type { Backoff } from "./core/backoff.js";
export type { Bounds } from "./core/bounds.js";
export type { Timing } from "./core/client.js";
export type { SendOptions } from "./core/session.js";
export { Refused, SessionGone, SignaldError, Unsendable } from "./errors.js";
export type { HistoryEntry, Lifecycle, Message, StreamText } from "./events.js";
export type { KeyValueStore } from "./storage.js";
