// Voices as the programs of blobs record them, and what comes back of them. Written from docs/http.md alone.

import { createHash } from 'node:crypto'

export const TYPE = 'audio/test'

/** The bytes of a voice, by its name: any values, and no two voices alike. */
export const recording = (name, length) => createHash('shake256', { outputLength: length }).update(name).digest()

export const digest = (bytes) => createHash('sha256').update(bytes).digest('hex')

/** Yield `bytes` as a microphone does: piece by piece, with `pause()` before each. */
export async function* pieces(bytes, count, pause) {
  const size = Math.ceil(bytes.length / count)
  for (let at = 0; at < bytes.length; at += size) {
    await pause(at / bytes.length)
    yield bytes.subarray(at, at + size)
  }
}

/** What the answer to an upload tells: its status, and whether it is of these bytes. */
export async function kept(response, bytes) {
  const shown = response.status === 201 ? await response.json() : {}
  const own = shown.bytes === bytes.length && shown.sha256 === digest(bytes) && shown.content_type === TYPE
  const { blob } = shown
  return { status: response.status, blob, own, located: response.headers.get('location') === `/v1/blobs/${blob}`, replayed: response.headers.get('idempotency-replayed') }
}

/** Read a blob by ranges of a third each; tell whether the thirds are `bytes`, and what they say of themselves. */
export async function ranged(request, blob, bytes) {
  const size = Math.ceil(bytes.length / 3)
  const parts = []
  const told = new Set()
  for (let at = 0; at < bytes.length; at += size) {
    const last = Math.min(at + size, bytes.length) - 1
    const answer = await request('GET', `/v1/blobs/${blob}`, { headers: { Range: `bytes=${at}-${last}` } })
    parts.push(Buffer.from(await answer.arrayBuffer()))
    const place = answer.headers.get('content-range') === `bytes ${at}-${last}/${bytes.length}`
    const safe = answer.headers.get('x-content-type-options') === 'nosniff' && answer.headers.get('content-disposition')?.startsWith('attachment')
    told.add(answer.status === 206 && place && safe && answer.headers.get('content-type') === TYPE)
  }
  return { whole: Buffer.concat(parts).equals(bytes), proper: told.size === 1 && told.has(true) }
}
