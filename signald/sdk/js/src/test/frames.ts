// Frames as a service writes and reads them.

import type { SocketData } from "./socket.js";

/** A message in the names of the wire. */
// biome-ignore lint: a service of tests believes its client
export type Fields = Record<string, any>;

/** A frame: of text, or of bytes behind its header where `data` is bytes. */
export function frame(fields: Fields, data?: unknown): SocketData {
  if (!(data instanceof Uint8Array)) return JSON.stringify(data === undefined ? fields : { ...fields, data });
  const head = new TextEncoder().encode(JSON.stringify(fields));
  const bytes = new Uint8Array(2 + head.length + data.length);
  bytes.set([head.length >> 8, head.length & 255]);
  bytes.set(head, 2);
  bytes.set(data, 2 + head.length);
  return bytes;
}

/** What a client has said: its message, and its data. */
export function read(said: SocketData): [Fields, unknown] {
  if (typeof said === "string") {
    const message: Fields = JSON.parse(said);
    return [message, message["data"]];
  }
  const end = 2 + said[0]! * 256 + said[1]!;
  return [JSON.parse(new TextDecoder().decode(said.subarray(2, end))), said.slice(end)];
}
