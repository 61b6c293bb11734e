// B1 and B2: a page whose worker dies in the middle of a job and of an answer. usage: node attempts.mjs URL
// Another worker begins both anew, and the page shows the higher attempt in the place of the lower one.

import { api } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const PIECES = 40
const shown = new Map() // stream → what the page shows of it
let job = null

const page = new Page(url, {
  on: {
    message: ({ stream, attempt = 1, data, end = false }) => {
      const before = shown.get(stream)
      if (before?.attempt > attempt) say('older', { stream, attempt })
      const text = before?.attempt === attempt ? before.text : ''
      shown.set(stream, { attempt, text: text + data, end })
      say('piece', { answer: stream !== job, attempt })
    },
  },
})
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)
const made = await request('POST', '/v1/jobs', {
  headers: { 'Idempotency-Key': `attempts-${page.session}`, 'Content-Type': 'application/json' },
  body: JSON.stringify({ kind: 'count', data: { pieces: PIECES, every_ms: 100 } }),
})
job = (await made.json()).job
page.send({ generate: 'answer' })

commands(async () => {
  await until(() => shown.get(job)?.end && shown.get('answer').attempt === 2)
  page.send({ finish: 'answer' })
  await until(() => shown.get('answer').end)
  const { state, attempt, result } = await (await request('GET', `/v1/jobs/${job}`)).json()
  say('end', { state, attempt, result, job: shown.get(job), answer: shown.get('answer') })
  process.exit(0)
})
