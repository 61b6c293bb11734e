// Errors of what goes over HTTP: blobs, jobs, histories, events.

import { SignaldError } from "./errors.js";

/** A request was refused, and asking again would not help. The fields are those of its problem document (RFC 9457). */
export class ApiRefused extends SignaldError {
  override name = "ApiRefused";
  readonly status: number;
  /** A stable word at its end, for programs. */
  readonly type: string;
  readonly title: string;
  readonly detail: string;

  constructor(status: number, type: string, title: string, detail: string) {
    super(detail ? `${status} ${title}: ${detail}` : `${status} ${title}`);
    this.status = status;
    this.type = type;
    this.title = title;
    this.detail = detail;
  }
}

/** There was no whole answer: refused, broken, or not in time. The request may have been done all the same. */
export class NoAnswer extends SignaldError {
  override name = "NoAnswer";
}

/**
 * The bytes of a blob could not be carried whole, and no refusal of signald is the reason.
 *
 * After an upload that was late the blob may be kept all the same: the same `key` finds it.
 */
export class BlobFailed extends SignaldError {
  override name = "BlobFailed";
  /** `late`: not in the time that the caller gave. `too_long`: more bytes than the caller takes. `changed`: other bytes than were announced. */
  readonly reason: "late" | "too_long" | "changed";

  constructor(reason: "late" | "too_long" | "changed", detail: string) {
    super(`${reason}: ${detail}`);
    this.reason = reason;
  }
}

/** A job has ended as `failed`, `cancelled` or `expired`. */
export class JobFailed extends SignaldError {
  override name = "JobFailed";
  readonly job: string;
  readonly state: string;
  /** Why, by the word of the worker or of signald; "" for none. */
  readonly code: string;

  constructor(job: string, state: string, code: string, message: string) {
    super(`the job is ${state}: ${code} ${message}`.replace(/[: ]+$/, ""));
    this.job = job;
    this.state = state;
    this.code = code;
  }
}
