// B1 and B2: a page that asks over HTTP and is answered over its WebSocket. usage: node jobs.mjs URL
// Each job has a key of its own; some requests are sent twice, and some keys are misused. On `end` no more is asked, and everything
// is fetched by its id as well.

import { createHash } from 'node:crypto'
import { api, problem } from './api.mjs'
import { Page, commands, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const EVERY_MS = Number(process.env.EVERY_MS ?? 200) // between two requests
// Everything is fetched at the end, by two requests for each job, and a node takes 20 a second: in a long story that is all that is waited for.
const QUICK = 60 // jobs, unless all are asked for at one pace
const SLOW_MS = 600 // between those behind them
const PIECE_MS = Number(process.env.PIECE_MS ?? 20) // between two pieces of a result
const PIECES = 3
const jobs = new Map() // number → id
const over = new Set() // ids of those whose end was pushed
let ended = false

const hash = (bytes) => createHash('sha256').update(bytes).digest('hex')

const page = new Page(url, {
  on: {
    message: ({ stream, attempt, data, binary = false, end = false, outcome }) => {
      say('piece', { job: stream, attempt, data: binary ? hash(data) : data, binary, end, outcome })
      if (!end) return
      over.add(stream)
      say('over', { job: stream })
    },
    job_state: ({ job, state }) => say('state', { job, state }),
  },
})
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)

const kind = (n) => (n % 3 === 0 ? 'bytes' : 'count')
const post = (n, pieces = PIECES) =>
  request('POST', '/v1/jobs', {
    headers: { 'Idempotency-Key': `${page.session}-${n}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ kind: kind(n), data: { n, pieces, every_ms: PIECE_MS } }),
  })

async function submit(n) {
  const answer = await post(n)
  const { job, session, state } = await answer.json()
  jobs.set(n, job)
  say('accepted', {
    n,
    job,
    state,
    status: answer.status,
    own: session === page.session,
    location: answer.headers.get('location'),
    later: answer.headers.get('retry-after'),
    replayed: answer.headers.get('idempotency-replayed'),
  })
  if (n % 4 === 0) {
    const repeated = await post(n)
    say('repeated', { status: repeated.status, same: (await repeated.json()).job === job, replayed: repeated.headers.get('idempotency-replayed') })
  }
  if (n % 5 === 0) say('misused', await problem(await post(n, PIECES + 1)))
}

async function fetched(n, job) {
  const view = await (await request('GET', `/v1/jobs/${job}`)).json()
  const result = await request('GET', `/v1/jobs/${job}/result`)
  const bytes = Buffer.from(await result.arrayBuffer())
  say('fetched', {
    n,
    job,
    state: view.state,
    attempt: view.attempt,
    result: view.result,
    result_url: view.result_url,
    times: [view.created_at, view.started_at, view.ended_at],
    status: result.status,
    content_type: result.headers.get('content-type'),
    body: kind(n) === 'bytes' ? hash(bytes) : bytes.toString(),
  })
}

commands(() => {
  ended = true
})

for (let n = 1; !ended; n++) {
  await submit(n)
  await new Promise((resolve) => setTimeout(resolve, n < QUICK || process.env.EVERY_MS ? EVERY_MS : SLOW_MS))
}
await until(() => [...jobs.values()].every((job) => over.has(job)))
for (const [n, job] of jobs) await fetched(n, job)
const listed = await (await request('GET', '/v1/jobs?state=succeeded&limit=5')).json()
say('listed', { jobs: listed.jobs.map(({ job }) => job), next: 'next' in listed })
say('unknown', await problem(await request('GET', `/v1/jobs/${[...jobs.values()][0]}99999`)))
const keyless = await request('POST', '/v1/jobs', { headers: { 'Content-Type': 'application/json' }, body: '{"kind":"count","data":{}}' })
say('without key', await problem(keyless))
say('end', { jobs: jobs.size })
process.exit(0)
