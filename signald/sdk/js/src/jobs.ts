// The jobs of a client: submitted and read over HTTP at the node of its connection, told over the connection.

import { Api, type Fetch, newKey, sleep, uniform } from "./api.js";
import { JobFailed } from "./api_errors.js";
import type { Client } from "./client.js";
import { delayS, notSignald, tableOf } from "./core/api.js";
import { checkKey, CONTENT_TYPE_MAX, OCTETS } from "./core/blobs.js";
import type { ClientCore } from "./core/client.js";
import { ClientJobs, isJobOf, isOver, type JobPart } from "./core/jobs.js";
import { checkText, KIND_MAX, write } from "./core/values.js";
import { SessionGone, Unsendable } from "./errors.js";

export { ApiRefused, JobFailed } from "./api_errors.js";
export type { JobPart } from "./core/jobs.js";

const STATES: readonly unknown[] = ["queued", "running", "succeeded", "failed", "cancelled", "expired"];

export interface SubmitOptions {
  /** However often a job is submitted with one key, there is one: 1 to 255 visible characters. */
  key?: string;
  /** The job expires after so many seconds. */
  deadlineS?: number;
  /** Of bytes; `application/octet-stream` without one. */
  contentType?: string;
  signal?: AbortSignal;
}

const made = new WeakMap<Client, Jobs>();

/**
 * The jobs of a client that was connected with `api: true`; always the same object. From the first call on, messages of jobs do not come to
 * `client.on("message", ...)` any more: call it at once behind `connect`.
 */
export function jobs(client: Client, { fetch }: { fetch?: Fetch } = {}): Jobs {
  let found = made.get(client);
  if (!found) made.set(client, (found = new Jobs(client, new Api(client, fetch))));
  return found;
}

class Jobs {
  readonly #client: Client;
  readonly #api: Api;
  readonly #core: () => ClientCore;
  readonly #known: ClientJobs;
  readonly #parked = new Set<() => void>();

  constructor(client: Client, api: Api) {
    this.#client = client;
    this.#api = api;
    let of!: () => ClientCore;
    const known = new ClientJobs(() => of().sessionId ?? "");
    client.extend((core) => {
      of = core;
      return { extension: known, tell: () => this.#tell() };
    });
    this.#core = of;
    this.#known = known;
  }

  #tell(): void {
    for (const wake of [...this.#parked]) wake();
  }

  /**
   * Submit a job of the session, exactly once. `data` is a JSON value or a `Uint8Array`.
   *
   * @throws ApiRefused the service takes no more of them, or not this one; SessionGone; Unsendable wrong data or options
   */
  async submit(kind: string, data: unknown, { key, deadlineS, contentType, signal }: SubmitOptions = {}): Promise<Job> {
    checkText("kind", kind, KIND_MAX, 1);
    checkText("contentType", contentType, CONTENT_TYPE_MAX, 1);
    if (deadlineS !== undefined && !(Number.isFinite(deadlineS) && deadlineS > 0)) throw new Unsendable("`deadlineS` is a number above 0");
    const asked = { kind, ...(deadlineS !== undefined && { deadline_ms: Math.max(1, Math.round(deadlineS * 1000)) }) };
    const headers: Record<string, string> = { "idempotency-key": key === undefined ? newKey() : checkKey(key) };
    let target = "/v1/jobs";
    let body: Uint8Array | string;
    if (data instanceof Uint8Array) {
      target += `?${new URLSearchParams(Object.entries(asked).map(([name, value]) => [name, String(value)]))}`;
      headers["content-type"] = contentType ?? OCTETS;
      body = data.slice(); // a later try sends the same
    } else {
      headers["content-type"] = "application/json";
      // The object of the body is the first level.
      body = `${JSON.stringify(asked).slice(0, -1)},"data":${write(data, this.#core().bounds.jsonDepthMax - 1)}}`;
    }
    const answer = await this.#api.request("POST", target, { headers, body, ...(signal && { signal }) });
    const name: unknown = tableOf(answer)["job"];
    if (typeof name !== "string" || !this.#isOwn(name)) throw notSignald(answer.status);
    return new Job(this.#client, this.#api, this.#known, this.#parked, name);
  }

  /** A job of this session by its id, for instance after a reload. @throws Unsendable it is no id of one */
  job(id: string): Job {
    if (!this.#isOwn(id)) throw new Unsendable("this is no id of a job of the session");
    return new Job(this.#client, this.#api, this.#known, this.#parked, id);
  }

  #isOwn(name: string): boolean {
    return isJobOf(this.#client.sessionId ?? "", name);
  }
}

export type { Jobs };

/** A job of this client. Its parts are read by `for await`: one reader. */
export class Job implements AsyncIterable<JobPart> {
  readonly id: string;
  readonly #client: Client;
  readonly #api: Api;
  readonly #jobs: ClientJobs;
  readonly #parked: Set<() => void>;

  /** @internal */
  constructor(client: Client, api: Api, known: ClientJobs, parked: Set<() => void>, id: string) {
    this.id = id;
    this.#client = client;
    this.#api = api;
    this.#jobs = known;
    this.#parked = parked;
  }

  /** `queued`, `running`, `succeeded`, `failed`, `cancelled` or `expired`, as far as it was told. */
  get state(): string {
    return this.#jobs.get(this.id).state;
  }

  /** How often it was given to a worker, the present time included. */
  get attempt(): number {
    return this.#jobs.get(this.id).attempt;
  }

  /** What its worker has said last of how far it is, or null. */
  get progress(): unknown {
    return this.#jobs.get(this.id).progress;
  }

  /**
   * Wait for the end of the job; its result is a JSON value or a `Uint8Array`.
   *
   * @throws JobFailed it has ended otherwise than by success; ApiRefused it is kept no longer; SessionGone the session is over, and no node tells
   */
  async result({ signal }: { signal?: AbortSignal } = {}): Promise<unknown> {
    const cut = signal ? { signal } : {};
    await this.#api.ready();
    for (let tries = 0; ; tries++) {
      while (!this.#jobs.isOver(this.#jobs.get(this.id)) && !this.#isGone) await this.#news(signal);
      const answer = await this.#api.request("GET", `/v1/jobs/${this.id}`, cut);
      const shown = tableOf(answer);
      if (!STATES.includes(shown["state"])) throw notSignald(answer.status);
      if (isOver(shown["state"])) {
        this.#jobs.get(this.id).state = shown["state"];
        if (shown["state"] !== "succeeded") throw this.#failed(shown["state"], shown["error"]);
        if (shown["result_url"] === undefined) return shown["result"] ?? null;
        return (await this.#api.request("GET", `/v1/jobs/${this.id}/result`, cut)).body;
      }
      if (this.#isGone) throw (await this.#client.closed) ?? new SessionGone(null, "ended");
      await sleep(delayS(tries, uniform), signal);
    }
  }

  #failed(state: string, error: { code?: unknown; message?: unknown } | undefined): JobFailed {
    return new JobFailed(this.id, state, String(error?.code ?? ""), String(error?.message ?? ""));
  }

  /** Ask for the end of the job; `result` tells what came of it. @throws ApiRefused it is kept no longer; SessionGone */
  async cancel({ signal }: { signal?: AbortSignal } = {}): Promise<void> {
    await this.#api.request("DELETE", `/v1/jobs/${this.id}`, signal ? { signal } : {});
  }

  /** The parts of the result as they come, until the end of the job or of the session. A higher attempt begins anew. */
  async *[Symbol.asyncIterator](): AsyncIterator<JobPart> {
    for (;;) {
      for (let part = this.#take(); part !== null; part = this.#take()) yield part;
      if (this.#jobs.isOver(this.#jobs.get(this.id)) || this.#isGone) return;
      await this.#news();
    }
  }

  #take(): JobPart | null {
    return this.#jobs.take(this.#jobs.get(this.id));
  }

  get #isGone(): boolean {
    return this.#client.state === "closed";
  }

  /** Wait until a job may have changed. */
  #news(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (): void => {
        this.#parked.delete(wake);
        signal?.removeEventListener("abort", cut);
      };
      const wake = (): void => {
        end();
        resolve();
      };
      const cut = (): void => {
        end();
        reject(signal!.reason);
      };
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      signal?.addEventListener("abort", cut);
      this.#parked.add(wake);
    });
  }
}
