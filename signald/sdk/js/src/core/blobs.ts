// The blobs of a session as a client uploads and reads them: what is said, and what an answer means. No I/O.
//
//     upload   one POST, with the digest and the length of its bytes and one key: however often it is made, one blob is kept
//     reading  GET of a range; an answer that breaks off is followed by another GET, of the bytes that are missing

import { ApiRefused, BlobFailed } from "../api_errors.js";
import { Unsendable } from "../errors.js";
import { type Answer, notSignald, tableOf } from "./api.js";
import { Sha256 } from "./sha256.js";
import { BLOB_MAX } from "./values.js";

export const OCTETS = "application/octet-stream";
/** What is read into memory unless told otherwise: above a node's own bound for a blob (`blobs.bytes_max`, 10 MiB). */
export const READ_BYTES_MAX = 16 * 1024 * 1024;
export const CONTENT_TYPE_MAX = 128;

const WORD = "[A-Za-z0-9!#$%&'*+.^_`|~-]+";
/** RFC 9110, section 8.3.1, as signald takes it. */
const MEDIA_TYPE = new RegExp(`^${WORD}/${WORD}(?: ?; ?${WORD}=(?:${WORD}|"[\\x20\\x21\\x23-\\x5b\\x5d-\\x7e]*"))*$`);
const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/;
const BEHIND_THE_END = /^bytes \*\/(\d{1,15})$/;
const DIGEST = /(?:^|[ ,])sha-256=:([A-Za-z0-9+/]{43}=):/;

/** A blob that signald keeps. */
export interface KeptBlob {
  readonly id: string;
  /** Of its bytes. */
  readonly size: number;
  readonly contentType: string;
  /** In hexadecimal. */
  readonly sha256: string;
  /** When it is removed: an RFC 3339 text in UTC. */
  readonly expiresAt: string;
}

/** A key of the application. @throws Unsendable signald would refuse it */
export function checkKey(key: string): string {
  if (!/^[!-~]{1,255}$/.test(key)) throw new Unsendable("`key` has 1 to 255 visible characters");
  return key;
}

/** The content type of an upload. @throws Unsendable signald would refuse it */
export function checkContentType(contentType: string): string {
  if (contentType.length > CONTENT_TYPE_MAX || !MEDIA_TYPE.test(contentType)) {
    throw new Unsendable(`\`contentType\` is no media type of up to ${CONTENT_TYPE_MAX} characters`);
  }
  return contentType;
}

const isId = (blob: unknown): blob is string => typeof blob === "string" && /^b_[\w-]+$/.test(blob) && blob.length <= BLOB_MAX;

/** The target of a request for a blob, or for all of them (""). @throws ApiRefused a peer has named what is no id; it would lead elsewhere */
export function targetOf(blob: string): string {
  if (blob && !isId(blob)) throw new ApiRefused(404, "about:blank", "there is no such blob", "the id is none");
  return blob ? `/v1/blobs/${blob}` : "/v1/blobs";
}

export function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What an upload says of its bytes, the same for each try. */
export class Sending {
  readonly #length: number;
  readonly #sha256: Uint8Array;
  readonly #contentType: string;
  readonly #key: string;

  constructor(length: number, sha256: Uint8Array, contentType: string, key: string) {
    this.#length = length;
    this.#sha256 = sha256;
    this.#contentType = contentType;
    this.#key = key;
  }

  headers(): Record<string, string> {
    return { "content-type": this.#contentType, "content-digest": `sha-256=:${base64(this.#sha256)}:`, "idempotency-key": this.#key };
  }

  /** The blob of an answer of success. @throws ApiRefused it tells of none that has these bytes */
  kept(answer: Answer): KeptBlob {
    const { blob, bytes, content_type: contentType, sha256, expires_at: expiresAt = "" } = tableOf(answer);
    if (!isId(blob) || bytes !== this.#length || sha256 !== hex(this.#sha256)) throw notSignald(answer.status);
    if (typeof contentType !== "string" || typeof expiresAt !== "string") throw notSignald(answer.status);
    return { id: blob, size: bytes, contentType, sha256, expiresAt };
  }

  /** The error for the application when an upload was refused. */
  refused(error: unknown): unknown {
    if (!(error instanceof ApiRefused) || error.status !== 400 || !error.type.endsWith("wrong-digest")) return error;
    return new BlobFailed("changed", "the bytes were others when they were sent than when they were counted");
  }
}

type Headers = Readonly<Record<string, string>>;

/** The bytes of a blob from `start` to `end` (not included; null: to its last byte), in order, over as many answers as it takes. */
export class Reading {
  position: number;
  /** Of the whole blob; null until it is known. */
  size: number | null = null;
  contentType = OCTETS;
  #start: number;
  readonly #wantedEnd: number | null;
  /** Bytes of this answer that are here already. */
  #skip = 0;
  readonly #hash: Sha256 | null;
  #digest = "";

  /** @throws RangeError there can be no such bytes */
  constructor(start: number, end: number | null) {
    const whole = (one: number): boolean => Number.isSafeInteger(one);
    if (!whole(start) || start < 0 || (end !== null && !(whole(end) && end > start))) {
      throw new RangeError("a part of a blob begins at 0 or later, and ends behind its start");
    }
    this.#start = this.position = start;
    this.#wantedEnd = end;
    this.#hash = start === 0 && end === null ? new Sha256() : null;
  }

  /** Where the bytes end; null while that is not known. */
  get end(): number | null {
    if (this.size === null) return this.#wantedEnd;
    return Math.max(this.#start, this.#wantedEnd === null ? this.size : Math.min(this.#wantedEnd, this.size));
  }

  /** All bytes are here. */
  get over(): boolean {
    return this.size !== null && this.position === this.end;
  }

  /** The headers of the next request. */
  headers(): Record<string, string> {
    const said: Record<string, string> = { "accept-encoding": "identity" };
    if (this.position || this.#wantedEnd !== null) said["range"] = `bytes=${this.position}-${this.#wantedEnd === null ? "" : this.#wantedEnd - 1}`;
    return said;
  }

  /** Take the head of an answer; false when it brings no bytes and none of what was asked for. @throws BlobFailed it brings others */
  begin(status: number, headers: Headers): boolean {
    if ((headers["content-encoding"] ?? "identity") !== "identity") throw new BlobFailed("changed", "the answer is encoded, which was not asked for");
    const range = headers["content-range"] ?? "";
    const [, first, , whole] = CONTENT_RANGE.exec(range) ?? [];
    const [, behind] = BEHIND_THE_END.exec(range) ?? [];
    const length = headers["content-length"] ?? "";
    let size: number;
    if (status === 206 && first !== undefined) {
      if (Number(first) !== this.position) throw new BlobFailed("changed", `the answer begins at byte ${first}, and not at ${this.position}`);
      this.#skip = 0;
      size = Number(whole);
    } else if (status === 200 && /^\d{1,15}$/.test(length)) {
      // What does not know of ranges sends all of it.
      this.#skip = this.position;
      size = Number(length);
    } else if (status === 416 && behind !== undefined) {
      size = Number(behind);
      if (size > this.position) return false;
      if (this.size === null) this.#start = this.position = size;
      else this.#start = this.position;
    } else return false;
    this.#is(size, headers);
    if (status !== 416) this.contentType = headers["content-type"] ?? OCTETS;
    return true;
  }

  #is(size: number, headers: Headers): void {
    const digest = DIGEST.exec(headers["repr-digest"] ?? "")?.[1] ?? this.#digest;
    if ((this.size !== null && this.size !== size) || (this.#digest && this.#digest !== digest)) {
      throw new BlobFailed("changed", "another answer brings other bytes");
    }
    this.size = size;
    this.#digest = digest;
  }

  /** Take bytes of the answer; return those that are wanted. @throws BlobFailed with these the blob is whole, and its digest is another one */
  took(piece: Uint8Array): Uint8Array {
    const skipped = Math.min(this.#skip, piece.length);
    this.#skip -= skipped;
    const { end } = this;
    const wanted = piece.subarray(skipped, end === null ? undefined : skipped + end - this.position);
    this.position += wanted.length;
    if (this.#hash !== null && wanted.length) {
      this.#hash.update(wanted);
      if (this.over && this.#digest && base64(this.#hash.digest()) !== this.#digest) {
        throw new BlobFailed("changed", "the bytes have not the digest of the blob");
      }
    }
    return wanted;
  }
}
