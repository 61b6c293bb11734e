// A9: a page that the core server lets in, or does not. usage: node core.mjs URL [LINES]
// Says a line now and then, or so many LINES, with a job behind every third; then, or on `end`, it ends its session.

import { api } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'

const [url, lines] = process.argv.slice(2)
const EVERY_MS = 200
let ended = false
let answered = 0
const over = new Set() // jobs

const page = new Page(url, {
  on: {
    opened: ({ type, settings }) => say('settings', { type, settings }),
    message: ({ stream, end, data }) => {
      if (stream !== undefined) {
        if (end) over.add(stream)
        return
      }
      answered = data.to
      say('answered', { to: data.to })
    },
    gone: () => process.exit(0),
  },
})
commands(() => {
  ended = true
})

const request = api(url, () => page.apiToken)
const jobs = []
async function submit(n) {
  const headers = { 'Idempotency-Key': `${page.session}-${n}`, 'Content-Type': 'application/json' }
  const answer = await request('POST', '/v1/jobs', { headers, body: '{"kind":"count","data":{"pieces":1}}' })
  const { job } = await answer.json()
  jobs.push(job)
  say('submitted', { job, status: answer.status })
}

await until(() => page.session && page.apiToken)
for (let n = 1; !ended && (lines === undefined || n <= lines); n++) {
  page.send({ line: n })
  if (n % 3 === 0) await submit(n)
  await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
}
await until(() => page.outbox.length === 0 && answered === page.said && jobs.every((job) => over.has(job)))
await page.bye()
say('end', { said: page.said })
process.exit(0)
