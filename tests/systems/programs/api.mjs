// Requests to the HTTP API, as a page makes them with `fetch`. Written from docs/http.md alone.

import { say } from './page.mjs'

const PATIENCE_MS = 60000
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** Make `request(method, path, {headers, body, again, whole})` for the service at the WebSocket URL `url`. A `body` that comes in pieces
 * is a function that makes it, because each try needs it from the start.
 *
 * `token()` gives the bearer of now. What says "come again" is asked again: 429, 503, 409 with Retry-After, a token that has run
 * out, and a connection that broke, before the answer or in the middle of it, which each POST survives by its key. An answer is
 * `whole` when it comes, unless it is to be read piece by piece. */
export function api(url, token) {
  const base = url.replace(/^ws/, 'http')
  return async function request(method, path, { headers = {}, body, again = true, whole = true } = {}) {
    // From the first time on that it has to come again: what takes its time is no trouble.
    let until
    for (;;) {
      let response
      try {
        const shown = Object.entries({ Authorization: `Bearer ${token()}`, ...headers }).filter(([, value]) => value)
        const pieces = typeof body === 'function' ? { body: body(), duplex: 'half' } : { body }
        response = await fetch(base + path, { method, headers: Object.fromEntries(shown), ...pieces })
        if (whole) response = new Response(response.status === 204 ? null : await response.arrayBuffer(), response)
      } catch (error) {
        say('broken', { method, path, why: error.cause?.code ?? String(error.cause ?? error) })
        until ??= Date.now() + PATIENCE_MS
        if (Date.now() > until) throw error
        await sleep(100)
        continue
      }
      const { status } = response
      const later = response.headers.get('retry-after')
      if (later !== null) until ??= Date.now() + PATIENCE_MS
      if (again && later !== null && [409, 429, 503].includes(status) && Date.now() < until) {
        say('put off', { method, path, status })
        await response.arrayBuffer()
        await sleep(Number(later) * 1000)
        continue
      }
      return response
    }
  }
}

/** What the contract says of an answer that refuses: its status, and whether its document is one. */
export async function problem(response) {
  const type = response.headers.get('content-type') ?? ''
  const document = type.startsWith('application/problem+json') ? await response.json() : {}
  const whole = ['type', 'title', 'detail'].every((name) => typeof document[name] === 'string') && document.status === response.status
  return { status: response.status, document: whole, fields: (document.errors ?? []).map(({ field }) => field) }
}
