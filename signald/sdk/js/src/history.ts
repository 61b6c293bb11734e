// The chat history of a session, page by page, from its end to its beginning.

import { Api, type Fetch } from "./api.js";
import type { Client } from "./client.js";
import { notSignald, tableOf } from "./core/api.js";
import type { HistoryEntry } from "./events.js";

export { ApiRefused } from "./api_errors.js";

export interface HistoryPage {
  /** The oldest comes first. Each has `at`, when it arrived: an RFC 3339 text, or null. */
  readonly entries: readonly HistoryEntry[];
  /** What `before` of the next page is, which has older entries; null: there are none. */
  readonly next: string | null;
}

export interface HistoryOptions {
  /** 1 to 200; the service gives 50. */
  limit?: number;
  /** The `next` of the page before. */
  before?: string;
  signal?: AbortSignal;
  fetch?: Fetch;
}

/**
 * A page of the chat history: the last entries, or those before a page. It can be read for some minutes after the session has ended.
 *
 * @throws ApiRefused the service keeps none; SessionGone the session is over, and no node answers; RangeError connected without `api: true`
 */
export async function readHistory(client: Client, { limit, before, signal, fetch }: HistoryOptions = {}): Promise<HistoryPage> {
  const api = new Api(client, fetch);
  await api.ready();
  const asked = new URLSearchParams();
  if (limit !== undefined) asked.set("limit", String(limit));
  if (before !== undefined) asked.set("before", before);
  const answer = await api.request("GET", `/v1/sessions/${client.sessionId}/history?${asked}`, signal && { signal });
  const { entries, next = null } = tableOf(answer);
  if (!Array.isArray(entries) || (next !== null && typeof next !== "string")) throw notSignald(answer.status);
  return { entries, next };
}

/** All entries, the newest first. @throws as `readHistory` */
export async function* historyOf(client: Client, options: HistoryOptions = {}): AsyncGenerator<HistoryEntry> {
  for (let { before } = options; ; ) {
    const page = await readHistory(client, before === undefined ? options : { ...options, before });
    yield* [...page.entries].reverse();
    if (page.next === null || page.next === before) return;
    before = page.next;
  }
}
