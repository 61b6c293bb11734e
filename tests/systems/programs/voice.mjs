// A7: a page on which voice messages are recorded and played. usage: node voice.mjs URL [RECOVERY_TOKEN]
// Each message names a blob, and is answered with another one, which is played as it comes. With a token it is the same page, reloaded:
// it plays the last ones that it finds. On `end` no more is recorded, and everything that the chat has is played once more.

import { api } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'
import { TYPE, digest, kept, pieces, ranged, recording } from './recording.mjs'

const [url, token] = process.argv.slice(2)
const EVERY_MS = 400
const BYTES = 12000
const PIECES = 8
const FOUND = 4 // voices that a reloaded page plays
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

const voices = [] // to be played, in order
let ended = false
let replies = 0 // the highest voice that was answered

/** What a voice must be: the worker says each backwards. */
const expected = ({ from, n }) => {
  const voice = recording(`${page.session} ${n}`, BYTES)
  return from === 'client' ? voice : Buffer.from(voice).reverse()
}
const voiceOf = ({ from, data, blob }) => ({ from, n: from === 'client' ? data.voice : data.to, blob })
const answered = ({ n }) => {
  replies = Math.max(replies, n)
}

const page = new Page(url, {
  token,
  history: 1000,
  on: {
    opened: ({ chat_history: entries = [] }) => {
      const found = entries.map(voiceOf)
      for (const voice of found) if (voice.from === 'worker') answered(voice)
      voices.push(...found.slice(-FOUND))
      say('found', { voices: found.length })
    },
    message: (message) => {
      const voice = voiceOf({ from: 'worker', ...message })
      answered(voice)
      voices.push(voice)
      say('answered', { n: voice.n, blob: voice.blob })
    },
  },
})
const request = api(url, () => page.apiToken)

async function record(n) {
  const voice = recording(`${page.session} ${n}`, BYTES)
  const headers = { 'Idempotency-Key': `${page.session}-${n}`, 'Content-Type': TYPE }
  const answer = await request('POST', '/v1/blobs', { headers, body: () => pieces(voice, PIECES, () => sleep(10)) })
  const told = await kept(answer, voice)
  say('stored', { n, ...told })
  page.send({ voice: n }, { blob: told.blob })
}

async function play() {
  for (;;) {
    await until(() => voices.length)
    const voice = voices.shift()
    say('played', { ...voice, ...(await ranged(request, voice.blob, expected(voice))) })
  }
}

commands(async () => {
  ended = true
  await until(() => page.session && page.outbox.length === 0 && replies === page.said && !voices.length)
  let path = `/v1/sessions/${page.session}/history?limit=200`
  for (let next = ''; next !== undefined; ) {
    const shown = await (await request('GET', next ? `${path}&before=${next}` : path)).json()
    for (const voice of shown.entries.map(voiceOf)) {
      const answer = await request('GET', `/v1/blobs/${voice.blob}`)
      const bytes = Buffer.from(await answer.arrayBuffer())
      say('kept', { ...voice, status: answer.status, whole: bytes.equals(expected(voice)), tagged: answer.headers.get('etag') === `"${digest(bytes)}"` })
    }
    next = shown.next
  }
  say('end', { said: page.said })
  process.exit(0)
})

await until(() => page.session && page.apiToken)
play()
while (!ended) {
  // The next one that signald does not have: the key of a voice that was kept, and named by no message, finds it.
  await until(() => page.outbox.length === 0)
  if (!ended) await record(page.said + 1)
  await sleep(EVERY_MS)
}
