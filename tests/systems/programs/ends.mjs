// B1: how jobs end that do not succeed by themselves. usage: node ends.mjs URL

import { api, problem } from './api.mjs'
import { Page, say, until } from './page.mjs'

const [url] = process.argv.slice(2)
const pushed = new Map() // what the worker said of each job
const states = new Map() // what signald said of each job

const page = new Page(url, {
  on: {
    message: ({ stream, data, outcome, end = false }) => pushed.set(stream, [...(pushed.get(stream) ?? []), { data, end, outcome }]),
    job_state: ({ job, state }) => states.set(job, [...(states.get(job) ?? []), state]),
  },
})
await until(() => page.apiToken)
const request = api(url, () => page.apiToken)
let keys = 0

async function post(job, headers = {}) {
  const key = `key ${++keys} of ${page.session}`.replaceAll(' ', '-')
  const body = JSON.stringify(job)
  const answer = await request('POST', '/v1/jobs', { headers: { 'Idempotency-Key': key, 'Content-Type': 'application/json', ...headers }, body })
  return { status: answer.status, applied: answer.headers.get('preference-applied'), ...(await answer.json()) }
}

/** The job when it has ended, asked for with `Prefer: wait`; a node that drains answers before. */
async function ended(job) {
  for (;;) {
    const view = await (await request('GET', `/v1/jobs/${job}`, { headers: { Prefer: 'wait=10' } })).json()
    if (!['queued', 'running'].includes(view.state)) return view
  }
}

async function tell(step, job, more = {}) {
  const view = await ended(job)
  const result = await problem(await request('GET', `/v1/jobs/${job}/result`))
  const again = await request('DELETE', `/v1/jobs/${job}`)
  const outcome = (pushed.get(job) ?? []).findLast(({ end }) => end)?.outcome
  say('ended', { step, state: view.state, code: view.error?.code, result: result.status, again: again.status, outcome, states: states.get(job), ...more })
}

const waited = await post({ kind: 'count', data: { pieces: 3, every_ms: 10 } }, { Prefer: 'wait=10' })
await ended(waited.job)
say('waited', { status: waited.status, applied: waited.applied, state: waited.state, result: waited.result })

const slow = await post({ kind: 'until', data: {} })
await until(() => (pushed.get(slow.job) ?? []).length > 2)
const early = await problem(await request('GET', `/v1/jobs/${slow.job}/result`, { again: false }))
const cancelled = await request('DELETE', `/v1/jobs/${slow.job}`)
await until(() => pushed.get(slow.job).some(({ end }) => end))
await tell('cancelled', slow.job, { status: cancelled.status, early: early.status })

const failed = await post({ kind: 'fail', data: {} })
await until(() => pushed.get(failed.job)?.some(({ end }) => end))
await tell('failed', failed.job)

const late = await post({ kind: 'until', data: {}, deadline_ms: 700 })
await until(() => states.get(late.job)?.includes('expired'))
await tell('expired', late.job)

say('end')
process.exit(0)
