// B2: a page that stops an answer: over its connection, and from another device by HTTP. usage: node stop.mjs URL

import { api } from './api.mjs'
import { Page, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const PIECES = 3
const pieces = new Map()

const page = new Page(url, {
  on: {
    message: ({ stream, data, end = false, outcome }) => pieces.set(stream, [...(pieces.get(stream) ?? []), { data, end, outcome }]),
  },
})
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)

async function stopped(stream, stop) {
  page.send({ generate: stream }, { kind: 'ask' })
  await until(() => pieces.get(stream)?.length > PIECES)
  await stop(stream)
  await until(() => pieces.get(stream).at(-1).end)
  const all = pieces.get(stream)
  say('stopped', { stream, texts: all.map(({ data }) => data), outcome: all.at(-1).outcome })
}

// Repeated without harm: a connection may be gone in this moment, so it is said until the end is there.
await stopped('here', async (stream) => {
  while (!pieces.get(stream).at(-1).end) {
    page.write({ type: 'stream_cancel', stream, reason: 'enough' })
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
})
await stopped('there', async (stream) => {
  const answer = await request('POST', `/v1/sessions/${page.session}/streams/${stream}/cancel`)
  say('asked', { status: answer.status })
})
say('end')
process.exit(0)
