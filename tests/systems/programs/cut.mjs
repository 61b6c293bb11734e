// A7: uploads that are cut at each tenth of their length, and then some that need all the room of their user. usage: node cut.mjs URL ROOM LONGEST
// Every second one does not say its length before. All those that are cut, and the first one that is whole, have the same key: while the
// node has not seen the last cut it is in use (409), and from then on there is room.

import http from 'node:http'
import { api } from './api.mjs'
import { Page, say, until } from './page.mjs'
import { TYPE, kept, recording } from './recording.mjs'

const [url, room, longest] = process.argv.slice(2)
const BYTES = 1024 * 1024
const SOON_MS = 200 // until what was written is there
const AGAIN_MS = 100 // before another look at the key

const page = new Page(url)
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)
const voice = recording(page.session, BYTES)
const KEY = `${page.session}-1`

/** Begin an upload, send so many bytes of it once it has its place, and hang up; return how it ended, or the status it was answered with. */
function cut(tenth) {
  const length = tenth % 2 ? { 'Content-Length': BYTES } : { 'Transfer-Encoding': 'chunked' }
  const headers = { Authorization: `Bearer ${page.apiToken}`, 'Content-Type': TYPE, 'Idempotency-Key': KEY, Expect: '100-continue', ...length }
  return new Promise((resolve) => {
    const upload = http.request(`${url.replace(/^ws/, 'http')}/v1/blobs`, { method: 'POST', headers, agent: false })
    upload.on('response', ({ statusCode }) => {
      resolve({ status: statusCode })
      upload.destroy()
    })
    upload.on('error', ({ code }) => resolve({ how: code }))
    upload.on('close', () => resolve({ how: 'closed' }))
    upload.on('continue', () => {
      say('begun', { tenth })
      upload.write(voice.subarray(0, (BYTES * tenth) / 10), () => setTimeout(() => upload.destroy(), SOON_MS))
    })
    upload.flushHeaders()
  })
}

/** Call `post()` until the upload that was cut before has left the key; return what it then returns, which tells its status by `status`. */
async function withKey(post) {
  for (;;) {
    const answer = await post()
    if (answer.status !== 409) return answer
    say('unseen')
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS))
  }
}

for (let tenth = 1; tenth < 10; tenth++) say('cut', { tenth, ...(await withKey(() => cut(tenth))) })
const blobs = []
for (let n = 1; n <= room / longest; n++) {
  const full = recording(`${page.session} full ${n}`, Number(longest))
  const headers = { 'Content-Type': TYPE, 'Idempotency-Key': `${page.session}-${n}` }
  const post = () => request('POST', '/v1/blobs', { headers, body: full, again: n > 1 })
  const filled = await kept(await withKey(post), full)
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
