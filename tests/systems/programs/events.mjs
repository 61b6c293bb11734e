// B1: the events of one long job, read with `fetch` as a browser's EventSource would. usage: node events.mjs URL
// A stream that ends is taken up behind the last event. On `end` the worker is asked to come to an end.

import { api } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const page = new Page(url)
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)

const made = await request('POST', '/v1/jobs', {
  headers: { 'Idempotency-Key': `events-${page.session}`, 'Content-Type': 'application/json' },
  body: JSON.stringify({ kind: 'until', data: {} }),
})
const { job } = await made.json()
commands(() => page.send({ finish: job }))

let last = null // id of the last event
let retry = 100

/** Take an event as the standard says: fields in lines, of which `data` may stand more than once. */
function event(text) {
  const fields = { event: 'message', data: '' }
  for (const line of text.split('\n')) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line)
    if (name === 'data') fields.data += value
    else fields[name] = value
  }
  return fields
}

/** Read one stream; whether it went to the end of the job. */
async function read() {
  const headers = { Accept: 'text/event-stream', ...(last === null ? {} : { 'Last-Event-ID': last }) }
  const answer = await request('GET', `/v1/jobs/${job}/events`, { headers, whole: false })
  say('stream', { status: answer.status, type: answer.headers.get('content-type'), from: last })
  if (answer.status === 204) return true
  let rest = ''
  const decoder = new TextDecoder()
  try {
    for await (const chunk of answer.body) {
      const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n\n')
      rest = parts.pop()
      for (const fields of parts.map(event)) {
        if (fields.retry) retry = Number(fields.retry)
        if (fields.id !== undefined) last = fields.id
        if (!fields.data) continue
        const data = JSON.parse(fields.data)
        if (fields.event === 'end') say('over', { id: last, state: data.state, result: data.result })
        else say('event', { id: last, seq: data.seq, data: data.data, end: data.end ?? false })
        if (fields.event === 'end') return true
      }
    }
  } catch (error) {
    say('broken', { why: error.cause?.code ?? String(error) })
  }
  if (rest.trim()) say('torn', { rest })
  return false
}

while (!(await read())) await new Promise((resolve) => setTimeout(resolve, retry))
const after = await request('GET', `/v1/jobs/${job}/events`, { headers: { 'Last-Event-ID': last } })
say('after', { status: after.status })
say('end')
process.exit(0)
