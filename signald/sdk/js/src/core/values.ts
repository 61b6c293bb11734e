// The values of an application as JSON: a value that a node would refuse is refused here. No I/O.

import { Unsendable } from "../errors.js";

export const SEQ_MAX = Number.MAX_SAFE_INTEGER;
export const KIND_MAX = 64;
export const REASON_MAX = 512;
export const TRACE_MAX = 256;
export const STREAM_MAX = 64;
export const BLOB_MAX = 64;
export const HISTORY_MAX = 1000;
export const SECRET_MAX = 8192;

const encoder = new TextEncoder();

/** The bytes of a text in UTF-8. */
export function bytesOf(text: string): number {
  return encoder.encode(text).length;
}

/** Tell whether a JSON text has more than `most` levels. A text that is no JSON may be told either way. */
export function isTooDeep(text: string, most: number): boolean {
  if (text.length < 2 * most) return false;
  let depth = 0;
  let quoted = false;
  for (let at = 0; at < text.length; at++) {
    const one = text[at];
    if (one === '"') quoted = !quoted;
    else if (quoted) at += one === "\\" ? 1 : 0;
    else if (one === "[" || one === "{") {
      if (++depth > most) return true;
    } else if (one === "]" || one === "}") depth -= 1;
  }
  return false;
}

function plain(this: any, name: string, value: unknown): unknown {
  // JSON.stringify would write null for a number that is none, and leave a function out.
  const odd = typeof value === "number" ? !Number.isFinite(value) : /^(function|symbol)/.test(typeof value);
  if (odd || ArrayBuffer.isView(this[name]) || this[name] instanceof ArrayBuffer) throw new Unsendable(`not JSON: \`${name}\``);
  return value;
}

/**
 * `data` as JSON, which may be `depthMax` levels deep.
 *
 * @throws Unsendable not JSON (NaN, a function, bytes within a value, ...), or too deep
 */
export function write(data: unknown, depthMax: number): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(data, plain);
  } catch (error) {
    throw error instanceof Unsendable ? error : new Unsendable(`not JSON: ${error}`); // a circle, a bigint
  }
  if (text === undefined) throw new Unsendable("not JSON: undefined");
  if (isTooDeep(text, depthMax)) throw new Unsendable(`more than ${depthMax} levels`);
  return text;
}

/** @throws Unsendable no text, too long, or half of a surrogate pair in it */
export function checkText(name: string, value: unknown, most: number, least = 0): void {
  if (value === undefined || value === null) return;
  if (typeof value !== "string") throw new Unsendable(`\`${name}\` is no text`);
  // Characters as the service counts them: code points.
  const length = value.length <= most ? value.length : [...value].length;
  if (length < least || length > most) throw new Unsendable(`\`${name}\` has ${least} to ${most} characters`);
  if (/\p{Surrogate}/u.test(value)) throw new Unsendable(`\`${name}\` holds half of a surrogate pair`);
}
