// A7: uploads that are cut at each tenth of their length, and then some that need all the room of their user. usage: node cut.mjs URL ROOM LONGEST
// Every second one does not say its length before.

import http from 'node:http'
import { api } from './api.mjs'
import { Page, say, until } from './page.mjs'
import { TYPE, kept, recording } from './recording.mjs'

const [url, room, longest] = process.argv.slice(2)
const BYTES = 1024 * 1024
const SOON_MS = 200 // until what was written is there

const page = new Page(url)
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)
const voice = recording(page.session, BYTES)

/** Send so many bytes of an upload, and hang up. */
function cut(tenth) {
  const headers = { Authorization: `Bearer ${page.apiToken}`, 'Content-Type': TYPE, ...(tenth % 2 ? { 'Content-Length': BYTES } : {}) }
  return new Promise((resolve) => {
    const upload = http.request(`${url.replace(/^ws/, 'http')}/v1/blobs`, { method: 'POST', headers, agent: false })
    upload.on('response', ({ statusCode }) => say('answered', { tenth, status: statusCode }))
    upload.on('error', ({ code }) => resolve(code))
    upload.on('close', () => resolve('closed'))
    upload.write(voice.subarray(0, (BYTES * tenth) / 10), () => setTimeout(() => upload.destroy(), SOON_MS))
  })
}

for (let tenth = 1; tenth < 10; tenth++) say('cut', { tenth, how: await cut(tenth) })
const blobs = []
for (let n = 1; n <= room / longest; n++) {
  const full = recording(`${page.session} full ${n}`, Number(longest))
  const headers = { 'Content-Type': TYPE, 'Idempotency-Key': `${page.session}-${n}` }
  const filled = await kept(await request('POST', '/v1/blobs', { headers, body: full }), full)
  say('filled', filled)
  blobs.push(filled.blob)
}
say('over', { status: (await request('POST', '/v1/blobs', { headers: { 'Content-Type': TYPE }, body: 'x', again: false })).status })
for (const blob of blobs) {
  say('removed', { status: (await request('DELETE', `/v1/blobs/${blob}`)).status })
  say('gone', { status: (await request('GET', `/v1/blobs/${blob}`)).status })
}
say('end')
process.exit(0)
