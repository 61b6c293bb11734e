// The jobs of a session as its client sees them. No I/O.
//
// What is told comes by `job_state`, by the messages of the job's stream, and at a resume. The result itself is read over HTTP.

import { LinkBroken } from "../errors.js";
import type { Extension } from "./client.js";
import { fits, isKnown, type Wire } from "./frames.js";

/** Jobs that are known; the oldest that is over is forgotten, and whatever is asked about it is asked over HTTP. */
const KEPT_MAX = 256;
/** Bytes of parts that wait for the application, over all jobs: sixteen of the longest results. Above it the oldest job loses its parts. */
const PARTS_BYTES_MAX = 16 * 1024 * 1024;
/** Digits of the number of a job. */
const DIGITS_MAX = 16;

const OVER: ReadonlySet<string> = new Set(["succeeded", "failed", "cancelled", "expired"]);

export const isOver = (state: string): boolean => OVER.has(state);

/** A part of the result, as its worker said it. A higher attempt begins anew. */
export interface JobPart {
  readonly attempt: number;
  /** A text that is to be joined with the others, any JSON value, or a `Uint8Array`. */
  readonly data: unknown;
}

/** What is known of one job. */
export interface KnownJob {
  state: string;
  attempt: number;
  /** What its worker has said last of how far it is, or null. */
  progress: unknown;
  /** The worker's last message of it is here. */
  saidLast: boolean;
  /** Those of this attempt that the application has not taken, each with its bytes. */
  parts: [JobPart, number][];
}

/** `name` is the id of a job of `session`. */
export function isJobOf(session: string, name: string): boolean {
  const head = `j_${session.replace(/^s_/, "")}_`;
  return session !== "" && name.startsWith(head) && /^[1-9]\d*$/.test(name.slice(head.length)) && name.length - head.length <= DIGITS_MAX;
}

const JOB = "job text state text attempt position";
const SHAPES: Readonly<Record<string, string>> = { job_state: JOB };

export class ClientJobs implements Extension {
  readonly #session: () => string;
  readonly #jobs = new Map<string, KnownJob>();
  #bytes = 0;

  constructor(session: () => string) {
    this.#session = session;
  }

  /** What is known of a job, from now on if it is new. */
  get(name: string): KnownJob {
    let job = this.#jobs.get(name);
    if (job === undefined) {
      if (this.#jobs.size >= KEPT_MAX) {
        const all = [...this.#jobs];
        const [oldest, known] = all.find(([, one]) => this.isOver(one)) ?? all[0]!;
        this.#jobs.delete(oldest);
        this.#drop(known);
      }
      job = { state: "queued", attempt: 0, progress: null, saidLast: false, parts: [] };
      this.#jobs.set(name, job);
    }
    return job;
  }

  isOver(job: KnownJob): boolean {
    return job.saidLast || isOver(job.state);
  }

  #drop(job: KnownJob): void {
    for (const [, size] of job.parts) this.#bytes -= size;
    job.parts.length = 0;
  }

  /** It is a message of a job: it does not come out of the conversation. */
  isOwn(message: Wire): boolean {
    return typeof message["stream"] === "string" && isJobOf(this.#session(), message["stream"]);
  }

  receive(message: Wire, binary: Uint8Array | null, size: number): void {
    if (message.type === "message") this.#message(message, binary, size);
    else if (isKnown(message, SHAPES)) this.#state(message);
  }

  #message(message: Wire, binary: Uint8Array | null, size: number): void {
    const job = this.get(message["stream"]);
    const attempt: number = message["attempt"] || 1;
    if (attempt < job.attempt) return;
    this.#at(job, attempt);
    const data: unknown = binary ?? message["data"] ?? null;
    if (data !== null && message["error"] == null) {
      job.parts.push([{ attempt, data }, size]);
      this.#bytes += size;
    }
    for (const one of this.#jobs.values()) {
      if (this.#bytes <= PARTS_BYTES_MAX) break;
      this.#drop(one);
    }
    job.saidLast ||= message["end"] === true;
  }

  #at(job: KnownJob, attempt: number): void {
    if (attempt <= job.attempt) return;
    this.#drop(job);
    job.attempt = attempt;
    job.saidLast = false;
  }

  /** Take what the service tells of a job, as it changes or at a resume. An end is never taken back. */
  #state(told: Record<string, any>): void {
    if (!isJobOf(this.#session(), told["job"])) return;
    const job = this.get(told["job"]);
    if (isOver(job.state)) return;
    this.#at(job, told["attempt"]);
    job.state = told["state"];
    if ("progress" in told) job.progress = told["progress"];
  }

  /** Jobs stand in the answer of a resume, and nothing of them in the opening message. */
  attach(answer: Wire): void {
    const jobs: unknown = answer["jobs"] ?? [];
    if (!Array.isArray(jobs) || !jobs.every((one) => fits(one, JOB))) throw new LinkBroken("bad `jobs`");
    for (const one of jobs) this.#state(one);
  }

  opens(): object {
    return {};
  }

  write(): void {}

  wakeAt(): number {
    return Infinity;
  }

  end(): void {}

  /** The next part for the application, or null. */
  take(job: KnownJob): JobPart | null {
    const next = job.parts.shift();
    if (next === undefined) return null;
    this.#bytes -= next[1];
    return next[0];
  }
}
