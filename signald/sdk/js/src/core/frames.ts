// Frames of signald.v1: what comes is checked, so that a bad frame breaks its connection and nothing else. No I/O.

import { LinkBroken } from "../errors.js";
import { isTooDeep, SEQ_MAX } from "./values.js";

/** What is written: a text, or bytes with a JSON header in front. */
export type Frame = string | Uint8Array;

/** A message as it came; the names are those of the wire. */
// biome-ignore lint: fields are checked by SHAPES, by the type of the message
export type Wire = { type: string } & Record<string, any>;

/** Field and kind, one behind the other; a field with `?` may be missing. Fields that nothing here reads are left out. */
export type Shape = string;

const OPENED = "session text recovery_token secret heartbeat_ms int peer peer api_token? secret ";

const SHAPES: Readonly<Record<string, Shape>> = {
  session_started: `${OPENED}next_seq seq limits limits`,
  session_restored: `${OPENED}accepted position limits? limits chat_history? list`,
  message: "seq seq kind? text trace? text stream? text attempt? int fold? text end? bool outcome? text blob? text",
  ack: "seq position",
  receipt: "seq position",
  realtime: "",
  ping: "",
  pong: "",
  error: "code text message text fatal? bool retry_after_ms? int expected? int lost_from? int lost_to? int",
  goaway: "deadline_ms int not_before_ms? int target? text ticket? text",
  session_ended: "reason text",
  api_token: "api_token secret",
  peer: "state state id? text",
  stream_state: "stream text attempt int outcome text",
};

const whole = (value: any, least: number): boolean => Number.isSafeInteger(value) && value >= least;

const KINDS: Readonly<Record<string, (value: any) => boolean>> = {
  text: (value) => typeof value === "string",
  secret: (value) => typeof value === "string" && value !== "",
  seq: (value) => whole(value, 1),
  position: (value) => whole(value, 0),
  int: (value) => whole(value, -SEQ_MAX),
  number: (value) => typeof value === "number",
  bool: (value) => typeof value === "boolean",
  list: Array.isArray,
  limits: (value) => fits(value, "message_bytes position messages_per_s number messages_burst position backlog_messages position json_depth? position"),
  peer: (value) => fits(value, "state state id? text"),
  table: isTable,
  state: (value) => ["waiting", "paired", "away", "replaced", "gone", "none"].includes(value),
};

export function isTable(value: unknown): value is Wire {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Each field of a shape as its name, whether it may be missing, and its check. */
const compiled = new Map<Shape, [string, boolean, (value: any) => boolean][]>();

function compile(shape: Shape): [string, boolean, (value: any) => boolean][] {
  const fields = [...shape.matchAll(/(\w+)(\??) (\w+)/g)].map(([, name, optional, kind]) => [name!, optional === "?", KINDS[kind!]!] as [string, boolean, (value: any) => boolean]);
  compiled.set(shape, fields);
  return fields;
}

export function fits(value: unknown, shape: Shape): boolean {
  if (!isTable(value)) return false;
  return (compiled.get(shape) ?? compile(shape)).every(([name, optional, check]) => (optional && value[name] == null) || check(value[name]));
}

/** A node takes 32 levels by default; a reader of the value (an application's own recursion) must not run out of stack. */
const DEPTH_MAX = 1000;

const decoder = new TextDecoder("utf-8", { fatal: true });

/** `shapes` know the type of a message. A newer signald may say more than this SDK knows. @throws LinkBroken its fields are not those */
export function isKnown(message: Wire, shapes: Readonly<Record<string, Shape>>): boolean {
  if (!Object.hasOwn(shapes, message.type)) return false;
  if (!fits(message, shapes[message.type]!)) throw new LinkBroken(`a bad \`${message.type}\``);
  return true;
}

/**
 * One frame as (its message, the data of a binary frame). The fields of a type that is unknown here are not checked.
 *
 * @throws LinkBroken not a frame of signald.v1
 */
export function decode(frame: Frame): [Wire, Uint8Array | null] {
  let message: unknown = null;
  let binary: Uint8Array | null = null;
  try {
    let text = frame as string;
    if (typeof frame !== "string") {
      const end = 2 + frame[0]! * 256 + frame[1]!;
      if (!(end <= frame.length)) throw null;
      binary = frame.subarray(end);
      text = decoder.decode(frame.subarray(2, end));
    }
    if (!isTooDeep(text, DEPTH_MAX)) message = JSON.parse(text);
  } catch {
    // told below
  }
  if (!isTable(message) || typeof message.type !== "string") throw new LinkBroken("a bad frame");
  isKnown(message, SHAPES);
  return [message, binary];
}

/** A binary frame: a header, behind its length, and the data. */
export function binaryFrame(header: string, data: Uint8Array): Uint8Array {
  const head = new TextEncoder().encode(header);
  const frame = new Uint8Array(2 + head.length + data.length);
  frame[0] = head.length >> 8;
  frame[1] = head.length & 255;
  frame.set(head, 2);
  frame.set(data, 2 + head.length);
  return frame;
}
